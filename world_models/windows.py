"""Cuts episodes into the windows that a world model learns from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robopolicy.errors import BadInput
from robopolicy.seeding import stream
from robopolicy.spec import Spec
from robopolicy.types import Episode


@dataclass
class Windows:
    """Every place at which K actions could begin.

    Attributes:
        obs: (M, T, D) states up to the beginning.
        actions: (M, K, A) actions that followed; zero beyond the end.
        future: (M, K, D) states that followed; the last one repeated beyond the end.
        mask: (M, K) 1 where `future` was really seen.
        success: (M, K) 1 where the task was achieved in `future`.
        episode: (M,) which episode it came from.
    """

    obs: Tensor
    actions: Tensor
    future: Tensor
    mask: Tensor
    success: Tensor
    episode: Tensor

    def __getitem__(self, index: Tensor) -> Windows:
        return Windows(**{f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self)})

    def __len__(self) -> int:
        return len(self.obs)


def windows(episodes: Sequence[Episode], spec: Spec, steps: int = 0) -> Windows:
    """Cuts episodes into windows, one per step, of `steps` actions (a whole chunk by default)."""
    parts: list[tuple[np.ndarray, ...]] = []
    t, k = spec.obs_steps, steps or spec.chunk
    for number, e in enumerate(episodes):
        n = e.length
        if n == 0:
            continue
        starts = np.arange(n)
        past = np.maximum(starts[:, None] + np.arange(1 - t, 1), 0)
        ahead = starts[:, None] + np.arange(k)
        mask = ahead < n
        actions = np.where(mask[..., None], e.actions[np.minimum(ahead, n - 1)], 0)
        success = np.where(mask, e.achieved[np.minimum(ahead, n - 1)], False).astype(np.float32)
        row = (e.states[past], actions, e.states[np.minimum(ahead + 1, n)], mask, success)
        parts.append((*row, np.full(n, number)))
    if not parts:
        raise BadInput("world data", "at least one episode with at least one step", "none")
    obs, actions, future, mask, success, episode = (np.concatenate(x) for x in zip(*parts, strict=True))
    f = torch.from_numpy
    return Windows(
        f(obs).float(), f(actions).float(), f(future).float(), f(mask).float(), f(success), f(episode)
    )


def split[T](episodes: Sequence[T], share: float, seed: int) -> tuple[list[T], list[T]]:
    """Splits episodes into training and held-out ones."""
    order = stream(seed, "world-split").permutation(len(episodes))
    cut = max(1, round(share * len(episodes)))
    return [episodes[i] for i in order[cut:]], [episodes[i] for i in order[:cut]]
