#!/usr/bin/env python3
"""What PyTorch and transformers say about the embedded model: writes tests/vectors/model.json for tests/zo/test_reference.c.

    build/venv/bin/python tests/reference/model_reference.py [--check]

needs torch, transformers and tokenizers; --check recomputes and compares with the committed file instead (exit 1).
Everything is computed in float64 from the stored float32 weights, so that the C engine's float32 error is all that a
comparison sees.  Directions come from tests/vectors/spec.py, never from the C code.  A direction enters as
theta + eps z on a copy of the model, one copy per pass: the plain definition, nothing shared.

lines      JSON lines of a data set with every kind of example
examples   per line: seqs [{ids, counted}], label, loss (nats), nats (sum over counted tokens), tokens, correct
eval       of peer/demo/eval.jsonl: examples, loss (mean), accuracy, first (losses of the first 16)
logits     ids and the logits of every position
projected  direction, run_id, machine, eps, rows [{example, seq, loss_plus, loss_minus, g}]; one-sided groups
           [{example, first_seq, loss_0, losses, g}] of K directions each
"""
import argparse, json, math, os, sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
sys.path.insert(0, os.path.join(HERE, "..", "vectors"))
import spec                                                                                              # noqa: E402
import torch                                                                                             # noqa: E402
from tokenizers import Tokenizer                                                                         # noqa: E402
from transformers import AutoModelForCausalLM                                                            # noqa: E402

MODEL = os.path.join(ROOT, "peer", "demo", "model")
FILE = os.path.join(HERE, "..", "vectors", "model.json")
EPS = 0.01
LINES = [
    {"text": "the film was very lovely . anna praised the film and smiled ."},
    {"text": "everyone in the museum sighed . greta hated the gloomy room near the harbour . answer : awful . no , it was a red chair"},
    {"text": "lamp Unknownword lamp , really ?"},
    {"prompt": "felix found the old piano . nobody", "completion": " said that the superb song was boring ."},
    {"prompt": "verdict :", "completion": " yes"},
    {"prompt": "maria loved the fresh soup . this is a broken phone , david said . verdict :", "choices": [" yes", " no"], "label": 1},
    {"prompt": "it was a charming and warm hotel . verdict :", "choices": [" yes", " no", " question ?"], "label": 0},
    {"prompt": "the bridge looked", "choices": [" really awful .", " large", " very very very lovely and elegant ."], "label": 2},
]


def sequences(tokenizer, e):
    """[(ids, counted)] and label: the prompt's tokens followed by the tokens of what counts."""
    ids = lambda text: tokenizer.encode(text, add_special_tokens=True).ids
    if "text" in e:
        t = ids(e["text"])
        return [(t, [0] + [1] * (len(t) - 1))], -1
    p = ids(e["prompt"])
    if "completion" in e:
        c = ids(e["completion"])
        return [(p + c, [0] * len(p) + [1] * len(c))], -1
    return [(p + c, [0] * len(p) + [1] * len(c)) for c in map(ids, e["choices"])], e["label"]


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double()


def loss(model, seqs, label):
    """(loss, nats, tokens, correct)"""
    score, nats, tokens = [], 0.0, 0
    for ids, counted in seqs:
        logp = logits(model, ids)[:-1].log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        kept = logp[torch.tensor(counted[1:]) == 1]
        score.append(kept.mean())
        nats -= kept.sum().item()
        tokens += len(kept)
    if label < 0:
        return -score[0].item(), nats, tokens, -1
    score = torch.stack(score)
    return -score.log_softmax(0)[label].item(), nats, tokens, int(score.argmax().item() == label)


def open_model():
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).double()
    model.eval()
    return model


def named(model):
    """Trainable tensors in number order: byte order of the names, tied copies once."""
    return sorted(model.named_parameters(remove_duplicate=True), key=lambda kv: kv[0].encode())


