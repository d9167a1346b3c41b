"""Training a pixel world model: it learns one episode by heart, follows actions, resumes, refuses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dots import CAMERA, CONFIG, SIDE, dot_windows, filmed
from fresh import run_by_two
from tiny import normal, tiny_spec

from robopolicy import eye as eyes
from robopolicy.checkpoint import REMEMBERED, open_sealed, read_json
from robopolicy.data.writer import EpisodeWriter
from robopolicy.errors import BadInput, Interrupted, RoboPolicyError
from robopolicy.nets.eye import EYE_PRESETS
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.steering.noise import RandomPolicy
from robopolicy.train import fit, seeded_init
from world_models.load import imagination, load_state_world, load_world, start_states, world_hash
from world_models.pixels import train as training
from world_models.pixels.learners import DenoiserLearner
from world_models.pixels.model import PixelWorldModel
from world_models.pixels.quality import psnr
from world_models.pixels.seen import SeenWorld
from world_models.pixels.train import fit_statistics, pixel_episodes, train_pixel_world
from world_models.pixels.windows import PixelWindows

SPEC = replace(tiny_spec(), cameras=(CAMERA,))
LEARNT = replace(CONFIG, members=1, channels=(16, 32), steps=300, batch_size=8, temperature=0.0)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A filmed dataset, and an eye that was trained on it."""
    root = tmp_path_factory.mktemp("pixels")
    with EpisodeWriter(root / "filmed", SPEC, SPEC.task, {"source": "toy"}) as writer:
        for episode in filmed():
            writer.add(episode)
    eyes.train_eye([root / "filmed"], root / "eye", replace(EYE_PRESETS["tiny"], steps=5), 0)
    return root


def trained(recorded, out, config=CONFIG):
    return train_pixel_world([recorded / "filmed"], recorded / "eye", out, config, 0)


def learnt(episodes):
    """A model of one member that was trained on nothing else."""
    with seeded_init(0):
        model = PixelWorldModel(tiny_spec(), (CAMERA,), LEARNT)
    data = PixelWindows(episodes, tiny_spec(), (CAMERA,), model.steps)
    fit_statistics(model, data, 0)
    learner = DenoiserLearner(model, 0, data)
    fit(learner, LEARNT.steps, 0, "denoiser", quiet=True)
    model.members[0].load_state_dict(learner.ema.average)
    return model.eval()


@pytest.mark.slow
def test_model_learns_one_episode_by_heart():
    model = learnt(filmed(1))
    rows = PixelWindows(filmed(1), tiny_spec(), (CAMERA,), 4)[torch.arange(8)]
    states = model.predict(rows.obs, rows.actions, torch.zeros(8, 4, model.spec.state_dim)).states
    last, real, before = (model.split(x)[0] for x in (states[:, -1], rows.future[:, -1], rows.obs[:, -1]))
    assert psnr(last, real) > 30
    assert psnr(last, real) > psnr(before, real) + 6


@pytest.mark.slow
def test_opposite_actions_from_the_same_start_move_the_picture_to_opposite_sides():
    model = learnt(filmed(8))
    begins = dot_windows(4).begins()
    obs = begins[:, None].repeat(1, 2, 1)
    there = torch.zeros(len(obs), 4, 3)
    there[..., 0] = 0.05
    noise = torch.zeros(len(obs), 4, model.spec.state_dim)

    def column(actions):
        """Where the blot is, from left to right, in pixels."""
        picture = model.split(model.predict(obs, actions, noise).states[:, -1])[0].sum(1)
        bright = (picture - picture.amin((1, 2), keepdim=True)).pow(2)
        return (bright * torch.arange(SIDE)).sum((1, 2)) / bright.sum((1, 2))

    apart = column(there) - column(-there)
    assert (apart > 0).all()
    assert apart.mean() > 0.5


def test_trained_world_is_sealed_with_its_eye_and_seen_through_it(recorded, tmp_path):
    report = trained(recorded, tmp_path / "world")
    world = load_world(tmp_path / "world")
    eye, base = eyes.load_eye(recorded / "eye")
    assert isinstance(world, SeenWorld)
    with pytest.raises(BadInput, match="compiler"):
        load_world(tmp_path / "world", "gcc")
    assert world.spec == eyes.seen_spec(base, eye, recorded / "eye")
    assert world.spec == open_sealed(tmp_path / "world", "world")
    assert {"chunk", "open_loop", "replay", "success", "frechet"} <= report["held_out"].keys()
    assert not list((tmp_path / "world").glob("*progress*"))
    states = world.model.join(torch.rand(2, 3, SIDE, SIDE), torch.zeros(2, 4))
    pixels = (255 * world.model.split(states)[0]).round().to(torch.uint8).movedim(1, -1)
    assert torch.equal(world.see(states)[:, 4:], eye.see({"scene": pixels}))


def test_episodes_in_imagined_pictures_are_what_a_policy_sees_and_repeat(recorded, tmp_path):
    trained(recorded, tmp_path / "world")
    world, (practice, exam) = load_world(tmp_path / "world"), start_states(tmp_path / "world")
    before = world_hash(world)
    policy = RandomPolicy(world.spec)
    one, many = (rollout(imagination(world, exam, n), policy, PriorSteerer(), range(3)) for n in (1, 3))
    for a, b in zip(one, many, strict=True):
        assert a.states.shape == (a.length + 1, world.spec.state_dim)
        assert np.abs(a.states - b.states).max() < 0.05  # a pixel may turn to the next level
        assert a.success == b.success
    assert world_hash(world) == before
    env = imagination(world, practice, 2)
    env.reset(seed=[1, 2])
    saved = env.state()
    chunk = np.zeros((2, world.spec.chunk, world.spec.action_dim), np.float32)
    first = env.step(chunk)[0]
    env.load_state(saved)
    watched = []
    env.watch = watched.extend
    assert np.array_equal(env.step(chunk)[0], first)
    points = world.eye.see({"scene": torch.from_numpy(np.stack(watched))})
    assert np.allclose(points[-1], first[0, -1, 4:], atol=1e-6)


