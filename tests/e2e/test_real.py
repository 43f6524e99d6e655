#!/usr/bin/env python3
"""What users bring: damaged checkpoints, tokenizers and data are refused in one clear line; generation and its metrics."""
import json
import os
import re
import shutil
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import call, good, good_json, main  # noqa: E402

FIXTURES = os.path.abspath("tests/vectors/models")
Q = "model.layers.0.self_attn.q_proj.weight"


def refused(why, *args, code=1):
    """The command fails with one line on stderr that says why."""
    got, _, err = call(*args)
    assert got == code, f"exit {got}, expected {code}: {' '.join(map(str, args))}: {err.strip()[-300:]}"
    assert re.search(why, err), f"expected /{why}/, got: {err.strip()[-500:]}"
    lines = err.strip().splitlines()
    assert len(lines) == (1 if code == 1 else 2) and lines[0].startswith("onebyte: "), err[-800:]


def model(d, fixture="llama", name="m"):
    """A tiny random checkpoint with a tokenizer of one word per id: w0, w1, .."""
    out = f"{d}/{name}"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(f"{FIXTURES}/{fixture}", out)
    vocab = {"<unk>": 0, **{f"w{i}": i for i in range(1, 61)}}
    write_tokenizer(out, dict(model={"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
                              pre_tokenizer={"type": "WhitespaceSplit"}))
    return out


def write_tokenizer(folder, parts):
    with open(f"{folder}/tokenizer.json", "w") as f:
        json.dump(dict(version="1.0", added_tokens=[], normalizer=None, post_processor=None, decoder=None) | parts, f)


def edit(folder, name="config.json", **members):
    with open(f"{folder}/{name}") as f:
        o = json.load(f) | members
    with open(f"{folder}/{name}", "w") as f:
        json.dump(o, f)


def edit_tensors(folder, change):
    """change(head, body): the header's dict and the bytes after it."""
    path = f"{folder}/model.safetensors"
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    head, body = json.loads(data[8:8 + n]), bytearray(data[8 + n:])
    change(head, body)
    text = json.dumps(head).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + body)


def poke(value):
    """Writes one float into the first layer's query matrix (F32)."""
    def change(head, body):
        assert head[Q]["dtype"] == "F32"
        struct.pack_into("<f", body, head[Q]["data_offsets"][0] + 8, value)
    return change


def lines(d, *objects):
    path = f"{d}/data.jsonl"
    with open(path, "wb") as f:
        for o in objects:
            f.write((o if isinstance(o, bytes) else json.dumps(o).encode()) + b"\n")
    return path


GOOD = {"text": "w5 w9 w7 w8"}


def test_checkpoints(d, _):
    def evaluated(m, why):
        refused(why, "eval", "--model", m, "--data", lines(d, GOOD))

    m = model(d)
    good("eval", "--model", m, "--data", lines(d, GOOD))
    edit(m, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})
    evaluated(m, "rope type \"dynamic\" is not supported .*llama3")
    m = model(d)
    edit(m, vocab_size=100)
    evaluated(m, r"vocab_size 100 is larger than the embedding model.embed_tokens.weight \(61 rows\)")
    m = model(d)
    edit(m, model_type="mamba")
    evaluated(m, "model_type \"mamba\" is not supported.*gpt_neox")
    m = model(d, "llama_sharded")
    os.unlink(f"{m}/{sorted(n for n in os.listdir(m) if n.startswith('model-'))[1]}")
    evaluated(m, r"model-00002-of-\d+.safetensors: shard is missing; .*index.json names it")
    m = model(d)
    edit_tensors(m, lambda head, body: head[Q].update(shape=[8, 32]))
    evaluated(m, f"{Q} is 8 x 32, config.json says 16 x 16")
    m = model(d)
    edit_tensors(m, lambda head, body: head[Q].update(dtype="I32"))
    evaluated(m, f"{Q} holds integers.* quantized")
    m = model(d)
    edit_tensors(m, lambda head, body: head.update({"other": head.pop(Q)}))
    evaluated(m, f"{Q} is missing: is config.json of another model")
    m = model(d)
    os.rename(f"{m}/model.safetensors", f"{m}/pytorch_model.bin")
    evaluated(m, "pytorch_model.bin: .*convert it: python3 -c")


