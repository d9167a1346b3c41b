"""Judging policies: the same rollout and the same result, in the real simulator and in imagination."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from robopolicy.errors import BadInput
from robopolicy.progress import Progress
from robopolicy.protocols import ChunkEnv, Policy, Steerer
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.seeding import stream
from robopolicy.stats import Paired, Rate, paired, wilson
from robopolicy.types import Episode


@dataclass(frozen=True)
class Evaluation:
    """Episodes of one policy and what they count up to.

    Attributes:
        label: which policy, and where it ran.
        seeds: one per episode.
        episodes: in the order of the seeds.
        seconds: wall-clock time; of several workers, summed.
    """

    label: str
    seeds: tuple[int, ...]
    episodes: list[Episode]
    seconds: float

    @property
    def outcomes(self) -> list[bool]:
        return [e.success for e in self.episodes]

    @property
    def rate(self) -> Rate:
        return wilson(sum(self.outcomes), len(self.episodes))

    @property
    def steps(self) -> int:
        return sum(e.length for e in self.episodes)

    @property
    def mean_doubt(self) -> float:
        return float(np.mean(np.concatenate([e.doubt for e in self.episodes])))

    @property
    def doubtful(self) -> float:
        """Share of chunks in more doubt than 99% of those that the world model was calibrated on.

        A chunk at which imagination diverged is one of them: nothing was imagined that could be doubted.
        """
        return float(np.mean(np.concatenate([_in_doubt(e) for e in self.episodes])))


def _in_doubt(episode: Episode) -> np.ndarray:
    """(C,) which chunks of an episode are doubtful."""
    doubtful = episode.doubt > 1
    doubtful[-1:] |= episode.reason == "diverged"
    return doubtful


def evaluate(
    env: ChunkEnv,
    policy: Policy,
    steerer: Steerer | None,
    seeds: Sequence[int],
    label: str,
    clock: Callable[[], float] = time.perf_counter,
    quiet: bool = False,
) -> Evaluation:
    """Runs one episode per seed.

    Args:
        env: real simulator or imagination.
        policy: what acts.
        steerer: what chooses its noise; none for the plain policy.
        seeds: one per episode; use the same for policies that are compared.
        label: shown in the progress bar and kept in the result.
        clock: seconds, for the time taken.
        quiet: no progress bar.
    """
    if not seeds:
        raise BadInput("episodes", "at least 1", 0)
    began = clock()
    with Progress(label, len(seeds), quiet=quiet) as bar:
        episodes = rollout(env, policy, steerer or PriorSteerer(), seeds, label, lambda _: bar.advance())
    return Evaluation(label, tuple(seeds), episodes, clock() - began)


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """One evaluation of several of the same policy, in their order."""
    seeds = tuple(seed for part in parts for seed in part.seeds)
    episodes = [e for part in parts for e in part.episodes]
    return Evaluation(parts[0].label, seeds, episodes, sum(part.seconds for part in parts))


def compare(first: Evaluation, second: Evaluation) -> Paired:
    """Second minus first, paired by seed; refuses evaluations on different seeds."""
    if first.seeds != second.seeds:
        raise BadInput("seeds", "the same seeds for both policies", "different seeds")
    return paired(first.outcomes, second.outcomes, stream(first.seeds[0], "bootstrap"))
