#!/usr/bin/env python3
"""Makes build/venv with the libraries that the reference checks compare with (requirements.txt), as far as that works here.

    tests/reference/install.py [--venv build/venv] [--limit SECONDS]

Never fails and never hangs: exit code 0 within the limit, whatever the network does.  VENV.state then says in one line
"complete", or what is missing and why; the checks skip with that line.  With the CPU-only torch out of reach (it lies on
an index of its own) the rest is installed: tokenizers and chat templates are still compared.  A venv that is there already
is only looked at.
"""
import argparse
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
NEEDS_BYTES = 3 << 30  # torch unpacked, pip's copies while it works, and room to spare
NEEDS_TORCH = ("torch", "peft", "transformers")


class Failed(Exception):
    pass


def pins():
    lines = (HERE / "requirements.txt").read_text().splitlines()
    return dict(re.match(r"([a-z0-9]+)==(\S+)", line).groups() for line in lines if line and line[0] != "#")


def run(deadline, *command):
    """Runs it in a process group of its own; all of it is gone at the deadline."""
    left = deadline - time.monotonic()
    if left <= 1:
        raise Failed("no time left")
    p = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         text=True, errors="replace", start_new_session=True)
    try:
        out, _ = p.communicate(timeout=left)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        p.communicate()
        raise Failed("it took too long") from None
    if p.returncode:
        lines = [line for line in out.splitlines() if line.strip() and not line.startswith(("WARNING", "[notice]"))]
        raise Failed((lines or ["exit code %d" % p.returncode])[-1][:200])


def have(venv):
    """name -> version of what lies in the venv, from its metadata alone."""
    found = {}
    for path in venv.glob("lib/python3*/site-packages/*.dist-info"):
        name, _, version = path.name[:-len(".dist-info")].partition("-")
        found[name.lower()] = version
    return found


def missing(venv):
    found = have(venv)
    return [name for name in pins() if name not in found]


def install(venv, deadline):
    venv.parent.mkdir(parents=True, exist_ok=True)
    if venv.is_symlink():
        raise Failed("%s is a link to %s, which lacks %s" % (venv, os.readlink(venv), ", ".join(missing(venv))))
    if shutil.disk_usage(venv.parent).free < NEEDS_BYTES:
        raise Failed("less than %d GiB of disk left" % (NEEDS_BYTES >> 30))
    try:
        run(deadline, sys.executable, "-m", "venv", venv)
    except Failed as why:
        raise Failed("python3 -m venv: %s (make deps installs python3-venv)" % why) from None
    wanted = ["%s==%s" % pin for pin in pins().items()]
    pip = [venv / "bin/python", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--only-binary", ":all:",
           "--retries", "1", "--timeout", "15"]
    try:  # the local version "+cpu" can never match PyPI's own wheel
        run(deadline - 60, *pip, "--extra-index-url", TORCH_INDEX, *wanted)
        run(deadline, venv / "bin/python", "-c", "import torch, transformers, peft, tokenizers, safetensors")
    except Failed as why:
        print("reference: no torch (%s): tokenizers alone" % why, flush=True)
        run(deadline, *pip, *(w for w in wanted if not w.startswith(NEEDS_TORCH)))
        run(deadline, venv / "bin/python", "-c", "import tokenizers, jinja2")
        return "torch: %s" % why
    return None


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--venv", type=pathlib.Path, default=HERE.parent.parent / "build/venv")
    p.add_argument("--limit", type=float, default=240)
    a = p.parse_args()
    state, start = a.venv.with_name(a.venv.name + ".state"), time.monotonic()
    try:
        if (a.venv / "bin/python").exists() and not missing(a.venv):
            why = None
        else:
            if a.venv.exists() and not a.venv.is_symlink():
                shutil.rmtree(a.venv)
            print("reference: installing %s into %s, at most %d s" % (", ".join(pins()), a.venv, a.limit), flush=True)
            why = install(a.venv, start + a.limit)
    except (Failed, OSError) as e:
        why = str(e)
    try:
        state.parent.mkdir(parents=True, exist_ok=True)
        state.write_text((why.replace("\n", " ") if why else "complete") + "\n")
    except OSError as e:
        print("reference: %s" % e)
    print("reference: %s, %.0f s" % (why or "complete", time.monotonic() - start))
    return 0


if __name__ == "__main__":
    sys.exit(main())
