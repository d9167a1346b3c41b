"""Windows of a policy: what was seen up to a step and what was done from it on."""

import numpy as np
import pytest
import torch
from tiny import episode, tiny_spec

from robopolicy.data.windows import PolicyWindows
from robopolicy.errors import BadInput

SPEC = tiny_spec()
EPISODES = [episode(SPEC, 1, 7, True), episode(SPEC, 2, 1, False), episode(SPEC, 3, 4, True)]


def test_windows_hold_what_each_episode_holds_at_each_step():
    data = PolicyWindows(EPISODES, SPEC)
    every = torch.arange(len(data))
    obs, actions, mask = data.obs(every), data.actions(every), data.mask(every)
    row = 0
    for e in EPISODES:
        for i in range(e.length):
            for t in range(SPEC.obs_steps):
                assert np.array_equal(obs[row, t], e.states[max(0, i + t - SPEC.obs_steps + 1)])
            for k in range(SPEC.chunk):
                assert np.array_equal(actions[row, k], e.actions[min(i + k, e.length - 1)])
                assert mask[row, k] == (i + k < e.length)
            row += 1
    assert row == len(data) == sum(e.length for e in EPISODES)


def test_windows_of_some_rows_are_rows_of_all_windows():
    data = PolicyWindows(EPISODES, SPEC)
    every, some = torch.arange(len(data)), torch.tensor([11, 0, 7, 7])
    for part in (data.obs, data.actions, data.mask):
        assert torch.equal(part(some), part(every)[some])


def test_windows_pass_over_empty_episodes():
    empty = episode(SPEC, 9, 0, False)
    with_empty = PolicyWindows([EPISODES[0], empty, EPISODES[2]], SPEC)
    without = PolicyWindows([EPISODES[0], EPISODES[2]], SPEC)
    every = torch.arange(len(without))
    assert len(with_empty) == len(without)
    assert torch.equal(with_empty.obs(every), without.obs(every))
    assert torch.equal(with_empty.actions(every), without.actions(every))


def test_windows_of_no_steps_are_refused():
    with pytest.raises(BadInput, match="at least one recorded step"):
        PolicyWindows([], SPEC)
