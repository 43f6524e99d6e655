#!/usr/bin/env python3
"""What compilers do not check: layers, banned calls and flags, function and file length.  Exit 1 on any finding."""
import re
import subprocess
import sys

FUNCTION_LINES, FILE_LINES = 90, 900
BANNED = r"\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|alloca|rand|srand|system)\s*\("
FLAGS = r"-Ofast|-ffast-math|--use_fast_math|-march=native"


def files(*patterns):
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", *patterns], capture_output=True, text=True, check=True)
    return sorted(out.stdout.split())


def functions(text):
    """(name, first line, lines) of every function: a line that starts a body with `{` in column 0 up to `}` in column 0."""
    lines = text.split("\n")
    for i, line in enumerate(lines):
        if line == "{":
            end = next((j for j in range(i + 1, len(lines)) if lines[j].startswith("}")), None)
            if end is not None and lines[end] == "}":
                head = next((lines[j] for j in range(i - 1, max(-1, i - 8), -1) if "(" in lines[j] and not lines[j].startswith(" ")), "?")
                m = re.search(r"(\w+)\(", head)
                yield (m.group(1) if m else "?"), i + 1, end - i + 1


def main():
    found = []
    for path in files("*.c", "*.h", "*.cu", "*.cuh"):
        with open(path, encoding="utf-8") as f:
            text = f.read()
        n_lines = text.count("\n")
        if path.split("/")[0] in ("zo", "net", "peer") and n_lines > FILE_LINES:
            found.append("%s: %d lines (at most %d)" % (path, n_lines, FILE_LINES))
        for i, line in enumerate(text.split("\n"), 1):
            if re.search(BANNED, line) and path.split("/")[0] not in ("tests", "bench"):
                found.append("%s:%d: banned call: %s" % (path, i, line.strip()))
            if path.split("/")[0] == "zo" and re.search(r'#include [<"](onebyte/)?net/', line):
                found.append("%s:%d: zo includes net" % (path, i))
            if path.split("/")[0] == "net" and re.search(r'#include [<"](onebyte/)?zo/', line):
                found.append("%s:%d: net includes zo" % (path, i))
            if "zmq.h" in line and line.startswith("#include") and not re.match(r"net/transport|tests/|bench/", path):
                found.append("%s:%d: zmq.h outside net/transport" % (path, i))
            if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
                found.append("%s:%d: unfinished place" % (path, i))
        for name, first, n in functions(text):
            if n > FUNCTION_LINES and path.split("/")[0] in ("zo", "net", "peer"):
                found.append("%s:%d: %s has %d lines (at most %d)" % (path, first, name, n, FUNCTION_LINES))
    for path in files("Makefile", "*.mk", "*.sh"):
        with open(path, encoding="utf-8") as f:
            for i, line in enumerate(f, 1):
                if re.search(FLAGS, line):
                    found.append("%s:%d: banned flag" % (path, i))
    print("\n".join(found) if found else "lint.py: nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
