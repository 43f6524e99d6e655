#!/usr/bin/env python3
"""What a peer says of itself: status in words and as JSON, pause and resume, its service manager, the log's lines."""
import json
import os
import re
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import call, good, good_json, main, wait  # noqa: E402


def names_of(value, name=""):
    """{"bytes.sent", "peers[].id", ...}: the names of all plain fields."""
    if isinstance(value, dict):
        return set().union(*(names_of(v, f"{name}.{k}" if name else k) for k, v in value.items()))
    if isinstance(value, list):
        return set().union({f"{name}[]"} if not value else set(), *(names_of(v, f"{name}[]") for v in value))
    return {name}


def test_json_is_documented(folder, swarm):
    """Every field that a running or a stopped peer prints is in the man page, and the man page promises nothing else."""
    man = good("help", "--man", "status")
    told = set(re.findall(r"^\.B ([a-z][\w.\[\]\\-]*)$", man[man.index(".SH JSON"):], re.M))
    told = {t.replace("\\-", "-") for t in told}
    s = swarm("--public")
    a = s.peer("a", "--checkpoint-every", 1).start()  # not the owner's home: none is made
    b = s.peer("b", "--connect", a.address(), "--connect", "127.0.0.1:1").start()
    x = b.wait_status("a link and a failure", lambda x: len(x["peers"]) == 2 and x["records"]["own"] > 0)
    x["checkpoint"] = {"number": 1, "frontier_digest": "", "state": ""}  # as with an owner's
    x["eval"]["points"] = [dict.fromkeys("number step loss accuracy examples total terms nonfinite reporters compared spread".split(), 0)]
    sums = {k: x["audit"][k] for k in ("records", "off", "unsure", "not_audited")}
    x["audit"]["machines"] = [{"machine": "", **sums}]
    seen = names_of(x) | {"history[]"}
    assert seen - told == set() and told - seen == set(), (seen - told, told - seen)
    b.end()
    y = b.status()
    assert y["running"] is False and names_of(y) - told - {"checkpoint", "peers[]", "eval", "audit", "refused", "eval.points[]", "audit.machines[]"} == set(), names_of(y) - told
    assert y["records"]["own"] >= x["records"]["own"] and y["contributing"] is False


def test_text(folder, swarm):
    """In 80 columns: the run, this machine and its share, linked peers with their round trips, failed ones with the reason."""
    s = swarm("--name", "trial")
    a = s.peer("a").start()
    b = s.peer("b", "--connect", a.address(), "--connect", "127.0.0.1:1").start()
    b.wait_status("records of both", lambda x: x["records"]["folded"] > x["records"]["own"] > 0 and len(x["peers"]) == 2 and
                  x["peers"][0]["rtt_ms"] and x["peers"][0]["lag_steps"] is not None)
    x, text = b.running(), good("status", "--home", b.home)
    lines = text.splitlines()
    assert lines[0] == f"run trial  {x['run_id'][:16]}", text
    assert any(re.match(r"  step +\d+ of \d+ \(", line) for line in lines), text
    assert any(re.match(r"  records +\d+ own \(\d+\.\d % of the run\), \d+ folded$", line) for line in lines), text
    linked = [line for line in lines if re.match(r"  [0-9a-f]{8}  127\.0\.0\.1:\d+ +out +\d+ +\d+ +<?[\d.]+ ms +[\d.]+ k?B +[\d.]+ k?B$", line)]
    assert len(linked) == 1, text
    assert "not reached" in text and re.search(r"^  127\.0\.0\.1:1: \w", text, re.M), text
    assert max(len(line) for line in lines if not line.startswith("  127.")) <= 80, text
    assert "same records now" in text and ", now " in text, text
    assert b.end() == 0
    text = good("status", "--home", b.home)
    assert "same records at its end" in text and "now" not in text, text
    b.start()
    b.wait_status("started", lambda x: x["share"])
    share = [p.running()["share"] for p in (a, b)]
    assert 0 < share[0] < 1 and 0 < share[1] < 1, share
    solo = swarm().peer("c").start()
    assert solo.wait_status("records", lambda x: x["records"]["own"] > 0)["share"] == 1


