#!/usr/bin/env python3
"""Compares the forward pass with PyTorch `transformers`: logits, losses and losses along random directions.

    build/venv/bin/python tests/check_models.py            tiny random checkpoints of every architecture, made now, checked by
                                                           build/release/tests/zo/test_model; exit 0: all equal
    build/venv/bin/python tests/check_models.py --write    rewrites tests/vectors/models/ (what test_model reads in every clone)

Each folder holds config.json, model.safetensors as `save_pretrained` writes them, and expected.json:
    sequences  [{ids, logits (n, vocab) or (labels), padding}]                  float64 PyTorch; padding: read from a padded batch
    examples   [{seqs: [{ids, counted}], label, loss, correct}]                 by the definitions in zo/example.h
    passes     [{direction, key [2], seq, eps, example, loss}]                  weights + eps z made by tests/vectors/spec.py
demo.json is the same for peer/demo/model.  Needs PyPI: torch, transformers, safetensors.
"""
import argparse
import importlib.util
import json
import math
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
try:
    import torch
    import transformers as tf
    from safetensors import safe_open
    from safetensors.torch import save_file
except ImportError as e:
    own = ROOT / "build/venv/bin/python"
    if own.exists() and pathlib.Path(sys.prefix) != own.parent.parent:  # the test runner's Python is the system's
        os.execv(own, [str(own), *sys.argv])
    print(f"skip check_models: needs the PyPI packages torch, transformers and safetensors: {e}")
    sys.exit(0)

spec = importlib.util.spec_from_file_location("spec", ROOT / "tests/vectors/spec.py")
SPEC = importlib.util.module_from_spec(spec)
spec.loader.exec_module(SPEC)

VOCAB = 61
SMALL = dict(vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
             max_position_embeddings=32)
GQA = dict(SMALL, num_key_value_heads=2)


def rope(kind, **more):
    return dict(rope_type=kind, rope_theta=10000.0, **more)


