#!/usr/bin/env python3
"""A peer whose state and forward pass are on a device ends with the same bits as a CPU peer.  The device is the real plug-in's
kernels run on the CPU (tests/cuda/emulate.c), found where a GPU's plug-in would be: beside the program."""
import json
import os
import shutil
import subprocess
import sys
from ctypes.util import find_library

import lib
from lib import LIMIT_S, Skip, call, good, good_json, main, same, settle

EMULATED = os.path.abspath("build/cuda/emulated/libonebyte_cuda.so")
PROGRAM = lib.ONEBYTE
SMALL = ("--n0", 16, "--sides", 2, "--segment-max", 8, "--steps", 1000000, "--schedule", "constant",
         "--lr", 0.01)


def with_plugin(folder):
    """A copy of the program that has the emulated plug-in beside it."""
    if not os.path.exists(EMULATED):
        subprocess.run(["make", "-s", os.path.relpath(EMULATED)], check=True, timeout=LIMIT_S)
    os.makedirs(f"{folder}/bin")
    shutil.copy(PROGRAM, f"{folder}/bin/onebyte")
    shutil.copy(EMULATED, f"{folder}/bin/libonebyte_cuda.so")
    return f"{folder}/bin/onebyte"


def start_with(program, peer, *options):
    lib.ONEBYTE = program
    try:
        return peer.start(*options)
    finally:
        lib.ONEBYTE = PROGRAM


def test_a_gpu_peer_and_a_cpu_peer_agree(folder, swarm):
    agree(swarm(*SMALL), with_plugin(folder), "emulation")


def agree(s, gpu, device):
    a = s.peer("cpu", "--device", "cpu", "--paused").start()
    b = start_with(gpu, s.peer("gpu", "--connect", a.address(), "--precision", "fp32"))
    b.wait_status("records of its own", lambda x: x["records"]["own"] > 0)
    good("resume", "--home", a.home)  # so late because it is far faster than an emulation
    a.wait_status("records of both", lambda x: 0 < x["records"]["own"] < x["records"]["folded"])
    last = settle([a, b])
    assert [x["device"] for x in last] == ["cpu", device], last
    assert b.end() == 0 and a.end() == 0
    assert same([a.last(), b.last()]) and b.replay()["digest"] == last[0]["digest"]


def test_a_gpu_peer_scores_what_it_trained(folder, swarm):
    """The curve's last point, measured on the device at its own state, is what the CPU measures of the rebuilt checkpoint."""
    texts = f"{folder}/texts.jsonl"
    with open(f"{lib.DEMO}/eval.jsonl", encoding="utf-8") as f, open(texts, "w", encoding="utf-8") as g:
        for line, _ in zip(f, range(16)):
            x = json.loads(line)
            g.write(json.dumps({"text": x["prompt"] + x["choices"][x["label"]]}) + "\n")
    s = swarm(*SMALL, "--steps", 6, "--lr", 0.3, "--eval-data", texts)
    a = s.peer("owner", "--checkpoint-every", 3, "--drain", 200, data=False).start()  # names the states, scores nothing
    b = start_with(with_plugin(folder), s.peer("gpu", "--connect", a.address(), "--eval-data", texts, "--precision", "fp32", "--drain", 60))
    assert b.ended() == 0 and a.ended() == 0, (a.log(), b.log())
    point = b.last()["eval"]["points"][-1]  # of the peer that scored: the owner does not wait for it
    base, alone = (good_json("eval", *of, "--data", texts) for of in (("--model", f"{lib.DEMO}/model"),
                                                                     ("--home", a.home, "--checkpoint", "last")))
    assert (point["number"], point["examples"], point["terms"]) == (a.last()["checkpoint"]["number"], 16, alone["tokens"]), point
    assert abs(point["loss"] - alone["loss_token_mean"]) < 1e-4 < abs(base["loss_token_mean"] - alone["loss_token_mean"]), (point, base, alone)
    commands_on_a_device(with_plugin(f"{folder}/again"), a, texts, base, alone)


