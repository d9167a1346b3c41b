"""Scripted experts that err as people do.

An operator sees the object where it is not (each episode has its own perception error, often one of
a few systematic ones), prefers one of several ways to approach, moves with noise and at varying
speed, notices a failed grasp sometimes and tries again. Failures are kept: they are data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robopolicy.protocols import Carry
from robopolicy.seeding import stream
from robopolicy.spec import Spec

STRATEGIES = ("from above", "slanted", "sweeping")
_APPROACH, _DESCEND, _CLOSE, _LIFT = range(4)


@dataclass(frozen=True)
class ExpertSettings:
    """How good an operator is. Saved with every dataset.

    Attributes:
        p_bad: share of episodes with a systematic perception error.
        bad_offset_m: size of that error, along the x axis.
        two_sided: whether its sign is drawn per episode; otherwise it is always positive.
        sigma_m: spread of the ordinary perception error, per axis.
        noise: standard deviation of the command noise, as a share of the largest command.
        p_retry: chance that a failed grasp is noticed and tried again.
        slowest: slowest operator's speed as a share of the fastest.
    """

    p_bad: float = 0.8
    bad_offset_m: float = 0.036
    two_sided: bool = False
    sigma_m: float = 0.004
    noise: float = 0.1
    p_retry: float = 0.3
    slowest: float = 0.8


EXPERTS = {
    "sloppy": ExpertSettings(),
    "careful": ExpertSettings(p_bad=0.0, p_retry=1.0, noise=0.05),
}


class ScriptedExpert:
    """Grasps and lifts a cube; a `Policy` that acts one step at a time.

    Args:
        spec: the task's Spec; the expert uses chunks of one action.
        settings: the operator.
    """

    def __init__(self, spec: Spec, settings: ExpertSettings):
        import dataclasses

        self.spec = dataclasses.replace(spec, chunk=1)
        self.settings = settings
        self._eef, self._cube = spec.slice_of("eef_pos"), spec.slice_of("cube_pos")
        self._high = torch.from_numpy(spec.action_range[1])

    def initial(self, seeds: Sequence[int]) -> Carry:
        """The operator of each episode: a function of its seed."""
        s = self.settings
        rows = []
        for seed in seeds:
            rng = stream(seed, "expert")
            bad = rng.random() < s.p_bad
            offset = rng.normal(0, s.sigma_m, 2)
            side = rng.choice([-1, 1]) if s.two_sided else 1
            offset[0] += bad * side * s.bad_offset_m
            rows.append(
                [*offset, rng.integers(len(STRATEGIES)), rng.uniform(s.slowest, 1), rng.random() < s.p_retry]
            )
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
        away = (eef[:, :2] - seen[:, :2]).norm(dim=-1)
        lateral = torch.where(strategy == 2, 0.03, 0.0) * (away > 0.03)
        height = torch.where(strategy == 1, 0.02 + 0.8 * away, torch.full_like(away, 0.06))
        above = seen + torch.stack([torch.zeros_like(away), lateral, height], -1)

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
        target = torch.where((phase == _LIFT)[:, None], eef + torch.tensor([0.0, 0.0, 0.1]), target)
        reach = torch.where((phase == _CLOSE)[:, None], 0.0, 1.2 * (target - eef))
        speed = carry["speed"][:, None] * self._high[0]
        delta = torch.maximum(torch.minimum(reach, speed), -speed)
        delta = delta + self.settings.noise * self._high[:3] * noise[:, 0, :3]
        delta = torch.maximum(torch.minimum(delta, self._high[:3]), -self._high[:3])
        grip = torch.where(phase >= _CLOSE, 1.0, -1.0)
        action = torch.cat([delta, grip[:, None]], -1)[:, None]
        return action, {**carry, "phase": phase, "timer": timer, "offset": offset, "retry": retry}
