"""The command line: verbs that a robot learner knows. What is heavy is imported by the verb that needs it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Union

import tyro

from robopolicy.cli import (
    bench,
    collect,
    convert,
    dataset,
    deploy,
    diagnose,
    doctor,
    judge,
    learn,
    merge,
    sweep,
    world,
)
from robopolicy.cli.common import show
from robopolicy.cli.demo import Demo
from robopolicy.errors import BadInput, Interrupted, RoboPolicyError
from robopolicy.processes import leads

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def demo(args: Demo) -> int:
    """Runs the whole chain; see `Demo`."""
    from robopolicy.cli import chain

    return chain.run(args)


# Verb -> its arguments and the function that takes them, in the order of the chain.
VERBS: dict[str, tuple[type, Callable[[Any], dict[str, Any] | int]]] = {
    "collect": (collect.Collect, collect.collect),
    "convert": (convert.Convert, convert.convert),
    "dataset": (dataset.Dataset, dataset.dataset),
    "train-eye": (world.TrainEye, world.train_eye),
    "train": (learn.Train, learn.train),
    "merge": (merge.Merge, merge.merge),
    "evaluate": (judge.Evaluate, judge.evaluate),
    "train-world": (world.TrainWorld, world.train_world),
    "diagnose": (diagnose.Diagnose, diagnose.diagnose),
    "imagine": (judge.Imagine, judge.imagine),
    "steer": (learn.Steer, learn.steer),
    "sweep": (sweep.Sweep, lambda args: sweep.sweep(args, parse, main)),
    "promote": (judge.Promote, judge.promote),
    "bench-policy": (bench.BenchPolicy, bench.bench_policy),
    "report": (judge.Report, judge.report),
    "contract": (deploy.DraftContract, deploy.draft_contract),
    "serve": (deploy.Serve, deploy.serve),
    "deploy": (deploy.Deploy, deploy.deploy),
    "replay": (deploy.Replay, deploy.replay),
    "demo": (Demo, demo),
    "doctor": (doctor.Doctor, doctor.doctor),
}

_ABOUT = """Train a robot policy in simulation, refine and judge it in imagination, deploy it over ROS 2.

"robopolicy demo" runs the whole chain; "robopolicy VERB --help" explains one link of it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Returns:
        0 done, 1 failure, 2 bad input (nothing was written), 130 interrupted (run it again to resume).
    """
    given = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        verb, args = parse(given)
    except SystemExit as e:  # --help, or flags that make no sense
        return int(e.code or 0)
    # LeRobot reports at length that it found no video decoder; states need none.
    logging.getLogger("lerobot").setLevel(logging.ERROR)
    work = VERBS[verb][1]
    try:
        outcome = work(args)
        if isinstance(outcome, int):
            return outcome
        if leads():
            show(outcome)
    except BadInput as e:
        return _fail(f"error: {e}", BAD_INPUT)
    except Interrupted as e:
        return _fail(str(e), INTERRUPTED)
    except KeyboardInterrupt:
        return _fail("interrupted: run the same command again to resume", INTERRUPTED)
    except RoboPolicyError as e:
        return _fail(f"error: {e}", FAILED)
    return DONE


def parse(argv: list[str]) -> tuple[str, Any]:
    """The verb and its arguments.

    Raises:
        SystemExit: if they make no sense, or help was asked for; it has been printed.
    """
    if argv[0] in VERBS:
        return argv[0], tyro.cli(VERBS[argv[0]][0], prog=f"robopolicy {argv[0]}", args=argv[1:])
    # Only the overview, or a complaint about the verb: one line for each.
    named = [
        Annotated[kind, tyro.conf.subcommand(name, description=(kind.__doc__ or "").split("\n")[0])]
        for name, (kind, _) in VERBS.items()
    ]
    parsed = tyro.cli(Union[tuple(named)], prog="robopolicy", description=_ABOUT, args=argv)  # pyright: ignore  # noqa: UP007
    return next(name for name, (kind, _) in VERBS.items() if isinstance(parsed, kind)), parsed


def _fail(message: str, code: int) -> int:
    from rich.console import Console

    line = " ".join(message.split())
    Console(stderr=True).print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    return code
