"""Asks the policy server for a chunk whenever the gate wants one; never touches the arm.

It collects the last T states, aligned by stamp, and answers a request with a chunk for the first state that
is newer than the request. A second thread pings the server: while it answers, a heartbeat with the server's
epoch goes to the gate; when it stops, an empty chunk tells the gate at once.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
from array import array
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from std_msgs.msg import Header, String, UInt8MultiArray, UInt64
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from robopolicy.errors import BadInput
from robopolicy.keys import key_of, unlock
from robopolicy.spec import Spec
from robopolicy.wire import Client, WireError, encode
from ros_nodes.contract import Stream
from ros_nodes.convert import MESSAGES, to_trajectory
from ros_nodes.parse import from_message, stamp_to_ns
from ros_nodes.running import COMMAND_QOS, EVENT_QOS, LATCHED_QOS, RobotNode, run

_PING_EVERY_S = 0.05
# Of the gate's patience with heartbeats: a server that takes longer than this share of it is lost.
_PING_SHARE = 0.75
_RETRY_S = 0.2
_ANSWER_TIMEOUT_S = 2.0
_WARN_EVERY_S = 1.0
# Answers of which the slowest says how late the next one will be.
_REMEMBERED = 20


@dataclass(frozen=True)
class _Job:
    """One question to the server: observation (T, D), the stamp of its newest state, episode and step.

    `since` control steps after the state that the chunk which is being executed was for; 0 if there is none
    to go on from. The answer takes about `late` of them.
    """

    obs: np.ndarray
    stamp_ns: int
    seed: int
    step: int
    since: int
    late: int

    @property
    def question(self) -> dict[str, Any]:
        """What the server is asked, besides the kind of question."""
        joined = {"since": self.since, "late": self.late} if self.since else {}
        return {"obs": self.obs, "step": self.step, **joined}


class PolicyNode(RobotNode):
    """Observations in, chunks out.

    Topics in: those of the contract's state, `gate/request`. Topics out: `~/chunk`, `~/heartbeat`, `~/spec`
    (latched), `~/asked` (each question to the server with its answer, for the log). Service: `~/reset`, which
    begins the episode of the parameter `seed`.
    """

    def __init__(self, stop: threading.Event):
        super().__init__("policy", stop)
        self._declare("server", "", "socket of robopolicy.serve", read_only=False)
        self.declare_seed()

    def _configure(self) -> None:
        self._address, self._key = self.text("server"), key_of(os.environ)
        self._server: Client | None = None
        self._spec: Spec | None = None
        self._observer = self.contract.observer(self.contract.elements)
        self._request: int | None = None
        self._served = -1
        self._step = self._seed = 0
        # An arm that is driven by time goes on while it waits: then a chunk continues the one before. Not in
        # the shadow, where the arm does something else.
        self._in_motion = self.contract.driven is not None and not self.shadow
        self._joins = self._running = False
        self._chunk_stamp: int | None = None
        self._answer_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._chunks = self.create_publisher(JointTrajectory, "~/chunk", COMMAND_QOS)
        self._heartbeat = self.create_publisher(UInt64, "~/heartbeat", COMMAND_QOS)
        self._asked = self.create_publisher(UInt8MultiArray, "~/asked", EVENT_QOS)
        self._specs = self.create_publisher(String, "~/spec", LATCHED_QOS)

    def _activate(self) -> None:
        for s in self.contract.streams:
            self.listen(MESSAGES[s.type], s.topic, partial(self._on_state, s), self.state_qos)
        self.create_subscription(Header, "gate/request", self._on_request, COMMAND_QOS)
        self.create_subscription(String, "gate/state", self._on_mode, LATCHED_QOS)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self._ended = threading.Event()
        self._wake = threading.Condition()
        self._job: _Job | None = None
        self._busy = False
        self._threads = [threading.Thread(target=f, name=f.__name__) for f in (self._work, self._ping)]
        for thread in self._threads:
            thread.start()

    # --- in the executor ------------------------------------------------------------------------

    def _on_state(self, stream: Stream, message: Any) -> None:
        try:
            values = from_message(stream, message, self.contract.frame)
        except BadInput as e:
            self.get_logger().warning(f"state refused: {e}", throttle_duration_sec=_WARN_EVERY_S)
            return
        if self._observer.add(stamp_to_ns(message.header.stamp), values) is not None:
            self._try()

    def _on_mode(self, message: String) -> None:
        self._running = message.data.partition(":")[0] == "RUNNING"

    def _on_request(self, message: Header) -> None:
        stamp = stamp_to_ns(message.stamp)
        with self._wake:
            if stamp != self._served and not self._busy:
                self._request = stamp
        self._try()

    def _try(self) -> None:
        """Hands the newest observation to the worker if the gate waits for an answer to it."""
        newest, history = self._observer.stamp_ns, self._observer.history()
        with self._wake:
            if self._request is None or self._busy or self._server is None:
                return
            if newest is None or newest <= self._request or history is None:
                return
            obs, (since, late) = history.astype(np.float32), self._joint(newest)
            self._job, self._busy = _Job(obs, newest, self._seed, self._step, since, late), True
            self._served, self._request = self._request, None
            self._wake.notify()

    def _joint(self, newest: int) -> tuple[int, int]:
        """`since` and `late` of the next question."""
        if not (self._joins and self._running and self._chunk_stamp is not None):
            return 0, 0
        period = self.contract.timing.period_s
        since = round((newest - self._chunk_stamp) * 1e-9 / period)
        return max(since, 0), math.ceil(max(self._answer_s, default=0.0) / period)

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            client = unlock(Client(self._address, _ANSWER_TIMEOUT_S), self._key)
            hello = client.request("hello")
            spec = Spec.from_dict(hello["spec"])
            self.contract.check_spec(spec)
            seed = self.seed
            client.request("reset", seed=seed)
        except (BadInput, WireError) as e:
            response.message = str(e)
            return response
        with self._wake:
            if self._server is not None:
                self._server.close()  # and with it what it is being asked
            self._server, self._spec, self._step, self._seed = client, spec, 0, seed
            self._request, self._job, self._busy = None, None, False
            self._observer = self.contract.observer(spec.state_names, spec.obs_steps)
            self._joins, self._chunk_stamp = self._in_motion and bool(hello["joins"]), None
        self._specs.publish(String(data=json.dumps(spec.to_dict())))
        response.success = True
        return response

    # --- in threads of their own ----------------------------------------------------------------

    def _work(self) -> None:
        """Asks the server and publishes its chunks."""
        while not self._ended.is_set():
            with self._wake:
                self._wake.wait_for(lambda: self._job is not None or self._ended.is_set())
                job, server, spec = self._job, self._server, self._spec
                self._job = None
            if job is not None and server is not None and spec is not None:
                self._answer(job, server, spec)
            with self._wake:
                self._busy = self._job is not None  # of an episode that has begun meanwhile

    def _answer(self, job: _Job, server: Client, spec: Spec) -> None:
        try:
            began = self.now()
            reply = server.request("join" if job.since else "act", **job.question)
            seconds = self.now() - began
            chunk = np.asarray(reply["chunk"], np.float64)
            if chunk.shape != (spec.chunk, spec.action_dim):
                raise BadInput("chunk", f"shape {(spec.chunk, spec.action_dim)}", chunk.shape)
        except BadInput as e:
            self.get_logger().warning(f"no chunk: {e}", throttle_duration_sec=_WARN_EVERY_S)
            return
        except WireError as e:
            with self._wake:
                if server is not self._server:
                    return  # closed by a reset meanwhile
                self._server = None  # its memory of the episode is gone: only ~/reset helps
            self.get_logger().error(f"policy server: {e}")
            return
        with self._wake:
            if server is not self._server:
                return  # reset meanwhile: this answers an episode that is over
            self._step += spec.chunk
            self._chunk_stamp = job.stamp_ns
            self._answer_s.append(seconds)
            self._busy = False  # in lockstep the next request may come before all of this has been said
        period = self.contract.timing.period_s
        frame = self.contract.frame
        self._chunks.publish(to_trajectory(spec.action_names, chunk, job.stamp_ns, frame, period))
        # What it was asked, so that the answer can be checked later: seed and step say which noise it took.
        question = {"kind": "asked", "stamp": job.stamp_ns, "seed": job.seed, **job.question, "chunk": chunk}
        self._asked.publish(UInt8MultiArray(data=array("B", encode(question))))

    def _ping(self) -> None:
        """Publishes a heartbeat for as long as the server answers.

        One that was only held up goes on with its episode. One that died breaks the connection of `_answer`,
        and one in its place has another epoch.
        """
        patience = _PING_SHARE * self.contract.timing.heartbeat_max_age_s
        client: Client | None = None
        while not self._ended.wait(_RETRY_S if client is None else _PING_EVERY_S):
            try:
                client = client or unlock(Client(self._address, patience), self._key)
                epoch = client.request("ping")["epoch"]
                self._heartbeat.publish(UInt64(data=int(epoch)))
            except (WireError, BadInput) as e:
                if client is not None:
                    self._tell_lost(e)
                    client.close()
                client = None
        if client is not None:
            client.close()

    def _tell_lost(self, why: object) -> None:
        self.get_logger().error(f"policy server lost: {why}")
        nothing = np.zeros((0, len(self.contract.action_names)))
        stamp = self.wall_ns()
        frame, period = self.contract.frame, self.contract.timing.period_s
        self._chunks.publish(to_trajectory(self.contract.action_names, nothing, stamp, frame, period))

    def _deactivate(self) -> None:
        with self._wake:
            self._ended.set()
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(timeout=_ANSWER_TIMEOUT_S + 1.0)
        if self._server is not None:
            self._server.close()
        self._server = None


def main() -> int:
    """`python -m ros_nodes.policy_node --ros-args -p contract:=panda_sim -p server:=SOCKET`."""
    return run(PolicyNode)


if __name__ == "__main__":
    sys.exit(main())
