"""Pictures as a few numbers: where in the picture each of some learned features is.

Shape letters: N pictures, B rows of S pictures, H height, W width, F features.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

VisionKind = Literal["none", "small", "resnet18", "vit"]


class SpatialSoftmax(nn.Module):
    """The expected position of each channel's activation (Finn et al. 2016, arXiv 1509.06113, eq. 2)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2C), positions from -1 to 1."""
        share = x.flatten(2).softmax(-1)
        rows, columns = (torch.linspace(-1, 1, n, device=x.device, dtype=x.dtype) for n in x.shape[2:])
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
        return (share @ grid).flatten(1)


class PatchTransformer(nn.Module):
    """A small vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929), its tokens laid out as a map.

    Args:
        width: numbers per patch, C.
        patch: side of a patch in pixels, P; what is left over at the lower and right edge is not seen.
        layers: of attention.
    """

    def __init__(self, width: int = 64, patch: int = 4, layers: int = 3):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, C, H/P, W/P)."""
        tokens = self.patches(x)
        size = (tokens.shape[2], tokens.shape[3])
        where = _positions(tokens.shape[1], size).to(tokens)
        out = self.encoder(rearrange(tokens, "n c h w -> n (h w) c") + where)
        return rearrange(out, "n (h w) c -> n c h w", h=size[0])


@lru_cache(maxsize=8)
def _positions(width: int, size: tuple[int, int]) -> Tensor:
    """(H*W, width) sines and cosines of where a patch is, row by row."""
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

    return torch.as_tensor(get_2d_sincos_pos_embed(width, size, output_type="pt"))  # type: ignore[arg-type]


class Vision(nn.Module):
    """Encodes the pictures of one camera.

    Args:
        kind: "small" (three convolutions, for a CPU), "resnet18" (GroupNorm in place of BatchNorm, as in
            Diffusion Policy, Chi et al. 2023) or "vit" (`PatchTransformer`).
        size: numbers per picture, F.
        crop: share of height and width that is seen: any part in training, else the middle.
    """

    def __init__(self, kind: VisionKind, size: int, crop: float):
        super().__init__()
        self.crop = crop
        self.body, channels = {"resnet18": _resnet18, "vit": _vit}.get(kind, _small)()
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


def _vit() -> tuple[nn.Module, int]:
    width = 64
    return PatchTransformer(width), width


def _resnet18() -> tuple[nn.Module, int]:
    from torchvision.models import resnet18

    whole = resnet18(weights=None, norm_layer=lambda channels: nn.GroupNorm(channels // 16, channels))
    return nn.Sequential(*list(whole.children())[:-2]), 512
