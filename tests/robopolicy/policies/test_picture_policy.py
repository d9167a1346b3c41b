"""Policies that see pictures: learned from our recordings, run by our loop, LeRobot's, and its trainer."""

import dataclasses

import numpy as np
import pytest
import torch
from lerobot.policies.factory import get_policy_class
from tiny import POLICY, normal, random_episodes, tiny_spec, write_dataset

from robopolicy.checkpoint import read_json
from robopolicy.data.film import with_pictures
from robopolicy.data.windows import PolicyWindows
from robopolicy.devices import Devices
from robopolicy.errors import BadInput
from robopolicy.nets.vision import as_floats
from robopolicy.policies.learners import MemoryLearner, PolicyLearner, make_learner
from robopolicy.policies.load import load_policy
from robopolicy.policies.train import new_policy, save_policy, train_policy
from robopolicy.spec import Camera, picture_field
from robopolicy.steering.actors import Features
from robopolicy.train import fit

SPEC = dataclasses.replace(tiny_spec(), cameras=(Camera("front", 16, 16),))
CONFIG = dataclasses.replace(POLICY, batch_size=32, steps=150, lr=3e-3)
KEY = "observation.images.front"


def episodes():
    """What to do is seen only in the picture: up where it is bright on top, else down."""
    made = []
    for i, e in enumerate(random_episodes(tiny_spec(), 12)):
        frames = np.zeros((e.length, 16, 16, 3), np.uint8)
        frames[:, 2 : 6 if i % 2 else 14, 4:12] = 0
        frames[:, slice(2, 6) if i % 2 else slice(10, 14), 4:12] = 255
        actions = np.zeros_like(e.actions)
        actions[:, 2] = 0.1 if i % 2 else -0.1
        states = np.zeros_like(e.states)
        made.append(dataclasses.replace(e, states=states, actions=actions, pictures={"front": frames}))
    return made


DATA = PolicyWindows(episodes(), SPEC)


@pytest.fixture(scope="module")
def policy():
    made = new_policy(SPEC, CONFIG, DATA, 0)
    learner = PolicyLearner(made, DATA, CONFIG)
    fit(learner, CONFIG.steps, 0, "policy", quiet=True)
    made.core.load_state_dict(learner.ema.average)
    return made.eval().requires_grad_(False)


def batch(policy, rows):
    """As LeRobot's processors leave it."""
    unit, n = policy.normalize(DATA.obs(rows)), SPEC.proprio_dim
    return {
        "observation.state": unit[..., :n],
        "observation.environment_state": unit[..., n:],
        KEY: as_floats(DATA.pictures(rows)[0]),
    }


def test_windows_show_the_pictures_of_their_steps():
    rows = torch.tensor([0, 1, 15])
    (seen,) = DATA.pictures(rows)
    assert seen.shape == (3, SPEC.obs_steps, 16, 16, 3)
    first = torch.from_numpy(DATA.episodes[0].pictures["front"])
    assert torch.equal(seen[0], first[[0, 0]])
    assert torch.equal(seen[1], first[[0, 1]])
    assert torch.equal(seen[2, -1], torch.from_numpy(DATA.episodes[1].pictures["front"][5]))


def test_policy_does_what_the_picture_says(policy):
    rows = torch.arange(0, len(DATA), 10)
    chunk = policy.core.predict_action_chunk(batch(policy, rows), noise=normal(len(rows), SPEC.chunk, 3))
    up = torch.arange(len(rows)) % 2 == 1
    assert (chunk[up, :, 2].mean(1) > 0.2).all()
    assert (chunk[~up, :, 2].mean(1) < -0.2).all()


def test_lerobots_loop_queues_pictures_and_executes_the_same_chunk(policy):
    policy.core.reset()
    first = {k: v[:, -1] for k, v in batch(policy, torch.tensor([0])).items()}
    noise = normal(1, SPEC.chunk, 3)
    actions = [policy.core.select_action(first, noise=noise) for _ in range(SPEC.chunk)]
    chunk = policy.core.predict_action_chunk(batch(policy, torch.tensor([0])), noise=noise)
    assert torch.allclose(torch.stack(actions, 1), chunk, atol=1e-5)


def test_lerobots_trainer_sees_pictures(policy):
    rows = torch.arange(8)
    actions = policy.normalize_actions(DATA.actions(rows))
    policy.core.train()
    loss, _ = policy.core.forward({**batch(policy, rows), "action": actions})
    policy.core.eval()
    assert 0 < float(loss) < 2


def test_trained_from_a_dataset_saved_and_opened_is_the_same(tmp_path):
    data = write_dataset(tmp_path / "data", SPEC, episodes())
    train_policy([data], tmp_path / "policy", dataclasses.replace(CONFIG, steps=3), 0)
    config = read_json(tmp_path / "policy/config.json")
    assert config["vision"] == "small"
    assert config["input_features"][KEY]["shape"] == [3, 16, 16]
    ours = load_policy(tmp_path / "policy")
    theirs = get_policy_class("chunk_diffusion").from_pretrained(tmp_path / "policy", strict=True).eval()
    rows, noise = torch.arange(4), normal(4, SPEC.chunk, 3)
    own = ours.core.predict_action_chunk(batch(ours, rows), noise=noise)
    assert torch.equal(theirs.predict_action_chunk(batch(ours, rows), noise=noise), own)


