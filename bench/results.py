#!/usr/bin/env python3
"""Every experiment of bench/RESULTS.md's second half: runs, tables, plots.

    results.py [--short] [--jobs N] [SECTION..]     sections: the keys of SECTIONS, at the end
    results.py --tables                  only writes the tables and plots again from what has been run

Runs build/release/bench/bench_learn and bench/baselines/mezo.py, one thread each, N at a time (1).  What a run printed
is kept under build/results/cache by its command, so that an interrupted call goes on where it was; after a change of the code,
remove that folder.  Writes bench/results/*.csv (one line per run), *.svg and *.md, which RESULTS.md quotes.  --short: one seed, the
embedded task alone; into build/results/short.
"""
import csv
import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHORT = "--short" in sys.argv
TABLES = "--tables" in sys.argv
JOBS = int(sys.argv[sys.argv.index("--jobs") + 1]) if "--jobs" in sys.argv else 1
WORK = ROOT / "build/results"
CACHE = WORK / "cache"
OUT = WORK / "short" if SHORT else ROOT / "bench/results"
DATA = ROOT.parent / "shared/data"
PYTHON = os.environ.get("PYTHON") or str(ROOT / "build/venv/bin/python")
ENV = dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
SEEDS = [0] if SHORT else [0, 1, 2]

DEMO = {"model": "peer/demo/model", "train": "peer/demo/train.jsonl", "eval": "peer/demo/eval.jsonl"}
STORIES = {"model": str(DATA / "models/stories260k"), "train": "build/results/gsm8k/train.jsonl", "eval": "build/results/gsm8k/eval.jsonl",
           "length": 64, "eval_max": 200}
MINILM = {"model": "build/results/minilm/model", "train": "build/results/minilm/train.jsonl", "eval": "build/results/minilm/eval.jsonl"}


missing = {}  # commands that a section asked for and the cache lacks
said = set()  # what was left out, and why


def call(argv):
    """What argv printed, as JSON objects, if it ran before; else it is put on the list and None returned."""
    key = " ".join(str(a) for a in argv).replace(str(DATA), "DATA")
    path = CACHE / (hashlib.sha1(key.encode()).hexdigest()[:16] + ".jsonl")
    if not path.exists():
        missing[key] = (path, [str(a) for a in argv])
        return None
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


def run(key, path, argv):
    print("run:", key, flush=True)
    done = subprocess.run(argv, cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{key}\n{done.stderr}")
    CACHE.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"command": key}) + "\n" + done.stdout)
    part.rename(path)


def learn(task, **options):
    """One run of ours: {header, curve, last}; None: not yet run."""
    merged = {**task, **options}
    lines = call(["build/release/bench/bench_learn", *(f"{k}={v}" for k, v in merged.items())])
    if lines is None:
        return None
    curve = [x for x in lines if "loss" in x]
    return {"options": options, "header": lines[1], "curve": curve, "last": curve[-1], "first": curve[0]}


def mezo(task, lr, seed, **options):
    """Runs of PyTorch's MeZO in the same form, one for each of lr and seed (lists).  None: not all run yet, or there is no torch."""
    if not have_python("PyTorch's MeZO and AdamW are"):
        return None
    runs = []
    for rate, number in ((float(x), n) for x in lr for n in seed):
        merged = {**task, **options, "lr": f"{rate:g}", "seed": number}
        lines = call([PYTHON, "bench/baselines/mezo.py", *(f"{k}={v}" for k, v in merged.items())])
        curve = [x for x in lines or [] if "loss" in x]
        runs.append(curve and {"options": {**options, "lr": rate, "seed": number}, "header": lines[1], "curve": curve, "first": curve[0],
                               "last": curve[-1]})
    return runs if all(runs) else None


def best_mezo(arm, task, rates, seeds, table, **options):
    """As best_of, in two calls."""
    swept = mezo(task, rates, seeds[:1], **options)
    if not swept:
        return None, []
    first = min(swept, key=lambda r: r["last"]["loss"] if r["last"]["loss"] == r["last"]["loss"] else 1e9)
    best = first["options"]["lr"]
    more = mezo(task, [best], seeds[1:], **options) if len(seeds) > 1 else []
    table += [line_of(arm, r) for r in swept + (more or [])]
    return best, [first] + (more or [])


