#!/usr/bin/env python3
"""Running it: installation, doctor, status --check, host limits, metrics and page, plot; real processes on loopback."""
import ctypes
import json
import os
import pty
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import xml.dom.minidom

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import DEMO, ONEBYTE, Skip, call, environment, good, good_json, main, wait  # noqa: E402


def http(port, path, host=None):
    """(code, text) of one request to a peer's page."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host} if host else {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, ""


def test_install(folder, swarm):
    """What is installed is what the program prints: a manual for each command, completions that the shell can read."""
    p = subprocess.run(["sh", "peer/dist/install.sh"], env=dict(environment(), BINARY=ONEBYTE, PREFIX="/usr", DESTDIR=folder),
                       capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
    share = f"{folder}/usr/share"
    commands = re.findall(r"^  ([a-z]+) ", good("--help"), re.M)
    assert "run" in commands and "doctor" in commands
    manuals = set(os.listdir(f"{share}/man/man1"))
    assert manuals == {"onebyte.1"} | {f"onebyte-{c}.1" for c in commands}, manuals
    for m in manuals:
        with open(f"{share}/man/man1/{m}") as f:
            text = f.read()
        assert text.startswith(".TH ONEBYTE") and ".SH NAME" in text, m
    completion = f"{share}/bash-completion/completions/onebyte"
    script = f'. {completion}; COMP_WORDS=(onebyte run --max-u); COMP_CWORD=2; _onebyte onebyte --max-u; echo "${{COMPREPLY[@]}}"'
    out = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert out.stdout.split() == ["--max-upload"], (out.stdout, out.stderr)
    for unit in ("user/onebyte.service", "system/onebyte@.service"):
        with open(f"{folder}/usr/lib/systemd/{unit}") as f:
            assert "ExecStart=/usr/bin/onebyte run" in f.read(), unit
    with open(f"{share}/onebyte/grafana.json") as f:
        used = {n for n in re.findall(r"onebyte_[a-z_]+", f.read()) if n != "onebyte_info"}
    with open("peer/web_metrics.c") as f:
        made = {"onebyte_" + n for n in re.findall(r'", "([a-z_]+)", "(?:gauge|counter)"', f.read())}
    assert used and used <= made, used - made


def test_doctor(folder, swarm):
    s = swarm()
    a = s.peer("a").start()
    address = a.address()
    found = {f["check"]: f for f in good_json("doctor", "--home", a.home, "--connect", address, "--listen", "127.0.0.1:0")["findings"]}
    assert found["connect"]["result"] == found["listen"]["result"] == found["key"]["result"] == "ok", found
    code, out, _ = call("doctor", "--home", a.home, "--listen", address)  # taken
    assert code == 1 and re.search(r"^bad +listen ", out, re.M) and "->" in out, out
    a.kill()
    code, out, _ = call("doctor", "--home", a.home, "--connect", address, "--json")
    assert code == 1 and not json.loads(out)["ready"], out
    os.chmod(a.home, 0o755)
    code, out, _ = call("doctor", "--home", a.home)
    assert code == 1 and "chmod 700" in out, out
    code, out, _ = call("doctor", "--connect", "no-port", "--home", f"{folder}/none")
    assert code == 1 and re.search(r"^bad +connect", out, re.M), out


def test_check(folder, swarm):
    s = swarm()
    code, out, _ = call("status", "--check", "--home", f"{folder}/none")
    assert code == 3 and out.startswith("ONEBYTE UNKNOWN"), out
    a = s.peer("a").start()
    a.wait_status("contributing", lambda x: x["contributing"])
    code, out, _ = call("status", "--check", "--home", a.home)
    assert code == 0 and re.match(r"ONEBYTE OK - step \d+ of \d+, contributing alone \| step=\d+ links=0 agree=0 rate=", out), out
    a.kill()
    code, out, _ = call("status", "--check", "--home", a.home)
    assert code == 2 and "not running" in out, out


def test_nohup_and_a_stopped_peer(folder, swarm):
    """A hang-up that the caller ignores ends nothing; a peer that stands still keeps no command longer than it promises."""
    a = swarm().peer("a").start(preexec=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    a.wait_status("contributing", lambda x: x["records"]["own"] > 0)
    a.process.send_signal(signal.SIGHUP)
    a.process.send_signal(signal.SIGSTOP)
    home = os.open(a.home, os.O_RDONLY)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(64)]
    for w in waiting:
        w.setblocking(False)
        w.connect_ex(f"/proc/self/fd/{home}/control.sock")  # a socket's path has 107 bytes at most
    p = subprocess.run([ONEBYTE, "pause", "--home", a.home], capture_output=True, text=True, timeout=60)
    assert p.returncode == 1 and "did not answer within 10 s" in p.stderr, (p.returncode, p.stderr)
    for w in waiting:
        w.close()
    os.close(home)
    a.process.send_signal(signal.SIGCONT)
    a.wait_status("still there", lambda x: x["contributing"])
    assert a.end() == 0


def test_page(folder, swarm):
    s = swarm()
    a = s.peer("a", "--metrics", 0).start()
    port = a.wait_status("contributing", lambda x: x["contributing"])["metrics"]
    code, text = http(port, "/metrics")
    assert code == 200 and re.search(r"^onebyte_contributing 1$", text, re.M), text
    wait("records in the metrics", lambda: int(re.search(r"^onebyte_own_records_total (\d+)", http(port, "/metrics")[1], re.M)[1]) > 0)
    code, text = http(port, "/status.json")
    assert code == 200 and json.loads(text)["machine_id"] == a.running()["machine_id"]
    assert http(port, "/")[0] == 200 and http(port, "/other")[0] == 404
    assert http(port, "/status.json", host="evil.example")[0] == 403
    b = s.peer("b", "--metrics", port).start()
    assert b.ended() == 1 and f"127.0.0.1:{port}" in b.log()[-500:], b.log()
    assert a.end() == 0


def test_hours(folder, swarm):
    """Outside its hours a peer says so, folds, and measures nothing; nonsense is refused before anything starts."""
    s = swarm()
    code, _, err = call("run", s.manifest, "--home", f"{folder}/x", "--hours", "25-3")
    assert code == 1 and "--hours" in err, err
    # Half a day away: not now, whatever hour begins meanwhile.
    hour = time.localtime().tm_hour
    a = s.peer("a", "--hours", f"{(hour + 12) % 24}-{(hour + 13) % 24}").start()
    seen = a.wait_status("the hold", lambda x: x["why"].startswith("hours"))
    assert not seen["contributing"] and seen["records"]["own"] == 0, seen
    assert a.end() == 0


def test_upload_limit(folder, swarm):
    """A joiner behind a limit of 16 kB/s gets everything, and no faster: bytes <= rate x time + one second + one answer."""
    s = swarm("--n0", 64, "--steps", 200)
    a = s.peer("a", "--max-upload", 16).start()
    a.wait_status("something to send", lambda x: x["records"]["own"] >= 2048)
    b = s.peer("b", "--connect", a.address(), data=False).start()
    wait("b to hold records", lambda: (b.running() or {"records": {"folded": 0}})["records"]["folded"] >= 2048)
    x = a.running()
    assert x["bytes"]["sent"] <= 16000 * (x["uptime_s"] + 1) + (1 << 18) + (1 << 16), x["bytes"]
    assert a.end() == 0 and b.end() == 0


def test_join_from_a_limited_donor(folder, swarm):
    """The base model in windows of 256 kB at 100 kB/s: the donor rests between them, and the joiner waits for it."""
    s = swarm("--n0", 64, "--steps", 1000)
    a = s.peer("a", "--max-upload", 100, "--paused").start()
    at, x = a.address(), a.status()
    b = s.peer("b", "--relay", manifest=f"onebyte://{at}/{x['run_id']}?key={x['machine_id']}", data=None).start()
    b.wait_status("to have joined", lambda y: y["peers"])
    x = a.running()
    size = sum(os.path.getsize(f"{DEMO}/model/{n}") for n in os.listdir(f"{DEMO}/model"))
    assert size < x["bytes"]["sent"] <= 100000 * (x["uptime_s"] + 1) + (1 << 18) + (1 << 16), (size, x["bytes"])
    assert a.end() == 0 and b.end() == 0


def test_download_limit(folder, swarm):
    """As for the upload, on the joiner's side: it holds back what others would send faster."""
    s = swarm("--n0", 64, "--steps", 200)
    a = s.peer("a").start()
    a.wait_status("something to send", lambda x: x["records"]["own"] >= 2048)
    b = s.peer("b", "--connect", a.address(), "--max-download", 16, data=False).start()
    wait("b to hold records", lambda: (b.running() or {"records": {"folded": 0}})["records"]["folded"] >= 2048)
    x = b.running()
    assert x["bytes"]["received"] <= 16000 * (x["uptime_s"] + 1) + (1 << 18) + (1 << 16), x["bytes"]
    assert a.end() == 0 and b.end() == 0


