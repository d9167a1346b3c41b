"""Imagination as an environment: it ends for the right reason and leaves no trace of what it refuses."""

import gymnasium
import numpy as np
import pytest
import torch
from scripted_world import SPEC, STARTS, ScriptedWorld
from tiny import tiny_policy, tiny_world

from robopolicy.errors import BadInput
from robopolicy.rollout import PriorSteerer, rollout
from world_models.imagined_env import ImaginedEnv

K, D = SPEC.chunk, SPEC.state_dim
SEEDS = list(range(20, 84))


def env_of(world=None, num_envs=3, **settings):
    return ImaginedEnv(world or ScriptedWorld(), STARTS, num_envs, **settings)


def chunk(num_envs=3, rise=0.0):
    actions = np.zeros((num_envs, K, SPEC.action_dim), np.float32)
    actions[..., 2] = rise
    return actions


def test_spaces_are_those_of_the_spec():
    env = env_of()
    assert isinstance(env, gymnasium.vector.VectorEnv)
    obs, _ = env.reset(seed=[1, 2, 3])
    assert env.observation_space.contains(obs)
    assert env.action_space.contains(chunk())


def test_reset_begins_with_a_real_start_state_that_depends_on_the_seed_alone():
    obs, _ = env_of(num_envs=64).reset(seed=SEEDS)
    assert all(any(np.array_equal(o, s) for s in STARTS) for o in obs)
    assert len(np.unique(obs[:, -1], axis=0)) == len(STARTS)
    alone, _ = env_of(num_envs=1).reset(seed=[SEEDS[5]])
    assert np.array_equal(alone[0], obs[5])


def test_reset_without_a_seed_is_refused():
    with pytest.raises(BadInput, match="seed"):
        env_of().reset()


@pytest.mark.parametrize("shape", [(0, SPEC.obs_steps, D), (2, SPEC.obs_steps + 1, D), (2, D)])
def test_starts_of_another_shape_are_refused(shape):
    with pytest.raises(BadInput, match="starts"):
        ImaginedEnv(ScriptedWorld(), np.zeros(shape, np.float32), 1)


