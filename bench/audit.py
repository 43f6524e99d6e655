#!/usr/bin/env python3
"""How far apart are the same records measured twice?  From it: the tolerance of audits, false accusations, power.

    python3 bench/audit.py [--records N] [--large]      after `make benches`; a Markdown report on stdout

Every setting of this machine (kernels, BLAS core, threads, memory mode, batch) measures the same records; each is compared with the
first.  x = |difference of g| eps / (sides max(1, loss)): what peer/judge.h compares with PEER_JUDGE_LOSS.  The tail is fitted by
a generalised Pareto distribution (method of moments) to the largest 2 % of x.
"""
import argparse
import importlib.util
import json
import math
import os
import random
import re
import subprocess
import tempfile

BINARY = "build/release/bench/bench_audit"
SHARED = "../shared/data"
SETTINGS = [  # name, kernels, threads, memory, groups per call, OPENBLAS_CORETYPE
    ("avx512, 1 thread, fast, batch 1", "avx512", 1, "fast", 1, None),
    ("lean", "avx512", 1, "lean", 1, None), ("2 threads", "avx512", 2, "fast", 1, None), ("batch 3", "avx512", 1, "fast", 3, None),
    ("batch 16", "avx512", 1, "fast", 16, None), ("avx2", "avx2", 1, "fast", 1, None), ("ref", "ref", 1, "fast", 1, None),
    ("ref, lean, 2 threads, batch 16", "ref", 2, "lean", 16, None), ("BLAS Haswell", "avx512", 1, "fast", 1, "Haswell"),
    ("avx2, BLAS Haswell, batch 16", "avx2", 1, "fast", 16, "Haswell"), ("ref, BLAS Prescott, batch 5", "ref", 1, "fast", 5, "Prescott"),
]


def judge_loss():
    with open("peer/judge.h", encoding="ascii") as f:
        return float(re.search(r"#define PEER_JUDGE_LOSS (\S+)", f.read()).group(1))


def measure(model, data, sides, eps, records, setting):
    _, kernels, threads, memory, batch, core = setting
    env = dict(os.environ, **({"OPENBLAS_CORETYPE": core} if core else {}))
    p = subprocess.run([BINARY, model, data, str(sides), str(eps), str(records), kernels, str(threads), memory, str(batch)], env=env,
                       capture_output=True, text=True, check=False)
    if p.returncode != 0:
        return None, p.stderr.strip()
    head, *rows = p.stdout.splitlines()
    return json.loads(head), [[float(x) for x in r.split()[1:]] for r in rows]


def gradients(head, losses):
    """(g, loss) of every record."""
    out = []
    for row in losses:
        if head["sides"] == 2:
            out.append(((row[0] - row[1]) / (2 * head["eps"]), (row[0] + row[1]) / 2))
            continue
        g = [(x - row[0]) / head["eps"] for x in row[1:]]
        mean = sum(g) / len(g)
        out += [(x - mean, row[0]) for x in g]
    return out


def tail(xs):
    """log10 of the chance that x > limit, by a generalised Pareto tail above the 98th percentile."""
    xs = sorted(xs)
    cut = xs[int(0.98 * len(xs))]
    over = [x - cut for x in xs if x > cut]
    if len(over) < 20:
        return lambda limit: float("nan")
    mean = sum(over) / len(over)
    var = sum((x - mean) ** 2 for x in over) / len(over)
    shape = max(0.0, 0.5 * (1 - mean * mean / var))  # never lighter than exponential
    scale = mean * (1 - shape)

    def log10_beyond(limit):
        y = (limit - cut) / scale
        above = -y / math.log(10) if shape < 1e-6 else -math.log10(1 + shape * y) / shape
        return math.log10(len(over) / len(xs)) + above
    return log10_beyond


def chance(log10):
    """Far beyond the data a fit says no more than that: never seen, and nowhere near."""
    return "too few pairs for a tail" if math.isnan(log10) else "< 10^-30" if log10 < -30 else f"10^{log10:.0f}"


