#!/usr/bin/env python3
"""Sharded evaluation: peers score parts of the eval set at the owner's checkpoints, and everybody sees the curve."""
import json
import os
import subprocess
import sys
import urllib.request

from lib import DEMO, ONEBYTE, call, environment, good, good_json, main, settle, wait

RUN = ("--n0", 64, "--sides", 1, "--directions", 7, "--segment-max", 28, "--schedule", "constant", "--lr", 0.01)
EXAMPLES = sum(1 for _ in open(f"{DEMO}/eval.jsonl", encoding="utf-8"))


def whole(status):
    return [p for p in status["eval"]["points"] if p["examples"] == p["total"] == EXAMPLES]


def text(home, **variables):
    env = {k: v for k, v in environment().items() if not k.startswith(("LC_", "LANG"))}
    return subprocess.run([ONEBYTE, "status", "--home", home], capture_output=True, check=True, timeout=60,
                          env={**env, **variables}).stdout.decode()


def test_the_curve_ends_at_the_final_model(folder, swarm):
    s = swarm(*RUN, "--steps", 40)
    owner = s.peer("owner", "--checkpoint-every", 12, "--drain", 200).start()
    others = [s.peer(n, "--connect", owner.address(), "--drain", 200).start() for n in ("b", "c")]
    for p in (owner, *others):
        assert p.ended() == 0, p.log()[-2000:]
    last = owner.last()
    points = whole(last)
    assert points and points[-1]["number"] == last["checkpoint"]["number"], last["eval"]
    assert last["checkpoint"]["frontier_digest"] == last["frontier_digest"]
    assert points[-1]["step"] == last["step"] == 40
    # What the machines report together is what one of them measures alone, at a state rebuilt from the base model.
    alone = good_json("eval", "--home", others[0].home, "--data", f"{DEMO}/eval.jsonl", "--checkpoint", "last")
    assert abs(points[-1]["loss"] - alone["loss_example_mean"]) < 1e-5
    assert abs(points[-1]["accuracy"] - alone["accuracy"]) < 1e-6
    assert points[-1]["terms"] == alone["examples"] == EXAMPLES  # each with choices: one term
    assert last["eval"]["self_reported"] is True and last["eval"]["loss"] == points[-1]["loss"]
    for p in others: # the final model is the last checkpoint, everywhere
        assert p.last()["eval"]["points"][-1] == points[-1]
        assert all(p.last()[k] == last[k] for k in ("checkpoint", "digest", "frontier_digest"))
    # The losses of a part that several machines scored agree to the bit on one kind of machine.
    assert all(p["spread"] in (None, 0) for p in points)
    # For people: blocks where the locale has them, else ASCII.
    shown = text(owner.home, LANG="C.UTF-8")
    assert "eval curve" in shown and "self-reported" in shown and any(c in shown for c in "▁▂▃▄▅▆▇█")
    assert text(owner.home, LANG="C").isascii()
    # In drawings, of the home and of an exported ledger.
    good("log", "--home", owner.home, "--export", f"{folder}/ledger")
    of_home = good("plot", "--home", others[1].home)
    of_file = good("plot", "--ledger", f"{folder}/ledger", "--manifest", s.manifest)
    for svg in (of_home, of_file):
        assert svg.count("<polyline ") == 5 and "self-reported" in svg
    kinds = [json.loads(line).get("kind") for line in good("log", "--home", owner.home, "--json").splitlines()]
    assert kinds.count("score") >= 16


