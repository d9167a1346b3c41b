"""Meta-World's Sawyer tasks with Markov states and exactly reproducible episodes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from robopolicy.errors import BadInput
from robopolicy.seeding import stream
from robopolicy.spec import Spec
from sim.specs import METAWORLD_REPEAT, METAWORLD_STEP_M


class MetaWorldEnv(gymnasium.Env):
    """One task of Meta-World v3; observation (D,) and action (A,) as in `sim.specs.metaworld_spec`.

    Args:
        spec: of the task.
        name: Meta-World's name of it, such as "push-v3".
        camera: side of a square RGB image returned by `render`, in pixels; 0 means no rendering.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80 // METAWORLD_REPEAT}
    views = {"scene": "corner3", "wrist": "gripperPOV"}
    spec: Any  # our Spec, where gymnasium would keep its registry entry

    def __init__(self, spec: Spec, name: str, camera: int = 0):
        if camera:
            from sim.rendering import require_rendering

            require_rendering()
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        if name not in ALL_V3_ENVIRONMENTS:
            raise BadInput("metaworld task", "one of Meta-World's names", name)
        self.spec = spec
        self.observation_space = gymnasium.spaces.Box(*spec.state_range)
        self.action_space = gymnasium.spaces.Box(*spec.action_range)
        self.render_mode = "rgb_array" if camera else None
        self._camera = camera
        self._renderer: Any = None
        env = self._env = ALL_V3_ENVIRONMENTS[name]()
        env._set_task_called = True
        env._freeze_rand_vec = False
        env.seeded_rand_vec = True
        env._partially_observable = False
        env.max_path_length = 10 * spec.horizon
        self._scale = np.append(np.full(3, 1 / METAWORLD_STEP_M), 1.0)
        self._effort, self._steps = 0.0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; where object and goal are is a function of `seed` alone."""
        super().reset(seed=seed)
        rng = stream(seed, self.spec.task) if seed is not None else self.np_random
        self._env.seed(int(rng.integers(2**31)))
        self._env.reset()
        self._effort, self._steps = -1.0, 0  # it starts with open fingers
        return self._state(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Applies one action (A,); reward is 1 on success, which ends the episode."""
        command = self.spec.check_action(action) * self._scale
        success = False
        for _ in range(METAWORLD_REPEAT):
            success |= bool(self._env.step(command)[4]["success"])
            if success:
                break
        self._effort = float(np.clip(command[3], -1, 1))
        self._steps += 1
        truncated = not success and self._steps >= self.spec.horizon
        return self._state(), float(success), success, truncated, {"is_success": success}

    def hold(self) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One control step of standing still, grip unchanged."""
        return self.step(np.array([0, 0, 0, self._effort], np.float32))

    def _state(self) -> np.ndarray:
        env = self._env
        now = env._get_curr_obs_combined_no_goal()
        x, y, z, w = now[7:11]
        rotation = [
            1 - 2 * (y * y + z * z),
            2 * (x * y + z * w),
            2 * (x * z - y * w),
            2 * (x * y - z * w),
            1 - 2 * (x * x + z * z),
            2 * (y * z + x * w),
        ]
        commanded, goal = env.data.mocap_pos[0], env._get_pos_goal()
        state = [now[:3], commanded, now[3:4], [self._effort], now[4:7], rotation, goal]
        return self.spec.check_obs(np.concatenate(state))

    def render(self) -> np.ndarray:
        """(camera, camera, 3) uint8 picture of the scene."""
        return self.view("scene")

    def view(self, name: str) -> np.ndarray:
        """(camera, camera, 3) uint8 what one of `views` shows."""
        if self._renderer is None:
            from sim.rendering import Renderer

            self._renderer = Renderer(self._env.model, self._camera)
        return self._renderer(self._env.data, self.views[name])[::-1, ::-1]  # its cameras hang upside down

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self._env.close()
