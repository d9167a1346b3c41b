"""No stage ever sees another's episodes; a stream is a function of its path."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robopolicy.seeding import _STAGES, episode_seed, stream, torch_seed

where = st.tuples(st.integers(0, 5000), st.sampled_from(_STAGES), st.integers(0, 99_999))
path = st.lists(st.one_of(st.text("ab/c", max_size=4), st.integers(0, 99)), max_size=3)


@given(where, where)
def test_different_episodes_have_different_seeds(a, b):
    assert (episode_seed(*a) == episode_seed(*b)) == (a == b)


def test_there_is_room_for_every_stage():
    assert episode_seed(0, _STAGES[-1], 99_999) < episode_seed(1, _STAGES[0], 0)


@pytest.mark.parametrize(
    ("master", "stage", "index"),
    [(0, "training", 0), (0, "demos", 100_000), (0, "demos", -1), (-1, "demos", 0)],
)
def test_a_seed_outside_its_stage_is_refused(master, stage, index):
    with pytest.raises(ValueError, match="no seed"):
        episode_seed(master, stage, index)


@given(st.integers(0, 2**40), path)
def test_a_stream_repeats(seed, names):
    assert (stream(seed, *names).random(4) == stream(seed, *names).random(4)).all()
    assert torch_seed(seed, *names) == torch_seed(seed, *names)
    assert 0 <= torch_seed(seed, *names) < 2**63


def test_streams_of_different_paths_differ():
    paths = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 0), (0, "a", 1)]
    first = {float(stream(*p).random()) for p in paths}
    assert len(first) == len(paths)
    assert len({torch_seed(*p) for p in paths}) == len(paths)


def test_streams_do_not_touch_the_global_one():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    stream(0, "a").random(100)
    assert (np.random.get_state()[1] == before).all()
