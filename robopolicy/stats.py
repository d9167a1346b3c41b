"""Counts, intervals and paired comparisons of success (Wilson 1927; exact McNemar; bootstrap)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb, hypot, sqrt

import numpy as np

from robopolicy.errors import BadInput

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """A success rate with its 95% Wilson interval."""

    successes: int
    episodes: int
    rate: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | int]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.rate:.0%} [{self.low:.0%}, {self.high:.0%}] ({self.successes}/{self.episodes})"


def wilson(successes: int, episodes: int) -> Rate:
    """95% Wilson score interval of a binomial rate.

    Raises:
        BadInput: if there are no episodes, or more successes than episodes.
    """
    if episodes < 1 or not 0 <= successes <= episodes:
        wanted = "0 <= successes <= episodes, episodes >= 1"
        raise BadInput("successes/episodes", wanted, (successes, episodes))
    p, n, z2 = successes / episodes, episodes, _Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At 0 and 1 the ends equal the rate, but for rounding.
    return Rate(successes, episodes, p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def difference(first: Rate, second: Rate) -> tuple[float, float]:
    """95% interval of second minus first (Newcombe 1998, method 10).

    It takes them for independent: on the same seeds, where they mostly agree, it is wider than need be.
    """
    gap = second.rate - first.rate
    low = gap - hypot(second.rate - second.low, first.high - first.rate)
    return low, gap + hypot(second.high - second.rate, first.rate - first.low)


@dataclass(frozen=True)
class Paired:
    """Difference of two success rates on the same seeds.

    Attributes:
        mean: second minus first.
        low: lower end of the 95% interval (percentile bootstrap over seeds).
        high: upper end.
        fixed: seeds on which only the second succeeded.
        broken: seeds on which only the first succeeded.
        p_value: exact two-sided McNemar.
    """

    mean: float
    low: float
    high: float
    fixed: int
    broken: int
    p_value: float

    def to_dict(self) -> dict[str, float | int]:
        return asdict(self)


def paired(
    first: Sequence[bool], second: Sequence[bool], rng: np.random.Generator, draws: int = 10_000
) -> Paired:
    """Compares two policies run on the same seeds, in the same order.

    Raises:
        BadInput: if the lengths differ or are zero.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    if a.shape != b.shape or a.size == 0:
        raise BadInput("paired outcomes", "two equally long, non-empty lists", (a.shape, b.shape))
    diff = b - a
    means = diff[rng.integers(0, len(diff), (draws, len(diff)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    fixed, broken = int((diff > 0).sum()), int((diff < 0).sum())
    return Paired(float(diff.mean()), float(low), float(high), fixed, broken, mcnemar(fixed, broken))


def mcnemar(fixed: int, broken: int) -> float:
    """Exact two-sided McNemar p-value: a fair coin for each discordant pair."""
    n = fixed + broken
    tail = sum(comb(n, k) for k in range(min(fixed, broken) + 1)) / 2**n
    return min(1.0, 2 * tail)
