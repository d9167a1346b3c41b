"""Conditions on start states: what they say, how episodes are chosen, what is refused."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from robopolicy.errors import BadInput
from robopolicy.protocols import ChunkEnv
from sim.specs import LIFT
from sim.starts import condition, indices_where

X = LIFT.state_names.index("cube_x")


class Starts:
    """An environment whose cube starts at x = seed / 100."""

    spec = LIFT

    def __init__(self, num_envs: int):
        self.num_envs = num_envs

    def reset(self, *, seed: list[int], options: Any = None) -> tuple[np.ndarray, dict]:
        obs = np.zeros((self.num_envs, LIFT.obs_steps, LIFT.state_dim), np.float32)
        obs[:, -1, X] = np.array(seed) / 100
        return obs, {}


def test_condition_above_and_below_divide_all_states():
    states = np.zeros((5, LIFT.state_dim))
    states[:, X] = [-0.2, -0.1, 0.0, 0.1, 0.2]
    below, above = (condition(f"cube_x {sign} 0.05", LIFT)(states) for sign in "<>")
    assert below.tolist() == [True, True, True, False, False]
    assert np.array_equal(above, ~below)


@pytest.mark.parametrize(
    "text", ["", "cube_x", "cube_x = 1", "cube_q < 1", "cube_x < nan", "cube_x < a", "cube_x < 1 2"]
)
def test_condition_malformed_refused(text):
    with pytest.raises(BadInput, match="where"):
        condition(text, LIFT)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_indices_any_number_of_environments_gives_the_first_that_meet_it(num_envs):
    env = cast("ChunkEnv", Starts(num_envs))
    assert indices_where("cube_x > 0.145", env, lambda i: 2 * i, 4) == [8, 9, 10, 11]


def test_indices_condition_that_no_start_meets_refused():
    with pytest.raises(BadInput, match="none of"):
        indices_where("cube_x < 0", cast("ChunkEnv", Starts(2)), lambda i: i, 1)
