"""SEGA: a memory of fixed size that observations are read against and written into through a gate.

SeedPolicy (arXiv 2603.05117, eqs. 8-11). Two streams read the same previous pair in parallel: the memory
looks at the observations (write), the observations at the memory (read). How strongly a slot looks at the
present, before the softmax, says how much of it is overwritten. Unlike in the public release, gradients
flow through the gated write, the gates begin nearly closed (open half-way, little is left after a few calls)
and the slots apart (alike, they go on holding the same).

Shape letters: B batch, T observation steps, E numbers per observation, S slots, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Mean logit of a gate to begin with: an eighth of a slot is overwritten.
_CLOSED = -2.0
# Spread of the slots' positions to begin with, where what they hold has spread 1.
_APART = 0.5


class Attention(nn.Module):
    """Multi-head attention that also tells the mean of its logits."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def lower(self, logit: float) -> None:
        """Sets the biases to what adds `logit`, a negative one, to all logits."""
        width = len(self.query.bias)
        bias = (-logit / (width // self.heads) ** 0.5) ** 0.5
        nn.init.constant_(self.query.bias, bias)
        nn.init.constant_(self.key_value.bias[:width], -bias)

    def forward(self, query: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, W) what queries (B, N, W) find in `memory` (B, M, W), and (B, N) their mean raw logit.

        The mean of q.k/sqrt(d) over heads and keys is a product with the mean key: no matrix of logits is
        ever formed.
        """
        q, (k, v) = self.query(query), self.key_value(memory).chunk(2, -1)
        split = [x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v)]
        found = functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        scale = self.heads * (q.shape[-1] // self.heads) ** 0.5
        return self.out(found), (q * k.mean(1, keepdim=True)).sum(-1) / scale


class Block(nn.Module):
    """Self-attention, a look at the other stream, and an MLP; each added to what came in."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.own, self.cross = Attention(width, heads), Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, W) and the mean logit (B, N) of its look at `other` (B, M, W)."""
        own, look, there, last = self.norms
        normal = own(x)
        x = x + self.own(normal, normal)[0]
        found, logit = self.cross(look(x), there(other))
        x = x + found
        return x + self.mlp(last(x)), logit


class Sega(nn.Module):
    """The memory module.

    Args:
        size: numbers per observation, E.
        obs_steps: T; each observation is one token.
        width: of a token, W.
        slots: S.
        layers: blocks of either stream.
        heads: of attention.
        gated: False overwrites the whole memory at every call (an ablation).
    """

    def __init__(
        self, size: int, obs_steps: int, width: int, slots: int, layers: int, heads: int, gated: bool = True
    ):
        super().__init__()
        self.gated, self.shape, self.read_size = gated, (slots, width), obs_steps * width
        self.token = nn.Linear(size, width)
        self.start = nn.Parameter(0.02 * torch.randn(slots, width))
        self.position = nn.Parameter(_APART * torch.randn(slots, width))
        writers = [Block(width, heads) for _ in range(layers)]
        for block in writers:
            block.cross.lower(_CLOSED)
        self.write = nn.ModuleList(writers)
        self.read = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm_memory, self.norm_read = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, obs: Tensor, memory: Tensor, fresh: Tensor) -> tuple[Tensor, Tensor]:
        """What is read (B, T*W), and the next memory (B, S, W).

        Args:
            obs: (B, T, E), newest last.
            memory: (B, S, W); of no effect where `fresh`.
            fresh: (B,) bool: the episode begins, its memory is replaced whatever the gate says.
        """
        read, following, _ = self.look(obs, memory, fresh)
        return read, following

    def look(self, obs: Tensor, memory: Tensor, fresh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, and the gate (B, S): 1 where a slot is overwritten."""
        fresh = fresh[:, None, None]
        before = torch.where(fresh, self.start, memory) + self.position
        x, y, logits = before, self.token(obs), []
        for write, read in zip(self.write, self.read, strict=True):
            (x, logit), (y, _) = write(x, y), read(y, x)
            logits.append(logit)
        gate = torch.stack(logits).mean(0).sigmoid()[..., None]
        gate = torch.where(fresh, 1.0, gate) if self.gated else torch.ones_like(gate)
        following = gate * self.norm_memory(x) + (1 - gate) * before - self.position
        return self.norm_read(y).flatten(1), following, gate[..., 0]
