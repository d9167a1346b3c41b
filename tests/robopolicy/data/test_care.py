"""Recordings are verified, mended, joined and divided; nothing is lost without being named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny import random_episodes, tiny_spec, write_dataset

from robopolicy.cli import main
from robopolicy.data.care import divide, merge, problems, repair, statistics
from robopolicy.data.episodes import load_episodes
from robopolicy.data.writer import EpisodeWriter, journal_files
from robopolicy.errors import BadInput

SPEC = tiny_spec()
EPISODES = random_episodes(SPEC, 6)


@pytest.fixture
def finished(tmp_path):
    return write_dataset(tmp_path / "finished", SPEC, EPISODES)


@pytest.fixture
def cut_off(tmp_path):
    """A recording that ended in a crash."""
    writer = EpisodeWriter(tmp_path / "cut-off", SPEC, SPEC.task, {"source": "toy"})
    for episode in EPISODES:
        writer.add(episode)
    return tmp_path / "cut-off"


def seeds(root):
    return [e.seed for e in load_episodes([root])]


def test_whole_dataset_has_no_problems(finished, cut_off):
    assert problems(finished) == problems(cut_off) == []


def test_problems_of_a_finished_dataset_name_the_file(finished):
    (file,) = (finished / "data").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    (found,) = problems(finished)
    assert str(finished / "data") in found


def test_problems_of_a_recording_name_every_broken_file(cut_off):
    files = journal_files(cut_off)
    for file in (files[1], files[4]):
        file.write_bytes(file.read_bytes()[:-10])
    found = problems(cut_off)
    named = [any(f.name in line for line in found) for f in files]
    assert named == [f in (files[1], files[4]) for f in files]


def test_what_is_no_dataset_is_a_problem(tmp_path):
    assert "something else" in problems(tmp_path)[0]


def test_repair_keeps_whole_episodes_names_the_others_and_leaves_the_source(cut_off, tmp_path):
    files = journal_files(cut_off)
    files[-1].write_bytes(files[-1].read_bytes()[:-10])
    before = {f: f.read_bytes() for f in files}
    done = repair(cut_off, tmp_path / "mended")
    assert done["episodes"] == 5
    assert list(done["left_out"]) == [files[-1].name]
    assert seeds(tmp_path / "mended") == [e.seed for e in EPISODES[:-1]]
    assert {f: f.read_bytes() for f in files} == before


@pytest.mark.parametrize("named", [(), (6,), (-1,), tuple(range(6))])
def test_repair_of_a_finished_dataset_without_episodes_named_is_refused(finished, tmp_path, named):
    with pytest.raises(BadInput, match="leave_out: wanted some of the 6 episodes"):
        repair(finished, tmp_path / "mended", named)
    assert not (tmp_path / "mended").exists()


def test_repair_with_another_damaged_episode_is_refused_with_its_number(finished, tmp_path, monkeypatch):
    spoiled = [replace(e, actions=e.actions + 10 * (i == 4)) for i, e in enumerate(EPISODES)]
    monkeypatch.setattr("robopolicy.data.care.recorded_episodes", lambda _: spoiled)
    with pytest.raises(BadInput, match="episode 4"):
        repair(finished, tmp_path / "mended", (1,))
    assert not (tmp_path / "mended").exists()


def test_divided_and_merged_again_is_the_same_data(finished, tmp_path):
    assert divide(finished, tmp_path / "parts", 0.5, 3) == {"train": 3, "held_out": 3}
    parts = [tmp_path / "parts" / n for n in ("train", "held_out")]
    assert not set(seeds(parts[0])) & set(seeds(parts[1]))
    merge(parts, tmp_path / "all")
    for before, after in zip(load_episodes([finished]), load_episodes([tmp_path / "all"]), strict=True):
        assert before.seed == after.seed
        assert np.array_equal(before.states, after.states)
        assert np.array_equal(before.actions, after.actions)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.99, 1.0])
def test_division_never_leaves_a_part_empty(finished, tmp_path, share):
    if share in (0.0, 1.0):
        with pytest.raises(BadInput, match="share"):
            divide(finished, tmp_path / "parts", share, 0)
    else:
        assert min(divide(finished, tmp_path / "parts", share, 0).values()) == 1


def test_merge_of_different_robots_names_the_one_that_differs(finished, tmp_path):
    other = write_dataset(tmp_path / "other", replace(SPEC, robot="another"), EPISODES)
    with pytest.raises(BadInput, match=f"{other} spec: wanted robot"):
        merge([finished, other], tmp_path / "all")


def test_statistics_count_what_is_there(finished):
    found = statistics([finished])
    assert found["episodes"] == 6
    assert found["successes"] == 3
    assert found["sources"] == {"expert": 3, "random": 3}
    assert found["steps"] == sum(e.length for e in EPISODES)
    assert "block.0" not in found["never_change"]
    assert found["fields"]["move"]["max"] == pytest.approx(0.06)


def test_dataset_verb_verifies_and_says_how_it_went(finished, cut_off, capsys):
    assert main(["dataset", "verify", str(finished), str(cut_off)]) == 0
    file = journal_files(cut_off)[0]
    file.write_bytes(b"")
    assert main(["dataset", "verify", str(finished), str(cut_off)]) == 1
    assert file.name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "named"),
    [("merge {a}", "out"), ("split {a} {a} --out {new}", "source"), ("repair {a} --out {new}", "leave_out")],
)
def test_dataset_verb_without_what_it_needs_is_refused(finished, tmp_path, capsys, line, named):
    given = line.format(a=finished, new=tmp_path / "new").split()
    assert main(["dataset", *given]) == 2
    assert f"error: {named}" in capsys.readouterr().err
    assert not (tmp_path / "new/manifest.json").exists()
