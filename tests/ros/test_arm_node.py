"""The simulated arm's sensors can be spoiled: late, noisy or silent, the same way for the same seed."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from geometry_msgs.msg import PointStamped  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from robopolicy.wire import Handler, Server  # noqa: E402
from ros_nodes.arm_node import ArmNode  # noqa: E402
from ros_nodes.parse import stamp_to_ns  # noqa: E402
from ros_nodes.running import STATE_QOS  # noqa: E402
from sim.tasks import LIFT  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.realtime]

STATE = LIFT.state_range.mean(0).astype(np.float32)
STATE[LIFT.slice_of("cube_rot")] = [1, 0, 0, 0, 1, 0]
STATES = 40


class StandStill:
    """A plant in which nothing happens, at 40 Hz."""

    def __init__(self):
        self.serial = 0

    def wait(self, after: int, within_s: float):
        time.sleep(0.025)
        self.serial = min(self.serial + 1, STATES)
        return {"state": STATE, "serial": self.serial, "success": False}

    def connect(self):
        hello = {"spec": LIFT.to_dict()}
        return {
            "hello": Handler({}, lambda: hello),
            "wait": Handler({"after": int, "within_s": float}, self.wait),
        }


def heard(tmp_path, monkeypatch, **spoiled):
    """Gripper tips that a listener hears, and how old they are in seconds."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + (os.getpid() + 25) % 100))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    address, found = str(tmp_path / f"plant-{len(os.listdir(tmp_path))}.sock"), []
    plant = StandStill()
    with Server(address, plant.connect):
        rclpy.init(args=["--ros-args", "-p", "autostart:=false"])
        executor, other = SingleThreadedExecutor(), rclpy.create_node("other")
        node = ArmNode(threading.Event())
        given = {"contract": "panda_sim", "plant": address, "seed": 5, **spoiled}
        node.set_parameters([Parameter(k, value=v) for k, v in given.items()])

        def hear(message):
            age = (node.wall_ns() - stamp_to_ns(message.header.stamp)) * 1e-9
            found.append((message.point.x, message.point.y, message.point.z, age))

        other.create_subscription(PointStamped, "eef_point", hear, STATE_QOS)
        for one in (node, other):
            executor.add_node(one)
        assert node.trigger_configure(), node.problem
        until = time.monotonic() + 10
        while other.count_publishers("eef_point") == 0 and time.monotonic() < until:
            executor.spin_once(timeout_sec=0.05)
        for _ in range(10):  # until they have found each other
            executor.spin_once(timeout_sec=0.05)
        node.trigger_activate()
        until = time.monotonic() + 10
        while plant.serial < STATES and time.monotonic() < until:
            executor.spin_once(timeout_sec=0.01)
        for _ in range(20):
            executor.spin_once(timeout_sec=0.02)
        node.finish()
        executor.shutdown()
        rclpy.shutdown()
    return np.array(found)


def test_sensors_that_are_not_spoiled_say_what_is(tmp_path, monkeypatch):
    found = heard(tmp_path, monkeypatch)
    assert len(found) >= 0.9 * STATES
    assert np.allclose(found[:, :3], STATE[LIFT.slice_of("eef_pos")], atol=1e-6)


def test_spoiled_sensors_are_late_noisy_and_silent_by_so_much_and_repeat(tmp_path, monkeypatch):
    spoiled = {"latency_s": 0.02, "noise": 0.01, "dropout": 0.3}
    found, again = heard(tmp_path, monkeypatch, **spoiled), heard(tmp_path, monkeypatch, **spoiled)
    assert 0.4 * STATES < len(found) < 0.95 * STATES
    assert (found[:, 3] >= 0.02).all()
    low, high = LIFT.state_range[:, LIFT.slice_of("eef_pos")]
    off = (found[:, :3] - STATE[LIFT.slice_of("eef_pos")]) / (high - low)
    assert 0.005 < off.std() < 0.02
    # Whoever listens may miss one; what both heard is the same.
    both = [{tuple(row) for row in x[:, :3]} for x in (found, again)]
    assert len(both[0] & both[1]) >= 0.9 * max(map(len, both))


@pytest.mark.parametrize("name", ["latency_s", "noise", "dropout"])
def test_spoiling_beyond_its_range_is_refused_by_name(tmp_path, monkeypatch, name):
    rclpy.init(args=["--ros-args", "-p", "autostart:=false"])
    try:
        node = ArmNode(threading.Event())
        node.set_parameters([Parameter(name, value=1.5)])
        assert not node.start()
        assert name in node.problem
        node.destroy_node()
    finally:
        rclpy.shutdown()