def test_weights_that_are_not_finite(d, _):
    for value in (float("nan"), float("inf")):
        m = model(d)
        edit_tensors(m, poke(value))
        why = f"{Q} of the model holds NaN or infinity: .*fetch or export it again"
        refused(why, "eval", "--model", m, "--data", lines(d, GOOD))
        refused(why, "eval", "--model", m, "--data", lines(d, GOOD), "--json")
        refused(why, "generate", "--model", m, "--prompt", "w5 w9")
        for trainable in ("all", "lora:r=2,alpha=2,targets=all", "model.norm.weight"):
            refused(why, "init", "--home", f"{d}/h", "--out", f"{d}/run.json", "--model", m, "--data", lines(d, GOOD),
                    "--trainable", trainable)
    m = model(d)
    edit_tensors(m, poke(3e38))
    edit_tensors(m, lambda head, body: [struct.pack_into("<f", body, i, 3e38)
                                        for i in range(*head[Q]["data_offsets"], 4)])
    refused("overflows though every weight is finite", "eval", "--model", m, "--data", lines(d, GOOD))


def test_data(d, _):
    m = model(d)
    chat = {"messages": [{"role": "user", "content": "w5"}, {"role": "assistant", "content": "w6"}]}
    choices = {"prompt": "w5", "choices": [" w6", " w7"]}
    for why, line in (
            ("\"label\" is 2, outside the 2 choices", choices | {"label": 2}),
            ("\"label\" is -1, outside the 2 choices", choices | {"label": -1}),
            ("\"label\" is missing", choices),
            ("\"completion\" is empty", {"prompt": "w5", "completion": ""}),
            ("\"completion\" adds no token", {"prompt": "w5", "completion": "  "}),
            ("not valid UTF-8", b'{"text": "w5 \xff w6"}'),
            ("not JSON", b'{"text": "w5'),
            ("not a JSON object", []),
            (".*/m has no chat template", chat)):
        refused(r"data\.jsonl:1: " + why, "eval", "--model", m, "--data", lines(d, line))
    refused("no example in it", "eval", "--model", m, "--data", lines(d))
    for why, template in (("line 1: a template that needs the clock is refused", "{{ strftime_now('%Y') }}"),
                          ("a template that needs code is refused", "{% macro f(x) %}{{ x }}{% endmacro %}{{ f(messages) }}"),
                          ("a template that needs code is refused: tag", "{% import 'os' as o %}")):
        with open(f"{m}/chat_template.jinja", "w") as f:
            f.write(template)
        refused(r"data\.jsonl:1: chat template, .*" + why, "eval", "--model", m, "--data", lines(d, chat))
    edit(m, vocab_size=50)
    refused("token id 59 is outside the model's vocabulary of 50: tokenizer and model do not belong together", "eval", "--model",
            m, "--data", lines(d, {"text": "w5 w59 w7"}))


def test_tokenizers(d, _):
    m = model(d)
    words = {"type": "WordLevel", "vocab": {"a": 0, "<unk>": 1}, "unk_token": "<unk>"}

    def split(pattern):
        write_tokenizer(m, dict(model=words, pre_tokenizer={"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
                                                            "invert": False}))
    split("(?R)?")  # never consumes: PCRE2 gives up
    refused(r"data\.jsonl:1: a pattern in tokenizer.json tries too many ways.* shorter ones, or write the pattern", "eval", "--model",
            m, "--data", lines(d, GOOD))
    refused("the prompt: a pattern in tokenizer.json tries too many", "generate", "--model", m, "--prompt", "w5")
    split("(a")
    refused(r"the pattern \"\(a\" cannot be used: missing closing parenthesis", "eval", "--model", m, "--data", lines(d, GOOD))
    write_tokenizer(m, dict(model=words, normalizer={"type": "Foo"}))
    refused("normalizer: type \"Foo\" is not supported", "eval", "--model", m, "--data", lines(d, GOOD))


