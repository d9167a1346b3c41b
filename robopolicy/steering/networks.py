"""Small networks of the steerers: several equal ones evaluated as one batched matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional


class Mlp(nn.Module):
    """`members` equal perceptrons with LayerNorm and ReLU; twin critics cost one product, not two.

    LayerNorm keeps critics from extrapolating (Ball et al. 2023, arXiv 2302.02948, section 4.2); it
    has no gain or bias of its own: the next layer has them.

    Args:
        sizes: inputs, hidden widths, outputs.
        members: how many networks.
        generator: draws the initial weights (uniform in +-1/sqrt(inputs), as `nn.Linear`).
        last: factor on the initial weights of the last layer; 0 makes the output exactly 0.
    """

    def __init__(self, sizes: Sequence[int], members: int, generator: Generator, last: float = 1.0):
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for i, (a, b) in enumerate(pairwise(sizes)):
            scale = a**-0.5 * (last if i == len(sizes) - 2 else 1.0)
            self.weights.append((2 * torch.rand(members, a, b, generator=generator) - 1) * scale)
            self.biases.append(torch.zeros(members, 1, b))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) -> (members, B, outputs)."""
        h = x.expand(self.weights[0].shape[0], *x.shape)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if i:
                h = functional.relu(functional.layer_norm(h, h.shape[-1:]))
            h = torch.baddbmm(bias, h, weight)
        return h
