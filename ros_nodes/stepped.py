"""An arm that is driven step by step: each of its states is answered by one action, or by hold. Pure.

So time may wait for commands, as in a simulator. Hold is a message of its own, and what it does is up to the
arm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from ros_nodes.limits import Limits, Timing
from ros_nodes.safety import Decision, Gate, Mode, Reason


class SteppedGate(Gate):
    """The gate of an arm that is driven step by step.

    Every limit is an interval that contains rest, so their intersection is never empty.

    Args:
        limits: what a command may be.
        timing: deadlines.
        max_chunk: most actions in a chunk.
        cameras: how old a picture may be, by camera.
    """

    def __init__(
        self, limits: Limits, timing: Timing, max_chunk: int, cameras: Mapping[str, float] | None = None
    ):
        super().__init__(limits.names, timing, max_chunk, cameras)
        self._limits = limits
        self._chunk: deque[np.ndarray] = deque()
        self._chunk_at = 0.0
        self._before = limits.hold

    @property
    def resting(self) -> bool:
        return True

    def _start(self) -> Reason:
        return Reason.NONE

    def _load(self, actions: np.ndarray, at: float, now: float) -> Reason:
        self._chunk, self._chunk_at = deque(actions), now
        if self.mode is Mode.ARMED:
            self._unanswered = False  # an arm at rest repeats its state: answer one that has only just come
        return Reason.NONE

    def _drop(self) -> None:
        self._chunk.clear()
        self._before, self._commanded_at = self._limits.hold, float("-inf")

    def _full(self) -> bool:
        return bool(self._chunk)

    def _wants(self, now: float) -> bool:
        return not self._chunk

    def _request(self, now: float, trouble: Reason) -> int | None:
        if self.mode is Mode.ARMED:
            self._answered = self._stamps[-1] - 1  # nothing has moved: the newest is the first to answer
        return super()._request(now, trouble)

    def _ails(self, now: float) -> Reason:
        if self._chunk and not 0 <= now - self._chunk_at <= self._t.chunk_life_s:
            return Reason.CHUNK_EXPIRED
        return Reason.NONE

    def _playable(self, now: float) -> bool:
        return bool(self._chunk) and self._unanswered

    def _lacks(self, now: float) -> Reason:
        """The newest state has been waiting for its answer for too long."""
        waiting = self._unanswered and self._state_at is not None and not self._chunk
        late = waiting and now - (self._state_at or 0.0) > self._t.hold_after_s
        return Reason.NO_CHUNK if late else Reason.NONE

    def _play(self, now: float) -> Decision:
        wanted = self._chunk.popleft()
        command = self._limits.clamp(wanted, self._before, self._point)
        limited = tuple(
            n for n, far in zip(self._names, self._limits.differ(wanted, command), strict=True) if far
        )
        self.played += 1
        self.limited += bool(limited)
        self._before, self._output_at, self._commanded_at = command, now, now
        self._answer()
        self._enter(Mode.RUNNING, Reason.LIMITED if limited else Reason.NONE, now)
        request = self._request(now, Reason.NONE)
        return Decision(self.mode, self.reason, command, False, self._answered, request, limited)

    def _hold(self, now: float) -> Decision:
        """In answer to every state, and at the control rate if there is none."""
        due = self._unanswered or not now - self._output_at < self._t.period_s
        request = self._request(now, self.reason) if self.mode is Mode.HOLD else None
        if not due:
            return Decision(self.mode, self.reason, request=request)
        self._output_at = now
        self.held += self.mode is not Mode.DISARMED
        self._answer()
        return Decision(self.mode, self.reason, hold=True, answers=self._answered, request=request)

    def _let_go(self) -> None:
        pass  # what it was told last does not outlast its step

    def _hurry(self) -> None:
        self._output_at = float("-inf")
