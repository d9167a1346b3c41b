"""The whole deployment over DDS: five processes, a real simulator, a scripted policy."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
pytest.importorskip("robosuite")

import lift_by_script  # noqa: E402
from gymnasium.vector import AutoresetMode, SyncVectorEnv  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from robopolicy.errors import BadInput  # noqa: E402
from robopolicy.processes import ProcessDied  # noqa: E402
from robopolicy.protocols import ChunkEnv  # noqa: E402
from robopolicy.rollout import PriorSteerer, rollout  # noqa: E402
from ros_nodes.convert import to_trajectory  # noqa: E402
from ros_nodes.deploy import Deployment, deploy  # noqa: E402
from ros_nodes.running import COMMAND_QOS  # noqa: E402
from sim.tasks import LIFT, find_task  # noqa: E402
from sim.vector import ChunkWrapper  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.realtime, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SERVER = [lift_by_script.__file__]
# Longer than what is left of a control step, so that a request for a chunk stays open for a while.
DELAY_S = 0.06
HELD_WITHIN_S = 0.3
STILL_M = 0.001  # per control step


def _start(lockstep: bool, server: list[str], logs: Path) -> Iterator[Deployment]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(1 + (os.getpid() + lockstep) % 100))
        # For a checkout that is not installed: a script finds only what lies beside it.
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        with Deployment(server, lockstep=lockstep, logs=logs) as deployment:
            yield deployment


@pytest.fixture(scope="module")
def lockstep(tmp_path_factory):
    yield from _start(True, SERVER, tmp_path_factory.mktemp("lockstep"))


@pytest.fixture(scope="module")
def realtime(tmp_path_factory):
    server = [*SERVER, "--delay", str(DELAY_S)]
    yield from _start(False, server, tmp_path_factory.mktemp("realtime"))


def _lift() -> ChunkWrapper:
    return ChunkWrapper(find_task("lift").make, LIFT, LIFT.chunk)


class Rogue:
    """A stranger on the chunk topic, in a thread of its own."""

    def __init__(self, topic: str, message: JointTrajectory):
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("rogue", context=self._context)
        self._publisher = self._node.create_publisher(JointTrajectory, topic, COMMAND_QOS)
        self._message, self._stop = message, threading.Event()
        self._thread = threading.Thread(target=self._shout)

    def _shout(self) -> None:
        while not self._stop.wait(0.005):
            self._publisher.publish(self._message)

    def __enter__(self) -> Rogue:
        self._thread.start()
        deadline = time.monotonic() + 20.0
        while not self._publisher.get_subscription_count():
            assert time.monotonic() < deadline, "nobody hears the rogue"
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)


def test_deployment_in_lockstep_episodes_are_those_of_rollout(lockstep):
    seeds = [0, 3, 1]
    policy = lift_by_script.LiftByScript()
    env = SyncVectorEnv([_lift], autoreset_mode=AutoresetMode.DISABLED)
    offline = rollout(cast("ChunkEnv", env), policy, PriorSteerer(), seeds)
    env.close()
    deployed = [lockstep.episode(s) for s in seeds]
    assert [(e.success, e.steps) for e in deployed] == [(e.success, e.length) for e in offline]
    assert all(e.success for e in deployed)
    report = lockstep.report(deployed)
    assert report.successes == 3
    assert report.inference_ms["count"] >= sum(len(e.chunk_starts) for e in offline)
    assert float(report.gate["chunk_ms.p50"]) > 0


def test_fault_13_gate_killed_the_robot_holds_by_itself(lockstep):
    lockstep.begin(2)
    _until(lockstep, lambda s: s["commanded"] >= 4)
    os.kill(lockstep.processes.pid("gate"), signal.SIGKILL)
    before = lockstep.status()["held"]
    status = _until(lockstep, lambda s: s["held"] >= before + 3)
    assert status["commanded"] < 40
    with pytest.raises(ProcessDied, match="gate"):
        lockstep.console.spin()


def test_deployment_in_real_time_rogue_nonfinite_chunks_are_refused(realtime):
    assert realtime.spec is not None
    poison = np.full((8, 4), np.nan)
    names, frame = realtime.spec.action_names, realtime.contract.frame
    with Rogue("/robopolicy/policy/chunk", to_trajectory(names, poison, 1, frame, 0.05)):
        episode = realtime.episode(0)
    report = realtime.report([episode])
    assert int(report.gate["refused.CHUNK_NONFINITE"]) > 0
    assert episode.ended in ("success", "horizon")
    assert episode.steps > 8


@pytest.mark.parametrize("commanded", [0, 10])
def test_deployment_policy_server_held_up_the_episode_goes_on(realtime, commanded):
    server = realtime.processes.pid("server")
    realtime.begin(3)
    _until(realtime, lambda s: s["commanded"] >= commanded)
    os.kill(server, signal.SIGSTOP)
    stopped = realtime.status()["commanded"]
    try:
        time.sleep(0.5)
    finally:
        os.kill(server, signal.SIGCONT)
    # What is left of one chunk, and one that was on its way, could be played without it; not a third.
    _until(realtime, lambda s: s["commanded"] > stopped + 2 * realtime.spec.chunk)
    realtime.console.engage(False)


def test_deployment_begun_again_during_an_inference_goes_on_anew(realtime):
    for i in range(6):
        realtime.begin(i)
        time.sleep(0.03 * i)
        realtime.console.engage(False)
        realtime.begin(3)
        _until(realtime, lambda s: s["commanded"] >= realtime.spec.chunk)
        realtime.console.engage(False)


def test_deployment_policy_server_killed_the_arm_is_held_in_time(realtime):
    realtime.begin(3)
    _until(realtime, lambda s: s["commanded"] >= 10)
    os.kill(realtime.processes.pid("server"), signal.SIGKILL)
    killed = time.monotonic()
    trace = []
    serial = 0
    while time.monotonic() < killed + 1.0:
        status = realtime._plant.request("wait", after=serial, within_s=0.2)
        serial = status["serial"]
        trace.append((time.monotonic() - killed, status["commanded"], status["state"][:3]))
    obeyed = [t for t, commanded, _ in trace if commanded < trace[-1][1]]
    assert max(obeyed, default=0.0) < HELD_WITHIN_S
    steps = [(began, float(np.linalg.norm(b - a))) for (began, _, a), (_, _, b) in itertools.pairwise(trace)]
    assert all(size < STILL_M for began, size in steps if began > HELD_WITHIN_S), steps
    with pytest.raises(ProcessDied, match="server"):
        realtime.console.spin()
    realtime.console._watch = lambda: None
    realtime.console.wait(lambda: realtime.console.state == "FAULT:POLICY_LOST", 5.0, "the fault")


def _until(deployment: Deployment, condition) -> dict:
    deadline = time.monotonic() + 20.0
    while not condition(status := deployment.status()):
        assert time.monotonic() < deadline, status
        time.sleep(0.002)
    return status


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"policy": Path("/nowhere")}, "policy"),
        ({"policy": Path(), "steerer": Path("/nowhere")}, "steerer"),
        ({"policy": Path(), "episodes": 0}, "episodes"),
        ({"policy": Path(), "robot": "pandaa"}, "robot"),
    ],
)
def test_deploy_bad_input_refused_before_anything_starts(arguments, field):
    with pytest.raises(BadInput, match=field):
        deploy(**arguments)
