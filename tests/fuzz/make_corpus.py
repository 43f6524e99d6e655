#!/usr/bin/env python3
"""Writes tests/fuzz/corpus: a few valid inputs per parser, from which the fuzzer and the replay go on."""
import json
import os
import struct

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
REPO = os.path.join(ROOT, "..", "..", "..")


def write(target, name, data):
    os.makedirs(os.path.join(ROOT, target), exist_ok=True)
    with open(os.path.join(ROOT, target, name), "wb") as f:
        f.write(data.encode() if isinstance(data, str) else data)


def read(*path):
    with open(os.path.join(REPO, *path), "rb") as f:
        return f.read()


def segment(first, count, prev=b"\0" * 8):
    return struct.pack("<BBHQIIHH", 1, 0, count, first, 3, count, 0x4200, 0x3800) + prev + b"B" * 8 + bytes(range(count)) + b"S" * 64


def frame(link, body):
    return bytes([link]) + struct.pack("<H", len(body)) + body


def net():
    machine, two = b"M" * 32, segment(7, 5, b"P" * 8)
    write("segment", "first", segment(0, 16))
    write("segment", "next", two)
    controls = {"retract": b"\1" + machine + struct.pack("<Q", 4) + b"S" * 64, "admit": b"\3" + machine + b"S" * 64,
                "checkpoint": b"\4" + struct.pack("<Q", 9) + machine * 2 + b"S" * 64,
                "fork": b"\2" + machine + b"Q" * 32 + struct.pack("<H", len(two)) + two + struct.pack("<H", len(two)) + two}
    for name, data in controls.items():
        write("control", name, data)
    write("transport", "hello", b"\xff\1\1" + b"N" * 32 + b"\x17\x1b")
    write("transport", "prove", b"\xff\2" + b"I" * 64 + b"\x17\x1b" + b"S" * 64)
    write("transport", "cert", b"\xff\3" + b"I" * 32 + b"S" * 64)
    write("transport", "ping", b"\xff\6" + b"T" * 8)
    for i, address in enumerate(("127.0.0.1:7117", "[::1]:80", "*:0", "a.example:65535", "[::ffff:10.0.0.1]:1")):
        write("transport", "address%d" % i, address)
    entry = machine + struct.pack("<Q", 4) + b"H" * 32 + b"\xff" * 8
    audit_ask = b"\x14\x10" + machine + b"I" * 32 + b"\0" * 4
    audit_tell = b"\x15" + machine + b"I" * 32 + b"\0" * 4 + struct.pack("<I", 80) + b"H" * 32 + b"S" * 64 + entry
    write("control", "audit_ask", audit_ask)
    write("control", "audit_tell", audit_tell)
    frames = [b"\1\1127.0.0.1:7117", b"\2" + b"R" * 16 + b"\0" * 16, b"\3" + b"R" * 16, b"\4\0" + b"D" * 256, b"\4\1" + b"D" * 256,
              b"\5" + b"\0" * 32 + b"\xff" * 32 + entry, b"\6" + machine, b"\7" + entry, b"\x08\0\0\0\0" + two,
              b"\x09" + machine + b"\1\0\0\0" + segment(0, 5), b"\x0a\1\0\0\0", b"\x0b" + entry + struct.pack("<I", 9999),
              b"\x0c" + entry, b"\x0d" + entry, b"\x0e" + machine + struct.pack("<Q", 4), b"\x0f" + machine + struct.pack("<Q", 4) + b"I" * 32,
              b"\x10" + controls["retract"], b"\x10" + controls["fork"], b"\x11\x0e127.0.0.1:7117", b"\x12\1\0\0\0", b"\x13" + machine, audit_ask, audit_tell]
    write("gossip", "frames", b"".join(frame(i & 1, f) for i, f in enumerate(frames)))
    write("gossip", "pushes", bytes(b for i in range(24) for b in (200 + i, 2 * i)) + bytes([240, 241, 247]))
    write("gossip", "forks", bytes([201, 2, 204, 4, 207, 5, 210, 3, 202, 8, 205, 1, 240, 200, 6, 203, 1, 247, 255]) + frame(1, frames[1]))
    ledger = b"onebyte/1 ledger" + b"R" * 32
    rows = b"\1" + machine + b"".join(b"\2" + b"\0" * 8 + struct.pack("<H", len(s)) + s for s in (segment(0, 5), segment(5, 3)))
    event = b"\3" + struct.pack("<I", len(controls["retract"])) + controls["retract"]
    write("ledger", "empty", b"\0" + ledger + b"\0" + struct.pack("<QQ", 0, 0))
    write("ledger", "rows", b"\0" + ledger + rows + event + b"\0" + struct.pack("<QQ", 2, 1))
    write("ledger", "cut", b"\1" + ledger + rows)
    key = "0802c03538e42a12101eba6342cb6b1292ad87b05540e0a5d888b10546728408"
    write("invite", "plain", "onebyte://10.0.0.1:7117/" + key)
    write("invite", "key", "onebyte://[::1]:7117/" + key + "?key=" + key)
    manifest = {"arith": 1, "direction": "rank1", "n0": 16, "steps": 100, "share_65536": 32768, "burst": 4, "knots": [[0, 1000], [50, 0]],
                "owner": key, "tensors": [{"name": "b.w", "shape": [5, 7], "bits": 32, "e": 26}, {"name": "Z", "shape": [], "bits": 64, "e": 55}],
                "model": {"files": [{"name": "config.json", "bytes": 10, "chunks": [key]}]}, "data": {"name": "d.jsonl", "bytes": 5, "digest": key}}
    evidence = {"onebyte": "evidence", "version": 1, "run_id": key, "machine": key, "prev": "00" * 32, "signature": key * 2,
                "segment": segment(0, 4).hex(), "frontier": entry.hex(), "branches": [{"machine": key, "segment": segment(0, 3).hex()}],
                "records": [{"seq": 1, "code": 7, "want": -7.1, "tolerance": 0.6, "loss": 0.7}]}
    write("evidence", "one", json.dumps(evidence))
    write("evidence", "first", json.dumps({**evidence, "frontier": "", "branches": []}))
    write("manifest", "least", json.dumps(manifest))
    manifest.update(name="run", K=2, sides=1, eps=0.01, unit=1024, pace="sync", admission="allow", allow=[key], public=True,
                    seed=3, length_max=64, lr=1e-6, schedule="cosine", trainable="all", eval_data=manifest["data"], records_max=4096)
    write("manifest", "more", json.dumps(manifest))


