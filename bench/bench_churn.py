#!/usr/bin/env python3
"""bench_churn: real peers that come and go, beside as many that stay, on loopback; one JSON line per swarm.

    bench/bench_churn.py [--seconds 100] [--every 30] [--rounds 3]      a failure: peers that hold the same records differ

Two swarms of six processes of `onebyte run` train the embedded model at the same time, so that both get the same share of a busy
machine: one thread each, the plain kernels, so that it takes the time.  In one, every 30 s two peers leave, one by SIGTERM and one by
SIGKILL, and two join at that moment: a new machine with an empty home, and the machine killed before, with its ledger.
After SECONDS all are paused until they hold the same records and parameters; then one that came late replays its
ledger, and the states that the owner's checkpoints name are evaluated: the curve, of (records, held-out loss).
"""
import argparse
import json
import os
import signal
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/e2e"))
from lib import DEMO, Swarm, good, good_json, settle  # noqa: E402

PEERS, STAY = 6, 2


def cpu_s(peer):
    with open(f"/proc/{peer.process.pid}/stat", encoding="ascii") as f:
        return sum(map(int, f.read().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")


class Crowd:
    def __init__(self, folder):
        os.mkdir(folder)
        self.swarm = Swarm(folder, "--n0", 512, "--steps", 1000, "--schedule", "constant", "--lr", 0.002)
        self.owner = self.swarm.peer("owner", "--kernels", "ref", "--checkpoint-every", 10).start()
        self.address, self.joins, self.turns, self.spent_s, self.killed = self.owner.address(), 0, 0, 0.0, None
        self.present = [self.owner] + [self.new() for _ in range(PEERS - 1)]

    def new(self):
        self.joins += 1
        return self.swarm.peer(f"peer{self.joins}", "--kernels", "ref", "--connect", self.address).start()

    def turn(self):
        """The two that have been here longest leave, but for those that always stay."""
        leaves, dies = self.present.pop(STAY), self.present.pop(STAY)
        self.spent_s += cpu_s(leaves) + cpu_s(dies)
        leaves.process.send_signal(signal.SIGTERM)
        dies.kill()
        self.present += [self.killed.start() if self.killed else self.new(), self.new()]
        self.killed = dies
        self.turns += 1
        code = leaves.ended()
        assert code == 0, f"{leaves.name} left with exit code {code}:\n{leaves.log()[-1500:]}"

    def result(self):
        held = settle(self.present)
        self.spent_s += sum(map(cpu_s, self.present))
        for p in self.present:
            assert p.end() == 0, p.log()[-1500:]
        assert self.present[-1].replay()["digest"] == held[0]["digest"]
        last = held[0]["checkpoint"]["number"]
        curve = [self.evaluate("--checkpoint", n) for n in range(1, last + 1)] + [self.evaluate()]
        return {"turns": self.turns, "machines": held[0]["machines"], "records": held[0]["records"]["folded"], "loss": curve[-1][1],
                "core_s": round(self.spent_s, 1), "digest": held[0]["digest"], "curve": curve}

    def evaluate(self, *which):
        x = good_json("eval", "--home", self.owner.home, "--model", f"{DEMO}/model", "--data", f"{DEMO}/eval.jsonl", *which)
        return x["records"], round(x["loss_example_mean"], 6)


def run(a, folder):
    crowds = {"stay": Crowd(f"{folder}/stay"), "churn": Crowd(f"{folder}/churn")}
    try:
        began = time.monotonic()
        while (passed := time.monotonic() - began) < a.seconds:
            if passed >= a.every * (crowds["churn"].turns + 1):
                crowds["churn"].turn()
            for p in (p for c in crowds.values() for p in c.present):
                assert p.alive(), f"{p.home} ended by itself with {p.process.poll()}:\n{p.log()[-3000:]}"
            time.sleep(0.05)
        for pair in zip(*(c.present for c in crowds.values())):
            for p in pair:
                good("pause", "--home", p.home)
        for arm, c in crowds.items():
            print(json.dumps({"arm": arm, "seconds": a.seconds, **c.result()}), flush=True)
    finally:
        for c in crowds.values():
            c.swarm.end()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seconds", type=float, default=100)
    p.add_argument("--every", type=float, default=30)
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    for _ in range(a.rounds):
        with tempfile.TemporaryDirectory(prefix="onebyte-bench-") as folder:
            run(a, folder)


if __name__ == "__main__":
    main()
