"""Drafts a robot's contract, from what demonstrations did on it or from its URDF. Pure.

A draft is something to correct, not to trust: it says itself what has to be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml

from robopolicy.errors import BadInput
from robopolicy.spec import Field, Spec
from robopolicy.types import Episode
from ros_nodes.contract import Contract

# Commands up to this quantile are what demonstrations did; beyond are slips.
_QUANTILE = 0.995
# Room around where the guarded point went, as a share of its spread.
_ROOM = 0.05
_HEAD = """# Drafted from {episodes} episodes of {task}. Before an arm is engaged, correct:
# - topics, and the names under which joints appear in them;
# - limits: low, high and max_change are what {share:.1%} of the commands kept to;
# - hold: the command that keeps the arm where it is;
# - workspace: the box in which the demonstrations moved, and the frame of its numbers.
# What each deadline means is said in ros_nodes/limits.py.
"""
# Of what a URDF allows: so far from its limits, so fast; it does not say how suddenly.
_MARGIN, _SPEED, _PER_SPEED, _JERK = 0.02, 0.5, 4.0, 10.0
_URDF_HEAD = """# Drafted from the URDF of {robot}. Before an arm is engaged, correct:
# - topics and types, and what the policy calls its states (element) and actions;
# - fps, the rate of the policy;
# - limits: positions are {room:.0%} of their range inside the URDF's, speeds {speed:.0%} of it, and
#   acceleration and jerk, which a URDF does not know, reach that speed within half a second. A joint
#   without end has one at half a turn here;
# - start and follow: how far from the arm a chunk may begin, and how far behind the arm may be;
# - a workspace, if a point of the state is to stay in a box.
# What each deadline means is said in ros_nodes/limits.py.
"""


def draft(spec: Spec, episodes: Sequence[Episode], frame: str = "world") -> str:
    """A contract as YAML, which `Contract.load` reads and which fits the Spec.

    Args:
        spec: what the numbers mean.
        episodes: demonstrations.
        frame: of all points.
    """
    data: dict[str, Any] = {
        "robot": spec.robot,
        "fps": spec.fps,
        "frame": frame,
        "state": _streams(spec),
        "action": _actions(spec, episodes),
    }
    moving = [f for f in spec.action if f.moves]
    if moving:
        data["workspace"] = _workspace(spec, moving[0], episodes)
    data["timing"] = {
        "state_max_age_s": 3 / spec.fps,
        "chunk_max_age_s": spec.chunk / spec.fps,
        "chunk_life_s": 2 * spec.chunk / spec.fps,
        "heartbeat_max_age_s": 0.2,
        "hold_after_s": 0.7 / spec.fps,
        "fault_after_s": 2.0,
    }
    data = _plain(data)
    Contract.from_dict(data).check_spec(spec)
    head = _HEAD.format(episodes=len(episodes), task=spec.task, share=_QUANTILE)
    return head + yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=110)


def _streams(spec: Spec) -> list[dict[str, Any]]:
    """Points as topics of their own, with their rotation if there is one; all the rest as joints.

    What an eye sees comes from a node of its own (`ros_nodes.eye_node`), so on a topic of its own.
    """
    rotations = {f.name.removesuffix("_rot"): f for f in spec.state if f.role == "rotation" and f.size == 6}
    streams, joints, seen = [], {}, {}
    for field in spec.state:
        if field.role == "point" and field.unit == "m":
            rotation = rotations.pop(field.name.removesuffix("_pos"), None)
            kind = "geometry_msgs/PoseStamped" if rotation else "geometry_msgs/PointStamped"
            stream: dict[str, Any] = {"topic": field.name, "type": kind, "position": list(field.names)}
            if rotation:
                stream["rotation"] = list(rotation.names)
            streams.append(stream)
    left = {f.name for f in rotations.values()}
    for field in spec.state:
        spoken_for = field.role == "point" and field.unit == "m"
        if not spoken_for and (field.name in left or not (field.role == "rotation" and field.size == 6)):
            own = seen if field in spec.objects and field.name.endswith("_points") else joints
            own |= {name: {"element": name, "unit": field.unit} for name in field.names}
    told = {"joint_states": joints, "eye": seen}
    named = [
        {"topic": topic, "type": "sensor_msgs/JointState", "joints": of} for topic, of in told.items() if of
    ]
    return [*named, *streams]


def _actions(spec: Spec, episodes: Sequence[Episode]) -> dict[str, Any]:
    commands = np.concatenate([e.actions for e in episodes])
    # Every episode begins at rest.
    changes = np.concatenate([np.abs(np.diff(e.actions, axis=0, prepend=0)) for e in episodes])
    low, high = np.quantile(commands, [1 - _QUANTILE, _QUANTILE], axis=0)
    largest = np.quantile(changes, _QUANTILE, axis=0)
    bounds = spec.action_range
    low, high = np.maximum(np.minimum(low, 0), bounds[0]), np.minimum(np.maximum(high, 0), bounds[1])
    units = [f.unit for f in spec.action for _ in range(f.size)]
    least = 1e-3 * np.ptp(bounds, 0)
    return {
        name: {
            "unit": units[i],
            "low": low[i],
            "high": high[i],
            "max_change": max(largest[i], least[i]),
            "hold": float(np.clip(0.0, low[i], high[i])),
        }
        for i, name in enumerate(spec.action_names)
    }


def _workspace(spec: Spec, moving: Field, episodes: Sequence[Episode]) -> dict[str, Any]:
    point = next(f for f in spec.state if f.name == moving.moves)
    went = np.concatenate([e.states[:, spec.slice_of(point.name)] for e in episodes])
    low, high = went.min(0), went.max(0)
    room = _ROOM * np.maximum(high - low, 0.02)
    names = {"point": list(point.names), "moved_by": list(moving.names)}
    return {**names, "low": (low - room).tolist(), "high": (high + room).tolist()}


def _plain(value: Any) -> Any:
    """Numbers as Python's own, with four digits that count: a draft is read by people."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float | np.floating) else value


