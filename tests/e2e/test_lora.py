#!/usr/bin/env python3
"""Runs of adapters and of some tensors: init, run, replay, eval, export.  PEFT's reading: tests/check_runs.py."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import DEMO, call, good, good_json, main  # noqa: E402

LORA = "lora:r=4,alpha=8,targets=q_proj+v_proj+down_proj"


def trained(d, trainable):
    """One peer's whole run in d/owner; (what init said, its manifest)."""
    made = good_json("init", "--home", f"{d}/owner", "--out", f"{d}/run.json", "--model", f"{DEMO}/model", "--data",
                     f"{DEMO}/train.jsonl", "--eval-data", f"{DEMO}/eval.jsonl", "--n0", 16, "--steps", 4, "--schedule",
                     "constant", "--lr", 0.3, "--trainable", trainable)
    good("run", f"{d}/run.json", "--home", f"{d}/owner", "--threads", 1, "--listen", "127.0.0.1:0")
    with open(f"{d}/run.json") as f:
        return made, json.load(f)


def loss(*args):
    return good_json("eval", *args, "--max", 20)["loss_example_mean"]


def test_adapters(d, _):
    made, manifest = trained(d, LORA)
    names = [t["name"] for t in manifest["tensors"]]
    assert manifest["trainable"] == LORA and made["tensors"] == len(names) and len(names) % 6 == 0
    assert all(n.startswith("base_model.model.model.layers.") for n in names), names
    home, base = loss("--home", f"{d}/owner"), loss("--model", f"{DEMO}/model", "--data", f"{DEMO}/eval.jsonl")
    assert home != base, "nothing was trained"
    merged = good_json("export", "--home", f"{d}/owner", "--out", f"{d}/merged", "--merged", "--shard-size", 0.1)
    assert abs(loss("--model", f"{d}/merged", "--data", f"{DEMO}/eval.jsonl") - home) < 1e-5
    shards = [n for n in os.listdir(f"{d}/merged") if n.endswith(".safetensors")]
    assert len(shards) > 1 and all(n.endswith(f"-of-{len(shards):05}.safetensors") for n in shards), shards
    adapter = good_json("export", "--home", f"{d}/owner", "--out", f"{d}/adapter")
    assert adapter["digest"] == merged["digest"]
    with open(f"{d}/adapter/adapter_config.json") as f:
        config = json.load(f)
    assert config["peft_type"] == "LORA" and config["r"] == 4 and config["lora_alpha"] == 8
    assert len(config["target_modules"]) * 2 == len(names)
    assert not os.path.exists(f"{d}/adapter/model.safetensors") and os.path.exists(f"{d}/adapter/tokenizer.json")


def test_by_its_own_plan(d, swarm):
    """What init measures of an adapter, which bears almost any step, keeps it in its integers' range; and it learns."""
    s = swarm("--trainable", "lora:r=8,alpha=16", "--steps", 20, "--explain")
    assert "less than 0.15 nats" in s.made["why"]["lr"], s.made
    a = s.peer("a").start()
    assert a.ended() == 0 and "headroom" not in a.log(), a.log()
    base = loss("--model", f"{DEMO}/model", "--data", f"{DEMO}/eval.jsonl")
    assert loss("--home", a.home, "--data", f"{DEMO}/eval.jsonl") < 0.9 * base


def test_some_tensors(d, _):
    _, manifest = trained(d, "*.mlp.*,model.norm.weight")
    names = [t["name"] for t in manifest["tensors"]]
    assert all(".mlp." in n or n == "model.norm.weight" for n in names) and len(names) > 1
    good("export", "--home", f"{d}/owner", "--out", f"{d}/out", "--shard-size", 0.1)
    assert abs(loss("--model", f"{d}/out", "--data", f"{DEMO}/eval.jsonl") - loss("--home", f"{d}/owner")) < 1e-5


def test_wrong_texts(d, _):
    for text, why in (("lora:r=0,alpha=1", "trainable"), ("*.nothing", "no tensor"),
                      ("lora:r=4,alpha=8,targets=nothing", "no matrix")):
        code, _, err = call("init", "--home", f"{d}/h", "--out", f"{d}/run.json", "--model", f"{DEMO}/model", "--data",
                            f"{DEMO}/train.jsonl", "--trainable", text)
        assert code == 2 and why in err, (code, err)


if __name__ == "__main__":
    sys.exit(main([test_adapters, test_by_its_own_plan, test_some_tensors, test_wrong_texts]))
