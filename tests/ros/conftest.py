"""What tests of nodes in this process share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture
def graph(monkeypatch) -> Iterator:
    """An executor on a domain of this process's own; its nodes wait to be started."""
    rclpy = pytest.importorskip("rclpy")
    from rclpy.executors import SingleThreadedExecutor

    monkeypatch.setenv("ROS_DOMAIN_ID", str(1 + (os.getpid() + 75) % 100))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init(args=["--ros-args", "-p", "autostart:=false"])
    executor = SingleThreadedExecutor()
    yield executor
    executor.shutdown()
    rclpy.shutdown()
