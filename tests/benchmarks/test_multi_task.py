"""Episodes of several tasks become episodes of one Spec."""

import dataclasses

import numpy as np
import pytest
from tiny import random_episodes, tiny_spec

from benchmarks.multi_task import shared_spec, tagged

SPECS = [dataclasses.replace(tiny_spec(), task=name, horizon=h) for name, h in (("a", 8), ("b", 12))]


def test_tagged_episodes_fit_the_shared_spec_and_say_their_task():
    spec = shared_spec(SPECS)
    assert spec.horizon == 12
    assert spec.state_names[-2:] == ("is_a", "is_b")
    for index, own in enumerate(SPECS):
        (episode,) = tagged(random_episodes(own, 1), index, 2)
        assert episode.states.shape[1] == spec.state_dim
        assert np.array_equal(episode.states[0, -2:], np.eye(2)[index])
        assert np.array_equal(episode.states[:, :-2], random_episodes(own, 1)[0].states)


def test_tasks_of_different_robots_share_no_spec():
    with pytest.raises(ValueError, match="unpack"):
        shared_spec([SPECS[0], dataclasses.replace(SPECS[1], robot="other")])
