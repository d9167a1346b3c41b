"""The interfaces that let real simulator, imagination and robot be exchanged for each other.

Policies and world models speak torch and physical units; environments are gymnasium `VectorEnv`s
that speak numpy and take a whole action chunk per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from robopolicy.spec import Spec

Carry = dict[str, Tensor]
"""Memory of a policy between calls: tensors whose first dimension is the batch; {} if it has none."""


@runtime_checkable
class Policy(Protocol):
    """Maps observations and noise to action chunks; a pure function of its arguments."""

    spec: Spec

    def initial(self, seeds: Sequence[int]) -> Carry:
        """The carry with which the episodes of `seeds` begin, one row per seed."""
        ...

    def sample(self, obs: Tensor, carry: Carry, noise: Tensor) -> tuple[Tensor, Carry]:
        """Actions for the next K steps.

        Args:
            obs: (B, T, D) physical states, newest last.
            carry: memory, from `initial` or the previous call.
            noise: (B, K, A) latent noise; standard normal gives the policy as it was trained.

        Returns:
            The chunk (B, K, A) in physical units and the next carry.
        """
        ...


class Prediction(NamedTuple):
    """What a world model says will follow one chunk.

    Attributes:
        states: (B, K, D) physical states after each action.
        success: (B, K) probability that the task is achieved at each of these states.
        doubt: (B,) epistemic uncertainty of the whole chunk; 1 is the 99th percentile on held-out data.
    """

    states: Tensor
    success: Tensor
    doubt: Tensor


@runtime_checkable
class WorldModel(Protocol):
    """A frozen model of dynamics, success and its own doubt."""

    spec: Spec

    def predict(self, obs: Tensor, actions: Tensor, noise: Tensor) -> Prediction:
        """Imagines one chunk.

        Args:
            obs: (B, T, D) physical states, newest last.
            actions: (B, K, A) physical actions.
            noise: (B, K, D) standard normal noise of the sampler.
        """
        ...


class Steerer(Protocol):
    """Chooses the latent noise of a frozen policy."""

    def noise(self, obs: Tensor, prior: Tensor, carry: Carry | None = None) -> Tensor:
        """(B, K, A) noise for observations `obs` (B, T, D), given a draw `prior` from N(0, I).

        What the policy will do depends on its memory `carry` too, where it has one. The randomness comes in
        with `prior`, so that the same seed gives the same episode.
        """
        ...


class ChunkEnv(Protocol):
    """A gymnasium VectorEnv whose action is a chunk; the real simulator and imagination are both one.

    `reset(seed=[...], options={"reset_mask": mask})` starts episodes in the masked slots (all if no
    mask). `step` executes each slot's chunk up to the step that ends its episode, never further.
    `info` of `step` holds "states" (N, K, D), "executed" (N,) (how many actions were applied; states
    beyond are not valid), "achieved" (N, K) bool (which of these states meet the task's goal),
    "success" (N,) bool, "doubt" (N,) float and "reason", a list of N strings.
    Ended slots do nothing until they are reset.
    """

    num_envs: int
    spec: Spec

    def reset(
        self, *, seed: list[int] | int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]: ...

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]: ...

    def close(self) -> None: ...