def test_where_only_states_are_seen_it_is_refused(policy, tmp_path):
    with pytest.raises(BadInput, match=KEY):
        policy.sample(DATA.obs(torch.arange(2)), {}, normal(2, SPEC.chunk, 3))
    save_policy(policy, tmp_path)


WHOLE = dataclasses.replace(tiny_spec(), objects=(picture_field(SPEC.cameras[0]),))


def whole(made):
    """Episodes in whose states the pictures are."""
    n = WHOLE.proprio_dim
    seen = []
    for e in made:
        frames = np.concatenate([e.pictures["front"], e.pictures["front"][-1:]])[: len(e.states)]
        states = with_pictures(e.states[:, :n], [frames])
        seen.append(dataclasses.replace(e, states=states, pictures={}))
    return seen


def learned(config, steps=CONFIG.steps):
    data = PolicyWindows(whole(episodes()), WHOLE)
    made = new_policy(WHOLE, config, data, 0)
    learner = make_learner(made, data, config, Devices())
    fit(learner, steps, 0, "policy", quiet=True)
    made.core.load_state_dict(learner.ema.average)
    return made.eval().requires_grad_(False), data


@pytest.fixture(scope="module")
def reader():
    return learned(CONFIG)


def test_pictures_in_the_state_are_those_that_were_taken(reader):
    policy, data = reader
    rows = torch.tensor([0, 1, 15])
    (shown,) = policy.pictures(data.obs(rows))
    assert torch.allclose(shown, as_floats(DATA.pictures(rows)[0]))


def test_policy_does_what_the_picture_in_its_state_says(reader):
    policy, data = reader
    rows = torch.arange(0, len(data), 10)
    chunk, _ = policy.sample(data.obs(rows), {}, normal(len(rows), WHOLE.chunk, 3))
    up = torch.arange(len(rows)) % 2 == 1
    assert (chunk[up, :, 2].mean(1) > 0.02).all()
    assert (chunk[~up, :, 2].mean(1) < -0.02).all()


def test_lerobots_loop_gets_the_same_of_pictures_as_ours_of_states(reader):
    policy, data = reader
    rows, noise = torch.arange(0, len(data), 30), normal(4, WHOLE.chunk, 3)
    obs = data.obs(rows)
    seen = {"observation.state": policy.normalize(obs), KEY: policy.pictures(obs)[0]}
    theirs = policy.core.predict_action_chunk(seen, noise=noise[: len(rows)])
    ours, _ = policy.sample(obs, {}, noise[: len(rows)])
    assert torch.allclose(policy.normalize_actions(ours), theirs.clamp(-1, 1), atol=1e-5)


def test_saved_with_pictures_in_its_state_answers_as_before(reader, tmp_path):
    policy, data = reader
    save_policy(policy, tmp_path)
    obs, noise = data.obs(torch.arange(3)), normal(3, WHOLE.chunk, 3)
    assert torch.equal(load_policy(tmp_path).sample(obs, {}, noise)[0], policy.sample(obs, {}, noise)[0])


@pytest.mark.parametrize("memory", ["sega", "lstm", "stacked"])
def test_memory_reads_pictures_and_its_encoder_learns(memory):
    config = dataclasses.replace(CONFIG, memory=memory, batch_size=8)
    policy, data = learned(config, steps=3)
    learner = make_learner(policy.requires_grad_(True).train(), data, config, Devices())
    assert isinstance(learner, MemoryLearner)
    learner.loss(torch.Generator().manual_seed(0)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() for p in policy.core.vision.parameters())
    policy.eval().requires_grad_(False)
    obs, noise = data.obs(torch.arange(4)), normal(4, WHOLE.chunk, 3)
    whole_batch, carry = policy.sample(obs, policy.initial([0] * 4), noise)
    alone, _ = policy.sample(obs[:1], policy.initial([0]), noise[:1])
    assert torch.allclose(alone, whole_batch[:1], atol=1e-5)
    assert not carry["fresh"].any()


def test_steering_sees_what_the_policy_makes_of_pictures(reader):
    policy, data = reader
    features = Features(WHOLE, policy=policy)
    assert features.size == WHOLE.obs_steps * (WHOLE.proprio_dim + policy.core.config.vision_size)
    features.fit(data.episodes, WHOLE)
    rows = features(data.obs(torch.arange(len(data))))
    assert torch.isfinite(rows).all()
    # Bright on top, or not, is what differs most between these episodes.
    top, below = rows[data.episode % 2 == 1].mean(0), rows[data.episode % 2 == 0].mean(0)
    assert (top - below).abs().max() > 1
    with pytest.raises(BadInput, match="reads pictures"):
        Features(WHOLE)
