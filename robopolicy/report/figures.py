"""The pictures of the page, each from a `Run`; each returns SVG, or nothing where the run lacks the data."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from robopolicy.report.gather import IMAGINED, REAL, Curve, Judged, Run, Shown
from robopolicy.report.svg import FAINT, GRID, INK, PALETTE, WIDTH, Axis, Plot, around, picture

# A world model whose gap is larger than this misleads more than it tells.
GAP_LIMIT = 0.15
_PLACES = {REAL: "real simulator", IMAGINED: "imagined"}
_SHAPES = ("circle", "square", "diamond")
_PANELS = 4
_LONGEST_CURVE = 120


def percent(rate: float) -> str:
    return f"{rate:.0%}" if rate in (0, 1) else f"{rate:.1%}"


def interval(j: Judged) -> str:
    """ "53.3% [45.3%, 61.1%]" """
    return f"{percent(j.rate)} [{percent(j.low)}, {percent(j.high)}]"


def _colour(run: Run, label: str) -> str:
    names = [*run.labels, *(e for e in run.episodes if e not in run.labels)]
    return PALETTE[names.index(label) % len(PALETTE)]


def success_bars(run: Run) -> str:
    """Success with 95% intervals; what is imagined is hatched."""
    row = 42
    x = Axis(0, 1, "success, with 95% Wilson interval", percent=True, ticks=(0, 0.25, 0.5, 0.75, 1))
    alt = "; ".join(
        f"{j.label} in the {_PLACES[j.where]}: {interval(j)}, {j.successes} of {j.episodes} episodes"
        for j in run.judged
    )
    height = row * len(run.judged) + 58
    plot = Plot("Success", alt, x, Axis(0, len(run.judged), ticks=()), height, left=14)
    for mark in x.marks():
        at = plot.at(mark, 0)[0]
        plot.raw(f'<line x1="{at:.1f}" y1="{plot.top}" x2="{at:.1f}" y2="{plot.bottom}" stroke="{GRID}"/>')
    for i, j in enumerate(run.judged):
        plot.raw(_bar(plot, j, plot.top + row * i, _colour(run, j.label)))
    return plot.svg()


def _bar(plot: Plot, j: Judged, top: float, colour: str) -> str:
    left, right = plot.at(0, 0)[0], plot.at(1, 0)[0]
    end, low, high = (plot.at(v, 0)[0] for v in (j.rate, j.low, j.high))
    y, size = top + 18, 16
    width = max(1.0, end - left)
    where = f'x="{left:.1f}" y="{y:.1f}" width="{width:.1f}" height="{size}"'
    if j.where == REAL:
        body = f'<rect {where} fill="{colour}"/>'
    else:
        name = f"hatch{colour[1:]}"
        body = (
            f'<pattern id="{name}" width="6" height="6" patternUnits="userSpaceOnUse"'
            f' patternTransform="rotate(45)"><rect width="6" height="6" fill="{colour}" opacity="0.15"/>'
            f'<line x1="0" y1="0" x2="0" y2="6" stroke="{colour}" stroke-width="3"/></pattern>'
            f'<rect {where} fill="url(#{name})" stroke="{colour}"/>'
        )
    middle = y + size / 2
    whisker = (
        f'<path d="M{low:.1f},{middle}H{high:.1f}M{low:.1f},{middle - 5}v10M{high:.1f},{middle - 5}v10"'
        f' fill="none" stroke="#fff" stroke-width="5"/>'
        f'<path d="M{low:.1f},{middle}H{high:.1f}M{low:.1f},{middle - 5}v10M{high:.1f},{middle - 5}v10"'
        f' fill="none" stroke="{INK}" stroke-width="2"/>'
    )
    name = f'<text x="{left:.1f}" y="{top + 13:.1f}">{escape(f"{j.label}, {_PLACES[j.where]}")}</text>'
    value = (
        f'<text x="{right:.1f}" y="{top + 13:.1f}" text-anchor="end"><tspan font-weight="600">'
        f"{percent(j.rate)}</tspan> of {j.episodes}</text>"
    )
    return body + whisker + name + value


def real_vs_imagined(run: Run) -> str:
    """One point per policy judged in both; on the diagonal imagination tells the truth."""
    pairs = [
        (label, real, imagined)
        for label in run.labels
        if (real := run.rate(label, REAL)) and (imagined := run.rate(label, IMAGINED))
    ]
    if not pairs:
        return ""
    axis = Axis(0, 1, "imagined success", percent=True, ticks=(0, 0.25, 0.5, 0.75, 1))
    alt = "; ".join(
        f"{label}: {percent(r.rate)} real, {percent(i.rate)} imagined, gap {100 * (r.rate - i.rate):+.1f}"
        for label, r, i in pairs
    )
    real_axis = Axis(0, 1, "real success", percent=True, ticks=axis.ticks)
    plot = Plot("Real and imagined success", alt, axis, real_axis, left=56, square=True)
    g = GAP_LIMIT
    plot.band([0, g, 1 - g, 1], [0, 0, 1 - 2 * g, 1 - g], [g, 2 * g, 1, 1], "#8c959f")
    plot.line([0, 1], [0, 1], FAINT, "4 3", 1.5)
    for n, (label, real, imagined) in enumerate(pairs):
        colour, shape = _colour(run, label), _SHAPES[n % len(_SHAPES)]
        plot.line([imagined.low, imagined.high], [real.rate] * 2, colour)
        plot.line([imagined.rate] * 2, [real.low, real.high], colour)
        plot.marker(imagined.rate, real.rate, shape, colour)
        plot.legend(label, colour, shape)
    plot.legend("real = imagined", FAINT, "dash")
    return plot.svg()


def steering_curve(run: Run) -> str:
    """Imagined success over steering steps."""
    if not run.curves.get("steer"):
        return ""
    curve = run.curves["steer"][0]
    best = max(range(len(curve.values)), key=lambda i: (curve.low or curve.values)[i])
    alt = (
        f"Imagined success starts at {percent(curve.values[0])} and is {percent(curve.values[best])} at step "
        f"{curve.steps[best]:g}, where its lower bound is highest."
    )
    steps = Axis(0, max(curve.steps) or 1, "learner steps in imagination")
    rates = Axis(0, 1, "imagined success", percent=True, ticks=(0, 0.25, 0.5, 0.75, 1))
    plot = Plot("Steering", alt, steps, rates, left=56)
    colour = PALETTE[1]
    if curve.low:
        plot.band(curve.steps, curve.low, curve.high, colour)
    plot.line(curve.steps, curve.values, colour)
    plot.marker(curve.steps[best], curve.values[best], "circle", colour)
    plot.legend("with its 95% interval", colour)
    plot.legend("kept", colour, "circle")
    base = run.rate(run.labels[0], IMAGINED)
    if base:
        plot.line([0, steps.high], [base.rate] * 2, PALETTE[0], "4 3")
        plot.legend(f"{base.label}, imagined", PALETTE[0], "dash")
    return plot.svg()


def loss_curve(run: Run, name: str, title: str) -> str:
    """Training loss, averaged over stretches of steps so that its course is visible."""
    curves = [_thinned(c) for c in run.curves.get(name, [])]
    if not curves:
        return ""
    values = [v for c in curves for v in c.values]
    steps = Axis(0, max(max(c.steps) for c in curves) or 1, "updates")
    loss = around(values, "loss")
    if min(values) > 0 and max(values) > 3 * min(values):
        loss = Axis(min(values) / 1.1, max(values) * 1.1, "loss (logarithmic)", log=True)
    alt = f"From {curves[0].values[0]:.3g} to {curves[0].values[-1]:.3g} in {max(curves[0].steps):g} updates."
    plot = Plot(title, alt, steps, loss, left=56)
    for curve in curves:
        plot.line(curve.steps, curve.values, PALETTE[1], width=2 if len(curves) == 1 else 1.2)
    if len(curves) > 1:
        plot.legend(f"each of {len(curves)} ensemble members", PALETTE[1])
    return plot.svg()


def _thinned(curve: Curve) -> Curve:
    if len(curve.steps) <= _LONGEST_CURVE:
        return curve
    parts = np.array_split(np.arange(len(curve.steps)), _LONGEST_CURVE)
    steps, values = ([float(np.asarray(x)[p].mean()) for p in parts] for x in (curve.steps, curve.values))
    return Curve(steps, values, [], [])


def doubt_curve(run: Run) -> str:
    """The world model's doubt along each imagined episode."""
    lines = {name: e.doubt for name, e in run.episodes.items() if e.doubt.size > 1 and e.doubt.any()}
    if not lines:
        return ""
    spec = run.spec
    each = spec.chunk / spec.fps if spec else 1.0
    longest = max(map(len, lines.values()))
    top = max(1.0, max(float(d.max()) for d in lines.values())) * 1.1
    time = Axis(0, (longest - 1) * each, "time in the episode (s)" if spec else "chunk")
    alt = "; ".join(f"{name}: largest {d.max():.2f}, mean {d.mean():.2f}" for name, d in lines.items())
    plot = Plot("Doubt along an episode", alt, time, Axis(0, top, "doubt"))
    plot.line([0, time.high], [1, 1], FAINT, "4 3", 1.5)
    for n, (name, doubt) in enumerate(lines.items()):
        colour = _colour(run, name)
        xs = [i * each for i in range(len(doubt))]
        plot.line(xs, list(doubt), colour)
        for x, y in zip(xs, doubt, strict=True):
            plot.marker(x, float(y), _SHAPES[n % len(_SHAPES)], colour, size=3)
        plot.legend(name, colour, _SHAPES[n % len(_SHAPES)])
    plot.legend("99 of 100 held-out recordings lie below", FAINT, "dash")
    return plot.svg()


