"""An arm that is driven by time: positions or velocities at a rate of the gate's own. Pure.

A chunk says where to be at the ends of the control steps that follow the state it answers; what of it is
past when it arrives is skipped. In between it is interpolated. The command goes there as fast as limits of
speed, acceleration and jerk allow (`ros_nodes.motion`), from chunk to chunk as within one; hold is the
quickest stop within them, and then rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from robopolicy.errors import BadInput
from ros_nodes.limits import Timing
from ros_nodes.motion import Bounds, Motion
from ros_nodes.safety import Decision, Gate, Mode, Reason

# A command this share of its range away from what was asked for is a limited one.
_SAME = 1e-3
# A command may move on by this many periods at once, after a late tick.
_LATE = 2.0


@dataclass(frozen=True)
class Drive:
    """How an arm is driven by time; arrays (A,), in the order of the actions.

    Attributes:
        rate: commands per second, Hz.
        bounds: what a command may be.
        scale: commanded per unit of the action; a displacement per control step becomes a velocity by the
            control rate.
        start: a chunk may begin this far from where the arm rests.
        follow: the arm may be this far from its command; neither is looked at for what is paced.
        moved_by: for x, y, z of the guarded point, the paced action that moves it; empty if there is none.
        box_low: (3,) workspace of the guarded point, (0,) if there is none.
        box_high: (3,) the same.
    """

    rate: float
    bounds: Bounds
    scale: np.ndarray
    start: np.ndarray
    follow: np.ndarray
    moved_by: tuple[int, ...] = ()
    box_low: np.ndarray = field(default_factory=lambda: np.zeros(0))
    box_high: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        for name in ("scale", "start", "follow"):
            value = getattr(self, name)
            if value.shape != (len(self.bounds.names),) or not (np.isfinite(value) & (value > 0)).all():
                raise BadInput(f"drive.{name}", f"{len(self.bounds.names)} numbers above 0", value)
        if not (self.box_low < self.box_high).all():
            raise BadInput("workspace", "low < high", (self.box_low, self.box_high))
        if self.moved_by and not self.bounds.paced[list(self.moved_by)].all():
            raise BadInput("workspace.moved_by", "actions that are velocities", self.moved_by)

    def confined(self) -> Bounds:
        """The bounds, with the box as limits of position of what moves the guarded point."""
        low, high, axes = self.bounds.low.copy(), self.bounds.high.copy(), list(self.moved_by)
        if axes:
            low[axes], high[axes] = self.box_low, self.box_high
        return dataclasses.replace(self.bounds, low=low, high=high)


class TimedGate(Gate):
    """The gate of an arm that is driven by time.

    Args:
        drive: how.
        timing: deadlines.
        max_chunk: most actions in a chunk.
        cameras: how old a picture may be, by camera.
        shadow: the arm is driven by someone else, and the commands are only looked at: each chunk begins
            where the arm is, and it need not follow.
    """

    def __init__(
        self,
        drive: Drive,
        timing: Timing,
        max_chunk: int,
        cameras: Mapping[str, float] | None = None,
        shadow: bool = False,
    ):
        super().__init__(drive.bounds.names, timing, max_chunk, cameras)
        self._shadow = shadow
        self._drive, self._bounds = drive, drive.confined()
        self._period = 1 / drive.rate
        self._motion: Motion | None = None
        self._times, self._actions = np.zeros(0), np.zeros((0, len(self._names)))
        self._beyond_since: float | None = None

    @property
    def resting(self) -> bool:
        return self._motion is None or self._motion.resting

    def seconds_to_rest(self) -> float:
        """How long the quickest stop takes now."""
        return 0.0 if self._motion is None else self._motion.seconds_to_rest()

    def _start(self) -> Reason:
        paced = self._bounds.paced
        inside = (self._bounds.low <= self._measured) & (self._measured <= self._bounds.high)
        if not (inside | paced).all() or self._outside():
            return Reason.WORKSPACE
        middle = (self._bounds.low + self._bounds.high) / 2
        self._motion = Motion(self._bounds, np.where(paced, middle, self._measured))
        self._anchor()
        self._beyond_since = None
        return Reason.NONE

    def _outside(self) -> bool:
        low, high = self._drive.box_low, self._drive.box_high
        return bool(len(low)) and not ((low <= self._point) & (self._point <= high)).all()

    def _anchor(self) -> None:
        """What is paced moves the guarded point from where it is."""
        if self._motion is not None and self._drive.moved_by:
            where = self._motion.now.q.copy()
            where[list(self._drive.moved_by)] = self._point
            self._motion.anchor(where)

    def _load(self, actions: np.ndarray, at: float, now: float) -> Reason:
        times = at + self._t.period_s * np.arange(1, len(actions) + 1)
        if times[-1] <= now:
            return Reason.CHUNK_EXPIRED
        if self._shadow and (trouble := self._start()) is not Reason.NONE:
            return trouble
        if self._motion is None:
            return Reason.CHUNK_UNASKED
        actions, command = actions * self._drive.scale, self._motion.command
        far = np.abs(_wanted(times, actions, now)[0] - command) > self._drive.start
        if self.mode is not Mode.RUNNING and (far & ~self._bounds.paced).any():
            return Reason.CHUNK_FAR
        if now < times[0]:
            times, actions = np.insert(times, 0, now), np.insert(actions, 0, command, axis=0)
        self._times, self._actions = times, actions
        return Reason.NONE

    def _drop(self) -> None:
        self._times, self._actions = self._times[:0], self._actions[:0]
        self._beyond_since = None

    def _full(self) -> bool:
        return False

    def _left(self, now: float) -> float:
        return float(self._times[-1] - now) if len(self._times) else 0.0

    def _wants(self, now: float) -> bool:
        return self._left(now) <= self._t.ask_ahead_s

    def _request(self, now: float, trouble: Reason) -> int | None:
        if self._stamps:
            self._answered = self._stamps[-1]  # time does not wait: it is always the next state that counts
        return super()._request(now, trouble)

    def _ails(self, now: float) -> Reason:
        if self._motion is None or self._shadow or self.mode not in (Mode.RUNNING, Mode.HOLD):
            return Reason.NONE
        far = np.abs(self._measured - self._motion.command) > self._drive.follow
        if (far & ~self._bounds.paced).any():
            return Reason.TRACKING
        if self._outside() and not self._drive.moved_by:
            return Reason.WORKSPACE
        return Reason.NONE

    def _playable(self, now: float) -> bool:
        return self._left(now) > 0

    def _lacks(self, now: float) -> Reason:
        return Reason.NONE if self.mode is Mode.ARMED else Reason.NO_CHUNK

    def _play(self, now: float) -> Decision:
        if self._beyond_since is not None and now - self._beyond_since > self._t.fault_after_s:
            self.stop(Reason.LIMITED)  # a policy that wants out will not stop wanting it
            return self._hold(now)
        request = self._request(now, Reason.NONE)
        if (dt := self._due(now)) is None or self._motion is None:
            return Decision(self.mode, self.reason, request=request)
        self._anchor()
        target, speed = _wanted(self._times, self._actions, now + self._period)
        speed = np.where(self._bounds.paced, target, speed)
        command = self._motion.follow(target, speed, dt)
        b = self._bounds
        limited = np.abs(command - target) > _SAME * np.where(b.paced, b.speed, b.high - b.low)
        beyond = np.where(b.paced, np.abs(target) > b.speed, (target < b.low) | (target > b.high))
        if not (beyond & limited).any():
            self._beyond_since = None
        elif self._beyond_since is None:
            self._beyond_since = now
        self.played += 1
        self.limited += bool(limited.any())
        self._answer()
        self._enter(Mode.RUNNING, Reason.LIMITED if limited.any() else Reason.NONE, now)
        names = tuple(n for n, far in zip(self._names, limited, strict=True) if far)
        return Decision(self.mode, self.reason, command, False, self._answered, request, names)

    def _hold(self, now: float) -> Decision:
        """The quickest stop, and then where it ended, for as long as nothing else is said."""
        request = self._request(now, self.reason) if self.mode is Mode.HOLD else None
        if (dt := self._due(now)) is None or self._motion is None:
            return Decision(self.mode, self.reason, request=request)
        self.held += self.mode is not Mode.DISARMED
        self._answer()
        command = self._motion.brake(dt)
        return Decision(self.mode, self.reason, command, answers=self._answered, request=request)

    def _let_go(self) -> None:
        self._motion = None  # others may move it now, and where it rested is no place to go back to

    def _hurry(self) -> None:
        pass  # the stop goes on from the last command, in its time

    def _due(self, now: float) -> float | None:
        """Seconds since the last command, if it is time for another one."""
        passed = now - self._output_at
        # A timer of the same rate is sometimes early.
        if passed < 0.75 * self._period:
            return None
        self._output_at = now
        return min(passed, _LATE * self._period)


def _wanted(times: np.ndarray, actions: np.ndarray, at: float) -> tuple[np.ndarray, np.ndarray]:
    """(A,) the actions interpolated, and their change per second; at rest before the first and after."""
    if not times[0] <= at < times[-1]:
        return actions[0 if at < times[0] else -1], np.zeros(actions.shape[1])
    i = int(np.searchsorted(times, at, side="right"))
    slope = (actions[i] - actions[i - 1]) / (times[i] - times[i - 1])
    return actions[i - 1] + slope * (at - times[i - 1]), slope