def perturbed_loss(model, kind, key, seq, eps, example):
    scale, saved = (0.25 if kind == "gaussian" else 1.0), {}
    for number, (name, p) in enumerate(named(model)):
        h = torch.tensor(spec.direction(kind, key, number, list(p.shape), seq), dtype=torch.float64).view(p.shape)
        saved[name] = p.data
        p.data = p.data + eps * scale * h
    out = loss(model, *example)[0]
    for name, p in named(model):
        p.data = saved[name]
    return out


def projected(model, examples):
    out = []
    for i, kind in enumerate(("rank1", "rademacher", "gaussian")):
        run_id, machine = spec.h256(b"reference run", bytes([i])), spec.ed_public(spec.seed_of("reference"))
        key, rows, groups = spec.stream_key(run_id, machine), [], []
        for n, seq in ((0, 0), (3, 1), (5, 2), (7, 2**32 + 3)):
            a, b = (perturbed_loss(model, kind, key, seq, s * EPS, examples[n]) for s in (1, -1))
            rows.append({"example": n, "seq": seq, "loss_plus": a, "loss_minus": b, "g": (a - b) / (2 * EPS)})
        for n, first in ((1, 14), (5, 2**33 // 7 * 7)):
            zero = loss(model, *examples[n])[0]
            losses = [perturbed_loss(model, kind, key, first + k, EPS, examples[n]) for k in range(7)]
            g = [(x - zero) / EPS for x in losses]
            groups.append({"example": n, "first_seq": first, "loss_0": zero, "losses": losses, "g": [x - sum(g) / len(g) for x in g]})
        out.append({"direction": kind, "run_id": run_id.hex(), "machine": machine.hex(), "key": list(key), "eps": EPS, "rows": rows,
                    "groups": groups})
    return out


def rounded(x):
    if isinstance(x, float):
        return float(f"{x:.10g}")
    if isinstance(x, dict):
        return {k: rounded(v) for k, v in x.items()}
    return [rounded(v) for v in x] if isinstance(x, list) else x


def make():
    torch.set_num_threads(1)
    tokenizer, model = Tokenizer.from_file(os.path.join(MODEL, "tokenizer.json")), open_model()
    examples = [sequences(tokenizer, e) for e in LINES]
    rows = []
    for seqs, label in examples:
        value, nats, tokens, correct = loss(model, seqs, label)
        rows.append({"seqs": [{"ids": i, "counted": c} for i, c in seqs], "label": label, "loss": value, "nats": nats, "tokens": tokens,
                     "correct": correct})
    with open(os.path.join(ROOT, "peer", "demo", "eval.jsonl")) as f:
        held_out = [loss(model, *sequences(tokenizer, json.loads(line))) for line in f]
    ids = examples[3][0][0][0]
    return rounded({"lines": [json.dumps(e) for e in LINES], "examples": rows,
                    "tensors": [[name, list(p.shape)] for name, p in named(model)],
                    "eval": {"examples": len(held_out), "loss": sum(x[0] for x in held_out) / len(held_out),
                             "accuracy": sum(x[3] for x in held_out) / len(held_out), "first": [x[0] for x in held_out[:16]]},
                    "logits": {"ids": ids, "rows": logits(model, ids).tolist()},
                    "projected": projected(model, examples)})


def differences(a, b, path=""):
    """Where two such objects differ by more than rounding."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for k in a for d in differences(a[k], b[k], f"{path}.{k}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b)) for d in differences(x, y, f"{path}[{i}]")]
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return [] if math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6) else [f"{path}: {a} {b}"]
    return [] if a == b else [f"{path}: {a} {b}"]


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("--check", action="store_true")
    data = make()
    if a.parse_args().check:
        with open(FILE) as f:
            bad = differences(json.load(f), data)
        print("\n".join(bad) if bad else "model.json: equal")
        sys.exit(1 if bad else 0)
    with open(FILE, "w") as f:
        f.write(",\n".join(json.dumps(data, separators=(",", ":")).split(",{")).replace(",\n", ",\n{") + "\n")


if __name__ == "__main__":
    main()
