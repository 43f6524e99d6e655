#!/usr/bin/env python3
"""Both units as they are installed, under a real systemd (make test-systemd; root): the user unit under a user manager, the system unit
under a system manager that is process 1 of namespaces of its own, so with DynamicUser, the state folder and every mount it asks for.

/usr/local, /etc, /var/lib and /run are private, and each manager sees a control group of its own as the whole tree.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from lib import DEMO, ONEBYTE, Skip, environment, main, wait  # noqa: E402

SYSTEMD = "/lib/systemd/systemd"
INSIDE = "ONEBYTE_TEST_SYSTEMD"
MOUNTS = """mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && cp -a /etc /run/etc && mount --bind /run/etc /etc &&
            mount -t tmpfs tmpfs /usr/local && mount -t tmpfs -o mode=755 tmpfs /var/lib"""
TARGETS = ("sysinit", "basic", "shutdown", "default", "multi-user", "network-online")


def enter_private():
    if os.path.exists(SYSTEMD) and subprocess.run(["unshare", "--mount", "sh", "-c", MOUNTS], capture_output=True).returncode == 0:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--mount", "sh", "-c", MOUNTS + ' && exec "$@"', "sh", sys.executable, *sys.argv])


def new_group():
    """A control group below this process's."""
    with open("/proc/self/cgroup") as f, open("/proc/self/mounts") as m:
        own = re.search(r"^0::(.*)$", f.read(), re.M)
        root = re.search(r"^cgroup2? (\S+) cgroup2 ", m.read(), re.M)
    if not own or not root:
        raise Skip("namespaces are not possible here: no control groups of version 2")
    group = f"{root[1]}{own[1].rstrip('/')}/onebyte-test-{os.getpid()}"
    try:
        os.mkdir(group)
    except OSError as e:
        raise Skip(f"namespaces are not possible here: no control group: {e}") from None
    return group


