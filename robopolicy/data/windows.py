"""Windows of episodes: what was observed up to a step, and what was done in the next K."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robopolicy.errors import BadInput
from robopolicy.spec import Spec
from robopolicy.types import Episode


class PolicyWindows:
    """One window per step of every episode.

    At the start of an episode the first state is repeated; beyond its end `mask` is 0 and actions
    repeat the last one.

    Args:
        episodes: recorded with this Spec.
        spec: T, K and sizes.

    Raises:
        BadInput: if there is no step at all.
    """

    def __init__(self, episodes: list[Episode], spec: Spec):
        lengths = np.array([e.length for e in episodes], int)
        if not lengths.sum():
            raise BadInput("dataset", "at least one recorded step", f"{len(episodes)} episodes, 0 steps")
        self.spec = spec
        self.episodes = [e for e in episodes if e.length]
        self.states = torch.from_numpy(np.concatenate([e.states for e in episodes if e.length]))
        self.steps = torch.from_numpy(np.concatenate([e.actions for e in episodes if e.length]))
        lengths = lengths[lengths > 0]
        first_state = np.cumsum(lengths + 1) - (lengths + 1)
        first_step = np.cumsum(lengths) - lengths
        at = np.concatenate([np.arange(n) for n in lengths])
        f = torch.from_numpy
        self.episode = f(np.repeat(np.arange(len(lengths)), lengths))
        self._at = f(at)
        self._length = f(np.repeat(lengths, lengths))
        self._first_state = f(np.repeat(first_state, lengths))
        self._first_step = f(np.repeat(first_step, lengths))

    def __len__(self) -> int:
        return len(self._at)

    def changes(self) -> tuple[Tensor, Tensor]:
        """(N, D) physical states at the beginning of each episode, and when its task was done or it ended."""
        ends = [e.achieved.argmax() + 1 if e.achieved.any() else e.length for e in self.episodes]
        first = np.stack([e.states[0] for e in self.episodes])
        last = np.stack([e.states[end] for e, end in zip(self.episodes, ends, strict=True)])
        return torch.from_numpy(first), torch.from_numpy(last)

    def chains(self) -> tuple[Tensor, Tensor]:
        """Rows of windows that follow each other by a chunk, of every episode from each of its first K steps.

        Returns:
            Their indices (M, C), and which of them there are (M, C) bool: the first so many of each row.
        """
        chunk, calls = self.spec.chunk, -(-int(self._length.max()) // self.spec.chunk)
        first = torch.arange(len(self))[self._at < chunk]
        ahead = chunk * torch.arange(calls)
        there = self._at[first][:, None] + ahead < self._length[first][:, None]
        return torch.where(there, first[:, None] + ahead, first[:, None]), there

    def obs(self, index: Tensor, size: int | None = None) -> Tensor:
        """(B, T, D) physical states, newest last; the first `size` numbers of each, if given."""
        back = torch.arange(1 - self.spec.obs_steps, 1)
        step = (self._at[index][:, None] + back).clamp_min(0)
        return self.states[:, :size][self._first_state[index][:, None] + step]

    def pictures(self, index: Tensor) -> list[Tensor]:
        """Of each camera (B, T, H, W, 3) uint8, newest last; read where they are recorded."""
        at = (self._at[index][:, None] + torch.arange(1 - self.spec.obs_steps, 1)).clamp_min(0)
        pairs = list(zip(self.episode[index].tolist(), at.tolist(), strict=True))
        return [
            torch.from_numpy(np.stack([self.episodes[e].pictures[c.name][steps] for e, steps in pairs]))
            for c in self.spec.cameras
        ]

    def actions(self, index: Tensor) -> Tensor:
        """(B, K, A) physical actions."""
        ahead = self._at[index][:, None] + torch.arange(self.spec.chunk)
        step = torch.minimum(ahead, self._length[index][:, None] - 1)
        return self.steps[self._first_step[index][:, None] + step]

    def mask(self, index: Tensor) -> Tensor:
        """(B, K) 1 where the action was really taken."""
        ahead = self._at[index][:, None] + torch.arange(self.spec.chunk)
        return (ahead < self._length[index][:, None]).float()
