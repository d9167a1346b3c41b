"""Who demonstrates the memory tasks: remembers, moves with noise and rests for as long as they like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from robopolicy.protocols import Carry
from robopolicy.seeding import stream
from sim.experts import Expert, ExpertSettings, Operator
from sim.memory_env import ARM_M, ASIDE_M, GOALS, LIFTS, UP_M

_NEAR_M = 0.06
_HOME = (0.0, 0.0, 0.0)
# Steps of rest, drawn anew for each: how long ago something was does not tell what it was.
_REST = (4, 32)
_LONG_REST = (8, 80)


class MemoryExpert(Expert):
    """Goes from waypoint to waypoint, resting at some; remembers where it is in its carry."""

    waypoints: Sequence[tuple[float, float, float]] = ()
    rests: Sequence[tuple[int, int]] = ()  # steps at each of them, from..to

    def initial(self, seeds: Sequence[int]) -> Carry:
        """See `Expert.initial`; beside it, how long this episode rests at each waypoint."""
        low, high = np.array(self.rests, int).reshape(-1, 2).T
        rests = np.array([stream(seed, "rest").integers(low, high + 1) for seed in seeds])
        table = torch.from_numpy(rests).float().reshape(len(seeds), len(low))
        return {**super().initial(seeds), "rests": table}

    def sample(self, obs: Tensor, carry: Carry, noise: Tensor) -> tuple[Tensor, Carry]:
        """One action per episode; see `robopolicy.protocols.Policy`. `noise` is (B, 1, A)."""
        hand, carry = obs[:, -1, :3], dict(carry)
        target = self.target(obs[:, -1], hand, carry)
        grip = torch.zeros(len(hand))
        return self.moved(0.8 * (target - hand), carry, noise, grip)[..., :3], carry

    def target(self, state: Tensor, hand: Tensor, carry: Carry) -> Tensor:
        """(B, 3) where to go; writes into `carry`."""
        points = torch.tensor(self.waypoints)
        stage = carry["phase"].long()
        rest = carry["rests"].gather(1, stage[:, None])[:, 0]
        arrived = (hand - points[stage]).norm(dim=-1) < _NEAR_M
        timer = torch.where(arrived, carry["timer"] + 1, carry["timer"])
        on = arrived & (timer >= rest) & (stage < len(points) - 1)
        carry["phase"] = torch.where(on, stage + 1, stage).float()
        carry["timer"] = torch.where(on, 0.0, timer)
        return points[carry["phase"].long()]


class CountExpert(MemoryExpert):
    """Up and down three times, then aside."""

    waypoints = (_HOME, *[(0.0, 0.0, UP_M + 0.1), _HOME] * LIFTS, (ASIDE_M + 0.1, 0.0, 0.0))
    rests = (_REST, *[(0, 4), _REST] * LIFTS, (0, 0))


class ReturnExpert(MemoryExpert):
    """To the left, back, a long rest, to the right."""

    waypoints = (_HOME, (-ARM_M, 0.0, 0.0), _HOME, (ARM_M, 0.0, 0.0))
    rests = (_LONG_REST, (0, 4), _LONG_REST, (0, 0))


class CueExpert(MemoryExpert):
    """Waits in the middle, remembers the lamp and goes to its corner at the signal."""

    def target(self, state: Tensor, hand: Tensor, carry: Carry) -> Tensor:
        lamps, go = state[:, 3:7], state[:, 7]
        carry["phase"] = torch.where(lamps.amax(-1) > 0, lamps.argmax(-1).float(), carry["phase"])
        goal = torch.from_numpy(GOALS)[carry["phase"].long()]
        return torch.cat([goal * go[:, None], torch.zeros(len(go), 1)], -1)


EXPERTS = {"cue": CueExpert, "count": CountExpert, "return": ReturnExpert}
OPERATORS = {"careful": ExpertSettings((Operator("by heart", (0.0, 0.0, 0.0), sigma_m=0.0),), noise=0.08)}
