"""Deployment without `ros2 launch`: starts policy server and nodes, runs episodes, stops in order.

    plant <--socket--> arm node <==DDS==> gate node <==DDS==> policy node <--socket--> policy server

Instead of the simulated arm there may be a mock of one, or a real one whose drivers run already. Each is a
process of its own. Nothing is restarted: if one dies the gate holds, and the run fails with the
end of its log. ROS is imported only when a deployment begins.
"""

from __future__ import annotations

import dataclasses
import os
import select
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from robopolicy.errors import BadInput, Interrupted
from robopolicy.keys import key_of, unlock
from robopolicy.processes import Processes
from robopolicy.seeding import episode_seed
from robopolicy.spec import Spec
from robopolicy.wire import Client, Message, dial
from ros_nodes.contract import Contract

if TYPE_CHECKING:
    from ros_nodes.console import Console

_STARTUP_S = 90.0
_JUMP_S = 0.3
_SLACK_S = 15.0  # wall-clock an episode may take beyond three times its simulated length
_STOP_ORDER = (("gate",), ("policy", "arm", "mock_arm"), ("recorder",), ("server", "plant"))


@dataclass(frozen=True)
class EpisodeReport:
    """One deployed episode.

    Attributes:
        seed: of the environment and of the policy's noise.
        success: whether the task was achieved within the horizon.
        ended: "success", "horizon", "time", or the gate's state, such as "FAULT:POLICY_LOST".
        steps: commands of the policy that the arm carried out.
        held: control steps in which the arm held.
        late: commands that came after their control step.
        seconds: wall-clock time.
    """

    seed: int
    success: bool
    ended: str
    steps: int
    held: int
    late: int
    seconds: float


