#!/usr/bin/env python3
"""kill -9, torn and full disks: what a peer has sent is never lost, no seq is used twice, and all end bit-identical."""
import json
import os
import random
import re
import resource
import signal
import sys

from lib import LIMIT_S, ONEBYTE, Skip, good, main, settle, wait

LONG = ("--n0", 64, "--sides", 1, "--directions", 7, "--segment-max", 28, "--steps", 1000000, "--schedule", "constant",
        "--lr", 0.01)


def records_of(peer, machine):
    """Records of a machine that a running peer holds, from its ledger."""
    return sum(s["count"] for s in segments(peer) if s["machine"] == machine)


def segments(peer):
    lines = good("log", "--home", peer.home, "--json").splitlines()
    return [x for x in map(json.loads, lines) if "first_seq" in x]


def check_feed(peer, machine):
    """One unbroken feed of this machine, no seq twice."""
    at = 0
    for s in segments(peer):
        if s["machine"] == machine:
            assert s["first_seq"] == at, (s, at)
            at += s["count"]
    return at


def on_disk(peers, machine, count):
    """Foreign segments reach the disk within a second or so: waits until all ledgers hold exactly this feed."""
    wait(f"{count} records in every ledger", lambda: all(check_feed(p, machine) == count for p in peers))


def test_kill_loop(folder, swarm):
    """Killed at random moments, started again at once: what others hold of it, it still has, under the same key."""
    rng = random.Random(1)
    s = swarm(*LONG)
    a = s.peer("a", data=False).start()
    at = a.address()
    b = s.peer("b", "--connect", at)
    machine, sent = None, 0
    for _ in range(6):
        b.start()
        aim = sent + rng.randrange(28, 600)
        x = b.wait_status("more records", lambda x, aim=aim: x["records"]["own"] >= aim)
        machine = machine or x["machine_id"]
        assert x["machine_id"] == machine, "a new key after a crash"
        b.kill()
        held = check_feed(a, machine)
        own = b.status()
        assert own["running"] is False and own["records"]["own"] >= held >= sent, (own["records"], held, sent)
        sent = held
    b.start()
    b.wait_status("to go on", lambda x: x["records"]["own"] > sent)
    last = settle([a, b])
    assert last[0]["records"]["folded"] == last[1]["records"]["folded"], last
    on_disk([a, b], machine, last[1]["records"]["own"])
    assert "new_key" not in b.log()


def test_all_killed(folder, swarm):
    """Every peer at once, as by a power cut: the run goes on from the ledgers."""
    s = swarm(*LONG)
    a = s.peer("a").start()
    at = a.address()
    a.options += ["--listen", at]  # the same place again
    b = s.peer("b", "--connect", at).start()
    for p in (a, b):
        p.wait_status("records of both", lambda x: x["records"]["folded"] > x["records"]["own"] > 0)
    a.process.send_signal(signal.SIGSTOP)  # both at the same state of the world
    b.process.send_signal(signal.SIGSTOP)
    a.kill()
    b.kill()
    own = {p.name: p.status()["records"]["own"] for p in (a, b)}
    a.start()
    b.start()
    for p in (a, b):
        x = p.wait_status("to go on", lambda x, p=p: x["records"]["own"] > own[p.name])
    x = settle([a, b])
    assert b.end() == 0  # what others sent is on disk now
    assert b.replay()["digest"] == x[0]["digest"]