def commands_on_a_device(program, peer, texts, base, alone):
    """eval and replay there: the CPU's losses but for rounding, its digests, its generated text; what is no device is refused."""
    on = ("--device", "cuda", "--precision", "fp32")
    lib.ONEBYTE = program
    try:
        there = good_json("eval", "--model", f"{lib.DEMO}/model", "--data", texts, *on)
        assert 0 < abs(there["loss_token_mean"] - base["loss_token_mean"]) < 1e-4 and there["tokens"] == base["tokens"], (there, base)
        there = good_json("eval", "--home", peer.home, "--checkpoint", "last", "--data", texts, *on)
        assert there["digest"] == alone["digest"] and abs(there["loss_token_mean"] - alone["loss_token_mean"]) < 1e-4, (there, alone)
        there = good_json("replay", "--home", peer.home, "--device", "cuda")
        here = good_json("replay", "--home", peer.home)
        assert there == here and here["records"] > 0, (there, here)
        assert good_json("version")["gpu"] == "emulation"
        found = {f["check"]: f for f in good_json("doctor", "--home", peer.home)["findings"]}
        assert found["gpu"]["result"] == "ok" and "emulation, 4.3 of 4.3 GB free" in found["gpu"]["text"], found
        os.environ["EMULATED_MEMORY"] = "1000"
        found = {f["check"]: f for f in good_json("doctor", "--home", peer.home)["findings"]}
        assert found["gpu"]["result"] == "note" and "nvidia-smi" in found["gpu"]["fix"], found
        code, _, err = call("replay", "--home", peer.home, "--device", "cuda")
        assert code == 1 and "--device cuda: emulation has too little memory for the parameters" in err, err
        code, out, err = call("replay", "--home", peer.home, "--device", "auto", "--json")
        assert code == 0 and json.loads(out) == here and 'device=cpu reason="emulation has too little memory' in err, (out, err)
        code, _, err = call("eval", "--home", peer.home, "--data", texts, "--device", "gpu")
        assert code == 1 and "--device takes auto, cpu, cuda or cuda:N" in err, err
    finally:
        os.environ.pop("EMULATED_MEMORY", None)
        lib.ONEBYTE = PROGRAM


def test_without_a_device(folder, swarm):
    """A plug-in that does not load: auto says why and takes the CPU; asked for, it is an error."""
    s = swarm(*SMALL)
    broken = with_plugin(folder)
    with open(f"{folder}/bin/libonebyte_cuda.so", "wb") as f:
        f.write(b"not a shared object")
    a = s.peer("a", data=False)
    start_with(broken, a)
    assert a.wait_status("its device", lambda x: x["device"])["device"] == "cpu"
    assert "ev=device device=cpu reason=" in a.log() and "CUDA plug-in" in a.log(), a.log()
    assert a.end() == 0
    start_with(broken, a, "--device", "cuda")
    assert a.ended() == 1
    assert "--device cuda: no CUDA plug-in" in a.log(), a.log()
    code, _, err = call("run", s.manifest, "--home", f"{folder}/x", "--device", "gpu")
    assert code == 1 and "--device takes auto, cpu, cuda or cuda:N" in err, err


def test_the_plugin_compiles(folder, swarm):
    """With nvcc: the real plug-in builds for one architecture, loads, and says that there is no GPU (or uses it)."""
    if subprocess.run(["make", "-s", "have-nvcc"], capture_output=True).returncode != 0:
        raise Skip("no nvcc on this machine")
    os.makedirs(f"{folder}/bin")
    p = subprocess.run(["make", "-s", f"CUDA_PLUGIN={folder}/bin/libonebyte_cuda.so", "CUDA_ARCHS=80",
                        f"{folder}/bin/libonebyte_cuda.so"], capture_output=True, text=True, timeout=LIMIT_S)
    assert p.returncode == 0, p.stdout[-2000:] + p.stderr[-2000:]
    shutil.copy(PROGRAM, f"{folder}/bin/onebyte")
    s = swarm(*SMALL)
    a = s.peer("a", data=False)
    start_with(f"{folder}/bin/onebyte", a)
    device = a.wait_status("its device", lambda x: x["device"])["device"]
    if device == "cpu":
        assert "ev=device device=cpu reason=" in a.log() and "no CUDA plug-in" not in a.log(), a.log()
        assert find_library("cuda") or "no CUDA device: there is no NVIDIA driver here" in a.log(), a.log()
    assert a.end() == 0
    if device != "cpu":
        agree(s, f"{folder}/bin/onebyte", device)


if __name__ == "__main__":
    sys.exit(main([test_a_gpu_peer_and_a_cpu_peer_agree, test_a_gpu_peer_scores_what_it_trained, test_without_a_device,
                   test_the_plugin_compiles]))
