"""An eye: pictures as points, and points as pictures; trained once, then frozen like a sensor.

What it makes of a camera is a few numbers of a state, so that policies, world models, steering and robots
need not know that they see. Each learned point is the expected position of a feature in the picture (Finn et
al. 2016, arXiv 1509.06113, eq. 2); the picture is drawn from blots at these points (Jakab et al. 2018, arXiv
1806.07823), as a change of the mean picture. Nothing but the points gets through, so they have to be where
what changes is.

Shape letters: N pictures, H height, W width, P points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from robopolicy.nets.vision import SpatialSoftmax, as_floats
from robopolicy.spec import Camera, Field, picture_field

# Of a feature's activations before the softmax; without it points begin, and stay, in the middle.
_CONTRAST = 10.0


@dataclass(frozen=True)
class EyeConfig:
    """What an eye is like and how it learns.

    Attributes:
        kind: "points" are learned from pictures; "pixels" leaves them as they are, so that a policy learns
            itself what to look for, and nothing else here counts.
        points: per camera.
        width: channels of the convolutions.
        steps: updates.
        batch_size: pictures of each camera per update.
        lr: peak learning rate.
        moving: how much more a pixel weighs that is unlike the mean picture.
    """

    kind: Literal["points", "pixels"] = "points"
    points: int = 16
    width: int = 32
    steps: int = 2000
    batch_size: int = 32
    lr: float = 2e-3
    moving: float = 100.0


EYE_PRESETS = {
    "quick": EyeConfig(),
    "full": EyeConfig(points=32, width=64, steps=20_000, batch_size=128, lr=1e-3),
    "tiny": EyeConfig(points=4, width=8, steps=40, batch_size=16),
}


class CameraEye(nn.Module):
    """The part of an eye that looks at one camera.

    Args:
        camera: its size.
        config: its own.
    """

    mean: Tensor

    def __init__(self, camera: Camera, config: EyeConfig):
        super().__init__()
        width, points = config.width, config.points
        self.size = camera.height, camera.width
        self.look = nn.Sequential(
            *_layer(3, width, 2),
            *_layer(width, width, 1),
            *_layer(width, width, 1),
            nn.Conv2d(width, points, 1),
        )
        self.where = SpatialSoftmax()
        self.paint = nn.Sequential(
            *_layer(points, width, 1),
            *_layer(width, width, 1),
            nn.Conv2d(width, 4 * 3, 1),
            nn.PixelShuffle(2),
        )
        self.blot = nn.Parameter(torch.full((points,), 4.5))  # logarithm of how sharp each is
        self.register_buffer("mean", torch.zeros(3, *self.size))

    def see(self, pictures: Tensor) -> Tensor:
        """(N, 2P) points, from -1 to 1, of pictures (N, 3, H, W) from 0 to 1."""
        return self.where(_CONTRAST * self.look(2 * (pictures - self.mean)))

    def draw(self, points: Tensor) -> Tensor:
        """(N, 3, H, W) about from 0 to 1."""
        rows, columns = (torch.linspace(-1, 1, -(-n // 2), device=points.device) for n in self.size)
        at = points.unflatten(1, (-1, 2))[..., None]
        high, wide = -((rows - at[:, :, 0]) ** 2), -((columns - at[:, :, 1]) ** 2)
        sharp = self.blot.exp()[:, None, None]
        blots = torch.exp(sharp * (high[..., :, None] + wide[..., None, :]))
        return self.mean + self.paint(blots)[..., : self.size[0], : self.size[1]]


class Eye(nn.Module):
    """Sees all cameras of a Spec.

    Args:
        cameras: in this order.
        config: of each.
    """

    def __init__(self, cameras: tuple[Camera, ...], config: EyeConfig):
        super().__init__()
        self.cameras, self.config = cameras, config
        looked_at = cameras if config.kind == "points" else ()
        self.parts = nn.ModuleDict({c.name: CameraEye(c, config) for c in looked_at})

    @property
    def fields(self) -> tuple[Field, ...]:
        """What it adds to a state: per camera, the points, or the whole picture."""
        if self.config.kind == "pixels":
            return tuple(picture_field(c) for c in self.cameras)
        return tuple(Field(f"{c.name}_points", 2 * self.config.points, "1", -1.0, 1.0) for c in self.cameras)

    @torch.no_grad()
    def see(self, pictures: Mapping[str, Tensor]) -> Tensor:
        """(N, F) the numbers of `fields`, of pictures (N, H, W, 3) uint8 by camera."""
        shown = [as_floats(pictures[c.name]) for c in self.cameras]
        if self.config.kind == "pixels":
            return torch.cat([x.flatten(1) for x in shown], -1)
        return torch.cat([self.part(c.name).see(x) for c, x in zip(self.cameras, shown, strict=True)], -1)

    @torch.no_grad()
    def draw(self, seen: Tensor) -> dict[str, Tensor]:
        """Pictures (N, H, W, 3) uint8 by camera, of what was seen, or imagined to be seen, (N, F)."""
        parts = seen.split([f.size for f in self.fields], -1)
        drawn = (self._drawn(c, x).clamp(0, 1) for c, x in zip(self.cameras, parts, strict=True))
        pixels = [rearrange(255 * x, "n c h w -> n h w c").round().to(torch.uint8) for x in drawn]
        return {c.name: x for c, x in zip(self.cameras, pixels, strict=True)}

    def _drawn(self, camera: Camera, seen: Tensor) -> Tensor:
        if self.config.kind == "pixels":
            return seen.unflatten(1, (3, camera.height, camera.width))
        return self.part(camera.name).draw(seen)

    def part(self, camera: str) -> CameraEye:
        """What looks at one camera."""
        part = self.parts[camera]
        assert isinstance(part, CameraEye)
        return part

    def loss(self, camera: str, pictures: Tensor) -> Tensor:
        """Squared error of drawing pictures (N, 3, H, W) from 0 to 1 again, what moves weighing most."""
        part = self.part(camera)
        unlike = (pictures - part.mean).abs().mean(1, keepdim=True)
        weight = 1 + self.config.moving * unlike
        return (
            weight * functional.mse_loss(part.draw(part.see(pictures)), pictures, reduction="none")
        ).mean()


def _layer(before: int, after: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, 5 if stride == 2 else 3, stride, 2 if stride == 2 else 1),
        nn.GroupNorm(after // 8, after),
        nn.SiLU(),
    ]
