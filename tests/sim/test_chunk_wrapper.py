"""Chunks in a counting environment: never a step after the end, time-outs are not terminations."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

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


@pytest.mark.parametrize("goal", range(1, 11))
def test_chunk_success_anywhere_no_step_after_it(goal: int) -> None:
    inner, outcomes = run(goal)
    assert inner.count == goal
    assert sum(o[4]["executed"] for o in outcomes) == goal
    assert sum(o[2] for o in outcomes) == 1
    assert not any(o[3] for o in outcomes)


@pytest.mark.parametrize("goal", range(1, 11))
def test_chunk_linger_ends_exactly_later_and_still_succeeds(goal: int) -> None:
    inner, outcomes = run(goal, linger=3)
    assert inner.count == goal + 3
    assert np.concatenate([o[4]["achieved"][: o[4]["executed"]] for o in outcomes]).argmax() == goal - 1
    assert outcomes[-1][4]["success"]
    assert not any(o[3] for o in outcomes)


def test_chunk_time_limit_truncates_without_terminating() -> None:
    inner, outcomes = run(goal=99)
    assert inner.count == SPEC.horizon
    assert [o[3] for o in outcomes] == [False, False, True, False, False]
    assert not any(o[2] for o in outcomes)
    assert outcomes[2][4]["reason"] == "horizon"


def test_chunk_history_is_the_last_states() -> None:
    _, outcomes = run(goal=99)
    assert outcomes[0][0].ravel().tolist() == [3, 4]
