#!/usr/bin/env python3
"""What real checkpoints cost: opening 1 GB, adapters' peak memory beside it, generation, tokenizers.

    python3 bench/bench_real.py        prints a Markdown table; exit 1: a bound is broken

Needs `make all benches` and, for the tokenizers, build/venv (make reference-venv) and ../shared/data.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile

from checkpoint import write_checkpoint

BIN = "build/release/bench/bench_real"
TOKENS = 64  # of each training example
rows, broken = [], []


def row(name, value, unit, bound=None, most=True):
    met = bound is None or (value <= bound if most else value >= bound)
    if not met:
        broken.append(name)
    print(json.dumps(dict(bench="real", figure=name, value=round(value, 4), unit=unit, bound=bound, ok=met)), flush=True)
    rows.append(f"| {name} | {value:.4g} {unit} | {'' if bound is None else f'{chr(60) if most else chr(62)}= {bound:g}'} | "
                f"{'' if bound is None else 'yes' if met else 'no'} |")


def bench(*args):
    out = subprocess.run([BIN, *map(str, args)], check=True, stdout=subprocess.PIPE, text=True).stdout
    print(out, end="", flush=True)
    return [json.loads(line) for line in out.splitlines()]


def load(folder, bytes_):
    r = bench("load", folder)[0]
    row(f"open a checkpoint of {bytes_ / 1e9:.2f} GB (F32, in the page cache)", r["open_s"], "s", 1)
    row("private memory after opening", r["open_anon_kb"] / 1024, "MiB", 16)
    row("private memory after a pass of 16 tokens", r["pass_anon_kb"] / 1024, "MiB", 100)


def adapters(folder, bytes_):
    """A whole run of adapters; activations as the engine bounds them: 64 MiB, or one pass if that is more."""
    with open(f"{folder}/data.jsonl", "w") as f:
        for i in range(8):
            f.write(json.dumps({"text": " ".join(["the", "film", "was", "a", "red", "soup"][(i + j) % 6] for j in range(TOKENS))}) + "\n")
    peak = ("import resource, subprocess, sys; c = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(c.returncode)")
    for threads in (1, 2):
        home, run = f"{folder}/home{threads}", f"{folder}/run{threads}.json"
        subprocess.run(["build/onebyte", "init", "--home", home, "--model", folder, "--data", f"{folder}/data.jsonl", "--out", run, "--n0",
                        "4", "--steps", "2", "--trainable", "lora:r=8,alpha=16,targets=all"], check=True, stdout=subprocess.DEVNULL)
        p = subprocess.run([sys.executable, "-c", peak, "build/onebyte", "run", run, "--home", home, "--threads", str(threads), "--linger",
                            "0", "--listen", "127.0.0.1:0"], check=True, stdout=subprocess.PIPE, text=True)
        row(f"adapters on every matrix: peak memory less the checkpoint's bytes, {threads} thread{'s' if threads > 1 else ''}",
            (int(p.stdout) * 1024 - bytes_) / 2**20, "MiB", 64 + 100)


def generate(folder):
    r = bench("generate", folder, 128, 64)
    row("64 tokens after 128: kept keys and values against recomputing", statistics.median(x["ratio"] for x in r), "times as fast", 5,
        most=False)
    row("the same with kept keys and values", 64 / statistics.median(x["kept_s"] for x in r), "tokens per second of CPU")
    if not all(x["equal"] for x in r):
        broken.append("the two ways give different tokens")


def tokenizers():
    own = "build/venv/bin/python"
    if not os.path.exists(own) or not os.path.isdir("../shared/data"):
        print("bench: no build/venv or no ../shared/data: the tokenizers are left out", file=sys.stderr)
        return
    out = subprocess.run([own, "tests/check_tokenizers.py", "--time"], stdout=subprocess.PIPE, text=True, check=True).stdout
    print(out, end="", flush=True)
    for line in out.splitlines():
        if line.startswith("time "):
            name, rest = line[5:].split(": ours ")
            row(f"tokenizer {name}: {rest.rsplit(', ratio ')[0]}; ours / theirs", float(rest.rsplit("ratio ")[1]), "", 1, most=False)


def main():
    with tempfile.TemporaryDirectory(prefix="onebyte-bench-") as folder:
        bytes_ = write_checkpoint(folder, 63)
        load(folder, bytes_)
        adapters(folder, bytes_)
    with tempfile.TemporaryDirectory(prefix="onebyte-bench-") as folder:
        write_checkpoint(folder, 8)
        generate(folder)
    tokenizers()
    print("\n| figure | measured | target | met |\n|---|---|---|---|")
    print("\n".join(rows))
    if broken:
        sys.exit("bench: beyond its bound: " + "; ".join(broken))


main()
