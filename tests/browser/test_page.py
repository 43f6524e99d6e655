#!/usr/bin/env python3
"""The status page and the plot in a real browser (make test-browser): a live run behind them, narrow and wide, light and dark.

Pictures go to build/browser, to be looked at.  Needs Debian's chromium; without it every test skips.
"""
import os
import sys

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e")]
from browser import Browser, find  # noqa: E402
from lib import Skip, good, main  # noqa: E402

LOOKS = [(w, h, dark) for w, h in ((360, 740), (1280, 900)) for dark in (False, True)]
OUT = os.path.abspath("build/browser")

# WCAG contrast of every element that holds text itself, against the nearest ground that is not transparent.
CONTRAST = """(() => {
  const lum = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(x => { x /= 255; return x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4 });
    return .2126 * r + .7152 * g + .0722 * b };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$|transparent/.test(c)) return c } return "rgb(255, 255, 255)" };
  let worst = 99;
  for (const e of document.querySelectorAll("body *")) if ([...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && !["SCRIPT", "STYLE"].includes(e.tagName)) {
    const a = lum(getComputedStyle(e).color), b = lum(ground(e)); worst = Math.min(worst, (Math.max(a, b) + .05) / (Math.min(a, b) + .05)) }
  return worst })()"""

# Texts that stick out of their own box or out of the window.
CUT = """[...document.querySelectorAll("h1, h2, dt, dd, td, th, code, p, span")].filter(e => e.offsetParent && (e.scrollWidth > e.clientWidth + 1 &&
  getComputedStyle(e).display !== "inline" || e.getBoundingClientRect().right > innerWidth + 1)).map(e => e.textContent)"""


def browser():
    program = find()
    if not program:
        raise Skip("chromium is not installed")
    os.makedirs(OUT, exist_ok=True)
    return Browser(program)


def test_page(folder, swarm):
    b = browser()
    try:
        s = swarm("--name", "a run with a <b>name</b>", "--steps", 100000)
        seed = s.peer("seed").start()
        a = s.peer("a", "--metrics", 0, "--connect", seed.address(), "--connect", "127.0.0.1:1").start()
        port = a.wait_status("two peers", lambda x: len(x["peers"]) == 2 and x["records"]["own"] > 0)["metrics"]
        for width, height, dark in LOOKS:
            b.look(width, height, dark)
            b.open(f"http://127.0.0.1:{port}/")
            b.until("document.getElementById('state').textContent === 'Contributing.' && document.querySelectorAll('#peers tr').length === 2")
            b.until("document.getElementById('p1').getAttribute('points')?.split(' ').length > 2")
            name = f"page {width} {'dark' if dark else 'light'}"
            b.shot(f"{OUT}/{name.replace(' ', '-')}.png")
            assert b.js("document.documentElement.scrollWidth <= innerWidth"), f"{name}: scrolls sideways"
            assert b.js(CUT) == [], (name, b.js(CUT))
            assert b.js(CONTRAST) >= 4.5, (name, b.js(CONTRAST))
            assert b.js("document.getElementById('name').textContent") == "a run with a <b>name</b>", name
            shown = b.js("document.body.innerText")
            assert a.running()["machine_id"][:8] in shown and "127.0.0.1:1" in shown and "nothing answers there" in shown, shown
        assert b.js("draw([[0, 1, 2, 3, 4]]); document.getElementById('p2').isPointInStroke(new DOMPoint(0, 96))"), "one sample alone is not seen"
        b.look(360, 740, False)
        b.js("curve({points: [{number: 7, step: 70, loss: 0.25, examples: 600, total: 600, reporters: 2, spread: 0.125}]})")
        shown = b.js("document.getElementById('se').innerText")
        assert all(x in shown for x in ("0.2500 nats", "step 70", "checkpoint 7: 600 of 600 examples by 2 machines, 0.13 nats apart")), shown
        assert b.js(CUT) == [] and b.js("document.getElementById('pe').isPointInStroke(new DOMPoint(0, 96))"), b.js(CUT)
        title = b.js("document.title")
        b.until(f"document.title !== {title!r}")  # live: the step moves
        good("pause", "1h", "--home", a.home)
        b.until("document.getElementById('state').textContent.startsWith('Not contributing: paused until')")
        assert b.complaints() == [], b.complaints()
        assert a.end() == 0
        b.until("document.getElementById('state').textContent.includes('does not answer')")
    finally:
        b.close()


def test_plot(folder, swarm):
    b = browser()
    try:
        s = swarm("--name", "plotted")
        a = s.peer("a").start()
        a.wait_status("records", lambda x: x["records"]["own"] >= 1024)
        assert a.end() == 0
        good("plot", "--home", a.home, "--out", f"{folder}/run.svg")
        for width, height, dark in LOOKS:
            b.look(width, height, dark)
            b.open(f"file://{folder}/run.svg")
            name = f"plot {width} {'dark' if dark else 'light'}"
            assert b.js("document.querySelectorAll('polyline').length") >= 3, name
            out = b.js("[...document.querySelectorAll('text')].filter(t => { const a = t.getBoundingClientRect(), s = document.documentElement"
                       ".getBoundingClientRect(); return a.left < s.left - 1 || a.right > s.right + 1 }).map(t => t.textContent)")
            assert out == [], (name, out)
            b.shot(f"{OUT}/{name.replace(' ', '-')}.png")
        assert b.complaints() == [], b.complaints()
    finally:
        b.close()


if __name__ == "__main__":
    sys.exit(main([v for k, v in list(globals().items()) if k.startswith("test_")]))
