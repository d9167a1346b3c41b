"""A steerer takes over from its base on real evidence only; imagination proposes, the simulator decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from robopolicy.checkpoint import folder_hash, is_sealed, read_json, write_json
from robopolicy.errors import BadInput, RoboPolicyError

PROMOTION = "promotion.json"
# Fewer held-out episodes than this are no evidence, whatever they show.
FEWEST = 100


@dataclass(frozen=True)
class Promotion:
    """What a real evaluation said of a steerer.

    Attributes:
        promoted: whether it may replace its base.
        reason: why, or why not, in words.
        steerer: hash of the steerer.
        episodes: held-out episodes of either.
        mean: paired difference of success, steered minus base.
        low: lower end of its 95% interval.
        high: upper end.
    """

    promoted: bool
    reason: str
    steerer: str
    episodes: int
    mean: float
    low: float
    high: float


def judge(steerer: Path, evaluation: Mapping[str, Any]) -> Promotion:
    """Whether `evaluation` shows that the steerer in a folder is better than its base.

    Args:
        steerer: sealed.
        evaluation: result of "robopolicy evaluate", in which the base comes first.

    Raises:
        BadInput: if it is no real evaluation, or one in which this steerer or its base was not judged.
    """
    if not is_sealed(steerer):
        raise BadInput("steerer", "a finished steerer", steerer)
    if evaluation.get("verb") != "evaluate":
        raise BadInput("real", "a result of robopolicy evaluate", evaluation.get("verb"))
    own, rows = folder_hash(steerer), evaluation["policies"]
    row = next((r for r in rows if r["hashes"].get("steerer") == own), None)
    if row is None:
        raise BadInput("real", f"an evaluation of the steerer {own[:12]}", [r["label"] for r in rows])
    if rows[0]["hashes"] != {"policy": row["hashes"]["policy"]}:
        raise BadInput("real", "an evaluation in which the steerer's base comes first", rows[0]["label"])
    d = next(d for d in evaluation["differences"] if d["second"] == row["label"])
    numbers = f"{d['mean']:+.1%} [{d['low']:+.1%}, {d['high']:+.1%}] on {row['episodes']} held-out episodes"
    if row["episodes"] < FEWEST:
        promoted, reason = False, f"{numbers}: fewer than {FEWEST} are no evidence"
    elif d["low"] > 0:
        promoted, reason = True, f"{numbers}: better than its base"
    else:
        promoted, reason = False, f"{numbers}: not shown to be better than its base"
    return Promotion(promoted, reason, own, row["episodes"], d["mean"], d["low"], d["high"])


def promote(steerer: Path, evaluation: Mapping[str, Any]) -> Promotion:
    """Judges a steerer and leaves the verdict beside it; see `judge`."""
    verdict = judge(steerer, evaluation)
    write_json(steerer / PROMOTION, asdict(verdict))
    return verdict


def require_promotion(steerer: Path) -> None:
    """Refuses a steerer of which no real evaluation has shown that it is better than its base.

    Raises:
        RoboPolicyError: naming what is missing.
    """
    path = steerer / PROMOTION
    if not path.is_file():
        raise RoboPolicyError(f"{steerer} has not been judged in the real simulator: robopolicy promote")
    verdict = read_json(path)
    if verdict.get("steerer") != folder_hash(steerer):
        raise RoboPolicyError(f"{path} is about another steerer: robopolicy promote")
    if verdict.get("promoted") is not True:
        raise RoboPolicyError(f"{steerer} was not promoted: {verdict.get('reason')}")