def draft_from_urdf(urdf: str, fps: float) -> str:
    """A contract of an arm driven by time, as YAML, with the joints and limits of a URDF.

    Joints that do not move, or that another one moves (mimic), are left out.

    Args:
        urdf: its text, without macros.
        fps: rate of the policy, Hz.

    Raises:
        BadInput: naming what the URDF lacks.
    """
    robot = _urdf(urdf)
    rows = {j.get("name", ""): _joint(j) for j in robot.iter("joint") if _moves(j)}
    if not rows:
        raise BadInput("urdf", "a joint that moves", "none")
    units = {name: row["unit"] for name, row in rows.items()}
    data: dict[str, Any] = {
        "robot": robot.get("name", ""),
        "fps": fps,
        "frame": _root(robot),
        "state": [
            {
                "topic": "joint_states",
                "type": "sensor_msgs/JointState",
                "joints": {name: {"element": name, "unit": unit} for name, unit in units.items()},
            }
        ],
        "drive": {
            "rate": 100,
            "outlets": [
                {
                    "topic": "joint_trajectory_controller/joint_trajectory",
                    "type": "trajectory_msgs/JointTrajectory",
                    "joints": {name: f"{name}_target" for name in rows},
                }
            ],
        },
        "action": {f"{name}_target": row for name, row in rows.items()},
        "timing": {
            "state_max_age_s": 0.05,
            "chunk_max_age_s": 8 / fps,
            "chunk_life_s": 16 / fps,
            "heartbeat_max_age_s": 0.2,
            "hold_after_s": 0.7 / fps,
            "fault_after_s": 2.0,
        },
    }
    data = _plain(data)
    Contract.from_dict(data)
    head = _URDF_HEAD.format(robot=data["robot"], room=_MARGIN, speed=_SPEED)
    return head + yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=150)


def _urdf(text: str) -> ElementTree.Element:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise BadInput("urdf", "no entities of its own", "a document type")
    try:
        robot = ElementTree.fromstring(text)
    except ElementTree.ParseError as e:
        raise BadInput("urdf", "XML", e) from e
    if robot.tag != "robot":
        raise BadInput("urdf", "the element robot", robot.tag)
    if any("xacro" in element.tag for element in robot.iter()):
        raise BadInput("urdf", "no macros: run xacro on it first", "xacro")
    return robot


def _moves(joint: ElementTree.Element) -> bool:
    return joint.get("type") != "fixed" and joint.find("mimic") is None and joint.find("parent") is not None


def _root(robot: ElementTree.Element) -> str:
    """The link that no joint carries."""
    carried = {c.get("link") for c in robot.findall("joint/child")}
    free = [link.get("name", "") for link in robot.findall("link") if link.get("name") not in carried]
    if len(free) != 1:
        raise BadInput("urdf", "one link that no joint carries", free)
    return free[0]


def _joint(joint: ElementTree.Element) -> dict[str, Any]:
    """What the contract says of an action, in radians and metres."""
    name, kind = joint.get("name", ""), joint.get("type")
    if kind not in ("revolute", "prismatic", "continuous"):
        raise BadInput(f"urdf joint {name}.type", "revolute, prismatic, continuous or fixed", kind)
    limit = joint.find("limit")
    if limit is None:
        raise BadInput(f"urdf joint {name}", "the element limit", "none")
    soft = joint.find("safety_controller")
    ends = {"lower": -np.pi, "upper": np.pi}
    if kind != "continuous":
        # A revolute or prismatic joint's ends are zero where they are not given (URDF specification).
        ends = {k: _value(limit, k, name, 0.0) for k in ends}
        if soft is not None:
            ends = {k: _value(soft, f"soft_{k}_limit", name, v) for k, v in ends.items()}
    low, high = ends["lower"], ends["upper"]
    speed = _SPEED * _value(limit, "velocity", name, 0.0)
    if not (low < high and speed > 0):
        raise BadInput(f"urdf joint {name}.limit", "lower < upper and velocity > 0", limit.attrib)
    room = _MARGIN * (high - low)
    return {
        "unit": "m" if kind == "prismatic" else "rad",
        "low": low + room,
        "high": high - room,
        "speed": speed,
        "acceleration": _PER_SPEED * speed,
        "jerk": _JERK * _PER_SPEED * speed,
        "measured": name,
        "start": 0.02 * (high - low),
        "follow": 0.04 * (high - low),
    }


def _value(element: ElementTree.Element, key: str, joint: str, default: float) -> float:
    text = element.get(key)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise BadInput(f"urdf joint {joint}.{key}", "a finite number", text)
    return value
