"""Three blocks on a table, and a sentence that says which of them to touch or to stay above.

What is seen does not tell what is to be done. As in `sim.memory_env` the hand goes where it is told, and an
episode that has gone wrong is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robopolicy.protocols import Carry
from robopolicy.seeding import stream
from sim.experts import Expert
from sim.memory_env import MemoryEnv

_COLOURS = (("red", "crimson"), ("green", "emerald"), ("blue", "azure"))
_WORDINGS = {
    "touch": (
        "touch the {} block",
        "put your finger on the {} block",
        "go down to the {} one",
        "tap the {} cube",
    ),
    "hover": (
        "stay above the {} block",
        "hover over the {} one",
        "keep your hand high over the {} cube",
        "wait above the {} block",
    ),
}
_GOALS = tuple(product(_WORDINGS, range(len(_COLOURS))))
_APART_M, _NEAR_M, _LOW_M, _HIGH_M, _START_M = 0.45, 0.15, 0.12, 0.5, 0.3
_STAY = 6  # steps


def goal_of(seed: int) -> tuple[str, int]:
    """What is to be done in the episode of a seed: "touch" or "hover", and which block."""
    return _GOALS[int(stream(seed, "goal").integers(len(_GOALS)))]


def instruction(seed: int, familiar: bool) -> str:
    """The sentence of the episode of a seed.

    Half of the wordings are familiar. Every word of the others is, though not together.
    """
    verb, block = goal_of(seed)
    wordings = [
        sentence.format(name)
        for (i, sentence), (j, name) in product(enumerate(_WORDINGS[verb]), enumerate(_COLOURS[block]))
        if ((i + j + block) % 2 == 0) == familiar
    ]
    return wordings[int(stream(seed, "wording").integers(len(wordings)))]


class BlocksEnv(MemoryEnv):
    """See the module."""

    def begin(self, rng: np.random.Generator) -> None:
        self.hand[2] = _START_M
        self.blocks = np.zeros((len(_COLOURS), 3), np.float32)
        while True:
            self.blocks[:, :2] = rng.uniform(-0.8, 0.8, (len(_COLOURS), 2))
            gaps = np.linalg.norm(self.blocks[:, None] - self.blocks, axis=-1)
            if gaps[np.triu_indices(len(_COLOURS), 1)].min() > _APART_M:
                break
        self.stayed = np.zeros(len(_COLOURS), int)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """See `MemoryEnv.reset`; without a seed the goal is that of seed 0."""
        self.goal = goal_of(seed or 0)
        return super().reset(seed=seed, options=options)

    def judge(self) -> tuple[bool, bool]:
        over = np.linalg.norm(self.hand[:2] - self.blocks[:, :2], axis=-1) < _NEAR_M
        touched = over & (self.hand[2] < _LOW_M)
        high = over & (abs(self.hand[2] - _HIGH_M) < _NEAR_M)
        self.stayed = np.where(high, self.stayed + 1, 0)
        done = {"touch": touched, "hover": self.stayed >= _STAY}
        what = {(verb, int(block)) for verb, blocks in done.items() for block in np.flatnonzero(blocks)}
        return what == {self.goal}, bool(what - {self.goal})

    def shown(self) -> np.ndarray:
        return self.blocks.ravel()


class BlocksExpert(Expert):
    """Goes over the block that is meant, and down to it if it is to be touched."""

    def initial(self, seeds: Sequence[int]) -> Carry:
        """See `Expert.initial`; beside it, what is to be done."""
        goals = [goal_of(seed) for seed in seeds]
        touch = torch.tensor([verb == "touch" for verb, _ in goals]).float()
        block = torch.tensor([block for _, block in goals]).float()
        return {**super().initial(seeds), "touch": touch, "block": block}

    def sample(self, obs: Tensor, carry: Carry, noise: Tensor) -> tuple[Tensor, Carry]:
        """One action per episode; see `robopolicy.protocols.Policy`. `noise` is (B, 1, A)."""
        hand, blocks = obs[:, -1, :3], obs[:, -1, 3:].unflatten(1, (-1, 3))
        target = blocks[torch.arange(len(hand)), carry["block"].long()].clone()
        over = (hand - target)[:, :2].norm(dim=-1) < _NEAR_M / 2
        target[:, 2] = torch.where((carry["touch"] > 0) & over, 0.0, _HIGH_M)
        return self.moved(0.8 * (target - hand), carry, noise, torch.zeros(len(hand)))[..., :3], carry
