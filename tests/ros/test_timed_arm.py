"""An arm that is driven by time, over DDS: mock arm, gate, policy node and a scripted server."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

import reach_by_script  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402

from robopolicy.processes import Processes  # noqa: E402
from ros_nodes.console import Console  # noqa: E402
from ros_nodes.logs import read_log, replay_gate, to_episodes  # noqa: E402
from ros_nodes.running import COMMAND_QOS  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
BOUNDS = reach_by_script.ARM.driven.drive.bounds
REST_S = 0.3


class Graph:
    """All processes, an operator, and a log of every command with its time."""

    def __init__(self, folder: Path):
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.processes = Processes(folder, env)
        server = str(folder / "s.sock")
        self.processes.start("server", [reach_by_script.__file__, "--address", server])
        for node, module, own in (
            ("recorder", "recorder_node", ["-p", f"out:={folder / 'log'}"]),
            ("arm", "mock_arm_node", ["-p", "latency_s:=0.01"]),
            ("gate", "gate_node", []),
            ("policy", "policy_node", ["-p", f"server:={server}"]),
        ):
            flags = ["--ros-args", "-p", "contract:=so101", "-r", "__ns:=/two", *own]
            self.processes.start(node, ["-m", f"ros_nodes.{module}", *flags])
        self.folder = folder
        self.commands: list[tuple[float, np.ndarray]] = []
        self.console = Console("two", self.processes.require_alive, recorded=True)
        self.console._node.create_subscription(
            Float64MultiArray, "forward_position_controller/commands", self._note, COMMAND_QOS
        )
        self.console.wait_ready(90.0)
        self.console.wait(Path(server).exists, 90.0, "the policy server")

    def _note(self, message: Float64MultiArray) -> None:
        self.commands.append((time.monotonic(), np.array(message.data)))

    def spin(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.console._executor.spin_once(timeout_sec=0.005)

    def close(self) -> None:
        self.console.close()
        self.processes.stop(("gate",), ("policy", "arm"), ("recorder",), ("server",))


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(1 + (os.getpid() + 50) % 100))
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        graph = Graph(tmp_path_factory.mktemp("timed"))
        yield graph
        graph.close()


def test_timed_arm_is_brought_to_the_goal_within_its_limits(graph):
    assert isinstance(graph.console._executor, SingleThreadedExecutor)
    graph.console.reset("policy", 0)
    graph.console.engage(True)
    graph.spin(2.5)
    path = np.array([c for _, c in graph.commands])
    goal = np.clip(np.deg2rad(reach_by_script.GOAL), BOUNDS.low, BOUNDS.high)
    assert np.allclose(path[-1], goal, atol=0.01)
    assert graph.console.state == "RUNNING"
    period = 1 / reach_by_script.ARM.driven.drive.rate
    assert (np.abs(np.diff(path, axis=0)) <= BOUNDS.speed * 2 * period + 1e-9).all()
    bends = np.abs(np.diff(path, n=2, axis=0)) / period**2
    assert np.quantile(bends, 0.99) < BOUNDS.acceleration.max()
    graph.console.engage(False)
    graph.spin(0.5)


def test_timed_arm_policy_server_killed_comes_to_rest_in_time_and_faults(graph):
    graph.console.reset("arm", 0)
    graph.spin(0.3)
    graph.console.reset("policy", 0)
    graph.console.engage(True)
    began = len(graph.commands)
    while len(graph.commands) < began + 25:
        graph.spin(0.01)
    os.kill(graph.processes.pid("server"), signal.SIGKILL)
    killed = time.monotonic()
    graph.console._watch = lambda: None
    graph.spin(1.0)
    after = [(t - killed, c) for t, c in graph.commands[began:]]
    moved = [t for (t, c), (_, b) in zip(after[1:], after[:-1], strict=True) if np.abs(c - b).max() > 1e-6]
    assert max(moved) < REST_S
    assert after[-1][0] > 0.9
    graph.console.wait(lambda: graph.console.state == "FAULT:POLICY_LOST", 5.0, "the fault")


def test_timed_arm_log_plays_again_and_becomes_episodes(graph):
    graph.console._watch = lambda: None
    graph.processes.stop(("gate",), ("policy", "arm"), ("recorder",))
    log = read_log(graph.folder / "log")
    assert replay_gate(log) > 500
    first, *_ = to_episodes(log)
    assert 60 < first.length < 80
    assert np.allclose(first.actions[-1], reach_by_script.GOAL, atol=0.5)
    # What was commanded until the next state is where the arm then is, but for its lag.
    assert np.abs(first.states[1:] - first.actions).max() < 4.0