def models():
    """name -> (class, config, dtype, how config.json is changed afterwards)"""
    c, m = tf, {}
    m["llama"] = (c.LlamaForCausalLM, c.LlamaConfig(**GQA, tie_word_embeddings=True), "f32", None)
    m["llama3"] = (c.LlamaForCausalLM, c.LlamaConfig(**GQA, attention_bias=True, rope_parameters=rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)), "bf16", "v4")
    m["llama_linear"] = (c.LlamaForCausalLM, c.LlamaConfig(**GQA, head_dim=6, rope_parameters=rope("linear", factor=2.0)), "f16", None)
    m["llama_yarn"] = (c.LlamaForCausalLM, c.LlamaConfig(**GQA, rope_parameters=rope(
        "yarn", factor=4.0, original_max_position_embeddings=8)), "bf16", None)
    m["mistral"] = (c.MistralForCausalLM, c.MistralConfig(**GQA, sliding_window=4), "bf16", None)
    m["qwen2"] = (c.Qwen2ForCausalLM, c.Qwen2Config(**GQA), "bf16", None)
    m["qwen3"] = (c.Qwen3ForCausalLM, c.Qwen3Config(**GQA, head_dim=8), "bf16", None)
    m["phi3"] = (c.Phi3ForCausalLM, c.Phi3Config(**GQA, pad_token_id=0, sliding_window=5), "bf16", None)
    m["phi3_long"] = (c.Phi3ForCausalLM, c.Phi3Config(**dict(GQA, hidden_size=32), pad_token_id=0, original_max_position_embeddings=16,
                      rope_parameters=rope("longrope", short_factor=[1.0, 1.1], long_factor=[2.0, 3.0], partial_rotary_factor=0.5)), "bf16", None)
    m["gemma"] = (c.GemmaForCausalLM, c.GemmaConfig(**GQA, head_dim=8), "bf16", None)
    m["gemma2"] = (c.Gemma2ForCausalLM, c.Gemma2Config(**GQA, head_dim=8, query_pre_attn_scalar=12, sliding_window=4,
                   attn_logit_softcapping=5.0, final_logit_softcapping=3.0), "bf16", None)
    m["gemma3"] = (c.Gemma3ForCausalLM, c.Gemma3TextConfig(**dict(GQA, num_hidden_layers=3), head_dim=8, query_pre_attn_scalar=12,
                   sliding_window=4, layer_types=["sliding_attention", "full_attention", "sliding_attention"]), "bf16", None)
    m["gpt2"] = (c.GPT2LMHeadModel, c.GPT2Config(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=4, n_positions=32), "bf16", None)
    neox = dict(SMALL, rotary_pct=0.5)
    m["gpt_neox"] = (c.GPTNeoXForCausalLM, c.GPTNeoXConfig(**neox), "bf16", None)
    m["gpt_neox_serial"] = (c.GPTNeoXForCausalLM, c.GPTNeoXConfig(**neox, use_parallel_residual=False,
                            attention_bias=False, tie_word_embeddings=True), "bf16", None)
    opt = dict(vocab_size=VOCAB, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32)
    m["opt"] = (c.OPTForCausalLM, c.OPTConfig(**opt, word_embed_proj_dim=16), "bf16", None)
    m["opt_350m"] = (c.OPTForCausalLM, c.OPTConfig(**opt, word_embed_proj_dim=12, do_layer_norm_before=False), "bf16", None)
    m["bert"] = (c.BertForMaskedLM, c.BertConfig(**SMALL, mask_token_id=4), "bf16", None)
    m["bert_classify"] = (c.BertForSequenceClassification, c.BertConfig(**SMALL, num_labels=3), "bf16", None)
    m["roberta"] = (c.RobertaForMaskedLM, c.RobertaConfig(**SMALL, pad_token_id=1, mask_token_id=4), "bf16", None)
    m["roberta_classify"] = (c.RobertaForSequenceClassification, c.RobertaConfig(**SMALL, pad_token_id=1, num_labels=3), "bf16", None)
    m["bert_old_names"] = (c.BertForMaskedLM, c.BertConfig(**dict(SMALL, num_hidden_layers=1), mask_token_id=4), "f32", "gamma")
    m["llama_sharded"] = (c.LlamaForCausalLM, c.LlamaConfig(**dict(GQA, num_hidden_layers=1)), "bf16", "sharded")
    return m


DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def randomise(model, gen, dtype):
    """Weights large enough that every part of the pass shows, and exact in the stored dtype."""
    plus1 = "gemma" in model.config.model_type
    with torch.no_grad():
        for name, p in model.named_parameters():
            w = torch.randn(p.shape, generator=gen, dtype=torch.float64)
            norm = p.dim() == 1 and name.endswith("weight")
            p.copy_((w * 0.15 + (0.0 if plus1 else 1.0) if norm else w * 0.3).to(dtype).to(p.dtype))


def fix_config(path, how):
    o = json.loads(path.read_text())
    if how == "v4":  # as transformers 4 wrote it
        r = o.pop("rope_parameters")
        o["rope_theta"] = r.pop("rope_theta")
        o["rope_scaling"] = r
        o["torch_dtype"] = o.pop("dtype")
    o.pop("transformers_version", None)
    path.write_text(json.dumps(o, indent=1, sort_keys=True) + "\n")


def rename_norms(path):
    """BERT's first spelling, as bert-base-uncased on the Hub still has it."""
    with safe_open(path, "pt") as s:
        tensors = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): s.get_tensor(k)
                   for k in s.keys()}
    save_file(tensors, path, {"format": "pt"})


def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


