"""Messages to state elements and actions; by name, never by order. Pure: any object with the fields will do.

So a log is read without ROS by the code that read the messages when they came.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from robopolicy.errors import BadInput
from ros_nodes.contract import Stream
from ros_nodes.outlets import ARRAY, TRAJECTORY, Outlet

_SECOND = 1_000_000_000
# A CDR message begins with four bytes that say how it is encoded; then comes the stamp of its header.
_HEADER = struct.Struct("<iI")
# No robot has more, and what claims to is not read.
_MAX_JOINTS, _MAX_POINTS = 1024, 1024
_COLOURS = ("rgb8", "bgr8")


def stamp_to_ns(stamp: Any) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return stamp.sec * _SECOND + stamp.nanosec


def from_message(stream: Stream, message: Any, frame: str) -> dict[str, float]:
    """What one message says about the state; further joints in it are ignored.

    Raises:
        BadInput: for a wrong frame, a joint that is missing or named twice, a quaternion of length zero.
    """
    if stream.joints:
        if max(len(message.name), len(message.position)) > _MAX_JOINTS:
            raise BadInput(f"{stream.topic}.name", f"at most {_MAX_JOINTS} joints", len(message.name))
        names, values = list(message.name), list(message.position)
        if len(names) != len(values) or len(set(names)) != len(names):
            raise BadInput(f"{stream.topic}.name", f"{len(values)} unique names", names)
        by_name = dict(zip(names, values, strict=True))
        missing = [j.name for j in stream.joints if j.name not in by_name]
        if missing:
            raise BadInput(f"{stream.topic}.name", f"also {missing}", names)
        return {j.element: by_name[j.name] * j.per_si for j in stream.joints}
    if message.header.frame_id != frame:
        raise BadInput(f"{stream.topic}.frame_id", frame, message.header.frame_id)
    point = message.point if stream.type == "geometry_msgs/PointStamped" else message.pose.position
    state = dict(zip(stream.position, (point.x, point.y, point.z), strict=True))
    if stream.rotation:
        q = message.pose.orientation
        rotation = from_quaternion(np.array([q.x, q.y, q.z, q.w]), f"{stream.topic}.orientation")
        state |= dict(zip(stream.rotation, rotation.tolist(), strict=True))
    return state


def picture(data: bytes) -> tuple[int, int]:
    """Stamp in nanoseconds and digest of a serialised Image or CompressedImage, which is not read further.

    Raises:
        BadInput: if it is too short to have a header, or of another byte order.
    """
    if len(data) < _HEADER.size + 4 or data[1] != 1:
        raise BadInput("picture", "a little-endian message with a header", f"{len(data)} bytes")
    sec, nanosec = _HEADER.unpack_from(data, 4)
    return sec * _SECOND + nanosec, zlib.crc32(memoryview(data)[4 + _HEADER.size :])


def rgb(topic: str, message: Any, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 of an Image.

    Raises:
        BadInput: naming the topic, for another size or encoding, or rows that do not fit their data.
    """
    if (message.height, message.width) != (height, width):
        raise BadInput(f"{topic} size", f"{height} x {width} pixels", f"{message.height} x {message.width}")
    if message.encoding not in _COLOURS:
        raise BadInput(f"{topic} encoding", f"one of {_COLOURS}", message.encoding)
    if message.step < 3 * width or len(message.data) != height * message.step:
        wanted = f"{height} rows of at least {3 * width} bytes"
        raise BadInput(f"{topic} data", wanted, f"{len(message.data)} bytes, step {message.step}")
    rows = np.frombuffer(message.data, np.uint8).reshape(height, message.step)
    picture = rows[:, : 3 * width].reshape(height, width, 3)
    return np.ascontiguousarray(picture[..., ::-1] if message.encoding == "bgr8" else picture)


def from_outlet(outlet: Outlet, message: Any) -> list[float]:
    """What one message of an outlet commands, in the order of its actions.

    Raises:
        BadInput: for other joints, another number of values or another frame.
    """
    if outlet.type == ARRAY:
        if len(message.data) != len(outlet.names):
            raise BadInput(f"{outlet.topic}.data", f"{len(outlet.names)} numbers", len(message.data))
        return [float(x) for x in message.data]
    if outlet.type == TRAJECTORY:
        rows = from_trajectory(message, outlet.frame)
        if len(rows) != 1:
            raise BadInput(f"{outlet.topic}.points", "one point", len(rows))
        return by_name(list(message.joint_names), outlet.names, rows[0]).tolist()
    if message.header.frame_id != outlet.frame:
        raise BadInput(f"{outlet.topic}.frame_id", outlet.frame, message.header.frame_id)
    axes = (name.split(".") for name in outlet.names)
    return [float(getattr(getattr(message.twist, kind), axis)) for kind, axis in axes]


def from_trajectory(message: Any, frame: str) -> np.ndarray:
    """Actions (K, A), columns as in `message.joint_names`; (0, A) for hold.

    Raises:
        BadInput: for a wrong frame, points of the wrong length, times that do not increase.
    """
    if message.header.frame_id != frame:
        raise BadInput("trajectory.frame_id", frame, message.header.frame_id)
    size = len(message.joint_names)
    if size > _MAX_JOINTS or len(message.points) > _MAX_POINTS:
        wanted = f"at most {_MAX_POINTS} points of {_MAX_JOINTS} joints"
        raise BadInput("trajectory", wanted, (len(message.points), size))
    times = [p.time_from_start.sec * _SECOND + p.time_from_start.nanosec for p in message.points]
    if (np.diff([0, *times]) <= 0).any():
        raise BadInput("trajectory.time_from_start", "times that increase from above zero", times)
    for point in message.points:
        if len(point.positions) != size or any(
            len(x) for x in (point.velocities, point.accelerations, point.effort)
        ):
            raise BadInput("trajectory.points", f"{size} positions and nothing else", point)
    return np.array([p.positions for p in message.points], np.float64).reshape(len(message.points), size)


def by_name(names: Sequence[str], wanted: Sequence[str], row: np.ndarray) -> np.ndarray:
    """`row` (A,) with columns `names`, in the order of `wanted`; refuses other names."""
    if sorted(names) != sorted(wanted):
        raise BadInput("trajectory.joint_names", f"{sorted(wanted)}", sorted(names))
    return row[[list(names).index(n) for n in wanted]]


def from_quaternion(q: np.ndarray, where: str = "orientation") -> np.ndarray:
    """First two columns (6,) of the rotation matrix of (x, y, z, w)."""
    norm = np.linalg.norm(q)
    if not 0.9 < norm < 1.1:
        raise BadInput(where, "a unit quaternion", q.tolist())
    x, y, z, w = q / norm
    return np.array(
        [
            1 - 2 * (y * y + z * z),
            2 * (x * y + z * w),
            2 * (x * z - y * w),
            2 * (x * y - z * w),
            1 - 2 * (x * x + z * z),
            2 * (y * z + x * w),
        ]
    )
