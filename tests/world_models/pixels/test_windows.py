"""Windows with pictures: they are those of their episode, and never reach beyond it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dots import CAMERA, SIDE, dot_windows, dots, filmed
from tiny import tiny_spec

from robopolicy.errors import BadInput
from world_models.pixels.windows import PixelWindows

STEPS = 4


def test_window_holds_the_pictures_and_numbers_of_its_steps():
    episodes, data = filmed(), dot_windows(STEPS)
    for at in (0, 5, len(data) - 1):
        episode, start = episodes[data.episode[at]], int(data.start[at])
        rows = data[torch.tensor([at])]
        states = np.concatenate([rows.obs[0, -1:], rows.future[0]])
        own, pictures = states[:, :4], states[:, 4:].reshape(-1, 3, SIDE, SIDE)
        part = slice(start, start + STEPS + 1)
        assert np.allclose(own, episode.states[part, :4])
        assert np.allclose(255 * pictures.transpose(0, 2, 3, 1), dots(episode.states[part]), atol=1e-3)
        assert np.allclose(rows.actions[0], episode.actions[start : start + STEPS])
        assert np.array_equal(rows.success[0] > 0, episode.achieved[start : start + STEPS])


def test_every_window_ends_inside_its_episode():
    episodes, data = filmed(), dot_windows(STEPS)
    lengths = torch.tensor([e.length for e in episodes])[data.episode]
    assert (data.start + STEPS < lengths).all()
    assert len(data) == sum(max(0, e.length - STEPS) for e in episodes)


def test_history_before_an_episode_is_its_first_state():
    data = dot_windows(STEPS)
    firsts = torch.nonzero(data.start == 0)[:, 0]
    obs = data[firsts].obs
    assert torch.equal(obs[:, 0], obs[:, 1])
    assert torch.equal(obs[:, -1], data.begins())


def test_rows_of_success_and_failure_are_all_rows():
    data, episodes = dot_windows(STEPS), filmed()
    rows = torch.cat([data.rows(True), data.rows(False)])
    assert sorted(rows.tolist()) == list(range(sum(e.length for e in episodes)))
    assert len(data.rows(True)) == sum(int(e.achieved[:-1].sum()) for e in episodes)


@pytest.mark.parametrize("wrong", ["missing", "size"])
def test_pictures_that_do_not_fit_are_refused_with_episode_and_camera(wrong):
    episodes = filmed()
    frames = {} if wrong == "missing" else {"scene": np.zeros((12, 8, 8, 3), np.uint8)}
    episodes[3] = replace(episodes[3], pictures=frames)
    with pytest.raises(BadInput, match=f"episode {episodes[3].seed}, camera scene"):
        PixelWindows(episodes, tiny_spec(), (CAMERA,), STEPS)


def test_episodes_that_are_too_short_are_refused():
    with pytest.raises(BadInput, match="more than 4 steps"):
        PixelWindows(filmed(2, 4), tiny_spec(), (CAMERA,), STEPS)
