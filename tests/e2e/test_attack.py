#!/usr/bin/env python3
"""An honest swarm of real processes against the hostile peer of tests/attack: equal digests, bounded memory, honest work goes on,
and the right counters.  Without arguments the short version; `make attack` runs the long one and measures a flood."""
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import DEMO, LIMIT_S, good, good_json, main, same, settle, wait  # noqa: E402

ATTACK = os.path.abspath(os.environ.get("ATTACK", "build/release/tests/attack/attack"))
LONG = ("--n0", 64, "--sides", 1, "--directions", 7, "--segment-max", 28, "--steps", 1000000, "--schedule", "constant", "--lr", 0.01)
MEMORY_MAX = 384 << 20  # of a peer with the embedded model (30 MB at rest), whatever anybody sends


class Attack:
    """One attack as a process."""

    def __init__(self, swarm, name, targets, *options):
        assert os.access(ATTACK, os.X_OK), f"{ATTACK} is missing: make {os.path.relpath(ATTACK)}"
        ports = ",".join(t.rsplit(":", 1)[1] for t in targets)
        self.name = name
        self.process = subprocess.Popen([ATTACK, swarm.manifest, ports, name, *map(str, options)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def report(self):
        """What it says at its end; fails unless it was answered as it must be."""
        try:
            out, _ = self.process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"attack {self.name} did not end") from None
        assert self.process.returncode == 0, f"attack {self.name}: {out.strip()}"
        return json.loads(out.splitlines()[-1])


def attack(swarm, name, targets, *options):
    return Attack(swarm, name, targets, *options).report()


def own(p):
    return p.wait_status("a status", lambda s: True)["records"]["own"]


def on_disk(peer, held):
    """A replay of its ledger gives what it holds; others' segments reach the disk within a second or so."""
    wait("the ledger on disk", lambda: peer.replay()["digest"] == held["digest"])


def harmless(peers, before):
    """All of them run, contribute, are small, and in the end hold the same; their statuses."""
    for p, was in zip(peers, before):
        s = p.wait_status("more records of its own", lambda s, was=was: s["records"]["own"] > was)
        assert s["memory"] < MEMORY_MAX, (p.name, s["memory"])
    return settle(peers)


def at_least(status, **bounds):
    got = status["refused"]
    assert all(got[k] >= n for k, n in bounds.items()), (bounds, got)


def three(swarm, *options):
    s = swarm(*LONG, *options)
    a = s.peer("a").start()
    at = a.address()
    b = s.peer("b", "--connect", at).start()
    c = s.peer("c", "--connect", at, "--connect", b.address()).start()
    for p in (a, b, c):
        p.wait_status("records of its own", lambda x: x["records"]["own"] > 0)
    return s, [a, b, c]


def test_short(folder, swarm):
    """Each kind of attack once.  What waits for a time limit runs beside the rest."""
    s, peers = three(swarm)
    a, b, c = peers
    at, bt = a.address(), b.address()
    before = [own(p) for p in peers]
    slow = [Attack(s, "silent", [at], 0, 20), Attack(s, "liar", [at], 3)]
    for name, *options in (("server-key",), ("certificates",), ("early",), ("close", 0, 15), ("frames", 0, 100), ("multipart",),
                           ("replay",), ("segments",), ("frontiers", 0, 100), ("garbage", 0, 72), ("requests", 1), ("flood", 1, 20),
                           ("downloads",)):
        attack(s, name, [at], *options)
    attack(s, "forks", [at, bt], 0, 9)
    for x in slow:
        x.report()
    last = harmless(peers, before)
    at_least(last[0], handshake=3, proof=5, message=2, multipart=1, hidden_bytes=1, malformed=16, invalid=2, unfit=1, uploads=1,
             quota_dropped=1000, quota_closed=1, kept_out=1, forks=9)
    for x in last:
        at_least(x, forks=9)
    on_disk(a, last[0])


def test_strangers_count_for_nothing(folder, swarm):
    """By invite: what machines that nobody admitted send or have relayed is dropped and counted, and nobody passes it on."""
    s = swarm(*LONG, "--admission", "invite")
    owner = s.peer("owner").start()
    b = s.peer("b", "--connect", owner.address()).start()
    owner.wait_status("records", lambda x: x["records"]["own"] > 0)
    attack(s, "strangers", [owner.address()], 0, 5)
    attack(s, "strangers", [b.address()], 0, 5)
    last = settle([owner, b])
    for x in last:
        at_least(x, unadmitted=15)
        assert x["refused"]["forks"] == 0, x["refused"]  # a proof about a stranger proves nothing
    for p in (owner, b):
        rows = [json.loads(line) for line in good("log", "--home", p.home, "--json").splitlines()]
        assert {r["machine"] for r in rows if r["kind"] == "segment"} == {owner.status()["machine_id"]}, p.name


def test_a_share_is_a_bound(folder, swarm):
    """One machine that declares the last step, or steps far beyond it, gets its quarter of the run and cannot end it."""
    s = swarm("--n0", 64, "--steps", 60, "--segment-max", 28, "--machines", 8)  # a share of 2/8
    a = s.peer("a").start()
    b = s.peer("b", "--connect", a.address()).start()
    got = attack(s, "share", [a.address()], 0, 120)  # 120 segments of n0 records: twice the whole run
    assert got["sent"] == 120, got
    last = settle([a, b])
    for x in last:
        assert not x["finished"] and x["step"] < 60, x  # three shares of 0.25 (60 + 8) steps at the most: 51
    on_disk(a, last[0])


def test_full(folder, swarm):
    """Every attack at full length, most of them at once."""
    s, peers = three(swarm)
    a, b, _ = peers
    at, bt = a.address(), b.address()
    before = [own(p) for p in peers]
    for x in [Attack(s, n, [at, bt], *o) for n, *o in (("silent", 0, 30), ("uncertified", 0, 20), ("liar", 30), ("forks", 0, 60),
                                                       ("frontiers",), ("garbage",), ("segments",))]:
        x.report()
    for name in ("server-key", "certificates", "early", "links", "close", "frames", "multipart", "replay", "strangers", "share"):
        print(json.dumps(attack(s, name, [at])), flush=True)
    for x in [Attack(s, "requests", [at], 20), Attack(s, "requests", [bt], 20), Attack(s, "flood", [at], 20, 50)]:
        print(json.dumps(x.report()), flush=True)
    last = harmless(peers, before)
    print(json.dumps({p.name: {"memory_mb": x["memory"] >> 20, "refused": {k: v for k, v in x["refused"].items() if v}}
                      for p, x in zip(peers, last)}), flush=True)
    on_disk(a, last[0])


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def folded(p):
    """(records folded, CPU seconds of the whole process: compute, network, ZeroMQ's own thread)"""
    s = p.wait_status("a status", lambda s: True)
    return s["records"]["folded"], cpu_s(s["pid"])


def rate(p, seconds):
    """Records folded per CPU second: a peer that has its core to itself folds as many a second, whatever else this machine does."""
    n, t = folded(p)
    time.sleep(seconds)
    m, u = folded(p)
    return (m - n) / (u - t)


def test_flood(folder, swarm):
    """What 50 flooding connections cost: the honest peer on one core, the flood on another, with and without in turns; from the moment
    that all are linked, so their first burst counts.  It folds at 0.8 of its normal rate at least (CPU time: not a matter of load)."""
    s = swarm(*LONG)
    a = s.peer("a").start(preexec=lambda: os.sched_setaffinity(0, {0}))
    at = a.address()
    a.wait_status("a start", lambda x: x["records"]["own"] > 500)
    seconds, quiet, loud, sent = 8, [], [], 0
    for _ in range(4):
        quiet.append(rate(a, seconds))
        x = Attack(s, "flood", [at], seconds + 6, 50)
        if (os.cpu_count() or 1) > 1:
            os.sched_setaffinity(x.process.pid, {1})
        a.wait_status("all of them", lambda s: s["agreement"]["links"] >= 50)  # the flood begins here
        loud.append(rate(a, seconds))
        sent += x.report()["sent"]
    last = a.running()
    share = sum(loud) / sum(quiet)
    print(json.dumps({"connections": 50, "folded_per_cpu_s": [round(x) for x in quiet], "flooded_per_cpu_s": [round(x) for x in loud],
                      "share": round(share, 3), "frames": sent, "memory_mb": last["memory"] >> 20,
                      "refused": {k: v for k, v in last["refused"].items() if v}}), flush=True)
    assert last["memory"] < MEMORY_MAX and share >= 0.8, (last["memory"], share)


SHORT = [test_short, test_strangers_count_for_nothing, test_a_share_is_a_bound]

if __name__ == "__main__":
    sys.exit(main(SHORT + [test_full, test_flood] if len(sys.argv) > 1 else SHORT))
