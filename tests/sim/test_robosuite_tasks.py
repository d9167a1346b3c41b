"""robosuite's tasks beside Lift: exact seeds, states that follow from the scene, operators who err early."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from robopolicy.protocols import ChunkEnv
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.seeding import stream
from sim.experts import ExpertSettings
from sim.robosuite_env import RobosuiteEnv
from sim.tasks import find_task
from sim.vector import ChunkWrapper

NAMES = ("can", "door", "stack")
THING = {"can": "can_pos", "door": "handle_pos", "stack": "cube_pos"}


@pytest.fixture(scope="module", params=NAMES)
def env(request: pytest.FixtureRequest) -> Iterator[RobosuiteEnv]:
    env = cast("RobosuiteEnv", find_task(request.param).make())
    yield env
    env.close()


def play(env: RobosuiteEnv, seed: int, steps: int = 12) -> np.ndarray:
    rng = stream(seed, "test-actions")
    states = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        states.append(env.step(rng.uniform(*env.spec.action_range).astype(np.float32))[0])
    return np.array(states)


def test_robosuite_same_seed_same_episode_whatever_ran_before(env: RobosuiteEnv) -> None:
    first = play(env, 7)
    other = play(env, 8)
    assert np.array_equal(play(env, 7), first)
    assert not np.array_equal(other[0], first[0])
    fresh = cast("RobosuiteEnv", find_task(env.spec.task).make())
    assert np.array_equal(play(fresh, 7), first)
    fresh.close()


def test_robosuite_start_is_at_rest_and_no_success(env: RobosuiteEnv) -> None:
    where = slice(env.spec.proprio_dim, None)
    for seed in range(3):
        start, info = env.reset(seed=seed)
        for _ in range(5):
            state, _, success, _, _ = env.step(np.zeros(4, np.float32))
            assert not success
        assert not info["is_success"]
        assert np.abs(state[where] - start[where]).max() < 0.005


def test_robosuite_next_state_follows_from_bodies_and_observed_command(env: RobosuiteEnv) -> None:
    """No controller remembers anything that state and action do not say."""
    play(env, 3, 20)
    sim, gripper = env._env.sim, env._env.robots[0].gripper["right"]
    bodies, command = sim.get_state(), gripper.current_action.copy()
    action = np.array([0.03, -0.02, 0.04, 1.0], np.float32)
    expected = env.step(action)[0]
    assert command[-1] != expected[env.spec.slice_of("gripper_command")]
    env.reset(seed=3)
    sim.set_state(bodies)
    sim.forward()
    env._env.robots[0].part_controllers["right"].update(force=True)  # of where the joints are now
    gripper.current_action = command
    assert np.abs(env.step(action)[0] - expected).max() < 1e-4


def test_robosuite_rotations_are_two_orthonormal_columns(env: RobosuiteEnv) -> None:
    state = play(env, 3)[-1]
    for field in env.spec.state:
        if field.role == "rotation":
            columns = state[env.spec.slice_of(field.name)].reshape(2, 3)
            assert np.allclose(columns @ columns.T, np.eye(2), atol=1e-5)


def test_robosuite_hold_comes_to_rest(env: RobosuiteEnv) -> None:
    env.reset(seed=1)
    for _ in range(5):
        env.step(np.array([0.05, 0.02, 0.05, 0.0], np.float32))
    hand = env.spec.slice_of("eef_pos")
    trace = [env.hold()[0][hand] for _ in range(8)]
    assert np.linalg.norm(trace[-1] - trace[-2]) < 5e-4


def test_robosuite_careful_operator_succeeds_and_a_mistaken_one_leaves_the_thing(env: RobosuiteEnv) -> None:
    task = find_task(env.spec.task)
    operators = task.experts()["mixed"].operators
    wrapped = SyncVectorEnv(
        [lambda: ChunkWrapper(lambda: env, task.spec, 1)], autoreset_mode=AutoresetMode.DISABLED
    )
    thing = task.spec.slice_of(THING[task.spec.task])
    episodes = []
    for operator, seeds in ((operators[0], (1, 2)), (operators[-1], (1,))):
        expert = task.expert(task.spec, ExpertSettings((operator,), noise=0.05, p_retry=0.0))
        episodes += rollout(cast("ChunkEnv", wrapped), expert, PriorSteerer(), seeds)
    assert [e.success for e in episodes] == [True, True, False]
    achieved = [e.achieved.nonzero()[0].tolist() for e in episodes]
    assert achieved == [[e.length - 1] for e in episodes[:2]] + [[]]
    height = [e.states[:, thing][:, 2].max() - e.states[0, thing][2] for e in episodes]
    assert task.spec.task == "door" or (height[0] > 0.04 > 0.02 > height[2])
