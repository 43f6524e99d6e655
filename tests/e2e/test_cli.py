#!/usr/bin/env python3
"""The command line, as a user meets it: real processes, exit codes, one-line errors, and what the files hold.

Runs build/onebyte from the repository root.  Prints `ok NAME`, `FAIL NAME: why` or `skip NAME: why` per test and ends with
`N passed, N failed, N skipped`.  Needs nothing but Python's own library; tests of ../shared/data and of PyPI packages skip.
"""
import hashlib
import json
import math
import os
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import traceback

ONEBYTE = os.path.abspath(os.environ.get("ONEBYTE", "build/onebyte"))
DEMO = "peer/demo"
STORIES = "../shared/data/models/stories260k"
EVAL40 = "../shared/data/tinystories/eval40.jsonl"
LIMIT_S = 240  # generous: continuous integration is slow


class Skip(Exception):
    pass


def run(*args, env=None):
    """(exit code, stdout, stderr) of one command."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("ONEBYTE", "XDG_STATE"))}
    p = subprocess.run([ONEBYTE, *map(str, args)], capture_output=True, text=True, timeout=LIMIT_S, env=env or clean,
                       stdin=subprocess.DEVNULL)
    return p.returncode, p.stdout, p.stderr


def good(*args):
    code, out, err = run(*args)
    assert code == 0, f"onebyte {' '.join(map(str, args))}: exit {code}: {err.strip()}"
    return out


def good_json(*args):
    return json.loads(good(*args, "--json"))


def refused(code, pattern, *args):
    """The command ends with this code and one line on stderr that matches."""
    got, out, err = run(*args)
    lines = err.splitlines()
    assert got == code, f"onebyte {' '.join(map(str, args))}: exit {got}, not {code}: {err.strip()}"
    assert len(lines) == 1, f"not one line: {err!r}"
    assert re.search(pattern, lines[0]), f"{lines[0]!r} does not match {pattern!r}"
    assert lines[0].startswith("onebyte: "), lines[0]
    return lines[0]


def blake2b(data):
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def safetensors(path):
    """{name: (dtype, shape, bytes)}, read by hand."""
    data = read(path)
    n = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8:8 + n])
    meta = head.pop("__metadata__", {})
    return {k: (v["dtype"], v["shape"], data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]])
            for k, v in head.items()}, meta


def make_run(d, *options):
    """A manifest on the embedded model in d/run.json, owner d/owner; returns init's JSON."""
    return good_json("init", "--home", f"{d}/owner", "--model", f"{DEMO}/model", "--data", f"{DEMO}/train.jsonl",
                     "--eval-data", f"{DEMO}/eval.jsonl", "--out", f"{d}/run.json", *options)


def solo_run(d, *options):
    """One peer runs the run of d to its end in d/owner; returns its last status."""
    made = make_run(d, "--n0", 16, "--steps", 6, "--schedule", "constant", *options)
    out = good("run", f"{d}/run.json", "--home", f"{d}/owner", "--threads", 1, "--json")
    status = json.loads(out.splitlines()[-1])
    assert status["run_id"] == made["run_id"]
    return status


