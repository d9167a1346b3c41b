"""The decoded copy of a dataset: made once, whole or not at all, whoever else is making it."""

from dataclasses import replace

import numpy as np
import pytest
from tiny import episode, random_episodes, same_episode, tiny_spec, write_dataset

from robopolicy.data import episodes as reader
from robopolicy.data.episodes import load_episodes
from robopolicy.data.writer import EpisodeWriter
from robopolicy.errors import BadInput

SPEC = tiny_spec()
EPISODES = random_episodes(SPEC, 3)


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "set", SPEC, EPISODES)


def all_same(root) -> bool:
    return all(same_episode(a, b) for a, b in zip(EPISODES, load_episodes([root]), strict=True))


def test_second_reading_decodes_nothing(dataset, monkeypatch):
    load_episodes([dataset])
    monkeypatch.delattr(reader.pq, "read_table")
    assert all_same(dataset)


def test_decoding_killed_halfway_is_not_taken_for_whole(dataset, monkeypatch):
    save = np.save

    def killed(path, array):
        if path.name.startswith("action"):
            raise KeyboardInterrupt
        save(path, array)

    with monkeypatch.context() as patch:
        patch.setattr(reader.np, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            load_episodes([dataset])
    assert all_same(dataset)


def test_decoding_finished_by_another_process_meanwhile_is_used(dataset, monkeypatch):
    matrix, raced = reader._matrix, []

    def other_is_first(*args):
        if not raced:
            raced.append(True)
            monkeypatch.setattr(reader.os, "getpid", lambda: 1)
            assert all_same(dataset)
        return matrix(*args)

    monkeypatch.setattr(reader, "_matrix", other_is_first)
    assert all_same(dataset)
    assert len(list((dataset / ".cache").iterdir())) == 1


def test_episodes_without_noise_are_read_back_to_the_bit(tmp_path):
    none = np.zeros((0, SPEC.chunk, SPEC.action_dim), np.float32)
    wanted = replace(EPISODES[0], noise=none, chunk_starts=np.zeros(0, int), doubt=np.zeros(0, np.float32))
    (got,) = load_episodes([write_dataset(tmp_path / "set", SPEC, [wanted])])
    assert same_episode(wanted, got)


def test_bad_number_is_refused_with_its_frame(tmp_path):
    bad = episode(SPEC, 0, 6, True)
    bad.actions[4, 1] = np.nan
    with pytest.raises(BadInput, match=r"action\.move\.1 \(frame 4\): wanted a finite number"):
        EpisodeWriter(tmp_path / "set", SPEC, "push", {}).add(bad)
