#!/usr/bin/env python3
"""What is packaged, judged by the tools of others: lintian, promtool, systemd-analyze, man, and the shells.  Absent ones skip."""
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import DEMO, ONEBYTE, Skip, environment, good, main  # noqa: E402


def need(program):
    if not shutil.which(program):
        raise Skip(f"{program} is not installed")


def out_of(*args, **kw):
    p = subprocess.run(args, capture_output=True, text=True, timeout=240, env=environment() | kw.pop("env", {}), **kw)
    assert p.returncode == 0, (args, p.returncode, p.stdout[-2000:], p.stderr[-2000:])
    return p.stdout + p.stderr


def test_lintian(folder, swarm):
    """A package of this binary: not one error, warning or note."""
    need("lintian")
    need("dpkg-deb")
    out_of("sh", "peer/dist/deb.sh", env={"BINARY": ONEBYTE, "BUILD": folder})
    package = next(f"{folder}/{n}" for n in os.listdir(folder) if n.endswith(".deb"))
    found = [line for line in out_of("lintian", "--allow-root", "--fail-on", "none", "-I", package).splitlines()
             if re.match(r"[EWI]: ", line) and "hardening-no-fortify" not in line]
    assert found == [], found
    names = out_of("dpkg-deb", "-c", package)
    assert "./usr/share/doc/onebyte/copyright" in names and "systemd/system/onebyte@.service" in names, names


def test_promtool(folder, swarm):
    need("promtool")
    a = swarm().peer("a", "--metrics", 0).start()
    port = a.wait_status("contributing", lambda x: x["contributing"] and x["loss"] is not None)["metrics"]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    text = opener.open(f"http://127.0.0.1:{port}/metrics", timeout=60).read().decode()
    assert text.count("# TYPE") >= 10
    assert out_of("promtool", "check", "metrics", input=text) == ""
    assert a.end() == 0


def test_library(folder, swarm):
    """Installed, both examples are built and run as they say: two peers agree on a loss in C, a run of the program is replayed; nobody
    sees more of it than its header declares."""
    if not os.path.exists("build/libonebyte.so.1"):
        raise Skip("libonebyte is not installed: make lib builds it")
    os.mkdir(f"{folder}/bin")
    with open(f"{folder}/bin/ldconfig", "w") as f:
        f.write(f"#!/bin/sh\ntouch {folder}/told\n")
    os.chmod(f"{folder}/bin/ldconfig", 0o755)
    path = f"{folder}/bin:{os.environ['PATH']}"
    with open("Makefile") as f:
        needed = re.search(r"^LIBS := (.*)$", f.read(), re.M)[1]
    out_of("sh", "peer/dist/install_lib.sh", needed, env={"PREFIX": "/usr", "DESTDIR": f"{folder}/elsewhere", "PATH": path})
    assert not os.path.exists(f"{folder}/told")
    out_of("sh", "peer/dist/install_lib.sh", needed, env={"PREFIX": f"{folder}/usr", "DESTDIR": "", "PATH": path})
    assert os.path.exists(f"{folder}/told")
    lib, found = f"{folder}/usr/lib", {"PKG_CONFIG_PATH": f"{folder}/usr/lib/pkgconfig"}
    shared = out_of("pkg-config", "--cflags", "--libs", "onebyte", env=found).split()
    static = [*(x for x in shared if x != "-lonebyte"), "-l:libonebyte.a", *out_of("pkg-config", "--libs", *needed.split()).split(), "-lm"]
    for example in ("tune", "replay"):
        for kind, flags in (("shared", shared), ("static", static)):
            out_of("cc", f"tests/examples/{example}.c", *flags, "-o", f"{folder}/{example}-{kind}")
    runs = [out_of(f"{folder}/tune-{kind}", env={"LD_LIBRARY_PATH": lib if kind == "shared" else ""}) for kind in ("shared", "static")]
    for run in runs:
        found = re.fullmatch(r"peer 0: (y = (\S+) x ([+-]\S+)  digest [0-9a-f]{16})\npeer 1: \1\n", run)
        assert found and abs(float(found[2]) - 2) < 0.3 and abs(float(found[3]) + 1) < 0.3, run
    s = swarm()
    a = s.peer("a").start()
    a.wait_status("records", lambda x: x["records"]["own"] >= 256)
    assert a.end() == 0
    out_of(ONEBYTE, "log", "--home", a.home, "--export", f"{folder}/ledger")
    for kind in ("shared", "static"):
        seen = out_of(f"{folder}/replay-{kind}", s.manifest, f"{folder}/ledger", f"{DEMO}/model", env={"LD_LIBRARY_PATH": lib})
        assert seen.strip() == a.last()["digest"], (kind, seen)
    with open(f"{folder}/usr/include/onebyte/tune.h") as f:
        declared = set(re.findall(r"^(?!typedef|[ /]).*\b(onebyte_\w+)\(", f.read(), re.M))
    for seen in (out_of("nm", "-D", "--defined-only", f"{lib}/libonebyte.so.1"), out_of("nm", "-g", "--defined-only", f"{lib}/libonebyte.a")):
        assert set(re.findall(r"^[0-9a-f]+ \w (\S+)$", seen, re.M)) == declared, (seen, declared)


