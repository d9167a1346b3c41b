"""What is known of a chunk before it is sampled, and how much of it a new plan keeps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Known(NamedTuple):
    """What is known of a chunk before it is restored, such as actions that will be taken while it is.

    Attributes:
        chunk: (B, K, A) in [-1, 1].
        weight: (B, K, 1) from 0, nothing is known, to 1, it will be exactly so.
    """

    chunk: Tensor
    weight: Tensor


def overlap_weights(horizon: int, execute: int, delay: int) -> Tensor:
    """(H, 1) how much of the previous plan a new one has to keep; Black et al. 2025, eq. 5.

    All of what is executed before the new plan is there, then less and less, nothing where the old plan has
    ended.

    Args:
        horizon: actions per plan, H.
        execute: actions executed of each, K.
        delay: steps until a plan is there.
    """
    i, end = torch.arange(horizon), horizon - execute
    left = ((end - i) / (end - delay + 1)).clamp(0, 1)
    soft = left * left.expm1() / torch.tensor(1.0).expm1()
    return torch.where(i < delay, 1.0, torch.where(i < end, soft, 0.0))[:, None]
