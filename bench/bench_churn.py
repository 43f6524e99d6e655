#!/usr/bin/env python3
"""bench_churn: real peers that come and go, against as many that stay, on loopback; one JSON line per run.

    bench/bench_churn.py [--seconds 100] [--every 30] [--rounds 2]      a failure: peers that hold the same records differ

Six processes of `onebyte run` train the embedded model at every moment, one thread each; with the plain kernels, so that it takes
the time.  Where they come and go, every 30 s two of them leave, one by SIGTERM and one by SIGKILL, and two join at that moment: one is
a new machine with an empty home, one is the machine killed before, with its ledger.  The runs alternate.  After SECONDS all are
paused until they hold the same records and parameters; then one who came late replays its ledger, and the owner's checkpoints are evaluated.
"""
import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/e2e"))
from lib import DEMO, Swarm, good_json, settle  # noqa: E402

PEERS, STAY = 6, 2


class Crowd:
    def __init__(self, folder):
        self.swarm = Swarm(folder, "--n0", 512, "--steps", 1000, "--schedule", "constant", "--lr", 0.001)
        self.owner = self.swarm.peer("owner", "--kernels", "ref", "--checkpoint-every", 10).start()
        self.address, self.joins, self.killed = self.owner.address(), 0, None
        self.present = [self.owner] + [self.new() for _ in range(PEERS - 1)]

    def new(self):
        self.joins += 1
        return self.swarm.peer(f"peer{self.joins}", "--kernels", "ref", "--connect", self.address).start()

    def turn(self):
        """The two that have been here longest leave, but for those that always stay."""
        leaves, dies = self.present.pop(STAY), self.present.pop(STAY)
        leaves.process.send_signal(signal.SIGTERM)
        dies.kill()
        self.present += [self.killed.start() if self.killed else self.new(), self.new()]
        self.killed = dies
        code = leaves.ended()
        assert code == 0, f"{leaves.name} left with exit code {code}:\n{leaves.log()[-1500:]}"


def evaluate(home, *which):
    x = good_json("eval", "--home", home, "--model", f"{DEMO}/model", "--data", f"{DEMO}/eval.jsonl", *which)
    return x["records"], round(x["loss_example_mean"], 6)


def core_s():
    u = resource.getrusage(resource.RUSAGE_CHILDREN)
    return u.ru_utime + u.ru_stime


def run(a, churn):
    with tempfile.TemporaryDirectory(prefix="onebyte-bench-") as folder:
        spent = core_s()
        c = Crowd(folder)
        try:
            began, turns = time.monotonic(), 0
            while (passed := time.monotonic() - began) < a.seconds:
                if churn and passed >= a.every * (turns + 1):
                    c.turn()
                    turns += 1
                time.sleep(0.05)
            held = settle(c.present)
            settled = time.monotonic() - began - a.seconds
            for p in c.present:
                assert p.end() == 0, p.log()[-1500:]
            spent = core_s() - spent
            assert c.present[-1].replay()["digest"] == held[0]["digest"]
            last = held[0]["checkpoint"]["number"]
            curve = [evaluate(c.owner.home, "--checkpoint", n) for n in range(1, last + 1)] + [evaluate(c.owner.home)]
        finally:
            c.swarm.end()
    return {"arm": "churn" if churn else "stay", "seconds": a.seconds, "turns": turns, "machines": held[0]["machines"],
            "records": held[0]["records"]["folded"], "loss": curve[-1][1], "core_s": round(spent, 1), "settled_s": round(settled, 1),
            "digest": held[0]["digest"], "curve": curve}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seconds", type=float, default=100)
    p.add_argument("--every", type=float, default=30)
    p.add_argument("--rounds", type=int, default=2)
    a = p.parse_args()
    for i in range(a.rounds):
        for churn in (False, True) if i % 2 == 0 else (True, False):
            print(json.dumps(run(a, churn)), flush=True)


if __name__ == "__main__":
    main()
