"""Recordings of others: what comes in goes out again, and what is damaged or unclear is refused by name."""

import json
import shutil

import h5py
import numpy as np
import pytest
from tiny import random_episodes, tiny_spec, write_dataset

from robopolicy.checkpoint import read_json
from robopolicy.cli import main
from robopolicy.data.episodes import dataset_info, load_episodes
from robopolicy.data.foreign import (
    Recording,
    draft_spec,
    read_lerobot,
    read_robomimic,
    to_episodes,
    write_robomimic,
)
from robopolicy.errors import BadInput

SPEC = tiny_spec()
EPISODES = random_episodes(SPEC, 4)
FIELDS = [f.name for f in SPEC.state]


@pytest.fixture
def hdf5(tmp_path):
    write_robomimic(tmp_path / "demo.hdf5", SPEC, EPISODES)
    return tmp_path / "demo.hdf5"


@pytest.fixture(scope="module")
def lerobot(tmp_path_factory):
    """A dataset without what robopolicy writes beside it."""
    root = write_dataset(tmp_path_factory.mktemp("data") / "set", SPEC, EPISODES)
    for name in ("robopolicy.json", "spec.json", "manifest.json"):
        (root / name).unlink()
    return root


def same(a, b, steps=None):
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        n = one.length if steps is None else one.length + steps
        assert np.array_equal(one.states[: n + 1], other.states)
        assert np.array_equal(one.actions[:n], other.actions)
        assert np.array_equal(one.achieved[:n], other.achieved)


def test_robomimic_round_trip_keeps_every_number(hdf5):
    recording = read_robomimic(hdf5)
    assert (recording.robot, recording.task, recording.fps) == (SPEC.robot, SPEC.task, SPEC.fps)
    spec = draft_spec(recording, FIELDS[:2], FIELDS[2:], SPEC.chunk, SPEC.obs_steps)
    same(EPISODES, to_episodes(recording, spec, "converted"))
    assert [e.success for e in to_episodes(recording, spec, "converted")] == [e.success for e in EPISODES]


def test_robomimic_without_what_followed_loses_the_last_action_only(hdf5):
    with h5py.File(hdf5, "a") as file:
        for demo in file["data"].values():
            del demo["next_obs"]
    recording = read_robomimic(hdf5)
    spec = draft_spec(recording, FIELDS[:2], FIELDS[2:], SPEC.chunk, SPEC.obs_steps)
    same(EPISODES, to_episodes(recording, spec, "converted"), steps=-1)


def test_robomimic_pictures_are_left_out(hdf5):
    with h5py.File(hdf5, "a") as file:
        for demo in file["data"].values():
            demo["obs/agentview_image"] = np.zeros((demo.attrs["num_samples"], 4, 4, 3), np.uint8)
    assert sorted(read_robomimic(hdf5).columns) == sorted(FIELDS)


def test_verb_converts_there_and_back(hdf5, tmp_path, capsys):
    line = f"--source {hdf5} --proprio hand reach --objects block --chunk 4 --out {tmp_path}/ours"
    assert main(f"convert {line}".split()) == 0
    result = read_json(tmp_path / "ours/result.json")
    assert (result["episodes"], result["successes"], result["left_out"]) == (4, 2, [])
    same(EPISODES, load_episodes([tmp_path / "ours"]))
    assert main(f"convert --source {tmp_path}/ours --out {tmp_path}/new/again.hdf5".split()) == 0
    with h5py.File(hdf5) as before, h5py.File(tmp_path / "new/again.hdf5") as after:
        names = []
        before.visit(names.append)
        for name in (n for n in names if isinstance(before[n], h5py.Dataset)):
            assert np.array_equal(before[name], after[name]), name
    assert main(f"convert --source {tmp_path}/ours --out {tmp_path}/new/again.hdf5".split()) == 2
    assert "exists" in capsys.readouterr().err


def test_converted_recording_trains_a_policy(lerobot, tmp_path):
    assert main(f"convert --source {lerobot} --chunk 4 --out {tmp_path}/ours".split()) == 0
    line = f"--dataset {tmp_path}/ours --preset tiny --steps 3 --out {tmp_path}/policy"
    assert main(f"train {line}".split()) == 0
    assert read_json(tmp_path / "policy/result.json")["episodes"] == len(EPISODES)


