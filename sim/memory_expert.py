"""Who demonstrates the memory tasks: remembers, waits for the signal and moves with noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robopolicy.protocols import Carry
from robopolicy.spec import Spec
from sim.experts import Expert, ExpertSettings, Operator
from sim.memory_env import ARM_M, ASIDE_M, GOALS, RAISED_M, ErrandEnv, TourEnv, lifts

_NEAR_M = 0.06
_HOME = (0.0, 0.0, 0.0)


class MemoryExpert(Expert):
    """Goes from waypoint to waypoint, and on from home at a signal; remembers in its carry where it is."""

    waypoints: Sequence[tuple[float, float, float]] = ()

    def sample(self, obs: Tensor, carry: Carry, noise: Tensor) -> tuple[Tensor, Carry]:
        """One action per episode; see `robopolicy.protocols.Policy`. `noise` is (B, 1, A)."""
        hand, carry = obs[:, -1, :3], dict(carry)
        target = self.target(obs[:, -1], hand, carry)
        grip = torch.zeros(len(hand))
        return self.moved(0.8 * (target - hand), carry, noise, grip)[..., :3], carry

    def target(self, state: Tensor, hand: Tensor, carry: Carry) -> Tensor:
        """(B, 3) where to go; writes into `carry`."""
        points, each = self.points(carry), torch.arange(len(hand))
        stage = carry["phase"].long()
        here = points[each, stage]
        at_home, signal = (here == 0).all(-1), state[:, -1] >= 1
        arrived = (hand - here).norm(dim=-1) < _NEAR_M
        stage += torch.where(at_home, signal, arrived) & (stage < points.shape[1] - 1)
        carry["phase"] = stage.float()
        return points[each, stage]

    def points(self, carry: Carry) -> Tensor:
        """(B, P, 3) where each episode goes."""
        return torch.tensor(self.waypoints).expand(len(carry["phase"]), -1, -1)


class CountExpert(MemoryExpert):
    """Up and down so many times, then aside."""

    def __init__(self, spec: Spec, settings: ExpertSettings):
        super().__init__(spec, settings)
        up_and_down = [(0.0, 0.0, RAISED_M), _HOME] * lifts(spec)
        self.waypoints = (_HOME, *up_and_down, (ASIDE_M + 0.1, 0.0, 0.0))


class ReturnExpert(MemoryExpert):
    """To the left and back, then to the right."""

    waypoints = (_HOME, (-ARM_M, 0.0, 0.0), _HOME, (ARM_M, 0.0, 0.0))


class CueExpert(MemoryExpert):
    """Waits in the middle, remembers the lamp and goes to its corner at the signal."""

    def target(self, state: Tensor, hand: Tensor, carry: Carry) -> Tensor:
        lamps, signal = state[:, 3:7], state[:, 7] >= 1
        carry["phase"] = torch.where(lamps.amax(-1) > 0, lamps.argmax(-1).float(), carry["phase"])
        goal = torch.from_numpy(GOALS)[carry["phase"].long()]
        return torch.cat([goal * signal[:, None], torch.zeros(len(state), 1)], -1)


class TourExpert(MemoryExpert):
    """Remembers which lamps have flashed, the latest last, and visits their corners."""

    stops = len(TourEnv.gaps)

    def initial(self, seeds: Sequence[int]) -> Carry:
        return {**super().initial(seeds), "corners": torch.full((len(seeds), self.stops), -1.0)}

    def target(self, state: Tensor, hand: Tensor, carry: Carry) -> Tensor:
        self.remember(state, carry)
        return super().target(state, hand, carry)

    def remember(self, state: Tensor, carry: Carry) -> None:
        """Writes into `carry` what is seen, as corners to be visited in turn."""
        lamps, corners = state[:, 3:7], carry["corners"]
        lamp = lamps.argmax(-1, keepdim=True)
        begun = (lamps.amax(-1, keepdim=True) > 0) & (lamp != corners[:, -1:])
        carry["corners"] = torch.where(begun, torch.cat([corners[:, 1:], lamp], 1), corners)

    def points(self, carry: Carry) -> Tensor:
        """(B, 2 * stops, 3) from the middle to each corner."""
        points = torch.zeros(len(carry["phase"]), 2 * self.stops, 3)
        points[:, 1::2, :2] = torch.from_numpy(GOALS)[carry["corners"].long()]
        return points


class ErrandExpert(TourExpert):
    """Remembers where each thing is kept, and visits what is asked for."""

    stops = len(ErrandEnv.gaps)

    def initial(self, seeds: Sequence[int]) -> Carry:
        return {**super().initial(seeds), "kept": torch.zeros(len(seeds), self.stops)}

    def remember(self, state: Tensor, carry: Carry) -> None:
        lamps, things, asked = state[:, 3:7], state[:, 7:-1], state[:, -1:] >= 1
        lit, lamp = lamps.amax(-1, keepdim=True) > 0, lamps.argmax(-1, keepdim=True)
        carry["kept"] = torch.where(lit & (things > 0), lamp, carry["kept"])
        corner = carry["kept"].gather(1, things.argmax(-1, keepdim=True))
        now = torch.arange(self.stops) == carry["phase"][:, None] // 2
        carry["corners"] = torch.where(now & asked, corner, carry["corners"])


EXPERTS = {
    "cue": CueExpert,
    "count": CountExpert,
    "return": ReturnExpert,
    "tour": TourExpert,
    "errand": ErrandExpert,
}
OPERATORS = {"careful": ExpertSettings((Operator("by heart", (0.0, 0.0, 0.0), sigma_m=0.0),), noise=0.08)}
