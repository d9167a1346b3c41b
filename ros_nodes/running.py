"""What every node needs: parameters, quality of service, and an end that is never silent."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from robopolicy.errors import RoboPolicyError
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


class RobotNode(Node):
    """A node with a contract, a steady clock for deadlines and the ROS clock for stamps.

    Attributes:
        contract: the robot, from the parameters `contract` and `lockstep`.
        contract_text: of its file.
        lockstep: simulated time waits for commands.
        shadow: the arm is driven by someone else.
        stop: set when the process is to end.
        failed: set from any thread when the node cannot go on; the process then ends with code 1.
    """

    def __init__(self, name: str, stop: threading.Event):
        super().__init__(name)
        self.stop, self.failed = stop, threading.Event()
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)
        name = self.text_parameter("contract", "panda_sim", "path or name of a contract")
        self.contract_text = contract_text(name)
        contract = Contract.parse(self.contract_text, name)
        self.lockstep = bool(self._declare("lockstep", False, "simulated time waits for commands"))
        self.shadow = bool(self._declare("shadow", False, "commands are looked at, and not obeyed"))
        self.contract = contract.lockstep() if self.lockstep else contract

    def command_topic(self, name: str) -> str:
        """Where the commands of an outlet go: in the shadow, beside where they would have gone."""
        return f"shadow/{name}" if self.shadow else name

    @property
    def state_qos(self) -> QoSProfile:
        """How to listen to the state: of an arm that is driven step by step no state may be lost."""
        return STATE_QOS if self.contract.driven is None else SENSOR_QOS

    def _declare(self, name: str, default: object, text: str, read_only: bool = True) -> object:
        descriptor = ParameterDescriptor(description=text, read_only=read_only)
        return self.declare_parameter(name, default, descriptor).value

    def text_parameter(self, name: str, default: str, text: str) -> str:
        return str(self._declare(name, default, text))

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

    def busy(self) -> bool:
        """Asked when the process is to end: whether to wait for messages that are still on their way."""
        return False

    def finish(self) -> None:
        """Called once before the node is destroyed, while it can still publish."""


def run(make: Callable[[threading.Event], RobotNode]) -> int:
    """Runs a node until SIGTERM, SIGINT or its own failure; returns the exit code.

    The signal handlers are ours: with those of rclpy the context would be dead before the last command
    could be published.
    """
    stop = threading.Event()
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        node = make(stop)
    except RoboPolicyError as e:
        print(f"error: {e}", file=sys.stderr)
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
