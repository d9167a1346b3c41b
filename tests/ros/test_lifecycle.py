"""Nodes are configured, activated, deactivated and cleaned up; what is not possible is refused."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from ros_nodes import gate_node  # noqa: E402
from ros_nodes.gate_node import GateNode  # noqa: E402
from ros_nodes.mock_arm_node import MockArmNode  # noqa: E402
from ros_nodes.running import COMMAND_QOS  # noqa: E402

pytestmark = pytest.mark.ros


class Operator:
    """Asks a node for transitions."""

    def __init__(self, executor: SingleThreadedExecutor, node):
        self._executor, self.node = executor, rclpy.create_node("operator")
        for n in (node, self.node):
            executor.add_node(n)
        self._change = self.node.create_client(ChangeState, f"{node.get_name()}/change_state")
        self._state = self.node.create_client(GetState, f"{node.get_name()}/get_state")

    def ask(self, transition: int) -> bool:
        return self._call(self._change, ChangeState.Request(transition=Transition(id=transition))).success

    @property
    def state(self) -> str:
        return self._call(self._state, GetState.Request()).current_state.label

    def _call(self, client, request):
        assert client.wait_for_service(10.0)
        future = client.call_async(request)
        self._executor.spin_until_future_complete(future, 10.0)
        assert future.done()
        return future.result()

    def services(self) -> set[str]:
        return {n for n, _ in self.node.get_service_names_and_types() if n.startswith("/gate/")}


def test_transition_that_is_not_possible_is_refused_and_the_node_lives_on(graph):
    node = GateNode(threading.Event())
    operator = Operator(graph, node)
    assert not operator.ask(Transition.TRANSITION_ACTIVATE)
    assert not operator.ask(Transition.TRANSITION_DEACTIVATE)
    assert not operator.ask(99)
    assert operator.state == "unconfigured"


def test_gate_with_a_contract_that_does_not_exist_stays_unconfigured_until_it_does(graph):
    node = GateNode(threading.Event())
    operator = Operator(graph, node)
    node.set_parameters([Parameter("contract", value="nothing")])
    assert not operator.ask(Transition.TRANSITION_CONFIGURE)
    assert "nothing" in node.problem
    assert operator.state == "unconfigured"
    node.set_parameters([Parameter("contract", value="ur5e")])
    assert operator.ask(Transition.TRANSITION_CONFIGURE)
    assert node.contract.robot == "ur5e"


def test_gate_answers_an_operator_only_while_it_is_active(graph):
    node = GateNode(threading.Event())
    operator = Operator(graph, node)
    steps = (
        (Transition.TRANSITION_CONFIGURE, "inactive", False),
        (Transition.TRANSITION_ACTIVATE, "active", True),
        (Transition.TRANSITION_DEACTIVATE, "inactive", False),
        (Transition.TRANSITION_ACTIVATE, "active", True),
        (Transition.TRANSITION_DEACTIVATE, "inactive", False),
        (Transition.TRANSITION_CLEANUP, "unconfigured", False),
        (Transition.TRANSITION_CONFIGURE, "inactive", False),
        (Transition.TRANSITION_INACTIVE_SHUTDOWN, "finalized", False),
    )
    for transition, state, answers in steps:
        assert operator.ask(transition)
        assert operator.state == state
        assert bool(list(node.services) and any("engage" in s.srv_name for s in node.services)) is answers
        assert bool(node.count_publishers("command")) is (state in ("inactive", "active"))


def test_gate_deactivated_says_hold_last(graph):
    node = GateNode(threading.Event())
    operator = Operator(graph, node)
    heard = []
    operator.node.create_subscription(JointTrajectory, "command", heard.append, COMMAND_QOS)
    operator.ask(Transition.TRANSITION_CONFIGURE)
    operator.ask(Transition.TRANSITION_ACTIVATE)
    while not node.count_subscribers("command"):
        graph.spin_once(timeout_sec=0.05)
    for _ in range(20):
        graph.spin_once(timeout_sec=0.02)
    before = len(heard)
    operator.ask(Transition.TRANSITION_DEACTIVATE)
    for _ in range(20):
        graph.spin_once(timeout_sec=0.02)
    assert len(heard) > before
    assert len(heard[-1].points) == 0


def test_mock_arm_needs_a_contract_with_a_drive(graph):
    node = MockArmNode(threading.Event())
    assert not node.start()
    assert "drive" in node.problem
    node.set_parameters([Parameter("contract", value="servo")])
    assert node.start()
    assert np.isfinite(list(node._state.values())).all()
    node.finish()
    assert [s for s in node.subscriptions if "twist" in s.topic_name] == []


def test_gate_asks_for_a_priority_below_that_of_ros2_control(monkeypatch):
    asked = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda *args: asked.append(args))
    gate_node.go_first()
    ((pid, policy, how),) = asked
    assert (pid, policy) == (0, os.SCHED_FIFO)
    assert 0 < how.sched_priority < 50


def test_gate_that_may_not_go_first_works_on_and_says_so(monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(os, "sched_getscheduler", lambda pid: os.SCHED_OTHER)
    gate_node.go_first()
    assert not gate_node.goes_first()
