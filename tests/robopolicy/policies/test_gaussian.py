"""A Gaussian policy is a function of its arguments, and loads as it was saved or not at all."""

import pytest
import torch
from tiny import normal, tiny_spec

from robopolicy.checkpoint import load_tensors, save_tensors, seal, write_json
from robopolicy.errors import BadInput
from robopolicy.policies.gaussian import ActionPlayer, GaussianPolicy, save_gaussian
from robopolicy.policies.load import load_policy
from robopolicy.protocols import Policy

SPEC = tiny_spec()
NOISE = normal(5, SPEC.chunk, SPEC.action_dim)
OBS = 0.3 * normal(5, SPEC.obs_steps, SPEC.state_dim, seed=1)


def gaussian(seed: int = 0) -> GaussianPolicy:
    made = GaussianPolicy(SPEC, 16, 2, torch.Generator().manual_seed(seed))
    made.fit(normal(50, SPEC.state_dim, seed=2))
    return made.eval()


@pytest.fixture
def folder(tmp_path):
    save_gaussian(gaussian(), tmp_path / "policy")
    return tmp_path / "policy"


def test_gaussian_loaded_is_the_saved_one(folder):
    loaded = load_policy(folder)
    assert isinstance(loaded, Policy)
    assert isinstance(loaded, GaussianPolicy)
    assert loaded.hash() == gaussian().hash()
    assert loaded.spec == SPEC
    assert not any(p.requires_grad for p in loaded.parameters())
    assert torch.equal(loaded.sample(OBS, {}, NOISE)[0], gaussian().sample(OBS, {}, NOISE)[0])


def test_gaussian_sample_is_mean_plus_std_times_noise_within_the_range():
    policy = gaussian()
    mean, log_std = policy.moments(policy.features(OBS))
    half = (policy.high - policy.low) / 2
    wanted = policy.low + half * ((mean + log_std.exp() * NOISE).clamp(-1, 1) + 1)
    actions, carry = policy.sample(OBS, policy.initial([0] * 5), NOISE)
    torch.testing.assert_close(actions, wanted)
    assert carry == {}
    far, _ = policy.sample(OBS, {}, 1e6 * NOISE)
    assert ((far >= policy.low) & (far <= policy.high)).all()


def test_gaussian_rows_do_not_know_each_other():
    policy = gaussian()
    whole, _ = policy.sample(OBS, {}, NOISE)
    single = [policy.sample(OBS[i : i + 1], {}, NOISE[i : i + 1])[0] for i in range(5)]
    torch.testing.assert_close(whole, torch.cat(single))


def test_gaussian_weights_come_from_the_generator():
    state = torch.random.get_rng_state()
    assert gaussian(1).hash() == gaussian(1).hash() != gaussian(2).hash()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_player_plays_the_whole_range_and_nothing_beyond():
    low, high = torch.from_numpy(SPEC.action_range)
    shape = (1, SPEC.chunk, SPEC.action_dim)
    for value, wanted in ((-1.0, low), (1.0, high), (7.0, high), (0.0, (low + high) / 2)):
        actions, _ = ActionPlayer(SPEC).sample(OBS[:1], {}, torch.full(shape, value))
        torch.testing.assert_close(actions, wanted.expand(shape))


@pytest.mark.parametrize(
    "config",
    [
        {"type": "chunk_gaussian", "width": 16},
        {"type": "chunk_gaussian", "width": "16", "blocks": 2},
        {"type": "chunk_gaussian", "width": 16, "blocks": 0},
        {"type": "chunk_gaussian", "width": 16, "blocks": 2, "depth": 1},
    ],
)
def test_gaussian_bad_config_refused(folder, config):
    write_json(folder / "config.json", config)
    seal(folder, "policy", SPEC, ["config.json", "model.safetensors"])
    with pytest.raises(BadInput, match=r"config\.json"):
        load_policy(folder)


@pytest.mark.parametrize("spoil", ["missing", "shape", "nan"])
def test_gaussian_bad_weights_refused(folder, spoil):
    path = folder / "model.safetensors"
    tensors, _ = load_tensors(path)
    if spoil == "missing":
        del tensors["head.bias"]
    elif spoil == "shape":
        tensors["head.bias"] = tensors["head.bias"][1:]
    else:
        tensors["head.bias"][0] = torch.nan
    save_tensors(path, tensors)
    seal(folder, "policy", SPEC, ["config.json", "model.safetensors"])
    with pytest.raises(BadInput, match=r"model\.safetensors"):
        load_policy(folder)


def test_gaussian_changed_after_sealing_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(BadInput, match=r"model\.safetensors"):
        load_policy(folder)
