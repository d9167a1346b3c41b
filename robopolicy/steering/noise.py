"""Chance in place of judgement: bounded latent noise, and actions no policy would choose.

Rollouts with these show a world model what a steerer will try, and how things fail. Shape letters: B batch,
K chunk, A action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robopolicy.errors import BadInput
from robopolicy.protocols import Carry
from robopolicy.spec import Spec


class UniformNoise:
    """A steerer that draws noise uniformly from [-bound, bound].

    Args:
        bound: largest element.
        repeat: one vector for the whole chunk, instead of one for each of its actions.
    """

    def __init__(self, bound: float, repeat: bool = False):
        if not (math.isfinite(bound) and bound > 0):
            raise BadInput("bound", "a positive number", bound)
        self.bound, self.repeat = bound, repeat

    def noise(self, obs: Tensor, prior: Tensor, carry: Carry | None = None) -> Tensor:
        """(B, K, A): the normal draw `prior` mapped through its distribution function."""
        uniform = self.bound * _signed_cdf(prior)
        return uniform[:, :1].expand_as(prior).contiguous() if self.repeat else uniform


class RandomPolicy:
    """Actions that wander smoothly over their whole range, whatever is seen.

    Args:
        spec: of the task.
        memory: correlation of one action with the next.
    """

    def __init__(self, spec: Spec, memory: float = 0.9):
        self.spec, self.memory = spec, memory
        low, high = torch.from_numpy(spec.action_range)
        self._middle, self._half = (low + high) / 2, (high - low) / 2

    def initial(self, seeds: Sequence[int]) -> Carry:
        return {"last": torch.zeros(len(seeds), self.spec.action_dim)}

    def sample(self, obs: Tensor, carry: Carry, noise: Tensor) -> tuple[Tensor, Carry]:
        """See `robopolicy.protocols.Policy`; a Gaussian walk back to the middle, made uniform."""
        last, walk = carry["last"], []
        for k in range(noise.shape[1]):
            last = self.memory * last + math.sqrt(1 - self.memory**2) * noise[:, k]
            walk.append(last)
        return self._middle + self._half * _signed_cdf(torch.stack(walk, 1)), {"last": last}


def _signed_cdf(x: Tensor) -> Tensor:
    """Standard normal to uniform on (-1, 1)."""
    return torch.erf(x / math.sqrt(2))
