"""DSRL over a policy that remembers: the whole chain with SEGA, and what it brought in the real simulator.

    python -m benchmarks.policies.steered [--tasks push] [--seeds 41 42 43]

What to remember is learned on a task that can be done by what is seen now: this is about whether steering
handles a memory that goes on from chunk to chunk, in imagination as in the simulator.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.policies.common import compare, pooled
from robopolicy.checkpoint import read_json
from robopolicy.cli import chain
from robopolicy.cli.demo import Demo
from robopolicy.results import RESULT, hardware, versions

RESULTS = Path(__file__).parents[1] / "results" / "policies" / "steered.json"
_KEPT = ("base", "steered", "paired_difference", "gap", "wall_clock_s", "config")


def main() -> None:
    """Runs what is missing."""
    compare(__doc__, RESULTS, ("push",), study, summary)


def study(task: str, seed: int, out: Path) -> dict[str, Any]:
    """What the chain brought."""
    chain.run(Demo(out, task, "sega", seed=seed, processes=1))
    found = read_json(out / RESULT)
    return {k: found[k] for k in _KEPT}


def summary(units: dict[str, Any]) -> dict[str, Any]:
    """The results file: real and imagined success over all units, then the units themselves."""
    rates = {
        name: {where: pooled(u[name][where] for u in units.values()) for where in ("real", "imagined")}
        for name in ("base", "steered")
    }
    return {"schema": 1, **rates, "units": units, "versions": versions(), "hardware": hardware()}


if __name__ == "__main__":
    main()
