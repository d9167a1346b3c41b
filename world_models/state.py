"""A diffusion world model over physical states: next states, success and doubt for a whole chunk.

    robot:    next = last + linear mean(features) + scale * EDM
    objects:  next = last + epsilon * sinh(scale * EDM)

The linear mean (closed-form ridge) explains the robot's free motion; the diffusion ensemble adds what
is left. Objects mostly do not move at all: the sinh gives "not at all" a resolution of micrometres and
still reaches centimetres, so that an untouched object does not drift while imagination goes on. One
call predicts all K steps of a chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robopolicy.config import WorldConfig
from robopolicy.protocols import Prediction
from robopolicy.spec import Spec
from world_models.denoiser import Denoiser, euler_sample, karras_levels
from world_models.features import Geometry


class StateWorldModel(nn.Module):
    """Ensemble of residual denoisers, a success head and calibrated doubt; implements `WorldModel`.

    Args:
        spec: what the numbers mean.
        config: sizes and sampler.
    """

    feature_mean: Tensor
    feature_std: Tensor
    ridge: Tensor
    scale: Tensor
    epsilon: Tensor
    success_mean: Tensor
    success_std: Tensor
    state_std: Tensor
    seen_low: Tensor
    seen_high: Tensor
    state_low: Tensor
    state_high: Tensor
    doubt_scale: Tensor
    is_object: Tensor

    def __init__(self, spec: Spec, config: WorldConfig):
        super().__init__()
        self.spec, self.config = spec, config
        self.geometry = Geometry(spec)
        self.levels = karras_levels(config.sample_steps)
        cond, out = self.geometry.dim, spec.chunk * spec.state_dim
        self.members = nn.ModuleList(
            Denoiser(out, cond, config.width, config.blocks) for _ in range(config.members)
        )
        seen = spec.state_dim + len(self.geometry.relation_names)
        self.success_head = nn.Sequential(
            nn.Linear(seen, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)
        )
        for name, size in {
            "feature_mean": (cond,),
            "feature_std": (cond,),
            "ridge": (cond + 1, out),
            "scale": (out,),
            "epsilon": (out,),
            "success_mean": (seen,),
            "success_std": (seen,),
            "state_std": (spec.state_dim,),
            "seen_low": (spec.state_dim,),
            "seen_high": (spec.state_dim,),
            "state_low": (spec.state_dim,),
            "state_high": (spec.state_dim,),
            "doubt_scale": (1,),
        }.items():
            self.register_buffer(name, torch.ones(size))
        is_object = torch.arange(spec.state_dim) >= spec.proprio_dim
        self.register_buffer("is_object", is_object.repeat(spec.chunk))

    def condition(self, obs: Tensor, actions: Tensor) -> Tensor:
        """(B, cond_dim) normalised features."""
        features = self.geometry(obs, actions, self.seen_low, self.seen_high)
        return (features - self.feature_mean) / self.feature_std

    def encode(self, change: Tensor, cond: Tensor) -> Tensor:
        """Normalised target of the denoisers for a change of state (B, K*D); see the module's formulas."""
        robot = change - torch.addmm(self.ridge[-1], cond, self.ridge[:-1])
        return torch.where(self.is_object, (change / self.epsilon).asinh(), robot) / self.scale

    def decode(self, target: Tensor, cond: Tensor) -> Tensor:
        """Inverse of `encode`."""
        scaled = target * self.scale
        robot = scaled + torch.addmm(self.ridge[-1], cond, self.ridge[:-1])
        return torch.where(self.is_object, scaled.clamp(-20, 20).sinh() * self.epsilon, robot)

    @torch.no_grad()
    def predict(self, obs: Tensor, actions: Tensor, noise: Tensor) -> Prediction:
        """Imagines one chunk; see `robopolicy.protocols.WorldModel`."""
        cond = self.condition(obs, actions)
        target, spread = euler_sample([*self.members], cond, noise.flatten(1), self.levels)
        states = obs[:, -1:] + self.decode(target, cond).view(len(obs), self.spec.chunk, -1)
        states = torch.maximum(torch.minimum(states, self.state_high), self.state_low)
        doubt = spread.pow(2).mean(-1).sqrt() / self.doubt_scale
        return Prediction(states, self.success_logit(states).sigmoid(), doubt)

    def success_logit(self, states: Tensor) -> Tensor:
        """(...,) log-odds that the task is achieved in `states` (..., D)."""
        return self.success_head(self.success_inputs(states)).squeeze(-1)

    def success_inputs(self, states: Tensor) -> Tensor:
        """(..., S) normalised: the state and how its points lie to each other."""
        x = torch.cat([states, self.geometry.relations(states)], -1)
        return (x - self.success_mean) / self.success_std
