"""Residual MLP blocks and an MLP denoiser for action chunks: the fastest on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """LayerNorm, linear, SiLU, linear, added to its input (B, W); starts as the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, width)
        self.down = nn.Linear(width, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.down(nn.functional.silu(self.up(self.norm(h))))


class MlpDenoiser(nn.Module):
    """Denoises a flattened chunk.

    Args:
        chunk: K.
        action_dim: A.
        cond_dim: size of the condition.
        width: hidden units.
        blocks: residual blocks.
        train_steps: diffusion steps, each with its own embedding; 0 if levels of noise are any number.
    """

    def __init__(self, chunk: int, action_dim: int, cond_dim: int, width: int, blocks: int, train_steps: int):
        super().__init__()
        self.inp = nn.Linear(chunk * action_dim, width)
        self.cond = nn.Linear(cond_dim, width)
        self.level = nn.Embedding(train_steps, width) if train_steps else Level(width)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.out = nn.Linear(width, chunk * action_dim)

    def forward(self, x: Tensor, step: Tensor, cond: Tensor) -> Tensor:
        """(B, K, A) prediction for noisy chunks x (B, K, A) at levels of noise (B,)."""
        h = self.inp(x.flatten(1)) + self.cond(cond) + self.level(step)
        return self.out(self.blocks(h)).view(x.shape)


class Level(nn.Module):
    """Embeds a level of noise (B,) that may be any number."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(32, width)

    def forward(self, level: Tensor) -> Tensor:
        return self.linear(sinusoid(level, 32))


def sinusoid(step: Tensor, dim: int) -> Tensor:
    """(B, dim) sinusoidal embedding of numbers (B,) (Vaswani et al. 2017, sec. 3.5)."""
    half = dim // 2
    freqs = torch.exp(-torch.arange(half, device=step.device) * (9.21 / (half - 1)))
    angles = step.float()[:, None] * freqs
    return torch.cat([angles.sin(), angles.cos()], -1)
