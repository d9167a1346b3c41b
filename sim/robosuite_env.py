"""robosuite's tasks (Panda arm) as gymnasium environments with exactly reproducible episodes."""

from __future__ import annotations

import logging
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from robopolicy.seeding import stream
from robopolicy.spec import Spec
from sim.control import ControlStep

# The cube starts anywhere in this square (metres, table centre) and at any small yaw (radians).
_PLACE = 0.10
_YAW = 0.3
_TABLE_Z = 0.8
_BRAKE = 1600.0  # stiffness of the brake per inertia, 1/s^2: a time constant of 25 ms


class RobosuiteEnv(gymnasium.Env):
    """A task of robosuite. Observation (D,) and action (A,) are physical; see `sim.specs`.

    The same seed gives the same episode whatever ran before: everything that survives robosuite's
    soft reset (controller goals, the gripper's integrated command, MuJoCo's warm start) is cleared.
    Subclasses say where things start and what is measured of them.

    Args:
        spec: the task's Spec.
        camera: side of a square RGB image returned by `render`, in pixels; 0 means no rendering.
        name: robosuite's name of the task.
        options: of `robosuite.make`, beside those that all tasks share.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    views = {"scene": "agentview", "wrist": "robot0_eye_in_hand"}
    spec: Any  # our Spec, where gymnasium would keep its registry entry

    def __init__(self, spec: Spec, camera: int, name: str, **options: Any):
        if camera:
            from sim.rendering import require_rendering

            require_rendering()
        robosuite = _import_robosuite()
        self.spec = spec
        self.observation_space = gymnasium.spaces.Box(*spec.state_range)
        self.action_space = gymnasium.spaces.Box(*spec.action_range)
        self.render_mode = "rgb_array" if camera else None
        # robosuite draws sizes of objects from numpy's global stream while it builds the model: every
        # process must build the same one. The stream is given back untouched.
        before = np.random.get_state()
        np.random.seed(0)
        try:
            self._env = robosuite.make(
                name,
                robots="Panda",
                has_renderer=False,
                has_offscreen_renderer=False,
                use_camera_obs=False,
                initialization_noise=None,
                control_freq=int(spec.fps),
                ignore_done=True,
                hard_reset=False,
                **options,
            )
        finally:
            np.random.set_state(before)
        self._scale = np.append(np.full(3, 1 / spec.action_range[1, 0]), 1.0)
        self._control: ControlStep
        self._camera = camera
        self._renderer: Any = None
        self._steps = 0
        self._braked_at: np.ndarray | None = None  # joint angles, while holding

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; where things start is a function of `seed` alone."""
        super().reset(seed=seed)
        env = self._env
        rng = stream(seed, self.spec.task) if seed is not None else self.np_random
        env.reset()
        robot = env.robots[0]
        robot.gripper["right"].current_action = np.zeros(2)
        self._place(rng)
        env.sim.data.qvel[:] = 0
        env.sim.data.qacc_warmstart[:] = 0
        env.sim.forward()
        robot.composite_controller.update_state()
        robot.composite_controller.reset()
        self._control = ControlStep(env)
        self._steps, self._braked_at = 0, None
        return self._state(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Applies one action (A,); reward is 1 on success, which ends the episode."""
        dx, dy, dz, grip = self.spec.check_action(action) * self._scale
        self._control(np.array([dx, dy, dz, 0, 0, 0, grip]))
        self._braked_at = None
        return self._outcome()

    def hold(self) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One control step with the joints braked where they are and the grip unchanged.

        An action of zero is no brake: the controller holds the hand, not the elbow, and after a fast
        motion the hand creeps on for a second. Joints are held as a real arm's servos do, by
        tau = M (k (q0 - q) - 2 sqrt(k) q') + bias, critically damped.
        """
        import mujoco  # not above: with it the rendering backend is chosen

        model, data = self._env.sim.model._model, self._env.sim.data._data
        robot = self._env.robots[0]
        dofs, motors = robot._ref_arm_joint_indexes, robot._ref_arm_joint_actuator_indexes
        if self._braked_at is None:
            self._braked_at = data.qpos[dofs].copy()
        limits = model.actuator_ctrlrange[motors].T
        mass = np.zeros((model.nv, model.nv))
        for _ in range(round(self._env.control_timestep / self._env.model_timestep)):
            mujoco.mj_step1(model, data)  # type: ignore[attr-defined]
            mujoco.mj_fullM(model, mass, data.qM)  # type: ignore[attr-defined]
            gap, speed = self._braked_at - data.qpos[dofs], data.qvel[dofs]
            wanted = _BRAKE * gap - 2 * _BRAKE**0.5 * speed
            torque = mass[np.ix_(dofs, dofs)] @ wanted + data.qfrc_bias[dofs]
            data.ctrl[motors] = np.clip(torque, *limits)
            mujoco.mj_step2(model, data)  # type: ignore[attr-defined]
        return self._outcome()

    @abstractmethod
    def _place(self, rng: np.random.Generator) -> None:
        """Puts everything that is not the robot where the episode starts."""

    @abstractmethod
    def _things(self) -> list[np.ndarray]:
        """What the Spec's `objects` say of the present state."""

    def _put(self, thing: Any, position: Sequence[float], yaw: float) -> None:
        """Places the free body `thing` of robosuite upright."""
        pose = [*position, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
        self._env.sim.data.set_joint_qpos(thing.joints[0], np.array(pose))

    def _pose(self, body: int) -> list[np.ndarray]:
        """Position (3,) of a body and the first two columns of its rotation matrix (6,)."""
        data = self._env.sim.data
        return [data.body_xpos[body], data.body_xmat[body].reshape(3, 3)[:, :2].T.ravel()]

    def _outcome(self) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        success = bool(self._env._check_success())
        truncated = not success and self._steps >= self.spec.horizon
        return self._state(), float(success), success, truncated, {"is_success": success}

    def _state(self) -> np.ndarray:
        robot, data = self._env.robots[0], self._env.sim.data
        proprio = [
            data.site_xpos[robot.eef_site_id["right"]],
            data.qpos[robot._ref_gripper_joint_pos_indexes["right"]],
            robot.gripper["right"].current_action[-1:],
        ]
        return self.spec.check_obs(np.concatenate(proprio + self._things()))

    def render(self) -> np.ndarray:
        """(camera, camera, 3) uint8 picture of the scene."""
        return self.view("scene")

    def view(self, name: str) -> np.ndarray:
        """(camera, camera, 3) uint8 what one of `views` shows."""
        if self._renderer is None:
            from sim.rendering import Renderer

            self._renderer = Renderer(self._env.sim.model._model, self._camera, hidden=(0,))
        return self._renderer(self._env.sim.data._data, self.views[name])

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self._env.close()


class LiftEnv(RobosuiteEnv):
    """Lift a cube by 4 cm; see `sim.specs.LIFT`."""

    def __init__(self, spec: Spec, camera: int = 0):
        super().__init__(spec, camera, "Lift")

    def _place(self, rng: np.random.Generator) -> None:
        xy, yaw = rng.uniform(-_PLACE, _PLACE, 2), rng.uniform(-_YAW, _YAW)
        self._put(self._env.cube, [*xy, _TABLE_Z + 0.0208], yaw)

    def _things(self) -> list[np.ndarray]:
        return self._pose(self._env.cube_body_id)


def _import_robosuite() -> Any:
    """robosuite without its warnings about optional parts that nobody asked for."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # its docstrings
            import robosuite
            from robosuite.utils.log_utils import ROBOSUITE_DEFAULT_LOGGER
    finally:
        logging.disable(logging.NOTSET)
    ROBOSUITE_DEFAULT_LOGGER.setLevel(logging.ERROR)
    return robosuite
