"""An eye as a sensor: pictures in, the points that it sees in them out, a state like any other.

It runs beside the cameras' drivers. The contract lists the points as elements of a JointState, so that gate,
policy node and log treat them as they treat joints: names, freshness, finiteness. The network is behind a
socket (`robopolicy serve --eye`), as this process knows no torch.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import partial
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from robopolicy.errors import BadInput
from robopolicy.keys import key_of, unlock
from robopolicy.wire import WireError, dial
from ros_nodes.contract import CameraStream
from ros_nodes.convert import MESSAGES, to_message
from ros_nodes.parse import rgb, stamp_to_ns
from ros_nodes.running import STATE_QOS, RobotNode, run

_STARTUP_S, _PATIENCE_S = 60.0, 2.0
_WARN_EVERY_S = 1.0
# Of a camera that is faster than the eye, only the newest picture counts.
_NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class EyeNode(RobotNode):
    """Publishes what an eye sees, as soon as each of its cameras has a new picture.

    Topics in: those of the contract's cameras. Topic out: the one of its state that has the eye's points,
    stamped like the oldest of their pictures.
    """

    def __init__(self, stop: threading.Event):
        super().__init__("eye", stop)
        self._declare("server", "", "socket of robopolicy serve --eye", read_only=False)

    def _configure(self) -> None:
        address, key = self.text("server"), key_of(os.environ)
        self._server = unlock(dial(address, self.stop, _STARTUP_S, _PATIENCE_S), key)
        try:
            hello = self._server.request("hello")
            self._points = tuple(hello["points"])
            self._sizes = {c["name"]: (c["height"], c["width"]) for c in hello["cameras"]}
        except WireError as e:
            raise BadInput("server", "an eye (robopolicy serve --eye)", e) from e
        known = {c.name: c for c in self.contract.cameras if c.type == "sensor_msgs/Image"}
        if missing := self._sizes.keys() - known:
            raise BadInput("contract cameras", f"{sorted(missing)} as sensor_msgs/Image", sorted(known))
        self._cameras = [known[name] for name in self._sizes]
        streams = [s for s in self.contract.streams if set(s.units) == set(self._points)]
        if not streams:
            raise BadInput("contract state", f"a topic with exactly the elements {self._points}", "none")
        self._stream = streams[0]
        self._outlet = self.create_publisher(MESSAGES[self._stream.type], self._stream.topic, STATE_QOS)

    def _activate(self) -> None:
        self._new: dict[str, tuple[int, np.ndarray]] = {}
        for camera in self._cameras:
            self.listen(Image, camera.topic, partial(self._on_picture, camera), _NEWEST)

    def _on_picture(self, camera: CameraStream, message: Any) -> None:
        try:
            picture = rgb(camera.topic, message, *self._sizes[camera.name])
            self._new[camera.name] = stamp_to_ns(message.header.stamp), picture
            if len(self._new) == len(self._cameras):
                self._see()
        except BadInput as e:
            self.get_logger().warning(f"not seen: {e}", throttle_duration_sec=_WARN_EVERY_S)
        except WireError as e:
            self.fail(f"eye: {e}")

    def _see(self) -> None:
        stamps, pictures = zip(*self._new.values(), strict=True)
        points = self._server.request("see", **dict(zip(self._new, pictures, strict=True)))["points"]
        self._new = {}
        state = dict(zip(self._points, points.tolist(), strict=True))
        self._outlet.publish(to_message(self._stream, state, min(stamps), self.contract.frame))

    def _cleanup(self) -> None:
        self._server.close()


def main() -> int:
    """`python -m ros_nodes.eye_node --ros-args -p contract:=my_arm.yaml -p server:=SOCKET`."""
    return run(EyeNode)


if __name__ == "__main__":
    sys.exit(main())
