"""An eye sees where things are: its points follow what moves, and draw the picture again."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny import random_episodes, tiny_spec, write_dataset

from robopolicy.data.episodes import load_episodes
from robopolicy.errors import BadInput, Interrupted
from robopolicy.eye import _Learner, drawn, load_eye, seen_episode, seen_spec, train_eye
from robopolicy.nets.eye import EYE_PRESETS, Eye, EyeConfig
from robopolicy.spec import Camera
from robopolicy.train import fit

SIZE = 32
SPEC = dataclasses.replace(tiny_spec(), cameras=(Camera("scene", SIZE, SIZE),))
CONFIG = EyeConfig(points=4, width=16, steps=300, batch_size=16, lr=4e-3)


def scene(where: np.ndarray) -> np.ndarray:
    """(N, SIZE, SIZE, 3) uint8: a red square at `where` (N, 2), from -1 to 1, before a grey gradient."""
    frames = np.tile(
        np.linspace(90, 160, SIZE).astype(np.uint8)[None, :, None, None], (len(where), 1, SIZE, 3)
    )
    corner = np.round((where + 1) / 2 * (SIZE - 6)).astype(int)
    for frame, (row, column) in zip(frames, corner, strict=True):
        frame[row : row + 6, column : column + 6] = (220, 30, 30)
    return frames


def places(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 2))


@pytest.fixture(scope="module")
def learned():
    learner = _Learner(SPEC, CONFIG, {"scene": torch.from_numpy(scene(places(300)))}, 0)
    fit(learner, CONFIG.steps, 0, "eye", quiet=True)
    return learner.eye.eval()


def test_eye_one_of_its_points_is_where_the_square_is(learned):
    where = places(200, 1)
    seen = learned.see({"scene": torch.from_numpy(scene(where))}).numpy()
    known = np.c_[seen, np.ones(len(seen))]
    told, *_ = np.linalg.lstsq(known[:100], where[:100], rcond=None)
    error = known[100:] @ told - where[100:]
    # A pixel is 1/13 of the range of the corner; a point is better than that.
    assert np.sqrt((error**2).mean()) < 0.06
    assert (np.abs(seen) <= 1).all()


def test_eye_draws_what_it_saw_better_than_the_mean_picture(learned):
    frames = torch.from_numpy(scene(places(50, 2)))
    again = learned.draw(learned.see({"scene": frames}))["scene"]
    assert again.shape == frames.shape
    assert again.dtype == torch.uint8
    mean = 255 * learned.part("scene").mean.permute(1, 2, 0)
    error, usual = (((x.float() - frames.float()) ** 2).mean() for x in (again, mean))
    assert error < usual / 2


def test_eye_alone_or_in_a_batch_sees_the_same(learned):
    frames = torch.from_numpy(scene(places(9, 3)))
    whole = learned.see({"scene": frames})
    alone = torch.cat([learned.see({"scene": f[None]}) for f in frames])
    assert torch.allclose(whole, alone, atol=1e-5)


def test_learner_goes_on_where_it_stopped_to_the_bit():
    frames = {"scene": torch.from_numpy(scene(places(20)))}

    def train(learner, first, last):
        for i in range(first, last):
            learner.step(i, torch.Generator().manual_seed(i))

    whole, begun, rest = (_Learner(SPEC, CONFIG, frames, 0) for _ in range(3))
    train(whole, 0, 6)
    train(begun, 0, 3)
    rest.load_state(begun.state())
    train(rest, 3, 6)
    for name, value in whole.state().items():
        assert torch.equal(value, rest.state()[name]), name


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    episodes = [
        dataclasses.replace(e, pictures={"scene": scene(e.states[:-1, :2])}) for e in random_episodes(SPEC, 4)
    ]
    return write_dataset(tmp_path_factory.mktemp("filmed") / "data", SPEC, episodes)


@pytest.fixture(scope="module")
def made(filmed, tmp_path_factory):
    out = tmp_path_factory.mktemp("eye") / "eye"
    return out, train_eye([filmed], out, EYE_PRESETS["tiny"], 0)


def test_train_eye_is_saved_and_opened_as_it_was(made, filmed):
    out, report = made
    assert set(report["psnr_db"]["scene"]) == {"eye", "mean_picture"}
    eye, spec = load_eye(out)
    assert spec == SPEC
    assert eye.config == EYE_PRESETS["tiny"]
    (episode, *_) = load_episodes([filmed])
    seen = seen_episode(episode, spec, eye)
    made_spec = seen_spec(spec, eye, out)
    assert seen.states.shape == (episode.length, made_spec.state_dim)
    assert seen.length == episode.length - 1
    assert np.array_equal(seen.states[:, :4], episode.states[:-1, :4])
    made_spec.check_obs(seen.states)
    assert made_spec.cameras == ()


def test_train_eye_interrupted_and_resumed_is_the_same_eye(filmed, tmp_path, made):
    config, calls = EYE_PRESETS["tiny"], []

    class Stopping(_Learner):
        def step(self, index, generator):
            calls.append(index)
            if index == 9 and calls.count(9) == 1:
                raise KeyboardInterrupt
            return super().step(index, generator)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robopolicy.eye._Learner", Stopping)
        patch.setattr("robopolicy.eye.fit", lambda *a, **k: fit(*a, **k, save_every_s=0.0))
        with pytest.raises((KeyboardInterrupt, Interrupted)):
            train_eye([filmed], tmp_path / "eye", config, 0)
        train_eye([filmed], tmp_path / "eye", config, 0)
    assert calls.count(5) == 1  # what was done was not done again
    for name, value in load_eye(made[0])[0].state_dict().items():
        assert torch.equal(value, load_eye(tmp_path / "eye")[0].state_dict()[name])


def test_specs_of_two_eyes_do_not_fit_each_other(made, filmed, tmp_path):
    out, _ = made
    train_eye([filmed], tmp_path / "other", EYE_PRESETS["tiny"], 1)
    one, other = (seen_spec(SPEC, load_eye(f)[0], f) for f in (out, tmp_path / "other"))
    with pytest.raises(BadInput, match="task"):
        one.require(other, "policy")


@pytest.mark.parametrize(
    ("pictures", "named"),
    [
        (lambda p: {}, "camera scene"),
        (lambda p: {"wrist": p}, "camera scene"),
        (lambda p: {"scene": p[:, ::2]}, "camera scene"),
        (lambda p: {"scene": p[:-1]}, "camera scene"),
    ],
)
def test_seen_episode_without_the_right_pictures_names_the_camera(pictures, named):
    eye = Eye(SPEC.cameras, EYE_PRESETS["tiny"])
    (episode,) = random_episodes(SPEC, 1)
    frames = scene(episode.states[:-1, :2])
    with pytest.raises(BadInput, match=named):
        seen_episode(dataclasses.replace(episode, pictures=pictures(frames)), SPEC, eye)


def test_train_eye_without_pictures_is_refused_before_anything_is_written(tmp_path):
    blind = write_dataset(tmp_path / "blind", tiny_spec(), random_episodes(tiny_spec(), 2))
    with pytest.raises(BadInput, match="pictures"):
        train_eye([blind], tmp_path / "eye", EYE_PRESETS["tiny"], 0)
    assert not (tmp_path / "eye").exists()


def test_drawn_pictures_lie_side_by_side(learned):
    shown = drawn(learned, np.zeros((3, sum(f.size for f in learned.fields)), np.float32))
    wide = sum(c.width for c in learned.cameras)
    assert [x.shape for x in shown] == [(learned.cameras[0].height, wide, 3)] * 3
    assert all(x.dtype == np.uint8 for x in shown)


def test_open_eye_leaves_pixels_as_they_are_and_needs_no_training(filmed, tmp_path):
    config = dataclasses.replace(EYE_PRESETS["tiny"], kind="pixels")
    report = train_eye([filmed], tmp_path / "eye", config, 0)
    assert report["curve"] == []
    eye, spec = load_eye(tmp_path / "eye")
    pictures = {
        c.name: torch.randint(256, (2, c.height, c.width, 3), dtype=torch.uint8) for c in spec.cameras
    }
    again = eye.draw(eye.see(pictures))
    assert all(torch.equal(again[name], frames) for name, frames in pictures.items())
    assert seen_spec(spec, eye, tmp_path / "eye").pictures == spec.cameras
