"""Stack, PickPlaceCan and Door of robosuite: where things start and what is measured of them."""

from __future__ import annotations

import numpy as np

from robopolicy.spec import Spec
from sim.robosuite_env import LiftEnv, RobosuiteEnv

_YAW = 0.3  # what stands on a table is turned by at most this, radians


class StackEnv(RobosuiteEnv):
    """Put the small cube on the larger one and let go; see `sim.specs.STACK`.

    Success is robosuite's: the cubes touch, the small one is over 4 cm above the table, not both fingers
    touch it. The small cube starts on the robot's right, the other one on its left.
    """

    def __init__(self, spec: Spec, camera: int = 0):
        super().__init__(spec, camera, "Stack")

    def _place(self, rng: np.random.Generator) -> None:
        env = self._env
        for cube, half, y in ((env.cubeA, 0.02, -0.07), (env.cubeB, 0.025, 0.11)):
            start = rng.uniform([-0.08, y - 0.05], [0.08, y + 0.05])
            self._put(cube, [*start, env.table_offset[2] + half], rng.uniform(-_YAW, _YAW))

    def _things(self) -> list[np.ndarray]:
        return self._pose(self._env.cubeA_body_id) + self._pose(self._env.cubeB_body_id)


class CanEnv(RobosuiteEnv):
    """Carry a can from the left bin to its compartment of the right one; see `sim.specs.CAN`.

    Success is robosuite's: the can lies in the compartment, the hand is over 4.2 cm away.
    """

    def __init__(self, spec: Spec, camera: int = 0):
        super().__init__(spec, camera, "PickPlaceCan")
        env, model = self._env, self._env.sim.model
        self._can = env.objects[env.object_id]
        # The other objects of robosuite's PickPlace fall far away; they need not land.
        for thing in env.objects:
            if thing is not self._can:
                geoms = env.obj_geom_id[thing.name]
                model.geom_contype[geoms] = model.geom_conaffinity[geoms] = 0

    def _place(self, rng: np.random.Generator) -> None:
        x, y, z = self._env.bin1_pos
        xy = rng.uniform([x - 0.08, y], [x + 0.08, y + 0.16])
        self._put(self._can, [*xy, z + 0.0601], 0.0)

    def _things(self) -> list[np.ndarray]:
        return self._pose(self._env.obj_body_id[self._can.name])


class DoorEnv(RobosuiteEnv):
    """Pull a door open by 0.3 rad with a hook made of the fingers; see `sim.specs.DOOR`.

    The hand is turned by a quarter so that its narrow side fits between handle and panel. The door has no
    latch: its handle must be turned by over 1.2 rad, and a hand that cannot tilt did that, with the exact
    pose known, in 6 to 12 of 12 episodes within a window of 1 cm along the handle and in half beside it.
    """

    def __init__(self, spec: Spec, camera: int = 0):
        super().__init__(spec, camera, "Door", use_latch=False)
        robot = self._env.robots[0]
        robot.init_qpos = robot.init_qpos + np.array([0, 0, 0, 0, 0, 0, np.pi / 2])

    def _place(self, rng: np.random.Generator) -> None:
        env = self._env
        root = env.sim.model.body_name2id(env.door.root_body)
        xy, yaw = rng.uniform([-0.18, -0.41], [-0.06, -0.31]), rng.uniform(-0.15, 0.05) - np.pi / 2
        env.sim.model.body_pos[root] = [*xy, env.table_offset[2] + 0.3]
        env.sim.model.body_quat[root] = [np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]

    def _things(self) -> list[np.ndarray]:
        env = self._env
        _, rotation = self._pose(env.object_body_ids["door"])
        return [env._handle_xpos, rotation, env.sim.data.qpos[[env.hinge_qpos_addr]]]


ENVS = {"lift": LiftEnv, "stack": StackEnv, "can": CanEnv, "door": DoorEnv}
