#!/usr/bin/env python3
"""Whole runs of every architecture by the command line, read by the tools that users have.

    build/venv/bin/python tests/check_runs.py [--only NAME] [--all]

Per architecture, on a tiny random checkpoint made by `transformers` (and on peer/demo/model):
  * all parameters are trained and exported; `from_pretrained` reads what was exported, PyTorch's logits of it are ours
    (test_model), its loss on the data is what `eval --home` says, and `--dtype bf16 --shard-size` holds the same, rounded;
  * what `generate` says, and `eval --generate`'s exact match and F1, are those of transformers' own greedy generation (demo);
  * a PyTorch .bin is refused with a command that converts it (opt, bert);
  * adapters on every matrix are trained and exported; PEFT reads them without a missing or an unexpected name, and its logits
    are those of the merged export, but not the base model's.
--all: the variants of an architecture, too (rope scaling, sharded files, old names).  Needs PyPI: torch, transformers, peft.
"""
import argparse
import collections
import json
import os
import pathlib
import random
import re
import shutil
import string
import subprocess
import sys
import tempfile
import warnings
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
try:
    import peft
    import torch
    import transformers as tf
    from safetensors.torch import load_file
except ImportError as e:
    own = ROOT / "build/venv/bin/python"
    if own.exists() and pathlib.Path(sys.prefix) != own.parent.parent:
        os.execv(own, [str(own), *sys.argv])
    print(f"skip check_runs: needs the PyPI packages torch, transformers and peft: {e}")
    sys.exit(0)
import check_models as models  # noqa: E402

ONEBYTE = os.environ.get("ONEBYTE", str(ROOT / "build/onebyte"))
SHORT = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3", "gpt2", "gpt_neox", "opt", "bert", "bert_classify",
         "roberta", "roberta_classify")
LIMIT_S = 240


def onebyte(*args):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ONEBYTE", "XDG_STATE"))}
    p = subprocess.run([ONEBYTE, *map(str, args)], capture_output=True, text=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL, env=env)
    assert p.returncode == 0, f"onebyte {' '.join(map(str, args))}: exit {p.returncode}: {p.stderr.strip()[-400:]}"
    return p.stdout


def word(i):
    return {0: "<unk>", 4: "[MASK]"}.get(i, f"w{i}")


def write_tokenizer(folder):
    """One word per id: the texts below are their ids."""
    vocab = {word(i): i for i in range(models.VOCAB)}
    (folder / "tokenizer.json").write_text(json.dumps(dict(
        version="1.0", truncation=None, padding=None, added_tokens=[], normalizer=None, pre_tokenizer={"type": "WhitespaceSplit"},
        post_processor=None, decoder=None, model={"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"})))


def write_data(path, kind, rng):
    """JSON lines of random ids, and the same as check_models' examples."""
    examples, lines = [], []
    for n in (9, 6, 12, 7):
        ids = [rng.randrange(5, models.VOCAB) for _ in range(n)]
        text, border = " ".join(map(word, ids)), 0 if kind == "classify" else n // 2 if kind == "masked" else 1
        line = {"text": text}
        if kind == "classify":
            line["label"] = len(lines) % 2
        elif kind == "masked":
            line = {"prompt": " ".join(map(word, ids[:border])), "completion": " " + " ".join(map(word, ids[border:]))}
        counted = [0] * n if kind == "classify" else [0] * border + [1] * (n - border)
        examples.append(dict(seqs=[dict(ids=ids, counted=counted)], label=line.get("label", -1)))
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines) + "\n")
    return examples


def train(d, name, model, data, trainable, lr):
    home = d / name
    onebyte("init", "--home", home, "--out", d / f"{name}.json", "--model", model, "--data", data, "--eval-data", data, "--n0", 8,
            "--steps", 2, "--schedule", "constant", "--eps", 0.01, "--lr", lr, "--trainable", trainable)
    onebyte("run", d / f"{name}.json", "--home", home, "--threads", 1, "--linger", 0, "--listen", "127.0.0.1:0")
    return home, json.loads(onebyte("eval", "--home", home, "--json").splitlines()[-1])["loss_example_mean"]


def opened(cls, folder):
    return cls.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()


def logits(model, examples):
    return [models.logits_of(model, e["seqs"][0]["ids"]) for e in examples]


