#!/usr/bin/env python3
"""Peers as processes: they end with bit-identical parameters whatever their settings, and whoever joins, leaves or is lost."""
import os
import re
import shutil
import signal
import socket
import sys

from lib import DEMO, LIMIT_S, ONEBYTE, call, good, good_json, main, same, settle, wait

SMALL = ("--n0", 64, "--sides", 1, "--directions", 7, "--segment-max", 28)
LONG = (*SMALL, "--steps", 1000000, "--schedule", "constant", "--lr", 0.01)


def refused(code, pattern, *args):
    got, _, err = call(*args)
    lines = [line for line in err.splitlines() if line.startswith("onebyte: ")]
    assert got == code, f"exit {got}, not {code}: {err.strip()}"
    assert len(lines) == 1 and re.search(pattern, lines[0]), f"{err!r} does not match {pattern!r}"


def test_four_peers_end_equal(folder, swarm):
    """Different kernels, threads, batches and memory modes; the run ends by itself; a replay gives the same digest."""
    s = swarm(*SMALL, "--steps", 60)
    seed = s.peer("seed", "--kernels", "ref").start()
    at = seed.address()
    others = [s.peer("b", "--connect", at, "--kernels", "auto", "--batch", 1),
              s.peer("c", "--connect", at, "--threads", 2, "--memory", "lean"),
              s.peer("d", "--connect", at, "--batch", 64, "--memory", "fast")]
    for p in others:
        p.start()
    peers = [seed, *others]
    for p in peers:
        assert p.ended() == 0, p.log()[-2000:]
    last = [p.last() for p in peers]
    assert same(last), last
    assert all(x["step"] >= 60 and x["finished"] for x in last), last
    assert sum(x["records"]["own"] for x in last) == last[0]["records"]["folded"], last
    assert sum(x["records"]["own"] > 0 for x in last) >= 2, "only one peer contributed"
    digests = {p.replay(*o)["digest"] for p in (seed, others[0])
               for o in (("--kernels", "ref"), ("--kernels", "auto", "--threads", 2))}
    assert digests == {last[0]["digest"]}, (digests, last[0]["digest"])
    exported = f"{folder}/ledger.bin"
    good("log", "--home", others[1].home, "--export", exported)
    again = good_json("replay", "--manifest", s.manifest, "--model", f"{DEMO}/model", "--ledger", exported)
    assert again["digest"] == last[0]["digest"]


def test_status_tells_what_it_should(folder, swarm):
    s = swarm(*LONG)
    a = s.peer("a").start()
    b = s.peer("b", "--connect", a.address()).start()
    x = b.wait_status("records and a neighbour", lambda x: x["records"]["own"] > 0 and x["peers"] and
                      x["records"]["folded"] > x["records"]["own"] and x["contributing"] and x["bytes"]["per_record"] < 1000)
    for key in ("run_id", "machine_id", "step", "steps", "records", "loss", "digest", "frontier_digest", "records_per_s",
                "bytes", "peers", "contributing", "why", "uptime_s", "device", "threads", "memory", "batch", "version"):
        assert key in x, key
    assert x["run_id"] == s.made["run_id"] and re.fullmatch("[0-9a-f]{64}", x["machine_id"])
    assert re.fullmatch("[0-9a-f]{16}", x["digest"]) and x["digest_verified"]
    assert x["bytes"]["sent"] > 0 and x["bytes"]["received"] > 0 and x["bytes"]["per_record"] > 1
    assert 1 < x["bytes"]["segment_per_record"] < 20
    peer = x["peers"][0]  # either end's link may be the one that stays when both dialled
    assert peer["direction"] in ("in", "out") and peer["id"] == a.status()["machine_id"] and peer["last_seen_s"] >= 0, peer
    text = good("status", "--home", b.home)
    for word in ("step", "digest", "contributing", "gradient", x["machine_id"][:8]):
        assert word in text, text
    good("pause", "--home", b.home)
    x = b.wait_status("to be paused", lambda x: not x["contributing"])
    assert "paused" in x["why"], x["why"]
    good("resume", "--home", b.home)
    b.wait_status("to go on", lambda x: x["contributing"])
    settle([a, b])
    assert b.end() == 0 and a.end(signal.SIGINT) == 0
    x = b.status()
    assert x["running"] is False and x["why"] == "not running" and x["digest"] == b.replay()["digest"], x


