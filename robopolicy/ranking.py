"""Does imagination rank policies as reality does? Correlations, rank violation, their intervals, a verdict.

Shape letters: P policies, N real and M imagined episodes of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau, rankdata

from robopolicy.errors import BadInput

FEWEST = 3


@dataclass(frozen=True)
class Measure:
    """A number with its 95% bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Ranking:
    """How well imagined success ranks policies.

    Attributes:
        policies: how many.
        pearson: correlation of imagined with real success rates.
        spearman: correlation of their ranks.
        kendall: tau-b of the two orders.
        mmrv: see `mmrv`.
        gap: mean absolute difference of the rates.
        verdict: "yes", "no", or "cannot tell": whether the order is better than chance.
    """

    policies: int
    pearson: Measure
    spearman: Measure
    kendall: Measure
    mmrv: Measure
    gap: Measure
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def rank(real: np.ndarray, imagined: np.ndarray, rng: np.random.Generator, draws: int = 1000) -> Ranking:
    """Compares the two orders of the same policies.

    Policies share their seeds, so the bootstrap draws seeds, for all policies at once, real and imagined
    ones independently.

    Args:
        real: (P, N) whether each policy succeeded on each real seed.
        imagined: (P, M) the same in imagination.
        rng: of the bootstrap.
        draws: of the bootstrap.

    Raises:
        BadInput: if there are fewer than three policies, or the two numbers of policies differ.
    """
    real, imagined = np.asarray(real, float), np.asarray(imagined, float)
    if len(real) != len(imagined) or len(real) < FEWEST or 0 in real.shape + imagined.shape:
        raise BadInput("policies", f"the same {FEWEST} or more on both sides", (len(real), len(imagined)))
    pairs = [(real.mean(1), imagined.mean(1))]
    for _ in range(draws):
        a, b = (x[:, rng.integers(x.shape[1], size=x.shape[1])].mean(1) for x in (real, imagined))
        pairs.append((a, b))

    def measured(f: Callable[[np.ndarray, np.ndarray], float]) -> Measure:
        value, *drawn = (f(a, b) for a, b in pairs)
        low, high = np.quantile(drawn, [0.025, 0.975])
        return Measure(float(value), float(min(low, value)), float(max(high, value)))

    spearman = measured(lambda a, b: pearson(rankdata(a), rankdata(b)))
    verdict = "yes" if spearman.low > 0 else "no" if spearman.high <= 0 else "cannot tell"
    return Ranking(
        policies=len(real),
        pearson=measured(pearson),
        spearman=spearman,
        kendall=measured(_kendall),
        mmrv=measured(mmrv),
        gap=measured(lambda a, b: float(np.abs(a - b).mean())),
        verdict=verdict,
    )


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; 0 where one side does not vary, because then nothing is told apart."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _kendall(a: np.ndarray, b: np.ndarray) -> float:
    tau = float(kendalltau(a, b)[0])  # pyright: ignore[reportArgumentType]
    return tau if np.isfinite(tau) else 0.0


def mmrv(real: np.ndarray, imagined: np.ndarray) -> float:
    """Mean maximum rank violation (Li et al. 2024, SIMPLER, arXiv 2405.05941, eq. 2); 0 is a perfect order.

    For each policy the largest real difference to another one that imagination puts in the wrong order, and
    the mean of that over policies. A pair is in the wrong order if one side says "worse" and the other does
    not; equal real rates violate nothing, their difference being 0.

    Args:
        real: (P,) real success rates.
        imagined: (P,) imagined ones.
    """
    gap = np.abs(real[:, None] - real[None])
    wrong = (real[:, None] < real[None]) != (imagined[:, None] < imagined[None])
    # Of a pair both directions count: a tie in imagination is wrong seen from one of the two.
    return float((gap * (wrong | wrong.T)).max(1).mean())
