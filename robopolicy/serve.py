"""The policy server: the only process that knows torch at deployment, behind a local socket.

    {"kind": "hello"}                            -> spec, fingerprint, epoch, joins
    {"kind": "reset", seed}                      -> epoch                       begins an episode
    {"kind": "act", obs (T, D) float32, step}    -> chunk (K, A), epoch, step, ms
    {"kind": "join", obs, step, since, late}     -> the same                    goes on from the last chunk
    {"kind": "ping"}                             -> epoch
    {"kind": "stats"}                            -> count, p50_ms, p99_ms, strayed

Each connection is a session with its own noise stream and carry. The noise of a session is drawn exactly as
`robopolicy.rollout` draws it, so a served episode is the episode that evaluation would have run. "join" is
real-time chunking (`robopolicy.realtime`), for a robot that goes on while it waits: what it does meanwhile is
what the last chunk said, and the new one continues that. A policy that cannot (`joins`) answers as to "act".
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch

from robopolicy.errors import BadInput
from robopolicy.keys import key_of, locked
from robopolicy.nets.eye import Eye
from robopolicy.nets.inpainting import Known, overlap_weights
from robopolicy.protocols import Carry, Policy, Steerer
from robopolicy.rollout import PriorSteerer
from robopolicy.seeding import stream
from robopolicy.wire import Array, Handler, Message, Schema, Server

MAX_NOISE = 8.0
"""Standard deviations: noise beyond is no steerer's that was trained, and the prior's is taken instead."""
_REMEMBERED = 2000


class PolicyService:
    """A frozen policy and its steerer, shared by all sessions; one inference at a time.

    Args:
        policy: what acts.
        steerer: what chooses its noise; where that is not finite or beyond `MAX_NOISE`, the prior does.
        epoch: number of this life of the server; a client that sees another one knows that all sessions
            are gone.
        key: that a client has to show first (`robopolicy.keys`); none if empty.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        policy: Policy,
        steerer: Steerer,
        epoch: int,
        key: str = "",
        clock: Callable[[], float] = time.monotonic,
    ):
        self.policy, self.steerer, self.epoch, self.clock = policy, steerer, epoch, clock
        self._key, self.strayed = key, 0
        self.joins = bool(getattr(policy, "joins", False))
        self._lock = threading.Lock()
        self._latencies_ms: deque[float] = deque(maxlen=_REMEMBERED)

    @torch.no_grad()
    def infer(
        self, obs: np.ndarray, prior: np.ndarray, carry: Carry, known: Known | None = None
    ) -> tuple[np.ndarray, Carry, float]:
        """Chunk (K, A) for one observation (T, D) and one draw of noise (K, A); next carry; milliseconds.

        What is `known` of the chunk, in physical units, is kept, by a policy that joins.
        """
        began = self.clock()
        with self._lock:
            state = torch.from_numpy(obs[None].copy())
            drawn = torch.from_numpy(prior.astype(np.float32))[None]
            noise = self.steerer.noise(state, drawn, carry)
            if not (torch.isfinite(noise).all() and noise.abs().max() <= MAX_NOISE):
                noise, self.strayed = drawn, self.strayed + 1
            joined = (known,) if known is not None and self.joins else ()
            actions, carry = cast(Any, self.policy).sample(state, carry, noise, *joined)
            chunk = actions[0].numpy()
        ms = 1000 * (self.clock() - began)
        self._latencies_ms.append(ms)
        return chunk, carry, ms

    def warm_up(self) -> None:
        """One inference, so that the first real one is not slow; leaves no trace in the statistics."""
        spec = self.policy.spec
        middle = spec.state_range.mean(0)
        obs = np.tile(middle, (spec.obs_steps, 1)).astype(np.float32)
        self.infer(obs, np.zeros((spec.chunk, spec.action_dim)), self.policy.initial([0]))
        self._latencies_ms.clear()

    def stats(self) -> Message:
        times = list(self._latencies_ms)
        p50, p99 = np.percentile(times, [50, 99]).tolist() if times else (0.0, 0.0)
        return {"count": len(times), "p50_ms": p50, "p99_ms": p99, "strayed": self.strayed}

    def connect(self) -> Mapping[str, Handler]:
        """Handlers of a new session."""
        spec, session = self.policy.spec, _Session(self)
        hello: Message = {"spec": spec.to_dict(), "fingerprint": spec.fingerprint, "epoch": self.epoch}
        hello = {**hello, "joins": self.joins}
        asked = {"obs": Array("float32", (spec.obs_steps, spec.state_dim)), "step": int}
        handlers = {
            "hello": Handler({}, lambda: hello),
            "ping": Handler({}, lambda: {"epoch": self.epoch}),
            "stats": Handler({}, self.stats),
            "reset": Handler({"seed": int}, session.reset),
            "act": Handler(asked, session.act),
            "join": Handler({**asked, "since": int, "late": int}, session.join),
        }
        return locked(handlers, self._key)


