"""A world model over pictures: what the cameras will show, what the robot will measure, success and doubt.

A state of it is the robot's own numbers and all pictures as numbers from 0 to 1, so that imagination, the
rollout and judgement need not know of pixels. A chunk is imagined a few pictures at a time, as their change
since the last picture: EDM diffusion with few steps (`world_models.pixels.denoiser`), from noise that comes
in as an argument. The first step, which decides most, is the mean of an ensemble, and doubt is how much its
members disagree there. What comes out is rounded to the 256 levels that a camera has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from robopolicy.errors import BadInput
from robopolicy.nets.vision import Vision
from robopolicy.protocols import Prediction
from robopolicy.spec import Camera, Spec, picture_field
from world_models.denoiser import euler_sample, karras_levels
from world_models.pixels.config import PixelConfig
from world_models.pixels.denoiser import PixelDenoiser
from world_models.pixels.two_hot import action_code, code_size

_HIGHEST = 5.0  # level of noise from which sampling starts, DIAMOND's
_SEEN = 32  # numbers by which the success head knows a picture
_LEVELS = 255


def pixel_spec(spec: Spec, cameras: Sequence[Camera]) -> Spec:
    """The Spec whose state is what the robot measures and what its cameras show, (3, H, W) each.

    Raises:
        BadInput: if there is no camera, or they differ in size.
    """
    if len({(c.height, c.width) for c in cameras}) != 1:
        raise BadInput("cameras", "one size of pictures", [(c.name, c.height, c.width) for c in cameras])
    return replace(spec, objects=tuple(picture_field(c) for c in cameras), cameras=())


class PixelWorldModel(nn.Module):
    """Denoisers, a success head and doubt; implements `robopolicy.protocols.WorldModel`.

    Args:
        spec: of the robot and task; its objects are not looked at.
        cameras: whose pictures are imagined, all of one size.
        config: sizes and sampler.

    Attributes:
        spec: of states with their pictures.
        seen_as: the Spec that was given.
    """

    mean_picture: Tensor
    spread: Tensor
    own_mean: Tensor
    own_std: Tensor
    change_picture: Tensor
    change_own: Tensor
    doubt_scale: Tensor

    def __init__(self, spec: Spec, cameras: Sequence[Camera], config: PixelConfig):
        super().__init__()
        self.spec, self.seen_as, self.config = pixel_spec(spec, cameras), spec, config
        self.cameras = tuple(cameras)
        self.steps = max(k for k in range(1, config.stride + 1) if spec.chunk % k == 0)
        self.size = (3 * len(cameras), cameras[0].height, cameras[0].width)
        halvings = 2 ** (len(config.channels) - 1)
        if any(side % halvings for side in self.size[1:]):
            raise BadInput("cameras", f"sides that are multiples of {halvings}", self.size[1:])
        own = spec.proprio_dim
        code = self.steps * spec.action_dim * code_size(config.action_code)
        self.members = nn.ModuleList(
            PixelDenoiser(self.size, own, spec.obs_steps, self.steps, code, config)
            for _ in range(config.members)
        )
        self.eyes = nn.ModuleList(Vision("small", _SEEN, 1.0) for _ in cameras)
        self.success_head = nn.Sequential(
            nn.Linear(len(cameras) * _SEEN + own, 64), nn.SiLU(), nn.Linear(64, 1)
        )
        self.levels = karras_levels(config.sample_steps, high=_HIGHEST)
        for name, shape in {
            "mean_picture": self.size,
            "spread": (1,),
            "own_mean": (own,),
            "own_std": (own,),
            "change_picture": (1,),
            "change_own": (self.steps, own),
            "doubt_scale": (1,),
        }.items():
            self.register_buffer(name, torch.ones(shape))

    @property
    def device(self) -> torch.device:
        return self.doubt_scale.device

    def compile_denoisers(self, backend: str) -> None:
        """Has `torch.compile` translate their U-Nets when they are first called; not if `backend` is empty.

        Raises:
            BadInput: if there is no such backend.
        """
        if backend and backend not in torch.compiler.list_backends(exclude_tags=()):
            raise BadInput("compiler", f"one of {torch.compiler.list_backends()}", backend)
        for member in self.members if backend else ():
            cast(PixelDenoiser, member).net.compile(backend=backend)

    def split(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (..., C, H, W) and the robot's own numbers (..., P) of states (..., D)."""
        own, pictures = states.split([self.spec.proprio_dim, math.prod(self.size)], -1)
        return pictures.unflatten(-1, self.size), own

    def join(self, pictures: Tensor, own: Tensor) -> Tensor:
        """The inverse of `split`."""
        return torch.cat([own, pictures.flatten(-3)], -1)

    def seen(self, obs: Tensor) -> Tensor:
        """Planes of what was seen in observations (B, T, D), normalised."""
        pictures, own = self.split(obs)
        flat = [(pictures - self.mean_picture) / self.spread, (own - self.own_mean) / self.own_std]
        return cast(PixelDenoiser, self.members[0]).planes(
            torch.cat([x.flatten(1) for x in flat], 1), obs.shape[1]
        )

    def code(self, actions: Tensor) -> Tensor:
        """What the denoisers are told of actions (B, k, A) in physical units."""
        low, high = torch.from_numpy(self.spec.action_range).to(actions)
        return action_code(2 * (actions - low) / (high - low) - 1, self.config.action_code).flatten(1)

    def encode(self, last: Tensor, future: Tensor) -> Tensor:
        """(B, dim) normalised changes from states (B, D) to (B, k, D)."""
        pictures, own = self.split(future - last[:, None])
        parts = [pictures / self.change_picture, own / self.change_own]
        return torch.cat([x.flatten(1) for x in parts], 1)

    def decode(self, last: Tensor, change: Tensor) -> Tensor:
        """(B, k, D) states after normalised changes (B, dim); the inverse of `encode`, but for rounding."""
        k, own = self.steps, self.spec.proprio_dim
        flat, numbers = change.split([k * math.prod(self.size), k * own], 1)
        pictures, before = self.split(last)
        moved = before[:, None] + numbers.view(-1, k, own) * self.change_own
        shown = pictures[:, None] + flat.view(-1, k, *self.size) * self.change_picture
        low, high = torch.from_numpy(self.spec.state_range[:, :own]).to(moved)
        rounded = (shown.clamp(0, 1) * _LEVELS).round() / _LEVELS
        return self.join(rounded, torch.maximum(torch.minimum(moved, high), low))

    @torch.no_grad()
    def predict(self, obs: Tensor, actions: Tensor, noise: Tensor) -> Prediction:
        """Imagines one chunk; see `robopolicy.protocols.WorldModel`."""
        given, parts, spreads = (x.to(self.device) for x in (obs, actions, noise)), [], []
        obs, actions, noise = given
        for now, chance in zip(actions.split(self.steps, 1), noise.split(self.steps, 1), strict=True):
            change, spread = self._change(self.seen(obs), self.code(now), self._ordered(chance))
            parts.append(self.decode(obs[:, -1], change))
            spreads.append(spread)
            obs = torch.cat([obs, parts[-1]], 1)[:, -self.spec.obs_steps :]
        states = torch.cat(parts, 1)
        doubt = torch.stack(spreads).pow(2).mean(0).sqrt() / self.doubt_scale
        return Prediction(states.cpu(), self.success_logit(states).sigmoid().cpu(), doubt.cpu())

    def _ordered(self, noise: Tensor) -> Tensor:
        """Noise (B, k, D) of states as the denoisers have it, (B, dim)."""
        pictures, own = self.split(noise)
        return torch.cat([pictures.flatten(1), own.flatten(1)], 1)

    def _change(self, seen: Tensor, code: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Sampled changes (B, dim), and how far the ensemble disagrees about them (B,)."""
        spread: Tensor | None = None

        def clean(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal spread
            if spread is not None:
                return self.members[0](x, sigma, seen, code)
            guesses = torch.stack([m(x, sigma, seen, code) for m in self.members])
            pictures = self.steps * math.prod(self.size)
            variance = guesses.var(0, correction=0)
            spread = (variance[:, :pictures].mean(-1) + variance[:, pictures:].mean(-1)).sqrt()
            return guesses.mean(0)

        change = euler_sample(clean, self.config.temperature * noise, self.levels)
        assert spread is not None
        return change, spread

    def success_logit(self, states: Tensor) -> Tensor:
        """(...,) log-odds that the task is achieved in `states` (..., D)."""
        pictures, own = self.split(states.flatten(0, -2))
        views = pictures.split(3, 1)
        known = [eye(v[:, None])[:, 0] for eye, v in zip(self.eyes, views, strict=True)]
        own = (own - self.own_mean) / self.own_std
        return self.success_head(torch.cat([*known, own], -1)).view(states.shape[:-1])