def mean_loss(model, examples, kind):
    mask = getattr(model.config, "mask_token_id", None)
    return sum(models.loss_of(model, e, kind, mask)[0] for e in examples) / len(examples)


def apart(a, b):
    """Largest difference, relative to the largest value."""
    return max((x - y).abs().max().item() for x, y in zip(a, b)) / max(x.abs().max().item() for x in a)


def near(got, want, what):
    assert abs(got - want) <= 2e-5 * max(1.0, abs(want)), f"{what}: {got}, expected {want}"


def check_full(d, cls, kind, model, data, examples, tool):
    home, loss = train(d, "all", model, data, "all", 0.003)
    onebyte("export", "--home", home, "--out", d / "out", "--dtype", "f32")
    base, out = opened(cls, model), opened(cls, d / "out")
    assert apart(logits(base, examples), logits(out, examples)) > 1e-4, "nothing was trained"
    near(loss, mean_loss(out, examples, kind), "eval --home against PyTorch's loss of the export")
    models.expect(d / "out", d / "out/expected.json", cls, random.Random(2), out.config.vocab_size, (1, 6))
    p = subprocess.run([tool, str(d / "out")], capture_output=True, text=True, timeout=LIMIT_S)
    assert p.returncode == 0, (p.stdout + p.stderr).strip().replace("\n", " | ")[:400]
    onebyte("export", "--home", home, "--out", d / "half", "--dtype", "bf16", "--shard-size", 0.004)
    assert len(list((d / "half").glob("*.safetensors"))) > 1, "not sharded"
    half = {k: v for f in (d / "half").glob("*.safetensors") for k, v in load_file(f).items()}
    want = {k: v.bfloat16() for k, v in load_file(d / "out/model.safetensors").items()}
    assert half.keys() == want.keys() and all(torch.equal(half[k], want[k]) for k in want), "bf16 is not the f32 export, rounded"
    opened(cls, d / "half")


def check_adapters(d, cls, kind, model, data, examples):
    home, loss = train(d, "lora", model, data, "lora:r=2,alpha=4,targets=all", 0.3)
    onebyte("export", "--home", home, "--out", d / "adapter", "--dtype", "f32")
    onebyte("export", "--home", home, "--out", d / "merged", "--merged", "--dtype", "f32")
    merged, base = opened(cls, d / "merged"), opened(cls, model)
    plain = logits(base, examples)
    with warnings.catch_warnings(record=True) as said:  # PEFT only warns of names that it does not find
        warnings.simplefilter("always")
        adapted = peft.PeftModel.from_pretrained(base, d / "adapter").double().eval()
    keys = [str(w.message)[:300] for w in said if "adapter keys" in str(w.message)]
    assert not keys, keys
    stored = load_file(d / "adapter/adapter_model.safetensors")
    wanted = peft.get_peft_model_state_dict(adapted)
    assert stored.keys() == wanted.keys(), f"names differ: {sorted(stored.keys() ^ wanted.keys())[:4]}"
    got = logits(adapted, examples)
    assert apart(plain, got) > 1e-4, "the adapter changed nothing"
    assert apart(got, logits(merged, examples)) < 1e-4, f"PEFT and merged differ by {apart(got, logits(merged, examples))}"
    near(loss, mean_loss(adapted, examples, kind), "eval --home against PEFT's loss")


def demo_examples(path):
    """peer/demo's choices as ids, by transformers' reading of its tokenizer."""
    tok = tf.PreTrainedTokenizerFast(tokenizer_file=str(ROOT / "peer/demo/model/tokenizer.json"))
    out = []
    for line in path.read_text().splitlines():
        e = json.loads(line)
        n = len(tok(e["prompt"])["input_ids"])
        seqs = [tok(e["prompt"] + c)["input_ids"] for c in e["choices"]]
        out.append(dict(label=e["label"], seqs=[dict(ids=s, counted=[0] * n + [1] * (len(s) - n)) for s in seqs]))
    return out


