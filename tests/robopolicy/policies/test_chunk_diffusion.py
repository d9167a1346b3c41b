"""The chunk diffusion policy: a deterministic function of observation and noise, inside its range."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny import POLICY, normal, random_episodes, tiny_policy, tiny_spec

from robopolicy.data.windows import PolicyWindows
from robopolicy.protocols import Policy
from robopolicy.train import seeded_init

SPEC = tiny_spec()
K, A = SPEC.chunk, SPEC.action_dim
KINDS = ("mlp", "unet", "transformer")


@pytest.fixture(
    params=[("ddim", kind) for kind in KINDS] + [("beso", "mlp"), ("flow", "mlp"), ("beso", "unet")]
)
def policy(request):
    process, denoiser = request.param
    return tiny_policy(SPEC, dataclasses.replace(POLICY, process=process, denoiser=denoiser))


def seen(count: int = 16):
    data = PolicyWindows(random_episodes(SPEC), SPEC)
    index = torch.arange(count)
    return data.obs(index), data.actions(index)


def test_chunk_policy_is_a_policy(policy):
    assert isinstance(policy, Policy)
    assert policy.initial([1, 2]) == {}


def test_sample_is_a_function_of_observation_and_noise(policy):
    obs, noise = seen()[0], normal(16, K, A)
    chunk, carry = policy.sample(obs, {}, noise)
    torch.manual_seed(99)
    assert torch.equal(policy.sample(obs, {}, noise)[0], chunk)
    assert chunk.shape == (16, K, A)
    assert carry == {}
    assert not torch.allclose(policy.sample(obs, {}, noise + 1)[0], chunk)
    assert not torch.allclose(policy.sample(obs + 0.1, {}, noise)[0], chunk)


def test_sample_of_one_equals_its_row_in_a_batch(policy):
    obs, noise = seen()[0], normal(16, K, A)
    whole = policy.sample(obs, {}, noise)[0]
    alone = [policy.sample(obs[i : i + 1], {}, noise[i : i + 1])[0] for i in range(16)]
    assert torch.allclose(whole, torch.cat(alone), atol=1e-5)


def test_sample_stays_inside_the_action_range_for_any_noise(policy):
    chunk = policy.sample(seen()[0], {}, 100 * normal(16, K, A))[0].numpy()
    low, high = SPEC.action_range
    assert (chunk >= low).all()
    assert (chunk <= high).all()
    SPEC.check_action(chunk)


def test_policy_overfits_one_batch(policy):
    obs, actions = seen()
    cond, target = policy.condition(obs), policy.normalize_actions(actions)
    optimizer = torch.optim.Adam(policy.core.parameters(), 3e-3)
    losses = []
    for i in range(80):
        loss = policy.core.loss(cond, target, None, torch.Generator().manual_seed(i))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])


def test_padded_actions_carry_no_gradient(policy):
    obs, actions = seen()
    cond = policy.condition(obs)
    target = policy.normalize_actions(actions).requires_grad_()
    is_pad = torch.zeros(16, K, dtype=torch.bool)
    is_pad[:, 2:] = True
    # The noisy input of the padded positions is seen by the network, so only the error is looked at.
    policy.core.denoiser = Constant()
    policy.core.loss(cond, target, is_pad, torch.Generator().manual_seed(0)).backward()
    assert (target.grad[:, 2:] == 0).all()
    assert (target.grad[:, :2] != 0).any()


class Constant(torch.nn.Module):
    """A denoiser that says zero."""

    def forward(self, x, step, cond):
        return torch.zeros_like(x)


def test_loss_of_all_real_actions_is_the_loss_without_padding():
    policy = tiny_policy(SPEC)
    obs, actions = seen()
    args = policy.condition(obs), policy.normalize_actions(actions)
    none = torch.zeros(16, K, dtype=torch.bool)
    losses = [policy.core.loss(*args, pad, torch.Generator().manual_seed(0)).item() for pad in (None, none)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("steps", [1, 5, 10])
def test_ddim_with_a_perfect_predictor_returns_the_data(steps):
    policy = tiny_policy(SPEC, dataclasses.replace(POLICY, inference_steps=steps))
    data = normal(6, K, A).clamp(-0.9, 0.9)

    class Perfect(torch.nn.Module):
        def forward(self, x, step, cond):
            return data

    policy.core.denoiser = Perfect()
    chunk = policy.core.denoise(torch.zeros(6, 1), normal(6, K, A, seed=1))
    assert torch.allclose(chunk, data, atol=1e-5)


def test_physical_actions_survive_normalisation():
    policy = tiny_policy(SPEC)
    _, actions = seen()
    normalized = policy.normalize_actions(actions)
    assert normalized.abs().max() <= 1 + 1e-6
    back = policy.low + (normalized + 1) / 2 * (policy.high - policy.low)
    assert torch.allclose(back, actions, atol=1e-6)


def test_policy_of_a_spec_without_objects_samples():
    spec = tiny_spec(objects=False)
    chunk, _ = tiny_policy(spec).sample(torch.zeros(2, spec.obs_steps, spec.state_dim), {}, normal(2, K, A))
    assert chunk.shape == (2, K, A)


def test_select_action_plays_a_chunk_before_it_asks_again():
    policy = tiny_policy(SPEC).core
    n = SPEC.proprio_dim
    asked = []
    ask = policy.predict_action_chunk
    policy.predict_action_chunk = lambda *a, **k: asked.append(1) or ask(*a, **k)
    state = torch.zeros(1, SPEC.state_dim)
    batch = {"observation.state": state[:, :n], "observation.environment_state": state[:, n:]}
    noise = normal(1, K, A)
    played = [policy.select_action(batch, noise=noise) for _ in range(K)]
    assert len(asked) == 1
    history = {k: v[:, None].repeat(1, SPEC.obs_steps, 1) for k, v in batch.items()}
    assert torch.equal(torch.stack(played, 1), ask(history, noise=noise))
    policy.select_action(batch)
    assert len(asked) == 2
    policy.reset()
    policy.select_action(batch)
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"denoiser": "rnn"}, "denoiser"),
        ({"prediction_type": "v"}, "prediction_type"),
        ({"n_action_steps": K + 1}, "n_action_steps"),
    ],
)
def test_bad_configuration_is_refused_by_name(change, named):
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(tiny_policy(SPEC).core.config, **change)


def test_same_seed_gives_the_same_untrained_policy_and_leaves_the_stream_alone():
    torch.manual_seed(5)
    first = tiny_policy(SPEC).hash()
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    with seeded_init(7):
        assert tiny_policy(SPEC).hash() == first
    assert tiny_policy(SPEC, seed=1).hash() != first
