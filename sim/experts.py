"""Operators that err as people do; the scripted experts of the tasks are such operators with a script.

An operator sees the object where it is not (a systematic error of the person plus one of the episode),
has a way of approaching it, moves with noise and at varying speed, notices a failed grasp sometimes and
tries again. Failures are kept: they are data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from robopolicy.errors import BadInput
from robopolicy.protocols import Carry
from robopolicy.seeding import stream
from robopolicy.spec import Spec

# Multiples of it, modulo 1, fill the unit interval more evenly than those of any other number.
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Operator:
    """One person at the controls.

    Attributes:
        strategy: name of the way in which the object is approached.
        via_m: the point that is passed first, relative to where the object is seen.
        share: weight of this operator among the episodes.
        offset_m: systematic perception error in x and y.
        sigma_m: spread of the perception error from episode to episode, per axis.
    """

    strategy: str
    via_m: tuple[float, float, float]
    share: float = 1.0
    offset_m: tuple[float, float] = (0.0, 0.0)
    sigma_m: float = 0.004

    def __post_init__(self) -> None:
        for name in ("share", "sigma_m"):
            if not getattr(self, name) >= 0:
                raise BadInput(f"operator.{name}", "a number that is not negative", getattr(self, name))


@dataclass(frozen=True)
class ExpertSettings:
    """Who gives the demonstrations. Saved with every dataset.

    Attributes:
        operators: each episode is driven by one of them.
        noise: standard deviation of the command noise, as a share of the largest command.
        p_retry: chance that a failed grasp is noticed and tried again.
        slowest: slowest speed of an episode as a share of the fastest.
    """

    operators: tuple[Operator, ...]
    noise: float = 0.1
    p_retry: float = 0.2
    slowest: float = 0.8


class Expert(ABC):
    """A `Policy` that acts one step at a time; which operator drives an episode is a function of its seed.

    Args:
        spec: the task's Spec; an expert uses chunks of one action.
        settings: who drives.
    """

    def __init__(self, spec: Spec, settings: ExpertSettings):
        self.spec = replace(spec, chunk=1)
        self.settings = settings
        self._high = torch.from_numpy(spec.action_range[1])

    def initial(self, seeds: Sequence[int]) -> Carry:
        """The operator of each episode, and the script's memory: phase and timer."""
        s, rows = self.settings, []
        until = np.cumsum([o.share for o in s.operators])
        for seed in seeds:
            rng = stream(seed, "expert")
            # Neighbouring seeds share out the operators evenly: drawn freely, sixty demonstrations can
            # hold 24 good ones or 34, and that alone decides how good their imitation will be.
            which = int(np.searchsorted(until / until[-1], seed * _GOLDEN % 1.0, side="right"))
            operator = s.operators[which]
            offset = rng.normal(operator.offset_m, operator.sigma_m)
            speed, retry = rng.uniform(s.slowest, 1), rng.random() < s.p_retry
            rows.append([*offset, *operator.via_m, which, speed, retry])
        table = torch.tensor(rows, dtype=torch.float32)
        zero = torch.zeros(len(rows))
        return {
            "offset": table[:, :2],
            "via": table[:, 2:5],
            "operator": table[:, 5],
            "speed": table[:, 6],
            "retry": table[:, 7],
            "phase": zero,
            "timer": zero.clone(),
        }

    def strategy(self, seed: int) -> str:
        """Name of the strategy that the operator of `seed` uses."""
        return self.settings.operators[int(self.initial([seed])["operator"][0])].strategy

    @abstractmethod
    def sample(self, obs: Tensor, carry: Carry, noise: Tensor) -> tuple[Tensor, Carry]:
        """One action per episode; see `robopolicy.protocols.Policy`. `noise` is (B, 1, A)."""

    def moved(self, reach: Tensor, carry: Carry, noise: Tensor, grip: Tensor) -> Tensor:
        """(B, 1, A) the action of a hand that wants to go by `reach` (B, 3) and has this operator's hands."""
        speed = carry["speed"][:, None] * self._high[0]
        delta = torch.maximum(torch.minimum(reach, speed), -speed)
        delta = delta + self.settings.noise * self._high[:3] * noise[:, 0, :3]
        delta = torch.maximum(torch.minimum(delta, self._high[:3]), -self._high[:3])
        return torch.cat([delta, grip[:, None]], -1)[:, None]