def test_late_joiners_see_it_and_others_take_over(folder, swarm):
    s = swarm(*RUN, "--steps", 1000000)
    owner = s.peer("owner", "--checkpoint-every", 8, "--metrics", 0).start()
    b = s.peer("b", "--connect", owner.address()).start()
    owner.wait_status("a whole checkpoint that both scored", lambda x: any(p["reporters"] == 2 for p in whole(x)))
    b.kill()  # its parts of the next ones are left to the owner
    seen = len(owner.running()["eval"]["points"])
    owner.wait_status("more whole ones", lambda x: sum(p["reporters"] == 1 for p in whole(x)) >= 2 and len(x["eval"]["points"]) > seen)
    late = s.peer("late", "--connect", owner.address(), data=False).start()  # relays, and has no eval set
    good("pause", "--home", owner.home)
    settle([owner, late])

    def same():
        x, y = owner.running()["eval"], late.running()["eval"]
        return x["points"] and x == y
    wait("the same curve", same)
    port = owner.running()["metrics"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as r:
        lines = [line for line in r.read().decode().splitlines() if line.startswith("onebyte_eval_loss_nats")]
    assert len(lines) == 1 and "{" not in lines[0], lines
    for p in (owner, late):
        assert p.end() == 0
    # A stopped peer still tells, and a restarted one has it from its ledger.
    points = owner.status()["eval"]["points"]
    assert points
    again = late.start("--connect", "127.0.0.1:1")
    got = again.wait_status("its curve", lambda x: x["eval"]["points"])["eval"]["points"]
    assert got == points


def test_sync_rounds_dense_directions_and_adapters(folder, swarm):
    s = swarm("--n0", 32, "--steps", 6, "--segment-max", 8, "--pace", "sync", "--direction", "gaussian", "--trainable",
              "lora:r=4,alpha=8,targets=q_proj+v_proj", "--schedule", "constant", "--lr", 0.1)
    owner = s.peer("owner", "--checkpoint-every", 3, "--drain", 200).start()
    b = s.peer("b", "--connect", owner.address(), "--drain", 200).start()
    for p in (owner, b):
        assert p.ended() == 0, p.log()[-2000:]
    x, y = owner.last(), b.last()
    assert x["digest"] == y["digest"] and x["checkpoint"] == y["checkpoint"]
    assert x["checkpoint"]["frontier_digest"] == x["frontier_digest"]
    points = whole(x)
    assert points and points[-1]["number"] == x["checkpoint"]["number"] and points == whole(y), x["eval"]
    alone = good_json("eval", "--home", b.home, "--data", f"{DEMO}/eval.jsonl", "--checkpoint", "last")
    assert abs(points[-1]["loss"] - alone["loss_example_mean"]) < 1e-5


def test_only_the_runs_eval_set_is_taken(folder, swarm):
    s = swarm(*RUN, "--steps", 4)
    other = f"{folder}/other.jsonl"
    with open(f"{DEMO}/eval.jsonl", encoding="utf-8") as f, open(other, "w", encoding="utf-8") as g:
        g.writelines(list(f)[1:])
    code, _, err = call("run", s.manifest, "--home", f"{folder}/a", "--eval-data", other)
    assert code == 1 and "not this run's data" in err, err
    plain = f"{folder}/plain.json"
    good("init", "--home", f"{folder}/o2", "--model", f"{DEMO}/model", "--data", f"{DEMO}/train.jsonl", "--out", plain)
    code, _, err = call("run", plain, "--home", f"{folder}/c", "--eval-data", other)
    assert code == 1 and "no eval set" in err, err
    # One that is only remembered may be gone: the peer says so and goes on.
    paths = f"{s.manifest}.paths"
    with open(paths, encoding="utf-8") as f:
        known = json.load(f)
    known["eval_data"] = f"{folder}/gone.jsonl"
    os.remove(paths)
    with open(paths, "w", encoding="utf-8") as f:
        json.dump(known, f)
    p = s.peer("owner", "--checkpoint-every", 2, "--linger", 0).start()
    assert p.ended() == 0, p.log()[-2000:]
    assert "scores no checkpoints" in p.log()
    assert p.last()["checkpoint"] and p.last()["eval"]["points"] == []


if __name__ == "__main__":
    sys.exit(main([test_the_curve_ends_at_the_final_model, test_late_joiners_see_it_and_others_take_over,
                   test_sync_rounds_dense_directions_and_adapters, test_only_the_runs_eval_set_is_taken]))
