"""Datasets: what was recorded is read back to the bit, survives a kill, and is refused if damaged."""

import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tiny import episode, random_episodes, same_episode, tiny_spec, write_dataset

from robopolicy.data.episodes import dataset_info, load_episodes
from robopolicy.data.writer import EpisodeWriter
from robopolicy.errors import BadInput

SPEC = tiny_spec()
SETTINGS = {"made": "up"}
EPISODES = [episode(SPEC, i, length, bool(i % 2)) for i, length in enumerate([5, 1, 8, 1])]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "set", SPEC, EPISODES)


@pytest.fixture
def dataset(finished, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(finished, tmp_path / "set")


def parquet(root):
    return next((root / "data").rglob("*.parquet"))


def writer(root, spec=SPEC, settings=SETTINGS):
    return EpisodeWriter(root, spec, "push the block", settings)


def test_finished_dataset_is_read_back_to_the_bit(finished):
    for _ in range(2):  # decoded, then from the decoded files
        got = load_episodes([finished])
        assert len(got) == len(EPISODES)
        assert all(same_episode(a, b) for a, b in zip(EPISODES, got, strict=True))


def test_dataset_info_is_what_it_was_written_with(finished):
    assert dataset_info(finished) == (SPEC, SETTINGS)


def test_dataset_without_objects_is_read_back_to_the_bit(tmp_path):
    spec = tiny_spec(objects=False)
    wanted = random_episodes(spec, 2)
    got = load_episodes([write_dataset(tmp_path / "set", spec, wanted)])
    assert all(same_episode(a, b) for a, b in zip(wanted, got, strict=True))


def test_order_of_recording_does_not_show_in_the_dataset(finished, tmp_path):
    other = write_dataset(tmp_path / "set", SPEC, EPISODES[::-1])
    assert parquet(other).read_bytes() == parquet(finished).read_bytes()


def test_episodes_can_be_written_to_without_changing_the_file(finished):
    before = load_episodes([finished])[0].states.copy()
    load_episodes([finished])[0].states[:] = 0
    assert np.array_equal(load_episodes([finished])[0].states, before)


def test_several_datasets_follow_each_other(finished, tmp_path):
    other = write_dataset(tmp_path / "other", SPEC, EPISODES[:1])
    assert [e.seed for e in load_episodes([other, finished])] == [0, 0, 1, 2, 3]


_RECORD = """
import os, signal, sys
from pathlib import Path
from tiny import episode, tiny_spec
from robopolicy.data.writer import EpisodeWriter
spec = tiny_spec()
with EpisodeWriter(Path(sys.argv[1]), spec, "push the block", {"made": "up"}) as writer:
    for i, length in enumerate([5, 1, 8]):
        writer.add(episode(spec, i, length, bool(i % 2)))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_recording_keeps_its_episodes_and_goes_on(finished, tmp_path):
    root = tmp_path / "set"
    path = {"PYTHONPATH": ":".join(p for p in sys.path if p)}
    killed = subprocess.run([sys.executable, "-c", _RECORD, root], env=path, timeout=200, check=False)
    assert killed.returncode == -9
    assert all(same_episode(a, b) for a, b in zip(EPISODES[:3], load_episodes([root]), strict=True))
    assert dataset_info(root) == (SPEC, SETTINGS)
    with writer(root) as again:
        assert again.seeds_done == {0, 1, 2}
        again.add(EPISODES[3])
    assert all(same_episode(a, b) for a, b in zip(EPISODES, load_episodes([root]), strict=True))
    assert parquet(root).read_bytes() == parquet(finished).read_bytes()
    assert not (root / "journal").exists()


def test_error_while_recording_leaves_the_recording_open(tmp_path):
    def record():
        with writer(tmp_path / "set") as w:
            w.add(EPISODES[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record()
    assert writer(tmp_path / "set").seeds_done == {0}


@pytest.mark.parametrize(
    ("field", "column", "name"),
    [("states", 4, "state.block.0"), ("actions", 1, "action.move.1"), ("doubt", None, "doubt")],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_number_that_is_not_finite_is_refused_by_name_and_nothing_is_written(
    tmp_path, field, column, name, value
):
    spoiled = getattr(EPISODES[0], field).copy()
    spoiled[(0,) if column is None else (2, column)] = value
    with pytest.raises(BadInput, match=f"episode 0 {name}"):
        writer(tmp_path / "set").add(replace(EPISODES[0], **{field: spoiled}))
    assert not (tmp_path / "set").exists()


def test_state_out_of_range_is_refused(tmp_path):
    states = EPISODES[0].states.copy()
    states[1, 0] = 2.0
    with pytest.raises(BadInput, match=r"hand\.0.*\[-1, 1\].*2"):
        writer(tmp_path / "set").add(replace(EPISODES[0], states=states))


def test_recording_with_another_spec_or_other_settings_is_refused(tmp_path):
    writer(tmp_path / "set").add(EPISODES[0])
    with pytest.raises(BadInput, match="horizon"):
        writer(tmp_path / "set", replace(SPEC, horizon=11))
    with pytest.raises(BadInput, match="settings"):
        writer(tmp_path / "set", settings={"made": "otherwise"})


def test_finished_dataset_is_not_recorded_into(finished):
    with pytest.raises(BadInput, match="finished"):
        writer(finished)


def test_truncated_journal_is_refused_by_name(tmp_path):
    root = tmp_path / "set"
    writer(root).add(EPISODES[0])
    file = root / "journal" / "000000.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(BadInput, match="000000"):
        load_episodes([root])


def test_changed_sidecar_is_refused_by_name(dataset):
    (dataset / "robopolicy.json").write_text("{}")
    with pytest.raises(BadInput, match=r"robopolicy\.json"):
        load_episodes([dataset])


def test_folder_that_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no such folder"):
        dataset_info(tmp_path / "nothing")
    with pytest.raises(BadInput, match="something else"):
        dataset_info(tmp_path)
    with pytest.raises(BadInput, match="at least one dataset"):
        load_episodes([])


def test_lerobot_opens_the_dataset_and_finds_the_values(finished):
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    opened = LeRobotDataset("robopolicy/push", root=finished)
    assert opened.meta.total_episodes == len(EPISODES)
    assert opened.fps == SPEC.fps
    assert opened.meta.features["action"]["names"] == list(SPEC.action_names)
    row = 0
    for e in EPISODES:
        for i in range(e.length):
            frame = opened[row]
            seen = torch.cat([frame["observation.state"], frame["observation.environment_state"]])
            assert np.array_equal(seen, e.states[i])
            assert np.array_equal(frame["action"], e.actions[i])
            assert np.array_equal(frame["next.state"], e.states[i + 1])
            assert bool(frame["next.done"]) == (i == e.length - 1)
            assert frame["task"] == "push the block"
            row += 1
    assert row == len(opened)


@pytest.mark.slow
def test_lerobot_visualizer_saves_an_episode(finished, tmp_path):
    pytest.importorskip("rerun")
    arguments = f"--repo-id robopolicy/push --root {finished} --episode-index 2 --save 1 --num-workers 0"
    command = [sys.executable, "-m", "lerobot.scripts.lerobot_dataset_viz", *arguments.split()]
    done = subprocess.run(
        [*command, "--output-dir", tmp_path], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "robopolicy_push_episode_2.rrd").stat().st_size > 1000


def test_dataset_files_equal_those_that_lerobot_writes_looking_for_pictures(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("robopolicy.data.writer._no_pictures", nullcontext)
    theirs = write_dataset(tmp_path / "set", SPEC, EPISODES)
    files = [p.relative_to(theirs) for p in (theirs / "data").rglob("*.parquet")]
    assert files
    for file in files:
        mine, plain = (pq.read_table(root / file) for root in (finished, theirs))
        assert mine.equals(plain)
        features = [json.loads(t.schema.metadata[b"huggingface"])["info"] for t in (mine, plain)]
        assert features[0] == features[1]
