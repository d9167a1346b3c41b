"""The scripted experts of robosuite's tasks and who operates them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robopolicy.spec import Spec
from sim import lift_expert
from sim.experts import ExpertSettings
from sim.pick_expert import PickExpert, operators


class StackExpert(PickExpert):
    """Grasps the small cube, takes it over the other one, lowers it and lets go."""

    def __init__(self, spec: Spec, settings: ExpertSettings):
        super().__init__(spec, settings, "cube_pos", release=3)
        self._base = spec.slice_of("base_pos")

    def way(self, eef: Tensor, state: Tensor, offset: Tensor) -> Sequence[tuple[Tensor, float]]:
        seen = state[:, self._base].clone()
        seen[:, :2] += offset
        over, on = seen + torch.tensor([0.0, 0.0, 0.11]), seen + torch.tensor([0.0, 0.0, 0.048])
        raised = torch.cat([eef[:, :2], over[:, 2:]], -1)
        return [(raised, 0.03), (over, 0.015), (on, 0.008), (eef, 0.0)]


class CanExpert(PickExpert):
    """Grasps the can, takes it over its compartment and lets it fall."""

    _OVER = (0.1975, 0.36, 1.0)

    def __init__(self, spec: Spec, settings: ExpertSettings):
        super().__init__(spec, settings, "can_pos", release=2, grip_m=(0.0, 0.0, 0.02))

    def way(self, eef: Tensor, state: Tensor, offset: Tensor) -> Sequence[tuple[Tensor, float]]:
        over = torch.tensor(self._OVER).expand_as(eef)
        raised = torch.cat([eef[:, :2], over[:, 2:]], -1)
        return [(raised, 0.06), (over, 0.03), (eef, 0.0)]


class DoorExpert(PickExpert):
    """Reaches behind the handle from above and pulls."""

    def __init__(self, spec: Spec, settings: ExpertSettings):
        super().__init__(spec, settings, "handle_pos", grip_m=(0.0, -0.039, -0.02))

    def lost(self, eef: Tensor, seen: Tensor) -> Tensor:
        return eef[:, 1] > seen[:, 1] + 0.05

    def way(self, eef: Tensor, state: Tensor, offset: Tensor) -> Sequence[tuple[Tensor, float]]:
        return [(eef + torch.tensor([0.0, 0.1, 0.0]), 0.0)]


EXPERTS = {"lift": lift_expert.LiftExpert, "stack": StackExpert, "can": CanExpert, "door": DoorExpert}

OPERATORS = {
    "lift": lift_expert.OPERATORS,
    "stack": operators((0.6, 0.22, 0.18), (0.045, 0.0)),
    "can": operators((0.53, 0.26, 0.21), (0.045, 0.0)),
    # Their hook comes down before the handle, not behind it.
    "door": operators((0.6, 0.22, 0.18), (0.0, 0.08)),
}