@dataclass(frozen=True)
class DeployReport:
    """What a deployment did.

    Attributes:
        episodes: one per seed.
        inference_ms: policy server: count, p50_ms, p99_ms.
        gate: last diagnostics of the gate: counts, and p50 and p99 in ms of `chunk_ms` (age of the
            observation when its chunk arrives), `answer_ms` (state in to command out) and `period_error_ms`
            (how far its own ticks are from their rate).
    """

    episodes: tuple[EpisodeReport, ...]
    inference_ms: dict[str, float]
    gate: dict[str, str]

    @property
    def successes(self) -> int:
        return sum(e.success for e in self.episodes)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Deployment:
    """The processes, as a context manager.

    Args:
        server: arguments of Python that start a policy server, without its address.
        robot: path or name of a contract.
        lockstep: simulated time waits for the policy; otherwise it is real time.
        namespace: of the nodes.
        logs: folder for the logs of the processes; a temporary one by default.
        record: new folder for a log of all messages, if one is wanted.
        mock: rehearse with a mock of the arm.
        shadow: someone else drives the arm; commands are published beside where they would have gone.
        stop: set to interrupt.
        clock: monotonic seconds.
        on_look: called often with the gate's mode and reason, and its latest diagnostics.
    """

    def __init__(
        self,
        server: Sequence[str],
        robot: str | Path = "panda_sim",
        lockstep: bool = False,
        namespace: str = "robopolicy",
        logs: Path | None = None,
        record: Path | None = None,
        mock: bool = False,
        shadow: bool = False,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_look: Callable[[str, Mapping[str, str]], None] = lambda *_: None,
    ):
        if find_spec("rclpy") is None:
            wanted = "ROS 2: pip install 'robopolicy[ros]', or a sourced installation"
            raise BadInput("deploy", wanted, "no rclpy")
        self.contract = Contract.load(robot)
        by_time = self.contract.driven is not None
        for name, asked in (("mock", mock), ("shadow", shadow)):
            if asked and not by_time:
                raise BadInput(name, "a robot that is driven by time (the field drive)", robot)
        if self.contract.simulation is None and not by_time:
            raise BadInput("robot", "a contract with the field simulation or drive", robot)
        if lockstep and self.contract.simulation is None:
            raise BadInput("lockstep", "a simulated robot", robot)
        self._mock, self._shadow = mock, shadow
        self._server_command, self._robot, self._lockstep = list(server), str(robot), lockstep
        self._namespace, self._stop, self._clock = namespace, stop or threading.Event(), clock
        self._on_look = on_look
        self._folder = tempfile.TemporaryDirectory(prefix="robopolicy-")
        self._logs, self._record = logs or Path(self._folder.name), record
        if record is not None and record.exists():
            raise BadInput("record", "a new folder", f"{record} (exists)")
        self.plant_address = str(Path(self._folder.name) / "plant.sock")
        self.server_address = str(Path(self._folder.name) / "server.sock")
        # Loopback only, unless the user has decided otherwise.
        env = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "OMP_NUM_THREADS": "1", **os.environ}
        self.processes = Processes(self._logs, env)
        self._console: Console | None = None
        self._clients: list[Client] = []
        self._plant: Client | None = None
        self.spec: Spec | None = None

    @property
    def console(self) -> Console:
        assert self._console is not None, "the deployment has not been started"
        return self._console

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        simulation = self.contract.simulation
        self._logs.mkdir(parents=True, exist_ok=True)
        if simulation is not None:
            plant = ["-m", "sim.plant", "--task", simulation.task, "--timeout", str(simulation.timeout_s)]
            plant += ["--address", self.plant_address, *(["--lockstep"] if self._lockstep else [])]
            self.processes.start("plant", plant)
        self.processes.start("server", [*self._server_command, "--address", self.server_address])
        self._server = unlock(self._connect(self.server_address), key_of(os.environ))
        policy = Spec.from_dict(self._server.request("hello")["spec"])
        if simulation is not None:
            self._plant = self._connect(self.plant_address)
            Spec.from_dict(self._plant.request("hello")["spec"]).require(policy, "policy")
        self.contract.check_spec(policy)
        self.spec = policy
        if self._record is not None:
            self._start_node("recorder", out=str(self._record))
        self._start_node("gate")
        if simulation is not None:
            self._start_node("arm", plant=self.plant_address)
        elif self._mock:
            self._start_node("mock_arm")
        self._start_node("policy", server=self.server_address)
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        from ros_nodes.console import Console

        arm = simulation is not None or self._mock
        self._console = Console(self._namespace, self._watch, self._record is not None, arm, self._clock)
        self._console.wait_ready(_STARTUP_S)

    def _start_node(self, name: str, **parameters: str) -> None:
        flags = {"lockstep": self._lockstep, "shadow": self._shadow}
        parameters |= {"contract": self._robot, **{k: str(v).lower() for k, v in flags.items()}}
        flags = [x for k, v in parameters.items() for x in ("-p", f"{k}:={v}")]
        flags += ["-r", f"__ns:=/{self._namespace}"]
        self.processes.start(name, ["-m", f"ros_nodes.{name}_node", "--ros-args", *flags])

    def _connect(self, address: str) -> Client:
        client = dial(address, self._stop, _STARTUP_S, 5.0, self._watch, self._clock)
        self._clients.append(client)
        return client

    def _watch(self) -> None:
        if self._stop.is_set():
            raise Interrupted("interrupted; the arm was told to hold")
        self.processes.require_alive()
        if self._console is not None:
            self._on_look(self._console.state, self._console.diagnostics)

    def restart_server(self) -> None:
        """A new policy server in place of one that has died; the next `begin` makes the node find it.

        No other process may be replaced: it knows nothing of the arm, and the gate holds until someone begins
        anew.
        """
        self.processes.start("server", [*self._server_command, "--address", self.server_address])
        self._server = unlock(self._connect(self.server_address), key_of(os.environ))

    def status(self) -> Message:
        """What the plant says about a simulated arm."""
        assert self._plant is not None, "no simulated arm"
        return self._plant.request("wait", after=0, within_s=0.0)

    def begin(self, seed: int) -> None:
        """Puts policy, and an arm that is not real, at the start of an episode and engages the gate."""
        self.console.clear_fault()
        if self._plant is not None or self._mock:
            self.console.reset("arm", seed)
        if self._mock:
            # It has jumped, as no arm does: who is engaged before that is known begins in the wrong place,
            # and what is said before then it does not hear.
            until = self._clock() + _JUMP_S
            while self._clock() < until:
                self.console.spin()
        self.console.reset("policy", seed)
        self.console.engage(True)

    def episode(self, seed: int) -> EpisodeReport:
        """Runs one episode to its end and disengages."""
        assert self.spec is not None
        if self._plant is None:
            return self._watched(seed, self.spec)
        began = self._clock()
        self.begin(seed)
        deadline = self._clock() + 3 * self.spec.horizon / self.spec.fps + _SLACK_S
        ended = ""
        status = self.status()
        while not ended:
            self.console.spin()
            status = self.status()
            if status["success"]:
                ended = "success"
            elif status["commanded"] >= self.spec.horizon:
                ended = "horizon"
            elif self.console.state.startswith("FAULT"):
                ended = self.console.state
            elif self._clock() > deadline:
                ended = "time"
        self.console.engage(False)
        # In lockstep the arm may have moved on between success and our noticing it.
        success = 0 < status["success_at"] <= self.spec.horizon
        steps = status["success_at"] if success else min(status["commanded"], self.spec.horizon)
        return EpisodeReport(
            seed=seed,
            success=success,
            ended="horizon" if ended == "success" and not success else ended,
            steps=steps,
            held=status["held"],
            late=status["late"],
            seconds=self._clock() - began,
        )

    def _watched(self, seed: int, spec: Spec) -> EpisodeReport:
        """An episode of an arm that is not simulated: it lasts until someone says that it has succeeded."""
        began = self._clock()
        self.begin(seed)
        deadline, ended = self._clock() + spec.horizon / spec.fps, ""
        while not ended:
            self.console.spin()
            if self.console.succeeded:
                ended = "success"
            elif self.console.state.startswith("FAULT"):
                ended = self.console.state
            elif self._clock() > deadline:
                ended = "horizon"
        self.console.engage(False)
        seconds = self._clock() - began
        return EpisodeReport(seed, ended == "success", ended, round(seconds * spec.fps), 0, 0, seconds)

    def report(self, episodes: Sequence[EpisodeReport]) -> DeployReport:
        """Sums up; waits for one more message of the gate's diagnostics."""
        self.console.diagnostics = {}
        self.console.wait(lambda: bool(self.console.diagnostics), 5.0, "gate diagnostics")
        stats = {k: v for k, v in self._server.request("stats").items() if k != "kind"}
        return DeployReport(tuple(episodes), stats, self.console.diagnostics)

    def close(self) -> None:
        """Stops the gate first, whose last word is hold, and the rest after it."""
        if self._console is not None:
            self._console.close()
            self._console = None
        self.processes.stop(*_STOP_ORDER)
        for client in self._clients:
            client.close()
        self._folder.cleanup()


