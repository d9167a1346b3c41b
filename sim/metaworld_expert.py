"""The scripted experts of Meta-World, in the hands of operators who err, and who operates them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robopolicy.protocols import Carry
from robopolicy.spec import Spec
from sim.experts import Expert, ExpertSettings, Operator

_VIA, _SCRIPT = range(2)
_ARRIVED_M = 0.015
# Where Meta-World's scripts look for hand, opening, object and goal in their 39 numbers.
_SEEN = {"hand_pos": slice(0, 3), "opening": slice(3, 4), "object_pos": slice(4, 7), "goal": slice(36, 39)}


class MetaWorldExpert(Expert):
    """Passes its operator's via point, then follows Meta-World's own script for the task.

    Args:
        spec: the task's Spec.
        settings: who drives.
        script: Meta-World's name of the task, such as "push-v3".
    """

    def __init__(self, spec: Spec, settings: ExpertSettings, script: str):
        super().__init__(spec, settings)
        from metaworld.policies import ENV_POLICY_MAP

        self._script: Any = ENV_POLICY_MAP[script]()
        self._where = {name: spec.slice_of(name) for name in _SEEN}

    def sample(self, obs: Tensor, carry: Carry, noise: Tensor) -> tuple[Tensor, Carry]:
        """One action per episode; see `robopolicy.protocols.Policy`. `noise` is (B, 1, A)."""
        state = obs[:, -1].clone()
        hand, seen = state[:, self._where["hand_pos"]], state[:, self._where["object_pos"]]
        seen[:, :2] += carry["offset"]
        via = seen + carry["via"]
        arrived = (hand - via).norm(dim=-1) < _ARRIVED_M
        phase = torch.where(arrived, float(_SCRIPT), carry["phase"])
        scripted = torch.from_numpy(np.stack([self._ask(row) for row in state.numpy()]))
        reach = scripted[:, :3].clamp(-1, 1) * self._high[:3]
        on_the_way = phase == _VIA
        reach = torch.where(on_the_way[:, None], 0.2 * (via - hand), reach)
        grip = torch.where(on_the_way, -1.0, scripted[:, 3].clamp(-1, 1))
        return self.moved(reach, carry, noise, grip), {**carry, "phase": phase}

    def _ask(self, state: np.ndarray) -> np.ndarray:
        """(4,) what the script would do in the state that the operator sees."""
        seen = np.zeros(39)
        for name, place in _SEEN.items():
            seen[place] = state[self._where[name]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it is going to clip
            return self._script.get_action(seen)[:4].astype(np.float32)


def _operators(
    left: tuple[float, float], right: tuple[float, float], careful_share: float = 0.6
) -> dict[str, ExpertSettings]:
    """A careful operator, alone ("careful") or beside two who see the object by `left`, `right` aside."""
    share = (1 - careful_share) / 2
    careful = Operator("from above", (0.0, 0.0, 0.12), careful_share)
    mistaken = (
        Operator("from the left", (-0.10, 0.0, 0.08), share, left),
        Operator("from the right", (0.10, 0.04, 0.08), share, right),
    )
    return {"mixed": ExpertSettings((careful, *mistaken)), "careful": ExpertSettings((careful,), noise=0.05)}


# The offsets are those at which each script begins to fail.
OPERATORS = {
    "push": _operators((-0.03, 0.0), (0.0, 0.03), 0.7),
    "coffee-pull": _operators((-0.03, 0.0), (0.0, -0.03), 0.7),
    "lever-pull": _operators((0.04, 0.0), (0.0, -0.03), 0.7),
    "soccer": _operators((-0.02, 0.0), (0.02, 0.0)),
}
