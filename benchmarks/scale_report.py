"""What `benchmarks.scale` measured, as the tables and the figure of docs/scale.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robopolicy.report.svg import FAINT, PALETTE, Axis, Plot

Row = Mapping[str, Any]

CURVES = {
    "episodes": "episodes evaluated, one worker",
    "environments": "environments imagined at once",
    "demonstrations": "demonstrations read and trained on",
    "parameters": "parameters of the policy",
}
# Episodes of the task that was measured, on so many workers with a core each.
_WANTED, _WORKERS = 10_000, (1, 16, 64, 256)
_NOTHING = "Not measured yet.\n"


def ways(result: Row) -> str:
    """One evaluation wherever it was done."""
    if "same" not in result:
        return _NOTHING
    same = result["same"]
    lines = ["| where | seconds | peak memory | success | fingerprint |", "|---|---|---|---|---|"]
    for where, way in same["ways"].items():
        s = way["success"]
        rate = f"{s['successes']}/{s['episodes']}"
        lines.append(f"| {where} | {way['seconds']:.0f} | {_memory(way)} | {rate} | `{way['metrics']}` |")
    return "\n".join(lines) + "\n"


def growth(result: Row) -> str:
    """How time and memory grow, with the exponents of the last two points."""
    rows = {name: result[name] for name in CURVES if name in result}
    if not rows:
        return _NOTHING
    lines = [
        "| of what | from, to | seconds | memory, MB | growth of time | of memory |",
        "|---|---|---|---|---|---|",
    ]
    for name, c in rows.items():
        counts, seconds, memory, grown = c["counts"], c["seconds"], c["memory_mb"], c["growth"]
        lines.append(
            f"| {CURVES[name]} | {counts[0]:,} to {counts[-1]:,} | {seconds[0]:.3g} to {seconds[-1]:.3g} "
            f"| {memory[0]:,.0f} to {memory[-1]:,.0f} | {grown['seconds']:.2f} | {grown['memory_mb']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def costs(result: Row) -> str:
    """What a demonstration of each task costs."""
    if "tasks" not in result:
        return _NOTHING
    lines = ["| task | steps | core seconds |", "|---|---|---|"]
    lines += [f"| {t} | {r['steps']:.0f} | {r['seconds']:.2g} |" for t, r in result["tasks"].items()]
    return "\n".join(lines) + "\n"


def cluster(result: Row) -> str:
    """What many episodes would take on a cluster: the start of a worker, and its share of the episodes."""
    if "episodes" not in result:
        return _NOTHING
    start, each = _line(result["episodes"])
    lines = ["| workers | hours | of it starting |", "|---|---|---|"]
    for count in _WORKERS:
        seconds = start + each * _WANTED / count
        lines.append(f"| {count} | {seconds / 3600:.2g} | {start / seconds:.0%} |")
    what = f"{_WANTED:,} episodes of {result['config']['task']}"
    about = f"{what}, {start:.0f} s to start a worker and {each:.2g} s"
    return f"{about}\nan episode as measured:\n\n" + "\n".join(lines) + "\n"


def _line(c: Row) -> tuple[float, float]:
    """Least squares: seconds that do not depend on the count, and seconds for each."""
    xs, ys = c["counts"], c["seconds"]
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True)) / sum((x - mx) ** 2 for x in xs)
    return my - slope * mx, slope


def _memory(way: Row) -> str:
    return f"{way['memory_mb'] / 1000:.1f} GB"


def figure(result: Row) -> str:
    """Time against size, both as multiples of the smallest; parallel to the dashed line is linear."""
    curves = {name: result[name] for name in CURVES if name in result}
    widest = max((c["counts"][-1] / c["counts"][0] for c in curves.values()), default=10)
    plot = Plot(
        "How time grows",
        "Seconds against size, each as a multiple of its smallest, on logarithmic axes.",
        Axis(1, widest, "times as many", log=True),
        Axis(0.5, widest, "times as long", log=True),
    )
    plot.line([1, widest], [1, widest], FAINT, "4 3", 1.5)
    plot.legend("linear", FAINT, "dash")
    for index, (name, c) in enumerate(curves.items()):
        xs = [n / c["counts"][0] for n in c["counts"]]
        ys = [s / c["seconds"][0] for s in c["seconds"]]
        plot.line(xs, ys, PALETTE[index])
        for x, y in zip(xs, ys, strict=True):
            plot.marker(x, y, "circle", PALETTE[index], size=3)
        plot.legend(name, PALETTE[index])
    return plot.svg()
