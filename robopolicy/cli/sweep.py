"""`robopolicy sweep`: the same verb with other seeds and settings, many at a time, on one machine or many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from robopolicy.backends import Backend, get_ready, workers
from robopolicy.cli.common import Result, positive, run
from robopolicy.errors import BadInput, RoboPolicyError

_LOGS = "logs"
_LAST_LINES = 3
# Verbs that make something from what is there and say so in a `result.json`.
_SWEPT = ("collect", "train-eye", "train", "merge", "evaluate", "train-world", "diagnose", "imagine", "steer")


@dataclass(frozen=True)
class Sweep:
    """Run a verb once for each combination of settings.

    What comes after "--" is the verb with the flags that all runs share; --vary names those that differ. Each
    run has a folder of its own in --out, and what it says is written down there. Runs that are finished are
    not done again. Give the verb "--processes 1": the sweep itself keeps the cores busy.

    Example: robopolicy sweep --out runs/seeds --vary seed=0,1,2 --processes 3 -- steer --world runs/world
    --policy runs/policy --dataset runs/rollouts

    Attributes:
        out: folder of the runs.
        vary: flag of the verb and its values, as "seed=0,1,2"; several give all combinations.
        verb: the verb and its flags.
        processes: runs at the same time.
        backend: where they run: "local", or "ray" (RAY_ADDRESS names a cluster, whose machines share --out).
    """

    out: Path
    vary: tuple[str, ...]
    verb: Annotated[tuple[str, ...], tyro.conf.Positional]
    processes: int = 2
    backend: Backend = "local"


class _Run(NamedTuple):
    name: str
    settings: dict[str, str]
    line: list[str]
    log: Path


def sweep(args: Sweep, parse: Callable[[list[str]], object], main: Callable[[list[str]], int]) -> Result:
    """Runs what is not finished; see `Sweep`.

    Args:
        args: of the verb.
        parse: raises SystemExit for a command line that makes no sense.
        main: runs one; returns its exit code.
    """
    get_ready(args.backend, args.processes)
    return run("sweep", args, None, lambda: _sweep(args, parse, main))


def _sweep(args: Sweep, parse: Callable[[list[str]], object], main: Callable[[list[str]], int]) -> Result:
    from robopolicy.checkpoint import read_json
    from robopolicy.progress import Progress
    from robopolicy.results import RESULT

    runs = _runs(args, parse)
    failed = []
    with (
        workers(partial(_worker, main), args.backend, min(args.processes, len(runs))) as run_jobs,
        Progress(f"sweep ({args.verb[0]})", len(runs)) as bar,
    ):
        for i, code in run_jobs(runs):
            bar.advance(note=runs[i].name)
            if code:
                failed.append(runs[i])
    if failed:
        ends = (" ".join(r.log.read_text().split("\n")[-_LAST_LINES - 1 :]) for r in failed)
        told = "; ".join(f"{r.name}: {end.strip()}" for r, end in zip(failed, ends, strict=True))
        raise RoboPolicyError(f"{len(failed)} of {len(runs)} runs failed, the others are kept: {told}")
    rows = [{"name": r.name, "settings": r.settings, **read_json(args.out / r.name / RESULT)} for r in runs]
    return {"swept": args.verb[0], "runs": rows}


def _runs(args: Sweep, parse: Callable[[list[str]], object]) -> list[_Run]:
    """All combinations; refused before anything is written if one of them makes no sense."""
    positive(processes=args.processes)
    if not args.verb or args.verb[0] not in _SWEPT:
        raise BadInput("verb", f'after "--", one of {_SWEPT}', " ".join(args.verb) or "nothing")
    flags = [_flag(text) for text in args.vary]
    taken = {name for name, _ in flags} | {"out"}
    if len(taken) < len(flags) + 1:
        raise BadInput("vary", "each flag once, and not out", list(args.vary))
    for name in taken:
        if any(word.split("=")[0] == f"--{name}" for word in args.verb):
            raise BadInput("verb", f"flags without --{name}, which differs", " ".join(args.verb))
    runs = []
    for values in product(*(values for _, values in flags)):
        settings = dict(zip((name for name, _ in flags), values, strict=True))
        name = "_".join(f"{k}-{v}".replace("/", "-") for k, v in settings.items())
        given = [word for k, v in settings.items() for word in (f"--{k}", v)]
        line = [*args.verb, *given, "--out", str(args.out / name)]
        runs.append(_Run(name, settings, line, args.out / _LOGS / f"{name}.txt"))
        try:
            parse(line)
        except SystemExit:
            raise BadInput("verb", "flags that it knows", " ".join(line)) from None
    return runs


def _flag(text: str) -> tuple[str, Sequence[str]]:
    name, equals, values = text.partition("=")
    found = [v for v in values.split(",") if v]
    if not name or not equals or not found or len(set(found)) < len(found):
        raise BadInput("vary", "FLAG=VALUE,VALUE,... with values that differ", text)
    return name.lstrip("-"), found


def _worker(main: Callable[[list[str]], int]) -> Callable[[_Run], int]:
    return partial(_run, main)


def _run(main: Callable[[list[str]], int], one: _Run) -> int:
    """The exit code of one run; what it says goes to its log."""
    one.log.parent.mkdir(parents=True, exist_ok=True)
    with one.log.open("a") as log, redirect_stdout(log), redirect_stderr(log):
        return main(one.line)
