#!/usr/bin/env python3
"""Audits with real peers: who lies about bytes is found, shown to others, retracted, and leaves no trace in the parameters."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lib  # noqa: E402
from lib import DEMO, call, good, good_json, main, settle, wait  # noqa: E402

LIAR = os.path.abspath("build/release/tests/e2e/liar")
RUN = ("--public", "--n0", 56, "--sides", 1, "--directions", 7, "--segment-max", 28, "--steps", 1000000, "--lr", 1e-4)


class Liar(lib.Peer):
    """The same program, but every byte it seals has the opposite sign (tests/e2e/liar.c)."""

    def start(self, *more, preexec=None):
        honest, lib.ONEBYTE = lib.ONEBYTE, LIAR
        try:
            return super().start(*more, preexec=preexec)
        finally:
            lib.ONEBYTE = honest


def audit(peer, machine, records):
    return good_json("audit", "--home", peer.home, "--machine", machine, "--records", records, "--wait", lib.LIMIT_S)


def audited(peer, machine):
    """The first audit in which something was measured: on a busy machine an answer may come too late."""
    def look():
        got = audit(peer, machine, 56)
        assert got["records"] + sum(got["not_audited"].values()) >= 56, got
        return got if got["records"] > 0 else None
    return wait("an audit of " + machine[:8], look)


def records_of(peer):
    """Of each machine: how many records this peer's ledger holds."""
    rows = [json.loads(line) for line in good("log", "--home", peer.home, "--json").splitlines()]
    return {r["machine"]: r["first_seq"] + r["count"] for r in rows if r["kind"] == "segment"}


def test_a_liar_is_found_and_leaves_no_trace(folder, swarm):
    """Owner, an honest peer that only the liar connects to the owner, and the liar: questions and answers pass through it."""
    s = swarm(*RUN)
    owner = s.peer("owner").start()
    liar = Liar(s, "liar", "--connect", owner.address())
    s.peers.append(liar)
    liar.start()
    honest = s.peer("honest", "--connect", liar.address()).start()
    lies = liar.wait_status("its records", lambda r: r["records"]["own"] >= 112)["machine_id"]
    truth = honest.wait_status("its records", lambda r: r["records"]["own"] >= 112)["machine_id"]
    wait("both at the owner", lambda: min(records_of(owner).get(m, 0) for m in (lies, truth)) >= 112)

    fair = audited(owner, truth)
    assert fair["off"] == 0 and fair["evidence"] == [], fair
    found = audited(owner, lies[:12])
    assert found["machine"] == lies, found
    assert found["off"] > found["records"] / 2 and found["evidence"], found
    seen = owner.status()["audit"]
    assert seen["off"] == found["off"] and seen["records"] == fair["records"] + found["records"], seen

    # The owner retracts; the evidence holds after that, from the owner's home and from an exported ledger.
    good("retract", "--home", owner.home, "--machine", lies, "--reason", "audit")
    settle([owner, honest])
    known = {}
    ledger = f"{folder}/ledger"
    outside = ("--manifest", s.manifest, "--ledger", ledger, "--model", f"{DEMO}/model", "--data", f"{DEMO}/train.jsonl", "--threads", 1)

    def exported():  # others' segments reach the disk within a second; one that was being measured at the pause may still come
        good("log", "--home", honest.home, "--export", ledger)
        known["digest"] = good_json("replay", *outside[:6], "--threads", 1)["digest"]
        return known["digest"] == owner.running()["digest"] == owner.replay()["digest"]
    wait("the whole ledger in a file and at the owner", exported)
    check = good_json("audit", "--verify", found["evidence"][0], "--home", owner.home, "--threads", 1)
    assert check["confirmed"] and check["machine"] == lies and check["off"] >= 1, check
    assert good_json("audit", "--verify", found["evidence"][0], *outside)["off"] == check["off"]
    # ... and says nothing once it is changed.
    with open(found["evidence"][0]) as f:
        evidence = json.load(f)
    with open(f"{folder}/false.json", "w") as f:
        code = evidence["segment"]
        json.dump({**evidence, "segment": code[:80] + ("01" if code[80:82] != "01" else "02") + code[82:]}, f)
    code, _, err = call("audit", "--verify", f"{folder}/false.json", *outside)
    assert code == 1 and "not signed" in err, (code, err)

    # Exactly unlearned: the digest is that of a ledger in which the liar never was.
    only = without(folder, ledger, lies)
    never = good_json("replay", "--manifest", s.manifest, "--ledger", only, "--model", f"{DEMO}/model", "--threads", 1)
    assert never["digest"] == known["digest"] and never["records"] > 0, (never, known)


def without(folder, path, machine):
    """The exported ledger (include/onebyte/net/ledger.h) without one machine's segments and without control events."""
    import hashlib
    with open(path, "rb") as f:
        data = f.read()
    out, at, segments, keep = bytearray(data[:48]), 48, 0, True
    while data[at] != 0:
        kind = data[at]
        n = {1: 33, 2: 11 + int.from_bytes(data[at + 9:at + 11], "little"), 3: 5 + int.from_bytes(data[at + 1:at + 5], "little")}[kind]
        if kind == 1:
            keep = data[at + 1:at + 33].hex() != machine
        if kind != 3 and keep:
            out += data[at:at + n]
            segments += kind == 2
        at += n
    out += b"\0" + segments.to_bytes(8, "little") + (0).to_bytes(8, "little")
    out += hashlib.blake2b(bytes(out), digest_size=32).digest()
    with open(f"{folder}/without", "wb") as f:
        f.write(out)
    return f"{folder}/without"


def test_in_the_background(folder, swarm):
    """init --audit: nobody asks for it, and the liar is found; an author that has gone is not audited, never accused."""
    s = swarm(*RUN, "--audit", 0.5)
    owner = s.peer("owner").start()
    liar = Liar(s, "liar", "--connect", owner.address())
    s.peers.append(liar)
    liar.start()
    seen = owner.wait_status("evidence", lambda r: r["audit"]["evidence"] > 0)
    lies = liar.running()["machine_id"]
    assert {m["machine"] for m in seen["audit"]["machines"] if m["off"]} == {lies}, seen["audit"]
    liar.kill()
    wait("the link to go", lambda: not owner.running()["peers"] or owner.running()["agreement"]["links"] == 0)
    gone = audit(owner, lies, 7)
    assert gone["records"] == 0 and sum(gone["not_audited"].values()) >= 7 and not gone["evidence"], gone
    code, _, err = call("audit", "--home", owner.home, "--machine", "zz")
    assert code == 1 and "no machine" in err, (code, err)


def test_only_public_data_can_be_audited(folder, swarm):
    s = swarm("--n0", 16, "--steps", 1000000)
    owner = s.peer("owner").start()
    me = owner.wait_status("records", lambda r: r["records"]["own"] > 0)["machine_id"]
    code, _, err = call("audit", "--home", owner.home, "--machine", me)
    assert code == 1 and "private" in err, (code, err)
    owner.end()
    code, _, err = call("audit", "--home", owner.home, "--machine", me)
    assert code == 1 and "no peer runs" in err, (code, err)
    code, _, err = call("audit")
    assert code == 2 and "--verify" in err, (code, err)


if __name__ == "__main__":
    sys.exit(main([test_a_liar_is_found_and_leaves_no_trace, test_in_the_background, test_only_public_data_can_be_audited]))
