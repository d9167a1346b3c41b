"""Meta-World's tasks: exact seeds, Markov states, operators who err, and a hand that holds still."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from robopolicy.errors import BadInput
from robopolicy.protocols import ChunkEnv
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.seeding import stream
from sim.metaworld_env import MetaWorldEnv
from sim.metaworld_expert import OPERATORS
from sim.tasks import TASKS, find_task
from sim.vector import ChunkWrapper

NAMES = sorted(OPERATORS)


def play(env: MetaWorldEnv, seed: int, steps: int = 12) -> np.ndarray:
    rng = stream(seed, "test-actions")
    states = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        states.append(env.step(rng.uniform(*env.spec.action_range).astype(np.float32))[0])
    return np.array(states)


@pytest.fixture(scope="module")
def push() -> MetaWorldEnv:
    return cast("MetaWorldEnv", find_task("push").make())


@pytest.mark.parametrize("name", NAMES)
def test_metaworld_same_seed_same_episode_whatever_ran_before(name):
    env = cast("MetaWorldEnv", find_task(name).make())
    first = play(env, 7)
    play(env, 8)
    assert np.array_equal(play(env, 7), first)
    assert not np.array_equal(play(env, 8)[0], first[0])
    env.close()


def test_metaworld_commanded_pose_moves_by_the_action(push):
    push.reset(seed=1)
    where = push.spec.slice_of("commanded")
    before = push._state()
    after = push.step(np.array([0.004, 0.01, -0.006, 0.5], np.float32))[0]
    assert np.allclose(after[where] - before[where], [0.004, 0.01, -0.006], atol=1e-6)
    assert after[push.spec.slice_of("effort")] == 0.5


def test_metaworld_rotation_is_two_orthonormal_columns(push):
    columns = play(push, 3)[:, push.spec.slice_of("object_rot")].reshape(-1, 2, 3)
    assert np.allclose(columns @ columns.transpose(0, 2, 1), np.eye(2), atol=1e-5)
    body = push._env.data.geom("objGeom").xmat.reshape(3, 3)
    assert np.allclose(columns[-1], body.T[:2], atol=1e-5)


def test_metaworld_hold_comes_to_rest(push):
    push.reset(seed=1)
    for _ in range(10):
        push.step(np.array([0.01, 0.0, 0.0, 1.0], np.float32))
    hand = push.spec.slice_of("hand_pos")
    trace = np.array([push.hold()[0][hand] for _ in range(60)])
    assert np.linalg.norm(trace[-1] - trace[-2]) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_metaworld_careful_operator_succeeds_more_often_than_a_mistaken_one(name):
    task = find_task(name)
    mixed = task.experts()["mixed"]
    careful, mistaken = mixed.operators[0], mixed.operators[-1]
    rates = []
    for operator in (careful, mistaken):
        expert = task.expert(task.spec, type(mixed)((operator,)))
        wrapped = SyncVectorEnv(
            [lambda: ChunkWrapper(task.make, task.spec, 1)], autoreset_mode=AutoresetMode.DISABLED
        )
        rates.append(
            np.mean([e.success for e in rollout(cast("ChunkEnv", wrapped), expert, PriorSteerer(), range(6))])
        )
        wrapped.close()
    assert rates[0] > rates[1]
    assert rates[0] >= 0.5


def test_metaworld_unknown_name_refused():
    with pytest.raises(BadInput, match="metaworld task"):
        MetaWorldEnv(TASKS["push"].spec, "push-v9")
