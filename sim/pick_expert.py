"""The script that experts share in whose task a thing is grasped and taken somewhere."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from robopolicy.protocols import Carry
from robopolicy.spec import Spec
from sim.experts import Expert, ExpertSettings, Operator

_VIA, _APPROACH, _DESCEND, _CLOSE, _CARRY = range(5)
_CLOSING_STEPS = 6
_ABOVE, _SLANTED, _SWEEPING = (0.0, 0.0, 0.13), (0.09, 0.0, 0.07), (0.03, 0.09, 0.08)


class PickExpert(Expert):
    """Grasps a thing from above, then takes it along a way that subclasses give.

    Args:
        spec: the task's Spec.
        settings: who drives.
        thing: name of the field that says where the thing is.
        release: the hand opens from this stage of the way on; never if it is None.
        grip_m: where it is grasped, relative to its position.
    """

    def __init__(
        self,
        spec: Spec,
        settings: ExpertSettings,
        thing: str,
        release: int | None = None,
        grip_m: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ):
        super().__init__(spec, settings)
        self._grip = torch.tensor(grip_m)
        self._eef, self._thing = spec.slice_of("eef_pos"), spec.slice_of(thing)
        self._release = float("inf") if release is None else _CARRY + release

    @abstractmethod
    def way(self, eef: Tensor, state: Tensor, offset: Tensor) -> Sequence[tuple[Tensor, float]]:
        """Where the hand goes with what it believes to hold, and how near is near enough to go on.

        Args:
            eef: (B, 3) the hand.
            state: (B, D).
            offset: (B, 2) perception error of the operator.

        Returns:
            For each stage a point (B, 3) and a distance in metres; the last stage never ends.
        """

    def lost(self, eef: Tensor, seen: Tensor) -> Tensor:
        """(B,) whether the hand has left the thing, seen at `seen` (B, 3), behind."""
        return eef[:, 2] > seen[:, 2] + 0.04

    def sample(self, obs: Tensor, carry: Carry, noise: Tensor) -> tuple[Tensor, Carry]:
        """One action per episode; see `robopolicy.protocols.Policy`. `noise` is (B, 1, A)."""
        state = obs[:, -1]
        eef, thing = state[:, self._eef], state[:, self._thing]
        phase, timer = carry["phase"].clone(), carry["timer"] + 1
        offset, retry = carry["offset"].clone(), carry["retry"].clone()

        # Perception errors are about where the thing is, so they vanish once it moves in the hand.
        seen = thing.clone()
        seen[:, :2] += offset
        seen = seen + self._grip
        via = seen + carry["via"]
        above = seen + torch.tensor([0.0, 0.0, 0.05])
        away = (eef[:, :2] - seen[:, :2]).norm(dim=-1)

        phase = torch.where((phase == _VIA) & ((eef - via).norm(dim=-1) < 0.03), _APPROACH, phase)
        phase = torch.where((phase == _APPROACH) & (away < 0.012), _DESCEND, phase)
        down = (phase == _DESCEND) & (eef[:, 2] - seen[:, 2] < 0.006)
        timer = torch.where(down, 0.0, timer)
        phase = torch.where(down, _CLOSE, phase)
        phase = torch.where((phase == _CLOSE) & (timer > _CLOSING_STEPS), _CARRY, phase)
        held = (phase >= _CARRY) & (phase < self._release)
        missed = held & self.lost(eef, seen)
        again = missed & (retry > 0)
        phase = torch.where(again, _APPROACH, phase)
        offset = torch.where(again[:, None], 0.2 * offset, offset)  # a second look sees better
        retry = torch.where(again, 0.0, retry)

        target = torch.where((phase == _APPROACH)[:, None], above, seen)
        target = torch.where((phase == _VIA)[:, None], via, target)
        way = self.way(eef, state, offset)
        for stage, (point, near) in enumerate(way, _CARRY):
            if stage < _CARRY + len(way) - 1:
                arrived = (phase == stage) & ((eef - point).norm(dim=-1) < near)
                phase = torch.where(arrived, stage + 1, phase)
            target = torch.where((phase == stage)[:, None], point, target)
        reach = torch.where((phase == _CLOSE)[:, None], 0.0, 1.2 * (target - eef))
        grip = torch.where((phase >= _CLOSE) & (phase < self._release), 1.0, -1.0)
        action = self.moved(reach, carry, noise, grip)
        return action, {**carry, "phase": phase, "timer": timer, "offset": offset, "retry": retry}


def operators(
    shares: tuple[float, float, float], mistake_m: tuple[float, float]
) -> dict[str, ExpertSettings]:
    """One careful operator and two whose camera is miscalibrated ("mixed"), or all careful ("careful").

    Args:
        shares: of the episodes that each drives.
        mistake_m: systematic error of the miscalibrated ones, in x and y.
    """
    above, slanted, sweeping = shares
    mixed = (
        Operator("from above", _ABOVE, above),
        Operator("slanted", _SLANTED, slanted, mistake_m),
        Operator("sweeping", _SWEEPING, sweeping, mistake_m),
    )
    careful = (
        Operator("from above", _ABOVE),
        Operator("slanted", _SLANTED),
        Operator("sweeping", _SWEEPING),
    )
    return {"mixed": ExpertSettings(mixed), "careful": ExpertSettings(careful, noise=0.05, p_retry=1.0)}