def path_strip(run: Run, name: str) -> str:
    """An episode seen from the side: where its points were at a few moments, and the way they went."""
    shown = run.episodes[name]
    points = _points(run)
    if not points or len(shown.states) < 2:
        return ""
    across, low, high = _view(run, points)
    gap, legend = 8, 22
    width = (WIDTH - gap * (_PANELS - 1)) / _PANELS
    scale = width / (high - low)[0]
    height = scale * (high - low)[1]

    def spot(xyz: np.ndarray, left: float) -> str:
        return f"{left + scale * (xyz[across] - low[0]):.1f},{height - scale * (xyz[2] - low[1]):.1f}"

    moments = np.linspace(0, len(shown.states) - 1, _PANELS).round().astype(int)
    parts = []
    for n, moment in enumerate(moments):
        left = n * (width + gap)
        parts.append(f'<rect x="{left:.1f}" width="{width:.1f}" height="{height:.1f}" fill="#f3f5f7"/>')
        for i, where in enumerate(points.values()):
            parts += _trail([spot(s[where], left) for s in shown.states], moment, PALETTE[2 + i % 4], i)
        seconds = moment / run.spec.fps if run.spec else moment
        where = f'x="{left + width / 2:.1f}" y="{height + 15:.1f}"'
        parts.append(f'<text {where} text-anchor="middle">{seconds:.1f} s</text>')
    y = height + 15 + legend
    for i, point in enumerate(points):
        x = 6 + i * 110
        parts.append(_dot(x, y - 4, PALETTE[2 + i % 4], i))
        parts.append(f'<text x="{x + 10}" y="{y}">{escape(point)}</text>')
    ruler = scale * 0.1
    parts.append(f'<path d="M{WIDTH - ruler - 48:.1f},{y - 4}h{ruler:.1f}" stroke="{INK}" stroke-width="2"/>')
    parts.append(f'<text x="{WIDTH}" y="{y}" text-anchor="end">10 cm</text>')
    return picture(f"{name}, seen from the side", _story(shown, points), parts, WIDTH, y + 6)