def padded_logits(model, rows, side, kind):
    """The logits of each row's own tokens, from one batch padded to its longest row."""
    config, most = model.config, max(map(len, rows))
    fill = [[config.pad_token_id or 0] * (most - len(r)) for r in rows]
    ids = torch.tensor([f + r if side == "left" else r + f for f, r in zip(fill, rows)])
    mask = torch.tensor([[0] * len(f) + [1] * len(r) if side == "left" else [1] * len(r) + [0] * len(f) for f, r in zip(fill, rows)])
    inputs = dict(input_ids=ids, attention_mask=mask)
    if config.model_type not in ("opt", "roberta"):  # these derive positions from the mask or the padding's id themselves
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    # Eager attention makes NaN of padding that may look at nothing (a window, the left side), and 0 * NaN spreads.
    softmax = torch.nn.functional.softmax
    torch.nn.functional.softmax = lambda *args, **kw: softmax(*args, **kw).nan_to_num(0.0)
    try:
        with torch.no_grad():
            logits = model(**inputs).logits
    finally:
        torch.nn.functional.softmax = softmax
    if kind == "classify":
        return list(logits)
    return [z[most - len(r):] if side == "left" else z[:len(r)] for z, r in zip(logits, rows)]


def loss_of(model, example, kind, mask_id):
    """(loss, correct) of zo/example.h"""
    if kind == "classify":
        z = torch.log_softmax(logits_of(model, example["seqs"][0]["ids"]), -1)
        return -z[example["label"]].item(), int(z.argmax().item() == example["label"])
    scores = []
    for s in example["seqs"]:
        ids = s["ids"]
        inputs = [mask_id if c else i for i, c in zip(ids, s["counted"])] if kind == "masked" else ids
        z, shift = torch.log_softmax(logits_of(model, inputs), -1), 0 if kind == "masked" else 1
        picked = [z[i - shift][ids[i]].item() for i in range(len(ids)) if s["counted"][i]]
        scores.append(sum(picked) / len(picked))
    if len(scores) == 1:
        return -scores[0], -1
    top = max(scores)
    lse = top + math.log(sum(math.exp(x - top) for x in scores))
    return lse - scores[example["label"]], int(scores.index(top) == example["label"])


def make_examples(rng, kind, vocab):
    def ids(n):
        return [rng.randrange(5, vocab) for _ in range(n)]

    if kind == "classify":
        return [dict(seqs=[dict(ids=ids(n), counted=[0] * n)], label=l) for n, l in ((3, 0), (11, 2), (7, 1))]
    out = []
    for n in (9, 14, 3):
        out.append(dict(seqs=[dict(ids=ids(n), counted=[0] + [1] * (n - 1))], label=-1))
    out[1]["seqs"][0]["counted"] = [0] * 8 + [1, 0, 1, 1, 0, 1]
    prompt = ids(6)  # choices after one prompt; one ends after a single token
    choices = [prompt + ids(1), prompt + ids(3), prompt[:4] + ids(3), prompt + ids(2)]
    out.append(dict(seqs=[dict(ids=c, counted=[0] * 6 + [1] * (len(c) - 6)) for c in choices], label=2))
    return out


def kind_of(cls):
    return "classify" if "Classification" in cls.__name__ else "masked" if "MaskedLM" in cls.__name__ else "causal"


def state_names(model, stored):
    """The checkpoint's name -> the module's, where this version of transformers renamed it: found by its values."""
    state, out = model.state_dict(), {}
    for name, value in stored.items():
        out[name] = name if name in state else next(
            k for k, v in state.items() if k not in stored and v.shape == value.shape and torch.equal(v, value.double()))
    return out


def perturbed(model, names, shapes, renamed, kind, key, seq, eps):
    """Adds eps z in place; names are the checkpoint's, in byte order."""
    state = model.state_dict()
    for t, name in enumerate(names):
        h = SPEC.direction(kind, key, t, shapes[name], seq)
        z = torch.tensor(h, dtype=torch.float64).reshape(shapes[name] or ()) / (4 if kind == "gaussian" else 1)
        state[renamed[name]] += eps * z