def normal(text):
    """SQuAD's normal form of an answer, as a list of words."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def f1(got, want):
    got, want = normal(got), normal(want)
    if not got or not want:
        return float(got == want)
    common = sum((collections.Counter(got) & collections.Counter(want)).values())
    return 2 * common / (len(got) + len(want))


def check_generation(d, model):
    """Greedy answers to the demo's prompts: transformers' tokens, its text and what SQuAD's rules make of it."""
    tok = tf.PreTrainedTokenizerFast(tokenizer_file=str(model / "tokenizer.json"))
    theirs = tf.LlamaForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    examples = [json.loads(line) for line in (ROOT / "peer/demo/eval.jsonl").read_text().splitlines()[:24]]
    pairs = [(e["prompt"], e["choices"][e["label"]]) for e in examples] + [("the bread was", " really generous , the cook said")]
    said = []
    for prompt, _ in pairs:
        ids = torch.tensor([tok(prompt)["input_ids"]])
        out = theirs.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6, pad_token_id=0)[0]
        got = json.loads(onebyte("generate", "--model", model, "--prompt", prompt, "--tokens", 6, "--json"))
        assert got["text"].split() == tok.decode(out, skip_special_tokens=True).split(), (got, tok.decode(out))
        said.append(tok.decode(out[ids.shape[1]:], skip_special_tokens=True).strip().split("\n")[0])
    (d / "answers.jsonl").write_text("".join(json.dumps(dict(prompt=p, completion=c)) + "\n" for p, c in pairs))
    r = json.loads(onebyte("eval", "--model", model, "--data", d / "answers.jsonl", "--generate", 6, "--json"))
    exact = sum(normal(s) == normal(c) for s, (_, c) in zip(said, pairs)) / len(pairs)
    mean = sum(f1(s, c) for s, (_, c) in zip(said, pairs)) / len(pairs)
    assert r["answers"] == len(pairs) and abs(r["exact_match"] - exact) < 1e-9 and abs(r["f1"] - mean) < 1e-9, (r, exact, mean)
    assert 0 < mean < 1, "every answer is right, or none: nothing was compared"


def check_bin(d, model, data):
    """The command in the refusal makes the same model."""
    def evaluated():
        return subprocess.run([ONEBYTE, "eval", "--model", str(d / "bin"), "--data", str(data), "--json"], capture_output=True, text=True,
                              timeout=LIMIT_S, stdin=subprocess.DEVNULL)
    shutil.copytree(model, d / "bin")
    want = evaluated()
    torch.save(load_file(d / "bin/model.safetensors"), d / "bin/pytorch_model.bin")
    (d / "bin/model.safetensors").unlink()
    refused = evaluated()
    assert refused.returncode == 1 and "convert it: python3 -c" in refused.stderr, refused.stderr
    command = refused.stderr.split("convert it: ")[1].strip().replace("python3", sys.executable, 1)
    subprocess.run(["sh", "-c", command], check=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL)
    got = evaluated()
    assert want.returncode == 0 and got.stdout == want.stdout, got.stderr


def check(name, entry, tool):
    d = pathlib.Path(tempfile.mkdtemp(prefix="onebyte-runs-"))
    model, data = d / "model", d / "data.jsonl"
    try:
        if entry:
            model.mkdir()
            models.make_checkpoint(model, entry, zlib.crc32(name.encode()))
            write_tokenizer(model)
            cls, kind = entry[0], models.kind_of(entry[0])
            examples = write_data(data, kind, random.Random(name))
        else:
            model, cls, kind = ROOT / "peer/demo/model", tf.LlamaForCausalLM, "causal"
            data.write_text("\n".join((ROOT / "peer/demo/eval.jsonl").read_text().splitlines()[:6]) + "\n")
            examples = demo_examples(data)
            check_generation(d, model)
        if name in ("opt", "bert"):
            check_bin(d, model, data)
        check_full(d, cls, kind, model, data, examples, tool)
        check_adapters(d, cls, kind, model, data, examples)
        return None
    except Exception as e:  # one architecture's failure is reported beside the others
        return f"{type(e).__name__}: {e}".replace("\n", " | ")[:600]
    finally:
        shutil.rmtree(d, ignore_errors=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--only")
    p.add_argument("--all", action="store_true")
    p.add_argument("--tool", default=str(ROOT / "build/release/tests/zo/test_model"))
    a = p.parse_args()
    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    torch.set_num_threads(1)
    failed = 0
    for name, entry in [*models.models().items(), ("demo", None)]:
        if a.only and a.only != name or not a.only and not a.all and name not in (*SHORT, "demo"):
            continue
        why = check(name, entry, a.tool)
        print(f"FAIL check_runs {name}: {why}" if why else f"ok check_runs {name}", flush=True)
        failed += why is not None
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
