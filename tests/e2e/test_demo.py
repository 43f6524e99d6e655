#!/usr/bin/env python3
"""The demo, and its negative controls: the same run with nothing to learn from must learn nothing."""
import json
import os
import sys

from lib import LIMIT_S, ONEBYTE, call, main


def demo(*options):
    code, out, err = call("demo", "--json", "--max-seconds", LIMIT_S - 20, *options)
    lines = [line for line in out.splitlines() if line.startswith("{")]
    assert lines, f"no report; exit {code}: {err.strip()}"
    return code, json.loads(lines[-1])


def test_demo_learns(folder, swarm):
    code, r = demo()
    assert code == 0 and r["ok"], r
    assert len(r["digests"]) == 5 and len(set(r["digests"])) == 1, r
    assert r["accuracy_before"] < 0.6 and r["accuracy_after"] >= 0.85, r
    assert r["loss_after"] < r["loss_before"] - 0.15, r
    assert 1 < r["bytes_per_gradient"] < 4, r
    assert r["allreduce_bytes"] > 10 * r["bytes_sent"] > 0, r


def test_zero_rate_learns_nothing(folder, swarm):
    code, r = demo("--lr", 0)
    assert code == 1 and not r["learned"] and not r["loss_fell"], r
    assert r["digests_equal"] and r["survived"], r
    assert r["accuracy_after"] == r["accuracy_before"], r
    assert abs(r["loss_after"] - r["loss_before"]) < 1e-5, r


def test_shuffled_labels_teach_nothing(folder, swarm):
    code, r = demo("--shuffle-labels")
    assert code == 1 and not r["learned"] and not r["loss_fell"], r
    assert r["digests_equal"] and r["survived"], r
    assert 0.35 < r["accuracy_after"] < 0.65, r


if __name__ == "__main__":
    assert os.path.exists(ONEBYTE), f"{ONEBYTE}: run make first"
    sys.exit(main([test_demo_learns, test_zero_rate_learns_nothing, test_shuffled_labels_teach_nothing]))
