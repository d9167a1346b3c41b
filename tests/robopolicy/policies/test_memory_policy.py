"""Policies that remember: the same in our loop, in LeRobot's, saved, resumed, and in any batch."""

import dataclasses

import pytest
import torch
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE
from tiny import POLICY, normal, observations, random_episodes, tiny_policy, tiny_spec

from robopolicy.checkpoint import tensor_hash
from robopolicy.data.windows import PolicyWindows
from robopolicy.errors import BadInput
from robopolicy.policies.learners import MemoryLearner
from robopolicy.policies.load import load_policy
from robopolicy.policies.train import save_policy
from robopolicy.seeding import torch_seed
from robopolicy.train import fit, seeded_init

SPEC = tiny_spec()
K, A, P, T = SPEC.chunk, SPEC.action_dim, SPEC.proprio_dim, SPEC.obs_steps
DATA = PolicyWindows(random_episodes(SPEC), SPEC)
KINDS = ("sega", "lstm", "stacked")


def config(kind="sega", **settings):
    own = {"memory_width": 16, "memory_slots": 3, "memory_layers": 1, "batch_size": 8}
    return dataclasses.replace(POLICY, memory=kind, **own | settings)


@pytest.fixture(params=KINDS)
def policy(request):
    return tiny_policy(SPEC, config(request.param))


def learner(**settings):
    own = config(**settings)
    with seeded_init(0):
        return MemoryLearner(tiny_policy(SPEC, own), DATA, own)


def calls(policy, count=3, rows=5):
    """Chunks of calls in a row."""
    carry, chunks = policy.initial(range(rows)), []
    for i in range(count):
        chunk, carry = policy.sample(observations(SPEC, rows) + 0.1 * i, carry, normal(rows, K, A, seed=i))
        chunks.append(chunk)
    return torch.stack(chunks, 1), carry


def test_carry_is_needed_and_no_row_changes_another(policy):
    whole, carry = calls(policy)
    assert set(carry) == {"memory", "fresh"}
    assert not carry["fresh"].any()
    obs, noise = observations(SPEC) + 0.3, normal(5, K, A, seed=9)
    after, _ = policy.sample(obs, carry, noise)
    assert not torch.allclose(after, policy.sample(obs, policy.initial(range(5)), noise)[0], atol=1e-5)
    for i in range(5):
        row = {k: v[i : i + 1] for k, v in carry.items()}
        assert torch.allclose(policy.sample(obs[i : i + 1], row, noise[i : i + 1])[0][0], after[i], atol=1e-5)
    assert torch.equal(calls(policy)[0], whole)


def test_what_only_a_memoryless_policy_can_say_is_refused(policy):
    with pytest.raises(BadInput, match="without memory"):
        policy.condition(observations(SPEC))


def test_saved_and_opened_does_the_same(policy, tmp_path):
    save_policy(policy, tmp_path / "policy")
    opened = load_policy(tmp_path / "policy")
    assert torch.equal(calls(opened)[0], calls(policy)[0])


def test_lerobots_loop_executes_the_same_chunks_until_reset(policy):
    chunks, _ = calls(policy, rows=1)
    core = policy.core.eval()
    scale = policy.high - policy.low
    for _ in range(2):
        core.reset()
        for i in range(3):
            obs = policy.normalize(observations(SPEC, 1) + 0.1 * i)
            history = {OBS_STATE: obs[..., :P], OBS_ENV_STATE: obs[..., P:]}
            own = core.predict_action_chunk(history, noise=normal(1, K, A, seed=i)).clamp(-1, 1)
            assert torch.allclose(policy.low + (own + 1) / 2 * scale, chunks[:, i], atol=1e-5)


def test_lerobots_trainer_sees_calls_in_a_row_and_forgets_what_was_before_the_episode():
    policy = tiny_policy(SPEC, config())
    core, steps = policy.core, policy.core.config.observation_delta_indices
    calls = core.config.memory_chunks
    assert steps[-T:] == list(range(1 - T, 1))
    assert steps[:T] == [s - K * (calls - 1) for s in range(1 - T, 1)]
    obs = normal(6, calls * T, SPEC.state_dim)
    pad = torch.zeros(6, calls * T, dtype=torch.bool)
    begun = 3  # the first call of the episode
    pad[:, : begun * T] = True
    batch = {OBS_STATE: obs[..., :P], OBS_ENV_STATE: obs[..., P:], f"{OBS_STATE}_is_pad": pad}
    cond = core._last_of_a_row(batch)
    fresh = torch.zeros(6, calls - begun, dtype=torch.bool)
    fresh[:, 0] = True
    assert torch.allclose(cond, core.recall(obs.unflatten(1, (calls, T))[:, begun:], fresh)[:, -1], atol=1e-6)
    torch.manual_seed(0)
    loss, _ = core.forward({**batch, ACTION: normal(6, K, A).clamp(-1, 1)})
    loss.backward()
    assert all(p.grad is not None for p in core.memory.parameters())


@pytest.mark.parametrize("denoiser", ["mlp", "unet", "transformer"])
def test_every_parameter_is_in_the_optimiser_and_moves(denoiser):
    made = learner(denoiser=denoiser, width=32)
    before = {k: v.clone() for k, v in made.policy.core.named_parameters()}
    trained = {id(p) for g in made.optimizer.param_groups for p in g["params"]}
    assert trained == {id(p) for p in made.policy.core.parameters()}
    fit(made, POLICY.steps, 5, "policy", quiet=True)
    still = [k for k, v in made.policy.core.named_parameters() if torch.equal(v, before[k])]
    assert not still


@pytest.mark.parametrize("settings", [{"kind": k} for k in KINDS] + [{"truncate": 1}])
def test_resumed_training_equals_uninterrupted(settings):
    straight, first, second = (learner(**settings) for _ in range(3))
    fit(straight, POLICY.steps, 5, "policy", quiet=True)
    generator = torch.Generator()
    for i in range(POLICY.steps):
        if i == 5:
            second.load_state({k: v.clone() for k, v in first.state().items()})
        generator.manual_seed(torch_seed(5, "step", i))
        (first if i < 5 else second).step(i, generator)
    assert tensor_hash(second.state()) == tensor_hash(straight.state())


def test_truncation_changes_gradients_and_nothing_else():
    """The value of the loss does not depend on how far gradients flow back."""
    losses, grads = [], []
    for truncate in (0, 1):
        made = learner(truncate=truncate)
        loss = made.loss(torch.Generator().manual_seed(0))
        loss.backward()
        losses.append(float(loss.detach()))
        grads.append(made.policy.core.memory.norm_memory.weight.grad)
    assert losses[0] == losses[1]
    assert grads[1] is None or not torch.equal(*grads)


def test_chains_hold_every_window_once_a_chunk_apart():
    rows, there = DATA.chains()
    assert sorted(rows[there].tolist()) == list(range(len(DATA)))
    steps = DATA._at[rows]
    assert ((steps[:, 1:] - steps[:, :-1])[there[:, 1:]] == K).all()
    assert (there[:, :-1] | ~there[:, 1:]).all()