def test_pause(folder, swarm):
    """pause takes a duration and says until when; it ends by itself or by resume; nonsense changes nothing."""
    a = swarm().peer("a").start()
    a.wait_status("contributing", lambda x: x["contributing"])
    for wrong in ("2x", "h", "-5", "1.5h", "0", "99999d", "1h 3m", "99999999999999999999999s"):
        code, _, err = call("pause", "--home", a.home, "--", wrong)
        assert code == 2 and len(err.splitlines()) == 1 and "2h" in err, (wrong, code, err)
    assert a.running()["paused_until"] is None
    began = time.time()
    assert "paused until" in good("pause", "1h30m", "--home", a.home)
    x = a.wait_status("the pause", lambda x: not x["contributing"])
    assert -1 <= x["paused_until"] - began - 5400 <= 240, x["paused_until"] - began
    assert re.search(r"because +paused until \d\d:\d\d:\d\d, 90 min from now", good("status", "--home", a.home)) or time.time() - began > 29
    assert call("status", "--check", "--home", a.home)[0] == 0  # its owner wants it so
    good("resume", "--home", a.home)
    assert a.wait_status("going on", lambda x: x["contributing"])["paused_until"] is None
    good("pause", "2s", "--home", a.home)
    a.wait_status("the end of two seconds", lambda x: "the pause is over" in a.log() and x["contributing"])
    good("pause", "--home", a.home)
    assert a.wait_status("a pause without end", lambda x: not x["contributing"])["paused_until"] is None


def test_service_manager(folder, swarm):
    """Type=notify: READY=1 once it takes part, WATCHDOG=1 again and again, STOPPING=1 in the end; over an abstract socket."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.settimeout(240)
    manager.bind(f"\0onebyte-e2e-{os.getpid()}")
    os.environ |= {"NOTIFY_SOCKET": f"@onebyte-e2e-{os.getpid()}", "WATCHDOG_USEC": "400000"}
    try:
        a = swarm().peer("a").start()
    finally:
        del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]
    heard = []

    def hear(what):
        while what not in heard:
            heard.extend(manager.recv(4096).decode().split("\n"))
    hear("READY=1")
    assert a.running(), "ready, but it does not answer"
    heard.clear()
    for _ in range(3):
        heard.clear()
        hear("WATCHDOG=1")
    assert a.end() == 0
    hear("STOPPING=1")
    manager.close()


def test_log_lines(folder, swarm):
    """One line per event: time, level, ev, then key=value; the same as JSON; --log-level holds."""
    s = swarm()
    a = s.peer("a").start()
    b = s.peer("b", "--connect", a.address(), "--connect", "127.0.0.1:1", "--log-format", "json", "--log-level", "debug").start()
    b.wait_status("records", lambda x: x["records"]["folded"] > 0 and "link_up" in b.log() and "dial_failed" in b.log())
    c = s.peer("c", "--connect", "127.0.0.1:1", "--log-level", "error").start()
    c.wait_status("records", lambda x: x["records"]["own"] > 0)
    assert a.end() == b.end() == c.end() == 0
    pair = r'[a-z_]+=("[^"]*"|[^" ]+)'
    for line in a.log().splitlines():
        assert re.match(rf"time=\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ level=(error|warn|info) ev=[a-z_]+( {pair})*$", line), line
    rows = [json.loads(line) for line in b.log().splitlines()]
    assert {"started", "link_up", "dial_failed", "left"} <= {r["ev"] for r in rows}, {r["ev"] for r in rows}
    assert all(list(r)[:3] == ["time", "level", "ev"] for r in rows) and "debug" in {r["level"] for r in rows}
    assert any(isinstance(r.get("step"), int) for r in rows if r["ev"] == "left")
    with open(f"{b.home}/log") as f:
        assert f.read() == b.log()  # the home's log is the same
    assert c.log() == "", c.log()


if __name__ == "__main__":
    sys.exit(main([v for k, v in list(globals().items()) if k.startswith("test_")]))
