#!/usr/bin/env python3
"""Who may take part: a run that is not open, its owner's signed admission, what strangers' records count."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import call, good, good_json, main, settle, wait  # noqa: E402


def refused(text, *args):
    code, _, err = call(*args)
    assert code == 1 and text in err, (code, err)


def test_admission_by_the_owner(folder, swarm):
    """An unknown key contributes nothing until the owner admits it; then its records count everywhere."""
    s = swarm("--admission", "invite", "--n0", 16, "--steps", 1000000)
    owner = s.peer("owner").start()
    b = s.peer("b", "--connect", owner.address()).start()
    owner.wait_status("the owner's records", lambda r: r["records"]["own"] > 0)
    seen = b.wait_status("the owner's records at the stranger", lambda r: r["records"]["folded"] > 0)
    assert seen["records"]["own"] == 0 and seen["contributing"] is False, seen
    machine = seen["machine_id"]
    refused("only the run's owner", "admit", "--home", b.home, "--machine", machine)
    refused("whole id", "admit", "--home", owner.home, "--machine", machine[:10])
    assert good_json("admit", "--home", owner.home, "--machine", machine)["sent"] is True
    refused("known already", "admit", "--home", owner.home, "--machine", machine)
    mine = b.wait_status("own records once admitted", lambda r: r["records"]["own"] > 0)
    assert mine["contributing"] is True, mine
    settle([owner, b])
    rows = [json.loads(line) for line in good("log", "--home", owner.home, "--json").splitlines()]
    assert [r["machine"] for r in rows if r["kind"] == "admit"] == [machine]
    assert machine in {r["machine"] for r in rows if r["kind"] == "segment"}, "its records reached the owner"


def test_allowed_from_the_start(folder, swarm):
    """The manifest's own list: who is on it contributes at once, who is not does not, and sees the others' records."""
    machine = good_json("keygen", "--home", f"{folder}/b")["machine_id"]
    s = swarm("--admission", "allow", "--allow", machine, "--n0", 16, "--steps", 1000000)
    b = s.peer("b").start()
    c = s.peer("c", "--connect", b.address()).start()
    b.wait_status("own records", lambda r: r["records"]["own"] > 0)
    seen = c.wait_status("records of b", lambda r: r["records"]["folded"] > 0)
    assert seen["records"]["own"] == 0 and seen["contributing"] is False, seen
    settle([b, c])


def test_open_runs_admit_everybody(folder, swarm):
    s = swarm()
    owner = s.peer("owner").start()
    owner.wait_status("a start", lambda r: r["records"]["own"] > 0)
    refused("open", "admit", "--home", owner.home, "--machine", "00" * 32)


def test_a_retraction_leaves_the_keys(folder, swarm):
    """Who is retracted stays who it is, told while it runs or found at its next start: no copy of a home is suspected.  From a seq that
    is far off it goes on to there."""
    s = swarm("--n0", 16, "--steps", 1000000)
    owner = s.peer("owner").start()
    b = s.peer("b", "--connect", owner.address()).start()
    was = b.wait_status("own records", lambda r: r["records"]["own"] > 0)
    good("retract", "--home", owner.home, "--machine", was["machine_id"], "--from", 10000000)
    rows = lambda: [json.loads(line) for line in good("log", "--home", b.home, "--json").splitlines()]  # noqa: E731
    wait("the retraction at b", lambda: [r for r in rows() if r["kind"] == "retract"])
    more = b.running()["records"]["own"]
    now = b.wait_status("more records", lambda r: r["records"]["own"] > more and r["contributing"])
    assert now["machine_id"] == was["machine_id"], b.log()
    key = owner.running()["machine_id"]
    assert owner.end() == 0
    good("retract", "--home", owner.home, "--machine", key, "--from", 20)
    owner.start()
    back = owner.wait_status("cut", lambda r: "cut" in (r["why"] or ""))
    assert back["machine_id"] == key and "new_key" not in owner.log() + b.log(), (owner.log(), b.log())
    assert "level=warn ev=ledger" not in owner.log(), owner.log()  # nothing in the ledger was wrong


if __name__ == "__main__":
    sys.exit(main([test_admission_by_the_owner, test_allowed_from_the_start, test_open_runs_admit_everybody, test_a_retraction_leaves_the_keys]))
