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

    Points are the Spec's fields of role "point"; they share one frame, so they may be subtracted.
    """

    def __init__(self, spec: Spec):
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
        history = spec.state_dim * spec.obs_steps
        self.dim = history + len(self.relation_names) + spec.chunk * spec.action_dim

    def __call__(self, obs: Tensor, actions: Tensor) -> Tensor:
        """(B, dim) raw features of (B, T, D) states and (B, K, A) actions."""
        last, change = obs[:, -1], obs[:, 1:] - obs[:, :-1]
        return torch.cat([last, change.flatten(1), self.relations(last), actions.flatten(1)], -1)

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