def test_training_that_was_interrupted_ends_with_the_same_weights(recorded, tmp_path, monkeypatch):
    whole = trained(recorded, tmp_path / "whole")
    real, calls = training.fit, []

    def stops(learner, steps, seed, label, file, config):
        calls.append(label)
        if len(calls) == 2:  # the second member
            real(learner, 3, seed, label, None, config)
            raise Interrupted("stopped")
        return real(learner, steps, seed, label, file, config)

    monkeypatch.setattr(training, "fit", stops)
    with pytest.raises(Interrupted):
        trained(recorded, tmp_path / "again")
    again = trained(recorded, tmp_path / "again")
    assert [c for c in calls if c.endswith("1/2")] == ["pixel world model 1/2"]
    worlds = [load_world(tmp_path / n) for n in ("whole", "again")]
    assert world_hash(worlds[0]) == world_hash(worlds[1])
    assert whole["held_out"] == again["held_out"]


# Trains the same world model with half the batch.
SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path[:0] = {places!r}
from test_train import CONFIG, trained

trained(Path({recorded!r}), Path({out!r}), replace(CONFIG, batch_size=CONFIG.batch_size // 2))
"""


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_double_batch(recorded, tmp_path):
    whole = trained(recorded, tmp_path / "whole")
    here, script = Path(__file__).parent, tmp_path / "script.py"
    places = [str(here), str(here.parents[1] / "helpers")]
    out = tmp_path / "shared"
    script.write_text(SCRIPT.format(places=places, recorded=str(recorded), out=str(out)))
    run_by_two(script)
    curves = [report["curves"]["members"] for report in (whole, read_json(out / REMEMBERED)["fields"])]
    for one, other in zip(*curves, strict=True):
        assert [r["loss"] for r in one] == pytest.approx([r["loss"] for r in other], rel=1e-4)
    open_sealed(out, "world")


def test_full_memory_keeps_what_was_trained_and_says_what_helps(recorded, tmp_path, monkeypatch):
    real = training.fit

    def full(learner, steps, seed, label, file, config):
        if label.endswith("2/2"):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(learner, steps, seed, label, file, config)

    monkeypatch.setattr(training, "fit", full)
    with pytest.raises(RoboPolicyError, match="fewer pixels"):
        trained(recorded, tmp_path / "world")
    assert (tmp_path / "world/member-0.safetensors").is_file()


def test_member_of_another_training_is_refused(recorded, tmp_path, monkeypatch):
    test_full_memory_keeps_what_was_trained_and_says_what_helps(recorded, tmp_path, monkeypatch)
    monkeypatch.undo()
    with pytest.raises(BadInput, match="member-0"):
        trained(recorded, tmp_path / "world", replace(CONFIG, lr=1e-4))


def test_data_without_success_is_refused_before_anything_is_written(recorded, tmp_path):
    with EpisodeWriter(tmp_path / "lost", SPEC, SPEC.task, {"source": "toy"}) as writer:
        for episode in filmed():
            if not episode.success:
                writer.add(episode)
    with pytest.raises(BadInput, match="pictures of successes"):
        train_pixel_world([tmp_path / "lost"], recorded / "eye", tmp_path / "world", CONFIG, 0)
    assert not (tmp_path / "world").exists()


def test_dataset_of_another_camera_or_robot_is_refused_by_name(recorded, tmp_path):
    eye, base = eyes.load_eye(recorded / "eye")
    seen = eyes.seen_spec(base, eye, recorded / "eye")
    for name, spec in {
        "cameras": tiny_spec(),
        "robot": replace(SPEC, robot="other"),
        "task": replace(SPEC, task="lift"),
    }.items():
        folder = tmp_path / name
        with EpisodeWriter(folder, spec, spec.task, {"source": "toy"}) as writer:
            for episode in filmed(2):
                writer.add(episode if spec.cameras else replace(episode, pictures={}))
        with pytest.raises(BadInput, match=f"{folder} spec: wanted {name}"):
            pixel_episodes([folder], seen, eye.cameras)


def test_world_of_pictures_is_refused_where_states_are_wanted(recorded, tmp_path):
    trained(recorded, tmp_path / "world")
    with pytest.raises(BadInput, match="world model of states"):
        load_state_world(tmp_path / "world")


def test_statistics_make_changes_of_unit_size():
    model = PixelWorldModel(tiny_spec(), (CAMERA,), CONFIG)
    data = dot_windows(model.steps)
    fit_statistics(model, data, 0)
    rows = data[torch.arange(len(data))]
    change = model.encode(rows.obs[:, -1], rows.future)
    pictures = model.steps * 3 * SIDE * SIDE
    assert change[:, :pictures].pow(2).mean().sqrt() == pytest.approx(1, rel=0.1)
    moved = change[:, pictures:].view(-1, model.steps, 4).pow(2).mean(0).sqrt()
    assert torch.allclose(moved[moved > 0.5], torch.ones(()), rtol=0.1)


def test_ensemble_of_one_has_no_doubt():
    model = PixelWorldModel(tiny_spec(), (CAMERA,), replace(CONFIG, members=1)).eval()
    rows = dot_windows(4)[torch.arange(2)]
    assert model.predict(rows.obs, rows.actions, normal(2, 4, model.spec.state_dim)).doubt.abs().max() == 0
