"""What a state world model sees of the past: built from the Spec, not from one task's indices."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from robopolicy.spec import Spec

# Distance at which two points may begin to touch, in metres.
_NEAR = 0.03


class Geometry:
    """Features of observations (B, T, D): the last state, its change, and how points lie to each other.

    Points are the Spec's fields of role "point"; they share one frame, so they may be subtracted. If the
    action displaces one of them, where that point is going to be is integrated, not learned: what happens
    in a chunk is decided by where its path meets an object, to the millimetre.

    Args:
        spec: what the numbers mean.
        steps: actions at once; by default a whole chunk.
    """

    def __init__(self, spec: Spec, steps: int = 0):
        steps = steps or spec.chunk
        points = {f.name: spec.slice_of(f.name) for f in spec.state if f.role == "point"}
        self.pairs = list(combinations(points.values(), 2))
        self.relation_names = [
            f"{a} - {b}: {what}"
            for a, b in combinations(points, 2)
            for what in ("x", "y", "z", "near x", "near y", "near z", "flat distance", "distance")
        ]
        robot = [points[f.name] for f in spec.proprio if f.name in points]
        objects = [points[f.name] for f in spec.objects if f.name in points]
        self.contacts = [(a, b) for a in robot for b in objects]
        self.moved, self.by, self.others = slice(0), slice(0), list(points.values())
        at = 0
        for f in spec.action:
            if f.moves:
                self.moved, self.by = points[f.moves], slice(at, at + f.size)
                self.others = [p for name, p in points.items() if name != f.moves]
            at += f.size
        history = spec.state_dim * spec.obs_steps
        path = steps * 3 * (1 + len(self.others)) if self.moved.stop else 0
        self.dim = history + len(self.relation_names) + steps * spec.action_dim + path

    def __call__(self, obs: Tensor, actions: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """(B, dim) raw features of (B, T, D) states and (B, K, A) actions.

        Args:
            obs: what was seen.
            actions: what will be done.
            low: (D,) smallest states that occur; no point goes further.
            high: (D,) largest states.
        """
        last, change = obs[:, -1], obs[:, 1:] - obs[:, :-1]
        parts = [last, change.flatten(1), self.relations(last), actions.flatten(1)]
        if self.moved.stop:
            path = self.path(last, actions, low, high)
            parts.append((path - last[:, None, self.moved]).flatten(1))
            parts += [((path - last[:, None, p]) / _NEAR).tanh().flatten(1) for p in self.others]
        return torch.cat(parts, -1)

    def path(self, last: Tensor, actions: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """(B, K, 3) where the point that the actions (B, K, A) displace is led from states (B, D)."""
        point, steps = last[:, self.moved], []
        for action in actions[..., self.by].unbind(1):
            # It stops at the border, and starts back from there.
            point = torch.maximum(torch.minimum(point + action, high[self.moved]), low[self.moved])
            steps.append(point)
        return torch.stack(steps, 1)

    def relations(self, states: Tensor) -> Tensor:
        """(..., R) how the points of states (..., D) lie to each other, as `relation_names` says."""
        parts = [states[..., :0]]
        for a, b in self.pairs:
            gap = states[..., a] - states[..., b]
            flat, far = gap[..., :2].norm(dim=-1, keepdim=True), gap.norm(dim=-1, keepdim=True)
            parts += [gap, (gap / _NEAR).tanh(), flat, far]
        return torch.cat(parts, -1)

    def contact(self, obs: Tensor) -> Tensor:
        """(B,) bool: a point of the robot is within 6 cm of a point of an object."""
        last = obs[:, -1]
        near = torch.zeros(len(last), dtype=torch.bool)
        for a, b in self.contacts:
            near |= (last[:, a] - last[:, b]).norm(dim=-1) < 2 * _NEAR
        return near
