"""Pictures as a few numbers: where in the picture each of some learned features is.

Shape letters: N pictures, B rows of S pictures, H height, W width, F features.
"""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

VisionKind = Literal["none", "small", "resnet18"]


class SpatialSoftmax(nn.Module):
    """The expected position of each channel's activation (Finn et al. 2016, arXiv 1509.06113, eq. 2)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2C), positions from -1 to 1."""
        share = x.flatten(2).softmax(-1)
        rows, columns = (torch.linspace(-1, 1, n, device=x.device, dtype=x.dtype) for n in x.shape[2:])
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
        return (share @ grid).flatten(1)


class Vision(nn.Module):
    """Encodes the pictures of one camera.

    Args:
        kind: "small" (three convolutions, for a CPU) or "resnet18" (GroupNorm in place of BatchNorm, as in
            Diffusion Policy, Chi et al. 2023).
        size: numbers per picture, F.
        crop: share of height and width that is seen: any part in training, else the middle.
    """

    def __init__(self, kind: VisionKind, size: int, crop: float):
        super().__init__()
        self.crop = crop
        self.body, channels = _resnet18() if kind == "resnet18" else _small()
        self.keypoints = nn.Conv2d(channels, size // 2, 1)
        self.where, self.out = SpatialSoftmax(), nn.Linear(2 * (size // 2), size)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, S, F) for pictures (B, S, 3, h, w) from 0 to 1, already cropped."""
        flat = self.out(self.where(self.keypoints(self.body(2 * pictures.flatten(0, 1) - 1))))
        return flat.unflatten(0, pictures.shape[:2])

    def cropped(self, pictures: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(B, S, 3, h, w) the middle of pictures (B, S, 3, H, W), or a part that `generator` chooses.

        The S pictures of a row belong together and are cropped at the same place.
        """
        high, wide = pictures.shape[-2:]
        h, w = round(self.crop * high), round(self.crop * wide)
        if generator is None:
            top, left = (high - h) // 2, (wide - w) // 2
            return pictures[..., top : top + h, left : left + w]
        count = len(pictures)
        top, left = (torch.randint(n + 1, (count, 1), generator=generator) for n in (high - h, wide - w))
        rows, columns = top + torch.arange(h), left + torch.arange(w)
        every = torch.arange(count)[:, None, None]
        return rearrange(pictures[every, ..., rows[:, :, None], columns[:, None]], "b h w s c -> b s c h w")


def as_floats(pictures: Tensor) -> Tensor:
    """(..., 3, H, W) from 0 to 1, of pictures (..., H, W, 3) uint8 as they are recorded."""
    return rearrange(pictures, "... h w c -> ... c h w").float() / 255


def _small() -> tuple[nn.Module, int]:
    layers: list[nn.Module] = []
    for before, after, stride in ((3, 16, 2), (16, 32, 2), (32, 64, 1)):
        layers += [nn.Conv2d(before, after, 3, stride, 1), nn.GroupNorm(after // 8, after), nn.SiLU()]
    return nn.Sequential(*layers), 64


def _resnet18() -> tuple[nn.Module, int]:
    from torchvision.models import resnet18

    whole = resnet18(weights=None, norm_layer=lambda channels: nn.GroupNorm(channels // 16, channels))
    return nn.Sequential(*list(whole.children())[:-2]), 512
