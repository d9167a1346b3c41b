"""Figures of the policies' pages: how noise becomes an action, success by how far to count and by delay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.policies.summary import HORIZONS
from robopolicy.nets.sampling import Beso, Ddim, Flow, ProcessKind, make_process
from robopolicy.report.svg import FAINT, PALETTE, Axis, Plot

_MODE, _LINES = 0.6, 14
_STEPS: dict[ProcessKind, int] = {"ddim": 8, "beso": 3, "flow": 8}


def paths(kind: ProcessKind) -> str:
    """Noise becoming one of two actions, demonstrated equally often, with the best network there is."""
    steps = _STEPS[kind]
    made = make_process(kind, 100, steps, "sample")
    seen: list[Tensor] = []

    def clean(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """E[c | x = a c + b n] for c = +-0.6 alike and n from N(0, 1)."""
        return _MODE * torch.tanh(_MODE * a * x / b**2)

    def network(x: Tensor, level: Tensor) -> Tensor:
        level = level[:, None, None]
        if isinstance(made, Ddim):
            seen.append(x)
            a = made.scheduler.alphas_cumprod[level]
            return clean(x, a.sqrt(), (1 - a).sqrt())
        if isinstance(made, Flow):
            seen.append(x)
            t = level / 100
            return (x - clean(x, 1 - t, t)) / t
        assert isinstance(made, Beso)
        sigma = made.sigma(level)
        skip, out, inp = made.factors(sigma)
        seen.append(x / inp / sigma.clamp_min(1))  # drawn in units of the noise while that is the larger
        return (clean(x / inp, torch.ones(()), sigma) - skip * x / inp) / out

    share = (torch.arange(_LINES) + 0.5) / _LINES
    last = made.restore(network, torch.distributions.Normal(0, 1).icdf(share).view(-1, 1, 1))
    x = torch.stack([*seen, last])[:, :, 0, 0]
    ticks = tuple(range(0, steps + 1, max(1, steps // 4)))
    calls = Axis(0, steps, "calls of the network", ticks=ticks)
    plot = Plot(
        f"{_LINES} draws of noise become actions",
        f"Which of two actions one becomes depends on the draw alone. {kind}, {steps} steps.",
        calls,
        Axis(-2, 2, "action, normalised"),
    )
    for i in range(_LINES):
        plot.line(range(steps + 1), x[:, i].tolist(), PALETTE[0 if x[-1, i] > 0 else 1])
    return plot.svg()


def horizon(result: Mapping[str, Any]) -> str:
    """Success of SEGA and of a policy without memory against how far has to be counted."""
    rows = {n: result["horizon"][h] for n, h in enumerate(HORIZONS, 1) if h in result["horizon"]}
    plot = Plot(
        "Success against how far to count",
        "Raise the hand at so many signals, at the next go aside.",
        Axis(0.7, len(HORIZONS) + 0.3, "times", ticks=(1, 2, 3)),
        Axis(0, 1, "success", percent=True, ticks=(0, 0.25, 0.5, 0.75, 1)),
    )
    _successes(plot, rows, {"sega": "SEGA", "dp": "without memory", "lstm": "LSTM"})
    # Who cannot count goes aside as often as the demonstrations do, and has to be lucky each time.
    times = range(1, len(HORIZONS) + 1)
    plot.line(times, [(n / (n + 1)) ** n / (n + 1) for n in times], FAINT, "4 3", 1.5)
    plot.legend("by chance", FAINT, "dash")
    return plot.svg()


def delays(result: Mapping[str, Any]) -> str:
    """Success against how late a policy's plans are, by what is done about it."""
    rows = {int(delay): row for delay, row in result["rtc"].items()}
    plot = Plot(
        "Success of a policy whose plans are late",
        "Of each plan eight steps are executed.",
        Axis(-0.5, max(rows) + 0.5, "steps until a plan is there", ticks=tuple(rows)),
        Axis(0, 1, "success", percent=True, ticks=(0, 0.25, 0.5, 0.75, 1)),
    )
    _successes(
        plot, rows, {"foresight": "foresight", "with": "real-time chunking", "without": "standing still"}
    )
    return plot.svg()


def _successes(plot: Plot, rows: Mapping[int, Any], names: Mapping[str, str]) -> None:
    """A line for each of some ways, with intervals, where it has been measured."""
    for index, (way, name) in enumerate(names.items()):
        colour, seen = PALETTE[index], {at: row[way] for at, row in rows.items() if way in row}
        plot.line(list(seen), [rate["rate"] for rate in seen.values()], colour)
        for at, rate in seen.items():
            plot.line([at, at], [rate["low"], rate["high"]], colour, width=1.5)
        plot.legend(name, colour, "circle")