def test_units(folder, swarm):
    """The system unit exposes little, by systemd's own measure; both say what kind of service they are."""
    need("systemd-analyze")
    text = out_of("systemd-analyze", "security", "--offline=true", "peer/dist/onebyte@.service")
    level = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", text)[1])
    assert level < 3, text
    for unit in ("onebyte.service", "onebyte@.service"):
        with open(f"peer/dist/{unit}") as f:
            lines = f.read().splitlines()
        assert "Type=notify" in lines and "WatchdogSec=120" in lines, unit
        assert any(line.startswith("RestrictAddressFamilies=") and "AF_NETLINK" in line for line in lines), "ZeroMQ cannot listen"
        shutil.copy(f"peer/dist/{unit}", folder)
        with open(f"{folder}/{unit}") as f:
            text = f.read().replace("/usr/local/bin/onebyte", ONEBYTE).replace("Documentation=man:onebyte(1)\n", "")
        with open(f"{folder}/{unit}", "w") as f:
            f.write(text)
        said = subprocess.run(["systemd-analyze", "verify", "--man=no", f"{folder}/{unit}"], capture_output=True, text=True).stderr
        assert unit.split(".")[0].rstrip("@") not in said, said


def test_manuals(folder, swarm):
    """Every manual without a complaint of the formatter, in 80 columns."""
    need("man")
    for name in ["all", *re.findall(r"^  ([a-z]+) ", good("--help"), re.M)]:
        page = f"{folder}/{name}.1"
        with open(page, "w") as f:
            f.write(good("help", "--man", name))
        said = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page], capture_output=True, text=True,
                              env=environment() | {"MANWIDTH": "80", "LC_ALL": "C.UTF-8", "MANROFFSEQ": ""})
        assert said.returncode == 0 and said.stderr == "", (name, said.stderr)


def completion(folder, shell):
    path = f"{folder}/onebyte.{shell}"
    with open(path, "w") as f:
        f.write(good("help", "--completion", shell))
    return path


def test_bash(folder, swarm):
    need("bash")
    path = completion(folder, "bash")
    script = '. %s; COMP_WORDS=(onebyte %s); COMP_CWORD=%d; _onebyte onebyte "%s" ""; echo "${COMPREPLY[@]}"'
    assert out_of("bash", "-c", script % (path, "re", 1, "re")).split() == ["resume", "replay", "retract"]
    assert out_of("bash", "-c", script % (path, "status --w", 2, "--w")).split() == ["--watch"]


def test_zsh(folder, swarm):
    """Loaded by zsh's own completion system on a terminal; a tab completes."""
    need("zsh")
    path = completion(folder, "zsh")
    os.mkdir(f"{folder}/functions")
    os.rename(path, f"{folder}/functions/_onebyte")
    main_fd, side_fd = pty.openpty()
    p = subprocess.Popen(["zsh", "-f", "-i"], stdin=side_fd, stdout=side_fd, stderr=side_fd, cwd=folder, start_new_session=True,
                         env=environment() | {"TERM": "dumb", "HOME": folder, "COLUMNS": "200"})
    os.close(side_fd)
    seen = ""

    def until(text):
        nonlocal seen
        end = time.monotonic() + 120
        while text not in seen:
            assert select.select([main_fd], [], [], max(0, end - time.monotonic()))[0], f"no {text!r} in {seen!r}"
            seen += re.sub(r"[\x07\x08]", "", os.read(main_fd, 65536).decode(errors="replace"))
        seen = ""
    try:
        os.write(main_fd, f"PROMPT=; fpath=({folder}/functions $fpath); autoload -Uz compinit; compinit -u -D; echo rea''dy\n".encode())
        until("ready")
        os.write(main_fd, b"onebyte doc\t")
        until("doctor")
        os.write(main_fd, b"--liste\t")
        until("--listen")
    finally:
        p.kill()
        p.wait()
        os.close(main_fd)


def test_fish(folder, swarm):
    need("fish")
    path = completion(folder, "fish")
    script = f"source {path}; complete -C 'onebyte doc'; echo --; complete -C 'onebyte run --max-up'; echo --; complete -C 'onebyte status --wat'"
    out = out_of("fish", "--no-config", "-c", script, env={"HOME": folder})
    groups = [[line.split("\t")[0] for line in g.split("\n") if line] for g in out.split("--\n")]
    assert "doctor" in groups[0] and "--max-upload" in out and "--watch" in out, out


if __name__ == "__main__":
    sys.exit(main([v for k, v in list(globals().items()) if k.startswith("test_")]))
