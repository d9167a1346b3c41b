"""What a policy remembers from one chunk to the next: SEGA, or what it is compared with.

All share one interface: `memory(obs (B, T, E), before (B, *shape), fresh (B,))` gives what is read
(B, read_size) and the memory after. The denoiser is conditioned on what is read, and on nothing else.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from robopolicy.nets.sega import Sega

MemoryKind = Literal["none", "sega", "lstm", "stacked"]


class LstmMemory(nn.Module):
    """One LSTM cell (Hochreiter and Schmidhuber 1997); reads are the present beside the hidden state.

    Args:
        size: numbers per observation, E.
        obs_steps: T.
        width: hidden units.
    """

    def __init__(self, size: int, obs_steps: int, width: int):
        super().__init__()
        self.shape, self.read_size = (2, width), 2 * width
        self.token, self.cell = nn.Linear(obs_steps * size, width), nn.LSTMCell(width, width)

    def forward(self, obs: Tensor, memory: Tensor, fresh: Tensor) -> tuple[Tensor, Tensor]:
        before = torch.where(fresh[:, None, None], 0.0, memory)
        token = self.token(obs.flatten(1))
        hidden, cell = self.cell(token, (before[:, 0], before[:, 1]))
        return torch.cat([token, hidden], -1), torch.stack([hidden, cell], 1)


class StackedMemory(nn.Module):
    """The last observations, one per chunk, as they were; the first one repeated at the start.

    Args:
        size: numbers per observation, E.
        obs_steps: T.
        chunks: how many chunks back.
    """

    def __init__(self, size: int, obs_steps: int, chunks: int):
        super().__init__()
        self.shape, self.read_size = (chunks, size), (obs_steps + chunks) * size

    def forward(self, obs: Tensor, memory: Tensor, fresh: Tensor) -> tuple[Tensor, Tensor]:
        before = torch.where(fresh[:, None, None], obs[:, -1:], memory)
        read = torch.cat([obs, before], 1).flatten(1)
        return read, torch.cat([before[:, 1:], obs[:, -1:]], 1)


Memory = Sega | LstmMemory | StackedMemory


def make_memory(
    kind: MemoryKind, size: int, obs_steps: int, width: int, slots: int, layers: int, gated: bool
) -> Memory | None:
    """The memory called `kind`; none for "none".

    Args:
        kind: which.
        size: numbers per observation.
        obs_steps: T.
        width: of a token, or hidden units.
        slots: of SEGA, or chunks stacked.
        layers: of SEGA.
        gated: whether SEGA has its gate.
    """
    if kind == "sega":
        return Sega(size, obs_steps, width, slots, layers, heads=4, gated=gated)
    if kind == "lstm":
        return LstmMemory(size, obs_steps, width)
    return StackedMemory(size, obs_steps, slots) if kind == "stacked" else None