def test_generation_ends(d, _):
    m = model(d)
    refused("the prompt has 32 tokens; the model's context of 32", "generate", "--model", m, "--prompt", "w5 " * 32)
    r = good_json("generate", "--model", m, "--prompt", "w5 w9 w7", "--tokens", 3)
    assert r["tokens"] == 3 and r["stopped"] == "tokens" and r["text"].startswith("w5 w9 w7 w"), r
    first = r["text"].split()[3]
    r = good_json("generate", "--model", m, "--prompt", "w5 " * 30, "--tokens", 9)
    assert r["tokens"] == 2 and r["stopped"] == "context", r
    edit(m, eos_token_id=[1, int(first[1:])])
    r = good_json("generate", "--model", m, "--prompt", "w5 w9 w7", "--tokens", 3)
    assert r == {"text": "w5 w9 w7", "tokens": 0, "stopped": "end"}, r
    refused("bert encoder does not generate", "generate", "--model", model(d, "bert"), "--prompt", "w5")


def test_answers(d, _):
    """--generate compares what generate says with the completions."""
    m, prompts = model(d), ["w5 w9 w7", "w30 w31", "w8 w8 w9 w11", "w6", "w40 w12 w13", "w21 w22", "w33 w5 w9", "w17", "w18 w19", "w7 w7"]
    said = [good_json("generate", "--model", m, "--prompt", p, "--tokens", 4)["text"][len(p):] for p in prompts]
    assert len(set(said)) > 3, said
    data = [{"prompt": p, "completion": s} for p, s in zip(prompts, said)]
    data += [{"text": "w5 w9 w7"}, {"prompt": "w5", "choices": [" w6", " w7"], "label": 0}]  # these have no answer
    r = good_json("eval", "--model", m, "--data", lines(d, *data), "--generate", 4)
    assert (r["answers"], r["exact_match"], r["f1"]) == (10, 1.0, 1.0), r
    wrong = [{"prompt": p, "completion": " " + " ".join(s.split()[:2] + ["w60", "w60"]) if i < 5 else s}
             for i, (p, s) in enumerate(zip(prompts, said))]
    assert not any("w60" in s for s in said), said
    r = good_json("eval", "--model", m, "--data", lines(d, *wrong), "--generate", 4)
    assert r["answers"] == 10 and r["exact_match"] == 0.5 and abs(r["f1"] - 0.75) < 1e-12, r
    text = good("eval", "--model", m, "--data", lines(d, *wrong), "--generate", 4)
    assert "50.00 % exact (5 of 10), F1 75.00 %" in text and "perplexity" in text, text
    one = good_json("eval", "--model", m, "--data", lines(d, *wrong), "--generate", 4, "--max", 1)
    assert one["answers"] == 1 and one["exact_match"] == 0, one
    refused("no example has a prompt and one completion", "eval", "--model", m, "--data", lines(d, GOOD), "--generate", 4)
    assert "answers" not in good_json("eval", "--model", m, "--data", lines(d, *data))
    run = good_json("init", "--home", f"{d}/h", "--out", f"{d}/run.json", "--model", m, "--data", lines(d, *data), "--n0", 4,
                    "--steps", 1, "--lr", 0)
    good("run", f"{d}/run.json", "--home", f"{d}/h", "--threads", 1, "--linger", 0, "--listen", "127.0.0.1:0")
    r = good_json("eval", "--home", f"{d}/h", "--data", lines(d, *data), "--generate", 4)
    assert r["answers"] == 10 and r["f1"] == 1.0 and r["run_id"] == run["run_id"] and r["records"] > 0, r


def test_an_answer_is_one_line(d, _):
    """The answer ends with its line, unless the completion has several."""
    m, prompt = model(d), "w5 w9 w7"
    words = good_json("generate", "--model", m, "--prompt", prompt, "--tokens", 3)["text"].split()[3:]
    assert words[1] not in words[:1] and words[1] not in prompt, words
    vocab = {"<unk>": 0, **{"x\n" if f"w{i}" == words[1] else f"w{i}": i for i in range(1, 61)}}
    write_tokenizer(m, dict(model={"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}, pre_tokenizer={"type": "WhitespaceSplit"}))
    r = good_json("eval", "--model", m, "--data", lines(d, {"prompt": prompt, "completion": f" {words[0]}"}), "--generate", 3)
    assert r["answers"] == 1 and r["exact_match"] == 1, (words, r)
    said = good_json("generate", "--model", m, "--prompt", prompt, "--tokens", 3)["text"][len(prompt):]
    assert "\n" in said.strip(), said


if __name__ == "__main__":
    sys.exit(main([test_checkpoints, test_weights_that_are_not_finite, test_data, test_tokenizers, test_generation_ends, test_answers,
                   test_an_answer_is_one_line]))
