"""A deployment is recorded: others can read it, it plays again bit for bit, and becomes episodes."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("robosuite")

import lift_by_script
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from mcap_ros2.reader import read_ros2_messages

from robopolicy.cli import main as robopolicy
from robopolicy.data.episodes import dataset_info, load_episodes
from robopolicy.errors import BadInput
from robopolicy.policies.load import load_policy
from robopolicy.protocols import ChunkEnv
from robopolicy.rollout import PriorSteerer, rollout
from robopolicy.serve import PolicyService
from robopolicy.wire import decode, encode
from ros_nodes.deploy import Deployment
from ros_nodes.logs import read_log, replay_gate, replay_policy, to_episodes
from sim.tasks import LIFT, find_task
from sim.vector import ChunkWrapper

pytestmark = [pytest.mark.ros, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SEEDS = (0, 3)
DISTURBED = ("server", "recorder")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded") / "log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(1 + (os.getpid() + 25) % 100))
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        with (
            Deployment([lift_by_script.__file__], lockstep=True, record=folder) as deployment,
            _standing_still_now_and_then([deployment.processes.pid(name) for name in DISTURBED]),
        ):
            for seed in SEEDS:
                deployment.episode(seed)
    return folder


@contextmanager
def _standing_still_now_and_then(pids: list[int]):
    """One after another, as on a busy machine. In lockstep, time waits for them."""
    ended = threading.Event()

    def disturb() -> None:
        for pid in itertools.cycle(pids):
            if ended.wait(0.2):
                break
            os.kill(pid, signal.SIGSTOP)
            ended.wait(0.3)
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _session(delay: float = 0.0):
    service = PolicyService(lift_by_script.LiftByScript(delay), PriorSteerer(), 0)
    return {name: handler.answer for name, handler in service.connect().items()}


def test_log_played_again_gives_the_same_calls_and_chunks(recorded):
    log = read_log(recorded)
    assert replay_gate(log) > 300
    assert replay_policy(log, _session()) >= 10
    assert robopolicy(["replay", "--log", str(recorded)]) == 0


def test_log_of_another_policy_is_noticed(recorded):
    log, session = read_log(recorded), _session()
    other = dict(session)
    other["act"] = lambda **asked: {"chunk": session["act"](**asked)["chunk"] + 1e-7}
    with pytest.raises(BadInput, match="question 0"):
        replay_policy(log, other)


def test_log_becomes_the_episodes_that_evaluation_would_have_run(recorded):
    def lift() -> ChunkWrapper:
        return ChunkWrapper(find_task("lift").make, LIFT, LIFT.chunk)

    env = SyncVectorEnv([lift], autoreset_mode=AutoresetMode.DISABLED)
    offline = rollout(cast("ChunkEnv", env), lift_by_script.LiftByScript(), PriorSteerer(), list(SEEDS))
    env.close()
    deployed = to_episodes(read_log(recorded))
    assert [e.seed for e in deployed] == list(SEEDS)
    for ours, theirs in zip(deployed, offline, strict=True):
        assert ours.success
        n = theirs.length
        # The gate's chunk goes on until success has been noticed.
        assert ours.length >= n
        # Later on what rounding the quaternion does has grown, and the gate has kept to the workspace.
        assert np.allclose(ours.states[:14], theirs.states[:14], atol=1e-4)
        assert np.allclose(ours.actions[:14], theirs.actions[:14], atol=1e-4)
        assert int(ours.achieved.argmax()) + 1 == n


def test_log_of_an_earlier_version_is_not_converted(recorded):
    log = read_log(recorded)
    asked = [dict(decode(bytes(m.data)[4:])) for m in log.of("policy/asked")]
    older = [{k: v for k, v in question.items() if k != "stamp"} for question in asked]
    messages = [("policy/asked", 0, SimpleNamespace(data=encode(question))) for question in older]
    with pytest.raises(BadInput, match="stamp"):
        to_episodes(dataclasses.replace(log, messages=messages))


def test_log_is_read_by_others(recorded):
    (file,) = recorded.glob("*.mcap")
    seen = {}
    for message in read_ros2_messages(str(file)):
        seen[message.channel.topic] = seen.get(message.channel.topic, 0) + 1
    assert seen["/robopolicy/joint_states"] > 50
    assert seen["/robopolicy/command"] > 50
    assert seen["/robopolicy/success"] == 2
    assert "ros2" in file.read_bytes()[:200].decode("latin1")


def test_convert_log_becomes_a_dataset_that_a_policy_is_trained_on(recorded, tmp_path):
    assert robopolicy(["convert", "--source", str(recorded), "--out", str(tmp_path / "data")]) == 0
    episodes = load_episodes([tmp_path / "data"])
    assert [e.success for e in episodes] == [True, True]
    assert {e.source for e in episodes} == {"robot"}
    train = ["train", "--dataset", str(tmp_path / "data"), "--preset", "tiny", "--steps", "5"]
    assert robopolicy([*train, "--out", str(tmp_path / "policy")]) == 0
    assert load_policy(tmp_path / "policy").spec == dataset_info(tmp_path / "data")[0]


def test_log_cut_off_or_missing_is_refused(recorded, tmp_path):
    with pytest.raises(BadInput, match="ended in order"):
        read_log(tmp_path)
    with pytest.raises(BadInput, match="record"):
        Deployment([], record=recorded)
    assert robopolicy(["replay", "--log", str(tmp_path)]) == 2
