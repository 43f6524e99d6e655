#!/usr/bin/env python3
"""Snapshots between processes: joiners and restarts start from one that they have proved, and from the base when it is false."""
import hashlib
import os
import re
import sys

from lib import good, main, settle, wait

RUN = ("--n0", 64, "--sides", 1, "--directions", 7, "--segment-max", 28, "--steps", 1000000, "--schedule", "constant",
       "--lr", 0.01)
EVERY = ("--snapshot-every", 1000)


def state(p):
    return f"{p.home}/snapshots/state"


def made(p):
    """Runs until a snapshot is on its disk."""
    p.wait_status("a snapshot", lambda s: os.path.exists(state(p)))


def events(p, pattern):
    return re.findall(f"ev=snapshot .*{pattern}", p.log())


def falsify(path):
    """One parameter changed, and the hash made right again: what a liar would serve."""
    with open(path, "rb") as f:
        x = bytearray(f.read()[:-32])
    x[-5] ^= 1
    with open(path, "wb") as f:
        f.write(x + hashlib.blake2b(x, digest_size=32).digest())


def test_a_joiner_proves_a_snapshot(folder, swarm):
    s = swarm(*RUN)
    a = s.peer("a", *EVERY).start()
    made(a)
    b = s.peer("b", "--connect", a.address(), *EVERY).start()
    b.wait_status("its own records", lambda x: x["records"]["own"] > 0)
    assert events(b, "fetched=yes") and events(b, "proved=yes records=[1-9]"), b.log()[-2000:]
    held = settle([a, b])
    wait("both ledgers on disk", lambda: {p.replay()["digest"] for p in (a, b)} == {held[0]["digest"]})


def test_a_false_snapshot_is_refused(folder, swarm):
    s = swarm(*RUN)
    a = s.peer("a", *EVERY).start()
    made(a)
    a.kill()
    falsify(state(a))
    a.start("--snapshot-every", 1 << 30, "--paused")  # its own start refuses it, too, and takes it away
    a.wait_status("the ledger folded", lambda x: x["records"]["folded"] >= 900)
    assert events(a, "proved=no") and not os.path.exists(state(a)), a.log()[-2000:]
    good("resume", "--home", a.home)
    a.kill()
    a.start(*EVERY)
    made(a)
    falsify(state(a))  # while it runs: served as it is
    good("pause", "--home", a.home)
    b = s.peer("b", "--connect", a.address(), *EVERY).start()
    b.wait_status("its own records", lambda x: x["records"]["own"] > 0)
    assert events(b, "fetched=yes") and events(b, "proved=no"), b.log()[-2000:]
    held = settle([a, b])
    wait("its ledger on disk", lambda: b.replay()["digest"] == held[0]["digest"])


def test_a_restart_starts_from_its_own(folder, swarm):
    s = swarm(*RUN)
    a = s.peer("a", *EVERY).start()
    made(a)
    a.kill()
    on_disk = a.replay()["digest"]
    a.start("--paused")
    wait("the proof", lambda: events(a, "proved=yes"))
    held = settle([a])
    assert held[0]["digest"] == on_disk
    a.kill()
    with open(state(a), "r+b") as f:
        f.seek(200)
        f.write(b"damaged")
    a.start("--paused")
    wait("the damage named", lambda: events(a, "damaged"))
    assert settle([a])[0]["digest"] == held[0]["digest"]


if __name__ == "__main__":
    sys.exit(main([test_a_joiner_proves_a_snapshot, test_a_false_snapshot_is_refused, test_a_restart_starts_from_its_own]))
