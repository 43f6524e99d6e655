"""What the end-to-end tests share: real peers as processes on loopback, conditions with deadlines, one line per test.

Nothing here proves anything by sleeping: a test waits for a condition, as long as LIMIT_S, and fails when it does not come.
Only Python's own library.  Run from the repository root; ONEBYTE names the binary (default build/onebyte).
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

ONEBYTE = os.path.abspath(os.environ.get("ONEBYTE", "build/onebyte"))
DEMO = os.path.abspath("peer/demo")
LIMIT_S = 240  # continuous integration is slow and noisy


class Skip(Exception):
    pass


def environment():
    return {k: v for k, v in os.environ.items() if not k.startswith(("ONEBYTE", "XDG_STATE"))}


def call(*args):
    """(exit code, stdout, stderr) of one command."""
    p = subprocess.run([ONEBYTE, *map(str, args)], capture_output=True, text=True, timeout=LIMIT_S, env=environment(),
                       stdin=subprocess.DEVNULL)
    return p.returncode, p.stdout, p.stderr


def good(*args):
    code, out, err = call(*args)
    assert code == 0, f"onebyte {' '.join(map(str, args))}: exit {code}: {err.strip()}"
    return out


def good_json(*args):
    return json.loads(good(*args, "--json").splitlines()[-1])


def wait(what, condition, limit=LIMIT_S):
    """The first answer that is neither None nor False; an AssertionError when the time is over."""
    end = time.monotonic() + limit
    while True:
        got = condition()
        if got:
            return got
        assert time.monotonic() < end, f"waited {limit} s for {what}"
        time.sleep(0.05)


class Peer:
    """One process of `onebyte run` in its own home."""

    def __init__(self, swarm, name, *options, manifest=True, data=True):
        self.swarm, self.name = swarm, name
        self.home = f"{swarm.dir}/{name}"
        self.options = [str(o) for o in options]
        self.manifest, self.data = manifest, data
        self.process = None
        self.starts = 0

    def start(self, *more, preexec=None):
        assert self.process is None
        self.starts += 1
        args = [ONEBYTE, "run"]
        if self.manifest:
            args.append(self.swarm.manifest if self.manifest is True else self.manifest)
        args += ["--home", self.home, "--json", "--threads", "1"]
        if "--listen" not in self.options:
            args += ["--listen", "127.0.0.1:0"]
        if self.data:
            args += ["--data", f"{DEMO}/train.jsonl"]
        elif self.data is not None:  # None: whatever the home remembers
            args.append("--relay")
        args += self.options + [str(o) for o in more]
        with open(self.log_path(), "a") as log, open(self.out_path(), "w") as out:
            self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=out, stderr=log, env=environment(),
                                            preexec_fn=preexec)
        return self

    def log_path(self):
        return f"{self.swarm.dir}/{self.name}.log"

    def out_path(self):
        return f"{self.swarm.dir}/{self.name}.out"

    def log(self):
        with open(self.log_path(), errors="replace") as f:
            return f.read()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def status(self):
        """None while it does not answer."""
        code, out, _ = call("status", "--home", self.home, "--json")
        return json.loads(out) if code == 0 else None

    def running(self):
        """The status of the running process; fails if it has ended."""
        assert self.alive(), f"{self.name} ended by itself with {self.process.poll()}:\n{self.log()[-1500:]}"
        s = self.status()
        return s if s and s["running"] else None

    def wait_status(self, what, condition, limit=LIMIT_S):
        def look():
            s = self.running()
            return s if s and condition(s) else None
        return wait(f"{self.name}: {what}", look, limit)

    def address(self):
        return self.wait_status("its address", lambda s: s["listen"])["listen"]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def end(self, signal_number=signal.SIGTERM):
        """Ends it by a signal; returns the exit code."""
        self.process.send_signal(signal_number)
        return self.ended()

    def ended(self, limit=LIMIT_S):
        """Waits until it ends by itself; returns the exit code."""
        try:
            code = self.process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {limit} s:\n{self.log()[-1500:]}") from None
        self.process = None
        return code

    def last(self):
        """The status it printed at its end."""
        with open(self.out_path()) as f:
            lines = [line for line in f.read().splitlines() if line.startswith("{")]
        assert lines, f"{self.name} printed no status:\n{self.log()[-1500:]}"
        return json.loads(lines[-1])

    def replay(self, *options):
        return good_json("replay", "--manifest", self.swarm.manifest, "--home", self.home, "--model", f"{DEMO}/model",
                         "--threads", 1, *options)


class Swarm:
    """A run on the embedded model, and its peers."""

    def __init__(self, folder, *options):
        self.dir = folder
        self.manifest = f"{folder}/run.json"
        self.peers = []
        self.made = good_json("init", "--home", f"{folder}/owner", "--model", f"{DEMO}/model", "--data", f"{DEMO}/train.jsonl",
                              "--eval-data", f"{DEMO}/eval.jsonl", "--out", self.manifest, "--seal-s", 1, *options)

    def peer(self, name, *options, **kw):
        p = Peer(self, name, *options, **kw)
        self.peers.append(p)
        return p

    def end(self):
        for p in self.peers:
            if p.process:
                p.kill()


def same(statuses):
    """All hold the same records and, recomputed from memory, the same parameters."""
    return (all(statuses) and len({s["frontier_digest"] for s in statuses}) == 1 and statuses[0]["frontier_digest"] and
            len({s["digest"] for s in statuses}) == 1)


def settle(peers):
    """Pauses all, waits until all hold the same; returns their statuses."""
    for p in peers:
        good("pause", "--home", p.home)

    def look():
        s = [p.running() for p in peers]
        return s if same(s) else None
    try:
        return wait("equal digests", look)
    except AssertionError:
        lines = [f"{p.name}: {json.dumps(p.status())}" for p in peers]
        raise AssertionError("no equal digests:\n" + "\n".join(lines)) from None


def main(tests):
    """Runs the test functions given, each with a folder of its own; argv may name some."""
    n = {"ok": 0, "FAIL": 0, "skip": 0}
    wanted = sys.argv[1:]
    for test in tests:
        name = test.__name__.removeprefix("test_")
        if wanted and name not in wanted:
            continue
        folder = tempfile.mkdtemp(prefix="onebyte-e2e-")
        swarms = []
        began = time.monotonic()

        def swarm(*options, swarms=swarms, folder=folder):
            swarms.append(Swarm(folder, *options))
            return swarms[-1]
        try:
            test(folder, swarm)
            n["ok"] += 1
            print(f"ok {name}", flush=True)
        except Skip as why:
            n["skip"] += 1
            print(f"skip {name}: {why}", flush=True)
        except Exception as e:  # a test may fail in any way
            n["FAIL"] += 1
            traceback.print_exc(file=sys.stdout)
            for s in swarms:
                for p in s.peers:
                    print(f"-- log of {p.name}\n{p.log()[-2000:] if os.path.exists(p.log_path()) else ''}")
            print(f"FAIL {name}: {str(e).splitlines()[0] if str(e) else type(e).__name__}", flush=True)
        finally:
            for s in swarms:
                s.end()
            shutil.rmtree(folder, ignore_errors=True)
        print(f"   {time.monotonic() - began:.1f} s", flush=True)
    print("%d passed, %d failed, %d skipped" % (n["ok"], n["FAIL"], n["skip"]))
    return 1 if n["FAIL"] else 0
