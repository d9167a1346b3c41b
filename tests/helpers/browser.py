"""A real browser, where there is one: how a page lies in windows of different widths."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=5000",
)
# Runs beside the page, which is in a frame as wide as a telephone or a desktop.
_MEASURE = """
const page = document.getElementById("page").contentDocument, root = page.documentElement;
const written = [...page.querySelectorAll("p, td, th, li, summary, text, h1, h2")];
const texts = written.filter(e => e.textContent.trim());
const size = e => {
  const own = parseFloat(page.defaultView.getComputedStyle(e).fontSize);
  const svg = e.closest("svg");
  return svg ? own * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : own;
};
const wide = [...page.querySelectorAll("body *")].filter(e => {
  for (let p = e; p; p = p.parentElement)
    if (["auto", "scroll"].includes(page.defaultView.getComputedStyle(p).overflowX)) return false;
  return e.getBoundingClientRect().right > root.clientWidth + 1;
});
const pressed = [...page.querySelectorAll("a[href], summary, button, input, [tabindex]")];
document.body.innerHTML = "<pre>" + JSON.stringify({
  width: root.scrollWidth, window: root.clientWidth, smallest: Math.min(...texts.map(size)),
  sticking_out: wide.slice(0, 5).map(e => e.outerHTML.slice(0, 80).replace(/[<>&]/g, " ")),
  unreachable: pressed.filter(e => e.tabIndex < 0).length,
}) + "</pre>";
"""


def seen(page: Path, width: int, folder: Path) -> dict[str, Any]:
    """What the browser says of `page` in a window of `width` pixels.

    Returns:
        "width" of what is laid out and of the "window", the "smallest" letters in pixels, what is
        "sticking_out" to the right, and how many things to press are "unreachable" by keyboard.
    """
    frame = html.escape(page.read_text(), quote=True)
    harness = folder / "harness.html"
    style = f"width:{width}px;height:900px;border:0"
    harness.write_text(
        f'<!doctype html><body><iframe id="page" srcdoc="{frame}" style="{style}"></iframe>'
        f"<script>window.onload = () => {{{_MEASURE}}}</script></body>"
    )
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [str(CHROMIUM), *_FLAGS, profile, "--dump-dom", harness.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    (found,) = re.findall(r"<pre>(\{.*\})</pre>", done.stdout)
    return json.loads(html.unescape(found))
