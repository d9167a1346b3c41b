"""An arm that is driven by time, over DDS: mock arm, gate, policy node and a scripted server."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

import reach_by_script  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402

from robopolicy.cli import main as robopolicy  # noqa: E402
from robopolicy.errors import BadInput  # noqa: E402
from robopolicy.rollout import PriorSteerer  # noqa: E402
from robopolicy.serve import PolicyService  # noqa: E402
from robopolicy.wire import decode  # noqa: E402
from ros_nodes.console import NotGranted  # noqa: E402
from ros_nodes.deploy import Deployment  # noqa: E402
from ros_nodes.gate_log import _calls  # noqa: E402
from ros_nodes.layouts import foxglove_layout  # noqa: E402
from ros_nodes.logs import read_log, replay_gate, replay_policy, shadow_errors, to_episodes  # noqa: E402
from ros_nodes.running import COMMAND_QOS  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.realtime, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
BOUNDS = reach_by_script.ARM.driven.drive.bounds
REST_S = 0.3


class Listener:
    """A log of every command with its time, beside the deployment's own console."""

    def __init__(self, deployment: Deployment, topic: str):
        self.commands: list[tuple[float, np.ndarray]] = []
        self._console = deployment.console
        self._console._node.create_subscription(Float64MultiArray, topic, self._note, COMMAND_QOS)

    def _note(self, message: Float64MultiArray) -> None:
        self.commands.append((time.monotonic(), np.array(message.data)))

    def spin(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._console._executor.spin_once(timeout_sec=0.005)


@contextmanager
def _deployed(folder: Path, number: int, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(1 + (os.getpid() + number) % 100))
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        server = [reach_by_script.__file__]
        with Deployment(server, "so101", mock=True, record=folder / "log", **options) as deployment:
            yield deployment


def _until_moving(deployment: Deployment, listener: Listener) -> None:
    deadline, began = time.monotonic() + 20.0, len(listener.commands)
    while len(listener.commands) < began + 12 or not _moves(listener.commands):
        assert time.monotonic() < deadline, deployment.console.state
        listener.spin(0.01)


def _moves(commands: list[tuple[float, np.ndarray]]) -> bool:
    return bool(np.abs(commands[-1][1] - commands[-2][1]).max() > 1e-3)


def _moved_until(listener: Listener, since: float) -> float:
    """Seconds after `since` at which a command last differed from the one before."""
    after = [(t - since, c) for t, c in listener.commands if t > since - 0.1]
    pairs = zip(after[1:], after[:-1], strict=True)
    return max([t for (t, c), (_, b) in pairs if np.abs(c - b).max() > 1e-6], default=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("timed")


@pytest.fixture(scope="module")
def looked():
    """What an operator was shown: state and diagnostics of the gate."""
    return []


@pytest.fixture(scope="module")
def deployed(folder, looked):
    with _deployed(folder, 50, on_look=lambda *seen: looked.append(seen)) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def listener(deployed):
    return Listener(deployed, "forward_position_controller/commands")


def test_timed_arm_is_brought_to_the_goal(deployed, listener):
    episode = deployed.episode(0)
    assert (episode.ended, episode.success) == ("horizon", False)
    path = np.array([c for _, c in listener.commands])
    goal = np.clip(np.deg2rad(reach_by_script.GOAL), BOUNDS.low, BOUNDS.high)
    assert np.allclose(path[-1], goal, atol=0.01)
    assert int(deployed.report([episode]).gate["played"]) > 100


def test_timed_arm_shows_its_operator_how_old_and_how_many_its_inputs_are(deployed, looked):
    begun = len(looked)
    deployed.episode(2)
    seen = [values for state, values in looked[begun:] if state.startswith("RUNNING") and values]
    assert max(int(v["state_per_s"]) for v in seen) > reach_by_script.ARM.fps / 2
    assert all(0 <= int(v["state_age_ms"]) < 1000 for v in seen)
    assert any(0 <= int(v["chunk_age_ms"]) < 1000 for v in seen if "chunk_age_ms" in v)


def test_timed_arm_operator_says_it_has_succeeded(deployed):
    timer = threading.Timer(1.0, lambda: deployed.console.__setattr__("succeeded", True))
    timer.start()
    episode = deployed.episode(1)
    assert (episode.ended, episode.success) == ("success", True)


def test_fault_12_policy_server_killed_arm_rests_in_time_and_faults(deployed, listener):
    deployed.begin(2)
    _until_moving(deployed, listener)
    os.kill(deployed.processes.pid("server"), signal.SIGKILL)
    killed = time.monotonic()
    deployed.console._watch = lambda: None
    listener.spin(1.0)
    assert _moved_until(listener, killed) < 2 * REST_S  # a busy machine takes as long to tell
    assert listener.commands[-1][0] - killed > 0.9
    deployed.console.wait(lambda: deployed.console.state == "FAULT:POLICY_LOST", 5.0, "the fault")


def test_timed_arm_log_plays_again_and_becomes_episodes(deployed, folder):
    deployed.processes.stop(("gate",), ("policy", "mock_arm"), ("recorder",))
    log = read_log(folder / "log")
    assert replay_gate(log) > 500
    _keeps_speed_and_acceleration(bytes(m.data) for m in log.of("gate/events"))
    assert robopolicy(["replay", "--log", str(folder / "log"), "--page", str(folder / "page.html")]) == 0
    page = (folder / "page.html").read_text()
    assert "FAULT" in page
    assert page.count("<svg") == 7
    assert robopolicy(["replay", "--log", str(folder / "log"), "--rerun", str(folder / "log.rrd")]) == 0
    assert (folder / "log.rrd").read_bytes()[:4] == b"RRF2"
    _layout_names_what_is_in(log)
    _chunks_go_on_from_those_before(log)
    first, *_ = to_episodes(log)
    assert abs(first.length - reach_by_script.SPEC.horizon) < 8
    assert np.allclose(first.actions[-1], reach_by_script.GOAL, atol=0.5)
    # What was commanded until the next state is where the arm then is, but for its lag, and for a process
    # that was held up now and then.
    assert np.quantile(np.abs(first.states[1:] - first.actions), 0.9) < 2.0


def _chunks_go_on_from_those_before(log) -> None:
    """Real-time chunking: the first steps of a chunk are what the one before said of them."""
    policy = PolicyService(reach_by_script.ReachByScript(), PriorSteerer(), 0)
    session = {name: handler.answer for name, handler in policy.connect().items()}
    asked = [decode(bytes(m.data)[4:]) for m in log.of("policy/asked")]
    assert replay_policy(log, session) == len(asked)
    joined = [(a, b) for a, b in itertools.pairwise(asked) if b.get("since")]
    assert len(joined) > 5
    for before, after in joined:
        late = min(after["late"], len(after["chunk"]) - after["since"])
        assert np.array_equal(after["chunk"][:late], before["chunk"][after["since"] :][:late])


def _layout_names_what_is_in(log) -> None:
    """Each path of the Foxglove layout leads to a number, or a text, in a message of the log."""
    latest = {topic: message for topic, _, message in log.messages}
    panels = foxglove_layout(log.contract)["configById"]
    paths = [line["value"] for p in panels.values() for line in p.get("paths", ())]
    assert len(paths) == len(log.contract.action_names) + len(log.contract.elements) + 1
    for path in paths:
        topic, _, inside = path.removeprefix("/robopolicy/").partition(".")
        value = eval(f"m.{inside}", {"m": latest[topic]})
        assert isinstance(value, str) or np.isfinite(value)


def _keeps_speed_and_acceleration(batches) -> None:
    """By the gate's own clock: mean speeds of two intervals differ by no more than the limit allows."""
    longest, path = 2 / reach_by_script.ARM.driven.drive.rate, []
    for batch in batches:
        for _, name, args, answer in _calls(batch):
            if name == "engage":
                path = []
            elif name == "tick" and answer[2] is not None:
                path.append((args[0], np.array(answer[2])))
                if len(path) >= 3:
                    (t0, a), (t1, b), (t2, c) = path[-3:]
                    first, second = min(t1 - t0, longest), min(t2 - t1, longest)
                    assert (np.abs(c - b) <= BOUNDS.speed * second * (1 + 1e-6)).all()
                    bend = np.abs((c - b) / second - (b - a) / first) / ((first + second) / 2)
                    assert (bend <= BOUNDS.acceleration * (1 + 1e-6)).all()


def _ended_once_the_dead_are_forgotten(deployment: Deployment, seed: int) -> str:
    """How an episode ends.

    DDS takes who was killed for alive for some time: a second publisher, a service or a request for a chunk
    that nobody answers.
    """
    deadline, ended = time.monotonic() + 60.0, "not begun"
    while ended != "horizon" and time.monotonic() < deadline:
        try:
            ended = deployment.episode(seed).ended
        except NotGranted as e:
            ended = str(e)
    return ended


@pytest.fixture(scope="module")
def robust(tmp_path_factory):
    with _deployed(tmp_path_factory.mktemp("robust"), 70) as deployment:
        yield deployment, Listener(deployment, "forward_position_controller/commands")


@pytest.mark.parametrize(
    ("name", "within_s", "then"),
    [
        # Its heartbeat is missed after 0.2 s, the state after 0.1 s; then the quickest stop. The rest is what
        # a busy machine may take to tell.
        ("policy", 0.4 + REST_S, "HOLD:POLICY_LOST"),
        ("mock_arm", 0.3 + REST_S, "HOLD:NO_STATE"),
        ("gate", 0.2, ""),
    ],
)
def test_timed_arm_node_killed_it_rests_and_a_new_node_goes_on(robust, name, within_s, then):
    deployment, listener = robust
    deployment.begin(0)
    _until_moving(deployment, listener)
    watch, deployment.console._watch = deployment.console._watch, lambda: None
    os.kill(deployment.processes.pid(name), signal.SIGKILL)
    killed = time.monotonic()
    seen = set()
    while time.monotonic() < killed + 1.5:
        listener.spin(0.02)
        seen.add(deployment.console.state)
    assert _moved_until(listener, killed) < within_s
    assert not then or then in seen
    deployment._start_node(name, **({"server": deployment.server_address} if name == "policy" else {}))
    deployment.console._watch = watch
    assert _ended_once_the_dead_are_forgotten(deployment, 1) == "horizon"


def test_timed_arm_in_the_shadow_stays_and_what_would_have_been_is_compared(tmp_path):
    with _deployed(tmp_path, 60, shadow=True) as deployment:
        obeyed = Listener(deployment, "forward_position_controller/commands")
        shadowed = Listener(deployment, "shadow/forward_position_controller/commands")
        assert deployment.episode(0).ended == "horizon"
        assert obeyed.commands == []
        assert len(shadowed.commands) > 100
    log = read_log(tmp_path / "log")
    assert replay_gate(log) > 500
    errors = shadow_errors(log)
    assert set(errors) == set(reach_by_script.ARM.action_names)
    # The policy goes on by one degree per step, the arm stands where it was.
    pan = errors["shoulder_pan.target"]
    assert np.allclose(np.diff(pan), 1.0, atol=0.05)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"robot": "panda_sim", "mock": True}, "mock"),
        ({"robot": "panda_sim", "shadow": True}, "shadow"),
        ({"robot": "so101", "lockstep": True}, "lockstep"),
    ],
)
def test_deployment_of_an_arm_that_cannot_is_refused(options, field):
    with pytest.raises(BadInput, match=field):
        Deployment([], **options)
