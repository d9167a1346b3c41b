"""Where commands go when an arm is driven by time, and what the contract says of each of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robopolicy.errors import BadInput
from ros_nodes.fields import items, keys, names, number, numbers, text, unique
from ros_nodes.motion import Bounds
from ros_nodes.timed import Drive

TRAJECTORY = "trajectory_msgs/JointTrajectory"
ARRAY = "std_msgs/Float64MultiArray"
TWIST = "geometry_msgs/TwistStamped"
AXES = tuple(f"{kind}.{axis}" for kind in ("linear", "angular") for axis in "xyz")
# What ROS knows only in radians and metres (REP 103).
PER_SI = {"deg": 180 / np.pi, "mm": 1000.0, "cm": 100.0}
# Without a box, no velocity is bounded by a place.
_ANYWHERE = 1e6
_CHANGES = ("speed", "acceleration", "jerk")
_PLACES = ("low", "high")


@dataclass(frozen=True)
class Outlet:
    """One topic that commands part of the arm.

    Attributes:
        topic: relative name.
        type: JointTrajectory or Float64MultiArray for positions, TwistStamped for velocities.
        names: of joints, or of axes such as "linear.x".
        actions: index of the action of each.
        frame: of a twist.
    """

    topic: str
    type: str
    names: tuple[str, ...]
    actions: tuple[int, ...]
    frame: str


@dataclass(frozen=True)
class Driven:
    """What a contract says of an arm that is driven by time.

    Attributes:
        drive: its limits.
        outlets: topics; together they carry each action once.
        measured: (A,) state element that measures each position, "" for a velocity.
        per_si: (A,) units of that element per radian or metre.
    """

    drive: Drive
    outlets: tuple[Outlet, ...]
    measured: tuple[str, ...]
    per_si: np.ndarray


def read_driven(
    drive: object,
    action: object,
    workspace: object,
    state: Mapping[str, str],
    fps: float,
    frame: str,
) -> tuple[Driven, dict[str, str], tuple[str, ...]]:
    """Reads the fields `drive`, `action` and `workspace` of a contract.

    Args:
        drive: field.
        action: field.
        workspace: field, or None.
        state: unit by state element.
        fps: control rate of the policy, Hz.
        frame: of the contract.

    Returns:
        What they say, unit by action, and the state elements of the guarded point.

    Raises:
        BadInput: naming the field at fault.
    """
    top, entries = keys(drive, "drive", {"rate", "outlets"}), keys(action, "action")
    actions = tuple(entries)
    outlets = tuple(
        _outlet(o, f"drive.outlets[{i}]", actions, frame)
        for i, o in enumerate(items(top["outlets"], "drive.outlets"))
    )
    unique([o.topic for o in outlets], "drive.outlets topics")
    if sorted(a for o in outlets for a in o.actions) != list(range(len(actions))):
        led = sorted(actions[a] for o in outlets for a in o.actions)
        raise BadInput("drive.outlets", f"each of {sorted(actions)} once", led)
    paced = np.zeros(len(actions), bool)
    for o in outlets:
        paced[list(o.actions)] = o.type == TWIST
    rows = [_row(entries[n], f"action.{n}", bool(paced[i]), fps, state) for i, n in enumerate(actions)]

    def column(key: str) -> np.ndarray:
        return np.array([r[key] for r in rows], np.float64)

    low, high, speed, acceleration, jerk = (column(k) for k in (*_PLACES, *_CHANGES))
    bounds = Bounds(actions, low, high, speed, acceleration, jerk, paced)
    guarded, moved_by, box_low, box_high = _workspace(workspace, state, actions)
    rate = number(top["rate"], "drive.rate", 1.0, 1000.0)
    scale, start, follow = (column(k) for k in ("scale", "start", "follow"))
    found = Drive(rate, bounds, scale, start, follow, moved_by, box_low, box_high)
    measured = tuple(r["measured"] for r in rows)
    units = {n: r["unit"] for n, r in zip(actions, rows, strict=True)}
    return Driven(found, outlets, measured, column("per_si")), units, guarded


def _outlet(data: object, where: str, actions: Sequence[str], frame: str) -> Outlet:
    kind = text(keys(data, where, {"topic", "type"}, {"joints", "axes", "frame"})["type"], f"{where}.type")
    if kind not in (TRAJECTORY, ARRAY, TWIST):
        raise BadInput(f"{where}.type", f"one of {(TRAJECTORY, ARRAY, TWIST)}", kind)
    listed = "axes" if kind == TWIST else "joints"
    own = keys(data, where, {"topic", "type", listed}, {"frame"} if kind == TWIST else set())
    entries = keys(own[listed], f"{where}.{listed}")
    for name, led in entries.items():
        if led not in actions:
            raise BadInput(f"{where}.{listed}.{name}", f"one of {sorted(actions)}", led)
        if kind == TWIST and name not in AXES:
            raise BadInput(f"{where}.axes", f"some of {AXES}", name)
    led = tuple(list(actions).index(a) for a in entries.values())
    topic = text(own["topic"], f"{where}.topic")
    return Outlet(topic, kind, tuple(entries), led, text(own.get("frame", frame), f"{where}.frame"))


def _row(entry: object, where: str, paced: bool, fps: float, state: Mapping[str, str]) -> dict[str, Any]:
    """One action; limits in radians and metres, whatever its own unit."""
    wanted = {"unit", *_CHANGES} | (set() if paced else {*_PLACES, "measured", "start", "follow"})
    own = keys(entry, where, wanted)
    row: dict[str, Any] = {k: number(own[k], f"{where}.{k}") for k in wanted - {"unit", "measured"}}
    row["unit"] = text(own["unit"], f"{where}.unit")
    if paced:
        per_si = PER_SI.get(row["unit"].removesuffix("/s"), 1.0)
        per_step = 1.0 if row["unit"].endswith("/s") else fps
        nowhere = {"low": -_ANYWHERE, "high": _ANYWHERE, "start": 1.0, "follow": 1.0}
        return row | nowhere | {"scale": per_step / per_si, "measured": "", "per_si": 1.0}
    row["measured"] = text(own["measured"], f"{where}.measured")
    if row["measured"] not in state:
        raise BadInput(f"{where}.measured", f"one of {sorted(state)}", row["measured"])
    scales = {"scale": 1 / PER_SI.get(row["unit"], 1.0), "per_si": PER_SI.get(state[row["measured"]], 1.0)}
    return row | scales


def _workspace(
    data: object, state: Mapping[str, str], actions: Sequence[str]
) -> tuple[tuple[str, ...], tuple[int, ...], np.ndarray, np.ndarray]:
    """Guarded elements, the actions that move them, and the box."""
    if data is None:
        return (), (), np.zeros(0), np.zeros(0)
    box = keys(data, "workspace", {"point", "low", "high"}, {"moved_by"})
    point = names(box["point"], "workspace.point", 3)
    if not set(point) <= set(state):
        raise BadInput("workspace.point", f"three of {sorted(state)}", point)
    moved_by = names(box["moved_by"], "workspace.moved_by", 3) if "moved_by" in box else ()
    if not set(moved_by) <= set(actions):
        raise BadInput("workspace.moved_by", f"three of {sorted(actions)}", moved_by)
    low, high = (numbers(box[k], f"workspace.{k}") for k in _PLACES)
    for key, side in (("low", low), ("high", high)):
        if len(side) != len(point):
            raise BadInput(f"workspace.{key}", f"{len(point)} numbers", side.tolist())
    return point, tuple(list(actions).index(a) for a in moved_by), low, high
