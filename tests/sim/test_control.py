"""Our control step is robosuite's, to the bit."""

from typing import cast

import numpy as np
import pytest

from robopolicy.seeding import stream
from sim.robosuite_env import RobosuiteEnv
from sim.tasks import find_task


@pytest.mark.parametrize("task", ["lift", "stack", "can", "door"])
def test_control_step_any_actions_same_scene_as_robosuite(task: str) -> None:
    env = cast("RobosuiteEnv", find_task(task).make())
    plain, scale = env._env, 1 / env.spec.action_range[1, 0]
    actions = stream(3, "test-actions").uniform(*env.spec.action_range, (30, 4)).astype(np.float32)
    actions[:, 2] = -np.abs(actions[:, 2])  # down, to where things touch
    for seed in (0, 1):
        env.reset(seed=seed)
        ours = []
        for action in actions:
            env.step(action)
            ours.append(plain.sim.data.qpos.copy())
        env.reset(seed=seed)
        for action, scene in zip(actions, ours, strict=True):
            dx, dy, dz, grip = action * np.append(np.full(3, scale), 1.0)
            plain.step(np.array([dx, dy, dz, 0, 0, 0, grip]))
            assert np.array_equal(plain.sim.data.qpos, scene)
    env.close()
