"""A mock of an arm that is driven by time, to rehearse with: goes where it is told, late and not exactly.

It knows no dynamics and no objects: it shows that topics, names, units, rates and limits of a contract fit a
policy before the arm itself is switched on, and what the gate does when messages are late or lost.
"""

from __future__ import annotations

import json
import math
import sys
import threading
from collections import deque
from functools import partial
from typing import Any

import numpy as np
from std_srvs.srv import Trigger

from robopolicy.errors import BadInput
from ros_nodes.convert import COMMANDS, MESSAGES, to_message
from ros_nodes.outlets import Outlet
from ros_nodes.parse import from_outlet
from ros_nodes.running import COMMAND_QOS, STATE_QOS, RobotNode, run

# Without a new velocity for longer it stops, as arms do.
_VELOCITY_LASTS_S = 0.1
_WARN_EVERY_S = 1.0
# After a reset: what was said before the arm jumped is no command for where it is now.
_DEAF_S = 0.2


class MockArmNode(RobotNode):
    """Follows its commands as a first-order lag.

    Topics out: those of the contract's state. Topics in: the outlets of its drive. Service: `~/reset`, which
    puts it back to the start. Parameters: `start`, JSON of state elements (otherwise the middle of the
    limits, and 0); `lag_s`; `latency_s`; `noise`, a standard deviation; `dropped`, the share of messages that
    are lost, each way; `seed`.
    """

    def __init__(self, stop: threading.Event):
        super().__init__("arm", stop)
        self._declare("start", "{}", "JSON: value by state element")
        self.declare_seed()
        self._lag, self._latency, self._noise, self._dropped = (
            float(self._declare(name, default, text))  # type: ignore[arg-type]
            for name, default, text in (
                ("lag_s", 0.03, "seconds by which the arm lags behind its command"),
                ("latency_s", 0.0, "seconds until a command arrives"),
                ("noise", 0.0, "standard deviation of what is measured"),
                ("dropped", 0.0, "share of messages that are lost, each way"),
            )
        )

    def _configure(self) -> None:
        driven = self.contract.driven
        if driven is None:
            raise BadInput("contract", "an arm that is driven by time (the field drive)", self.contract.robot)
        self._driven, self._bounds = driven, driven.drive.bounds
        start = json.loads(self.text("start"))
        self._rng = np.random.default_rng(self.seed)
        self._start = dict.fromkeys(self.contract.elements, 0.0) | self._middle() | start
        if unknown := set(self._start) - set(self.contract.elements):
            raise BadInput("start", f"some of {sorted(self.contract.elements)}", sorted(unknown))
        self._outlets = {
            s.topic: self.create_publisher(MESSAGES[s.type], s.topic, STATE_QOS)
            for s in self.contract.streams
        }

    def _activate(self) -> None:
        self._begin()
        for o in self._driven.outlets:
            self.create_subscription(COMMANDS[o.type], o.topic, partial(self._on_command, o), COMMAND_QOS)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_timer(1 / self._driven.drive.rate, self._step, clock=self.steady)

    def _middle(self) -> dict[str, float]:
        middle = (self._bounds.low + self._bounds.high) / 2 * self._driven.per_si
        return {e: float(m) for e, m in zip(self._driven.measured, middle, strict=True) if e}

    def _begin(self, deaf_s: float = 0.0) -> None:
        self._hears_from = self.now() + deaf_s
        self._state = dict(self._start)
        self._goal: dict[int, float] = {}
        self._told_at = self._at = self.now()
        self._under_way: deque[tuple[float, dict[int, float]]] = deque()

    def _on_command(self, outlet: Outlet, message: Any) -> None:
        if self.now() < self._hears_from or self._rng.random() < self._dropped:
            return
        try:
            row = from_outlet(outlet, message)
        except BadInput as e:
            self.get_logger().warning(f"command refused: {e}", throttle_duration_sec=_WARN_EVERY_S)
            return
        self._under_way.append((self.now() + self._latency, dict(zip(outlet.actions, row, strict=True))))

    def _step(self) -> None:
        now = self.now()
        passed, self._at = now - self._at, now
        while self._under_way and self._under_way[0][0] <= now:
            self._goal |= self._under_way.popleft()[1]
            self._told_at = now
        nearer = -math.expm1(-passed / self._lag) if self._lag > 0 else 1.0
        for action, goal in self._goal.items():
            if not self._bounds.paced[action]:
                element = self._driven.measured[action]
                target = goal * float(self._driven.per_si[action])
                self._state[element] += nearer * (target - self._state[element])
        moved_by = self._driven.drive.moved_by
        if moved_by and now - self._told_at <= _VELOCITY_LASTS_S:
            for element, action in zip(self.contract.guarded, moved_by, strict=True):
                self._state[element] += passed * self._goal.get(action, 0.0)
        stamp = self.wall_ns()
        noisy = {e: v + self._noise * self._rng.normal() for e, v in self._state.items()}
        for stream in self.contract.streams:
            if self._rng.random() >= self._dropped:
                self._outlets[stream.topic].publish(to_message(stream, noisy, stamp, self.contract.frame))

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._begin(_DEAF_S)
        self._step()  # who engages next must know that the arm has jumped
        response.success = True
        return response


def main() -> int:
    """`python -m ros_nodes.mock_arm_node --ros-args -p contract:=so101`."""
    return run(MockArmNode)


if __name__ == "__main__":
    sys.exit(main())
