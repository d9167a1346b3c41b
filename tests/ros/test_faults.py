"""Faults of the robot loop that need DDS, each by its number in docs/faults.md."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy")

from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from ros_nodes.gate_node import GateNode  # noqa: E402
from ros_nodes.running import COMMAND_QOS  # noqa: E402
from ros_nodes.safety import Mode, Reason  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.realtime]

ROOT = Path(__file__).parents[2]
WITHIN_S = 20.0  # discovery on a busy machine; what the gate does after it is much faster


@pytest.fixture
def beside(graph):
    """A gate, and a node beside it."""
    gate, other = GateNode(threading.Event()), rclpy.create_node("other")
    for node in (gate, other):
        graph.add_node(node)
    assert gate.start()
    yield graph, gate, other
    gate.finish()


def _until(executor, condition) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        executor.spin_once(timeout_sec=0.02)


def test_fault_05_publisher_whose_quality_of_service_does_not_fit_faults(beside):
    executor, gate, other = beside
    other.create_publisher(
        JointState, "joint_states", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    )
    _until(executor, lambda: gate.gate.mode is Mode.FAULT)
    assert gate.gate.reason is Reason.QOS


def test_fault_17_second_publisher_of_commands_is_noticed_and_nothing_can_be_engaged(beside):
    executor, gate, other = beside
    other.create_publisher(JointTrajectory, "command", COMMAND_QOS)
    _until(executor, lambda: gate.count_publishers("command") > 1)
    _until(executor, lambda: not gate.gate._alone)
    assert gate.gate.engage(gate.now()) is Reason.TWO_PUBLISHERS


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after_s", [1.0, 1.5, 3.0])
def test_fault_18_signal_at_any_moment_ends_the_gate_in_order(number, after_s, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + (os.getpid() + 86) % 100))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    command = [sys.executable, "-m", "ros_nodes.gate_node"]
    gate = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    time.sleep(after_s)
    # The ROS wheels start Python twice, and what comes in between is lost: so it is sent until it is heard.
    for _ in range(8):
        gate.send_signal(number)
        try:
            gate.wait(2.0)
            break
        except subprocess.TimeoutExpired:
            continue
    out, _ = gate.communicate(timeout=2.0)
    # Before its handlers stand Python ends it; after that it ends itself.
    assert gate.returncode in (0, 1, -number)
    assert b"terminate called" not in out
