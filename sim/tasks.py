"""Task name -> Spec and environment. Adding a task means adding one entry to `TASKS`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import gymnasium

from robopolicy.errors import BadInput
from robopolicy.spec import Field, Spec

LIFT = Spec(
    robot="panda",
    task="lift",
    fps=20,
    chunk=8,
    obs_steps=2,
    horizon=64,
    proprio=(
        # Gripper tip in the world frame; the table top is at z = 0.8 m.
        Field("eef_pos", 3, "m", -1.0, 2.0, "point", ("eef_x", "eef_y", "eef_z")),
        # Position of the two fingers and the (integrating) command of their controller: without
        # the command the state would not be Markov.
        Field("fingers", 2, "m", -0.06, 0.06, "joint", ("finger_left", "finger_right")),
        Field("gripper_command", 1, "1", -1.0, 1.0, "command", ("gripper_command",)),
    ),
    objects=(
        Field("cube_pos", 3, "m", -2.0, 3.0, "point", ("cube_x", "cube_y", "cube_z")),
        # First two columns of the cube's rotation matrix: continuous, no sign ambiguity.
        Field("cube_rot", 6, "1", -1.01, 1.01, "rotation"),
    ),
    action=(
        # Displacement asked of the Cartesian impedance controller within one control step.
        Field("delta_pos", 3, "m", -0.05, 0.05, "command", ("dx", "dy", "dz")),
        # Sign opens (-) or closes (+) the fingers at constant speed.
        Field("grip", 1, "1", -1.0, 1.0, "command", ("grip",)),
    ),
)


@dataclass(frozen=True)
class Task:
    """A task users can name on the command line.

    Attributes:
        spec: what its numbers mean.
        make: builds one step-level environment (observation (D,), action (A,), both physical), given
            the side of its pictures in pixels, 0 for none.
    """

    spec: Spec
    make: Callable[..., gymnasium.Env]


def _make_lift(camera: int = 0) -> gymnasium.Env:
    from sim.robosuite_env import LiftEnv

    return LiftEnv(LIFT, camera)


TASKS = {"lift": Task(LIFT, _make_lift)}


def find_task(name: str) -> Task:
    """The task called `name`; an unknown name is refused with the nearest known one."""
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise BadInput("task", f"one of {sorted(TASKS)}", f"{name!r}{hint}")
    return TASKS[name]