def spread(xs):
    return (statistics.mean(xs), statistics.stdev(xs) if len(xs) > 1 else 0.0)


def text(xs, digits=3):
    mean, sd = spread(xs)
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if len(xs) > 1 else "")


def rows(name, lines):
    """lines: dicts of one run each -> OUT/name.csv."""
    if not lines:
        return
    OUT.mkdir(parents=True, exist_ok=True)
    keys = list(dict.fromkeys(k for line in lines for k in line))
    with open(OUT / (name + ".csv"), "w", newline="", encoding="utf-8") as f:
        w = csv.DictWriter(f, keys, lineterminator="\n")
        w.writeheader()
        w.writerows(lines)


def line_of(arm, run):
    x = run["last"]
    return {"arm": arm, **{k: v for k, v in run["options"].items() if k != "evals"}, "passes_done": x["passes"], "records_done": x.get("records", ""),
            "start": run["first"]["loss"], "loss": x["loss"], "accuracy": "" if x["accuracy"] is None else x["accuracy"],
            "measure_s": x["measure_s"], "fold_s": x["fold_s"]}


def best_of(arm, runner, task, key, values, seeds, table, **options):
    """The sweep at the first seed, then the other seeds at its best value: (value, runs at it)."""
    swept = [(v, runner(task, **options, **{key: v}, seed=seeds[0])) for v in values]
    if not TABLES and any(r is None for _, r in swept):
        return None, []  # its best is not known yet
    swept = [(v, r) for v, r in swept if r]
    for v, r in swept:
        table.append(line_of(arm, r))
    if not swept:
        return None, []
    best, first = min(swept, key=lambda x: x[1]["last"]["loss"] if x[1]["last"]["loss"] == x[1]["last"]["loss"] else 1e9)
    runs = [first]
    for s in seeds[1:]:
        r = runner(task, **options, **{key: best}, seed=s)
        if r:
            runs.append(r)
            table.append(line_of(arm, r))
    return best, runs


def plot(name, title, series, xlabel, ylabel, log=False):
    """A plain SVG: series [(label, [(x, y)..])]."""
    import math
    colours = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f"]
    series = [(label, [(math.log10(x) if log else x, y) for x, y in points if x > 0 or not log]) for label, points in series if points]
    xs, ys = [p[0] for _, s in series for p in s], [p[1] for _, s in series for p in s]
    if not xs:
        return
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    x1, y1 = (x1 if x1 > x0 else x0 + 1), (y1 if y1 > y0 else y0 + 1)
    w, h, left, top, bottom = 560, 340, 60, 30, 40
    px = lambda x: left + (x - x0) / (x1 - x0) * (w - left - 170)
    py = lambda y: top + (y1 - y) / (y1 - y0) * (h - top - bottom)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" font-family="sans-serif" font-size="11">',
           f'<rect width="{w}" height="{h}" fill="white"/><text x="{left}" y="18" font-size="13">{title}</text>']
    for i in range(5):
        x, y = x0 + (x1 - x0) * i / 4, y0 + (y1 - y0) * i / 4
        out.append(f'<line x1="{left}" x2="{px(x1):.1f}" y1="{py(y):.1f}" y2="{py(y):.1f}" stroke="#ddd"/>'
                   f'<text x="{left - 4}" y="{py(y) + 4:.1f}" text-anchor="end">{y:.3g}</text>'
                   f'<text x="{px(x):.1f}" y="{h - bottom + 14}" text-anchor="middle">{10 ** x if log else x:.4g}</text>')
    out.append(f'<text x="{left}" y="{h - 8}">{xlabel}</text><text x="4" y="{top - 4}">{ylabel}</text>')
    for i, (label, points) in enumerate(series):
        c = colours[i % len(colours)]
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{c}" stroke-width="1.6"/>'
                   + "".join(f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.2" fill="{c}"/>' for x, y in points)
                   + f'<text x="{w - 162}" y="{top + 12 + 15 * i}" fill="{c}">{label}</text>')
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / (name + ".svg")).write_text("\n".join(out + ["</svg>", ""]), encoding="utf-8")


