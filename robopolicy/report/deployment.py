"""One self-contained HTML page of a deployment: what the arm was told, what the gate did, what came late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from robopolicy.checkpoint import write_atomic
from robopolicy.errors import BadInput
from robopolicy.report.svg import FAINT, PALETTE, Axis, Plot, around

_LONGEST = 1500
_BINS = 24
_SHOWN = 200  # changes of the gate's state


@dataclass(frozen=True)
class Deployed:
    """A deployment, as its log tells it.

    Attributes:
        robot: name of the arm.
        times: (N,) seconds since the log began, of each command.
        commands: (N, A) what was commanded; NaN before an action was for the first time.
        names: of the actions.
        low: (A,) limits of a command.
        high: (A,) the same.
        chunk_ms: age of the observation when its chunk came, of each.
        changes: seconds, mode, and reason if there was one, whenever either changed.
        counts: how often what happened.
    """

    robot: str
    times: np.ndarray
    commands: np.ndarray
    names: Sequence[str]
    low: np.ndarray
    high: np.ndarray
    chunk_ms: Sequence[float]
    changes: Sequence[tuple[float, str, str]]
    counts: Mapping[str, int]


def deployment_page(deployed: Deployed, out: Path) -> Path:
    """Writes the page; returns `out`.

    Raises:
        BadInput: if nothing was commanded.
    """
    if not len(deployed.times):
        raise BadInput("log", "at least one command", "none")
    loader = PackageLoader("robopolicy.report")
    env = Environment(autoescape=True, undefined=StrictUndefined, loader=loader, trim_blocks=True)
    drawn = [_command(deployed, i) for i in range(len(deployed.names))]
    html = env.get_template("deployment.html").render(
        deployed=deployed,
        commands=drawn,
        latency=_latency(deployed.chunk_ms),
        changes=deployed.changes[:_SHOWN],
        left_out=max(len(deployed.changes) - _SHOWN, 0),
        seconds=float(deployed.times[-1] - deployed.times[0]),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, html.encode())
    return out


def _command(deployed: Deployed, i: int) -> str:
    """One action over time, with its limits."""
    there = np.isfinite(deployed.commands[:, i])
    times, values = deployed.times[there], deployed.commands[there, i]
    name, low, high = deployed.names[i], float(deployed.low[i]), float(deployed.high[i])
    if not len(values):
        return ""
    keep = np.unique(np.linspace(0, len(values) - 1, _LONGEST).astype(int))
    times, values = times[keep], values[keep]
    # Limits far outside would press the command flat: then only the command is drawn.
    spread = float(np.ptp(values)) or 1e-3
    near = [x for x in (low, high) if abs(x - values.mean()) < 20 * spread]
    axis = around([*values.tolist(), *near], name)
    alt = f"Between {values.min():.3g} and {values.max():.3g}; limits {low:.3g} and {high:.3g}."
    plot = Plot(name, alt, Axis(float(times[0]), float(times[-1]) + 1e-6, "seconds"), axis, left=60)
    plot.line(times.tolist(), values.tolist(), PALETTE[1], width=1.4)
    for limit in near:
        plot.line([float(times[0]), float(times[-1])], [limit] * 2, PALETTE[0], "4 3", 1.4)
    plot.legend("commanded", PALETTE[1])
    if near:
        plot.legend("limit", PALETTE[0], "dash")
    return plot.svg()


def _latency(chunk_ms: Sequence[float]) -> str:
    """How old observations were when their chunks came."""
    if not chunk_ms:
        return ""
    count, edges = np.histogram(chunk_ms, _BINS)
    p50, p99 = np.percentile(chunk_ms, [50, 99])
    alt = f"Half came within {p50:.1f} ms, 99 in 100 within {p99:.1f} ms."
    x = Axis(float(edges[0]), float(edges[-1]) or 1.0, "age of the observation when its chunk came, ms")
    plot = Plot("Latency", alt, x, Axis(0, float(count.max()) * 1.05, "chunks"), left=56)
    for n, left, right in zip(count.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        plot.band([left, right], [0, 0], [n, n], PALETTE[1])
        plot.line([left, left, right, right], [0, n, n, 0], PALETTE[1], width=1)
    for value, name in ((p50, "median"), (p99, "99 %")):
        plot.line([float(value)] * 2, [0, float(count.max())], FAINT, "4 3", 1)
        plot.text(float(value), float(count.max()), name, dx=3, dy=10)
    return plot.svg()
