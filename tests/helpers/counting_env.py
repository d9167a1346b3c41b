"""An environment whose state is the number of its steps, and chunks in it."""

from __future__ import annotations

import gymnasium
import numpy as np

from robopolicy.spec import Field, Spec
from sim.vector import ChunkWrapper

SPEC = Spec("toy", "count", 10, 4, 2, 10, (Field("x", 1, "1", -1, 100),), (), (Field("u", 1, "1", -1, 1),))


class Counter(gymnasium.Env):
    """State is the number of steps; succeeds at `goal`."""

    def __init__(self, goal: int):
        self.goal, self.count = goal, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.count += 1
        won, late = self.count == self.goal, self.count >= SPEC.horizon
        return np.full(1, self.count, np.float32), float(won), won, late and not won, {"is_success": won}


def run(goal: int, linger: int = 0) -> tuple[Counter, list[tuple]]:
    inner = Counter(goal)
    env = ChunkWrapper(lambda: inner, SPEC, SPEC.chunk, linger)
    env.reset(seed=0)
    return inner, [env.step(np.zeros((SPEC.chunk, 1), np.float32)) for _ in range(5)]