def test_late_joiner_and_stop(folder, swarm):
    """A joiner folds everything there is, then contributes; `onebyte stop` ends a peer cleanly."""
    s = swarm(*LONG)
    a = s.peer("a").start()
    at = a.address()
    a.wait_status("a past to catch up with", lambda x: x["records"]["folded"] >= 1500)
    b = s.peer("b", "--connect", at).start()
    b.wait_status("to have caught up and contributed", lambda x: x["records"]["own"] > 0 and x["records"]["folded"] > 1500)
    relay = s.peer("relay", "--connect", at, data=False).start()
    x = relay.wait_status("to fold without data of its own", lambda x: x["records"]["folded"] > 1500 and "no data" in x["why"])
    assert x["records"]["own"] == 0 and not x["contributing"]
    settle([a, b, relay])
    good("stop", "--home", b.home)
    assert b.ended() == 0
    assert a.alive() and relay.alive()


def test_seed_lost(folder, swarm):
    """Two peers that know each other go on when the one they joined by is gone; a new one joins by either."""
    s = swarm(*LONG)
    seed = s.peer("seed").start()
    at = seed.address()
    b = s.peer("b", "--connect", at).start()
    c = s.peer("c", "--connect", at, "--connect", b.address()).start()
    for p in (b, c):
        p.wait_status("records from others", lambda x: x["records"]["folded"] > x["records"]["own"] > 0)
    seed.kill()
    before = c.running()["records"]["folded"]
    d = s.peer("d", "--connect", c.address(), "--connect", at).start()  # one of its two seeds is dead
    for p in (b, c, d):
        p.wait_status("more records", lambda x: x["records"]["folded"] > before + 200 and x["records"]["own"] > 0)
    settle([b, c, d])


def test_unreachable_seed_is_retried(folder, swarm):
    s = swarm(*LONG)
    with socket.socket() as hold:  # a port nobody listens on, for now
        hold.bind(("127.0.0.1", 0))
        port = hold.getsockname()[1]
        b = s.peer("b", "--connect", f"127.0.0.1:{port}").start()
        wait("a line about the address", lambda: "dial_failed" in b.log())
        b.wait_status("to work alone", lambda x: x["records"]["own"] > 0)
    seed = s.peer("seed", "--listen", f"127.0.0.1:{port}").start()
    seed.wait_status("the link", lambda x: x["peers"])
    settle([seed, b])


def test_join_by_invite(folder, swarm):
    """Nothing but an invite: manifest and base model come from a peer."""
    s = swarm(*LONG)
    a = s.peer("a").start()
    at = a.address()
    x = a.wait_status("some records", lambda x: x["records"]["own"] > 0)
    invite = f"onebyte://{at}/{x['run_id']}?key={x['machine_id']}"
    assert f" ev=invite invite={invite}\n" in a.log(), a.log()
    b = s.peer("b", manifest=invite).start()
    b.wait_status("to contribute", lambda x: x["records"]["own"] > 0)
    settle([a, b])
    for name in os.listdir(f"{DEMO}/model"):
        with open(f"{DEMO}/model/{name}", "rb") as f, open(f"{b.home}/model/{name}", "rb") as g:
            assert f.read() == g.read(), name
    assert b.end() == 0
    b.manifest = None  # the home knows its run now, its model and its data
    b.data = None
    b.start("--connect", at)
    b.wait_status("to go on from the home alone", lambda x: x["records"]["own"] > 0 and x["peers"])