def test_only_idle(folder, swarm):
    """Until others have left the machine alone for a minute nothing is measured; it folds and relays meanwhile."""
    s = swarm()
    a = s.peer("a").start()
    b = s.peer("b", "--connect", a.address(), "--only-idle").start()
    x = b.wait_status("the hold, and a's records", lambda x: x["why"].startswith("busy") and x["records"]["folded"] > 500)
    assert not x["contributing"] and x["records"]["own"] == 0, x
    assert call("status", "--check", "--home", b.home)[0] == 1
    assert a.end() == 0 and b.end() == 0


def test_on_battery(folder, swarm):
    """--on-battery never, on a machine whose battery discharges: a mount namespace gives the process such a /sys."""
    supply = ("mount -t tmpfs battery /sys/class && mkdir -p /sys/class/power_supply/BAT0 && "
              "echo Battery > /sys/class/power_supply/BAT0/type && echo Discharging > /sys/class/power_supply/BAT0/status")
    if subprocess.run(["unshare", "-m", "sh", "-c", supply], capture_output=True).returncode != 0:
        raise Skip("namespaces are not possible here")
    wrapper = f"{folder}/onebyte"
    with open(wrapper, "w") as f:
        f.write(f"#!/bin/sh\nexec unshare -m sh -c '{supply} && exec \"$0\" \"$@\"' {ONEBYTE} \"$@\"\n")
    os.chmod(wrapper, 0o755)
    s = swarm()
    for option, held in (("never", True), ("always", False)):
        home = f"{folder}/{option}"
        p = subprocess.Popen([wrapper, "run", s.manifest, "--home", home, "--data", f"{DEMO}/train.jsonl", "--on-battery", option],
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
        try:
            def look(home=home, held=held, p=p):
                assert p.poll() is None
                code, out, _ = call("status", "--home", home, "--json")
                x = json.loads(out) if code == 0 else {"running": False}
                return x if x["running"] and (x["why"].startswith("battery") if held else x["contributing"]) else None
            x = wait(f"--on-battery {option}", look)
            assert not held or x["records"]["own"] == 0, x
        finally:
            p.terminate()
            assert p.wait(timeout=240) == 0


def large_model(folder):
    """The demo model with 23 million parameters: one layer that is very wide, of zeros."""
    shutil.copytree(f"{DEMO}/model", folder)
    with open(f"{folder}/config.json") as f:
        config = json.load(f)
    with open(f"{folder}/model.safetensors", "rb") as f:
        n = int.from_bytes(f.read(8), "little")
        head, data = json.loads(f.read(n)), f.read()
    config["intermediate_size"] = wide = 23000000 // 3 // config["hidden_size"] // config["num_hidden_layers"]
    out, at, parts = {}, 0, []
    for name, t in head.items():
        if name == "__metadata__":
            continue
        part = data[slice(*t["data_offsets"])]
        if ".mlp." in name:
            t = {"dtype": "F32", "shape": [config["hidden_size"], wide] if "down" in name else [wide, config["hidden_size"]]}
            part = bytes(4 * config["hidden_size"] * wide)
        out[name] = {"dtype": t["dtype"], "shape": t["shape"], "data_offsets": [at, at + len(part)]}
        at += len(part)
        parts.append(part)
    text = json.dumps(out).encode()
    with open(f"{folder}/config.json", "w") as f:
        json.dump(config, f)
    with open(f"{folder}/model.safetensors", "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + b"".join(parts))


def test_memory_limit(folder, swarm):
    """The kernel holds it: the demo model runs within 64 MB; one that does not fit ends in one line.  --nice is every thread's."""
    s = swarm()
    a = s.peer("a", "--max-memory", 64, "--nice", 7).start()
    pid = a.wait_status("records", lambda x: x["records"]["own"] > 0)["pid"]
    with open(f"/proc/{pid}/limits") as f:
        limit = int(re.search(r"^Max data size +(\d+) ", f.read(), re.M)[1])
    with open(f"/proc/{pid}/status") as f:
        status = {k: int(v) for k, v in re.findall(r"^(VmData|VmRSS):\s+(\d+) kB", f.read(), re.M)}
    assert status["VmData"] * 1024 <= limit and status["VmRSS"] * 1024 < 160e6, (limit, status)
    for task in os.listdir(f"/proc/{pid}/task"):
        assert os.getpriority(os.PRIO_PROCESS, int(task)) >= 7, task
    assert a.end() == 0
    large_model(f"{folder}/large")
    good("init", "--home", f"{folder}/o", "--model", f"{folder}/large", "--data", f"{DEMO}/train.jsonl", "--out", f"{folder}/large.json")
    b = s.peer("b", "--max-memory", 64, "--model", f"{folder}/large", manifest=f"{folder}/large.json").start()
    assert b.ended() == 1 and re.match(r"onebyte: .*memory", b.log().splitlines()[-1]), b.log()[-500:]


def test_plot(folder, swarm):
    s = swarm()
    a = s.peer("a").start()
    a.wait_status("records", lambda x: x["records"]["own"] >= 256)
    made = good_json("plot", "--home", a.home, "--out", f"{folder}/live.svg")  # while it runs
    assert made["segments"] > 0
    assert a.end() == 0
    good("plot", "--home", a.home, "--out", f"{folder}/run.svg")
    good("log", "--home", a.home, "--export", f"{folder}/ledger")
    good("plot", "--manifest", s.manifest, "--ledger", f"{folder}/ledger", "--out", f"{folder}/again.svg")
    with open(f"{folder}/run.svg") as f, open(f"{folder}/again.svg") as g:
        text = f.read()
        assert text == g.read()
    svg = xml.dom.minidom.parseString(text)
    assert len(svg.getElementsByTagName("polyline")) >= 3
    code, _, err = call("plot", "--home", s.peers[0].home, "--out", f"{folder}/no/such/folder.svg")
    assert code == 1 and len(err.splitlines()) == 1, err


def test_watch(folder, swarm):
    """On a terminal the whole screen, ended by q; without one, or a dumb one, plain text."""
    s = swarm("--name", "ü" * 31)
    a = s.peer("a").start()
    run_id = a.wait_status("contributing", lambda x: x["contributing"])["run_id"]
    for extra in ({}, {"NO_COLOR": "1"}):
        main_fd, side_fd = pty.openpty()
        p = subprocess.Popen([ONEBYTE, "status", "--watch", "--interval", "0.2", "--home", a.home], stdin=side_fd, stdout=side_fd,
                             stderr=side_fd, env=dict(environment(), TERM="xterm-256color", LINES="30", COLUMNS="60", LANG="C.UTF-8", LC_ALL="", **extra))
        os.close(side_fd)
        seen = b""
        end = time.monotonic() + 240
        while b"q: end" not in seen or b"gradients/s" not in seen:
            assert time.monotonic() < end and p.poll() is None, seen
            seen += os.read(main_fd, 65536)
        os.write(main_fd, b"q")
        try:
            while chunk := os.read(main_fd, 65536):
                seen += chunk
        except OSError:
            pass  # the other side is closed
        assert p.wait(timeout=240) == 0
        os.close(main_fd)
        assert (b"32m" in seen) == (not extra), seen
        assert run_id[:16].encode() in seen, seen  # a line is as long as its characters, not its bytes
    p = subprocess.Popen([ONEBYTE, "status", "--watch", "--home", a.home], stdout=subprocess.PIPE, text=True, env=environment(),
                         stdin=subprocess.DEVNULL)
    assert p.stdout.readline().startswith("run ")
    p.terminate()
    rest = p.communicate(timeout=240)[0]
    assert p.returncode == 0 and "\x1b" not in rest


def test_the_key_in_memory(folder, swarm):
    """One copy of the secret in the whole process, and a warning where the system does not let it lock that one."""
    s = swarm("--n0", 16, "--steps", 1000000)
    a = s.peer("owner")
    with open(f"{a.home}/identity", "rb") as f:
        secret = f.read(32)
    a.start()
    pid = a.wait_status("records", lambda r: r["records"]["own"] > 0)["pid"]
    assert "not locked" not in a.log(), a.log()
    copies = 0
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            first, last = (int(x, 16) for x in line.split()[0].split("-"))
            if line.split()[1][0] == "r" and "[v" not in line:
                memory.seek(first)
                copies += memory.read(last - first).count(secret)
    assert copies == 1, copies
    a.end()

    def nothing_locked():
        ctypes.CDLL(None).prctl(24, 14, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_IPC_LOCK: root has no limit otherwise
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    a.start(preexec=nothing_locked)
    a.wait_status("records", lambda r: r["records"]["own"] > 0)
    assert "ev=key reason=\"the key is not locked" in a.log(), a.log()


if __name__ == "__main__":
    sys.exit(main([v for k, v in list(globals().items()) if k.startswith("test_")]))
