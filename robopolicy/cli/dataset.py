"""`robopolicy dataset`: whether recordings are whole, mending, joining, dividing, describing them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro

from robopolicy.cli.common import HasOut, Result, need, run, say
from robopolicy.errors import BadInput


@dataclass(frozen=True)
class Dataset:
    """Look after recordings.

    Sources are left as they are: what is mended, joined or divided is a new dataset.

    Example: robopolicy dataset verify runs/demos runs/rollouts
    Example: robopolicy dataset repair runs/cut-off --out runs/demos
    Example: robopolicy dataset repair runs/damaged --leave-out 3 17 --out runs/demos
    Example: robopolicy dataset merge runs/demos runs/more --out runs/all
    Example: robopolicy dataset split runs/all --share 0.8 --out runs/parts
    Example: robopolicy dataset stats runs/all

    Attributes:
        action: what to do:
            - verify: list all that is wrong, by file, episode and frame; exit code 1 if anything is.
            - repair: of a recording that was cut off, make a dataset of its whole episodes; of one that is
                finished, one without the episodes to --leave-out.
            - merge: make one of several.
            - split: make two of one, OUT/train and OUT/held_out.
            - stats: say what is in it.

        source: folders that "robopolicy collect" or "robopolicy convert" wrote.
        out: a new folder.
        leave_out: with repair, numbers of episodes, as verify names them.
        share: with split, the part to be trained on.
        seed: with split, of the choice.
    """

    action: Annotated[Literal["verify", "repair", "merge", "split", "stats"], tyro.conf.Positional]
    source: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path | None = None
    leave_out: tuple[int, ...] = ()
    share: float = 0.9
    seed: int = 0


def dataset(args: Dataset) -> Result | int:
    """Looks after recordings; see `Dataset`."""
    from robopolicy.data import care

    folders = need("source", args.source)
    if args.action == "verify":
        return _verify(folders)
    if args.action == "stats":
        return {"verb": "dataset", **care.statistics(folders)}
    if args.out is None:
        raise BadInput("out", "a new folder", "none")
    if args.action != "merge" and len(folders) != 1:
        raise BadInput("source", f"one dataset to {args.action}", f"{len(folders)}")
    out = args.out
    work: dict[str, Any] = {
        "repair": lambda: care.repair(folders[0], out, args.leave_out),
        "merge": lambda: care.merge(folders, out),
        "split": lambda: care.divide(folders[0], out, args.share, args.seed),
    }
    return run("dataset", cast("HasOut", args), None, work[args.action])


def _verify(folders: list[Path]) -> int:
    from robopolicy.data.care import problems

    wrong = False
    for folder in folders:
        found = problems(folder)
        wrong |= bool(found)
        say(f"{folder}: {'whole' if not found else f'{len(found)} problems'}")
        for problem in found:
            say(f"  {problem}")
    return int(wrong)
