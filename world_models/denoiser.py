"""EDM diffusion of a vector given a condition (Karras et al. 2022, arXiv 2206.00364, table 1), and its peer.

    D(x; s, c) = c_skip x + c_out F(c_in x, c_noise, c)
    c_skip = d^2/(s^2+d^2)   c_out = s d/sqrt(s^2+d^2)   c_in = 1/sqrt(s^2+d^2)   c_noise = ln(s)/4

The data is normalised before it comes here, so d (sigma_data) is 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from robopolicy.nets.mlp import ResidualBlock

SIGMA_DATA = 1.0


class Denoiser(nn.Module):
    """Preconditioned residual MLP.

    Args:
        dim: size of the vector to denoise.
        cond_dim: size of the condition.
        width: hidden units.
        blocks: residual blocks.
    """

    def __init__(self, dim: int, cond_dim: int, width: int, blocks: int):
        super().__init__()
        self.dim = dim
        self.inp = nn.Linear(dim, width)
        self.cond = nn.Linear(cond_dim, width)
        self.level = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.out = nn.Linear(width, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        """Best guess of the clean vector.

        Args:
            x: (B, dim) noisy vector.
            sigma: (B, 1) noise level.
            cond: (B, cond_dim) condition, roughly unit variance.
        """
        return self.clean(x, sigma, self.cond(cond))

    def clean(self, x: Tensor, sigma: Tensor, given: Tensor) -> Tensor:
        """As `forward`, for what `cond` makes of the condition (B, width); `sigma` may be (1, 1)."""
        total = sigma**2 + SIGMA_DATA**2
        h = self.inp(x * total.rsqrt()) + given + self.level(fourier(sigma.log() / 4))
        for block in self.blocks:
            h = block(h)
        return x * SIGMA_DATA**2 / total + self.out(h) * sigma * SIGMA_DATA * total.rsqrt()

    def loss(self, clean: Tensor, cond: Tensor, generator: torch.Generator) -> Tensor:
        """EDM loss, weighted so that F's target has unit variance.

        Args:
            clean: (B, dim) target.
            cond: (B, cond_dim) condition.
            generator: of noise level and noise.
        """
        level = torch.randn(len(clean), 1, generator=generator)
        sigma = (level * 1.4 - 0.4).exp()  # covers the sampler's 0.02 .. 10 within 2 sigma
        noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
        weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
        return ((self(noisy, sigma, cond) - clean) ** 2 * weight).mean()


class GaussianErrors(nn.Module):
    """What diffusion is measured against: a normal distribution, its mean and spread by a network.

    As in probabilistic ensembles (Chua et al. 2018, arXiv 1805.12114, section 4), with as many layers and
    units as `Denoiser`.

    Args:
        dim: size of the vector.
        cond_dim: size of the condition.
        width: hidden units.
        blocks: residual blocks.
    """

    def __init__(self, dim: int, cond_dim: int, width: int, blocks: int):
        super().__init__()
        self.cond = nn.Linear(cond_dim, width)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.out = nn.Linear(width, 2 * dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def moments(self, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation, (B, dim) each, given (B, cond_dim)."""
        mean, log_std = self.out(self.blocks(self.cond(cond))).chunk(2, -1)
        # Smoothly bounded, as there (appendix A.1): a variance of zero would end training.
        return mean, 3 * torch.tanh(log_std / 3)

    def sample(self, noise: Tensor, cond: Tensor) -> Tensor:
        """(B, dim) draw, from standard normal noise (B, dim)."""
        mean, log_std = self.moments(cond)
        return mean + log_std.exp() * noise

    def loss(self, clean: Tensor, cond: Tensor, generator: torch.Generator) -> Tensor:
        """Negative log-likelihood, but for a constant; see `Denoiser.loss`."""
        mean, log_std = self.moments(cond)
        return (0.5 * ((clean - mean) * (-log_std).exp()).square() + log_std).mean()


def fourier(x: Tensor) -> Tensor:
    """(B, 16) sines and cosines of numbers (B, 1): how a network is told of a level of noise."""
    freqs = torch.exp(torch.arange(8, device=x.device) * (math.log(32.0) / 7)) * math.pi
    angles = x * freqs
    return torch.cat([angles.sin(), angles.cos()], -1)


def karras_levels(steps: int, high: float = 10.0, low: float = 0.02, rho: float = 7.0) -> list[float]:
    """Noise levels from `high` to `low` and then 0 (Karras et al. 2022, eq. 5)."""
    ramp = [i / max(1, steps - 1) for i in range(steps)]
    return [(high ** (1 / rho) + r * (low ** (1 / rho) - high ** (1 / rho))) ** rho for r in ramp] + [0.0]


def euler_sample(clean: Callable[[Tensor, Tensor], Tensor], noise: Tensor, levels: Sequence[float]) -> Tensor:
    """Samples by Euler's method (Karras et al. 2022, algorithm 1 without its second order).

    Args:
        clean: best guess of the clean vectors (B, dim) for noisy ones (B, dim) and their level (1, 1).
        noise: (B, dim) standard normal.
        levels: from `karras_levels`.

    Returns:
        The sample (B, dim).
    """
    x = noise * levels[0]
    for now, after in itertools.pairwise(levels):
        guess = clean(x, x.new_full((1, 1), now))
        x = guess + (x - guess) * (after / now)
    return x