class Manager:
    def __init__(self, folder, kind):
        if INSIDE not in os.environ:
            raise Skip("namespaces are not possible here, or systemd is not installed")
        self.kind, self.group = kind, new_group()
        subprocess.run(["sh", "peer/dist/install.sh"], env=environment() | {"PREFIX": "/usr/local", "DESTDIR": "", "BINARY": ONEBYTE}, check=True)
        self.units = f"{folder}/units"
        os.makedirs(self.units)
        for name in TARGETS:  # none of this machine's own services
            with open(f"{self.units}/{name}.target", "w") as f:
                f.write("[Unit]\nDefaultDependencies=no\n")
        os.makedirs(f"{folder}/run", mode=0o700)
        self.env = environment() | {"HOME": folder, "XDG_RUNTIME_DIR": f"{folder}/run", "container": "test",
                                    "SYSTEMD_UNIT_PATH": f"{self.units}:/usr/local/lib/systemd/{kind}"}

    def start(self):
        inside = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
        if self.kind == "system":
            spaces, options = ["--uts", "--pid", "--fork", "--mount-proc", "--kill-child"], ["--system", "--show-status=no"]
        else:
            spaces, options = [], ["--user"]
        self.process = subprocess.Popen(
            ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', self.group, "unshare", "--mount", "--cgroup", *spaces,
             "sh", "-c", f'{inside} && exec "$@"', "sh", SYSTEMD, *options, "--log-target=null", "--unit=default.target"],
            env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait("the manager", lambda: self.process.poll() is not None or self.ctl("is-active", "default.target")[0] == 0, 30)
        if self.process.poll() is not None:
            raise Skip("namespaces are not possible here: systemd does not run")

    def first(self):
        """Process 1's number out here."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as f:
            return f.read().strip()

    def ctl(self, *args):
        enter = ["nsenter", "-t", self.first(), "--mount", "--pid"] if self.kind == "system" else []  # it insists on seeing process 1
        p = subprocess.run([*enter, "systemctl", f"--{self.kind}", *args], env=self.env, capture_output=True, text=True, timeout=120)
        return p.returncode, p.stdout + p.stderr

    def show(self, unit, name):
        return self.ctl("show", unit, "-p", name, "--value")[1].strip()

    def end(self):
        with open(f"{self.group}/cgroup.kill", "w") as f:
            f.write("1")
        self.process.wait()
        events = f"{self.group}/cgroup.events"
        wait("its processes to end", lambda: "populated 0" in open(events).read(), 30)
        for folder, _, _ in os.walk(self.group, topdown=False):
            os.rmdir(folder)


def test_user_unit(folder, swarm):
    """It is active when the peer says so; a peer that hangs is found by the watchdog and started again; stop is clean."""
    m, s = Manager(folder, "user"), swarm()
    options = f"--home {folder}/home --model {DEMO}/model --data {DEMO}/train.jsonl --threads 1 --listen 127.0.0.1:0 --paused"
    os.makedirs(f"{m.units}/onebyte.service.d")
    with open(f"{m.units}/onebyte.service.d/test.conf", "w") as f:
        f.write(f'[Service]\nEnvironment=RUN={s.manifest} "OPTIONS={options}"\nWatchdogSec=3\nRestartSec=1\n')
    try:
        m.start()
        code, said = m.ctl("start", "onebyte")
        assert code == 0, said
        assert m.show("onebyte", "StatusText") == "taking part in the run"
        time.sleep(7)  # two watchdog times: it is alive
        assert m.show("onebyte", "NRestarts") == "0" and m.show("onebyte", "ActiveState") == "active"
        pid = int(m.show("onebyte", "MainPID"))
        os.kill(pid, signal.SIGSTOP)  # hangs
        wait("another process", lambda: m.show("onebyte", "NRestarts") == "1" and m.show("onebyte", "ActiveState") == "active", 60)
        assert m.ctl("stop", "onebyte")[0] == 0 and m.show("onebyte", "Result") == "success"
    finally:
        m.end()


def test_system_unit(folder, swarm):
    """Made as its head says.  The peer has no right and no file but its own, comes back when killed, and as another user finds its
    home; a second one joins it by invite, with its data alone."""
    m, s = Manager(folder, "system"), swarm()
    unit, place = "onebyte@trial", "/var/lib/onebyte/trial"

    def configure(name, text):
        os.makedirs("/etc/onebyte", exist_ok=True)
        os.makedirs(f"/var/lib/onebyte/{name}")
        shutil.copy(f"{DEMO}/train.jsonl", f"/var/lib/onebyte/{name}")
        with open(f"/etc/onebyte/{name}.conf", "w") as f:
            f.write(text)
    configure("trial", "OPTIONS=--model model --data train.jsonl --listen 127.0.0.1:0 --metrics 0 --max-memory 500 --nice 12 --threads 1\n")
    for file in (s.manifest, f"{s.manifest}.sig"):
        shutil.copy(file, place)
    shutil.copytree(f"{DEMO}/model", f"{place}/model")

    def status(name="trial"):
        p = subprocess.run([ONEBYTE, "status", "--json", "--home", f"/var/lib/onebyte/{name}/home"], capture_output=True, text=True)
        return json.loads(p.stdout) if p.returncode == 0 else None

    def contributes(beyond, name="trial"):
        got = wait("records", lambda: (x := status(name)) and x["running"] and x["records"]["own"] > beyond and x, 120)
        return got["machine_id"], got["records"]["own"]

    def process():
        proc = f"/proc/{m.first()}/root/proc/{m.show(unit, 'MainPID')}"
        with open(f"{proc}/status") as f:
            return proc, dict(line.split(":\t", 1) for line in f.read().splitlines())
    try:
        m.start()
        code, said = m.ctl("start", unit)
        assert code == 0, said
        machine, own = contributes(0)
        proc, p = process()
        user = int(p["Uid"].split()[0])
        assert 61184 <= user <= 65519, p["Uid"]  # systemd's dynamic users
        assert p["Seccomp"] == "2" and p["NoNewPrivs"] == "1" and not int(p["CapBnd"], 16) and not int(p["CapEff"], 16), p
        assert os.stat(f"{place}/home").st_uid == user and os.stat(place).st_mode & 0o777 == 0o700
        for path in ("/usr", "/etc", "/var"):
            assert os.statvfs(f"{proc}/root{path}").f_flag & os.ST_RDONLY, path
        assert os.listdir(f"{proc}/root/root") == []
        invite = f"onebyte://{status()['listen']}/{s.made['run_id']}?key={machine}"
        configure("guest", f"RUN={invite}\nOPTIONS=--data train.jsonl --threads 1\n")
        code, said = m.ctl("start", "onebyte@guest")
        assert code == 0, said
        assert contributes(0, "guest")[0] != machine
        assert m.ctl("stop", "onebyte@guest")[0] == 0 and m.show("onebyte@guest", "Result") == "success"
        assert m.ctl("kill", "-s", "KILL", unit)[0] == 0
        wait("another process", lambda: m.show(unit, "NRestarts") == "1" and m.show(unit, "ActiveState") == "active", 60)
        assert contributes(own)[0] == machine
        assert m.ctl("stop", unit)[0] == 0 and m.show(unit, "Result") == "success"
        own = status()["records"]["own"]
        subprocess.run(["chown", "-R", "61999:61999", os.path.realpath(place)], check=True)
        code, said = m.ctl("start", unit)
        assert code == 0, said
        assert contributes(own)[0] == machine
        assert m.ctl("stop", unit)[0] == 0 and m.show(unit, "Result") == "success"
    finally:
        m.end()


if __name__ == "__main__":
    if INSIDE not in os.environ:
        enter_private()
    sys.exit(main([v for k, v in list(globals().items()) if k.startswith("test_")]))
