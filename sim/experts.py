"""Scripted experts that err as people do.

An operator sees the object where it is not (a systematic error of the person plus one of the episode),
has a way of approaching it, moves with noise and at varying speed, notices a failed grasp sometimes
and tries again. Failures are kept: they are data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from robopolicy.errors import BadInput
from robopolicy.protocols import Carry
from robopolicy.seeding import stream
from robopolicy.spec import Spec

# How an object is approached: by way of a point relative to it, in metres.
_VIA_POINTS = {
    "from above": (0.0, 0.0, 0.13),
    "slanted": (0.09, 0.0, 0.07),
    "sweeping": (0.03, 0.09, 0.08),
}
STRATEGIES = tuple(_VIA_POINTS)
_VIA, _APPROACH, _DESCEND, _CLOSE, _LIFT = range(5)


@dataclass(frozen=True)
class Operator:
    """One person at the controls.

    Attributes:
        strategy: how the object is approached, one of `STRATEGIES`.
        share: weight of this operator among the episodes.
        offset_m: systematic perception error in x and y.
        sigma_m: spread of the perception error from episode to episode, per axis.
    """

    strategy: str
    share: float = 1.0
    offset_m: tuple[float, float] = (0.0, 0.0)
    sigma_m: float = 0.004

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise BadInput("operator.strategy", f"one of {STRATEGIES}", self.strategy)


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


EXPERTS = {
    # One careful operator and two whose camera is miscalibrated.
    "mixed": ExpertSettings(
        (
            Operator("from above", 0.45),
            Operator("slanted", 0.3, (0.045, 0.0)),
            Operator("sweeping", 0.25, (0.045, 0.0)),
        )
    ),
    "careful": ExpertSettings(tuple(Operator(s) for s in STRATEGIES), noise=0.05, p_retry=1.0),
}


class ScriptedExpert:
    """Grasps and lifts a cube; a `Policy` that acts one step at a time.

    Args:
        spec: the task's Spec; the expert uses chunks of one action.
        settings: the operator.
    """

    def __init__(self, spec: Spec, settings: ExpertSettings):
        self.spec = replace(spec, chunk=1)
        self.settings = settings
        self._eef, self._cube = spec.slice_of("eef_pos"), spec.slice_of("cube_pos")
        self._via = torch.tensor(list(_VIA_POINTS.values()))
        self._high = torch.from_numpy(spec.action_range[1])

    def initial(self, seeds: Sequence[int]) -> Carry:
        """The operator of each episode: a function of its seed."""
        s = self.settings
        shares = np.array([o.share for o in s.operators])
        rows = []
        for seed in seeds:
            rng = stream(seed, "expert")
            operator = s.operators[rng.choice(len(shares), p=shares / shares.sum())]
            offset = rng.normal(operator.offset_m, operator.sigma_m)
            strategy = STRATEGIES.index(operator.strategy)
            rows.append([*offset, strategy, rng.uniform(s.slowest, 1), rng.random() < s.p_retry])
        table = torch.tensor(rows, dtype=torch.float32)
        zero = torch.zeros(len(rows))
        return {
            "offset": table[:, :2],
            "strategy": table[:, 2],
            "speed": table[:, 3],
            "retry": table[:, 4],
            "phase": zero,
            "timer": zero.clone(),
        }

    def strategy(self, seed: int) -> str:
        """Name of the strategy that the operator of `seed` uses."""
        return STRATEGIES[int(self.initial([seed])["strategy"][0])]

    def sample(self, obs: Tensor, carry: Carry, noise: Tensor) -> tuple[Tensor, Carry]:
        """One action per episode; see `robopolicy.protocols.Policy`. `noise` is (B, 1, A)."""
        eef, cube = obs[:, -1, self._eef], obs[:, -1, self._cube]
        phase, timer = carry["phase"].clone(), carry["timer"] + 1
        offset, strategy, retry = carry["offset"].clone(), carry["strategy"], carry["retry"].clone()

        # Perception errors are about where the object is, so they vanish once it moves in the hand.
        seen = cube.clone()
        seen[:, :2] += offset
        via = seen + self._via[strategy.long()]
        above = seen + torch.tensor([0.0, 0.0, 0.05])
        away = (eef[:, :2] - seen[:, :2]).norm(dim=-1)

        phase = torch.where((phase == _VIA) & ((eef - via).norm(dim=-1) < 0.03), _APPROACH, phase)
        phase = torch.where((phase == _APPROACH) & (away < 0.012), _DESCEND, phase)
        down = (phase == _DESCEND) & (eef[:, 2] - cube[:, 2] < 0.006)
        timer = torch.where(down, 0.0, timer)
        phase = torch.where(down, _CLOSE, phase)
        phase = torch.where((phase == _CLOSE) & (timer > 6), _LIFT, phase)
        missed = (phase == _LIFT) & (eef[:, 2] > cube[:, 2] + 0.04)
        again = missed & (retry > 0)
        phase = torch.where(again, _APPROACH, phase)
        offset = torch.where(again[:, None], 0.2 * offset, offset)  # a second look sees better
        retry = torch.where(again, 0.0, retry)

        target = torch.where((phase == _APPROACH)[:, None], above, seen)
        target = torch.where((phase == _VIA)[:, None], via, target)
        target = torch.where((phase == _LIFT)[:, None], eef + torch.tensor([0.0, 0.0, 0.1]), target)
        reach = torch.where((phase == _CLOSE)[:, None], 0.0, 1.2 * (target - eef))
        speed = carry["speed"][:, None] * self._high[0]
        delta = torch.maximum(torch.minimum(reach, speed), -speed)
        delta = delta + self.settings.noise * self._high[:3] * noise[:, 0, :3]
        delta = torch.maximum(torch.minimum(delta, self._high[:3]), -self._high[:3])
        grip = torch.where(phase >= _CLOSE, 1.0, -1.0)
        action = torch.cat([delta, grip[:, None]], -1)[:, None]
        return action, {**carry, "phase": phase, "timer": timer, "offset": offset, "retry": retry}
