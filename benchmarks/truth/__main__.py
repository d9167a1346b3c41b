"""The study behind the README's claim: does what improves, or ranks higher, in imagination do so for real?

    python -m benchmarks.truth [--tasks lift push ...] [--seeds 38 39 40] [--workers 2]

A unit is one task with one master seed. What it found is written to benchmarks/results/truth/ when it
ends; units that have such a file are skipped, so that the study goes on where it stopped, on another machine
too. With --what, units are asked for the reference in the real simulator, how true the world model is after
its refresh, what other ways of steering and the parts of the world model are worth; a unit whose runs are not
here is run again first. At the end, or with --summary alone, all of them are summed up in
benchmarks/results/truth.json.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from benchmarks.truth.extras import write_reference, write_refreshed, write_steering
from benchmarks.truth.summary import REFERENCES, REFRESHED, STEERING, UNITS, WORLDS, summarise
from benchmarks.truth.unit import Unit, write_study
from benchmarks.truth.worlds import write_worlds
from sim.tasks import MANIPULATION

# Nothing was chosen on these.
SEEDS = (38, 39, 40)
WHAT = {
    "units": (write_study, UNITS),
    "reference": (write_reference, REFERENCES),
    "refreshed": (write_refreshed, REFRESHED),
    "steering": (write_steering, STEERING),
    "worlds": (write_worlds, WORLDS),
}


def main() -> None:
    """Runs the missing units, several at a time, and the summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=sorted(MANIPULATION), default=list(MANIPULATION))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/truth"))
    parser.add_argument("--what", choices=list(WHAT), default="units", help="the study, or more of its units")
    parser.add_argument("--summary", action="store_true", help="of what is there; run nothing")
    args = parser.parse_args()
    work, folder = WHAT[args.what]
    missing = [
        Unit(task, seed, args.runs)
        for seed in args.seeds
        for task in args.tasks
        if not (folder / f"{task}-{seed}.json").is_file()
    ]
    if missing and not args.summary:
        with ProcessPoolExecutor(args.workers, get_context("spawn"), os.nice, (1,)) as pool:
            running = {pool.submit(work, unit, folder): unit for unit in missing}
            for done in as_completed(running):
                done.result()
                print(f"{running[done].name} done", flush=True)
                summarise()
    summarise()


if __name__ == "__main__":
    main()
