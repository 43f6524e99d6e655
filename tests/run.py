#!/usr/bin/env python3
"""Runs test programs and ends with one line: N passed, N failed, N skipped.

    tests/run.py [--strict] [--jobs N] PROGRAM ...

A PROGRAM is a cmocka binary or a Python script that prints `ok NAME`, `FAIL NAME: why` or `skip NAME: why`
per test.  A program that fails is run once more, alone: if it passes then, it is named FLAKY, with both
outputs.  Every failure is repeated in the last lines, with what the program printed.  --strict (CI): a skip whose
reason is not listed below fails.  A skip's reason is the last line the test printed.
"""
import argparse
import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import time

LIMIT_S = 900
EXPECTED = [  # (pattern of the reason, condition under which it is expected)
    (r"\.\./shared", lambda: not os.path.isdir("../shared/data")),
    (r"no avx\w+ on this CPU|avx2 or OpenBLAS with dynamic cores", lambda: not has_cpu_flags("avx2", "avx512vbmi",
                                                                                          "avx512_vpopcntdq")),
    (r"needs the PyPI packages", lambda: not reference_complete()),
    (r"namespaces are not possible here|no netem in this kernel|no NAT between namespaces|no NAT for namespaces", lambda: True),
    (r"no IPv6 on this machine", lambda: True),
    (r"no nvcc on this machine|needs the emulated device", lambda: True),
    (r"localhost does not resolve here", lambda: True),
    (r"(\w[\w-]*) is not installed", lambda: True),
    (r"no write-ahead log to tear|no file size limit for another process here", lambda: True),
]


def has_cpu_flags(*flags):
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        have = f.read().split()
    return all(flag in have for flag in flags)


def reference_complete():
    """tests/reference/install.py could install everything."""
    try:
        with open("build/venv.state", encoding="utf-8") as f:
            return f.read().strip() == "complete"
    except OSError:
        return False


def expected(reason):
    return any(re.search(p, reason, re.I) and when() for p, when in EXPECTED)


def read_cmocka(out):
    """(passed, failed, skipped as [(name, reason)]) of a cmocka program's output."""
    passed, failed, skipped, running, reason = [], [], [], None, ""
    for line in out.splitlines():
        m = re.match(r"\[\s*(RUN|OK|FAILED|SKIPPED|ERROR)\s*\]\s+(\S+)", line)
        if not m:
            if line.strip():
                reason = line.strip()
            continue
        kind, name = m.group(1), m.group(2)
        if kind == "RUN":
            running, reason = name, ""
        elif name == running:
            if kind == "OK":
                passed.append(name)
            elif kind == "SKIPPED":
                skipped.append((name, reason))
            else:
                failed.append(name)
            running = None
    if running:
        failed.append(running + " (did not end)")
    return passed, failed, skipped


def read_script(out):
    passed = re.findall(r"^ok (\S.*)$", out, re.M)
    failed = re.findall(r"^FAIL (\S.*)$", out, re.M)
    skipped = [tuple(x) for x in re.findall(r"^skip ([^:\n]+):? ?(.*)$", out, re.M)]
    return passed, failed, skipped


def run(program):
    script = program.endswith(".py")
    start = time.monotonic()
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="STDOUT", PYTHONUNBUFFERED="1",
               ASAN_OPTIONS="detect_leaks=1:abort_on_error=0", UBSAN_OPTIONS="print_stacktrace=1",
               TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1")
    command = [sys.executable, program] if script else ["./" + program]
    p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env,
                         start_new_session=True, text=True, errors="replace")
    try:
        out, _ = p.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        out, _ = p.communicate()
        out += "\nstopped: it ran longer than %d s\n" % LIMIT_S
    passed, failed, skipped = (read_script if script else read_cmocka)(out)
    if p.returncode != 0 and not failed:
        failed.append("exit code %d" % p.returncode)
    if not passed and not failed and not skipped:
        failed.append("ran no test")
    return program, passed, failed, skipped, out, time.monotonic() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--strict", action="store_true", default=bool(os.environ.get("STRICT")))
    parser.add_argument("--jobs", type=int, default=max(1, min(4, os.cpu_count() or 1)))
    parser.add_argument("programs", nargs="+")
    args = parser.parse_args()
    n_passed = n_failed = n_skipped = 0
    failures, flaky = [], []

    def report(result):
        nonlocal n_passed, n_failed, n_skipped
        program, passed, failed, skipped, out, seconds = result
        for name, reason in list(skipped):
            print("skip %s %s: %s" % (program, name, reason or "no reason printed"))
            if args.strict and not expected(reason):
                failed.append("%s (unexpected skip: %s)" % (name, reason))
                skipped.remove((name, reason))
        n_passed, n_failed, n_skipped = n_passed + len(passed), n_failed + len(failed), n_skipped + len(skipped)
        print("%-4s %s: %d passed, %d failed, %d skipped, %.1f s" % ("FAIL" if failed else "ok", program, len(passed),
                                                                   len(failed), len(skipped), seconds), flush=True)
        if failed:
            failures.append((program, failed, out))

    small = [p for p in args.programs if not p.endswith(".py")]
    again = []
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for future in concurrent.futures.as_completed([pool.submit(run, p) for p in small]):
            result = future.result()
            (again.append if result[2] else report)(result)
    for p in args.programs:
        if p.endswith(".py"):  # real processes: one script at a time
            result = run(p)
            (again.append if result[2] else report)(result)
    # A noisy machine can fail a test of real processes: one more try, alone, and never silently.
    for result in again:
        second = run(result[0])
        if not second[2]:
            print("\n---- %s: failed, then passed alone ----\n%s" % (result[0], "\n".join(result[4].splitlines()[-60:])))
            flaky.extend("%s %s" % (result[0], name) for name in result[2])
        report(second)
    for program, failed, out in failures:
        print("\n---- %s ----\n%s" % (program, "\n".join(out.splitlines()[-60:])))
        for name in failed:
            print("FAILED %s %s" % (program, name))
    for name in flaky:
        print("FLAKY %s: failed once, passed when run again alone" % name)
    print("%d passed, %d failed, %d skipped" % (n_passed, n_failed, n_skipped))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
