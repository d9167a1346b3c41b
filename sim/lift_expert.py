"""The scripted expert of Lift and who operates it."""

from __future__ import annotations

import torch
from torch import Tensor

from robopolicy.protocols import Carry
from robopolicy.spec import Spec
from sim.experts import Expert, ExpertSettings, Operator

_VIA, _APPROACH, _DESCEND, _CLOSE, _LIFT = range(5)
_ABOVE, _SLANTED, _SWEEPING = (0.0, 0.0, 0.13), (0.09, 0.0, 0.07), (0.03, 0.09, 0.08)

OPERATORS = {
    # One careful operator and two whose camera is miscalibrated.
    "mixed": ExpertSettings(
        (
            Operator("from above", _ABOVE, 0.5),
            Operator("slanted", _SLANTED, 0.27, (0.045, 0.0)),
            Operator("sweeping", _SWEEPING, 0.23, (0.045, 0.0)),
        )
    ),
    "careful": ExpertSettings(
        (
            Operator("from above", _ABOVE),
            Operator("slanted", _SLANTED),
            Operator("sweeping", _SWEEPING),
        ),
        noise=0.05,
        p_retry=1.0,
    ),
}


class LiftExpert(Expert):
    """Grasps and lifts a cube."""

    def __init__(self, spec: Spec, settings: ExpertSettings):
        super().__init__(spec, settings)
        self._eef, self._cube = spec.slice_of("eef_pos"), spec.slice_of("cube_pos")

    def sample(self, obs: Tensor, carry: Carry, noise: Tensor) -> tuple[Tensor, Carry]:
        """One action per episode; see `robopolicy.protocols.Policy`. `noise` is (B, 1, A)."""
        eef, cube = obs[:, -1, self._eef], obs[:, -1, self._cube]
        phase, timer = carry["phase"].clone(), carry["timer"] + 1
        offset, retry = carry["offset"].clone(), carry["retry"].clone()

        # Perception errors are about where the object is, so they vanish once it moves in the hand.
        seen = cube.clone()
        seen[:, :2] += offset
        via = seen + carry["via"]
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
        grip = torch.where(phase >= _CLOSE, 1.0, -1.0)
        action = self.moved(reach, carry, noise, grip)
        return action, {**carry, "phase": phase, "timer": timer, "offset": offset, "retry": retry}
