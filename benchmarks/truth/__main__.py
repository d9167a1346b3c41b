"""The study behind the README's claim: does what improves, or ranks higher, in imagination do so for real?

    python -m benchmarks.truth [--tasks lift push ...] [--seeds 20 21 22] [--workers 2]

A unit is one task with one master seed. What it found is written to benchmarks/results/truth/ when it
ends; units that have such a file are skipped, so that the study goes on where it stopped, on another machine
too. With --extras, finished units whose runs are still there are asked for the reference in the real
simulator and for what each part of steering is worth. At the end, or with --summary alone,
benchmarks/results/truth.json is made of them all.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from benchmarks.truth.extras import write_extras
from benchmarks.truth.summary import EXTRAS, UNITS, summarise
from benchmarks.truth.unit import Unit, write_study
from sim.tasks import TASKS

# Nothing was chosen on these.
SEEDS = (30, 31, 32)


def main() -> None:
    """Runs the missing units, several at a time, and the summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=sorted(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/truth"))
    parser.add_argument("--extras", action="store_true", help="reference and ablations of finished units")
    parser.add_argument("--summary", action="store_true", help="of what is there; run nothing")
    args = parser.parse_args()
    work, folder = (write_extras, EXTRAS) if args.extras else (write_study, UNITS)
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
