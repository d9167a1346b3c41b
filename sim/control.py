"""robosuite's control step without what nobody reads: the same states to the bit in less time.

In each of the 25 simulation steps of a control step robosuite updates some forty observables, looks up names
and asks a fixed base how fast it moves. Policies here read MuJoCo's data itself. So this keeps robosuite's
goals, gains and formulas (Khatib 1987), and asks for each number once.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class ControlStep:
    """Moves one arm of robosuite under its operational-space controller, gripper included.

    Args:
        env: robosuite's environment, with a fixed base and lite physics.
    """

    def __init__(self, env: Any):
        import mujoco  # not above: with it the rendering backend is chosen
        from robosuite.utils import control_utils

        robot = env.robots[0]
        self.env, self.robot, self.arm = env, robot, robot.part_controllers["right"]
        self.mujoco: Any = mujoco
        self.law: Any = control_utils
        if self.arm.interpolator_pos or self.arm.interpolator_ori or not self.arm.uncoupling:
            raise ValueError("wanted a decoupled controller without interpolation")
        self.site = robot.eef_site_id["right"]
        self.motors = robot._ref_actuators_indexes_dict["right"]
        self.limits = env.sim.model.actuator_ctrlrange[self.motors].T
        self.steps = int(env.control_timestep / env.model_timestep)

    def __call__(self, action: np.ndarray) -> None:
        """Applies one action of robosuite's (7,), in its units."""
        mujoco, model, data = self.mujoco, self.env.sim.model._model, self.env.sim.data._data
        mujoco.mj_step1(model, data)
        self._first(action)
        mujoco.mj_step2(model, data)
        goal = self._goal()
        for _ in range(self.steps - 1):
            mujoco.mj_step1(model, data)
            data.ctrl[self.motors] = np.clip(self._torque(model, data, *goal), *self.limits)
            mujoco.mj_step2(model, data)

    def _first(self, action: np.ndarray) -> None:
        """Sets goals and motors by robosuite's own code; the gripper's command stays as it is."""
        composite = self.robot.composite_controller
        composite.update_state()
        composite.set_goal(action)
        for name, command in composite.run_controller(self.robot._enabled_parts).items():
            motors = self.robot._ref_actuators_indexes_dict[name]
            limits = self.env.sim.model.actuator_ctrlrange[motors].T
            self.env.sim.data.ctrl[motors] = np.clip(command, *limits)

    def _goal(self) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) and orientation (3, 3) in the world."""
        arm = self.arm
        if arm.input_ref_frame == "world":
            return arm.goal_pos, arm.goal_ori
        return arm.origin_pos + np.dot(arm.origin_ori, arm.goal_pos), np.dot(arm.origin_ori, arm.goal_ori)

    def _torque(self, model: Any, data: Any, position: np.ndarray, orientation: np.ndarray) -> np.ndarray:
        """(7,) tau = J^T (Lambda_x F, Lambda_r T) + bias + N^T tau_0."""
        arm, site, dofs = self.arm, self.site, self.arm.qvel_index
        jac_pos, jac_ori = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        self.mujoco.mj_jacSite(model, data, jac_pos, jac_ori, site)
        mass = np.zeros((model.nv, model.nv))
        self.mujoco.mj_fullM(model, mass, data.qM)
        mass = mass[dofs, :][:, dofs]
        full = np.ascontiguousarray(np.concatenate([jac_pos[:, dofs], jac_ori[:, dofs]]))
        now = data.site_xmat[site].reshape(3, 3)
        kp, kd = arm.kp, arm.kd
        force = (position - data.site_xpos[site]) * kp[:3] - np.dot(jac_pos, data.qvel) * kd[:3]
        twist = self.law.orientation_error(orientation, now) * kp[3:] - np.dot(jac_ori, data.qvel) * kd[3:]
        _, along, about, null = self.law.opspace_matrices(mass, full, full[:3], full[3:])
        wrench = np.concatenate([np.dot(along, force), np.dot(about, twist)])
        torque = np.dot(full.T, wrench) + data.qfrc_bias[dofs]
        return torque + self.law.nullspace_torques(
            mass, null, arm.initial_joint, data.qpos[arm.qpos_index], data.qvel[dofs]
        )