def test_lerobot_loses_only_the_last_action_and_keeps_names_and_rate(lerobot):
    recording = read_lerobot(lerobot)
    columns = ["observation.state", "observation.environment_state"]
    assert recording.columns == columns
    spec = draft_spec(recording, columns[:1], columns[1:], SPEC.chunk, SPEC.obs_steps)
    assert (spec.fps, spec.robot) == (SPEC.fps, SPEC.robot)
    assert (spec.state_names, spec.action_names) == (SPEC.state_names, SPEC.action_names)
    same(EPISODES, to_episodes(recording, spec, "converted"), steps=-1)


def test_spec_holds_what_was_seen_and_more_but_no_action_that_was_not_meant(hdf5):
    spec = draft_spec(read_robomimic(hdf5), FIELDS[:2], FIELDS[2:], 4, 2)
    states = np.concatenate([e.states for e in EPISODES])
    low, high = spec.state_range
    assert (low < states.min(0)).all()
    assert (high > states.max(0)).all()
    assert np.array_equal(spec.action_range, [[-1] * 3, [1] * 3])
    assert spec.horizon == max(e.length for e in EPISODES)


def made_up(**changes):
    columns = {"hand_pos": np.zeros((3, 3)), "action": np.array([[0.0], [5.0]])}
    return Recording("arm", "lift", 20.0, [columns | changes], {})


def test_draft_positions_are_points_and_wide_actions_keep_their_range():
    spec = draft_spec(made_up(), ["hand_pos"], [], 4, 2)
    assert spec.state[0].role == "point"
    assert spec.action_range.ravel().tolist() == pytest.approx([0, 5], abs=2e-3)


def test_how_episodes_ended_is_recorded_or_told():
    spec = draft_spec(made_up(), ["hand_pos"], [], 4, 2)
    for ended in ("success", "failure"):
        (episode,) = to_episodes(made_up(), spec, "converted", ended)
        assert episode.success == episode.terminated == (ended == "success")
    with pytest.raises(BadInput, match="ended"):
        to_episodes(made_up(), spec, "converted")


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"fps": 0.0}, "fps"), ({"proprio": ["elbow"]}, "elbow"), ({"spoiled": True}, "finite")],
)
def test_draft_of_what_is_unclear_is_refused(changes, field):
    recording = made_up(**({"hand_pos": np.full((3, 3), np.nan)} if "spoiled" in changes else {}))
    recording = Recording("arm", "lift", changes.get("fps", 20.0), recording.episodes, {})
    with pytest.raises(BadInput, match=field):
        draft_spec(recording, changes.get("proprio", ["hand_pos"]), [], 4, 2)


def spoil(path, how):
    if how == "cut":
        path.write_bytes(path.read_bytes()[:1000])
        return
    with h5py.File(path, "a") as file:
        if how == "empty":
            del file["data"]
        elif how == "no actions":
            del file["data/demo_1/actions"]
        elif how == "short":
            del file["data/demo_1/obs/hand"]
            file["data/demo_1/obs/hand"] = np.zeros((2, 3))
        else:
            file["data"].attrs["env_args"] = "{"


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("cut", "whole HDF5"),
        ("empty", "group data"),
        ("no actions", "demo_1.*actions"),
        ("short", "demo_1/obs/hand"),
        ("about", "whole HDF5"),
    ],
)
def test_damaged_file_is_refused_and_nothing_written(hdf5, tmp_path, how, named):
    spoil(hdf5, how)
    with pytest.raises(BadInput, match=named):
        read_robomimic(hdf5)
    assert main(f"convert --source {hdf5} --out {tmp_path}/ours".split()) == 2
    assert not (tmp_path / "ours").exists()


def test_numbers_that_are_not_finite_are_refused_and_nothing_written(hdf5, tmp_path, capsys):
    with h5py.File(hdf5, "a") as file:
        file["data/demo_2/actions"][3, 1] = np.nan
    line = f"--source {hdf5} --proprio hand --objects block --out {tmp_path}/ours"
    assert main(f"convert {line}".split()) == 2
    assert "action" in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()


def test_lerobot_without_states_is_refused(lerobot, tmp_path):
    root = shutil.copytree(lerobot, tmp_path / "set")
    info = json.loads((root / "meta/info.json").read_text())
    del info["features"]["observation.state"]
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(BadInput, match=r"observation\.state"):
        read_lerobot(root)


def test_what_is_ours_already_or_no_recording_is_refused(tmp_path, capsys):
    ours = write_dataset(tmp_path / "set", SPEC, EPISODES)
    assert main(f"convert --source {ours} --out {tmp_path}/new".split()) == 2
    assert "hdf5" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("demo")
    assert main(f"convert --source {tmp_path}/notes.txt --out {tmp_path}/new".split()) == 2
    assert dataset_info(ours)[0] == SPEC
