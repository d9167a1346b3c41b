"""A ring buffer of transitions in one preallocated tensor, saved and restored as a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from robopolicy.errors import BadInput


class Batch(NamedTuple):
    """Transitions, one chunk each.

    Attributes:
        features: (B, F) what the actor saw; or (B, T*D) the observation itself, where actions are judged.
        latent: (B, M) what it chose, in units of the noise bound; or (B, K*A) the actions that were taken.
        reward: (B,) reward of the chunk.
        following: what it saw next, as `features`.
        discount: (B,) weight of the value of `following`: gamma, or 0 where there is no future.
    """

    features: Tensor
    latent: Tensor
    reward: Tensor
    following: Tensor
    discount: Tensor


class Replay:
    """The last `capacity` rows of some table, such as a `Batch`.

    One row holds a whole transition, so that a batch is one gather, and what lies side by side in it
    (what was seen, what was chosen) is read as one slice.

    Args:
        capacity: rows kept; the oldest are overwritten.
        widths: of the columns; 0 for a column of plain numbers (B,).
    """

    def __init__(self, capacity: int, widths: Sequence[int]):
        if capacity < 1:
            raise BadInput("replay capacity", "a positive integer", capacity)
        self._widths = list(widths)
        self._rows = torch.zeros(capacity, sum(w or 1 for w in widths))
        self._next = 0
        self.count = 0

    def add(self, columns: Sequence[Tensor]) -> None:
        """Appends rows.

        Raises:
            BadInput: if a number is not finite; nothing is added.
        """
        whole = zip(columns, self._widths, strict=True)
        rows = torch.cat([x if width else x[:, None] for x, width in whole], 1)
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

    def split(self, rows: Tensor) -> list[Tensor]:
        """The columns of rows, as views."""
        columns = rows.split([w or 1 for w in self._widths], 1)
        return [x if width else x[:, 0] for x, width in zip(columns, self._widths, strict=True)]

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
