"""Continuous actions as codes (World4RL, arXiv 2509.19080, section on action encoding)."""

from __future__ import annotations

import torch
from torch import Tensor

from world_models.pixels.config import ActionCode

# Bins per number, as in the paper.
BINS = 21


def two_hot(values: Tensor, bins: int = BINS) -> Tensor:
    """The two nearest of `bins` evenly spaced values from -1 to 1, weighted so that their mean is the value.

    Args:
        values: (..., A) from -1 to 1; what lies beyond is taken for the nearer end.
        bins: at least 2.

    Returns:
        (..., A, bins), sums to one.
    """
    at = (values.clamp(-1, 1) + 1) / 2 * (bins - 1)
    return (1 - (at[..., None] - torch.arange(bins, device=values.device)).abs()).clamp_min(0)


def from_two_hot(code: Tensor) -> Tensor:
    """(..., A) the values that codes (..., A, bins) stand for: the inverse of `two_hot`."""
    return code @ torch.linspace(-1, 1, code.shape[-1], device=code.device, dtype=code.dtype)


def action_code(values: Tensor, kind: ActionCode) -> Tensor:
    """(..., A * size) what a network is told of actions (..., A), each from -1 to 1.

    "one-hot" is the nearest of the same bins, "linear" the values themselves.
    """
    if kind == "linear":
        return values
    code = two_hot(values)
    if kind == "one-hot":
        code = torch.nn.functional.one_hot(code.argmax(-1), BINS).to(values.dtype)
    return code.flatten(-2)


def code_size(kind: ActionCode) -> int:
    """Numbers per number of an action."""
    return 1 if kind == "linear" else BINS
