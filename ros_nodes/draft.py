"""Drafts a robot's contract from what demonstrations did on it: something to correct, not to trust. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml

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
    """Points as topics of their own, with their rotation if there is one; all the rest as joints."""
    rotations = {f.name.removesuffix("_rot"): f for f in spec.state if f.role == "rotation" and f.size == 6}
    streams, joints = [], {}
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
            joints |= {name: {"element": name, "unit": field.unit} for name in field.names}
    if joints:
        streams.insert(0, {"topic": "joint_states", "type": "sensor_msgs/JointState", "joints": joints})
    return streams


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