def power(g, loss, eps, sides, limit):
    """Chance that one random byte, and one with its sign turned, is found; mean tolerance in codes."""
    r = math.sqrt(sum(x * x for x in g) / len(g))
    random.seed(1)
    tolerance, drawn, turned = 0.0, 0, 0
    for x, l in zip(g, loss):
        t = 0.5 + 32 / r * (1 if sides == 2 else 2) * limit * max(1, abs(l)) / eps
        want = max(-127.0, min(127.0, 32 * x / r))
        tolerance += t / len(g)
        drawn += abs(random.randint(-127, 127) - want) > t
        turned += abs(-round(want) - want) > t
    return drawn / len(g), turned / len(g), tolerance


def task(name, model, data, sides, eps, records):
    limit, base, pooled, worst = judge_loss(), None, [], (0, "")
    for setting in SETTINGS:
        head, rows = measure(model, data, sides, eps, records, setting)
        if head is None:
            print(f"| {name} | {setting[0]} | not possible here: {rows} | | |")
            continue
        now = gradients(head, rows)
        if base is None:
            base, info = now, head
            continue
        r = math.sqrt(sum(g * g for g, _ in base) / len(base))
        factor = eps / (1 if sides == 2 else 2)
        xs = [abs(a[0] - b[0]) * factor / max(1, abs(a[1])) for a, b in zip(base, now)]
        codes = [32 * abs(a[0] - b[0]) / r for a, b in zip(base, now)]
        pooled += xs
        worst = max(worst, (max(xs), setting[0]))
        rms = math.sqrt(sum(c * c for c in codes) / len(codes))
        print(f"| {name} | {setting[0]} | {max(xs):.2e} | {rms:.4f} | {max(codes):.4f} |", flush=True)
    beyond = tail(pooled)(limit)
    drawn, turned, tolerance = power([g for g, _ in base], [l for _, l in base], eps, sides, limit)
    return {"task": name, "parameters": info["parameters"], "records": len(base), "pairs": len(pooled), "largest": worst[0], "where": worst[1],
            "log10_false": beyond, "random": drawn, "flipped": turned, "tolerance": tolerance}


def random_model(folder):
    spec = importlib.util.spec_from_file_location("run", "bench/run.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    run.write_checkpoint(folder, 8)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=2800)
    parser.add_argument("--large", action="store_true", help="instead: 57M parameters with random weights (minutes)")
    args = parser.parse_args()
    demo, results = ("peer/demo/model", "peer/demo/train.jsonl"), []
    print("| task | against the first setting | largest x | rms, codes | largest, codes |\n|---|---|---|---|---|")
    stories = f"{SHARED}/models/stories260k"
    if not args.large:
        results.append(task("demo, two-sided", *demo, 2, 0.01, args.records))
        results.append(task("demo, one-sided 7", *demo, 1, 0.01, args.records))
    if not args.large and os.path.isdir(stories):
        results.append(task("stories260k, two-sided", stories, f"{SHARED}/tinystories/eval40.jsonl", 2, 0.01, max(64, args.records // 64)))
    if args.large:
        with tempfile.TemporaryDirectory(prefix="onebyte-audit-") as folder:
            random_model(folder)
            results.append(task("57M random, two-sided", folder, demo[1], 2, 0.003, 24))
    print("\n| task | parameters | pairs | largest x | limit | false positives per record | a random byte is found | a turned sign is found |"
          " records for 99.9 % of both | mean tolerance, codes |\n|---|---|---|---|---|---|---|---|---|---|")
    for x in results:
        least = min(x["random"], x["flipped"])
        need = 1 if least >= 1 else math.ceil(math.log(0.001) / math.log(1 - least)) if least > 0 else float("inf")
        print(f"| {x['task']} | {x['parameters']} | {x['pairs']} | {x['largest']:.2e} ({x['where']}) | {judge_loss():.0e} | "
              f"{chance(x['log10_false'])} | {100 * x['random']:.1f} % | {100 * x['flipped']:.1f} % | {need} | {x['tolerance']:.2f} |")


if __name__ == "__main__":
    main()