def make_checkpoint(folder, entry, seed):
    """config.json and model.safetensors with random weights, as save_pretrained writes them."""
    cls, config, dtype, how = entry
    gen = torch.Generator().manual_seed(seed)
    config._attn_implementation = "eager"
    model = cls(config).eval()
    randomise(model, gen, DTYPES[dtype])
    model.to(DTYPES[dtype]).save_pretrained(folder, **({"max_shard_size": "3KB"} if how == "sharded" else {}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    fix_config(folder / "config.json", how)
    if how == "gamma":
        rename_norms(folder / "model.safetensors")
    for f in folder.iterdir():
        f.chmod(0o644)


def expect(folder, target, cls, rng, vocab, lengths, batches=()):
    """Writes what PyTorch makes of the checkpoint in folder: expected.json.  batches: the sides to pad on, too."""
    # Read again: casting the live model would have cast its rope frequencies too.
    model = cls.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    config = model.config
    shapes, stored = {}, {}
    for f in folder.glob("*.safetensors"):
        with safe_open(f, "pt") as s:
            stored.update({k: s.get_tensor(k) for k in s.keys()})
    shapes = {k: list(v.shape) for k, v in stored.items()}
    renamed = state_names(model, stored)
    names = sorted(shapes, key=lambda n: n.encode())
    kind = kind_of(cls)
    mask = getattr(config, "mask_token_id", None)
    out = dict(sequences=[], examples=make_examples(rng, kind, vocab), passes=[])
    for n in lengths:
        ids = [rng.randrange(5, vocab) for _ in range(n)]
        out["sequences"].append(dict(ids=ids, logits=[round(x, 6) for x in logits_of(model, ids).flatten().tolist()]))
    for side in batches:
        if kind == "classify" and side == "left":
            continue  # the classifiers read position 0, which would be padding
        rows = [[rng.randrange(5, vocab) for _ in range(n)] for n in (3, 11, 7)]
        for ids, z in zip(rows, padded_logits(model, rows, side, kind)):
            out["sequences"].append(dict(ids=ids, logits=[round(x, 6) for x in z.flatten().tolist()], padding=side))
    for e in out["examples"]:
        e["loss"], e["correct"] = loss_of(model, e, kind, mask)
    base = {k: v.clone() for k, v in model.state_dict().items()}
    for i, direction in enumerate(("rank1", "rademacher", "gaussian")):
        key = [rng.getrandbits(32), rng.getrandbits(32)]
        seq = rng.getrandbits(40)
        for eps in (0.02, -0.02):
            perturbed(model, names, shapes, renamed, direction, key, seq, eps)
            example = i % len(out["examples"]) if direction != "rank1" else len(out["examples"]) - 1
            loss, _ = loss_of(model, out["examples"][example], kind, mask)
            out["passes"].append(dict(direction=direction, key=key, seq=seq, eps=eps, example=example, loss=loss))
            model.load_state_dict(base)
    target.write_text(json.dumps(out) + "\n")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--write", action="store_true")
    p.add_argument("--only")
    p.add_argument("--all", action="store_true", help="everything is checked in any case")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--tool", default=str(ROOT / "build/release/tests/zo/test_model"))
    a = p.parse_args()
    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    torch.set_num_threads(1)
    where = ROOT / "tests/vectors/models" if a.write else pathlib.Path(tempfile.mkdtemp(prefix="onebyte-models-"))
    failed = 0
    for name, entry in models().items():
        if a.only and a.only != name:
            continue
        folder = where / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        seed = zlib.crc32(name.encode()) + (0 if a.write else a.seed)
        make_checkpoint(folder, entry, seed)
        expect(folder, folder / "expected.json", entry[0], random.Random(seed), VOCAB, (1, 13), ("left", "right"))
        r = subprocess.run([a.tool, str(folder)], capture_output=True, text=True)
        print(("ok " if r.returncode == 0 else "FAIL ") + "check_models " + name +
              ("" if r.returncode == 0 else ": " + (r.stdout + r.stderr).strip().replace("\n", " | ")[:600]), flush=True)
        failed += r.returncode != 0
    if a.write and not a.only:  # the embedded model: a pretrained one, in every clone
        demo = ROOT / "peer/demo/model"
        vocab = json.loads((demo / "config.json").read_text())["vocab_size"]
        expect(demo, ROOT / "tests/vectors/models/demo.json", tf.LlamaForCausalLM, random.Random(1), vocab, (1, 6))
    if not a.write:
        shutil.rmtree(where)
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