@pytest.mark.parametrize("horizon", [None, K + 3])
def test_horizon_truncates_without_terminating(horizon):
    env, wanted = env_of(horizon=horizon), horizon or SPEC.horizon
    env.reset(seed=[1, 2, 3])
    steps = 0
    for _ in range(-(-wanted // K)):
        _, _, terminated, truncated, info = env.step(chunk())
        steps += info["executed"]
        assert not terminated.any()
    assert truncated.all()
    assert steps.tolist() == [wanted] * 3
    assert info["reason"] == ["horizon"] * 3
    assert not info["success"].any()


def test_success_terminates_at_its_step_and_nothing_beyond_it_is_recorded():
    env = env_of(ScriptedWorld(won_above=-1.0))
    env.reset(seed=[1, 2, 3])
    obs, reward, terminated, truncated, info = env.step(chunk())
    assert terminated.all()
    assert not truncated.any()
    assert reward.tolist() == [1, 1, 1]
    assert info["executed"].tolist() == [1, 1, 1]
    assert info["achieved"][:, 0].all()
    assert not info["achieved"][:, 1:].any()
    assert not info["states"][:, 1:].any()
    assert np.array_equal(obs[:, -1], info["states"][:, 0])
    assert info["reason"] == [""] * 3


def test_success_beyond_the_horizon_does_not_count():
    env = env_of(ScriptedWorld(won_above=0.9))
    env.reset(seed=[1, 2, 3])
    for _ in range(2):
        env.step(chunk())
    height = env.state()["obs"][:, -1, 2].max().item()
    rise = (0.9 - height) / 3 + 0.01  # reached at the third step of the chunk; only two are left
    _, _, terminated, truncated, info = env.step(chunk(rise=rise))
    assert not terminated.any()
    assert truncated.all()
    assert info["executed"].tolist() == [SPEC.horizon - 2 * K] * 3


@pytest.mark.parametrize(
    ("world", "reason"),
    [(ScriptedWorld(doubt=2.0), "doubt"), (ScriptedWorld(broken=True), "diverged")],
)
def test_refused_chunk_truncates_and_leaves_no_trace(world, reason):
    env = env_of(world, doubt_limit=1.0)
    before, _ = env.reset(seed=[1, 2, 3])
    obs, reward, terminated, truncated, info = env.step(chunk())
    assert truncated.all()
    assert not terminated.any()
    assert info["reason"] == [reason] * 3
    assert info["executed"].tolist() == [0, 0, 0]
    assert np.array_equal(obs, before)
    assert not info["states"].any()
    assert not reward.any()
    assert np.isfinite(info["doubt"]).all()


def test_doubt_at_the_limit_goes_on():
    env = env_of(ScriptedWorld(doubt=1.0), doubt_limit=1.0)
    env.reset(seed=[1, 2, 3])
    assert not env.step(chunk())[3].any()


def test_not_a_number_as_doubt_diverges():
    env = env_of(ScriptedWorld(doubt=float("nan")))
    env.reset(seed=[1, 2, 3])
    assert env.step(chunk())[4]["reason"] == ["diverged"] * 3


def test_ended_slots_do_nothing_until_reset():
    env = env_of(ScriptedWorld(won_above=-1.0))
    env.reset(seed=[1, 2, 3])
    ended, *_ = env.step(chunk())
    obs, reward, terminated, truncated, info = env.step(chunk(rise=0.1))
    assert np.array_equal(obs, ended)
    assert not (reward.any())
    assert not (terminated.any())
    assert not (truncated.any())
    assert not info["executed"].any()
    assert not (info["success"].any())
    assert not (info["achieved"].any())
    assert not (info["doubt"].any())
    assert info["reason"] == [""] * 3


def test_reset_mask_restarts_only_the_masked_slots():
    env = env_of()
    env.reset(seed=[1, 2, 3])
    before, *_ = env.step(chunk(rise=0.01))
    obs, _ = env.reset(seed=[7, 7, 7], options={"reset_mask": np.array([False, True, False])})
    assert np.array_equal(obs[[0, 2]], before[[0, 2]])
    assert np.array_equal(obs[1], env_of(num_envs=1).reset(seed=[7])[0][0])
    assert env.state()["steps"].tolist() == [K, 0, K]


def episodes_by(num_envs: int):
    world = ScriptedWorld(won_above=0.4)
    return rollout(env_of(world, num_envs), RisingPolicy(), PriorSteerer(), SEEDS, "imagined")


class RisingPolicy:
    """Acts by its noise, upwards on the whole; exact whatever the batch."""

    spec = SPEC

    def initial(self, seeds):
        return {}

    def sample(self, obs, carry, noise):
        return (0.05 * noise + 0.02).clamp(-0.2, 0.2), carry


@pytest.mark.parametrize("num_envs", [1, 5, 65])
def test_episodes_are_the_same_to_the_bit_whatever_the_batch(num_envs):
    wanted, got = episodes_by(64), episodes_by(num_envs)
    assert len({e.success for e in wanted}) == 2
    for a, b in zip(wanted, got, strict=True):
        for name, value in vars(a).items():
            assert np.array_equal(value, getattr(b, name)), name


def test_closed_loop_of_networks_gives_the_same_episodes_whatever_the_batch():
    """To rounding: matrix products of other sizes are summed in another order."""
    world, policy = tiny_world(SPEC), tiny_policy(SPEC)
    wanted, got = (rollout(env_of(world, n), policy, PriorSteerer(), SEEDS, "imagined") for n in (64, 1))
    assert len({e.success for e in wanted}) == 2
    assert len({e.length for e in wanted}) > 2
    for a, b in zip(wanted, got, strict=True):
        assert (a.success, a.length, a.reason) == (b.success, b.length, b.reason)
        for name in ("states", "actions", "doubt"):
            assert np.allclose(getattr(a, name), getattr(b, name), rtol=0, atol=5e-6), name


def test_state_restored_goes_on_to_the_bit():
    env, other = env_of(num_envs=4), env_of(num_envs=4)
    env.reset(seed=[1, 2, 3, 4])
    env.step(chunk(4, 0.02))
    saved = env.state()
    wanted = env.step(chunk(4, 0.03))
    other.load_state(saved)
    got = other.step(chunk(4, 0.03))
    assert all(np.array_equal(a, b) for a, b in zip(wanted[:4], got[:4], strict=True))
    assert all(np.array_equal(v, got[4][k]) for k, v in wanted[4].items())
    # The saved tensors are copies: going on has not changed them.
    assert all(torch.equal(v, saved[k]) for k, v in saved.items())
    assert saved["steps"].tolist() == [K] * 4


def test_rollout_of_a_real_policy_stays_within_the_horizon():
    env = env_of(num_envs=8)
    done = rollout(env, tiny_policy(SPEC), PriorSteerer(), SEEDS[:12], "imagined")
    assert {e.length for e in done} == {SPEC.horizon}
    assert all(len(e.states) == e.length + 1 and e.reason == "horizon" for e in done)
