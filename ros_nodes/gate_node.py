"""The gate as a process: alone on the command topic. All decisions are in `ros_nodes.safety`."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from array import array
from collections import Counter, deque
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.duration import Duration
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String, UInt8MultiArray, UInt64
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from robopolicy.errors import BadInput
from robopolicy.spec import Spec
from ros_nodes.contract import Stream
from ros_nodes.convert import (
    COMMANDS,
    MESSAGES,
    ns_to_stamp,
    to_outlet,
    to_trajectory,
)
from ros_nodes.gate_log import GateLog
from ros_nodes.parse import from_message, from_trajectory, picture, stamp_to_ns
from ros_nodes.running import COMMAND_QOS, EVENT_QOS, LATCHED_QOS, SENSOR_QOS, RobotNode, run
from ros_nodes.safety import Decision, Mode, Reason

_TICK_S = 0.01
_GRAPH_S = 0.1
_DIAGNOSTICS_S = 0.5
_REMEMBERED = 2000
_ACK_S = 0.5
_REST_S = 2.0
_WARN_EVERY_S = 1.0
# Below the 50 that controller_manager of ros2_control takes.
_PRIORITY = 40
_LEVELS = {Mode.FAULT: DiagnosticStatus.ERROR, Mode.HOLD: DiagnosticStatus.WARN}


class GateNode(RobotNode):
    """Feeds the gate from topics and publishes what it decides.

    Topics in: those of the contract's state, `policy/chunk`, `policy/heartbeat`, `policy/spec`. Topics out:
    `command` or the outlets of the contract's drive, `~/request`, `~/state` and `~/contract` (latched),
    `~/events` (all it is told and all it says, for the log), `/diagnostics`. Services: `~/engage`, `~/stop`,
    `~/reset`.
    """

    def __init__(self, stop: threading.Event):
        super().__init__("gate", stop)

    def _configure(self) -> None:
        self._driven = self.contract.driven
        self._log = GateLog(self.contract.gate(self.shadow))
        self.gate = self._log.gate
        self._spec_problem = "no Spec from the policy yet"
        self._observer = self.contract.observer(self.contract.elements)
        self._point = [self.contract.elements.index(e) for e in self.contract.guarded]
        measured = () if self._driven is None else self._driven.measured
        elements = self.contract.elements
        self._measuring = np.array([elements.index(e) if e else -1 for e in measured], int)
        self._told = ""
        self._chunk_ms: deque[float] = deque(maxlen=_REMEMBERED)
        self._answer_ms: deque[float] = deque(maxlen=_REMEMBERED)
        self._period_error_ms: deque[float] = deque(maxlen=_REMEMBERED)
        self._period = _TICK_S if self._driven is None else 1 / self._driven.drive.rate
        self._state_at = self._chunk_at = 0.0
        self._came: Counter[str] = Counter()

        outlets = {"command": JointTrajectory}
        if self._driven is not None:
            outlets = {o.topic: COMMANDS[o.type] for o in self._driven.outlets}
        self._commands = {
            t: self.create_publisher(kind, self.command_topic(t), COMMAND_QOS) for t, kind in outlets.items()
        }
        self._requests = self.create_publisher(Header, "~/request", COMMAND_QOS)
        self._events = self.create_publisher(UInt8MultiArray, "~/events", EVENT_QOS)
        self._states = self.create_publisher(String, "~/state", LATCHED_QOS)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        contract = self.create_publisher(String, "~/contract", LATCHED_QOS)
        said = {"contract": self.contract_text, "lockstep": self.lockstep, "shadow": self.shadow}
        contract.publish(String(data=json.dumps(said)))

    def _activate(self) -> None:
        for s in self.contract.streams:
            self.listen(MESSAGES[s.type], s.topic, partial(self._on_state, s), self.state_qos)
        for c in self.contract.cameras:
            # Read no further than the stamp: a picture is for the policy, the gate asks only how old it is.
            kind = Image if c.type == "sensor_msgs/Image" else CompressedImage
            self.listen(kind, c.topic, partial(self._on_picture, c.name), SENSOR_QOS, raw=True)
        # Deep enough that a stranger who shouts does not push the policy's chunk out before it is read.
        self.create_subscription(JointTrajectory, "policy/chunk", self._on_chunk, EVENT_QOS)
        self.create_subscription(UInt64, "policy/heartbeat", self._on_heartbeat, COMMAND_QOS)
        self.create_subscription(String, "policy/spec", self._on_spec, LATCHED_QOS)
        self.create_service(SetBool, "~/engage", self._on_engage)
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_service(Trigger, "~/reset", self._on_reset)
        # A timer of the node's own clock would never tick under use_sim_time without /clock.
        self._timer_at = 0.0
        self.create_timer(self._period, self._on_timer, clock=self.steady)
        self.create_timer(_GRAPH_S, self._look_around, clock=self.steady)
        self.create_timer(_DIAGNOSTICS_S, self._diagnose, clock=self.steady)

    # --- inputs ---------------------------------------------------------------------------------

    def _on_state(self, stream: Stream, message: Any) -> None:
        try:
            values = from_message(stream, message, self.contract.frame)
        except BadInput as e:
            self._warn(f"state refused: {e}")
            self._note(self._log.call("refuse", Reason.STATE_INVALID))
            return
        stamp = stamp_to_ns(message.header.stamp)
        state = self._observer.add(stamp, values)
        if state is None:
            return
        self._state_at = self.now()
        self._came["state"] += 1
        finite = bool(np.isfinite(state).all())
        if not finite:
            bad = [e for e, x in zip(self.contract.elements, state, strict=True) if not np.isfinite(x)]
            self._warn(f"state refused: {bad} not finite")
        point, measured = state[self._point], self._measured(state)
        self._note(self._log.call("state", self._state_at, self.wall_ns(), stamp, point, finite, measured))
        self._react()

    def _on_picture(self, camera: str, data: bytes) -> None:
        try:
            stamp, digest = picture(data)
        except BadInput as e:
            self._warn(f"picture refused: {camera}: {e}")
            return
        self._note(self._log.call("camera", camera, self.now(), self.wall_ns(), stamp, digest))

    def _on_misfit(self, topic: str) -> None:
        self._log.call("stop", Reason.QOS)
        self._react()

    def _measured(self, state: np.ndarray) -> np.ndarray:
        """(A,) what the actions command, as it is now, in radians and metres; 0 for velocities."""
        if self._driven is None:
            return np.zeros(0)
        return np.where(self._measuring < 0, 0.0, state[self._measuring] / self._driven.per_si)

    def _on_chunk(self, message: JointTrajectory) -> None:
        try:
            actions = from_trajectory(message, self.contract.frame)
        except BadInput as e:
            self._note(self._log.call("refuse", Reason.CHUNK_SIZE))
            self._warn(f"chunk refused: {e}")
            return
        if len(actions) == 0:
            self._log.call("policy_lost")
        else:
            stamp, wall = stamp_to_ns(message.header.stamp), self.wall_ns()
            reason = self._log.call("chunk", self.now(), wall, stamp, list(message.joint_names), actions)
            self._note(reason)
            if reason is Reason.NONE:
                self._chunk_ms.append((wall - stamp) * 1e-6)
                self._chunk_at = self.now()
                self._came["chunk"] += 1
        self._react()

    def _on_heartbeat(self, message: UInt64) -> None:
        self._log.call("heartbeat", self.now(), message.data)

    def _on_spec(self, message: String) -> None:
        try:
            self.contract.check_spec(Spec.from_dict(json.loads(message.data)))
            self._spec_problem = ""
        except (BadInput, ValueError, TypeError) as e:
            self._spec_problem = str(e)

    def _look_around(self) -> None:
        topics = [*map(self.command_topic, self._commands), *(s.topic for s in self.contract.streams)]
        crowded = [t for t in topics if self.count_publishers(t) > 1]
        self._log.call("alone", not crowded)
        if crowded:
            self._warn(f"more than one publisher on {crowded}")

    # --- services -------------------------------------------------------------------------------

    def _on_engage(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if not request.data:
            self._log.call("disengage")
            response.success, response.message = True, str(self.gate.mode)
        elif self._spec_problem:
            response.success, response.message = False, self._spec_problem
        else:
            reason = self._log.call("engage", self.now())
            response.success, response.message = reason is Reason.NONE, str(reason)
        self._react()
        return response

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._log.call("stop")
        self._react()
        response.success = True
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._log.call("reset")
        response.message = str(self.gate.mode)
        self._react()
        return response

    # --- outputs --------------------------------------------------------------------------------

    def _react(self) -> None:
        """At once for an arm whose steps wait for an answer; in its time for one that is driven by time."""
        if self._driven is None:
            self._tick()

    def _on_timer(self) -> None:
        now = self.now()
        if self._timer_at:
            self._period_error_ms.append(1000 * abs(now - self._timer_at - self._period))
        self._timer_at = now
        self._tick()

    def _tick(self) -> None:
        now = self.now()
        decision = self._log.call("tick", now)
        if decision.hold:
            self._publish(np.zeros((0, len(self.contract.action_names))), decision.answers)
        elif decision.command is not None:
            self._publish(decision.command[None], decision.answers)
            self._answer_ms.append(1000 * (self.now() - self._state_at))
        if decision.request is not None:
            self._requests.publish(Header(stamp=ns_to_stamp(decision.request), frame_id=self.contract.frame))
        self._tell(decision)
        if self._events.get_subscription_count():
            self._events.publish(UInt8MultiArray(data=array("B", self._log.take())))

    def _publish(self, actions: np.ndarray, stamp_ns: int) -> None:
        if self._driven is not None:
            for outlet in self._driven.outlets:
                message = to_outlet(outlet, actions[0], self.wall_ns(), self._period)
                self._commands[outlet.topic].publish(message)
            return
        frame, period = self.contract.frame, self.contract.timing.period_s
        message = to_trajectory(self.contract.action_names, actions, stamp_ns, frame, period)
        self._commands["command"].publish(message)

    def _tell(self, decision: Decision) -> None:
        """Publishes mode and reason when they change; a limited command is no change of state."""
        reason = "" if decision.reason in (Reason.NONE, Reason.LIMITED) else f":{decision.reason}"
        text = f"{decision.mode}{reason}"
        if text != self._told:
            self._told = text
            self._states.publish(String(data=text))
            self.get_logger().info(text)

    def _diagnose(self) -> None:
        gate, came = self.gate, {"state": self._state_at, "chunk": self._chunk_at}
        values: dict[str, object] = {
            "mode": gate.mode,
            "reason": gate.reason,
            "played": gate.played,
            "held": gate.held,
            "limited": gate.limited,
            "goes_first": goes_first(),
            **{f"refused.{k}": v for k, v in gate.refused.items()},
            **_percentiles("chunk_ms", self._chunk_ms),
            **_percentiles("answer_ms", self._answer_ms),
            **_percentiles("period_error_ms", self._period_error_ms),
            **{f"{k}_age_ms": round(1e3 * (self.now() - at)) for k, at in came.items() if at},
            **{f"{k}_per_s": round(self._came[k] / _DIAGNOSTICS_S) for k in came},
        }
        self._came.clear()
        status = DiagnosticStatus(
            level=_LEVELS.get(gate.mode, DiagnosticStatus.OK),
            name=self.get_fully_qualified_name(),
            message=self._told,
            hardware_id=self.contract.robot,
            values=[KeyValue(key=k, value=str(v)) for k, v in values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = ns_to_stamp(self.wall_ns())
        self._diagnostics.publish(message)

    def _note(self, reason: Reason) -> None:
        if reason is not Reason.NONE:
            self._warn(f"refused: {reason}")

    def _warn(self, text: str) -> None:
        self.get_logger().warning(text, throttle_duration_sec=_WARN_EVERY_S)

    def _deactivate(self) -> None:
        """The last message of this process is a hold; an arm that is driven by time comes to rest first."""
        self._log.call("stop")
        self._tick()
        until = self.now() + _REST_S
        while not self.gate.resting and self.now() < until:
            time.sleep(_TICK_S)
            self._tick()
        for publisher in self._commands.values():
            publisher.wait_for_all_acked(Duration(seconds=_ACK_S))


def _percentiles(name: str, values: deque[float]) -> dict[str, object]:
    if not values:
        return {}
    p50, p99 = np.percentile(values, [50, 99])
    return {f"{name}.p50": f"{p50:.2f}", f"{name}.p99": f"{p99:.2f}"}


def go_first() -> None:
    """Asks that this process and the threads it will begin run before all that is not in a hurry.

    Where the system does not let it (Linux: CAP_SYS_NICE, or `rtprio` in /etc/security/limits.conf) nothing
    changes, and the diagnostics say so.
    """
    if hasattr(os, "sched_setscheduler"):
        with suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))


def goes_first() -> bool:
    """Whether this process has a real-time priority."""
    return hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) == os.SCHED_FIFO


def main() -> int:
    """`python -m ros_nodes.gate_node --ros-args -p contract:=panda_sim`."""
    go_first()
    return run(GateNode)


if __name__ == "__main__":
    sys.exit(main())
