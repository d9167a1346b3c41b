"""The scripted expert of Lift and who operates it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robopolicy.spec import Spec
from sim.experts import ExpertSettings
from sim.pick_expert import PickExpert, operators

OPERATORS = operators((0.6, 0.22, 0.18), (0.045, 0.0))


class LiftExpert(PickExpert):
    """Grasps and lifts a cube."""

    def __init__(self, spec: Spec, settings: ExpertSettings):
        super().__init__(spec, settings, "cube_pos")

    def way(self, eef: Tensor, state: Tensor, offset: Tensor) -> Sequence[tuple[Tensor, float]]:
        return [(eef + torch.tensor([0.0, 0.0, 0.1]), 0.0)]