def start_peer(d, home, *options):
    return subprocess.Popen([ONEBYTE, "run", f"{d}/run.json", "--home", home, "--threads", "1", *map(str, options)],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until(what, answer, process):
    """Waits until answer() is neither None nor False, as long as the process lives."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        assert process.poll() is None, f"the peer ended with {process.returncode} before {what}"
        got = answer()
        if got:
            return got
        time.sleep(0.1)
    raise AssertionError(f"waited {LIMIT_S} s for {what}")


def end_process(p):
    p.send_signal(signal.SIGTERM)
    try:
        return p.wait(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        p.kill()
        p.wait()
        raise AssertionError("SIGTERM did not end the peer")


# ---- help, usage, exit codes ----

def test_every_command_has_help(d):
    names = re.findall(r"^  ([a-z]+) +\S", good("--help"), re.M)
    assert len(names) >= 13, names
    for name in names:
        text = good(name, "-h")
        assert f"usage: onebyte {name}" in text, text
        for option in ("--json", "--home", "--help"):
            assert option in text, f"{name} has no {option}"
        assert text == good("help", name) == good(name, "--help")
        assert good("help", "--man", name).startswith(".TH ONEBYTE-"), name


def test_usage_errors_exit_2(d):
    refused(2, "no command 'frobnicate'", "frobnicate")
    refused(2, "--nope", "eval", "--nope")
    refused(2, "needs a value", "eval", "--data")
    refused(2, "--threads takes a whole number", "eval", "--threads", "many")
    refused(2, "init needs --model DIR and --data FILE", "init")
    refused(2, "--direction takes one of", "init", "--direction", "up")
    refused(2, "export needs --out", "export", "--home", d)
    refused(2, "retract needs --machine", "retract", "--home", d)
    refused(2, "does not take 'x'", "version", "x")
    refused(2, "one of them", "status", "--home", d, "--watch", "--check")
    refused(2, "whole ledger", "log", "--home", d, "--export", f"{d}/x", "--machine", "ab")
    refused(2, "--codes needs --json", "log", "--home", d, "--codes")
    refused(2, "is no id", "log", "--home", d, "--machine", "xyz")
    refused(1, f"cannot make the folder {d}: File exists", "demo", "--dir", d)
    refused(1, "--relay measures nothing", "run", "--home", f"{d}/h", "--relay", "--data", "x")
    assert run()[0] == 2


def test_completions_name_every_command(d):
    names = re.findall(r"^  ([a-z]+) +\S", good("--help"), re.M)
    for shell in ("bash", "zsh", "fish"):
        text = good("help", "--completion", shell)
        for name in names:
            assert name in text, f"{shell}: no {name}"
    script = good("help", "--completion", "bash") + "COMP_WORDS=(onebyte re) COMP_CWORD=1; _onebyte onebyte re onebyte\n" \
        + 'echo "${COMPREPLY[@]}"\n'
    p = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=LIMIT_S)
    assert "replay" in p.stdout and "retract" in p.stdout and "init" not in p.stdout, (p.stdout, p.stderr)


def test_version(d):
    v = good_json("version")
    assert v["arith"] == 1 and v["wire"] == 1 and v["kernels"], v
    assert v["version"] in good("--version")


def test_an_error_is_one_line_whatever_it_holds(d):
    refused(2, r"no command 'a\?b\?\[2J'", "a\nb\x1b[2J")
    refused(1, r"no peer lives in .*/a\?b:", "log", "--home", f"{d}/a\nb")
    refused(1, "'name' holds a control character", "init", "--home", d, "--model", f"{DEMO}/model", "--data",
            f"{DEMO}/train.jsonl", "--out", f"{d}/r.json", "--name", "\x1b[2J")
    refused(2, "--data takes FILE in UTF-8", "eval", "--model", f"{DEMO}/model", "--data", "\udcff")


def test_output_that_cannot_be_written_is_a_failure(d):
    write(f"{d}/sst2.jsonl", b'{"sentence": "a b", "label": 1}\n')
    solo_run(d)
    for args in (["help"], ["version", "--json"], ["keygen", "--home", d], ["status", "--home", f"{d}/owner", "--watch", "--json"],
                 ["log", "--home", f"{d}/owner", "--json"], ["prepare", f"{d}/sst2.jsonl", "--task", "sst2"]):
        for shell in ('"$@" > /dev/full', '"$@" >&-', '"$@" >&- <&-'):
            p = subprocess.run(["sh", "-c", shell, "sh", ONEBYTE, *args], capture_output=True, text=True, timeout=LIMIT_S)
            assert p.returncode == 1 and re.search("standard output|writing", p.stderr), (args, shell, p.returncode, p.stderr)
            assert len([x for x in p.stderr.splitlines() if "already has" not in x]) == 1, p.stderr
    subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", ONEBYTE, "log", "--home", f"{d}/none"], timeout=LIMIT_S)
    # Neither stream is there: what would be said to it must not reach the home's files.
    subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", ONEBYTE, "run", "--home", f"{d}/owner", "--linger", "0"], timeout=LIMIT_S)
    for name in ("log", "lock", "settings.json", "run.json"):
        assert b"finished at" not in read(f"{d}/owner/{name}") and b"onebyte: " not in read(f"{d}/owner/{name}"), name


def test_out_replaces_no_pipe_and_no_link(d):
    solo_run(d)
    write(f"{d}/sst2.jsonl", b'{"sentence": "a b", "label": 1}\n')
    os.mkfifo(f"{d}/pipe")
    os.symlink(f"{d}/sst2.jsonl", f"{d}/link")
    os.mkdir(f"{d}/folder")
    for out in ("pipe", "link", "folder"):
        for args in (["plot", "--home", f"{d}/owner", "--out"], ["log", "--home", f"{d}/owner", "--export"],
                     ["prepare", f"{d}/sst2.jsonl", "--task", "sst2", "--out"],
                     ["init", "--home", f"{d}/owner", "--model", f"{DEMO}/model", "--data", f"{DEMO}/train.jsonl", "--out"]):
            refused(1, f"{out} is not a regular file", *args, f"{d}/{out}")
    assert {"pipe", "link", "folder"} == {n for n in os.listdir(d) if n.startswith(("pipe", "link", "folder"))}, os.listdir(d)


# ---- keygen ----

def test_keygen_keeps_a_key(d):
    first = good_json("keygen", "--home", f"{d}/h")
    assert first["made"] and re.fullmatch("[0-9a-f]{64}", first["machine_id"])
    assert os.stat(f"{d}/h/identity").st_mode & 0o777 == 0o600
    again = good_json("keygen", "--home", f"{d}/h")
    assert not again["made"] and again["machine_id"] == first["machine_id"]
    assert good("keygen", "--home", f"{d}/h").strip() == first["machine_id"]
    os.chmod(f"{d}/h/identity", 0o644)
    refused(1, "identity", "keygen", "--home", f"{d}/h")
    write(f"{d}/h/identity", b"short")
    os.chmod(f"{d}/h/identity", 0o600)
    refused(1, "identity", "keygen", "--home", f"{d}/h")


# ---- init and the manifest ----

def test_init_writes_what_spec_says(d):
    made = make_run(d, "--n0", 32, "--steps", 100, "--schedule", "cosine", "--warmup", 5, "--lr", "0.01", "--eps", "0.02")
    text = read(f"{d}/run.json")
    m = json.loads(text)
    assert made["run_id"] == blake2b(text)
    assert made["owner"] == m["owner"] == good_json("keygen", "--home", f"{d}/owner")["machine_id"]
    assert len(read(f"{d}/run.json.sig")) == 64
    assert re.fullmatch(r"onebyte://[^/]+:\d+/" + made["run_id"] + r"\?key=" + made["owner"], made["invite"]), made["invite"]
    assert (m["arith"], m["direction"], m["n0"], m["steps"], m["K"], m["unit"]) == (1, "rank1", 32, 100, 1, None)
    for key in ("arith", "n0", "steps", "K", "share_65536", "burst", "records_max"):
        assert isinstance(m[key], int) and 0 <= m[key] < 2**63, key
    peak = round(0.01 / (32 * 32) * 2**62)
    steps = [k[0] for k in m["knots"]]
    assert steps[0] == 0 and steps == sorted(set(steps)) and len(steps) <= 257
    assert abs(max(k[1] for k in m["knots"]) - peak) <= 1024 and m["knots"][-1] == [100, 0]
    names = [t["name"] for t in m["tensors"]]
    stored, _ = safetensors(f"{DEMO}/model/model.safetensors")
    assert names == sorted(names, key=str.encode) and set(names) <= set(stored)
    for t in m["tensors"]:
        dtype, shape, raw = stored[t["name"]]
        assert t["shape"] == shape and dtype == "F32"
        largest = max(map(abs, struct.unpack(f"<{len(raw) // 4}f", raw)))
        assert largest * 2**t["e"] < 2**(28 if t["bits"] == 32 else 56), t
        assert t["bits"] == 64 or len(shape) >= 2, t
    for f in m["model"]["files"]:
        raw = read(f"{DEMO}/model/{f['name']}")
        assert f["bytes"] == len(raw)
        assert f["chunks"] == [blake2b(raw[i:i + (4 << 20)]) for i in range(0, len(raw), 4 << 20)], f["name"]
    assert {f["name"] for f in m["model"]["files"]} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert m["data"]["digest"] == blake2b(read(f"{DEMO}/train.jsonl"))
    assert m["eval_data"]["digest"] == blake2b(read(f"{DEMO}/eval.jsonl"))


def test_seed_and_choices_change_the_run_id(d):
    ids = [make_run(d, *o)["run_id"] for o in ([], [], ["--seed", 1], ["--sides", 1], ["--preset", "paper"])]
    assert ids[0] == ids[1], "the same choices must give the same manifest"
    assert len(set(ids)) == 4, ids
    m = json.loads(read(f"{d}/run.json"))
    assert (m["direction"], m["sides"], m["pace"]) == ("gaussian", 2, "sync") and isinstance(m["unit"], int)


def test_init_measures_and_explains(d):
    long, short, given = (make_run(d, "--explain", "--n0", 32, *o) for o in (["--steps", 3200], ["--steps", 200], ["--lr", "0.01"]))
    assert abs(short["lr"] / long["lr"] - 4) < 0.1, (short, long)  # the same walk in a sixteenth of the records
    for key in ("lr", "eps", "schedule", "steps", "n0", "segment-max", "direction", "integers"):
        assert long["why"][key], key
    assert "measured" in long["why"]["lr"] and str(long["lr"]) in long["why"]["lr"], long
    assert given["lr"] == 0.01 and given["why"]["lr"].endswith("given"), given
    assert "why" not in make_run(d, "--n0", 32)
    paper = make_run(d, "--explain", "--preset", "paper", "--schedule", "cosine")["why"]
    assert [paper[k] for k in ("direction", "n0", "schedule")] == \
        ["gaussian: as --preset paper says", "64: as --preset paper says", "cosine: given"], paper
    text = good("init", "--home", f"{d}/owner", "--model", f"{DEMO}/model", "--data", f"{DEMO}/train.jsonl", "--out", f"{d}/x.json", "--explain")
    assert re.search(r"^lr +[0-9.]+, that is .*measured: \d+ passes", text, re.M), text
    write(f"{d}/one.jsonl", b'{"text": "mara ran ."}\n')
    good("init", "--home", f"{d}/owner", "--model", f"{DEMO}/model", "--data", f"{d}/one.jsonl", "--out", f"{d}/x.json")


def test_init_refusals(d):
    base = ["init", "--home", f"{d}/h", "--model", f"{DEMO}/model", "--out", f"{d}/r.json"]
    data = ["--data", f"{DEMO}/train.jsonl"]
    refused(2, "--lr", *base, *data, "--lr", "1e5")
    refused(2, "--warmup", *base, *data, "--warmup", "1000", "--steps", "1000")
    refused(1, "nowhere", "init", "--home", f"{d}/h", "--model", f"{d}/nowhere", *data)
    refused(1, "nothing.jsonl", *base, "--data", f"{d}/nothing.jsonl")
    refused(2, "--allow takes a machine id", *base, *data, "--admission", "allow", "--allow", "abc")
    refused(2, "--allow needs --admission allow", *base, *data, "--allow", "ab" * 32)
    for address in ("one", "one:0", "one:x", "a b:7117", "::1:7117", "*:7117"):
        refused(2, "--address takes HOST:PORT", *base, *data, "--address", address)
    os.mkfifo(f"{d}/pipe")
    refused(1, "pipe is not a regular file", *base, "--data", f"{d}/pipe")
    write(f"{d}/empty.jsonl", b"")
    refused(1, "empty.jsonl", *base, "--data", f"{d}/empty.jsonl")
    write(f"{d}/bad.jsonl", b'{"text": "mara ran ."}\n{"text": 7}\n')
    refused(1, r"bad\.jsonl.*\b2\b", *base, "--data", f"{d}/bad.jsonl")
    refused(1, r"bad\.jsonl.*\b2\b", *base, *data, "--eval-data", f"{d}/bad.jsonl")
    assert not os.path.exists(f"{d}/r.json")
    refused(1, "cannot write", "init", "--home", f"{d}/h", "--model", f"{DEMO}/model", *data, "--out", f"{d}/no/such/r.json")


def test_a_full_disk_leaves_the_old_manifest(d):
    make_run(d, "--lr", "0.01")
    before = {name: read(f"{d}/{name}") for name in ("run.json", "run.json.sig")}
    args = ["init", "--home", f"{d}/owner", "--model", f"{DEMO}/model", "--data", f"{DEMO}/train.jsonl", "--lr", "0.02", "--out"]
    for out in ("run.json", "new.json"):
        p = subprocess.run(["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", ONEBYTE, *args, f"{d}/{out}"], capture_output=True, text=True,
                           timeout=LIMIT_S)  # room for the signature, not for the manifest
        assert p.returncode == 1 and "cannot write" in p.stderr, (p.returncode, p.stderr)
    assert before == {name: read(f"{d}/{name}") for name in before}
    assert set(os.listdir(d)) == {"owner", "run.json", "run.json.sig", "run.json.paths"}, os.listdir(d)


def test_a_flipped_bit_in_a_manifest_is_refused(d):
    make_run(d, "--steps", 1000)
    text = bytearray(read(f"{d}/run.json"))
    args = ["replay", "--manifest", f"{d}/run.json", "--ledger", f"{d}/none"]
    at = text.index(b'"steps": 1000') + 9
    text[at] ^= 2  # 1000 -> 3000: valid JSON, valid field
    write(f"{d}/run.json", text)
    refused(1, "signature", *args)
    text[at] ^= 2
    write(f"{d}/run.json", text)
    sig = bytearray(read(f"{d}/run.json.sig"))
    sig[40] ^= 16
    write(f"{d}/run.json.sig", sig)
    refused(1, "signature", *args)
    os.unlink(f"{d}/run.json.sig")
    refused(1, "signature", *args)


def test_a_wrong_model_is_named(d):
    make_run(d)
    shutil.copytree(f"{DEMO}/model", f"{d}/model")
    args = ["replay", "--manifest", f"{d}/run.json", "--ledger", f"{d}/none", "--model", f"{d}/model"]
    raw = bytearray(read(f"{d}/model/model.safetensors"))
    raw[-1] ^= 1
    write(f"{d}/model/model.safetensors", raw)
    refused(1, r"model\.safetensors.*not this run's model", *args)
    write(f"{d}/model/model.safetensors", raw[:-4])
    refused(1, r"model\.safetensors.*bytes", *args)
    os.unlink(f"{d}/model/model.safetensors")
    refused(1, r"model\.safetensors", *args)


# ---- eval ----

def test_eval_of_the_embedded_model(d):
    r = good_json("eval", "--model", f"{DEMO}/model", "--data", f"{DEMO}/eval.jsonl")
    for key in ("loss_token_mean", "loss_example_mean", "tokens", "examples", "accuracy"):
        assert key in r, key
    assert r["examples"] == len(read(f"{DEMO}/eval.jsonl").splitlines())
    assert 0.3 < r["accuracy"] < 0.7, "the base model should be at chance"
    assert abs(r["loss_example_mean"] - math.log(2)) < 0.4
    part = good_json("eval", "--model", f"{DEMO}/model", "--data", f"{DEMO}/eval.jsonl", "--max", 10, "--batch", 3)
    assert part["examples"] == 10
    write(f"{d}/text.jsonl", b'{"text": "mara ran ."}\n')
    assert good_json("eval", "--model", f"{DEMO}/model", "--data", f"{d}/text.jsonl")["accuracy"] is None


def test_eval_does_not_depend_on_threads_batch_or_kernels(d):
    base = ["eval", "--model", f"{DEMO}/model", "--data", f"{DEMO}/eval.jsonl", "--max", 40]
    want = good_json(*base)
    for options in (["--threads", 1], ["--threads", 2, "--batch", 1], ["--batch", 64], ["--kernels", "ref"]):
        got = good_json(*base, *options)
        assert abs(got["loss_token_mean"] - want["loss_token_mean"]) < 1e-4, (options, got, want)
        assert got["tokens"] == want["tokens"]


def test_eval_cuts_what_is_too_long_and_says_so(d):
    context = json.loads(read(f"{DEMO}/model/config.json"))["max_position_embeddings"]
    write(f"{d}/long.jsonl", json.dumps({"text": "mara ran . " * context}).encode() + b"\n")
    r = good_json("eval", "--model", f"{DEMO}/model", "--data", f"{d}/long.jsonl")
    assert r["cut_examples"] == 1 and r["cut_tokens"] > 0 and r["tokens"] == context - 1, r


def test_eval_of_broken_models(d):
    def broken(name, change):
        shutil.rmtree(f"{d}/m", ignore_errors=True)
        shutil.copytree(f"{DEMO}/model", f"{d}/m")
        path = f"{d}/m/{name}"
        change(path)
        return ["eval", "--model", f"{d}/m", "--data", f"{DEMO}/eval.jsonl"]

    def edit(key, value):
        def change(path):
            c = json.loads(read(path))
            if value is None:
                c.pop(key, None)
            else:
                c[key] = value
            write(path, json.dumps(c).encode())
        return change

    refused(1, r"model\.safetensors", *broken("model.safetensors", lambda p: write(p, read(p)[:-100])))
    refused(1, r"model\.safetensors", *broken("model.safetensors", lambda p: write(p, b"\xff" * 8 + read(p)[8:])))
    refused(1, r"model\.safetensors", *broken("model.safetensors", lambda p: write(p, b"")))
    refused(1, r"model\.safetensors", *broken("model.safetensors", os.unlink))
    refused(1, "hidden_size", *broken("config.json", edit("hidden_size", None)))
    refused(1, "nonsense", *broken("config.json", edit("model_type", "nonsense")))
    refused(1, r"tokenizer\.json", *broken("tokenizer.json", lambda p: write(p, b"{")))
    refused(1, r"tokenizer\.json", *broken("tokenizer.json", os.unlink))
    for key, value in (("rope_theta", "10000"), ("head_dim", -1), ("mlp_bias", 1), ("rope_scaling", "linear")):
        refused(1, f"{key} must be", *broken("config.json", edit(key, value)))
    refused(1, "/dev/zero:1: a line of more than 64 MiB", "eval", "--model", f"{DEMO}/model", "--data", "/dev/zero")
    refused(1, "needs --data", "eval", "--model", f"{DEMO}/model")
    refused(1, "no peer lives", "eval", "--home", f"{d}/nobody", "--data", f"{DEMO}/eval.jsonl")


def test_stories260k_reference(d):
    if not os.path.isdir(STORIES):
        raise Skip("needs ../shared/data/models/stories260k")
    want = json.loads(read(f"{STORIES}/reference_eval40.json"))
    got = good_json("eval", "--model", STORIES, "--data", EVAL40)
    assert got["tokens"] == 10923 == want["tokens"]
    assert abs(got["loss_token_mean"] - 1.385943) < 1e-4, got
    assert abs(got["loss_example_mean"] - want["loss_example_mean"]) < 1e-4, got
    assert got["accuracy"] is None and got["examples"] == 40


def test_generate(d):
    r = good_json("generate", "--model", f"{DEMO}/model", "--prompt", "the bread was", "--tokens", 5)
    assert r["tokens"] <= 5 and r["text"].startswith("the bread was"), r
    assert r == good_json("generate", "--model", f"{DEMO}/model", "--prompt", "the bread was", "--tokens", 5)
    refused(2, "needs --prompt", "generate", "--model", f"{DEMO}/model")


# ---- a run's ledger, replayed ----

def test_replay_gives_the_peers_digest(d):
    status = solo_run(d)
    assert status["step"] >= 6 and re.fullmatch("[0-9a-f]{16}", status["digest"]), status
    want = (status["digest"], status["frontier_digest"])
    args = ["replay", "--manifest", f"{d}/run.json"]
    by_home = good_json(*args, "--home", f"{d}/owner", "--out", f"{d}/out")
    assert (by_home["digest"], by_home["frontier_digest"]) == want
    assert by_home["records"] == status["records"]["folded"] > 0
    for kernels in ("ref", "auto"):
        for threads in (1, 2):
            r = good_json(*args, "--home", f"{d}/owner", "--kernels", kernels, "--threads", threads)
            assert r["digest"] == want[0], (kernels, threads)
    good("log", "--home", f"{d}/owner", "--export", f"{d}/ledger")
    by_file = good_json(*args, "--ledger", f"{d}/ledger", "--model", f"{DEMO}/model")
    assert (by_file["digest"], by_file["frontier_digest"]) == want
    stopped = good_json("status", "--home", f"{d}/owner")
    assert stopped["running"] is False and stopped["frontier_digest"] == want[1]
    raw = read(f"{d}/ledger")
    for at in (3, 40, len(raw) // 2, len(raw) - 1):
        write(f"{d}/damaged", raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1:])
        refused(1, "damaged|ledger", *args, "--ledger", f"{d}/damaged", "--model", f"{DEMO}/model")
    write(f"{d}/damaged", raw[:-50])
    refused(1, "damaged|ledger", *args, "--ledger", f"{d}/damaged", "--model", f"{DEMO}/model")
    make_run(f"{d}", "--seed", 9)  # another run's manifest
    refused(1, "run", *args, "--ledger", f"{d}/ledger", "--model", f"{DEMO}/model")


def test_every_estimator_replays_to_its_digest(d):
    for i, options in enumerate((["--direction", "rademacher"], ["--sides", 1, "--directions", 4], ["--preset", "paper"],
                                 ["--schedule", "rex", "--warmup", 2, "--length-max", 16, "--public"])):
        os.mkdir(f"{d}/{i}")
        status = solo_run(f"{d}/{i}", *options)
        for kernels in ("ref", "auto"):
            r = good_json("replay", "--home", f"{d}/{i}/owner", "--kernels", kernels)
            assert (r["digest"], r["records"]) == (status["digest"], status["records"]["folded"]), (options, kernels)
        assert r["records"] > 0 and r["step"] == status["step"], (options, r["step"], status["step"])  # sync: the round


def test_log_lists_every_segment(d):
    status = solo_run(d)
    rows = [json.loads(line) for line in good("log", "--home", f"{d}/owner", "--json", "--codes").splitlines()]
    segments = [r for r in rows if r["kind"] == "segment"]
    assert sum(r["count"] for r in segments) == status["records"]["own"]
    at = 0
    for r in segments:
        assert r["first_seq"] == at and r["machine"] == status["machine_id"] and r["lag"] >= r["count"]
        assert r["count"] <= 16 or at > 0, "a feed's first segment is short: it is flooded"
        assert len(r["codes"]) == r["count"] and all(-128 <= c <= 127 for c in r["codes"])
        assert r["bytes"] == 40 + r["count"] + 64
        at += r["count"]
    text = good("log", "--home", f"{d}/owner").splitlines()
    assert len(text) == len(segments) and status["machine_id"][:8] in text[0]
    assert good("log", "--home", f"{d}/owner", "--machine", "ffff" * 16) == ""


def test_export_is_the_trained_model(d):
    solo_run(d)
    home = good_json("eval", "--home", f"{d}/owner")
    base = good_json("eval", "--model", f"{DEMO}/model", "--data", f"{DEMO}/eval.jsonl")
    e = good_json("export", "--home", f"{d}/owner", "--out", f"{d}/out")
    assert e["digest"] == home["digest"]
    got = good_json("eval", "--model", f"{d}/out", "--data", f"{DEMO}/eval.jsonl")
    assert abs(got["loss_token_mean"] - home["loss_token_mean"]) < 1e-5
    assert got["loss_token_mean"] != base["loss_token_mean"], "nothing was trained"
    new, meta = safetensors(f"{d}/out/model.safetensors")
    old, _ = safetensors(f"{DEMO}/model/model.safetensors")
    assert {k: v[:2] for k, v in new.items()} == {k: ("F32", v[1]) for k, v in old.items()}
    assert all(new[k][2] != old[k][2] for k in new), "a tensor was left as it was"
    assert meta.get("format") == "pt", "transformers wants this"
    config = json.loads(read(f"{d}/out/config.json"))
    assert config["torch_dtype"] == "float32" and config["model_type"] == json.loads(
        read(f"{DEMO}/model/config.json"))["model_type"]
    assert read(f"{d}/out/tokenizer.json") == read(f"{DEMO}/model/tokenizer.json")
    good("export", "--home", f"{d}/owner", "--out", f"{d}/half", "--dtype", "bf16")
    assert {v[0] for v in safetensors(f"{d}/half/model.safetensors")[0].values()} == {"BF16"}
    refused(1, "base model's own folder", "export", "--home", f"{d}/owner", "--out", f"{DEMO}/model")


def test_export_loads_in_transformers(d):
    python = next((p for p in ("build/venv/bin/python", sys.executable) if os.path.exists(p) and subprocess.run(
        [p, "-c", "import torch, transformers"], capture_output=True, timeout=LIMIT_S).returncode == 0), None)
    if not python:
        raise Skip("needs the PyPI packages torch and transformers")
    solo_run(d)
    good("export", "--home", f"{d}/owner", "--out", f"{d}/out")
    want = good_json("eval", "--home", f"{d}/owner", "--data", f"{DEMO}/eval.jsonl", "--max", 20)["loss_example_mean"]
    script = """
import json, sys, torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
tok = transformers.PreTrainedTokenizerFast(tokenizer_file=sys.argv[1] + "/tokenizer.json")
total = 0.0
for line in open(sys.argv[2]).read().splitlines()[:20]:
    e = json.loads(line)
    scores = []
    for choice in e["choices"]:
        ids, n = tok(e["prompt"] + choice)["input_ids"], len(tok(e["prompt"])["input_ids"])
        with torch.no_grad():
            logp = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
        scores.append(sum(logp[i - 1, ids[i]] for i in range(n, len(ids))) / (len(ids) - n))
    total -= torch.log_softmax(torch.stack(scores), 0)[e["label"]].item()
print(total / 20)
"""
    p = subprocess.run([python, "-c", script, f"{d}/out", f"{DEMO}/eval.jsonl"], capture_output=True, text=True,
                       timeout=LIMIT_S)
    assert p.returncode == 0, p.stderr[-800:]
    assert abs(float(p.stdout.split()[-1]) - want) < 1e-4, (p.stdout, want)


def test_retraction_takes_every_trace_out(d):
    status = solo_run(d)
    base = good_json("replay", "--manifest", f"{d}/run.json", "--home", f"{d}/owner")
    good_json("retract", "--home", f"{d}/owner", "--machine", status["machine_id"][:10], "--reason", "test")
    after = good_json("replay", "--manifest", f"{d}/run.json", "--home", f"{d}/owner")
    assert base["records"] > 0 and after["records"] == 0 == after["refused"]
    good("log", "--home", f"{d}/owner", "--export", f"{d}/ledger")
    write(f"{d}/run2.json", read(f"{d}/run.json"))
    write(f"{d}/run2.json.sig", read(f"{d}/run.json.sig"))
    again = good_json("replay", "--manifest", f"{d}/run2.json", "--ledger", f"{d}/ledger", "--model", f"{DEMO}/model")
    assert again["digest"] == after["digest"] != base["digest"]
    out = good_json("eval", "--home", f"{d}/owner", "--max", 20)
    want = good_json("eval", "--model", f"{DEMO}/model", "--data", f"{DEMO}/eval.jsonl", "--max", 20)
    assert abs(out["loss_token_mean"] - want["loss_token_mean"]) < 1e-5, "the base model is back"
    rows = [json.loads(line) for line in good("log", "--home", f"{d}/owner", "--json").splitlines()]
    assert [r for r in rows if r["kind"] == "retract"][0]["machine"] == status["machine_id"]
    good("keygen", "--home", f"{d}/other")
    for name in ("run.json", "run.json.sig"):
        shutil.copy(f"{d}/{name}", f"{d}/other/{name}")
    refused(1, "only the run's owner", "retract", "--home", f"{d}/other", "--machine", status["machine_id"])


# ---- a running peer ----

def test_a_running_peer(d):
    make_run(d, "--n0", 16, "--steps", 1000000)
    home = f"{d}/owner"
    p = start_peer(d, home)
    try:
        s = until("contributions", lambda: (lambda r: r if r and r["records"]["own"] > 0 else None)(
            json.loads(run("status", "--home", home, "--json")[1] or "null")), p)
        assert s["running"] is not False
        refused(1, "in use", "run", f"{d}/run.json", "--home", home)
        assert good_json("eval", "--home", home, "--max", 10)["records"] >= 0
        good("log", "--home", home, "--export", f"{d}/ledger")
        good_json("replay", "--manifest", f"{d}/run.json", "--ledger", f"{d}/ledger")
        r = good_json("retract", "--home", home, "--machine", s["machine_id"], "--from", 0, "--reason", "test")
        assert r["sent"] is True
        until("the retraction", lambda: json.loads(good("status", "--home", home, "--json"))["contributing"] is False, p)
    finally:
        code = end_process(p)
    assert code == 0, code
    after = good_json("replay", "--manifest", f"{d}/run.json", "--home", home)
    assert after["records"] == 0


def test_a_home_belongs_to_one_run(d):
    solo_run(d)
    make_run(d, "--seed", 5)
    refused(1, "belongs to another run", "run", f"{d}/run.json", "--home", f"{d}/owner")


def test_a_damaged_ledger_is_not_used_in_part(d):
    solo_run(d)
    db = sqlite3.connect(f"{d}/owner/ledger.db")
    db.execute("UPDATE segment SET unix_ms = unix_ms + 1 WHERE seq = (SELECT max(seq) FROM segment)")
    db.commit()
    db.close()
    for args in (["replay"], ["eval", "--max", "2"], ["export", "--out", f"{d}/out"], ["status"], ["plot", "--out", f"{d}/p.svg"],
                 ["log", "--export", f"{d}/ledger"], ["log", "--json"]):
        refused(1, "1 segments and 0 control events of .* are damaged", *args, "--home", f"{d}/owner")
    assert not {"out", "p.svg", "ledger", "ledger.part"} & set(os.listdir(d)), os.listdir(d)
    good("run", "--home", f"{d}/owner", "--linger", "0", "--log-level", "error")
    good("replay", "--home", f"{d}/owner")


def test_what_failed_is_not_remembered(d):
    solo_run(d)
    before = read(f"{d}/owner/settings.json")
    end = ["--home", f"{d}/owner", "--linger", "0", "--log-level", "error"]
    refused(1, "nowhere", "run", *end, "--model", f"{d}/nowhere")
    refused(1, "nothing.jsonl", "run", *end, "--data", f"{d}/nothing.jsonl")
    assert read(f"{d}/owner/settings.json") == before
    with open(f"{d}/huge.jsonl", "wb") as f:
        f.truncate(1 << 40)  # no byte of it is read
    refused(1, "huge.jsonl is not this run's data", "run", *end, "--eval-data", f"{d}/huge.jsonl")
    os.mkfifo(f"{d}/pipe")
    refused(1, "pipe is not a regular file", "run", f"{d}/pipe", *end)
    refused(1, "pipe is not a regular file", "replay", "--home", f"{d}/owner", "--ledger", f"{d}/pipe")
    good("run", *end)


def main():
    tests = [(k, v) for k, v in globals().items() if k.startswith("test_") and callable(v)]
    if len(sys.argv) > 1:
        tests = [t for t in tests if any(a in t[0] for a in sys.argv[1:])]
    passed = failed = skipped = 0
    for name, test in tests:
        with tempfile.TemporaryDirectory(prefix="onebyte-cli-") as d:
            try:
                test(d)
                passed += 1
                print(f"ok {name}", flush=True)
            except Skip as e:
                skipped += 1
                print(f"skip {name}: {e}", flush=True)
            except Exception as e:  # a failed assertion, a time-out, a missing binary: all are failures of this test
                failed += 1
                where = traceback.extract_tb(e.__traceback__)[-1]
                print(f"FAIL {name}: {type(e).__name__}: {e} (line {where.lineno})".replace("\n", " "), flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
