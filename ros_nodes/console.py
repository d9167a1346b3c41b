"""An operator's console as a node: engage, stop, reset, and what the gate says about itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Header, String
from std_srvs.srv import SetBool, Trigger

from robopolicy.errors import RoboPolicyError
from ros_nodes.running import EVENT_QOS, LATCHED_QOS

_SPIN_S = 0.02
_CALL_S = 5.0


class NotGranted(RoboPolicyError):
    """A node refused what the operator asked, or did not answer."""


class Console:
    """Calls the services of the nodes `arm`, `policy` and `gate`. One thread; blocks, but never for long.

    Args:
        namespace: where the nodes are.
        watch: called while waiting; raises to give up (a process has died, the user wants out).
        recorded: whether there is a recorder, without which nothing may begin.
        arm: whether there is a node `arm`, which a real one has none of.
        clock: monotonic seconds.

    Attributes:
        state: mode and reason of the gate, such as "HOLD:POLICY_LOST"; "" until it has said so.
        diagnostics: its latest values.
        succeeded: whether someone has said that the task is achieved, since the last `reset` of the policy.
    """

    def __init__(
        self,
        namespace: str,
        watch: Callable[[], None],
        recorded: bool = False,
        arm: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._watch, self._clock = watch, clock
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("console", namespace=namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self.state = ""
        self.diagnostics: dict[str, str] = {}
        self.succeeded = False
        self._node.create_subscription(String, "gate/state", self._on_state, LATCHED_QOS)
        self._node.create_subscription(Header, "success", self._on_success, EVENT_QOS)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        services = {
            "policy/reset": Trigger,
            "gate/engage": SetBool,
            "gate/stop": Trigger,
            "gate/reset": Trigger,
            "policy/set_parameters": SetParameters,
            **({"arm/reset": Trigger, "arm/set_parameters": SetParameters} if arm else {}),
            **({"recorder/success": Trigger} if recorded else {}),
        }
        self._services = {n: self._node.create_client(t, n) for n, t in services.items()}

    def _on_state(self, message: String) -> None:
        self.state = message.data

    def _on_success(self, _: Header) -> None:
        self.succeeded = True

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith("gate"):
                self.diagnostics = {v.key: v.value for v in status.values}

    def spin(self, seconds: float = _SPIN_S) -> None:
        """Handles at most one message, waiting no longer than `seconds`."""
        self._watch()
        self._executor.spin_once(timeout_sec=seconds)

    def wait(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        """Spins until `condition`; raises NotGranted if it takes too long."""
        deadline = self._clock() + within_s
        while not condition():
            if self._clock() > deadline:
                raise NotGranted(f"{what}: nothing within {within_s:g} s (gate {self.state or 'silent'})")
            self.spin()

    def wait_ready(self, within_s: float) -> None:
        """Waits until every service is there and the gate has told its state."""
        self.wait(self._all_there, within_s, "waiting for the nodes")
        self.wait(lambda: bool(self.state), within_s, "waiting for the gate")

    def _all_there(self) -> bool:
        return all(c.service_is_ready() for c in self._services.values())

    def engage(self, on: bool, within_s: float = _CALL_S) -> None:
        """Arms or disarms the gate; repeats a refused wish until granted, since input may just be missing."""
        deadline = self._clock() + within_s
        while True:
            reply = self._call("gate/engage", SetBool.Request(data=on))
            if reply.success:
                return
            if self._clock() > deadline:
                raise NotGranted(f"gate/engage: {reply.message}")
            self.spin()

    def stop(self) -> None:
        self._call("gate/stop", Trigger.Request())

    def clear_fault(self) -> None:
        """Takes the gate out of FAULT, if it is in it."""
        self._call("gate/reset", Trigger.Request())

    def reset(self, node: str, seed: int) -> None:
        """Begins the episode `seed` at the node `arm` or `policy`."""
        value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=seed)
        request = SetParameters.Request(parameters=[ParameterMsg(name="seed", value=value)])
        for result in self._call(f"{node}/set_parameters", request).results:
            if not result.successful:
                raise NotGranted(f"{node} seed: {result.reason}")
        reply = self._call(f"{node}/reset", Trigger.Request())
        if not reply.success:
            raise NotGranted(f"{node}/reset: {reply.message}")
        self.succeeded = self.succeeded and node != "policy"

    def _call(self, name: str, request: Any) -> Any:
        future = self._services[name].call_async(request)
        self.wait(future.done, _CALL_S, name)
        return future.result()

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)