def models():
    head = json.dumps({"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
                       "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}, "c": {"dtype": "F16", "shape": [], "data_offsets": [32, 34]}})
    write("safetensors", "three", struct.pack("<Q", len(head)) + head.encode() + bytes(range(34)))
    write("config", "demo", read("peer", "demo", "model", "config.json"))
    for name in ("bert", "gpt2", "llama3", "gemma3", "phi3_long"):
        write("config", name, read("tests", "vectors", "models", name, "config.json"))
    write("tokenizer", "demo", read("peer", "demo", "model", "tokenizer.json"))
    words = {"[UNK]": 0, "hello": 1, "##s": 2, "a": 3, "<s>": 4}
    added = [{"id": 4, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}]
    write("tokenizer", "wordpiece", json.dumps({
        "version": "1.0", "added_tokens": added, "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                                                                "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": None, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": words}}))
    write("tokenizer", "unigram", json.dumps({
        "version": "1.0", "added_tokens": added, "normalizer": {"type": "NFKC"},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}, "post_processor": None,
        "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["\u2581he", -1.5], ["l", -2.0], ["o", -2.5]], "byte_fallback": False}}))
    write("jsonl", "forms", '{"text": "one two"}\n{"prompt": "a ", "completion": "b"}\n\n{"prompt": "q", "choices": ["yes", "no"], "label": 1}\n')
    write("jsonl", "long", json.dumps({"prompt": "x" * 99, "completion": "\u00e9t\u00e9"}) + "\n")
    write("template", "string_without_end", b"{{ {{ bqs'roken }to}\0~k")  # found by the fuzzer: read past its end
    broken = json.loads(read("tests", "fuzz", "corpus", "tokenizer", "unigram"))
    broken["decoder"]["replacement"] = ""
    write("tokenizer", "empty_replacement", json.dumps(broken))  # found by the fuzzer: decoding did not end
    write("template", "chat", "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' and loop.index0 > 0 %}[{{ m.content | trim }}]"
                              "{% elif loop.last %}{{ m['content'][1:] ~ eos_token }}{% else %}{% set x = namespace(n=0) %}{% set x.n = x.n + 1 %}"
                              "{{- x.n -}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<a>' }}{% endif %}{# c #}")
    write("template", "calls", "{{ range(3) | list | length }}{{ [1, 2.5, 'a'] | tojson }}{{ 'a,b'.split(',') | join('-') }}{{ {'k': none} }}"
                               "{{ raise_exception('no') if not messages else messages[-1].content.strip().upper() }}{{ 7 // 2 % 2 * 3 is odd }}")
    write("socket", "status", '{"op": "status"}\n{"op":"pause","seconds":1.5}\nnot json\n[1]\n{"op":"control","frame":"00ff"}\n')
    write("socket", "long", '{"op": "' + "x" * 3000 + '"}\n{"a":1')


net()
models()
