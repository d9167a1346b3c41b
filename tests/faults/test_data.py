"""Faults of data, each by its number in docs/faults.md: 29 to 36, and a pickle in what was decoded (21)."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny import POLICY, WORLD, episode, random_episodes, tiny_spec, write_dataset

from robopolicy.cli import main
from robopolicy.data.episodes import dataset_info, load_episodes
from robopolicy.data.foreign import read_lerobot
from robopolicy.data.windows import PolicyWindows
from robopolicy.data.writer import EpisodeWriter
from robopolicy.errors import BadInput
from robopolicy.policies.train import new_policy, train_policy, unmoved
from robopolicy.spec import Camera, Field
from robopolicy.types import Episode
from world_models.train import train_world

SPEC = replace(tiny_spec(), cameras=(Camera("front", 32, 32),))
LENGTHS = [5, 2, 4]


def filmed(number: int, length: int) -> Episode:
    pictures = np.full((length, 32, 32, 3), 20 * number, np.uint8)
    pictures += 9 * np.arange(length, dtype=np.uint8)[:, None, None, None]
    return replace(episode(SPEC, number, length, bool(number % 2)), pictures={"front": pictures})


EPISODES = [filmed(i, length) for i, length in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", SPEC, EPISODES)


@pytest.fixture
def dataset(finished, tmp_path) -> Path:
    """A copy to spoil, not yet decoded."""
    return shutil.copytree(finished, tmp_path / "set", ignore=shutil.ignore_patterns(".cache"))


@pytest.fixture
def foreign(dataset) -> Path:
    """The same as LeRobot alone would have left it."""
    for name in ("robopolicy.json", "spec.json", "manifest.json"):
        (dataset / name).unlink()
    shutil.rmtree(dataset / "videos")
    info = json.loads((dataset / "meta/info.json").read_text())
    del info["features"]["observation.images.front"]
    (dataset / "meta/info.json").write_text(json.dumps(info))
    return dataset


def parquet(root: Path) -> Path:
    return next((root / "data").rglob("*.parquet"))


def test_fault_21_pickle_in_what_was_decoded_is_not_opened(dataset, tmp_path):
    load_episodes([dataset])
    marker = tmp_path / "exploded"
    for file in sorted(dataset.rglob(".cache/**/*.npy")):
        whole = file.read_bytes()
        for bomb in (f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode(), b"", whole[:100], whole[:-1]):
            file.write_bytes(bomb)
            with pytest.raises(BadInput, match=re.escape(file.name)):
                load_episodes([dataset])
        np.save(file, np.array([{}]), allow_pickle=True)
        with pytest.raises(BadInput, match=re.escape(file.name)):
            load_episodes([dataset])
        file.write_bytes(whole)
    assert not marker.exists()


def _rows(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    return lambda file: pq.write_table(change(pq.read_table(file)), file)


def _poisoned(table: pa.Table) -> pa.Table:
    rows = table.to_pydict()
    rows["action"][6][2] = float("nan")
    return pa.table(rows)


def _text(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("next.success")
    return table.set_column(at, "next.success", pa.array(["yes"] * len(table)))


def _shorter(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("action")
    return table.set_column(at, "action", pa.array([row[:2] for row in table["action"].to_pylist()]))


SPOILED = {
    "cut": (lambda f: f.write_bytes(f.read_bytes()[:-9]), "data"),
    "empty": (lambda f: f.write_bytes(b""), "data"),
    "no file": (lambda f: f.unlink(), "data: wanted parquet files"),
    "no column": (_rows(lambda t: t.drop_columns(["action"])), "data"),
    "text": (_rows(_text), r"data:next\.success"),
    "narrow": (_rows(_shorter), "data:action: wanted 3 numbers per frame, got 2"),
    "a frame less": (_rows(lambda t: t.slice(0, len(t) - 1)), "data: wanted 11 frames, got 10"),
    "a frame more": (_rows(lambda t: pa.concat_tables([t, t.slice(0, 1)])), "data: wanted 11 frames, got 12"),
    "NaN": (_rows(_poisoned), r"episode 1 action\.move\.2 \(frame 1\): wanted a finite number"),
    "turned round": (_rows(lambda t: t.take(list(range(len(t)))[::-1])), "the frames that were recorded"),
    "two swapped": (_rows(lambda t: t.take([1, 0, *range(2, len(t))])), "the frames that were recorded"),
}


@pytest.mark.parametrize("how", SPOILED)
def test_fault_29_frames_that_are_damaged_are_refused_with_what_is_wrong(dataset, how):
    spoil, named = SPOILED[how]
    spoil(parquet(dataset))
    with pytest.raises(BadInput, match=f"{re.escape(str(dataset))}.*{named}"):
        load_episodes([dataset])


def test_fault_29_frames_with_any_byte_changed_are_refused(dataset):
    """Parquet itself would not notice one in a number."""
    file = parquet(dataset)
    data = file.read_bytes()
    for at in range(0, len(data), len(data) // 40):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        with pytest.raises(BadInput, match=re.escape(str(dataset))):
            load_episodes([dataset])
        shutil.rmtree(dataset / ".cache", ignore_errors=True)
    file.write_bytes(data)
    assert len(load_episodes([dataset])) == len(EPISODES)


def test_fault_29_named_episodes_are_left_out_and_named_in_what_remains(finished, tmp_path):
    line = f"dataset repair {finished} --leave-out 0 --out {tmp_path / 'mended'}"
    assert main(line.split()) == 0
    kept = load_episodes([tmp_path / "mended"])
    assert [e.seed for e in kept] == [e.seed for e in EPISODES[1:]]
    assert dataset_info(tmp_path / "mended")[1]["left_out"] == [0]


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 1.0])
def test_fault_30_video_cut_anywhere_or_gone_or_of_another_recording_is_refused(dataset, part):
    video = next(dataset.rglob("*.mp4"))
    data = video.read_bytes()
    video.write_bytes(data[: int(part * (len(data) - 1))])
    for spoil in (lambda: None, video.unlink):
        spoil()
        with pytest.raises(BadInput, match=r"observation\.images\.front"):
            load_episodes([dataset])
    assert not list(dataset.glob(".cache/*front*"))


def test_fault_30_video_of_the_same_length_with_other_pictures_is_refused(dataset, tmp_path):
    others = [replace(e, pictures={"front": 255 - e.pictures["front"]}) for e in EPISODES]
    video = next(write_dataset(tmp_path / "other", SPEC, others).rglob("*.mp4"))
    shutil.copyfile(video, next(dataset.rglob("*.mp4")))
    with pytest.raises(BadInput, match="videos: wanted the frames that were recorded"):
        load_episodes([dataset])


def _stretched(by: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda t: t * by


CLOCKS = {
    "slow": (_stretched(1.01), "frame 1, episode 0"),
    "fast": (_stretched(0.99), "frame 1, episode 0"),
    "again": (lambda t: np.where(np.arange(11) == 8, t[7], t), "frame 8, episode 2"),
    "gap": (lambda t: t + 0.1 * (np.arange(11) == 6), "frame 6, episode 1"),
    "back": (lambda t: t[::-1], "frame 1, episode 0"),
    "NaN": (lambda t: np.where(np.arange(11) == 9, np.nan, t), "frame 9, episode 2"),
}


@pytest.mark.parametrize("how", CLOCKS)
def test_fault_31_frames_at_another_rate_than_is_said_are_refused_and_where(foreign, how):
    assert len(read_lerobot(foreign).episodes) == len(EPISODES)
    change, where = CLOCKS[how]
    table = pq.read_table(parquet(foreign))
    times = change(table["timestamp"].to_numpy()).astype(np.float32)
    at = table.schema.get_field_index("timestamp")
    pq.write_table(table.set_column(at, "timestamp", pa.array(times)), parquet(foreign))
    with pytest.raises(BadInput, match=rf"timestamp of {where}: wanted 1/10 s"):
        read_lerobot(foreign)


def test_fault_31_dataset_and_policy_of_another_rate_are_refused(finished, tmp_path):
    with pytest.raises(BadInput, match=r"fps=20.*fps=10"):
        replace(SPEC, fps=20).require(dataset_info(finished)[0], str(finished))
    other = replace(tiny_spec(), fps=20)
    write_dataset(tmp_path / "slow", tiny_spec(), random_episodes(tiny_spec(), 1))
    write_dataset(tmp_path / "fast", other, random_episodes(other, 1))
    with pytest.raises(BadInput, match=r"fast spec: wanted fps=10, got fps=20"):
        train_policy([tmp_path / "slow", tmp_path / "fast"], tmp_path / "policy", POLICY, 0)
    assert not (tmp_path / "policy").exists()


def test_fault_32_empty_data_is_refused_before_anything_is_made(tmp_path):
    for name in ("empty", "begun/journal"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(BadInput, match="at least one episode"):
        EpisodeWriter(tmp_path / "set", tiny_spec(), "push", {}).close()
    (tmp_path / "one").mkdir()
    EpisodeWriter(tmp_path / "one", tiny_spec(), "push", {}).add(episode(tiny_spec(), 1, 3, True))
    for folders in ([], [tmp_path / "empty"], [tmp_path / "begun"]):
        with pytest.raises(BadInput, match="dataset"):
            train_policy(folders, tmp_path / "out", POLICY, 0)
    with pytest.raises(BadInput, match="1 episodes, 0 steps"):
        PolicyWindows([episode(tiny_spec(), 1, 0, False)], tiny_spec())
    with pytest.raises(BadInput, match="episodes: wanted at least 2, got 1"):
        train_world([tmp_path / "one"], tmp_path / "out", WORLD, 0)
    assert not (tmp_path / "out").exists()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, SPEC.chunk + 2), min_size=1, max_size=6))
def test_fault_33_episodes_of_any_length_give_a_window_per_step_and_as_many_true_actions(lengths):
    spec = tiny_spec()
    episodes = [episode(spec, i, n, False) for i, n in enumerate(lengths)]
    if not sum(lengths):
        with pytest.raises(BadInput, match="at least one recorded step"):
            PolicyWindows(episodes, spec)
        return
    data = PolicyWindows(episodes, spec)
    every = torch.arange(len(data))
    assert len(data) == sum(lengths)
    left = [n - i for n in lengths for i in range(n)]
    assert data.mask(every).sum(1).tolist() == [min(spec.chunk, x) for x in left]


def test_fault_33_what_is_beyond_the_end_of_an_episode_teaches_nothing():
    spec = tiny_spec()
    data = PolicyWindows([episode(spec, 0, 1, False), episode(spec, 1, 6, True)], spec)
    core, every = new_policy(spec, POLICY, data, 0).core, torch.arange(len(data))
    pad = ~data.mask(every).bool()
    noisy, steps, target = core.corrupt(data.actions(every), torch.Generator().manual_seed(0))
    target.requires_grad_(True)
    cond = torch.zeros(len(data), spec.obs_steps * spec.state_dim)
    core.errors(cond, noisy, steps, target, pad).backward()
    assert target.grad is not None
    assert pad.any()
    assert torch.equal((target.grad != 0).all(-1), ~pad)


@pytest.mark.parametrize("shape", [(0, 0), (0, 1), (3, 3), (3, 5), (3, 1)])
def test_fault_33_empty_episode_or_states_that_do_not_fit_it_are_refused_when_written(tmp_path, shape):
    spec = tiny_spec()
    actions, states = np.zeros((shape[0], 3), np.float32), np.zeros((shape[1], 7), np.float32)
    wrong = replace(episode(spec, 0, 1, False), actions=actions, states=states, achieved=np.zeros(0, bool))
    with pytest.raises(BadInput, match=f"got {shape[1]} states, {shape[0]} actions"):
        EpisodeWriter(tmp_path / "set", spec, "push", {}).add(wrong)
    assert not (tmp_path / "set").exists()


WIDE = replace(tiny_spec(), proprio=(Field("x", 4, "1", -1e6, 1e6),), objects=())


@settings(max_examples=30, deadline=None)
@given(
    arrays(np.float32, (7, 4), elements=st.floats(-1, 1, width=32)),
    st.lists(st.sampled_from([0.0, 1e-6, 1.0, 1e3]), min_size=4, max_size=4),
    st.lists(st.sampled_from([0.0, 1.0, 1e2]), min_size=4, max_size=4),
)
def test_fault_34_numbers_that_stand_still_or_are_huge_are_normalised_and_come_back(values, scale, shift):
    whole = replace(episode(WIDE, 0, 6, False), states=values * np.float32(scale) + np.float32(shift))
    data = PolicyWindows([whole], WIDE)
    policy = new_policy(WIDE, POLICY, data, 0)
    obs = data.obs(torch.arange(len(data)))
    normal = policy.normalize(obs)
    assert normal.isfinite().all()
    assert (policy.std > 0.99e-3).all()
    assert normal.abs().max() <= 7  # six states: none is more than sqrt(6) standard deviations away
    back = normal * (policy.std + 1e-8) + policy.mean
    size = policy.std + policy.mean.abs() + obs.abs()
    assert ((back - obs).abs() <= 1e-5 * size).all()
    moves = obs[:, -1].std(0, correction=0) > 2e-3
    assert not set(unmoved(policy)) & {n for n, moved in zip(WIDE.state_names, moves, strict=True) if moved}


def test_fault_34_numbers_that_stand_still_are_named(tmp_path, capsys):
    spec = tiny_spec()
    still = [
        replace(e, states=e.states * np.float32([1, 1, 1, 1, 1, 0, 1])) for e in random_episodes(spec, 3)
    ]
    report = train_policy([write_dataset(tmp_path / "set", spec, still)], tmp_path / "policy", POLICY, 0)
    assert report["unmoved"] == ["block.1"]
    assert "hardly moves in this data: block.1" in capsys.readouterr().err


TYPOS = {
    "train --dataset {data} --preset quik --out {new}": ["preset", "did you mean 'quick'"],
    "train-world --dataset {data} --preset ful --out {new}": ["preset", "did you mean 'full'"],
    "train-eye --dataset {data} --preset quik --out {new}": ["preset", "did you mean 'quick'"],
    "steer --policy {data} --dataset {data} --preset quik --out {new}": ["preset", "did you mean 'quick'"],
    "collect --task lifd --out {new}": ["task", "did you mean 'lift'"],
    "collect --expert carefull --out {new}": ["expert", "did you mean 'careful'"],
    "demo --task lifd --out {new}": ["task", "'lift'"],
    "demo --preset fast --out {new}": ["preset", "'full'"],
    "train --dataset {data} --policy difusion --out {new}": ["diffusion"],
    "steer --policy {data} --dataset {data} --method dsrll --out {new}": ["dsrl"],
    "collect --noise unifrom --out {new}": ["uniform"],
    "contract --robot so100 --out {new}": ["robot"],
    "tain --dataset {data} --out {new}": ["train"],
}


@pytest.mark.parametrize("line", TYPOS)
def test_fault_35_unknown_name_is_refused_with_those_that_are_known(finished, tmp_path, capsys, line):
    new = tmp_path / "new"
    assert main(line.format(new=new, data=finished).split()) == 2
    message = capsys.readouterr().err
    assert [part for part in TYPOS[line] if part not in message] == []
    assert not list(tmp_path.iterdir())
