"""What every node needs: a lifecycle, parameters, quality of service, and an end that is never silent."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.service import Service
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from rclpy.timer import Timer

from robopolicy.errors import RoboPolicyError
from robopolicy.processes import stop_on_signals
from ros_nodes.contract import Contract, contract_text

# Reliable and local: a state must not be lost, or the history of the policy has a gap.
STATE_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
# What is measured at a rate of its own: who listens with best effort hears every kind of publisher.
SENSOR_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
COMMAND_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
# What a log must not lose.
EVENT_QOS = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
LATCHED_QOS = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
_SPIN_S = 0.05


class RobotNode(LifecycleNode):
    """A lifecycle node with a contract, a steady clock for deadlines and the ROS clock for stamps.

    What a subclass makes in `_configure` (publishers, connections) lasts until it is cleaned up, what it
    makes in `_activate` (subscriptions, services, timers, threads) until it is deactivated. A transition that
    fails says why and changes nothing, and one that is not possible is refused.

    Attributes:
        contract: the robot, from the parameters `contract` and `lockstep`.
        contract_text: of its file.
        lockstep: simulated time waits for commands.
        shadow: the arm is driven by someone else.
        stop: set when the process is to end.
        failed: set from any thread when the node cannot go on; the process then ends with code 1.
        problem: why the last transition failed.
    """

    contract: Contract

    def __init__(self, name: str, stop: threading.Event):
        super().__init__(name)
        self.stop, self.failed, self.problem = stop, threading.Event(), ""
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._declare("contract", "panda_sim", "path or name of a contract", read_only=False)
        self.lockstep = bool(self._declare("lockstep", False, "simulated time waits for commands"))
        self.shadow = bool(self._declare("shadow", False, "commands are looked at, and not obeyed"))
        self.autostart = bool(self._declare("autostart", True, "configure and activate at once"))
        self._phase = 0  # unconfigured, inactive, active
        self._made: list[list[Any]] = [[], []]

    # --- what a node does -----------------------------------------------------------------------

    def _configure(self) -> None:
        """Gets ready; raises RoboPolicyError if it cannot."""

    def _activate(self) -> None:
        """Begins."""

    def _deactivate(self) -> None:
        """Ends, while it can still publish."""

    def _cleanup(self) -> None:
        """Lets go of what `_configure` took."""

    # --- transitions ----------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._up(0, self._load_and_configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._up(1, self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._down(1, self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._down(0, self._cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.finish()
        return TransitionCallbackReturn.SUCCESS

    def _load_and_configure(self) -> None:
        name = self.text("contract")
        self.contract_text = contract_text(name)
        contract = Contract.parse(self.contract_text, name)
        self.contract = contract.lockstep() if self.lockstep else contract
        self._configure()

    def _up(self, phase: int, work: Callable[[], None]) -> TransitionCallbackReturn:
        before = set(map(id, self._entities()))
        try:
            work()
        except RoboPolicyError as e:
            self.problem = str(e)
            self.get_logger().error(self.problem)
            self._destroy([x for x in self._entities() if id(x) not in before])
            return TransitionCallbackReturn.FAILURE
        self._made[phase] = [x for x in self._entities() if id(x) not in before]
        self._phase = phase + 1
        return TransitionCallbackReturn.SUCCESS

    def _down(self, phase: int, work: Callable[[], None]) -> TransitionCallbackReturn:
        work()
        self._destroy(self._made[phase])
        self._made[phase] = []
        self._phase = phase
        return TransitionCallbackReturn.SUCCESS

    def _entities(self) -> list[Any]:
        return [*self.publishers, *self.subscriptions, *self.services, *self.timers]

    def _destroy(self, entities: Sequence[Any]) -> None:
        kinds: dict[type, Callable[[Any], Any]] = {
            Publisher: self.destroy_publisher,
            Subscription: self.destroy_subscription,
            Service: self.destroy_service,
            Timer: self.destroy_timer,
        }
        for entity in entities:
            for kind, destroy in kinds.items():
                if isinstance(entity, kind):
                    destroy(entity)

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:  # noqa: N802
        # rclpy lets what was asked for and is not possible end the process; overriding a private name is the
        # one way to refuse it (tests/ros/test_lifecycle.py would notice if the name changed).
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)  # type: ignore[misc]
        except _rclpy.RCLError as e:
            self.get_logger().warning(f"refused: {e}")
            response.success = False
            return response

    def start(self) -> bool:
        """Configures and activates; False if either failed, with the reason in `problem`."""
        ok = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == ok and self.trigger_activate() == ok

    def busy(self) -> bool:
        """Asked when the process is to end: whether to wait for messages that are still on their way."""
        return False

    def finish(self) -> None:
        """Deactivates and cleans up what has not been; called once before the node is destroyed."""
        if self._phase == 2:
            self._down(1, self._deactivate)
        if self._phase == 1:
            self._down(0, self._cleanup)

    # --- what nodes need ------------------------------------------------------------------------

    def command_topic(self, name: str) -> str:
        """Where the commands of an outlet go: in the shadow, beside where they would have gone."""
        return f"shadow/{name}" if self.shadow else name

    @property
    def state_qos(self) -> QoSProfile:
        """How to listen to the state: of an arm that is driven step by step no state may be lost."""
        return STATE_QOS if self.contract.driven is None else SENSOR_QOS

    def listen(
        self, kind: Any, topic: str, hear: Callable[..., None], qos: QoSProfile, raw: bool = False
    ) -> None:
        """Subscribes; a publisher whose quality of service does not fit is told of, for it is never heard."""

        def misfit(event: Any) -> None:
            policy = event.last_policy_kind
            self.get_logger().error(f"{topic}: a publisher offers less than is asked for ({policy})")
            self._on_misfit(topic)

        events = SubscriptionEventCallbacks(incompatible_qos=misfit)
        self.create_subscription(kind, topic, hear, qos, raw=raw, event_callbacks=events)

    def _on_misfit(self, topic: str) -> None:
        """A publisher of `topic` cannot be heard."""

    def _declare(self, name: str, default: object, text: str, read_only: bool = True) -> object:
        descriptor = ParameterDescriptor(description=text, read_only=read_only)
        return self.declare_parameter(name, default, descriptor).value

    def text(self, name: str) -> str:
        """A parameter that is text."""
        return str(self.get_parameter(name).value or "")

    def declare_seed(self) -> None:
        self._declare("seed", 0, "seed of the episode that begins at the next ~/reset", read_only=False)

    @property
    def seed(self) -> int:
        return int(self.get_parameter("seed").value or 0)

    def now(self) -> float:
        """Steady seconds, for deadlines."""
        return self.steady.now().nanoseconds * 1e-9

    def wall_ns(self) -> int:
        """The ROS clock in nanoseconds, for stamps."""
        return self.get_clock().now().nanoseconds

    def fail(self, why: object) -> None:
        self.get_logger().fatal(str(why))
        self.failed.set()


def run(make: Callable[[threading.Event], RobotNode]) -> int:
    """Runs a node until SIGTERM, SIGINT or its own failure; returns the exit code.

    The signal handlers are ours: with those of rclpy the context would be dead before the last command
    could be published.
    """
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    stop = stop_on_signals()
    node = make(stop)
    if node.autostart and not node.start():
        print(f"error: {node.problem}", file=sys.stderr)
        node.finish()
        node.destroy_node()
        rclpy.shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not (stop.is_set() or node.failed.is_set()):
            executor.spin_once(timeout_sec=_SPIN_S)
        while node.busy():
            executor.spin_once(timeout_sec=_SPIN_S)
    finally:
        # `ros2 launch` sends a second SIGINT, which must not hit the clean-up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        node.finish()
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown()
    return 1 if node.failed.is_set() else 0
