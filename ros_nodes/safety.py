"""The gate: what a policy asks for, turned into what the arm is allowed to do. Pure; no ROS, no clock.

It plays chunks open loop, asks for the next in time, and holds whenever anything is missing, late or
malformed. How an arm is driven, and what hold means for it, is said in `ros_nodes.stepped` and
`ros_nodes.timed`; what they share is here:

    DISARMED --engage--> ARMED --first action--> RUNNING <--> HOLD --too long--> FAULT --reset--> DISARMED

Malformed input is refused, never repaired; well-formed actions are clamped. Holding is always allowed.
Deadlines run on a steady clock (`now`, seconds); stamps (integer nanoseconds of the robot's clock) are
checked on both sides against that clock (`wall_ns`) and otherwise only identify states. Same inputs, same
outputs.

This is software, not a certified safety function: an emergency stop in hardware is still needed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ros_nodes.cameras import CameraWatch
from ros_nodes.limits import Timing

_KNOWN_STATES = 64
_NOTHING = np.zeros(0)


class Mode(StrEnum):
    DISARMED = "DISARMED"
    ARMED = "ARMED"
    RUNNING = "RUNNING"
    HOLD = "HOLD"
    FAULT = "FAULT"


class Reason(StrEnum):
    """Why the gate refuses, holds or has stopped."""

    NONE = "NONE"
    NO_STATE = "NO_STATE"  # no robot state yet, or the last one is too old
    STATE_INVALID = "STATE_INVALID"  # non-finite, or not as the contract says
    STATE_STAMP = "STATE_STAMP"  # too old, in the future, or not newer than the one before
    NO_CHUNK = "NO_CHUNK"  # the policy has not answered in time
    CHUNK_NAMES = "CHUNK_NAMES"
    CHUNK_SIZE = "CHUNK_SIZE"
    CHUNK_NONFINITE = "CHUNK_NONFINITE"
    CHUNK_STAMP = "CHUNK_STAMP"  # too old, in the future, not newer, or of a state never seen
    CHUNK_UNASKED = "CHUNK_UNASKED"
    CHUNK_EXPIRED = "CHUNK_EXPIRED"  # its time ran out before it was played
    CHUNK_FAR = "CHUNK_FAR"  # it begins too far from where the arm rests
    TRACKING = "TRACKING"  # the arm is not where it was told to be
    WORKSPACE = "WORKSPACE"  # the arm is outside its limits, or the guarded point outside its box
    QOS = "QOS"  # a publisher of the state whose quality of service does not fit
    CAMERA_STALE = "CAMERA_STALE"  # no new picture, or the same one again and again
    POLICY_LOST = "POLICY_LOST"  # heartbeat missing, or the policy node said so
    EPOCH = "EPOCH"  # the policy server was restarted: its memory of the episode is gone
    CLOCK = "CLOCK"  # the gate itself was suspended, or its clock went back
    TWO_PUBLISHERS = "TWO_PUBLISHERS"
    STOPPED = "STOPPED"
    LIMITED = "LIMITED"  # the command differs from the request, by a limit
    BUSY = "BUSY"  # already engaged, or in FAULT


# What a fresh chunk puts right.
_POLICYS = (Reason.NONE, Reason.NO_CHUNK, Reason.CHUNK_EXPIRED)


@dataclass(frozen=True)
class Decision:
    """What to do at one tick.

    Attributes:
        command: (A,) to publish, if any.
        hold: publish hold instead.
        answers: stamp of the state that command or hold answers.
        request: ask the policy for a chunk for a state newer than this stamp.
        limited: names of the actions that were clamped.
    """

    mode: Mode
    reason: Reason
    command: np.ndarray | None = None
    hold: bool = False
    answers: int = 0
    request: int | None = None
    limited: tuple[str, ...] = ()


class Gate(ABC):
    """The state machine. Feed it inputs as they come and call `tick` after each and at a steady rate.

    Args:
        names: of the actions.
        timing: deadlines.
        max_chunk: most actions in a chunk.
        cameras: how old a picture may be, in seconds, by camera.
    """

    def __init__(
        self, names: Sequence[str], timing: Timing, max_chunk: int, cameras: Mapping[str, float] | None = None
    ):
        self._watch = CameraWatch(cameras or {})
        self._names, self._t, self._max_chunk = tuple(names), timing, max_chunk
        self.mode, self.reason = Mode.DISARMED, Reason.NONE
        self.played = self.held = self.limited = 0
        self.refused: Counter[Reason] = Counter()
        self._alone, self._epoch = True, None
        self._last_tick = self._output_at = self._commanded_at = float("-inf")
        self._beat_at: float | None = None
        self._since = 0.0  # when ARMED or HOLD began
        self._point = self._measured = np.zeros(0)
        self._stamps: deque[int] = deque(maxlen=_KNOWN_STATES)
        self._state_at: float | None = None
        self._no_state = Reason.NO_STATE  # why there is none, if none is accepted
        self._unanswered = self._release = False
        self._answered = self._chunk_stamp = 0
        self._asked_at: float | None = None
        self._early: tuple[int, Sequence[str], np.ndarray] | None = None

    # --- how an arm is driven -------------------------------------------------------------------

    @abstractmethod
    def _start(self) -> Reason:
        """Begins at the present state of the arm, or says why it cannot."""

    @abstractmethod
    def _load(self, actions: np.ndarray, at: float, now: float) -> Reason:
        """Takes a chunk (K, A) for the state of the steady time `at`, or says why not."""

    @abstractmethod
    def _drop(self) -> None:
        """Forgets the chunk."""

    @abstractmethod
    def _full(self) -> bool:
        """Whether there is no room for another chunk."""

    @abstractmethod
    def _wants(self, now: float) -> bool:
        """Whether it is time to ask for a chunk."""

    @abstractmethod
    def _ails(self, now: float) -> Reason:
        """What is wrong with chunk or arm."""

    @abstractmethod
    def _playable(self, now: float) -> bool:
        """Whether the chunk says what to do now."""

    @abstractmethod
    def _lacks(self, now: float) -> Reason:
        """NO_CHUNK if there has been nothing to do for too long."""

    @abstractmethod
    def _play(self, now: float) -> Decision:
        """What the chunk asks for, within limits."""

    @abstractmethod
    def _hold(self, now: float) -> Decision:
        """What keeps the arm where it is, or brings it to rest; at the control rate."""

    @abstractmethod
    def _let_go(self) -> None:
        """The arm rests and is not this gate's any more."""

    @abstractmethod
    def _hurry(self) -> None:
        """The next hold need not wait for its turn."""

    @property
    @abstractmethod
    def resting(self) -> bool:
        """Whether the last command was one of rest."""

    # --- the operator ---------------------------------------------------------------------------

    def engage(self, now: float) -> Reason:
        """DISARMED to ARMED if everything needed is there; otherwise says what is missing."""
        if self.mode is not Mode.DISARMED or not self.resting:
            return Reason.BUSY
        self._drop()
        trouble = self._trouble(now)
        if trouble is Reason.NONE:
            trouble = self._start()
        if trouble is not Reason.NONE:
            return trouble
        self._asked_at, self._release, self._unanswered = None, False, True
        self._enter(Mode.ARMED, Reason.NONE, now)
        return Reason.NONE

    def disengage(self) -> None:
        """Back to DISARMED, after coming to rest; a FAULT stays."""
        if self.mode not in (Mode.DISARMED, Mode.FAULT):
            self._forget()
            self._release = True
            self.mode, self.reason = Mode.DISARMED, Reason.NONE

    def stop(self, reason: Reason = Reason.STOPPED) -> None:
        """FAULT, at once and from any mode."""
        if self.mode is not Mode.FAULT:
            self._forget()
            self.mode, self.reason = Mode.FAULT, reason
            self._hurry()

    def reset(self) -> bool:
        """FAULT to DISARMED; tells whether there was a FAULT. Stamps begin anew."""
        if self.mode is not Mode.FAULT:
            return False
        self._forget()
        self._stamps.clear()
        self._state_at, self._unanswered, self._chunk_stamp, self._epoch = None, False, 0, None
        self._release = True
        self.mode, self.reason = Mode.DISARMED, Reason.NONE
        return True

    def _forget(self) -> None:
        self._drop()
        self._asked_at = self._early = None

    # --- inputs ---------------------------------------------------------------------------------

    def state(
        self,
        now: float,
        wall_ns: int,
        stamp_ns: int,
        point: np.ndarray,
        finite: bool,
        measured: np.ndarray = _NOTHING,
    ) -> Reason:
        """A robot state arrived.

        Args:
            now: steady seconds.
            wall_ns: the robot's clock.
            stamp_ns: of the state.
            point: (3,) the guarded point, or (0,) without a workspace.
            finite: whether all of the state is.
            measured: (A,) what the actions command, as it is now; for an arm that is driven by time.
        """
        if not (finite and np.isfinite(point).all() and np.isfinite(measured).all()):
            self._no_state = Reason.STATE_INVALID
            return self.refuse(Reason.STATE_INVALID)
        old = bool(self._stamps) and stamp_ns <= self._stamps[-1]
        if old or not self._fresh(wall_ns - stamp_ns, self._t.state_max_age_s):
            self._no_state = Reason.STATE_STAMP
            return self.refuse(Reason.STATE_STAMP)
        self._no_state = Reason.NO_STATE
        self._stamps.append(stamp_ns)
        self._point, self._measured, self._state_at = point, measured, now
        # What was measured before the last command knows nothing of it and is not to be answered.
        self._unanswered |= now - (wall_ns - stamp_ns) * 1e-9 >= self._commanded_at
        if self._early is not None and self._early[0] <= stamp_ns:
            early, self._early = self._early, None
            self.chunk(now, wall_ns, *early)
        return Reason.NONE

    def chunk(
        self, now: float, wall_ns: int, stamp_ns: int, names: Sequence[str], actions: np.ndarray
    ) -> Reason:
        """A chunk (K, A) arrived, with columns `names` in any order, answering the state of its stamp."""
        if self._asked_at is None or self._full():
            return self.refuse(Reason.CHUNK_UNASKED)
        if sorted(names) != sorted(self._names):
            return self.refuse(Reason.CHUNK_NAMES)
        if actions.ndim != 2 or not 1 <= len(actions) <= self._max_chunk or actions.shape[1] != len(names):
            return self.refuse(Reason.CHUNK_SIZE)
        if not np.isfinite(actions).all():
            return self.refuse(Reason.CHUNK_NONFINITE)
        if not self._fresh(wall_ns - stamp_ns, self._t.chunk_max_age_s):
            return self.refuse(Reason.CHUNK_STAMP)
        if self._stamps and stamp_ns > self._stamps[-1]:
            self._early = stamp_ns, names, actions  # it has overtaken its state, which says whether it counts
            return Reason.NONE
        if stamp_ns not in self._stamps or stamp_ns <= self._chunk_stamp:
            return self.refuse(Reason.CHUNK_STAMP)
        order = [list(names).index(n) for n in self._names]
        at = now - max(wall_ns - stamp_ns, 0) * 1e-9
        if (trouble := self._load(actions[:, order].astype(np.float64), at, now)) is not Reason.NONE:
            self._asked_at = None  # an answer, though of no use: ask again
            return self.refuse(trouble)
        self._chunk_stamp, self._asked_at = stamp_ns, None
        return Reason.NONE

    def camera(self, name: str, now: float, wall_ns: int, stamp_ns: int, digest: int) -> Reason:
        """A picture arrived: its stamp, and a digest of what is on it."""
        fresh = self._watch.see(name, now, wall_ns, stamp_ns, digest, self._where())
        return Reason.NONE if fresh else self.refuse(Reason.CAMERA_STALE)

    def _where(self) -> np.ndarray:
        return np.concatenate([self._point, self._measured])

    def heartbeat(self, now: float, epoch: int) -> None:
        """The policy is alive; `epoch` changes when its server was restarted."""
        self._beat_at = now
        if self._epoch not in (None, epoch) and self.mode is not Mode.DISARMED:
            self.stop(Reason.EPOCH)
        self._epoch = epoch

    def policy_lost(self) -> None:
        """The policy node says that its server is gone."""
        self._beat_at = None

    def alone(self, yes: bool) -> None:
        """Whether this gate is the only publisher of commands, and the robot the only one of its state."""
        self._alone = yes

    # --- output ---------------------------------------------------------------------------------

    def tick(self, now: float) -> Decision:
        """What to do now."""
        gap, self._last_tick = now - self._last_tick, now
        trouble = self._trouble(now)
        if not 0 <= gap <= self._t.tick_gap_s and gap != float("inf"):
            # Time stamps of before mean nothing now: wait for fresh input.
            self._state_at = self._beat_at = None
            self._watch.forget()
            self._unanswered, self._output_at, self._since = False, float("-inf"), now
            trouble = Reason.CLOCK
        if self.mode is Mode.DISARMED:
            return self._released(now) if self._release else Decision(self.mode, self.reason)
        if not self._alone:
            self.stop(Reason.TWO_PUBLISHERS)
        if self.mode is Mode.FAULT:
            return self._hold(now)

        if trouble is Reason.NONE and self._playable(now):
            return self._play(now)
        if trouble is Reason.NONE:
            trouble = self._lacks(now)
        if trouble is not Reason.NONE:
            self._trip(trouble, now)
        if self.mode is not Mode.RUNNING and now - self._since > self._t.fault_after_s:
            self.stop(self.reason if self.reason is not Reason.NONE else Reason.NO_CHUNK)
            return self._hold(now)
        if self.mode is Mode.HOLD and trouble is not Reason.NONE:
            return self._hold(now)
        return Decision(self.mode, self.reason, request=self._request(now, trouble))

    def _released(self, now: float) -> Decision:
        """The last hold before silence."""
        self._hurry()
        decision = self._hold(now)
        if self.resting:
            self._release = False
            self._let_go()
        return decision

    def _trouble(self, now: float) -> Reason:
        if not self._alone:
            return Reason.TWO_PUBLISHERS
        if self._state_at is None or not 0 <= now - self._state_at <= self._t.state_max_age_s:
            return self._no_state
        if self._beat_at is None or not 0 <= now - self._beat_at <= self._t.heartbeat_max_age_s:
            return Reason.POLICY_LOST
        if self._watch.blind(now, self._where()):
            return Reason.CAMERA_STALE
        return self._ails(now)

    def _trip(self, reason: Reason, now: float) -> None:
        """From RUNNING to HOLD; what was left of the chunk is not played later."""
        self._drop()
        if reason is not Reason.NO_CHUNK:
            self._asked_at = None
        if self.mode is Mode.RUNNING:
            self._enter(Mode.HOLD, reason, now)
            self._hurry()
        self.reason = reason

    def _answer(self) -> None:
        if self._stamps:
            self._answered = self._stamps[-1]
        self._unanswered = False

    def _request(self, now: float, trouble: Reason) -> int | None:
        if not self._wants(now) or trouble not in _POLICYS:
            return None
        if self._asked_at is not None and 0 <= now - self._asked_at < self._t.ask_again_s:
            return None
        self._asked_at = now
        return self._answered

    def _enter(self, mode: Mode, reason: Reason, now: float) -> None:
        if mode is not self.mode:
            self._since = now
        self.mode, self.reason = mode, reason

    def refuse(self, reason: Reason) -> Reason:
        """Counts something that was refused."""
        self.refused[reason] += 1
        return reason

    def _fresh(self, age_ns: int, max_age_s: float) -> bool:
        return -self._t.future_s <= age_ns * 1e-9 <= max_age_s
