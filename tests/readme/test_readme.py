#!/usr/bin/env python3
"""README's three machines, as written (make test-readme): three network namespaces, each with a home of its own, and every command of
the blocks marked `# all`, `# one`, `# two`, `# three`, `# any`.  Needs root or user namespaces; otherwise it skips.

What differs: INVITE is what `init` printed, scp is cp, `status --watch` ends after a few seconds, /usr/local and /etc are private copies.
The status and the plot of the run go to build/readme.
"""
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from lib import Skip, main, wait  # noqa: E402

INSIDE = "ONEBYTE_TEST_README"
NAMES = ("one", "two", "three")
ROOT = os.getcwd()


def enter_private():
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    unshare = ["unshare", *user, "--net", "--mount", "--"]
    mounts = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /usr/local && cp -a /etc /run/etc && mount --bind /run/etc /etc && ip netns add probe && ip netns del probe"
    if subprocess.run([*unshare, "sh", "-c", mounts], capture_output=True).returncode == 0:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", [*unshare, "sh", "-c", mounts + ' && exec "$@"', "sh", sys.executable, *sys.argv])


def sh(command):
    subprocess.run(command, shell=True, check=True, timeout=600)


def blocks():
    """{"one": ["onebyte init ...", ...], ...}: the commands of each marked block."""
    with open("README.md") as f:
        found = re.findall(r"^```\n# ([a-z, ]+)\n(.*?)^```$", f.read(), re.M | re.S)
    return {name: text.splitlines() for name, text in found}


class Machine:
    def __init__(self, folder, name, n):
        self.name, self.home, self.runs = name, f"{folder}/{name}", []
        os.makedirs(f"{self.home}/peer")
        shutil.copytree("peer/demo", f"{self.home}/peer/demo")
        sh(f"ip netns add {name} && ip link add v{name} type veth peer name eth0 netns {name} && ip link set v{name} master br0 up && "
           f"ip -n {name} link set lo up && ip -n {name} link set eth0 up && ip -n {name} address add 10.9.0.{n}/24 dev eth0")
        self.env = {"HOME": self.home, "PATH": f"{folder}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "TERM": "dumb"}

    def start(self, command):
        fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        p = subprocess.Popen(["sh", "-c", "exec " + command], cwd=self.home, env=self.env, text=True, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             preexec_fn=lambda: ctypes.CDLL(None).setns(fd, 0x40000000) and os._exit(99))
        os.close(fd)
        return p

    def do(self, command):
        """As a person types it; a run goes on in the background."""
        p = self.start(command)
        if command.startswith("onebyte run"):
            self.runs.append((command, p))
            return ""
        if "--watch" in command:
            time.sleep(3)
            p.terminate()
        out, err = p.communicate(timeout=600)
        assert p.returncode == 0, f"{self.name}: {command}: exit {p.returncode}: {out}{err}"
        return out

    def status(self):
        return json.loads(self.do("onebyte status --json"))


def test_three_machines(folder, swarm):
    if INSIDE not in os.environ:
        raise Skip("namespaces are not possible here")
    todo = blocks()
    assert set(todo) == {"all", "one", "two", "three", "any", "any, afterwards"}, set(todo)
    os.mkdir(f"{folder}/bin")
    for shim, text in (("sudo", 'exec "$@"'), ("scp", 'for f; do case $f in one:*) cp "$HOME/../one/${f#one:}" .;; esac; done')):
        with open(f"{folder}/bin/{shim}", "w") as f:
            f.write(f"#!/bin/sh\n{text}\n")
        os.chmod(f"{folder}/bin/{shim}", 0o755)
    for command in todo["all"]:
        sh(f"PATH={folder}/bin:$PATH; {{ {command}; }} > {folder}/make.log")
    sh("ip link set lo up && ip link add br0 type bridge && ip link set br0 up")
    machines = [Machine(folder, name, i + 1) for i, name in enumerate(NAMES)]
    with open(f"{folder}/hosts", "w") as f:
        f.write("127.0.0.1 localhost\n" + "".join(f"10.9.0.{i + 1} {n}\n" for i, n in enumerate(NAMES)))
    sh(f"mount --bind {folder}/hosts /etc/hosts")
    invite = "none yet"
    for m in machines:
        for command in todo[m.name]:
            out = m.do(command.replace("INVITE", invite))
            if command.startswith("onebyte init"):
                invite = re.search(r"onebyte://\S+", out)[0]
        wait(f"{m.name} to contribute", lambda m=m: m.runs[0][1].poll() is None and os.path.exists(f"{m.home}/.local/state/onebyte/control.sock") and
             m.status()["contributing"])
    wait("all to be linked", lambda: all(len([p for p in m.status()["peers"] if p["id"]]) >= 1 for m in machines))
    wait("half the run", lambda: machines[0].status()["step"] >= 500)
    told = machines[0].do("onebyte status")
    for m in machines:
        for command in todo["any"]:
            m.do(command)
    for m in machines:
        out, err = m.runs[0][1].communicate(timeout=600)
        assert m.runs[0][1].returncode == 0 and "finished at step" in out, (m.name, out, err)
    digests = set()
    for m in machines:
        outs = [m.do(command) for command in todo["any, afterwards"]]
        digests |= set(re.findall(r"^digest +([0-9a-f]{16})$", outs[-1], re.M)) | {m.status()["digest"]}
        assert os.path.exists(f"{m.home}/tuned/model.safetensors") and os.path.exists(f"{m.home}/again/model.safetensors")
    assert len(digests) == 1, digests
    out = os.path.join(ROOT, "build/readme")
    os.makedirs(out, exist_ok=True)
    machines[0].do(f"onebyte plot --out {out}/three-machines.svg")
    with open(f"{out}/status.txt", "w") as f:
        f.write(told)


if __name__ == "__main__":
    if INSIDE not in os.environ:
        enter_private()
    sys.exit(main([test_three_machines]))
