"""The sharp part of a world model: what is most likely to follow, by regression.

Trained by squared error, a network spends all it has on the mean. A denoiser of the same numbers also has to
carry their noise through its layers: with the same time and size it was far less exact.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robopolicy.nets.mlp import ResidualBlock

_FLAG_WEIGHT = 0.3


class Regressor(nn.Module):
    """Residual MLP from features to values and flags.

    Args:
        cond_dim: size of the features.
        values: how many numbers it predicts.
        flags: how many events it predicts.
        width: hidden units.
        blocks: residual blocks.
    """

    def __init__(self, cond_dim: int, values: int, flags: int, width: int, blocks: int):
        super().__init__()
        self.values = values
        self.inp = nn.Linear(cond_dim, width)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.out = nn.Linear(width, values + flags)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, cond: Tensor) -> Tensor:
        """(B, values + flags) from features (B, cond_dim); a flag is 2 p - 1 for its probability p."""
        raw = self._raw(cond)
        return torch.cat([raw[:, : self.values], (raw[:, self.values :] / 2).tanh()], 1)

    def loss(self, cond: Tensor, target: Tensor, known: Tensor) -> Tensor:
        """Squared error of known values and cross-entropy of known flags (each -1 or 1)."""
        raw, n = self._raw(cond), self.values
        error = ((raw[:, :n] - target[:, :n]) ** 2 * known[:, :n]).sum() / known[:, :n].sum().clamp_min(1)
        if raw.shape[1] == n:
            return error
        surprise = nn.functional.softplus(-raw[:, n:] * target[:, n:]) * known[:, n:]
        return error + _FLAG_WEIGHT * surprise.sum() / known[:, n:].sum().clamp_min(1)

    def _raw(self, cond: Tensor) -> Tensor:
        return self.out(self.blocks(self.inp(cond)))
