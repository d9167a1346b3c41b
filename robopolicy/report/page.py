"""Puts a run's figures and numbers into one HTML file that fetches nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from robopolicy.checkpoint import write_atomic
from robopolicy.errors import BadInput
from robopolicy.report import figures
from robopolicy.report.gather import IMAGINED, REAL, Difference, Run, gather

_COLUMNS = {REAL: "Real", IMAGINED: "Imagined", "gap": "Real \N{MINUS SIGN} imagined"}
# Stage of the chain -> its name and what it does.
_CHAIN = {
    "collect": (
        "Collect",
        "Demonstrations by a scripted expert; later, rollouts of the policy, failures kept.",
    ),
    "train": ("Train", "A diffusion policy learns the demonstrations. From here on it is frozen."),
    "train_world": ("Train world", "A world model learns what happened in all episodes. Then it is frozen."),
    "steer": ("Steer", "The policy's latent noise is chosen by what succeeds in imagination."),
    "evaluate": ("Evaluate", "Base and steered policy on the same held-out seeds, imagined and real."),
}


def make_report(run_dir: Path, out: Path) -> Path:
    """Writes the page of a run.

    Args:
        run_dir: folder of a demo, of an evaluation, or of stage folders.
        out: the HTML file.

    Returns:
        `out`.

    Raises:
        BadInput: if there is nothing to report, or a file of the run cannot be used; nothing is written.
    """
    run = gather(run_dir)
    if out.is_dir():
        raise BadInput("out", "a file", f"{out} (a folder)")
    html = environment().get_template("page.html").render(_context(run))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, html.encode())
    return out


def environment() -> Environment:
    """What turns the templates into pages."""
    loader = PackageLoader("robopolicy.report")
    env = Environment(autoescape=True, undefined=StrictUndefined, loader=loader, trim_blocks=True)
    env.filters |= {"percent": figures.percent, "signed": _signed, "duration": _duration}
    return env


def _context(run: Run) -> dict[str, Any]:
    result = run.result
    drawn = {
        "bars": figures.success_bars(run),
        "gap": figures.real_vs_imagined(run),
        "steer": figures.steering_curve(run),
        "policy": figures.loss_curve(run, "policy", "Policy"),
        "world": figures.loss_curve(run, "world", "World model"),
        "doubt": figures.doubt_curve(run),
    }
    rates = _rates(run)
    strips = {name: figures.path_strip(run, name) for name in run.episodes}
    return {
        "run": run,
        "result": result,
        "title": f"{str(result.get('task', 'run')).capitalize()}: {' and '.join(run.labels)}",
        "version": dict(_flat(result.get("versions"))).get("robopolicy", "of unknown version"),
        # Of those against the first policy; the table has them all.
        "verdicts": [_verdict(run, d) for d in run.differences if d.first == run.differences[0].first],
        "rates": rates,
        "columns": {k: name for k, name in _COLUMNS.items() if any(r[k] is not None for r in rates)},
        "chain": _chain(result),
        "cost": _cost(result),
        "origin": _origin(result),
        "svg": {name: Markup(svg) for name, svg in drawn.items()},
        "strips": {name: Markup(svg) for name, svg in strips.items()},
        "config": json.dumps(result.get("config", {}), indent=2),
    }


def _verdict(run: Run, d: Difference) -> str:
    """What the comparison shows, in a sentence that claims no more than its interval allows."""
    first, second = run.rate(d.first, REAL), run.rate(d.second, REAL)
    spread = f"{_signed(d.mean)} points (95% interval {_signed(d.low)} to {_signed(d.high)})"
    rates = ""
    if first and second:
        rates = f", from {figures.percent(first.rate)} to {figures.percent(second.rate)}"
        rates += f" on the same {second.episodes} held-out seeds"
    if d.low > 0:
        return f"{d.second} succeeds more often than {d.first} in the real simulator{rates}: {spread}."
    if d.high < 0:
        return f"{d.second} succeeds less often than {d.first} in the real simulator{rates}: {spread}."
    return f"No difference between {d.first} and {d.second} is shown in the real simulator{rates}: {spread}."


def _rates(run: Run) -> list[dict[str, Any]]:
    """A row per policy: real, imagined, and how far apart."""
    rows = []
    for label in run.labels:
        real, imagined = run.rate(label, REAL), run.rate(label, IMAGINED)
        gap = real.rate - imagined.rate if real and imagined else None
        rows.append({"label": label, REAL: real, IMAGINED: imagined, "gap": gap})
    return rows


def _chain(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    times = dict(_numbers(result.get("wall_clock_s")))
    return [{"name": n, "what": what, "seconds": times.get(k)} for k, (n, what) in _CHAIN.items()]


def _cost(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Time, speed and memory."""
    rows = [(name or "wall clock", _duration(v)) for name, v in _numbers(result.get("wall_clock_s"))]
    rows += [
        (name.replace("_per_s", " per second"), f"{v:,.10g}") for name, v in _numbers(result.get("speed"))
    ]
    rows += [("peak memory", f"{v:,.0f} MB") for _, v in _numbers(result.get("peak_memory_mb"))]
    return [(name.replace("_", " "), value) for name, value in rows]


def _origin(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Hashes of what was frozen, then versions and hardware."""
    rows = []
    hashes = result.get("hashes")
    for name, value in hashes.items() if isinstance(hashes, Mapping) else ():
        if isinstance(value, Mapping) and {"before", "after"} <= value.keys():
            same = value["before"] == value["after"]
            seen = f"{value['before']}, same after steering" if same else "CHANGED by steering"
            rows.append((f"{name} hash", seen))
        else:
            rows += _flat(value, f"{name} hash")
    for group in ("versions", "hardware"):
        rows += _flat(result.get(group, {}))
    return [(name.replace("_", " "), "none" if value is None else str(value)) for name, value in rows]


def _signed(difference: float) -> str:
    """ "+23.3", in percentage points, with a minus sign as long as the plus sign"""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def _duration(seconds: float) -> str:
    """ "48 s", "3 min 20 s" """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _flat(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """Nested names joined by dots, with their values."""
    if isinstance(value, Mapping):
        return [x for k, v in value.items() for x in _flat(v, f"{path}.{k}" if path else str(k))]
    return [(path, value)]


def _numbers(value: Any) -> list[tuple[str, float]]:
    return [(name, v) for name, v in _flat(value) if isinstance(v, int | float)]
