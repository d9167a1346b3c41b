"""One small picture of a run, for a README: success with intervals, and imagined beside real."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from robopolicy.checkpoint import write_atomic
from robopolicy.errors import BadInput
from robopolicy.report.figures import GAP_LIMIT, percent
from robopolicy.report.gather import IMAGINED, REAL, Judged, Run, gather
from robopolicy.report.svg import FAINT, GRID, INK, PALETTE

_SHAPES = ("o", "s", "D")
_PLACES = {REAL: "real", IMAGINED: "imagined"}


def summary_png(run_dir: Path, out: Path) -> Path:
    """Draws the success of a run; the same run gives the same bytes.

    Args:
        run_dir: folder of a demo, of an evaluation, or of stage folders.
        out: the PNG file.

    Returns:
        `out`.

    Raises:
        BadInput: if there is nothing to draw, or a file of the run cannot be used; nothing is written.
    """
    run = gather(run_dir)
    if out.is_dir():
        raise BadInput("out", "a file", f"{out} (a folder)")
    # A Figure of its own: pyplot would keep it in a global list and may ask for a display.
    figure = Figure(figsize=(8.4, 3.5), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    pairs = _pairs(run)
    if pairs:
        bars, gap = figure.subplots(1, 2, width_ratios=(1.45, 1))
        _draw_gap(gap, run, pairs)
    else:
        bars = figure.subplots()
    _draw_bars(bars, run)
    picture = BytesIO()
    canvas.print_png(picture, metadata={"Software": None})
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, picture.getvalue())
    return out


def _pairs(run: Run) -> list[tuple[Judged, Judged]]:
    """Real and imagined success of each policy that was judged in both."""
    return [
        (real, imagined)
        for label in run.labels
        if (real := run.rate(label, REAL)) and (imagined := run.rate(label, IMAGINED))
    ]


def _colour(run: Run, label: str) -> str:
    return PALETTE[run.labels.index(label) % len(PALETTE)]


def _draw_bars(axes: Axes, run: Run) -> None:
    names = []
    for row, j in enumerate(run.judged):
        colour = _colour(run, j.label)
        fill, hatch = ("white", "////") if j.where == IMAGINED else (colour, "")
        axes.barh(row, j.rate, 0.55, edgecolor=colour, facecolor=fill, hatch=hatch)
        # White below the whisker keeps it visible inside a bar of any colour.
        for width, paint in ((4.5, "white"), (1.8, INK)):
            axes.plot([j.low, j.high], [row, row], color=paint, linewidth=width)
        axes.text(1.03, row, f"{percent(j.rate)} of {j.episodes}", va="center", color=INK)
        names.append(f"{j.label}, {_PLACES[j.where]}")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    _percents(axes, axes.xaxis)
    axes.set_xlabel("success, with 95% Wilson interval")
    axes.tick_params(axis="y", length=0)


def _draw_gap(axes: Axes, run: Run, pairs: list[tuple[Judged, Judged]]) -> None:
    g = GAP_LIMIT
    axes.fill_between([0, 1], [-g, 1 - g], [g, 1 + g], color=GRID, linewidth=0)
    axes.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1)
    for n, (real, imagined) in enumerate(pairs):
        colour = _colour(run, real.label)
        axes.plot([imagined.low, imagined.high], [real.rate] * 2, color=colour)
        axes.plot([imagined.rate] * 2, [real.low, real.high], color=colour)
        axes.plot(
            imagined.rate,
            real.rate,
            color=colour,
            marker=_SHAPES[n % len(_SHAPES)],
            markersize=7,
            linestyle="",
            label=real.label,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="imagined success", ylabel="real success")
    _percents(axes, axes.xaxis, axes.yaxis)
    axes.legend(loc="upper left", frameon=False)


def _percents(axes: Axes, *scales: Axis) -> None:
    """Percentages at quarters, and no box around."""
    for scale in scales:
        scale.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0%", "25%", "50%", "75%", "100%"])
    axes.spines[["top", "right"]].set_visible(False)
