"""What the numbers of each simulated task mean."""

from __future__ import annotations

from robopolicy.spec import Field, Spec


def _panda_spec(task: str, horizon: int, objects: tuple[Field, ...]) -> Spec:
    """What the numbers of a task of robosuite mean; the arm is the same in all of them."""
    return Spec(
        robot="panda",
        task=task,
        fps=20,
        chunk=8,
        obs_steps=2,
        horizon=horizon,
        proprio=(
            # Gripper tip in the world frame; the table top is at z = 0.8 m.
            Field("eef_pos", 3, "m", -1.0, 2.0, "point", ("eef_x", "eef_y", "eef_z")),
            # Position of the two fingers and the (integrating) command of their controller: without
            # the command the state would not be Markov.
            Field("fingers", 2, "m", -0.06, 0.06, "joint", ("finger_left", "finger_right")),
            Field("gripper_command", 1, "1", -1.0, 1.0, "command", ("gripper_command",)),
        ),
        objects=objects,
        action=(
            # Displacement asked of the Cartesian impedance controller within one control step.
            Field("delta_pos", 3, "m", -0.05, 0.05, "command", ("dx", "dy", "dz"), moves="eef_pos"),
            # Sign opens (-) or closes (+) the fingers at constant speed.
            Field("grip", 1, "1", -1.0, 1.0, "command", ("grip",)),
        ),
    )


def _body(name: str) -> tuple[Field, Field]:
    """Pose of a free body."""
    return (
        Field(f"{name}_pos", 3, "m", -2.0, 3.0, "point", (f"{name}_x", f"{name}_y", f"{name}_z")),
        # First two columns of the body's rotation matrix: continuous, no sign ambiguity.
        Field(f"{name}_rot", 6, "1", -1.01, 1.01, "rotation"),
    )


LIFT = _panda_spec("lift", 64, _body("cube"))
STACK = _panda_spec("stack", 112, _body("cube") + _body("base"))
CAN = _panda_spec("can", 144, _body("can"))
DOOR = _panda_spec(
    "door",
    96,
    (
        Field("handle_pos", 3, "m", -2.0, 3.0, "point", ("handle_x", "handle_y", "handle_z")),
        # First two columns of the panel's rotation matrix; with the hinge it tells how the frame stands.
        Field("panel_rot", 6, "1", -1.01, 1.01, "rotation"),
        Field("hinge", 1, "rad", -0.2, 0.7, "joint", ("hinge",)),
    ),
)


# Meta-World moves the commanded pose by at most a centimetre per step of 12.5 ms. Two of its steps are one
# of ours: at 80 Hz a chunk of 8 would be over before anything happened.
METAWORLD_REPEAT = 2
METAWORLD_STEP_M = 0.01 * METAWORLD_REPEAT


def metaworld_spec(task: str, horizon: int) -> Spec:
    """What the numbers of a Meta-World task mean; equal for all of them but for name and horizon."""
    return Spec(
        robot="sawyer",
        task=task,
        fps=80 // METAWORLD_REPEAT,
        chunk=8,
        obs_steps=2,
        horizon=horizon,
        proprio=(
            Field("hand_pos", 3, "m", -1.0, 2.0, "point", ("hand_x", "hand_y", "hand_z")),
            # The hand is drawn to a commanded pose by a weld: without it the state would not be Markov.
            Field("commanded", 3, "m", -1.0, 2.0, "point", ("commanded_x", "commanded_y", "commanded_z")),
            Field("opening", 1, "1", 0.0, 1.0, "joint", ("opening",)),
            Field("effort", 1, "1", -1.0, 1.0, "command", ("effort",)),
        ),
        objects=(
            Field("object_pos", 3, "m", -2.0, 3.0, "point", ("object_x", "object_y", "object_z")),
            # First two columns of its rotation matrix: continuous, no sign ambiguity.
            Field("object_rot", 6, "1", -1.01, 1.01, "rotation"),
            Field("goal", 3, "m", -2.0, 3.0, "point", ("goal_x", "goal_y", "goal_z")),
        ),
        action=(
            Field(
                "delta_pos",
                3,
                "m",
                -METAWORLD_STEP_M,
                METAWORLD_STEP_M,
                "command",
                ("dx", "dy", "dz"),
                moves="commanded",
            ),
            # Effort with which the fingers close (+) or open (-).
            Field("grip", 1, "1", -1.0, 1.0, "command", ("grip",)),
        ),
    )


def memory_spec(task: str, horizon: int, objects: tuple[Field, ...]) -> Spec:
    """What the numbers of a memory task mean: a hand over a table, and lamps."""
    return Spec(
        robot="hand",
        task=task,
        fps=10,
        chunk=8,
        obs_steps=2,
        horizon=horizon,
        proprio=(Field("hand_pos", 3, "m", -1.0, 1.0, "point", ("hand_x", "hand_y", "hand_z")),),
        objects=objects,
        action=(Field("delta_pos", 3, "m", -0.1, 0.1, "command", ("dx", "dy", "dz"), moves="hand_pos"),),
    )


# A lamp that grows brighter until it is due, and four others of which one flashes.
SIGNAL = (Field("signal", 1, "1", 0.0, 1.0),)
LAMPS = (Field("lamps", 4, "1", 0.0, 1.0), *SIGNAL)
# Two things, of which one is shown or asked for.
THINGS = (LAMPS[0], Field("things", 2, "1", 0.0, 1.0), *SIGNAL)
# Three blocks that stay where they are.
BLOCKS = tuple(
    Field(colour, 3, "m", -1.0, 1.0, "point", (f"{colour}_x", f"{colour}_y", f"{colour}_z"))
    for colour in ("red", "green", "blue")
)
