"""`lerobot-eval` judges in imagination; one action at a time ends where the whole chunk does."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from scripted_world import SPEC, STARTS, ScriptedWorld
from tiny import WORLD, random_episodes, tiny_policy, write_dataset

from robopolicy.checkpoint import load_tensors, save_tensors, seal
from robopolicy.errors import BadInput
from robopolicy.policies.train import save_policy
from world_models.imagined_env import ImaginedEnv
from world_models.lerobot_env import ImaginationConfig, StepwiseImagination
from world_models.train import train_world

K, N = SPEC.chunk, 3
SEEDS = [5, 6, 7]


def both(world=None, **settings):
    """The environment one action at a time, and the same episodes chunk by chunk."""
    envs = [ImaginedEnv(world or ScriptedWorld(), STARTS, N, **settings) for _ in range(2)]
    return StepwiseImagination(envs[0]), envs[1]


def actions(steps, seed=0):
    low, high = SPEC.action_range
    return np.random.default_rng(seed).uniform(low, high, (N, steps, SPEC.action_dim)).astype(np.float32)


def state(observed):
    return np.concatenate([observed["agent_pos"], observed["environment_state"]], 1)


def test_chunk_given_action_by_action_ends_where_the_whole_chunk_ends():
    env, whole = both()
    env.reset(seed=SEEDS)
    whole.reset(seed=SEEDS)
    for chunk in (actions(K), actions(K, 1)):
        for k in range(K):
            observed, *_ = env.step(chunk[:, k])
        obs, *_ = whole.step(chunk)
        assert np.array_equal(state(observed), obs[:, -1])


def test_observation_follows_from_the_actions_given_so_far():
    env, whole = both()
    obs, _ = whole.reset(seed=SEEDS)
    start, chunk = obs[:, -1], actions(K)
    first, _ = env.reset(seed=SEEDS)
    assert np.array_equal(state(first), start)
    for k in range(K):
        observed, *_ = env.step(chunk[:, k])
        moved = state(observed)[:, :3] - start[:, :3]
        assert np.allclose(moved, chunk[:, : k + 1].sum(1), atol=0.01)


@pytest.mark.parametrize(
    "settings",
    [{"world": ScriptedWorld(won_above=0.1)}, {"world": ScriptedWorld(doubt=2.0), "doubt_limit": 1.0}, {}],
)
def test_episodes_end_with_the_chunk_in_which_imagination_ends_them(settings):
    env, whole = both(**settings)
    env.reset(seed=SEEDS)
    whole.reset(seed=SEEDS)
    every = np.full((N, SPEC.horizon, SPEC.action_dim), 0.05, np.float32)
    padded = np.concatenate([every, every], 1)
    for step in range(SPEC.horizon):
        _, *got, info = env.step(every[:, step])
        if (step + 1) % K and step + 1 < SPEC.horizon:
            assert not np.any([*got, info["is_success"]])
        else:
            start = step - step % K
            _, *wanted, chunk_info = whole.step(padded[:, start : start + K])
            assert np.array_equal([*got, info["is_success"]], [*wanted, chunk_info["success"]])
    assert not whole.state()["active"].any()


def test_prediction_that_is_not_finite_moves_nothing():
    env, _ = both(ScriptedWorld(broken=True))
    first, _ = env.reset(seed=SEEDS)
    for k in range(K):
        observed, _, _, truncated, _ = env.step(actions(K)[:, k])
        assert np.array_equal(state(observed), state(first))
    assert truncated.all()


def test_actions_are_limited_to_the_range_of_the_spec():
    env, _ = both()
    seen = []
    for factor in (0.5, 1, 10):
        env.reset(seed=SEEDS)
        seen.append(state(env.step(np.tile(factor * SPEC.action_range[1], (N, 1)))[0]))
    assert not np.array_equal(seen[0], seen[1])
    assert np.array_equal(seen[1], seen[2])


def test_action_that_is_not_finite_is_refused():
    env, _ = both()
    env.reset(seed=SEEDS)
    with pytest.raises(BadInput, match="action"):
        env.step(np.full((N, SPEC.action_dim), np.nan, np.float32))


def test_spaces_hold_what_the_environment_says_and_takes():
    env, _ = both()
    observed, _ = env.reset(seed=SEEDS)
    assert env.observation_space.contains(observed)
    assert env.action_space.contains(actions(1)[:, 0])


def test_picture_shows_a_dot_that_follows_its_point():
    env, _ = both()
    env.reset(seed=SEEDS)
    before = env.render()
    env.step(np.tile(SPEC.action_range[1], (N, 1)))
    after = env.render()
    assert {f.shape for f in before} == {(128, 256, 3)}
    assert all((a != b).any() for a, b in zip(before, after, strict=True))


def test_lerobot_is_told_what_it_asks_for():
    env, _ = both()
    assert env.call("_max_episode_steps") == (SPEC.horizon,) * N
    assert env.get_attr("task_description") == (SPEC.task,) * N
    with pytest.raises(AttributeError):
        env.get_attr("hand_camera")


def test_configuration_without_a_world_is_refused():
    with pytest.raises(BadInput, match="spec"):
        ImaginationConfig()


@pytest.mark.slow
def test_lerobot_eval_judges_our_policy_in_imagination(tmp_path):
    save_policy(tiny_policy(SPEC), tmp_path / "policy")
    data, world = write_dataset(tmp_path / "data", SPEC, random_episodes(SPEC)), tmp_path / "world"
    train_world([data], world, WORLD, 0, processes=1)
    # A success head that says yes to everything: every episode has to come out as one success.
    tensors, _ = load_tensors(world / "model.safetensors")
    tensors["success_head.4.bias"] += 1e3
    save_tensors(world / "model.safetensors", tensors)
    seal(world, "world", SPEC, ["config.json", "model.safetensors", "starts.safetensors"])
    flags = [
        "--env.type=robopolicy_imagination",
        "--env.discover_packages_path=world_models",
        f"--env.world={world}",
        "--env.doubt_limit=inf",
        f"--policy.path={tmp_path}/policy",
        "--policy.discover_packages_path=robopolicy.policies.diffusion",
        "--eval.n_episodes=5",
        "--eval.batch_size=5",
        f"--output_dir={tmp_path}/out",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "lerobot.scripts.lerobot_eval", *flags],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    info = json.loads((tmp_path / "out/eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 5
    assert info["overall"]["pc_success"] == 100.0
    assert info["per_task"][0]["metrics"]["sum_rewards"] == [1.0] * 5
    assert len(info["overall"]["video_paths"]) == 5
