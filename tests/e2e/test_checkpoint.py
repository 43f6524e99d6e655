#!/usr/bin/env python3
"""The owner's checkpoints: every peer can rebuild the state they name, also after a machine was cut."""
import glob
import json
import sys

from lib import DEMO, call, good, good_json, main, settle, wait

RUN = ("--n0", 64, "--sides", 1, "--directions", 7, "--segment-max", 28, "--schedule", "constant", "--lr", 0.01)


def rebuilt(p, which):
    """The digest, or None while its last second is not on disk."""
    code, out, _ = call("replay", "--home", p.home, "--model", f"{DEMO}/model", "--threads", 1, "--checkpoint", which, "--json")
    return json.loads(out) if code == 0 else None


def test_a_checkpoint_outlives_a_cut(folder, swarm):
    s = swarm(*RUN, "--steps", 1000000)
    owner = s.peer("owner", "--checkpoint-every", 4).start()
    b = s.peer("b", "--connect", owner.address()).start()
    b.wait_status("its own records", lambda x: x["records"]["own"] > 0)
    first = (owner.wait_status("a checkpoint", lambda x: x["checkpoint"])["checkpoint"] or {})["number"]
    seen = b.wait_status("more of them", lambda x: x["checkpoint"] and x["checkpoint"]["number"] > first + 1)["checkpoint"]
    owner.wait_status("records of both", lambda x: x["records"]["folded"] > x["records"]["own"])
    held = settle([owner, b])
    number = b.running()["checkpoint"]["number"]
    assert number >= seen["number"]
    wait("the last frontier", lambda: glob.glob(f"{b.home}/snapshots/checkpoint-{number}.frontier"))
    before = wait("a replay of it", lambda: rebuilt(b, number))
    assert wait("the owner's, too", lambda: rebuilt(owner, "last"))["digest"] == before["digest"]
    assert before["frontier_digest"] == b.running()["checkpoint"]["frontier_digest"]
    assert 0 < before["records"] <= held[0]["records"]["folded"]
    cut = held[1]["machine_id"]
    good("retract", "--home", owner.home, "--machine", cut, "--from", 28)
    b.wait_status("its cut", lambda x: x["records"]["folded"] < held[0]["records"]["folded"])
    wait("equal without it", lambda: owner.running()["digest"] == b.running()["digest"])
    assert wait("a replay after the cut", lambda: rebuilt(b, number)) == before
    assert wait("the owner's after the cut", lambda: rebuilt(owner, number)) == before
    out = f"{folder}/model"
    assert good_json("export", "--home", b.home, "--out", out, "--checkpoint", number)["digest"] == before["digest"]
    of = good_json("eval", "--home", b.home, "--data", f"{DEMO}/eval.jsonl", "--max", 8, "--checkpoint", number)
    assert of["digest"] == before["digest"]
    plain = good_json("eval", "--model", out, "--data", f"{DEMO}/eval.jsonl", "--max", 8)
    assert abs(plain["loss_token_mean"] - of["loss_token_mean"]) < 1e-6
    for which, says in (("999999", "no checkpoint"), ("never", "a number or 'last'")):
        code, _, err = call("replay", "--home", b.home, "--checkpoint", which)
        assert code == 1 and says in err, err


def test_the_last_checkpoint_is_the_final_model(folder, swarm):
    s = swarm(*RUN, "--steps", 12)
    owner = s.peer("owner", "--checkpoint-every", 1000).start()
    b = s.peer("b", "--connect", owner.address()).start()
    for p in (owner, b):
        assert p.ended() == 0, p.log()[-2000:]
    last = owner.last()
    assert last["checkpoint"]["frontier_digest"] == last["frontier_digest"]
    assert rebuilt(owner, "last")["digest"] == last["digest"]


if __name__ == "__main__":
    sys.exit(main([test_a_checkpoint_outlives_a_cut, test_the_last_checkpoint_is_the_final_model]))