def _points(run: Run) -> dict[str, slice]:
    """Fields of the state that are positions."""
    if run.spec is None:
        return {}
    names = [f.name for f in run.spec.state if f.role == "point"]
    return {n.removesuffix("_pos").replace("_", " "): run.spec.slice_of(n) for n in names}


def _view(run: Run, points: dict[str, slice]) -> tuple[int, np.ndarray, np.ndarray]:
    """Which horizontal axis shows more, and the corners (2,) of a view that holds every episode."""
    longest = [e.states for e in run.episodes.values() if e.states.size]
    everything = np.concatenate([s[:, where] for s in longest for where in points.values()])
    span = np.ptp(everything, axis=0)
    across = int(np.argmax(span[:2]))
    low, high = everything[:, [across, 2]].min(0), everything[:, [across, 2]].max(0)
    middle, half = (low + high) / 2, (high - low) / 2
    # Room for the markers, and a shape that is neither a ribbon nor a tower.
    half = np.maximum(half * 1.15, [1e-3 + half[1] / 1.6, 1e-3 + half[0] / 1.6])
    return across, middle - half, middle + half


def _trail(spots: Sequence[str], moment: int, colour: str, index: int) -> list[str]:
    x, y = (float(v) for v in spots[moment].split(","))
    line = f'fill="none" stroke="{colour}"'
    return [
        f'<polyline points="{" ".join(spots)}" {line} opacity="0.25"/>',
        f'<polyline points="{" ".join(spots[: moment + 1])}" {line} stroke-width="2"/>',
        _dot(x, y, colour, index),
    ]


def _dot(x: float, y: float, colour: str, index: int) -> str:
    if index % 2:
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{colour}"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'


def _story(shown: Shown, points: dict[str, slice]) -> str:
    parts = []
    for name, where in points.items():
        first, last = shown.states[0, where], shown.states[-1, where]
        parts.append(f"{name} ends {100 * (last[2] - first[2]):+.0f} cm higher than it began")
    return "; ".join(parts)
