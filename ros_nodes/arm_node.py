"""The simulated arm as a ROS robot: publishes what `sim.plant` measures, passes on what it is commanded.

The robot's own timeout is in the plant: if this node or the gate dies, the arm holds. Sensors can be made
worse than they are: late, noisy, or silent now and then.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from robopolicy.errors import BadInput
from robopolicy.seeding import stream
from robopolicy.spec import Spec
from robopolicy.wire import Client, Message, WireError, dial
from ros_nodes.convert import MESSAGES, ns_to_stamp, to_message
from ros_nodes.parse import by_name, from_trajectory, stamp_to_ns
from ros_nodes.running import COMMAND_QOS, EVENT_QOS, STATE_QOS, RobotNode, run

_WAIT_S = 0.2
_PATIENCE_S = 2.0
_STARTUP_S = 60.0
_REMEMBERED = 64
_WARN_EVERY_S = 1.0
# Parameters from 0 to 1.
_SPOILING = {
    "latency_s": "seconds by which states are late",
    "noise": "standard deviation of what is measured, as a share of its range",
    "dropout": "share of the states that are never sent",
}


class ArmNode(RobotNode):
    """Joins the plant's socket to the topics of the contract.

    Topics out: those of the contract's state, `success` when the task is achieved. Topic in: `command`.
    Service: `~/reset`, which starts the episode of the parameter `seed`. Parameters `latency_s`, `noise`
    (standard deviation as a share of each number's range) and `dropout` (share of the states) spoil what is
    measured, the same way in every episode of a seed.
    """

    def __init__(self, stop: threading.Event):
        super().__init__("arm", stop)
        self._declare("plant", "", "socket of sim.plant", read_only=False)
        self.declare_seed()
        for name, text in _SPOILING.items():
            self._declare(name, 0.0, text, read_only=False)

    def _configure(self) -> None:
        self._spoiled = {name: self._share(name) for name in _SPOILING}
        self._rng = stream(self.seed, "sensors")
        address = self.text("plant")
        self._commands = dial(address, self.stop, _STARTUP_S, _PATIENCE_S)
        self._states = Client(address, _PATIENCE_S)
        self._spec = Spec.from_dict(self._commands.request("hello")["spec"])
        self.contract.check_spec(self._spec)
        # Which of the plant's states a stamp stands for.
        self._serials: OrderedDict[int, int] = OrderedDict()
        self._outlets = {
            s.topic: self.create_publisher(MESSAGES[s.type], s.topic, STATE_QOS)
            for s in self.contract.streams
        }
        self._successes = self.create_publisher(Header, "success", EVENT_QOS)
        self._achieved = False

    def _share(self, name: str) -> float:
        value = float(self.get_parameter(name).value or 0.0)
        if not 0.0 <= value <= 1.0:
            raise BadInput(name, "a number from 0 to 1", value)
        return value

    def _activate(self) -> None:
        group = MutuallyExclusiveCallbackGroup()
        self.create_subscription(
            JointTrajectory, "command", self._on_command, COMMAND_QOS, callback_group=group
        )
        self.create_service(Trigger, "~/reset", self._on_reset, callback_group=group)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch")
        self._thread.start()

    def _watch(self) -> None:
        """Publishes each new state of the plant as soon as it is there."""
        serial = 0
        try:
            while not self._ended.is_set():
                status = self._states.request("wait", after=serial, within_s=_WAIT_S)
                if status["serial"] > serial:
                    serial = status["serial"]
                    self._publish(status)
        except (WireError, BadInput) as e:
            self.fail(f"plant: {e}")

    def _publish(self, status: Message) -> None:
        stamp = self.wall_ns()
        self._serials[stamp] = status["serial"]
        while len(self._serials) > _REMEMBERED:
            self._serials.popitem(last=False)
        silent, state = self._rng.random() < self._spoiled["dropout"], self._measured(status["state"])
        if status["success"] and not self._achieved:
            self._successes.publish(Header(stamp=ns_to_stamp(stamp)))
        self._achieved = bool(status["success"])
        if silent:
            return
        self._ended.wait(self._spoiled["latency_s"])
        for s in self.contract.streams:
            self._outlets[s.topic].publish(to_message(s, state, stamp, self.contract.frame))

    def _measured(self, state: np.ndarray) -> dict[str, float]:
        """A state (D,) by element, with noise, inside its ranges."""
        low, high = self._spec.state_range
        noise = self._spoiled["noise"] * (high - low) * self._rng.standard_normal(len(state))
        values = np.clip(state + noise, low, high) if self._spoiled["noise"] else state
        return dict(zip(self._spec.state_names, values.tolist(), strict=True))

    def _on_command(self, message: JointTrajectory) -> None:
        serial = self._serials.get(stamp_to_ns(message.header.stamp))
        if serial is None:
            return  # answers a state from before a reset, or none of ours
        try:
            actions = from_trajectory(message, self.contract.frame)
            if len(actions) > 1:
                raise BadInput("command", "one point, or none for hold", len(actions))
            if len(actions) == 0:
                self._commands.request("hold", serial=serial)
            else:
                row = by_name(list(message.joint_names), self._spec.action_names, actions[0])
                self._commands.request("command", serial=serial, action=row.astype("float32"))
        except BadInput as e:
            self.get_logger().warning(f"command refused: {e}", throttle_duration_sec=_WARN_EVERY_S)
        except WireError as e:
            self.fail(f"plant: {e}")

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            self._rng = stream(self.seed, "sensors")
            self._commands.request("reset", seed=self.seed)
            response.success = True
        except BadInput as e:
            response.message = str(e)
        except WireError as e:
            response.message = str(e)
            self.fail(f"plant: {e}")
        return response

    def _deactivate(self) -> None:
        self._ended.set()
        self._thread.join(timeout=_PATIENCE_S)

    def _cleanup(self) -> None:
        self._commands.close()
        self._states.close()


def main() -> int:
    """`python -m ros_nodes.arm_node --ros-args -p contract:=panda_sim -p plant:=SOCKET`."""
    return run(ArmNode)


if __name__ == "__main__":
    sys.exit(main())