class _Session:
    """One client's episode."""

    def __init__(self, service: PolicyService):
        self._service = service
        self._rng: np.random.Generator | None = None
        self._carry: Carry = {}
        self._last: np.ndarray | None = None

    def reset(self, seed: int) -> Message:
        if seed < 0:
            raise BadInput("reset.seed", "a non-negative integer", seed)
        self._rng = stream(seed, "policy-noise")
        self._carry = self._service.policy.initial([seed])
        self._last = None
        return {"epoch": self._service.epoch}

    def join(self, obs: np.ndarray, step: int, since: int, late: int) -> Message:
        """A chunk that goes on from the last one.

        Args:
            obs: as of `act`.
            step: of the episode.
            since: control steps from what the last chunk was for to this observation.
            late: control steps until the answer will be there.
        """
        for name, value in (("since", since), ("late", late)):
            if value < 0:
                raise BadInput(f"join.{name}", "a number of control steps", value)
        last, horizon = self._last, self._service.policy.spec.chunk
        if last is None or not 0 < since < horizon:
            return self.act(obs, step)
        rest = torch.from_numpy(np.concatenate([last[since:], np.repeat(last[-1:], since, 0)]))
        kept = overlap_weights(horizon, since, min(late, horizon - since))
        return self.act(obs, step, Known(rest[None], kept[None]))

    def act(self, obs: np.ndarray, step: int, known: Known | None = None) -> Message:
        spec = self._service.policy.spec
        if self._rng is None:
            raise BadInput("act", "a reset before the first act", "none")
        # Before the noise is drawn: a refused observation must not shift the stream of the episode.
        obs = spec.check_obs(obs, "obs")
        prior = self._rng.standard_normal((spec.chunk, spec.action_dim))
        chunk, self._carry, ms = self._service.infer(obs, prior, self._carry, known)
        if chunk.shape != prior.shape or not np.isfinite(chunk).all():
            raise BadInput("chunk", f"finite actions {prior.shape} from the policy", chunk.tolist())
        self._last = chunk.astype(np.float32)
        return {"chunk": self._last, "epoch": self._service.epoch, "step": step, "ms": ms}


def eye_handlers(eye: Eye, key: str = "") -> Mapping[str, Handler]:
    """What an eye answers: "hello" -> cameras, points; "see", a picture by camera -> points (F,) float32."""
    names = [name for field in eye.fields for name in field.names]
    hello: Message = {"cameras": [dataclasses.asdict(c) for c in eye.cameras], "points": names}

    def see(**pictures: np.ndarray) -> Message:
        shown = {name: torch.from_numpy(picture.copy())[None] for name, picture in pictures.items()}
        return {"points": eye.see(shown)[0].numpy()}

    sizes: Schema = {c.name: Array("uint8", (c.height, c.width, 3)) for c in eye.cameras}
    return locked({"hello": Handler({}, lambda: hello), "see": Handler(sizes, see)}, key)


def serve(
    policy: Policy,
    steerer: Steerer | None,
    address: str,
    stop: threading.Event,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Answers requests at `address` until `stop` is set.

    Args:
        policy: what acts.
        steerer: what chooses its noise; none for the plain policy.
        address: a socket path or "127.0.0.1:PORT".
        stop: ends the server.
        on_ready: called once requests are answered.
    """
    key = key_of(os.environ)
    service = PolicyService(policy, steerer or PriorSteerer(), time.monotonic_ns(), key)
    service.warm_up()
    with Server(address, service.connect):
        on_ready()
        stop.wait()


def serve_eye(eye: Eye, address: str, stop: threading.Event, on_ready: Callable[[], None]) -> None:
    """As `serve`, what an eye sees."""
    key = key_of(os.environ)
    with Server(address, lambda: eye_handlers(eye, key)):
        on_ready()
        stop.wait()