def markdown(title, head, body):
    lines = [f"### {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(c) for c in row) + " |" for row in body]) + "\n"


MINILM_PASSES, MINILM_STEPS = 6000, ["3e-5", "1e-4", "3e-4", "6e-4"]


# ---- 1. rank-1 against dense directions on a real model of 22.7M parameters ----

def left_out(what, why):
    line = f"results.py: {what} left out: {why}"
    if line not in said:
        print(line, file=sys.stderr, flush=True)
    said.add(line)
    return False


def have_python(what):
    return pathlib.Path(PYTHON).exists() or left_out(what, f"no {PYTHON} (a Python with torch and transformers; PYTHON=.. names another)")


def have_data(what):
    return DATA.exists() or left_out(what, f"no {DATA}")


def have_minilm():
    """The model of 22.7M parameters and SST-2, made at the first call."""
    what = "the model of 22.7M parameters is"
    if SHORT or not have_data(what):
        return False
    if TABLES or (ROOT / MINILM["eval"]).exists():
        return True
    if not have_python(what):
        return False
    made = subprocess.run([PYTHON, "bench/prepare_minilm.py", "build/results/minilm"], cwd=ROOT, env=ENV)
    return made.returncode == 0 or left_out(what, "bench/prepare_minilm.py failed, as it says above")


def minilm():
    if not have_minilm():
        return None
    table, body, curves = [], [], []
    arms = {"rank1": {"direction": "rank1"}, "rademacher": {"direction": "rademacher"}, "gaussian": {"direction": "gaussian"},
            "rank1, one-sided 7 + 1": {"direction": "rank1", "sides": 1, "segment": 14}}
    for arm, options in arms.items():
        best, runs = best_of(arm, learn, MINILM, "u", MINILM_STEPS, SEEDS, table, **options, passes=MINILM_PASSES, evals=1)
        if not runs:
            continue
        body.append([arm, best, len(runs), text([r["last"]["loss"] for r in runs], 4),
                     text([100 * r["last"]["accuracy"] for r in runs], 1),
                     text([(r["last"]["measure_s"] + r["last"]["fold_s"]) for r in runs], 0)])
        curves.append((arm, [(p["passes"], p["loss"]) for p in runs[0]["curve"]]))
    rows("minilm", table)
    plot("minilm", "all-MiniLM-L6, 22.7M parameters, SST-2 dev", curves, "forward passes", "held-out loss")
    return markdown("Real model of 22.7M parameters on SST-2", ["direction", "best step per record", "seeds", "held-out loss", "accuracy, %", "core-seconds"], body)


# ---- 2. MeZO in PyTorch ----

def at_time(run, seconds):
    """The curve's loss when `seconds` of core time were spent, between its points."""
    return between([(x["measure_s"] + x["fold_s"], x["loss"]) for x in run["curve"]], seconds)


def between(points, x):
    """The value at x on the line through points [(x, value)..], x rising; beyond the last: its value."""
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / max(x1 - x0, 1e-9)
    return points[-1][1]


def seconds(run):
    return run["last"]["measure_s"] + run["last"]["fold_s"]


def have_stories():
    """stories260k, and word problems: a text far from the stories that it knows."""
    if SHORT or not have_data("stories260k is"):
        return False
    for name, source, n in (("train", "train", 3000), ("eval", "test", 200)):
        path = WORK / f"gsm8k/{name}.jsonl"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = (DATA / f"gsm8k/{source}.jsonl").read_text(encoding="utf-8").splitlines()[:n]
            path.write_text("".join(json.dumps({"text": json.loads(line)["question"]}) + "\n" for line in lines), encoding="utf-8")
    return True


TASKS = {  # name: (task, passes, our steps per record, MeZO's rates)
    "embedded": (DEMO, 500, ["1e-3", "2e-3", "4e-3", "8e-3"], ["1e-3", "3e-3", "1e-2"]),
    "stories260k": (STORIES, 4000, ["1e-4", "3e-4", "6e-4"], ["3e-5", "1e-4", "3e-4"]),
}
LARGE = (MINILM, MINILM_PASSES, MINILM_STEPS, ["3e-5", "1e-4", "3e-4", "1e-3"])


def tasks():
    """What the comparison and the ablations run on; TASK=name limits them, and zero tuning, to one."""
    some = TASKS if have_stories() else {"embedded": TASKS["embedded"]}
    return {k: v for k, v in some.items() if os.environ.get("TASK", k) == k}


def compare():
    table, body = [], []
    large = {"all-MiniLM-L6": LARGE} if os.environ.get("TASK", "all-MiniLM-L6") == "all-MiniLM-L6" and have_minilm() else {}
    for name, (task, passes, ours, theirs) in {**tasks(), **large}.items():
        a, runs_a = best_of(f"{name} ours", learn, task, "u", ours, SEEDS, table, passes=passes, evals=4)
        b, runs_b = best_mezo(f"{name} MeZO", task, theirs, SEEDS, table, passes=passes, evals=4)
        one, runs_c = best_of(f"{name} ours one-sided", learn, task, "u", ours, SEEDS, table, sides=1, segment=14, passes=passes, evals=4)
        if not runs_a or not runs_b:
            continue
        start = runs_a[0]["first"]["loss"]
        t = statistics.mean(seconds(r) for r in runs_a)
        same = [at_time(r, t) for r in runs_b]
        for label, best, runs in (("ours, two-sided", a, runs_a), ("ours, one-sided 7 + 1", one, runs_c), ("MeZO, PyTorch", b, runs_b)):
            if runs:
                body.append([f"{name} ({start:.3f})", label, best, passes, text([r["last"]["loss"] for r in runs]),
                             text([seconds(r) for r in runs], 2)])
        body.append([f"{name} ({start:.3f})", f"MeZO, PyTorch, stopped after our {t:.2f} core-s", b, "", text(same), f"{t:.2f}"])
    rows("mezo", table)
    return body and markdown("Against MeZO (PyTorch F32, dense Gaussian, batch 16, constant rate; checked against a float64 reference)",
                    ["task (start)", "arm", "best rate", "passes", "held-out loss", "core-seconds"], body)


# ---- 3. ablations ----

ABLATIONS = {
    "default": {},
    "direction rademacher": {"direction": "rademacher"},
    "direction gaussian": {"direction": "gaussian"},
    "one-sided 3 + 1": {"sides": 1, "K": 3, "segment": 15},
    "one-sided 7 + 1": {"sides": 1, "K": 7, "segment": 14},
    "one-sided 15 + 1": {"sides": 1, "K": 15, "segment": 15},
    "direction per 4 examples": {"per": 4, "segment": 4, "n0": 16},
    "direction per 16 examples": {"per": 16, "segment": 1, "n0": 4},
    "float codes": {"code": "float"},
    "sign codes": {"code": "sign"},
    "fixed unit 8": {"unit": 8},
    "fixed unit 1": {"unit": 1},
    "eps 1e-4": {"eps": "1e-4"},
    "eps 1e-3": {"eps": "1e-3"},
    "eps 3e-3": {"eps": "3e-3"},
    "eps 3e-2": {"eps": "3e-2"},
    "eps 1e-1": {"eps": "1e-1"},
    "20 integer bits": {"bits": 20},
    "16 integer bits": {"bits": 16},
    "13 integer bits": {"bits": 13},
    "11 integer bits": {"bits": 11},
    "9 integer bits": {"bits": 9},
    "constant schedule": {"schedule": "constant"},
    "cosine schedule": {"schedule": "cosine"},
    "rex schedule": {"schedule": "rex"},
    "segment 4": {"segment": 4},
    "segment 64": {"segment": 64},
    "320 records late, damped": {"peers": 4, "stale": 4, "schedule": "constant"},  # 64 in a round: weights of a fifth
    "320 records late, undamped": {"peers": 4, "stale": 4, "schedule": "constant", "damping": 0},
}
LATE = ["1e-4", "3e-4", "1e-3", "3e-3"]
RATES = {  # steps per record where an arm's best lies elsewhere than the task's
    "embedded": {"direction per 4 examples": ["4e-3", "8e-3", "1.6e-2"], "direction per 16 examples": ["8e-3", "1.6e-2", "3.2e-2"],
                 "fixed unit 1": ["1e-3", "2e-3", "4e-3"]},
    "stories260k": {"direction per 4 examples": ["3e-4", "6e-4", "1.2e-3"], "direction per 16 examples": ["6e-4", "1.2e-3", "2.4e-3"],
                    "fixed unit 1": ["3e-5", "1e-4", "3e-4"], "320 records late, damped": LATE, "320 records late, undamped": LATE},
}


def ablations():
    table, body = [], []
    for name, (task, passes, ours, _) in tasks().items():
        for arm, options in ABLATIONS.items():
            if name == "embedded" and "stale" in options:
                continue  # its budget is shorter than that; see the staleness table
            rates = RATES[name].get(arm, ours)
            best, runs = best_of(f"{name}: {arm}", learn, task, "u", rates, SEEDS, table, passes=passes, evals=1, **options)
            if runs:
                body.append([name, arm, best, len(runs), text([r["last"]["loss"] for r in runs]), text([seconds(r) for r in runs], 2)])
    rows("ablations", table)
    return markdown("Ablations at equal forward passes, the best step per record of each arm",
                    ["task", "arm", "best step", "seeds", "held-out loss", "core-seconds"], body)


# ---- 4. scaling and staleness ----

def reached(run, target):
    """(rounds, records, passes) at which the curve first is below target; None: never."""
    return next(((p["rounds"], p["records"], p["passes"]) for p in run["curve"] if p["loss"] <= target), None)


def scaling():
    table, body, curves = [], [], []
    target = 0.3
    for n0, segment, seeds, u in ((64, 16, SEEDS, "3e-4"), (512, 16, SEEDS[:1], "3e-4"), (64, 64, SEEDS[:1], "3e-4"),
                                  (512, 64, SEEDS, "1e-4")):  # the last: what init writes, near init's step
        points = []
        for peers in (1, 2, 4, 8, 16, 32):
            got = []
            for seed in seeds:
                options = {"segment": segment} if segment != 16 else {}
                r = learn(DEMO, u=u, schedule="constant", n0=n0, peers=peers, passes=16000, evals=max(10, 16000 // (32 * peers)), target=target,
                          seed=seed, **options)
                if r:
                    table.append({"experiment": "peers", **line_of(f"{peers} peers", r)})
                    got.append(reached(r, target))
            if not got:
                continue
            if None in got:
                body.append([n0, segment, u, peers, "not within 16,000 passes", "", ""])
                continue
            points.append((peers, statistics.mean(x[0] for x in got)))
            body.append([n0, segment, u, peers, text([x[0] for x in got], 1), text([x[1] for x in got], 0),
                         f"{points[0][1] / points[-1][1]:.1f}"])
        curves.append((f"n0 {n0}, segment {segment}", points))
    rows("scaling", table)
    plot("scaling", f"rounds to loss {target}, embedded task", curves, "peers (log)", "rounds", log=True)
    stale_table, stale = [], []
    for damping in (1, 0):
        for late in (0, 1, 4, 16):
            for u in ("3e-4",):
                runs = [r for r in (learn(DEMO, u=u, peers=4, stale=late, damping=damping, passes=8000, evals=4, schedule="constant", seed=s)
                                    for s in SEEDS) if r]
                for r in runs:
                    stale_table.append(line_of(f"{late} rounds late", r))
                if runs:
                    stale.append([f"{late} ({64 * late} records)", "on" if damping else "off", u, text([r["curve"][1]["loss"] for r in runs]),
                                  text([r["last"]["loss"] for r in runs])])
    rows("staleness", stale_table)
    churn = [learn(DEMO, u="3e-4", schedule="constant", n0=512, peers=8, passes=4000, evals=8, churn=c, seed=0) for c in (0, 1)]
    out = markdown(f"In-process peers to held-out loss {target} (embedded task, one segment per peer and round, in lockstep)",
                   ["n0", "segment", "step per record", "peers", "rounds", "records", "speed-up in rounds"], body)
    out += "\n" + markdown("Staleness (embedded task, 4 peers x 16 records per round; lag beyond n0 = 64 is damped)",
                           ["rounds late", "damping", "step per record", "loss at 2,000 passes", "at 8,000"], stale)
    if all(churn):
        rows("churn", [line_of("all stay", churn[0]), line_of("half pause every other eighth", churn[1])])
        out += f"\nJoin and leave (half of 8 peers absent in every other eighth of the run): loss {churn[1]['last']['loss']:.3f} after 4,000 passes; " \
               f"{churn[0]['last']['loss']:.3f} when all stay.\n"
    return out


def churn():
    """Real processes (bench_churn.py): two of six are replaced every 30 s, beside six that stay."""
    lines = call(["python3", "bench/bench_churn.py", *("--seconds 40 --every 10 --rounds 1".split() if SHORT else [])])
    runs = [x for x in lines or [] if "arm" in x]
    table, body = [], []
    for i in range(0, len(runs), 2):
        equal = min(x["records"] for x in runs[i:i + 2])
        table += [{**{k: v for k, v in x.items() if k != "curve"}, "equal": equal, "loss_at_equal": round(between(x["curve"], equal), 6)}
                  for x in runs[i:i + 2]]
    for arm in ("stay", "churn") if runs else ():
        some = [x for x in table if x["arm"] == arm]
        body.append([arm, some[0]["turns"], " ".join(str(x["machines"]) for x in some), *(" ".join(f"{x[k]:{f}}" for x in some) for k, f in (
            ("records", ".0f"), ("loss", ".3f"), ("loss_at_equal", ".3f"), ("core_s", ".0f")))])
    rows("churn_processes", table)
    return body and markdown(f"Two swarms of six processes side by side for {runs[0]['seconds']:g} s (embedded task; one figure per run)",
                             ["arm", "times that two are replaced", "machines that contributed", "records", "held-out loss",
                              "at the fewer records of both", "core-seconds"], body)


# ---- 5. communication ----

PUBLISHED = [  # what others report; ../shared/notes/zo.md has the marks of how far each was verified
    ("DeComFL (arXiv 2405.15861)", "OPT-1.3B, SST-2 90.8 %", "0.24 MB", "per client over the run; through a server"),
    ("DeComFL", "OPT-125M, SST-2 85.1 %", "0.36 MB", "per client over the run"),
    ("FedKSeed (2312.06353)", "LLaMA-3B, Dolly", "under 18 KB a round", "4,096 scalars each way; 40 rounds, so about 0.7 MB"),
    ("SeedFlood (2602.18181)", "SST-2 92.89 %", "about 400 KB", "third-party summary; the run's total per peer"),
    ("FeedSign (2501.17610)", "OPT-13B", "1 bit a step", "through a server; accuracy 6 points below first order"),
    ("d-eggs (github d0rc/egg.c)", "int8 model", "0.2 byte a pair", "32,768 bytes a step and worker at population 327,680"),
    ("DiLoCo (2311.08105)", "pre-training", "1/500 of all-reduce", "as reported by third parties; whole models, rarely"),
    ("DeMo (2411.19870), 1B", "pre-training", "3.44 MB a step", "third-party summary; against 2,416.6 MB"),
]


def communication():
    body = [[*row] for row in PUBLISHED]
    per_record = 4.875  # measured on the wire for segments of 64, init's: bench_wire, first half of RESULTS.md
    lines = []
    for name, task, run in (("embedded task", DEMO, learn(DEMO, u="2e-3", passes=500, evals=4, seed=0)),
                            ("all-MiniLM-L6 22.7M, SST-2", MINILM, minilm_best() if have_minilm() else None)):
        if not run:
            continue
        records, parameters = run["last"]["records"], run["header"]["parameters"]
        accuracy = 100 * run["last"]["accuracy"]
        ours, dense = records * per_record, 2 * 4 * parameters
        lines.append({"task": name, "records": records, "bytes": round(ours), "accuracy": accuracy, "all_reduce_bytes_per_step": dense})
        body.append([f"**onebyte**, {name}", f"{accuracy:.1f} % held out", f"{ours / 1024:.1f} KB", f"{records} records at {per_record} bytes, per link; "
                     f"one F32 ring all-reduce step of it: {dense / 1e6:.1f} MB per machine"])
    rows("communication", lines)
    return markdown("Bytes to a result, beside what others publish (other models and tasks: orders of magnitude only)",
                    ["system", "model, result", "bytes", "remarks"], body)


def minilm_best():
    runs = [learn(MINILM, direction="rank1", passes=MINILM_PASSES, evals=1, u=u, seed=0) for u in MINILM_STEPS]
    runs = [r for r in runs if r]
    return min(runs, key=lambda r: r["last"]["loss"]) if runs else None


# ---- 6. precision and cost ----

def precision():
    cycles = 1000 if SHORT else 10000
    if not have_python("drift of weights is"):
        return None
    drift = call([PYTHON, "bench/baselines/mezo.py", "drift", "model=peer/demo/model", f"cycles={cycles}"])
    ours = call(["build/release/bench/bench_learn", *(f"{k}={v}" for k, v in DEMO.items()), f"passes={2 * cycles}", "evals=1", "undo=1"])
    if not drift or not ours:
        return None
    body = [[f"PyTorch {x['dtype']}", x["cycles"], f"{x['max']:.3g}", f"{100 * x['mean_over_mean_weight']:.3g} %"] for x in drift if "dtype" in x]
    undone = next(x for x in ours if "undone" in x)
    body.append(["onebyte, records added and subtracted in another order", cycles, "0" if undone["undone"] else "NOT ZERO", "0, digest equal"])
    rows("precision", [x for x in drift if "dtype" in x])
    return markdown("Drift of the embedded model's weights after N cycles of +eps, -2 eps, +eps at eps 1e-3 (PyTorch: first layer's attention)", ["weights", "cycles", "largest change",
                    "mean change / mean weight"], body)


def cost():
    """Core-seconds to the loss that ours reaches at the end of its budget."""
    table, body = [], []
    for name, (task, passes, ours, _) in tasks().items():
        best, runs = best_of(f"{name} ours", learn, task, "u", ours, SEEDS[:1], table, passes=passes, evals=4)
        rate, back = best_mezo(f"{name} AdamW", task, ["1e-3", "3e-3"], SEEDS[:1], table, passes=2 * passes, evals=20, method="adamw")
        if not runs or not back:
            continue
        goal = runs[0]["last"]["loss"]
        there = next((p for p in back[0]["curve"] if p["loss"] <= goal), None)
        body.append([name, f"{goal:.3f}", f"{seconds(runs[0]):.2f}", f"{there['measure_s']:.2f}" if there else f"not within {seconds(back[0]):.2f}",
                     f"{seconds(runs[0]) / max(there['measure_s'], 0.01):.1f}" if there else ""])
    rows("cost", table)
    return body and markdown("Core-seconds to the same held-out loss: ours against backpropagation (PyTorch AdamW, batch 16)",
                    ["task", "loss", "ours", "backpropagation", "ours / backpropagation"], body)


# ---- 7. zero tuning ----

ZERO_STEPS = {"embedded": {250: "3e-4 1e-3 2e-3 4e-3 8e-3", 2048: "1e-4 3e-4 1e-3 2e-3 4e-3", 16384: "1e-4 3e-4 1e-3 2e-3", 65536: "1e-5 1e-4 3e-4 1e-3"},
              "stories260k": {250: "3e-4 6e-4 1e-3 3e-3", 2048: "1e-4 2e-4 3e-4 6e-4", 16384: "3e-5 1e-4 2e-4 3e-4",
                              65536: "3e-5 1e-4 2e-4"},
              "all-MiniLM-L6": {250: "1e-4 3e-4 6e-4 1e-3", 2048: "1e-4 3e-4 6e-4", 16384: "1e-4 2e-4 3e-4", 65536: "4e-5 7e-5 1.4e-4"}}


def zero():
    """What a run improves at the step that init measures, of what the best step of the sweep improves, at four lengths."""
    table, body = [], []
    models = {"embedded": DEMO, **({"stories260k": STORIES} if have_stories() else {}), **({"all-MiniLM-L6": MINILM} if have_minilm() else {})}
    for name, task in models.items():
        for records, steps in ZERO_STEPS[name].items() if os.environ.get("TASK", name) == name else ():
            if SHORT and records > 2048:
                continue
            o = {"n0": 64, "segment": 16} if records < 2000 else {"n0": 512, "segment": 64}
            o |= {"passes": 2 * records, "evals": 2}
            seeds = SEEDS[:1] if name == "all-MiniLM-L6" and records > 2048 else SEEDS  # hours otherwise
            best, runs = best_of(name, learn, task, "u", steps.split(), seeds, table, **o)
            plain = [r for r in (learn(task, **o, seed=s) for s in seeds) if r]
            if not runs or len(plain) != len(runs):
                continue
            table += [line_of(f"{name}, no flag", r) for r in plain]
            start = plain[0]["first"]["loss"]
            ours, swept = [r["last"]["loss"] for r in plain], [r["last"]["loss"] for r in runs]
            init = plain[0]["header"]  # the walks are the same for every seed
            body.append([name, records, best, f"{init['lr'] / init['n0']:.2g}", f"{start:.3f}", text(swept), text(ours),
                         text([100 * (start - x) / (start - y) for x, y in zip(ours, swept)], 0) + " %"])
    rows("zero", table)
    return markdown("Zero tuning: the step that init measures against the best of the sweep (swept at seed 0)",
                    ["task", "records", "best step", "init's step", "start", "best", "no flag", "share"], body)


def directions():
    """Gradients along each kind of direction at the untouched base model: what theory says of them, measured."""
    table, body = [], []
    for name, task in {"embedded": DEMO, **({"all-MiniLM-L6": MINILM} if have_minilm() else {})}.items():
        for direction in ("rank1", "rademacher", "gaussian"):
            argv = {**task, "direction": direction, "lr": 0, "passes": 1600, "evals": 1, "eval_max": 16, "seed": 0}
            lines = call(["build/release/bench/bench_learn", *(f"{k}={v}" for k, v in argv.items())])
            if lines:
                d = next(x for x in lines if "digest" in x)
                table.append({"task": name, "direction": direction, **{k: d[k] for k in ("g_rms", "g_kurtosis", "g_clipped")}})
                body.append([name, direction, f"{d['g_rms']:.3g}", f"{d['g_kurtosis']:.2f}", f"{100 * d['g_clipped']:.2f} %"])
    rows("directions", table)
    return markdown("800 projected gradients at the base model, the same examples", ["model", "direction", "rms of g", "kurtosis", "clipped by the byte"],
                    body)


SECTIONS = {"minilm": minilm, "directions": directions, "mezo": compare, "ablations": ablations, "scaling": scaling, "churn": churn, "precision": precision, "cost": cost, "zero": zero,
            "communication": communication}


def main():
    wanted = [a for a in sys.argv[1:] if a in SECTIONS] or list(SECTIONS)
    OUT.mkdir(parents=True, exist_ok=True)
    for name in SECTIONS:
        if name not in wanted:
            continue
        table = SECTIONS[name]()
        while missing and not TABLES:  # a section names its runs, in as many rounds as its choices need
            todo = [(key, *what) for key, what in missing.items()]
            missing.clear()
            with ThreadPoolExecutor(JOBS) as pool:
                list(pool.map(lambda t: run(*t), todo))
            table = SECTIONS[name]()
        missing.clear()
        if table:
            (OUT / (name + ".md")).write_text(table, encoding="utf-8")
            print(table)


if __name__ == "__main__":
    main()