def deploy(
    policy: Path,
    steerer: Path | None = None,
    foresight: Path | None = None,
    robot: str | Path = "panda_sim",
    episodes: int = 1,
    seed: int = 0,
    lockstep: bool = False,
    logs: Path | None = None,
    record: Path | None = None,
    mock: bool = False,
    shadow: bool = False,
    stop: threading.Event | None = None,
    before_episode: Callable[[int], None] | None = None,
    on_episode: Callable[[EpisodeReport], None] = lambda _: None,
    on_look: Callable[[str, Mapping[str, str]], None] = lambda *_: None,
) -> DeployReport:
    """Drives an arm over ROS 2 with a saved policy: simulated, a mock, or real, its drivers running already.

    Args:
        policy: saved policy.
        steerer: saved steerer of that policy, if any.
        foresight: saved world model, if plans are to begin where it says that the robot will be.
        robot: path or name of a robot contract.
        episodes: how many.
        seed: master seed; episodes use its "deploy" stage, which is used for nothing else.
        lockstep: simulated time waits for the policy, so that episodes are those of `evaluate`.
        logs: folder for the logs of the processes.
        record: new folder for a log of all messages.
        mock: rehearse with a mock of the arm.
        shadow: only look at what the policy would do, while someone else drives.
        stop: set to interrupt.
        before_episode: called with its number before each is engaged; by default a real arm waits for Enter.
        on_episode: called as each ends.
        on_look: called often with the gate's mode and reason, and its latest diagnostics.

    Raises:
        BadInput: if ROS 2 is missing, or policy and robot do not fit each other.
        RoboPolicyError: if a process died or did not answer; its log's end is in the message.
    """
    artefacts = {"policy": policy, "steerer": steerer, "foresight": foresight}
    for name, folder in artefacts.items():
        if folder is not None and not folder.is_dir():
            raise BadInput(name, f"a {name} directory", folder)
    if episodes < 1:
        raise BadInput("episodes", "at least 1", episodes)
    server = ["-m", "robopolicy.cli", "serve"]
    for name, folder in artefacts.items():
        server += [f"--{name}", str(folder)] if folder else []
    stop = stop or threading.Event()
    if before_episode is None and not mock and Contract.load(robot).simulation is None:
        before_episode = partial(_wait_for_enter, shadow, stop)
    options: dict[str, Any] = {"logs": logs, "record": record, "mock": mock, "shadow": shadow, "stop": stop}
    options |= {"on_look": on_look}
    with Deployment(server, robot, lockstep, **options) as deployment:
        reports = []
        for i in range(episodes):
            if before_episode is not None:
                before_episode(i)
            reports.append(deployment.episode(episode_seed(seed, "deploy", i)))
            on_episode(reports[-1])
        return deployment.report(reports)


def _wait_for_enter(shadow: bool, stop: threading.Event, number: int) -> None:
    doing = "begins to look on" if shadow else "takes the arm: stand clear, a hand on the emergency stop"
    print(f"episode {number + 1}: with Enter the policy {doing}", file=sys.stderr, flush=True)
    while not select.select([sys.stdin], [], [], 0.2)[0]:
        if stop.is_set():
            raise Interrupted("interrupted; the arm was not engaged")
    if not sys.stdin.readline():
        raise BadInput("Enter", "an operator at the terminal", "the end of standard input")
