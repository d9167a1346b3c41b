"""The gate: what a policy asks for, turned into what the arm is allowed to do. Pure; no ROS, no clock.

The gate answers each robot state with one command. It plays a chunk open loop, one action per state, asks
for the next when the last action is out, and holds whenever anything is missing, late or malformed:

    DISARMED --engage--> ARMED --first action--> RUNNING <--> HOLD --too long--> FAULT --reset--> DISARMED

Malformed input is refused, never repaired; well-formed actions are clamped. Every limit is an interval that
contains rest, so their intersection is never empty and holding is always allowed. Deadlines run on a steady
clock (`now`, seconds); stamps (integer nanoseconds of the robot's clock) are checked on both sides against
that clock (`wall_ns`) and otherwise only identify states. Same inputs, same outputs.

This is software, not a certified safety function: an emergency stop in hardware is still needed.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ros_nodes.limits import Limits, Timing

_KNOWN_STATES = 64


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
    STATE_INVALID = "STATE_INVALID"  # non-finite
    STATE_STAMP = "STATE_STAMP"  # too old, in the future, or not newer than the one before
    NO_CHUNK = "NO_CHUNK"  # the policy has not answered in time
    CHUNK_NAMES = "CHUNK_NAMES"
    CHUNK_SIZE = "CHUNK_SIZE"
    CHUNK_NONFINITE = "CHUNK_NONFINITE"
    CHUNK_STAMP = "CHUNK_STAMP"  # too old, in the future, not newer, or of a state never seen
    CHUNK_UNASKED = "CHUNK_UNASKED"
    CHUNK_EXPIRED = "CHUNK_EXPIRED"  # its time ran out before it was played
    POLICY_LOST = "POLICY_LOST"  # heartbeat missing, or the policy node said so
    EPOCH = "EPOCH"  # the policy server was restarted: its memory of the episode is gone
    CLOCK = "CLOCK"  # the gate itself was suspended, or its clock went back
    TWO_PUBLISHERS = "TWO_PUBLISHERS"
    STOPPED = "STOPPED"
    LIMITED = "LIMITED"  # the command differs from the request, by a limit
    BUSY = "BUSY"  # already engaged, or in FAULT


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


class Gate:
    """The state machine. Feed it inputs as they come and call `tick` after each and at a steady rate.

    Args:
        limits: what a command may be.
        timing: deadlines.
        max_chunk: most actions in a chunk.
    """

    def __init__(self, limits: Limits, timing: Timing, max_chunk: int):
        self._limits, self._t, self._max_chunk = limits, timing, max_chunk
        self.mode, self.reason = Mode.DISARMED, Reason.NONE
        self.played = self.held = self.limited = 0
        self.refused: Counter[Reason] = Counter()
        self._alone, self._epoch = True, None
        self._last_tick = self._output_at = float("-inf")
        self._beat_at: float | None = None
        self._since = 0.0  # when ARMED or HOLD began
        self._point = np.zeros(len(limits.moved_by))
        self._stamps: deque[int] = deque(maxlen=_KNOWN_STATES)
        self._state_at: float | None = None
        self._unanswered = False
        self._answered = 0
        self._chunk_stamp = 0
        self._release = False
        self._rest()

    def _rest(self) -> None:
        """Forgets what the policy wanted."""
        self._chunk: deque[np.ndarray] = deque()
        self._chunk_at = 0.0
        self._asked_at: float | None = None
        self._before = self._limits.hold

    # --- the operator ---------------------------------------------------------------------------

    def engage(self, now: float) -> Reason:
        """DISARMED to ARMED if everything needed is there; otherwise says what is missing."""
        if self.mode is not Mode.DISARMED:
            return Reason.BUSY
        if (trouble := self._trouble(now)) is not Reason.NONE:
            return trouble
        self._rest()
        self._answered = self._stamps[-1] - 1  # the present state is the first to be answered
        self._unanswered = True
        self._enter(Mode.ARMED, Reason.NONE, now)
        return Reason.NONE

    def disengage(self) -> None:
        """Back to DISARMED, with one last hold; a FAULT stays."""
        if self.mode not in (Mode.DISARMED, Mode.FAULT):
            self._rest()
            self._release = True
            self.mode, self.reason = Mode.DISARMED, Reason.NONE

    def stop(self, reason: Reason = Reason.STOPPED) -> None:
        """FAULT, at once and from any mode."""
        if self.mode is not Mode.FAULT:
            self._rest()
            self.mode, self.reason = Mode.FAULT, reason
            self._output_at = float("-inf")

    def reset(self) -> bool:
        """FAULT to DISARMED; tells whether there was a FAULT. Stamps begin anew."""
        if self.mode is not Mode.FAULT:
            return False
        self._rest()
        self._stamps.clear()
        self._state_at, self._unanswered, self._chunk_stamp, self._epoch = None, False, 0, None
        self.mode, self.reason = Mode.DISARMED, Reason.NONE
        return True

    # --- inputs ---------------------------------------------------------------------------------

    def state(self, now: float, wall_ns: int, stamp_ns: int, point: np.ndarray, finite: bool) -> Reason:
        """A robot state arrived: its stamp, the guarded point (3,), whether all of it is finite."""
        if not finite or point.shape != self._point.shape or not np.isfinite(point).all():
            return self.refuse(Reason.STATE_INVALID)
        if self._stamps and stamp_ns <= self._stamps[-1]:
            return self.refuse(Reason.STATE_STAMP)
        if not self._fresh(wall_ns - stamp_ns, self._t.state_max_age_s):
            return self.refuse(Reason.STATE_STAMP)
        self._stamps.append(stamp_ns)
        self._point, self._state_at, self._unanswered = point, now, True
        return Reason.NONE

    def chunk(
        self, now: float, wall_ns: int, stamp_ns: int, names: Sequence[str], actions: np.ndarray
    ) -> Reason:
        """A chunk (K, A) arrived, with columns `names` in any order, answering the state of its stamp."""
        if self._asked_at is None or self._chunk:
            return self.refuse(Reason.CHUNK_UNASKED)
        if sorted(names) != sorted(self._limits.names):
            return self.refuse(Reason.CHUNK_NAMES)
        if actions.ndim != 2 or not 1 <= len(actions) <= self._max_chunk or actions.shape[1] != len(names):
            return self.refuse(Reason.CHUNK_SIZE)
        if not np.isfinite(actions).all():
            return self.refuse(Reason.CHUNK_NONFINITE)
        known = stamp_ns in self._stamps and stamp_ns > self._chunk_stamp
        if not known or not self._fresh(wall_ns - stamp_ns, self._t.chunk_max_age_s):
            return self.refuse(Reason.CHUNK_STAMP)
        order = [list(names).index(n) for n in self._limits.names]
        self._chunk = deque(actions[:, order].astype(np.float64))
        self._chunk_at, self._chunk_stamp, self._asked_at = now, stamp_ns, None
        return Reason.NONE

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
            self._unanswered, self._output_at, self._since = False, float("-inf"), now
            trouble = Reason.CLOCK
        if self.mode is Mode.DISARMED:
            release, self._release = self._release, False
            return self._hold() if release else Decision(self.mode, self.reason)
        if not self._alone:
            self.stop(Reason.TWO_PUBLISHERS)
        if self.mode is Mode.FAULT:
            return self._keep_holding(now)

        if trouble is Reason.NONE and self._chunk and self._unanswered:
            return self._play(now)
        if trouble is Reason.NONE and not self._chunk and self._waited(now) > self._t.hold_after_s:
            trouble = Reason.NO_CHUNK
        if trouble is not Reason.NONE:
            self._trip(trouble, now)
        if self.mode is not Mode.RUNNING and now - self._since > self._t.fault_after_s:
            self.stop(self.reason if self.reason is not Reason.NONE else Reason.NO_CHUNK)
            return self._keep_holding(now)
        if self.mode is Mode.HOLD and trouble is not Reason.NONE:
            return self._keep_holding(now)
        return Decision(self.mode, self.reason, request=self._request(now, trouble))

    def _trouble(self, now: float) -> Reason:
        if not self._alone:
            return Reason.TWO_PUBLISHERS
        if self._state_at is None or not 0 <= now - self._state_at <= self._t.state_max_age_s:
            return Reason.NO_STATE
        if self._beat_at is None or not 0 <= now - self._beat_at <= self._t.heartbeat_max_age_s:
            return Reason.POLICY_LOST
        if self._chunk and not 0 <= now - self._chunk_at <= self._t.chunk_life_s:
            return Reason.CHUNK_EXPIRED
        return Reason.NONE

    def _trip(self, reason: Reason, now: float) -> None:
        """From RUNNING to HOLD; what was left of the chunk is not played later."""
        self._chunk.clear()
        self._before = self._limits.hold
        if reason is not Reason.NO_CHUNK:
            self._asked_at = None
        if self.mode is Mode.RUNNING:
            self._enter(Mode.HOLD, reason, now)
            self._output_at = float("-inf")
        self.reason = reason

    def _play(self, now: float) -> Decision:
        wanted = self._chunk.popleft()
        command = self._limits.clamp(wanted, self._before, self._point)
        limited = tuple(
            n for n, far in zip(self._limits.names, self._limits.differ(wanted, command), strict=True) if far
        )
        self.played += 1
        self.limited += bool(limited)
        self._before, self._output_at = command, now
        self._answer()
        self._enter(Mode.RUNNING, Reason.LIMITED if limited else Reason.NONE, now)
        request = self._request(now, Reason.NONE)
        return Decision(self.mode, self.reason, command, False, self._answered, request, limited)

    def _keep_holding(self, now: float) -> Decision:
        """Hold in answer to every state, and at the control rate if there is none."""
        due = self._unanswered or not now - self._output_at < self._t.period_s
        request = self._request(now, self.reason) if self.mode is Mode.HOLD else None
        if not due:
            return Decision(self.mode, self.reason, request=request)
        self._output_at = now
        self.held += 1
        return dataclasses.replace(self._hold(), request=request)

    def _hold(self) -> Decision:
        self._answer()
        return Decision(self.mode, self.reason, hold=True, answers=self._answered)

    def _answer(self) -> None:
        if self._stamps:
            self._answered = self._stamps[-1]
        self._unanswered = False

    def _request(self, now: float, trouble: Reason) -> int | None:
        if self._chunk or trouble not in (Reason.NONE, Reason.NO_CHUNK, Reason.CHUNK_EXPIRED):
            return None
        if self._asked_at is not None and 0 <= now - self._asked_at < self._t.ask_again_s:
            return None
        self._asked_at = now
        return self._answered

    def _waited(self, now: float) -> float:
        """How long the newest state has been waiting for its answer."""
        return now - self._state_at if self._unanswered and self._state_at is not None else 0.0

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