def test_torn_ledger(folder, swarm):
    """The ledger's end is torn off while the peer is down: it says so or not, never reuses a seq, and ends equal."""
    s = swarm(*LONG)
    a = s.peer("a", data=False).start()
    b = s.peer("b", "--connect", a.address()).start()
    x = b.wait_status("a ledger worth tearing", lambda x: x["records"]["own"] > 1000)
    b.kill()
    wal = f"{b.home}/ledger.db-wal"
    if not os.path.exists(wal) or os.path.getsize(wal) < 100000:
        raise Skip("the disk holds no write-ahead log to tear")
    os.truncate(wal, os.path.getsize(wal) // 2)
    held = check_feed(a, x["machine_id"])
    b.start()
    b.wait_status("to go on", lambda y: y["records"]["own"] > 0 and y["contributing"])
    y = settle([a, b])
    assert check_feed(a, x["machine_id"]) >= held, "records that were sent are gone"
    on_disk([a, b], y[1]["machine_id"], y[1]["records"]["own"])
    wait("the same old feed in both", lambda: check_feed(a, x["machine_id"]) == check_feed(b, x["machine_id"]))
    assert not any("fork" in line for line in good("log", "--home", a.home).splitlines()), "a seq was used twice"


def test_garbage_ledger(folder, swarm):
    """A ledger that is no database any more: set aside, fetched again, and a new key."""
    s = swarm(*LONG)
    a = s.peer("a", data=False).start()
    b = s.peer("b", "--connect", a.address()).start()
    x = b.wait_status("records", lambda x: x["records"]["own"] > 100)
    b.kill()
    for name in os.listdir(b.home):
        if name.startswith("ledger.db"):
            with open(f"{b.home}/{name}", "r+b") as f:
                f.write(os.urandom(min(65536, os.path.getsize(f"{b.home}/{name}"))))
    b.start()
    y = b.wait_status("to go on", lambda y: y["records"]["own"] > 0 and y["contributing"])
    assert y["machine_id"] != x["machine_id"], "the old key went on without its ledger"
    settle([a, b])


def test_full_disk(folder, swarm):
    """The disk is full (a file size limit stands for it): the peer says so, sends nothing unsaved, and goes on when there is room."""
    s = swarm(*LONG)
    a = s.peer("a", data=False).start()
    b = s.peer("b", "--connect", a.address())
    b.start()
    b.wait_status("records", lambda x: x["records"]["own"] > 0)
    size = max(os.path.getsize(f"{b.home}/{n}") for n in os.listdir(b.home) if os.path.isfile(f"{b.home}/{n}"))
    try:
        resource.prlimit(b.process.pid, resource.RLIMIT_FSIZE, (size + 20000, resource.RLIM_INFINITY))
    except PermissionError as e:
        raise Skip(f"no file size limit for another process here, so no full disk: {e}") from e
    x = b.wait_status("to notice", lambda x: "disk" in x["why"])
    machine = x["machine_id"]
    b.wait_status("another try", lambda x: x["ledger_errors"] >= 2)
    assert len(re.findall(r"level=error ev=disk ", b.log())) == 1, "said once, not at every try"
    assert records_of(a, machine) <= x["records"]["own"]
    resource.prlimit(b.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    y = b.wait_status("to go on", lambda y: y["contributing"] and y["records"]["own"] > x["records"]["own"])
    assert y["machine_id"] == machine
    z = settle([a, b])
    on_disk([a, b], machine, z[1]["records"]["own"])


def test_frozen_peer(folder, swarm):
    """A peer that hangs for a while (SIGSTOP) neither stops the others nor differs from them afterwards."""
    s = swarm(*LONG)
    a = s.peer("a").start()
    b = s.peer("b", "--connect", a.address()).start()
    b.wait_status("records of both", lambda x: x["records"]["folded"] > x["records"]["own"] > 0)
    b.process.send_signal(signal.SIGSTOP)
    before = a.running()["records"]["folded"]
    a.wait_status("to go on alone", lambda x: x["records"]["folded"] > before + 500)
    b.process.send_signal(signal.SIGCONT)
    wait("b to answer", b.running)
    settle([a, b])


if __name__ == "__main__":
    assert os.path.exists(ONEBYTE), f"{ONEBYTE}: run make first (tests wait up to {LIMIT_S} s)"
    sys.exit(main([test_kill_loop, test_all_killed, test_torn_ledger, test_garbage_ledger, test_full_disk, test_frozen_peer]))
