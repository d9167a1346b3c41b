"""Training of the world model: resumable to the bit, independent of processes, strict about its data."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch
from tiny import WORLD, episode, random_episodes, tiny_spec, write_dataset

from robopolicy.checkpoint import REMEMBERED, read_json, tensor_hash
from robopolicy.errors import BadInput, Interrupted
from robopolicy.train import fit, seeded_init
from world_models.learners import ErrorLearner, MemberLearner
from world_models.load import load_world, world_hash
from world_models.state import StateWorldModel
from world_models.statistics import calibrate, fit_errors, fit_statistics, folds, targets
from world_models.success import success_learner
from world_models.train import train_world
from world_models.windows import split, windows

SPEC = tiny_spec()
K, T, D = SPEC.chunk, SPEC.obs_steps, SPEC.state_dim


def fresh() -> StateWorldModel:
    with seeded_init(0):
        model = StateWorldModel(SPEC, WORLD)
    fit_statistics(model, training_windows(model))
    return model


def training_windows(model):
    return windows(random_episodes(SPEC), SPEC, model.steps)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "set", SPEC, random_episodes(SPEC))


@pytest.fixture(scope="module")
def world(dataset, tmp_path_factory):
    """A folder trained by one process, and the report."""
    out = tmp_path_factory.mktemp("world") / "world"
    return out, train_world([dataset], out, WORLD, 3, processes=1)


def test_windows_hold_what_the_episode_holds_at_each_step():
    episodes = [episode(SPEC, 1, 7, True), episode(SPEC, 2, 1, False)]
    data = windows(episodes, SPEC)
    assert len(data) == 8
    e = episodes[0]
    for i in range(e.length):
        for t in range(T):
            assert np.array_equal(data.obs[i, t], e.states[max(0, i + t - T + 1)])
        for k in range(K):
            seen = i + k < e.length
            assert data.mask[i, k] == seen
            assert np.array_equal(data.actions[i, k], e.actions[i + k] if seen else 0 * e.actions[0])
            assert np.array_equal(data.future[i, k], e.states[min(i + k + 1, e.length)])
            assert data.success[i, k] == (seen and e.achieved[i + k])
    assert data.episode.tolist() == [0] * 7 + [1]


def test_windows_of_no_steps_are_refused():
    with pytest.raises(BadInput, match="at least one step"):
        windows([], SPEC)


def test_linear_mean_recovers_a_linear_system():
    episodes = random_episodes(SPEC, 40)
    for e in episodes:
        e.actions[:] = np.random.default_rng(e.seed).uniform(-0.05, 0.05, e.actions.shape)
        e.states[1:, :3] = e.states[0, :3] + e.actions.cumsum(0)
    model = StateWorldModel(SPEC, WORLD)
    data = windows(episodes, SPEC, model.steps)
    fit_statistics(model, data)
    change = model.free(model.condition(data.obs, data.actions))
    error = (change + data.obs[:, -1:] - data.future)[..., :3].abs()
    assert (error * data.mask[..., None]).max() < 1e-3


def test_an_object_at_rest_is_not_learned_from():
    model = fresh()
    _, known = targets(model, training_windows(model))
    values = known[:, : len(model.scale)].view(-1, model.steps, D)
    assert not values[..., SPEC.slice_of("block")].any()  # nothing moves it in these episodes
    assert values[..., SPEC.slice_of("hand")].any()


def test_targets_beyond_the_end_of_an_episode_are_unknown():
    model = fresh()
    data = training_windows(model)
    _, known = targets(model, data)
    assert not known.view(len(data), -1)[data.mask.sum(1) == 1][:, D : 2 * D].any()


def test_each_member_misses_other_episodes_and_together_they_see_all():
    model = fresh()
    data = training_windows(model)
    seen = [set(data.episode[MemberLearner(model, i, data, WORLD).rows].tolist()) for i in range(2)]
    assert seen[0] | seen[1] == set(range(12))
    assert not seen[0] & seen[1]
    assert folds(data, 1).eq(-1).all()


def test_latents_are_uncorrelated_of_unit_variance_and_rebuild_the_errors():
    model = fresh()
    for member in model.members:
        torch.nn.init.normal_(member.out.weight, std=0.1)
    data = training_windows(model)
    latent, _ = fit_errors(model, data)
    gram = latent.T @ latent / len(latent)
    used = gram.diagonal() > 0.5
    assert torch.allclose(gram[used][:, used], torch.eye(int(used.sum())), atol=1e-3)
    target, known = targets(model, data)
    said = model.guess(data.obs, data.actions).members[folds(data, 2), torch.arange(len(data))]
    error = (target - said) * known
    # Two of its eight numbers never move: the rest fits into the latents.
    assert (latent @ model.basis - error).pow(2).mean() < 1e-3 * error.pow(2).mean()


def test_statistics_keep_states_inside_data_and_spec():
    model = fresh()
    states = np.concatenate([e.states[1:] for e in random_episodes(SPEC)])
    assert (model.state_low.numpy() <= states.min(0)).all()
    assert (model.state_high.numpy() >= states.max(0)).all()


def test_split_loses_no_episode_and_depends_on_the_seed():
    episodes = random_episodes(SPEC)
    train, held_out = split(episodes, 0.25, 1)
    assert len(held_out) == 3
    assert sorted(e.seed for e in train + held_out) == sorted(e.seed for e in episodes)
    assert [e.seed for e in held_out] == [e.seed for e in split(episodes, 0.25, 1)[1]]
    assert [e.seed for e in held_out] != [e.seed for e in split(episodes, 0.25, 2)[1]]


def test_calibrated_doubt_is_one_at_its_99th_percentile():
    model = fresh()
    for member in model.members:
        torch.nn.init.normal_(member.out.weight, std=0.1)
    data = windows(random_episodes(SPEC, 30, seed=1), SPEC)
    report = calibrate(model.eval(), data, 0)
    noise = torch.randn(len(data), K, D, generator=torch.Generator().manual_seed(0))
    doubt = model.predict(data.obs, data.actions, noise).doubt
    assert torch.quantile(doubt, 0.99).item() == pytest.approx(1, rel=1e-4)
    assert {f"rmse.{f.name}" for f in SPEC.state} < report.keys()


def learner_of(kind: str, **changes):
    model, data = fresh(), windows(random_episodes(SPEC), SPEC)
    if kind == "success":
        return success_learner(model, data, False, 1.0)
    data, config = training_windows(model), dataclasses.replace(WORLD, **changes)
    return MemberLearner(model, 1, data, config) if kind == "member" else ErrorLearner(model, data, config)


def touching_windows(model):
    """Some of them begin near contact: the hand starts where the block is, and leaves it."""
    episodes = random_episodes(SPEC)
    for e in episodes:
        e.states[:, SPEC.slice_of("block")] = e.states[0, SPEC.slice_of("hand")]
    return windows(episodes, SPEC, model.steps)


def batches(learner, count: int):
    """The rows that `learner` draws in so many steps."""
    drawn, loss = [], learner.loss
    learner.loss = lambda rows, generator: drawn.append(rows) or loss(rows, generator)
    generator = torch.Generator().manual_seed(0)
    for i in range(count):
        learner.step(i, generator)
    return torch.stack(drawn)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_contact_share_of_every_batch_begins_near_contact_and_the_rest_anywhere(share):
    model = fresh()
    data = touching_windows(model)
    near = model.geometry.contact(data.obs)
    learner = MemberLearner(model, 1, data, dataclasses.replace(WORLD, contact_share=share))
    rows = batches(learner, 60)
    usual = near[learner.rows].float().mean().item()
    assert 0.05 < usual < 0.3
    assert rows.shape == (60, WORLD.batch_size)
    assert near[rows].sum(1).min() >= share * WORLD.batch_size
    assert near[rows].float().mean().item() == pytest.approx(share + (1 - share) * usual, abs=0.02)
    assert set(rows.flatten().tolist()) <= set(learner.rows.tolist())


def test_contact_share_of_data_without_contact_is_drawn_from_anywhere():
    model = fresh()
    data = touching_windows(model)
    apart = data[(~model.geometry.contact(data.obs)).nonzero()[:, 0]]
    rows = batches(MemberLearner(model, 1, apart, dataclasses.replace(WORLD, contact_share=0.5)), 20)
    assert rows.shape == (20, WORLD.batch_size)
    assert len(rows.unique()) > 0.9 * (folds(apart, WORLD.members) != 1).sum()


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("kind", ["member", "errors"])
def test_feature_noise_is_the_share_of_the_spread_that_the_config_says(kind, noise, monkeypatch):
    learner, rows = learner_of(kind, feature_noise=noise), torch.arange(60)
    given = []
    monkeypatch.setattr(learner.net, "loss", lambda *x: given.append(x[kind == "errors"]))
    for seed in range(20):
        learner.loss(rows, torch.Generator().manual_seed(seed))
    gap = torch.stack(given) - learner.cond[rows]
    assert gap.std().item() == pytest.approx(noise, rel=0.02)
    assert gap.mean().item() == pytest.approx(0, abs=0.02 * noise)
    # Features are normalised: their spread is 1.
    assert learner.cond.std(0).median().item() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("kind", ["member", "errors", "success"])
@pytest.mark.parametrize("at", [0, 6])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, kind, at):
    steps, progress = WORLD.steps, tmp_path / "progress.safetensors"
    straight, resumed = learner_of(kind), learner_of(kind)
    fit(straight, steps, 5, kind, quiet=True)
    ctrl_c = lambda i, _: os.kill(os.getpid(), signal.SIGINT) if i == at else None  # noqa: E731
    with pytest.raises(Interrupted):
        fit(learner_of(kind), steps, 5, kind, progress, {"a": 1}, on_step=ctrl_c, quiet=True)
    fit(resumed, steps, 5, kind, progress, {"a": 1}, quiet=True)
    assert tensor_hash(resumed.state()) == tensor_hash(straight.state())


def test_trained_world_opens_frozen_and_leaves_nothing_behind(world):
    out, report = world
    model = load_world(out)
    assert model.spec == SPEC
    assert not any(p.requires_grad for p in model.parameters())
    names = {"config.json", "manifest.json", "model.safetensors", "spec.json", "starts.safetensors"}
    # What was said of it is kept until a verb has written its result.
    assert {p.name for p in out.iterdir()} == names | {REMEMBERED}
    assert sum(x["episodes"] for x in report["episodes"].values()) == 10


def test_recipe_of_the_data_is_saved_with_the_world(tmp_path):
    policy = {"source": "noise", "policy": "ab12", "noise": "repeat", "bound": 1.5}
    expert = {"source": "expert", "expert": "mixed"}
    given = {
        "demos": (expert | {"operators": {}}, [episode(SPEC, i, 6, True) for i in range(6)]),
        "rollouts": (policy | {"seed": 3, "first": 0}, [episode(SPEC, 50 + i, 6, i == 0) for i in range(4)]),
    }
    folders = [write_dataset(tmp_path / n, SPEC, episodes, **how) for n, (how, episodes) in given.items()]
    report = train_world(folders, tmp_path / "world", WORLD, 0, processes=1)
    demos, rollouts = recipe = report["datasets"]
    assert [(r["folder"], r["made_by"]) for r in recipe] == [("demos", expert), ("rollouts", policy)]
    held_out = round(WORLD.held_out * 10)
    assert demos["successes"] == demos["episodes"]
    assert rollouts["successes"] <= 1
    total = sum(r["episodes"] for r in recipe)
    assert total == 10 - held_out == sum(x["episodes"] for x in report["episodes"].values())
    assert [r["share"] for r in recipe] == [r["episodes"] / total for r in recipe]
    assert read_json(tmp_path / "world/config.json")["report"]["datasets"] == recipe


def test_dataset_that_does_not_say_who_made_it_has_a_recipe_too(world, dataset):
    won = sum(x["successes"] for x in world[1]["episodes"].values())
    counts = {"folder": dataset.name, "episodes": 10, "successes": won, "share": 1.0}
    assert world[1]["datasets"] == [{**counts, "made_by": {}}]


def test_two_processes_give_the_weights_of_one(world, dataset, tmp_path):
    train_world([dataset], tmp_path / "world", WORLD, 3, processes=2)
    assert world_hash(load_world(tmp_path / "world")) == world_hash(load_world(world[0]))


def test_training_stopped_between_members_gives_the_same_weights(world, dataset, tmp_path, monkeypatch):
    out = tmp_path / "world"

    def stop(learner, steps, seed, label, *rest, **options):
        if "2/2" in label:
            raise Interrupted("stopped")
        return fit(learner, steps, seed, label, *rest, **options)

    monkeypatch.setattr("world_models.train.fit", stop)
    with pytest.raises(Interrupted):
        train_world([dataset], out, WORLD, 3, processes=1)
    assert not (out / "manifest.json").exists()
    monkeypatch.undo()
    train_world([dataset], out, WORLD, 3, processes=1)
    assert world_hash(load_world(out)) == world_hash(load_world(world[0]))


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"config": dataclasses.replace(WORLD, lr=1e-4)}], ids=["seed", "config"]
)
def test_members_of_another_training_are_refused(dataset, tmp_path, monkeypatch, change):
    out = tmp_path / "world"
    settings = {"config": WORLD, "seed": 3}

    def stop(*_, **__):
        raise Interrupted("stopped")

    monkeypatch.setattr("world_models.train.calibrate", stop)
    with pytest.raises(Interrupted):
        train_world([dataset], out, **settings, processes=1)
    with pytest.raises(BadInput, match="member-0"):
        train_world([dataset], out, **{**settings, **change}, processes=1)


def test_data_without_success_is_refused_before_anything_is_written(tmp_path):
    lost = [episode(SPEC, i, 6, False) for i in range(6)]
    root = write_dataset(tmp_path / "set", SPEC, lost)
    with pytest.raises(BadInput, match="successes and failures"):
        train_world([root], tmp_path / "world", WORLD, 0)
    assert not (tmp_path / "world").exists()


def test_data_of_another_spec_is_refused_before_anything_is_written(dataset, tmp_path):
    other = tiny_spec(objects=False)
    root = write_dataset(tmp_path / "other", other, random_episodes(other, 4))
    with pytest.raises(BadInput, match="objects"):
        train_world([dataset, root], tmp_path / "world", WORLD, 0)
    assert not (tmp_path / "world").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "starts.safetensors", "config.json"])
def test_truncated_file_is_refused_by_name(world, tmp_path, name):
    folder = copy(world[0], tmp_path / "world")
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInput, match=name):
        load_world(folder)


def test_not_a_number_in_weights_is_refused(world, tmp_path):
    from robopolicy.checkpoint import load_tensors, save_tensors, seal

    folder = copy(world[0], tmp_path / "world")
    tensors, _ = load_tensors(folder / "model.safetensors")
    tensors["success_mean"][0] = torch.nan
    save_tensors(folder / "model.safetensors", tensors)
    seal(folder, "world", SPEC, ["config.json", "model.safetensors", "starts.safetensors"])
    with pytest.raises(BadInput, match=r"model\.safetensors:success_mean"):
        load_world(folder)


def test_dataset_is_no_world_model(dataset):
    with pytest.raises(BadInput, match="a world"):
        load_world(dataset)


def copy(source, target):
    import shutil

    return shutil.copytree(source, target)
