"""The recorder hears everything, however long it is kept from looking."""

from __future__ import annotations

import threading

import pytest

rclpy = pytest.importorskip("rclpy")

from rclpy.parameter import Parameter  # noqa: E402
from rosbags.rosbag2 import Reader  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402

from ros_nodes.recorder_node import RecorderNode  # noqa: E402
from ros_nodes.running import SENSOR_QOS, STATE_QOS  # noqa: E402

pytestmark = pytest.mark.ros

STATES = 200


@pytest.mark.parametrize(("contract", "qos"), [("panda_sim", STATE_QOS), ("so101", SENSOR_QOS)])
def test_recorder_kept_waiting_has_every_state(graph, tmp_path, contract, qos):
    node, arm = RecorderNode(threading.Event()), rclpy.create_node("arm")
    for name, value in (("contract", contract), ("out", str(tmp_path / "log"))):
        node.set_parameters([Parameter(name, value=value)])
    graph.add_node(node)
    assert node.start()
    states = arm.create_publisher(JointState, "joint_states", qos)
    while not states.get_subscription_count():
        graph.spin_once(timeout_sec=0.05)
    for _ in range(STATES):
        states.publish(JointState())
    while node.busy():
        graph.spin_once(timeout_sec=0.05)
    node.finish()
    with Reader(tmp_path / "log") as reader:
        assert sum(c.topic == "/joint_states" for c, _, _ in reader.messages()) == STATES
