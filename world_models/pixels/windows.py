"""Recorded pictures as the windows that a pixel world model learns from, cut when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from robopolicy.errors import BadInput
from robopolicy.spec import Camera, Spec
from robopolicy.types import Episode


class PixelBatch(NamedTuple):
    """Windows with their pictures; see `world_models.pixels.model.pixel_spec` for what a state is.

    Attributes:
        obs: (B, T, D) states up to the beginning.
        actions: (B, k, A) actions that followed.
        future: (B, k, D) states that followed.
        success: (B, k) 1 where the task was achieved in `future`.
    """

    obs: Tensor
    actions: Tensor
    future: Tensor
    success: Tensor


class PixelWindows:
    """Every place at which k actions could begin, k pictures later still inside the episode.

    What the last action led to was not photographed, so a window ends before it.

    Args:
        episodes: with the pictures of `cameras`.
        spec: of the robot and task.
        cameras: in the order of the state.
        steps: actions per window, k.

    Raises:
        BadInput: naming episode and camera of pictures that are missing or of another size, and if no
            episode is long enough.
    """

    def __init__(self, episodes: Sequence[Episode], spec: Spec, cameras: Sequence[Camera], steps: int):
        self.past, self.steps, self.own = spec.obs_steps, steps, spec.proprio_dim
        lengths = np.array([e.length for e in episodes])
        first = np.concatenate([[0], lengths.cumsum()[:-1]]) if len(lengths) else lengths
        fit = [np.arange(max(0, n - steps)) for n in lengths]
        if not sum(map(len, fit)):
            raise BadInput("world data", f"an episode of more than {steps} steps", f"{lengths.tolist()}")
        self.episode = torch.from_numpy(np.repeat(np.arange(len(fit)), [len(x) for x in fit]))
        self.start = torch.from_numpy(np.concatenate(fit))
        self._first = torch.from_numpy(first)[self.episode]
        self._frames = [torch.from_numpy(np.concatenate([e.film(c) for e in episodes])) for c in cameras]
        self._own = _joined([e.states[: e.length, : self.own] for e in episodes])
        self._actions = _joined([e.actions for e in episodes])
        self._achieved = _joined([np.concatenate([[False], e.achieved[:-1]]) for e in episodes])

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, index: Tensor) -> PixelBatch:
        """Windows `index` (B,)."""
        now, first = self._first[index] + self.start[index], self._first[index]
        past = torch.maximum(now[:, None] + torch.arange(1 - self.past, 1), first[:, None])
        ahead = now[:, None] + torch.arange(1, self.steps + 1)
        return PixelBatch(
            self.states(past),
            self._actions[now[:, None] + torch.arange(self.steps)],
            self.states(ahead),
            self._achieved[ahead],
        )

    def states(self, rows: Tensor) -> Tensor:
        """(..., D) states of some rows of all recorded ones."""
        pictures = [f[rows].movedim(-1, -3).flatten(-3).float() / 255 for f in self._frames]
        return torch.cat([self._own[rows], *pictures], -1)

    def rows(self, achieved: bool) -> Tensor:
        """Rows in which the task is achieved, or is not."""
        return torch.nonzero((self._achieved > 0) == achieved)[:, 0]

    def begins(self) -> Tensor:
        """(E, D) the first states of the episodes."""
        return self.states(self._first.unique())


def _joined(rows: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(rows)).float()
