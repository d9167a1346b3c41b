"""SIGKILL at random moments: what is run again comes to what was never cut off, to the last bit.

    python -m benchmarks.kills [--kills 200]

collect, train, train-world, steer and imagine, in turns, at tiny sizes. Each is killed with everything it
started at a random moment of the time it takes, often more than once, and run again with the same command
until it is through. "lost" counts those whose artefact or result differs from the undisturbed one, that
refuse to go on, or that leave something behind in their folder. A verb runs in a process forked from one that
has imported everything, so that kills hit its work and not the imports of Python.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import time
from collections.abc import Callable
from itertools import count
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from robopolicy.checkpoint import folder_hash, read_json, write_json
from robopolicy.results import RESULT, hardware, versions
from robopolicy.seeding import stream

RESULTS = Path(__file__).parent / "results" / "faults.json"
RUNS = Path("runs/kills")
SEED = 61
_FORKED = get_context("forkserver")
_IMPORTED = [
    "robopolicy.policies.train",
    "robopolicy.data.writer",
    "world_models.train",
    "robopolicy.steering.steer",
]
# So often the same run is killed at most; then it is let through.
_MOST = 3
_MEASURED = ("wall_clock_s", "peak_memory_mb", "config", "seconds", "steps_per_s")
VERBS = {
    "collect": "collect --task count --episodes 24 --processes 1",
    "train": "train --dataset {ready}/collect --preset tiny --steps 400",
    "train-world": "train-world --dataset {ready}/collect --preset tiny --processes 1",
    "steer": "steer --world {ready}/train-world --policy {ready}/train --dataset {ready}/collect"
    " --preset tiny",
    "imagine": "imagine --world {ready}/train-world --policy {ready}/train --episodes 192 --processes 1",
}


def main() -> None:
    """Runs all and writes what came of them beside the faults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    wanted = parser.parse_args().kills
    console, rng = Console(), stream(SEED, "kills")
    _FORKED.set_forkserver_preload(_IMPORTED)
    forkserver.ensure_running()
    shutil.rmtree(RUNS, ignore_errors=True)
    RUNS.mkdir(parents=True)
    # The first process waits for the imports, which are not to be killed.
    first = _FORKED.Process(target=int)
    first.start()
    first.join()
    took = {verb: _undisturbed(verb) for verb in VERBS}
    counts: dict[str, dict[str, int]] = {verb: {"runs": 0, "kills": 0, "lost": 0} for verb in VERBS}
    for number in count():
        done = sum(c["kills"] for c in counts.values())
        if done >= wanted:
            break
        if not number % len(VERBS):
            console.print(f"{done} of {wanted} kills")
        verb = list(VERBS)[number % len(VERBS)]
        found, out = counts[verb], RUNS / "killed" / f"{verb}-{number}"
        kills, difference = _disturbed(verb, out, took[verb], rng.uniform)
        found["runs"] += 1
        found["kills"] += kills
        found["lost"] += bool(difference)
        if difference:
            console.print(f"{out}: {difference}")
        else:
            shutil.rmtree(out)
    total = {k: sum(c[k] for c in counts.values()) for k in ("runs", "kills", "lost")}
    console.print(total, counts)
    result = {**total, "verbs": counts, "seconds": took, "versions": versions(), "hardware": hardware()}
    write_json(RESULTS, {**read_json(RESULTS), "kills": result})


def _undisturbed(verb: str) -> float:
    """Makes what the others are compared with; seconds that it takes, Python's start left out."""
    out = RUNS / "ready" / verb
    began = time.perf_counter()
    process = _started(verb, out)
    process.join()
    if process.exitcode:
        raise SystemExit(f"{verb} fails by itself")
    return time.perf_counter() - began


def _disturbed(
    verb: str, out: Path, seconds: float, uniform: Callable[[float, float], float]
) -> tuple[int, str]:
    """How often one run was killed, and what is wrong with what came out of it."""
    kills = 0
    while True:
        process = _started(verb, out)
        process.join(uniform(0, seconds) if kills < _MOST else None)
        if process.exitcode is None:
            _killed(process.pid)
            process.join()
        if process.exitcode == -signal.SIGKILL:
            kills += 1
            continue
        # One that was through before its first kill is done once more.
        if not kills:
            shutil.rmtree(out)
            continue
        return kills, f"ended with code {process.exitcode}" if process.exitcode else _difference(verb, out)


def _started(verb: str, out: Path) -> Any:
    line = f"{VERBS[verb].format(ready=RUNS / 'ready')} --out {out}"
    process = _FORKED.Process(target=_run, args=(line, RUNS / "log.txt"))
    process.start()
    return process


def _run(line: str, log: Path) -> None:
    from robopolicy.cli import main

    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    raise SystemExit(main(line.split()))


def _killed(pid: int) -> None:
    """Kills a process and all that it started."""
    try:
        process = psutil.Process(pid)
        everyone = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:  # it has just ended by itself
        return
    for process in everyone:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue


def _difference(verb: str, out: Path) -> str:
    """What differs from the undisturbed run; empty if nothing does."""
    ready = RUNS / "ready" / verb
    names, wanted = ({str(p.relative_to(r)) for p in r.rglob("*") if p.is_file()} for r in (out, ready))
    if names != wanted:
        return f"files {sorted(names ^ wanted)}"
    if verb != "imagine" and folder_hash(out) != folder_hash(ready):
        return f"hash {folder_hash(out)}, not {folder_hash(ready)}"
    mine, theirs = (_found_out(read_json(folder / RESULT)) for folder in (out, ready))
    differing = [k for k in theirs if mine.get(k) != theirs[k]]
    return f"result: {', '.join(differing)}" if differing else ""


def _found_out(result: dict[str, Any]) -> dict[str, Any]:
    """What a result says, without what the run took and where it lies."""
    rows = [{k: v for k, v in row.items() if k not in _MEASURED} for row in result.get("policies", [])]
    return {k: v for k, v in result.items() if k not in _MEASURED} | {"policies": rows}


if __name__ == "__main__":
    main()
