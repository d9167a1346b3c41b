"""Pictures are recorded as videos and read back, decoded once; what does not fit is refused by name."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from tiny import random_episodes, tiny_spec, write_dataset

from robopolicy.cli import main
from robopolicy.data.episodes import dataset_info, load_episodes
from robopolicy.data.film import decoded, shown, with_pictures
from robopolicy.data.writer import EpisodeWriter
from robopolicy.errors import BadInput
from robopolicy.spec import Camera, Spec, picture_field

SPEC = dataclasses.replace(tiny_spec(), cameras=(Camera("front", 32, 48), Camera("wrist", 32, 32)))


def filmed(count=3):
    """Episodes that grow brighter from frame to frame, with a stripe that says which episode it is."""
    episodes = []
    for i, e in enumerate(random_episodes(tiny_spec(), count)):
        pictures = {}
        for c in SPEC.cameras:
            frames = np.full((e.length, c.height, c.width, 3), 30, np.uint8)
            frames += 20 * np.arange(e.length, dtype=np.uint8)[:, None, None, None]
            frames[:, 10 * i : 10 * i + 8] = 0
            pictures[c.name] = frames
        episodes.append(dataclasses.replace(e, pictures=pictures))
    return episodes


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("film") / "set", SPEC, filmed())


@pytest.fixture
def dataset(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "set", ignore=shutil.ignore_patterns(".cache"))


def close(a, b):
    """Videos lose a little."""
    return np.abs(a.astype(int) - b.astype(int)).mean() < 8


def test_pictures_are_read_back_frame_by_frame(finished):
    for _ in range(2):  # decoded, then from the decoded files
        for wanted, got in zip(filmed(), load_episodes([finished]), strict=True):
            assert got.pictures.keys() == wanted.pictures.keys()
            for name, frames in got.pictures.items():
                assert frames.dtype == np.uint8
                assert close(frames, wanted.pictures[name])
                for step in range(1, len(frames)):
                    assert not close(frames[step], wanted.pictures[name][step - 1])


def test_pictures_of_an_unfinished_recording_are_kept_to_the_bit(tmp_path):
    writer = EpisodeWriter(tmp_path / "set", SPEC, "push", {"made": "up"})
    for e in filmed():
        writer.add(e)
    for wanted, got in zip(filmed(), load_episodes([tmp_path / "set"]), strict=True):
        assert all(np.array_equal(got.pictures[n], frames) for n, frames in wanted.pictures.items())


def test_episode_until_success_has_its_pictures_only():
    episode = dataclasses.replace(filmed()[1], success=True)
    episode.achieved[4:] = True
    assert all(len(frames) == 5 for frames in episode.until_success().pictures.values())


@pytest.mark.parametrize("how", ["missing", "size", "type", "unknown", "short"])
def test_pictures_that_do_not_fit_the_spec_are_refused_and_nothing_written(tmp_path, how):
    episode = filmed()[0]
    front = episode.pictures["front"]
    changed = {
        "missing": {"wrist": episode.pictures["wrist"]},
        "size": episode.pictures | {"front": front[:, :-1]},
        "type": episode.pictures | {"front": front.astype(np.float32)},
        "unknown": episode.pictures | {"elbow": front},
        "short": episode.pictures | {"front": front[:-1]},
    }[how]
    with pytest.raises(BadInput, match="elbow" if how == "unknown" else "camera front"):
        EpisodeWriter(tmp_path / "set", SPEC, "push", {}).add(dataclasses.replace(episode, pictures=changed))
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("how", ["count", "size"])
def test_videos_that_are_no_pictures_of_the_camera_are_refused_by_file(dataset, how):
    frames = sum(e.length for e in filmed()) + (how == "count")
    camera = SPEC.cameras[0] if how == "count" else Camera("front", 16, 16)
    with pytest.raises(BadInput, match=r"observation\.images\.front"):
        decoded(dataset, camera, frames)
    assert not list(dataset.glob(".cache/*front*"))


@pytest.mark.parametrize("camera", [("a/b", 8, 8), ("", 8, 8), ("a", 0, 8), ("a", 7, 8), ("a", 8, 100_000)])
def test_odd_cameras_are_refused(camera):
    with pytest.raises(BadInput, match="camera"):
        Camera(*camera)


def test_spec_with_cameras_is_saved_and_read_and_two_of_a_name_are_refused(tmp_path):
    SPEC.save(tmp_path)
    assert Spec.load(tmp_path) == SPEC
    assert SPEC.fingerprint != tiny_spec().fingerprint
    with pytest.raises(BadInput, match=r"cameras=\['front', 'wrist'\], got cameras=\[\]"):
        SPEC.require(tiny_spec(), "policy")
    with pytest.raises(BadInput, match="cameras"):
        dataclasses.replace(SPEC, cameras=(SPEC.cameras[0],) * 2)


def test_convert_keeps_the_pictures_of_a_lerobot_dataset(dataset, tmp_path, capsys):
    for name in ("robopolicy.json", "spec.json", "manifest.json"):
        (dataset / name).unlink()
    assert main(f"convert --source {dataset} --cameras wrist --chunk 4 --out {tmp_path}/ours".split()) == 0
    spec, _ = dataset_info(tmp_path / "ours")
    assert spec.cameras == SPEC.cameras[1:]
    for wanted, got in zip(filmed(), load_episodes([tmp_path / "ours"]), strict=True):
        assert got.length == wanted.length - 1
        assert close(got.pictures["wrist"], wanted.pictures["wrist"][:-1])
    assert main(f"convert --source {dataset} --cameras elbow --out {tmp_path}/more".split()) == 2
    assert "front" in capsys.readouterr().err


def test_pictures_in_the_state_are_videos_on_disk_and_numbers_again(tmp_path):
    camera = Camera("front", 32, 48)
    plain = tiny_spec()
    spec = dataclasses.replace(plain, objects=(*plain.objects, picture_field(camera)))
    wanted = []
    for e, film in zip(random_episodes(plain, 3), filmed(), strict=True):
        frames = film.pictures["front"]
        end = np.full_like(frames[:1], 7 + e.seed)  # after the last action: no frame of a video holds it
        states = with_pictures(e.states, [np.concatenate([frames, end])])
        wanted.append(dataclasses.replace(e, states=states))
    folder = write_dataset(tmp_path / "set", spec, wanted)
    assert dataset_info(folder)[0] == spec
    features = json.loads((folder / "meta/info.json").read_text())["features"]
    assert features["observation.images.front"]["dtype"] == "video"
    assert features["observation.environment_state"]["shape"] == [plain.state_dim - plain.proprio_dim]
    for before, after in zip(wanted, load_episodes([folder]), strict=True):
        n = plain.state_dim
        assert np.array_equal(before.states[:, :n], after.states[:, :n])
        assert np.array_equal(before.states[-1], after.states[-1])
        # Grey pictures this small come back to within the rounding of their colours.
        assert np.abs(before.states - after.states).max() <= 2 / 255
        assert after.pictures == {}
    assert np.array_equal(shown(wanted[0].states, spec)["front"][:-1], filmed()[0].pictures["front"])


def test_pictures_beside_the_state_and_in_it_are_one_video(tmp_path):
    spec = dataclasses.replace(SPEC, objects=(picture_field(SPEC.cameras[1]),))
    made = []
    for e in filmed():
        frames = e.pictures["wrist"]
        states = with_pictures(e.states[:, : spec.proprio_dim], [np.concatenate([frames, frames[-1:]])])
        made.append(dataclasses.replace(e, states=states))
    folder = write_dataset(tmp_path / "set", spec, made)
    assert len([*folder.glob("videos/*")]) == 2
    for e in load_episodes([folder]):
        assert e.pictures.keys() == {"front", "wrist"}
        assert np.array_equal(shown(e.states, spec)["wrist"][:-1], e.pictures["wrist"])
