"""A ring buffer of transitions in one preallocated tensor, saved and restored as a tensor."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from robopolicy.errors import BadInput


class Batch(NamedTuple):
    """Transitions, one chunk each.

    Attributes:
        features: (B, F) what the actor saw.
        latent: (B, M) what it chose, in units of the noise bound.
        reward: (B,) reward of the chunk.
        following: (B, F) what it saw next.
        discount: (B,) weight of the value of `following`: gamma, or 0 where there is no future.
    """

    features: Tensor
    latent: Tensor
    reward: Tensor
    following: Tensor
    discount: Tensor


class Replay:
    """The last `capacity` transitions.

    One row holds a whole transition, features and latent first, so that a batch is one gather and
    the critic's input one slice of it.

    Args:
        capacity: rows kept; the oldest are overwritten.
        features: F.
        latent: M.
    """

    def __init__(self, capacity: int, features: int, latent: int):
        if capacity < 1:
            raise BadInput("replay capacity", "a positive integer", capacity)
        self._widths = [features, latent, 1, features, 1]
        self._rows = torch.zeros(capacity, sum(self._widths))
        self._next = 0
        self.count = 0

    def add(self, batch: Batch) -> None:
        """Appends transitions.

        Raises:
            BadInput: if a number is not finite; nothing is added.
        """
        f, u, r, n, d = batch
        rows = torch.cat([f, u, r[:, None], n, d[:, None]], 1)
        if not torch.isfinite(rows).all():
            raise BadInput("transition", "finite numbers", "NaN or infinity")
        capacity = len(self._rows)
        rows = rows[-capacity:]
        self._rows[(self._next + torch.arange(len(rows))) % capacity] = rows
        self._next = (self._next + len(rows)) % capacity
        self.count = min(capacity, self.count + len(rows))

    def sample(self, size: int, generator: Generator) -> Tensor:
        """(size, row) rows drawn uniformly with replacement; read them with `split`."""
        return self._rows.index_select(0, torch.randint(self.count, (size,), generator=generator))

    def split(self, rows: Tensor) -> Batch:
        """The parts of rows, as views."""
        f, u, r, n, d = rows.split(self._widths, 1)
        return Batch(f, u, r[:, 0], n, d[:, 0])

    def state(self) -> dict[str, Tensor]:
        return {"rows": self._rows[: self.count].clone(), "next": torch.tensor(self._next)}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `state` gave.

        Raises:
            BadInput: if the rows do not fit this buffer.
        """
        rows, capacity = tensors["rows"], len(self._rows)
        if rows.ndim != 2 or rows.shape[1] != self._rows.shape[1] or len(rows) > capacity:
            raise BadInput("replay", f"at most {capacity} rows of {self._rows.shape[1]}", tuple(rows.shape))
        self.count, self._next = len(rows), int(tensors["next"])
        self._rows[: self.count] = rows
