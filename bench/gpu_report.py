#!/usr/bin/env python3
"""bench/gpu.sh's JSON lines as a Markdown table, ratios with the targets of issue 4 added.  gpu_report.py FIGURES"""
import json
import sys

TARGETS = [  # (name, numerator, denominator or None, shape -> (sense, bound))
    ("two-sided batch with fold / two plain passes", "step / two plain passes", None,
     {"1.3b": ("<=", 1.05), "13b": ("<=", 1.05)}),
    ("PyTorch MeZO step / ours", "PyTorch MeZO step", "step: two-sided batch, fold per 64 records",
     {"1.3b": (">=", 2), "13b": (">=", 1.3)}),
    ("forward pass, share of the product's rate", "forward pass, share of the product's rate", None, {"13b": (">=", 0.75)}),
    ("fold of 100,000 rank-1 records, s", "fold of 100,000 rank-1 records", None, {"1.3b": ("<=", 0.7)}),
    ("device memory per parameter less 6 GB, bytes", "device memory per parameter less 6 GB", None, {"13b": ("<=", 6)}),
]


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        lines = [json.loads(line) for line in f if line.strip()]
    print("| figure | shape | measured | floor: operations | floor: bytes |\n|---|---|---|---|---|")
    got = {}
    for x in lines:
        if "figure" not in x:
            print("| device | %s | %s, %d parameters | | |" % (x["shape"], x["device"], x["parameters"]))
            continue
        got[x["figure"], x["shape"]] = x["value"]
        floors = ["%.4g s" % x[k] if k in x else "" for k in ("floor_operations_s", "floor_bytes_s")]
        print("| %s | %s, %s | %.4g %s | %s | %s |" % (x["figure"], x["shape"], x["batch"], x["value"], x["unit"], *floors))
    print("\n| target | shape | measured | target | met |\n|---|---|---|---|---|")
    for name, above, below, bounds in TARGETS:
        for shape, (sense, bound) in bounds.items():
            if (above, shape) not in got or (below and (below, shape) not in got):
                continue
            value = got[above, shape] / (got[below, shape] if below else 1)
            met = value <= bound if sense == "<=" else value >= bound
            print("| %s | %s | %.4g | %s %g | %s |" % (name, shape, value, sense, bound, "yes" if met else "no"))
    for (name, shape), value in sorted(got.items()):
        if name == "PyTorch forward pass" and ("two plain forward passes", shape) in got:
            print("| PyTorch forward pass / ours | %s | %.4g | | |" % (shape, value / (got["two plain forward passes", shape] / 2)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
