#!/usr/bin/env python3
"""MeZO (Malladi et al. 2023, arXiv 2305.17333, Algorithm 1) in PyTorch, float32, and backpropagation beside it.

    mezo.py model=DIR train=FILE eval=FILE [option=value..]     one JSON object per line, as bench_learn prints
    mezo.py check model=DIR train=FILE eval=FILE                against a step-by-step reference in float64; exits 1 if they differ
    mezo.py drift model=DIR cycles=N                            what N perturb-and-restore cycles do to weights

Options: method mezo | adamw | sgd, passes (forward passes of one example; a backward pass counts as two), batch (16), lr, eps (1e-3),
seed, evals, eval_max, length, dtype float32 | bfloat16.  lr and seed may be lists, "1e-4,3e-4": one run for each pair.  Examples are onebyte's JSONL: {"text"}, {"text", "label"} or {"prompt", "choices", "label"}, read
as zo/dataset.h says.  Constant lr, as the paper's; schedule=linear falls to zero.
"""
import json
import random
import sys
import time

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

torch.set_num_threads(1)


def read(path, tokenizer, length):
    """[(sequences, counted from, label)]: a text is one sequence, a question one per choice."""
    out = []
    for line in open(path, encoding="utf-8"):
        x = json.loads(line)
        if "label" in x and "choices" not in x:
            out.append(([tokenizer.encode(x["text"]).ids[:length]], None, x["label"]))  # a classifier's
            continue
        if "text" in x:
            ids = tokenizer.encode(x["text"]).ids[:length]
            out.append(([ids], [1], -1))
            continue
        prompt = tokenizer.encode(x["prompt"]).ids
        seqs = [tokenizer.encode(x["prompt"] + c).ids for c in x["choices"]]
        starts = [next((i for i, (a, b) in enumerate(zip(prompt, s)) if a != b), len(prompt)) for s in seqs]
        out.append((seqs, starts, x["label"]))
    return out


def losses(model, examples):
    """Loss of each example [n], and whether the right choice scores highest (None: no choices)."""
    if examples[0][1] is None:
        return class_losses(model, examples)
    flat = [(s, start) for seqs, starts, _ in examples for s, start in zip(seqs, starts)]
    n = max(len(s) for s, _ in flat)
    ids, counted = torch.zeros(len(flat), n, dtype=torch.long), torch.zeros(len(flat), n - 1)
    mask = torch.zeros(len(flat), n, dtype=torch.long)
    for i, (s, start) in enumerate(flat):
        ids[i, :len(s)], mask[i, :len(s)] = torch.tensor(s), 1
        counted[i, max(start, 1) - 1:len(s) - 1] = 1
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
    nats = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    mean = (nats * counted).sum(1) / counted.sum(1)
    out, correct, at = [], [], 0
    for seqs, _, label in examples:
        scores = -mean[at:at + len(seqs)]
        at += len(seqs)
        out.append(-scores[0] if label < 0 else -F.log_softmax(scores, 0)[label])
        correct.append(None if label < 0 else int(scores.argmax()) == label)
    return torch.stack(out), correct


def class_losses(model, examples):
    n = max(len(seqs[0]) for seqs, _, _ in examples)
    ids, mask = torch.zeros(len(examples), n, dtype=torch.long), torch.zeros(len(examples), n, dtype=torch.long)
    for i, (seqs, _, _) in enumerate(examples):
        ids[i, :len(seqs[0])], mask[i, :len(seqs[0])] = torch.tensor(seqs[0]), 1
    logits, labels = model(input_ids=ids, attention_mask=mask).logits.float(), torch.tensor([label for _, _, label in examples])
    return F.cross_entropy(logits, labels, reduction="none"), (logits.argmax(1) == labels).tolist()


class Mezo:
    def __init__(self, model, eps, lr):
        self.parameters, self.eps, self.lr = [p for p in model.parameters()], eps, lr
        self.model = model

    def perturb(self, seed, scale):
        generator = torch.Generator().manual_seed(seed)
        for p in self.parameters:
            p.data.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype), alpha=scale)

    def step(self, batch, seed, lr):
        with torch.inference_mode():
            self.perturb(seed, self.eps)
            plus = losses(self.model, batch)[0].mean().item()
            self.perturb(seed, -2 * self.eps)
            minus = losses(self.model, batch)[0].mean().item()
            self.perturb(seed, self.eps)
            g = (plus - minus) / (2 * self.eps)
            self.perturb(seed, -lr * g)
        return g


def options(argv, **defaults):
    for a in argv:
        key, _, value = a.partition("=")
        if key not in defaults:
            raise SystemExit(f"mezo.py: no option {key}")
        defaults[key] = type(defaults[key])(value)
    return defaults


def load(o):
    classifier = "SequenceClassification" in str(AutoConfig.from_pretrained(o["model"]).architectures)
    kind = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    tokenizer = Tokenizer.from_file(o["model"] + "/tokenizer.json")
    tokenizer.no_padding()
    return kind.from_pretrained(o["model"], dtype=getattr(torch, o["dtype"])).eval(), tokenizer


def evaluate(model, data):
    total, right, n = 0.0, 0, 0
    with torch.inference_mode():
        for i in range(0, len(data), 16):
            loss, correct = losses(model, data[i:i + 16])
            total += loss.sum().item()
            right += sum(c is True for c in correct)
            n += sum(c is not None for c in correct)
    return total / len(data), right / n if n else None