def test_refusals(folder, swarm):
    """An address in use, a home in use, another model, a manifest with a flipped bit: one clear line each."""
    s = swarm(*LONG)
    a = s.peer("a").start()
    at = a.address()
    run = ("run", s.manifest, "--threads", 1)
    refused(1, "in use", *run, "--home", a.home)
    refused(1, re.escape(at) + ".*in use", *run, "--home", f"{folder}/x", "--listen", at)
    shutil.copytree(f"{DEMO}/model", f"{folder}/other")
    with open(f"{folder}/other/model.safetensors", "r+b") as f:
        f.seek(-5, os.SEEK_END)
        byte = f.read(1)
        f.seek(-5, os.SEEK_END)
        f.write(bytes([byte[0] ^ 1]))
    refused(1, "model.safetensors", *run, "--home", f"{folder}/y", "--model", f"{folder}/other")
    with open(s.manifest, "rb") as f:
        text = bytearray(f.read())
    text[text.index(b'"steps"') + 10] ^= 1
    with open(f"{folder}/bad.json", "wb") as f:
        f.write(text)
    shutil.copy(s.manifest + ".sig", f"{folder}/bad.json.sig")
    refused(1, "sign", "run", f"{folder}/bad.json", "--home", f"{folder}/z")
    refused(1, "HOST:PORT|address", *run, "--home", f"{folder}/v", "--connect", "nonsense")
    refused(2, "--batch", *run, "--home", f"{folder}/w", "--batch", "many")
    assert a.alive()


def test_copied_home_gets_a_new_key(folder, swarm):
    s = swarm(*LONG)
    a = s.peer("a").start()
    at = a.address()
    b = s.peer("b", "--connect", at).start()
    x = b.wait_status("records", lambda x: x["records"]["own"] > 0)
    settle([a, b])
    assert b.end() == 0
    shutil.copytree(b.home, f"{folder}/copy")
    copy = s.peer("copy", "--connect", at).start()
    y = copy.wait_status("records of its own", lambda y: y["records"]["own"] > 0)
    assert y["machine_id"] != x["machine_id"], "a copied home went on with the old key"
    assert "new_key" in copy.log()
    b.start()
    z = b.wait_status("the original to go on", lambda z: z["records"]["own"] > 0)
    assert z["machine_id"] == x["machine_id"]
    good("resume", "--home", a.home)
    settle([a, b, copy])


def test_sync_rounds(folder, swarm):
    """pace sync: rounds of all, the same digest; a peer that dies stops the others for the round timeout at most."""
    s = swarm("--n0", 42, "--sides", 1, "--directions", 7, "--segment-max", 14, "--steps", 120, "--pace", "sync",
              "--round-timeout", 0.5)
    relay = s.peer("relay", data=False).start()
    at = relay.address()
    a, b, c = (s.peer(name, "--connect", at).start("--paused") for name in "abc")
    for p in (a, b, c):
        p.wait_status("a link", lambda x: x["peers"] and "paused" in x["why"])
    wait("all to be linked", lambda: len(relay.running()["peers"]) >= 3)
    for p in (a, b, c):
        good("resume", "--home", p.home)
    c.wait_status("a few rounds", lambda x: x["step"] >= 20 and x["records"]["folded"] > x["records"]["own"])
    c.kill()
    for p in (relay, a, b):
        assert p.ended() == 0, p.log()[-2000:]
    last = [p.last() for p in (relay, a, b)]
    assert same(last) and last[0]["step"] >= 120, last
    assert all(x["records"]["own"] > 14 * 50 for x in last[1:]), last
    assert b.replay()["digest"] == last[0]["digest"], last


def test_other_directions(folder, swarm):
    """Two-sided rademacher; the digests agree as well."""
    s = swarm("--direction", "rademacher", "--n0", 16, "--steps", 8, "--segment-max", 8)
    a = s.peer("a", "--kernels", "ref").start()
    b = s.peer("b", "--connect", a.address()).start()
    for p in (a, b):
        assert p.ended() == 0, p.log()[-2000:]
    last = [a.last(), b.last()]
    assert same(last) and last[0]["step"] >= 8, last
    assert a.replay("--kernels", "auto")["digest"] == last[0]["digest"]


if __name__ == "__main__":
    assert os.path.exists(ONEBYTE), f"{ONEBYTE}: run make first (tests wait up to {LIMIT_S} s)"
    sys.exit(main([test_four_peers_end_equal, test_status_tells_what_it_should, test_late_joiner_and_stop, test_seed_lost,
                   test_unreachable_seed_is_retried, test_join_by_invite, test_refusals, test_copied_home_gets_a_new_key,
                   test_sync_rounds, test_other_directions]))
