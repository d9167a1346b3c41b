"""Temporal U-Net over an action chunk (Janner et al. 2022; Chi et al. 2023, Diffusion Policy, sec. 4)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from robopolicy.nets.mlp import sinusoid


class FilmBlock(nn.Module):
    """Two convolutions with GroupNorm; the condition scales and shifts between them."""

    def __init__(self, inp: int, out: int, cond_dim: int):
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(inp, out, 3, padding=1), nn.GroupNorm(8, out), nn.SiLU())
        self.second = nn.Sequential(nn.Conv1d(out, out, 3, padding=1), nn.GroupNorm(8, out), nn.SiLU())
        self.film = nn.Linear(cond_dim, 2 * out)
        self.skip = nn.Conv1d(inp, out, 1) if inp != out else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        scale, shift = self.film(cond)[..., None].chunk(2, 1)
        return self.second(self.first(x) * (1 + scale) + shift) + self.skip(x)


class UnetDenoiser(nn.Module):
    """U-Net with one downsampling per entry of `channels` after the first.

    Args:
        chunk: K; padded to a multiple of the total stride.
        action_dim: A.
        cond_dim: size of the condition.
        channels: width of each resolution; multiples of 8.
    """

    def __init__(self, chunk: int, action_dim: int, cond_dim: int, channels: tuple[int, ...]):
        super().__init__()
        embed = 2 * channels[0]
        self.embed, self.stride = embed, 2 ** (len(channels) - 1)
        self.pad = -chunk % self.stride
        self.cond = nn.Sequential(nn.Linear(cond_dim + embed, embed), nn.SiLU(), nn.Linear(embed, embed))
        self.inp = nn.Conv1d(action_dim, channels[0], 1)
        pairs = list(itertools.pairwise(channels))
        self.down = nn.ModuleList(FilmBlock(a, a, embed) for a, _ in pairs)
        self.shrink = nn.ModuleList(nn.Conv1d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.middle = FilmBlock(channels[-1], channels[-1], embed)
        self.grow = nn.ModuleList(nn.ConvTranspose1d(b, a, 4, stride=2, padding=1) for a, b in pairs)
        self.up = nn.ModuleList(FilmBlock(2 * a, a, embed) for a, _ in pairs)
        self.out = nn.Conv1d(channels[0], action_dim, 1)

    def forward(self, x: Tensor, step: Tensor, cond: Tensor) -> Tensor:
        """(B, K, A) prediction for noisy chunks x (B, K, A) at levels of noise (B,)."""
        cond = self.cond(torch.cat([cond, sinusoid(step, self.embed)], -1))
        h = self.inp(nn.functional.pad(x.transpose(1, 2), (0, self.pad)))
        skips = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            h = block(h, cond)
            skips.append(h)
            h = shrink(h)
        h = self.middle(h, cond)
        for block, grow, skip in zip(reversed(self.up), reversed(self.grow), reversed(skips), strict=True):
            h = block(torch.cat([grow(h), skip], 1), cond)
        return self.out(h)[..., : x.shape[1]].transpose(1, 2)
