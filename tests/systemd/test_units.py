#!/usr/bin/env python3
"""Both units under a real systemd (make test-systemd): a user manager of our own in a private mount namespace.

The user unit runs as it is.  Of the system unit everything but DynamicUser, the state folder and the options that need mounts: above
all its system call filter, address families, empty capabilities and no writable code, which a peer must live with.
"""
import os
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from lib import DEMO, ONEBYTE, Skip, environment, main, wait  # noqa: E402

SYSTEMD = "/lib/systemd/systemd"
INSIDE = "ONEBYTE_TEST_SYSTEMD"
MOUNTS = re.compile(r"^(DynamicUser|StateDirectory\w*|PrivateTmp|PrivateDevices|PrivateUsers|ProtectSystem|ProtectHome|ProtectControlGroups|"
                    r"ProtectKernelTunables|ProtectKernelLogs|ProtectHostname|ProtectProc|ProcSubset)=.*\n", re.M)


def enter_private():
    mounts = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system"
    if os.path.exists(SYSTEMD) and subprocess.run(["unshare", "--mount", "sh", "-c", mounts], capture_output=True).returncode == 0:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--mount", "sh", "-c", mounts + ' && exec "$@"', "sh", sys.executable, *sys.argv])


class Manager:
    def __init__(self, folder):
        if INSIDE not in os.environ:
            raise Skip("namespaces are not possible here, or systemd is not installed")
        self.folder = folder
        self.units = f"{folder}/config/systemd/user"
        os.makedirs(self.units)
        os.makedirs(f"{folder}/run", mode=0o700)
        self.env = environment() | {"HOME": folder, "XDG_RUNTIME_DIR": f"{folder}/run", "XDG_CONFIG_HOME": f"{folder}/config"}

    def unit(self, name, text, *service):
        with open(f"{self.units}/{name}", "w") as f:
            f.write(text)
        os.makedirs(f"{self.units}/{name}.d")
        with open(f"{self.units}/{name}.d/test.conf", "w") as f:
            f.write("[Service]\n" + "\n".join(service) + "\n")

    def start(self):
        self.process = subprocess.Popen([SYSTEMD, "--user", "--log-target=null"], env=self.env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait("the manager", lambda: self.ctl("list-units")[0] == 0 or self.process.poll() is not None, 30)
        if self.process.poll() is not None:
            raise Skip("namespaces are not possible here: systemd does not run")

    def ctl(self, *args):
        p = subprocess.run(["systemctl", "--user", *args], env=self.env, capture_output=True, text=True, timeout=120)
        return p.returncode, p.stdout + p.stderr

    def show(self, unit, name):
        return self.ctl("show", unit, "-p", name, "--value")[1].strip()

    def end(self):
        self.process.kill()
        self.process.wait()


def source(unit):
    with open(f"peer/dist/{unit}") as f:
        return f.read().replace("/usr/local/bin/onebyte", ONEBYTE)


def test_user_unit(folder, swarm):
    """It is active when the peer says so; a peer that hangs is found by the watchdog and started again; stop is clean."""
    m, s = Manager(folder), swarm()
    options = f"--home {folder}/home --model {DEMO}/model --data {DEMO}/train.jsonl --threads 1 --listen 127.0.0.1:0 --paused"
    m.unit("onebyte.service", source("onebyte.service"), f'Environment=RUN={s.manifest} "OPTIONS={options}"', "WatchdogSec=3", "RestartSec=1")
    m.start()
    try:
        code, said = m.ctl("start", "onebyte")
        assert code == 0, said
        assert m.show("onebyte", "StatusText") == "taking part in the run"
        time.sleep(7)  # two watchdog times: it is alive
        assert m.show("onebyte", "NRestarts") == "0" and m.show("onebyte", "ActiveState") == "active"
        pid = int(m.show("onebyte", "MainPID"))
        os.kill(pid, 19)  # hangs
        wait("another process", lambda: m.show("onebyte", "NRestarts") == "1" and m.show("onebyte", "ActiveState") == "active", 60)
        assert m.ctl("stop", "onebyte")[0] == 0 and m.show("onebyte", "Result") == "success"
    finally:
        m.end()


def test_system_unit(folder, swarm):
    m, s = Manager(folder), swarm()
    os.mkdir(f"{folder}/trial")
    for end in ("", ".sig"):
        shutil.copy(s.manifest + end, f"{folder}/trial/run.json{end}")
    text = MOUNTS.sub("", source("onebyte@.service").replace("/var/lib/onebyte", folder))
    m.unit("onebyte@.service", text, f'Environment="OPTIONS=--model {DEMO}/model --data {DEMO}/train.jsonl --listen 127.0.0.1:0 --metrics 0 '
           f'--max-memory 500 --nice 12"')
    m.start()
    try:
        code, said = m.ctl("start", "onebyte@trial")
        assert code == 0, said
        with open(f"/proc/{m.show('onebyte@trial', 'MainPID')}/status") as f:
            status = f.read()
        assert re.search(r"^Seccomp:\t2$", status, re.M) and re.search(r"^CapBnd:\t0+$", status, re.M), status
        look = [ONEBYTE, "status", "--home", f"{folder}/trial/home"]
        wait("records", lambda: re.search(r"records +[1-9]\d* own", subprocess.run(look, capture_output=True, text=True).stdout), 120)
        assert m.ctl("stop", "onebyte@trial")[0] == 0 and m.show("onebyte@trial", "Result") == "success"
    finally:
        m.end()


if __name__ == "__main__":
    if INSIDE not in os.environ:
        enter_private()
    sys.exit(main([v for k, v in list(globals().items()) if k.startswith("test_")]))
