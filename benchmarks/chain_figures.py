"""Figures of two links of the chain: what imagination gets right, how soon an arm is at rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robopolicy.report.svg import FAINT, PALETTE, Axis, Plot

Row = Mapping[str, Any]


def imagined(truth: Row) -> str:
    """Recorded episodes imagined from their start: which share of failures fails, of successes succeeds."""
    tasks = list(truth["tasks"])
    plot = Plot(
        "Recorded episodes, imagined",
        "For each task, the share of real failures that fail in imagination, and of successes that succeed.",
        Axis(0.5, 1, "imagined as they were", percent=True, ticks=(0.5, 0.6, 0.7, 0.8, 0.9, 1)),
        Axis(-0.5, len(tasks) - 0.5, ticks=()),
        height=46 + 26 * len(tasks),
        left=92,
    )
    kinds = (("failures", "square"), ("successes", "circle"))
    for row, task in enumerate(reversed(tasks)):
        plot.line([0.5, 1], [row, row], FAINT, "1 4", 1)
        plot.text(0.5, row, task, "end", dx=-8, dy=4)
        for index, (kind, shape) in enumerate(kinds):
            share = truth["replay"][task][f"{kind}_as_{kind}"]["rate"]
            plot.marker(share, row, shape, PALETTE[index])
    for index, (name, shape) in enumerate(kinds):
        plot.legend(name, PALETTE[index], shape)
    return plot.svg()


def at_rest(kill: Row) -> str:
    """How soon the arm was at rest after the policy server was killed in motion, sooner ones first."""
    rests = sorted(kill["rests_s"])
    within = kill["within_s"]
    plot = Plot(
        "At rest after the server was killed",
        f"{len(rests)} times in motion; the slowest took {rests[-1]:.2f} s.",
        Axis(0, 1.2 * within, "seconds from the kill to rest"),
        Axis(0, 1, "share of kills", percent=True, ticks=(0, 0.5, 1)),
        height=200,
    )
    plot.line([within, within], [0, 1], FAINT, "4 3", 1.5)
    plot.legend("limit", FAINT, "dash")
    plot.line(rests, [(i + 1) / len(rests) for i in range(len(rests))], PALETTE[1])
    plot.legend("kills", PALETTE[1])
    return plot.svg()
