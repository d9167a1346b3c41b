"""Reality repeats itself exactly if nothing is changed."""

import dataclasses

import gymnasium
import numpy as np
from tiny import random_episodes, tiny_spec

from benchmarks.sensitivity import repeated

SPEC = tiny_spec()
NUDGE = SPEC.action_range[1][0]


class Narrow(gymnasium.Env):
    """Succeeds if the first action is exactly the recorded one."""

    def __init__(self, first):
        self.first, self.steps = first, 0

    def reset(self, *, seed=None, options=None):
        self.seed, self.steps = seed, 0
        return np.zeros(1), {}

    def step(self, action):
        won = self.steps == 0 and np.array_equal(action, self.first[self.seed])
        self.steps += 1
        return np.zeros(1), 0.0, won, False, {}


def test_replay_that_nothing_displaces_ends_as_recorded_and_a_nudge_can_undo_it():
    episodes = [
        dataclasses.replace(
            e, seed=i, success=True, actions=np.zeros_like(e.actions), achieved=np.ones(e.length, bool)
        )
        for i, e in enumerate(random_episodes(SPEC))
    ]
    env = Narrow({e.seed: e.actions[0] for e in episodes})
    for off, rate in ((0.0, 1.0), (0.5 * NUDGE, 0.0)):
        found = repeated(env, SPEC, episodes, off, np.random.default_rng(0))
        assert found["successes_as_successes"]["rate"] == rate
        assert "failures_as_failures" not in found
