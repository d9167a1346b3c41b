"""DSRL over a policy that remembers: the whole chain with SEGA, and what it brought in the real simulator.

    python -m benchmarks.policies.steered [--tasks push] [--seeds 41 42 43]

What to remember is learned on a task that can be done by what is seen now: this is about whether steering
handles a memory that goes on from chunk to chunk, in imagination as in the simulator.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.policies.common import SEEDS, pooled
from robopolicy.checkpoint import read_json, write_json
from robopolicy.cli import chain
from robopolicy.cli.demo import Demo
from robopolicy.results import RESULT, hardware, versions

RESULTS = Path(__file__).parents[1] / "results" / "policies" / "steered.json"
_KEPT = ("base", "steered", "paired_difference", "gap", "wall_clock_s", "config")


def main() -> None:
    """Runs what is missing; writes the results after each unit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["push"])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--runs", type=Path, default=Path("runs/steered"))
    args = parser.parse_args()
    units: dict[str, Any] = read_json(RESULTS)["units"] if RESULTS.is_file() else {}
    for seed in args.seeds:
        for task in args.tasks:
            if (name := f"{task}-{seed}") in units:
                continue
            out = args.runs / name
            chain.run(Demo(out, task, "sega", seed=seed, processes=1))
            found = read_json(out / RESULT)
            units[name] = {k: found[k] for k in _KEPT}
            write_json(RESULTS, summary(units))


def summary(units: dict[str, Any]) -> dict[str, Any]:
    """The results file: real and imagined success over all units, then the units themselves."""
    rates = {
        name: {where: pooled(u[name][where] for u in units.values()) for where in ("real", "imagined")}
        for name in ("base", "steered")
    }
    return {"schema": 1, **rates, "units": units, "versions": versions(), "hardware": hardware()}


if __name__ == "__main__":
    main()
