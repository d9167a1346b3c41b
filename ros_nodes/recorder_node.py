"""Records a deployment as MCAP: what the robot measured, what was asked and answered, what was commanded.

Messages are written as they came, without being read. `robopolicy replay` plays such a log again through gate
and policy; `robopolicy convert` makes it episodes to learn from.
"""

from __future__ import annotations

import queue
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from std_msgs.msg import Header, String, UInt8MultiArray, UInt64
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from robopolicy.errors import BadInput
from ros_nodes.convert import COMMANDS, MESSAGES, ns_to_stamp
from ros_nodes.running import EVENT_QOS, LATCHED_QOS, RobotNode, run

# Some ten seconds of messages may wait for the disk.
_WAITING = 20_000
# When told to end, it goes on until nothing has come for a while.
_QUIET_S = 0.3
_DRAINS_S = 2.0
_LOOK_S = 0.1
_END = (None, 0, b"")
_WARN_EVERY_S = 5.0
_FOREVER = QosTime(2147483647, 4294967295)


class RecorderNode(RobotNode):
    """Writes the topics of a deployment to the new folder of the parameter `out`.

    Service: `~/success`, by which an operator says that the task is achieved now; it becomes a message on
    `success`, on which a simulated arm says so itself. It is there once all others are heard, so that a log
    whose begin has waited for it is whole.
    """

    def __init__(self, stop: threading.Event):
        super().__init__("recorder", stop)
        self._declare("out", "", "new folder of the log", read_only=False)
        self._heard_at = self._end_by = 0.0

    def _configure(self) -> None:
        out = Path(self.text("out"))
        if out == Path() or out.exists():
            raise BadInput("out", "a new folder", str(out))
        self._typestore = get_typestore(Stores.ROS2_JAZZY)
        out.parent.mkdir(parents=True, exist_ok=True)
        self._writer = Writer(out, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._waiting: queue.Queue[tuple[Any, int, bytes]] = queue.Queue(_WAITING)
        self._lost = 0
        self._successes = self.create_publisher(Header, "success", EVENT_QOS)
        self._thread = threading.Thread(target=self._write, name="write")
        self._thread.start()

    def _activate(self) -> None:
        self._heard: set[str] = set()
        for topic, kind, qos in self._topics():
            self._listen(topic, kind, qos)
        self._awaited = [t for t, _, _ in self._topics() if t != "success"]
        self._begins = self.create_timer(_LOOK_S, self._begin, clock=self.steady)

    def _begin(self) -> None:
        """Answers once there is someone to be heard on each topic, and the gate has been."""
        if "gate/contract" in self._heard and all(self.count_publishers(t) for t in self._awaited):
            self._begins.cancel()
            self.create_service(Trigger, "~/success", self._on_success)

    def _topics(self) -> list[tuple[str, Any, QoSProfile]]:
        driven = self.contract.driven
        commands = {"command": JointTrajectory}
        if driven is not None:
            commands = {self.command_topic(o.topic): COMMANDS[o.type] for o in driven.outlets}
        latched = [(t, String, LATCHED_QOS) for t in ("gate/contract", "gate/state", "policy/spec")]
        others = {
            **{s.topic: MESSAGES[s.type] for s in self.contract.streams},
            **commands,
            "gate/events": UInt8MultiArray,
            "gate/request": Header,
            "policy/asked": UInt8MultiArray,
            "policy/chunk": JointTrajectory,
            "policy/heartbeat": UInt64,
            "success": Header,
            "/diagnostics": DiagnosticArray,
        }
        # As reliably as the others listen to the state, yet all of it, however late it is looked at.
        whole = QoSProfile(depth=EVENT_QOS.depth, reliability=self.state_qos.reliability)
        states = {s.topic for s in self.contract.streams}
        return [*latched, *((t, k, whole if t in states else EVENT_QOS) for t, k in others.items())]

    def _listen(self, topic: str, kind: Any, qos: QoSProfile) -> None:
        package, name = kind.__module__.split(".")[0], kind.__name__
        connection = self._writer.add_connection(
            self.resolve_topic_name(topic),
            f"{package}/msg/{name}",
            typestore=self._typestore,
            offered_qos_profiles=[_offered(qos)],
        )
        self.create_subscription(kind, topic, partial(self._on_message, topic, connection), qos, raw=True)

    def _on_message(self, topic: str, connection: Any, data: bytes) -> None:
        self._heard_at = self.now()
        self._heard.add(topic)
        try:
            self._waiting.put_nowait((connection, self.wall_ns(), data))
        except queue.Full:
            self._lost += 1
            text = f"the disk is too slow: {self._lost} messages lost"
            self.get_logger().error(text, throttle_duration_sec=_WARN_EVERY_S)

    def _write(self) -> None:
        """In a thread of its own: a disk that is slow holds nobody up."""
        while True:
            connection, stamp, data = self._waiting.get()
            if connection is None:
                return
            try:
                self._writer.write(connection, stamp, data)
            except OSError as e:
                self.fail(f"log: {e}")
                return

    def _on_success(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._successes.publish(Header(stamp=ns_to_stamp(self.wall_ns())))
        response.success = True
        return response

    def busy(self) -> bool:
        if not self._end_by:
            self._heard_at = self.now()
            self._end_by = self._heard_at + _DRAINS_S
        return self.now() < min(self._heard_at + _QUIET_S, self._end_by)

    def _cleanup(self) -> None:
        self._waiting.put(_END)
        self._thread.join()
        self._writer.close()


def _offered(qos: QoSProfile) -> Qos:
    """What a player of the log has to offer, so that who joins late hears what was latched."""
    latched = qos is LATCHED_QOS
    return Qos(
        QosHistory.KEEP_LAST,
        qos.depth,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        _FOREVER,
        _FOREVER,
        QosLiveliness.AUTOMATIC,
        _FOREVER,
        False,
    )


def main() -> int:
    """`python -m ros_nodes.recorder_node --ros-args -p contract:=panda_sim -p out:=runs/log`."""
    return run(RecorderNode)


if __name__ == "__main__":
    sys.exit(main())