def train(o):
    model, tokenizer = load(o)
    data, held = read(o["train"], tokenizer, o["length"]), read(o["eval"], tokenizer, o["length"])
    held = held[:o["eval_max"]] if o["eval_max"] else held
    draw, mezo, passes, cpu = random.Random(o["seed"]), Mezo(model, o["eps"], o["lr"]), 0, 0.0
    per_step = (2 if o["method"] == "mezo" else 3) * o["batch"]
    optimizer = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}.get(o["method"])
    optimizer = optimizer and optimizer(model.parameters(), lr=o["lr"])
    print(json.dumps({"parameters": sum(p.numel() for p in model.parameters()), **o}))

    def report():
        loss, accuracy = evaluate(model, held)
        print(json.dumps({"passes": passes, "records": passes // per_step, "loss": round(loss, 6), "accuracy": accuracy,
                          "measure_s": round(cpu, 3), "fold_s": 0}), flush=True)

    report()
    for i in range(1, o["evals"] + 1):
        start = time.process_time()
        while passes < o["passes"] * i // o["evals"] and passes + per_step // 2 < o["passes"]:
            batch = [data[draw.randrange(len(data))] for _ in range(o["batch"])]
            lr = o["lr"] * (1 - passes / o["passes"] if o["schedule"] == "linear" else 1)
            if optimizer:
                optimizer.param_groups[0]["lr"] = lr
                optimizer.zero_grad()
                losses(model, batch)[0].mean().backward()
                optimizer.step()
            else:
                mezo.step(batch, o["seed"] * 1000003 + passes, lr)
            passes += per_step
        cpu += time.process_time() - start
        report()


def check(o, steps=5):
    """The same steps with nothing restored: theta + eps z is made afresh, in float64, from stored z."""
    model, tokenizer = load(o)
    reference, _ = load(o)
    reference = reference.double()
    names = [n for n, _ in reference.named_parameters()]
    theta = {n: p.detach().clone() for n, p in reference.named_parameters()}
    data = read(o["train"], tokenizer, o["length"])
    mezo, eps, lr, worst = Mezo(model, o["eps"], o["lr"]), o["eps"], o["lr"], 0.0

    def loss_at(values, batch):
        with torch.no_grad():
            for n, p in reference.named_parameters():
                p.copy_(values[n])
            return losses(reference, batch)[0].mean().item()

    for step in range(steps):
        batch = data[8 * step:8 * step + 8]
        generator = torch.Generator().manual_seed(step)
        z = {n: torch.randn(theta[n].shape, generator=generator).double() for n in names}
        plus = loss_at({n: theta[n] + eps * z[n] for n in names}, batch)
        minus = loss_at({n: theta[n] - eps * z[n] for n in names}, batch)
        g = (plus - minus) / (2 * eps)
        got = mezo.step(batch, step, lr)
        theta = {n: theta[n] - lr * g * z[n] for n in names}
        worst = max(worst, abs(got - g) / max(1.0, abs(g)))
    apart = max((p.detach().double() - theta[n]).abs().max().item() for n, p in model.named_parameters())
    # Losses carry 2^-24 of a few nats, divided by 2 eps: about 2e-4 of a gradient of order 1 at eps 1e-3.
    ok = worst < 5e-3 and apart < 1e-5
    print(json.dumps({"steps": steps, "worst_relative_gradient_error": worst, "worst_parameter_error": apart, "ok": ok}))
    return 0 if ok else 1


def drift(o):
    for dtype in ("float32", "bfloat16"):
        model, _ = load({**o, "dtype": dtype})
        mezo = Mezo(model, o["eps"], 0)
        # Every weight drifts by itself: the first layer's attention stands for all, and saves hours.
        mezo.parameters = [p for n, p in model.named_parameters() if "layers.0.self_attn" in n]
        before = [p.detach().clone() for p in mezo.parameters]
        for cycle in range(1, o["cycles"] + 1):
            for scale in (o["eps"], -2 * o["eps"], o["eps"]):
                mezo.perturb(cycle, scale)
            if cycle in (100, 1000, o["cycles"]):
                d = [(p.detach().float() - b.float()).abs() for p, b in zip(mezo.parameters, before)]
                weight = sum(b.float().abs().sum().item() for b in before)
                print(json.dumps({"dtype": dtype, "cycles": cycle, "max": max(x.max().item() for x in d),
                                  "mean_over_mean_weight": sum(x.sum().item() for x in d) / weight}), flush=True)


def main():
    argv = sys.argv[1:]
    what = argv.pop(0) if argv and "=" not in argv[0] else "train"
    o = options(argv, model="", train="", eval="", method="mezo", passes=12000, batch=16, lr="1e-4", eps=1e-3, seed="0", evals=4, eval_max=0,
                length=4096, dtype="float32", cycles=10000, schedule="constant")
    pairs = [(float(lr), int(seed)) for lr in o["lr"].split(",") for seed in o["seed"].split(",")]
    codes = [{"train": train, "check": check, "drift": drift}[what]({**o, "lr": lr, "seed": seed}) for lr, seed in pairs]
    return max(code or 0 for code in codes)


sys.exit(main())
