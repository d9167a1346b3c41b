"""State elements and actions to ROS messages and back; by name, never by order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import PointStamped, PoseStamped, TwistStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from ros_nodes.contract import Stream
from ros_nodes.outlets import ARRAY, TRAJECTORY, TWIST, Outlet

MESSAGES: dict[str, Any] = {
    "sensor_msgs/JointState": JointState,
    "geometry_msgs/PointStamped": PointStamped,
    "geometry_msgs/PoseStamped": PoseStamped,
}
COMMANDS: dict[str, Any] = {TRAJECTORY: JointTrajectory, ARRAY: Float64MultiArray, TWIST: TwistStamped}
_SECOND = 1_000_000_000


def ns_to_stamp(ns: int) -> Time:
    return Time(sec=ns // _SECOND, nanosec=ns % _SECOND)


def to_message(stream: Stream, state: Mapping[str, float], stamp_ns: int, frame: str) -> Any:
    """The message of one topic for the state elements `state`."""
    message = MESSAGES[stream.type]()
    message.header.stamp = ns_to_stamp(stamp_ns)
    message.header.frame_id = frame
    if stream.joints:
        message.name = [j.name for j in stream.joints]
        message.position = [float(state[j.element]) / j.per_si for j in stream.joints]
        return message
    point = message.point if stream.type == "geometry_msgs/PointStamped" else message.pose.position
    point.x, point.y, point.z = (float(state[e]) for e in stream.position)
    if stream.rotation:
        q = message.pose.orientation
        q.x, q.y, q.z, q.w = to_quaternion(np.array([state[e] for e in stream.rotation])).tolist()
    return message


def to_trajectory(
    names: Sequence[str], actions: np.ndarray, stamp_ns: int, frame: str, period_s: float
) -> JointTrajectory:
    """Actions (K, A) as points one period apart, the first one period ahead; (0, A) means hold.

    `positions` holds the values of the Spec's action, whatever they mean for this robot.
    """
    message = JointTrajectory()
    message.header.stamp = ns_to_stamp(stamp_ns)
    message.header.frame_id = frame
    message.joint_names = list(names)
    points = []
    for i, row in enumerate(actions):
        ahead = round((i + 1) * period_s * _SECOND)
        time = Duration(sec=ahead // _SECOND, nanosec=ahead % _SECOND)
        points.append(JointTrajectoryPoint(positions=row.tolist(), time_from_start=time))
    message.points = points
    return message


def to_outlet(outlet: Outlet, command: np.ndarray, stamp_ns: int, period_s: float) -> Any:
    """The message of one outlet for a command (A,): where to be one period from now, or how fast to go."""
    values = [float(command[a]) for a in outlet.actions]
    if outlet.type == ARRAY:
        return Float64MultiArray(data=values)
    if outlet.type == TRAJECTORY:
        # Stamped with zero, which means now: the clocks of controller and gate need not agree.
        return to_trajectory(outlet.names, np.array([values]), 0, outlet.frame, period_s)
    message = TwistStamped()
    message.header.stamp, message.header.frame_id = ns_to_stamp(stamp_ns), outlet.frame
    for name, value in zip(outlet.names, values, strict=True):
        kind, axis = name.split(".")
        setattr(getattr(message.twist, kind), axis, value)
    return message


def to_quaternion(columns: np.ndarray) -> np.ndarray:
    """(x, y, z, w) of the rotation whose matrix begins with these two columns (6,); w >= 0."""
    a, b = columns[:3], columns[3:]
    a = a / np.linalg.norm(a)
    b = b - a * (a @ b)
    b = b / np.linalg.norm(b)
    m = np.stack([a, b, np.cross(a, b)], axis=1)
    # Shepperd: build all four candidates and keep the one with the largest pivot, which is well conditioned.
    pivots = np.array([m[0, 0], m[1, 1], m[2, 2], np.trace(m)])
    i = int(np.argmax(pivots))
    if i == 3:
        q = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1 + np.trace(m)])
    else:
        j, k = (i + 1) % 3, (i + 2) % 3
        q = np.empty(4)
        q[i] = 1 + m[i, i] - m[j, j] - m[k, k]
        q[j], q[k] = m[j, i] + m[i, j], m[k, i] + m[i, k]
        q[3] = m[k, j] - m[j, k]
    q = q / np.linalg.norm(q)
    return -q if q[3] < 0 else q
