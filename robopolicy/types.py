"""Plain data that crosses rooms. Pure numpy.

Shape letters, used everywhere: N environments or B batch, T observation steps, K chunk, L steps of
an episode, C chunks of an episode, D state, A action.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Episode:
    """One episode, real or imagined.

    Attributes:
        seed: environment seed it started from.
        states: (L+1, D) physical states; `states[i]` is what `actions[i]` was applied to.
        actions: (L, A) physical actions that were executed.
        success: whether the task was achieved.
        terminated: ended by success (or by a failure the task defines).
        truncated: ended by the time limit, by doubt or by divergence; the future still has value.
        noise: (C, K, A) latent noise of each chunk.
        chunk_starts: (C,) step at which each chunk began.
        doubt: (C,) doubt of the world model per chunk; zeros in the real simulator.
        source: what produced it ("expert", "policy", "noise", "random", ...).
        strategy: the expert's named strategy, if any.
        reason: why it was cut short, if it was ("doubt", "diverged", "horizon").
    """

    seed: int
    states: np.ndarray
    actions: np.ndarray
    success: bool
    terminated: bool
    truncated: bool
    noise: np.ndarray
    chunk_starts: np.ndarray
    doubt: np.ndarray
    source: str = ""
    strategy: str = ""
    reason: str = ""
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def length(self) -> int:
        return len(self.actions)
