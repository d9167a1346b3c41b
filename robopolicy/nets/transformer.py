"""Transformer denoiser: action tokens attend to each other and to the observation tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robopolicy.nets.mlp import sinusoid


class TransformerDenoiser(nn.Module):
    """Pre-norm encoder over [step, condition, K action tokens] (after Chi et al. 2023, sec. 4.3).

    Args:
        chunk: K.
        action_dim: A.
        cond_dim: size of the condition.
        width: token size.
        layers: encoder layers.
    """

    def __init__(self, chunk: int, action_dim: int, cond_dim: int, width: int, layers: int):
        super().__init__()
        self.width = width
        self.inp = nn.Linear(action_dim, width)
        self.cond = nn.Linear(cond_dim, width)
        self.position = nn.Parameter(torch.zeros(1, chunk + 2, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.out = nn.Linear(width, action_dim)

    def forward(self, x: Tensor, step: Tensor, cond: Tensor) -> Tensor:
        """(B, K, A) prediction for noisy chunks x (B, K, A) at levels of noise (B,)."""
        tokens = [sinusoid(step, self.width)[:, None], self.cond(cond)[:, None], self.inp(x)]
        return self.out(self.encoder(torch.cat(tokens, 1) + self.position)[:, 2:])
