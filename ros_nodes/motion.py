"""Smooth commands: position, speed, acceleration and jerk stay inside limits, and can go on to do so.

What is commanded is a point that moves with piecewise constant jerk: its position, or for what is driven by
velocity its speed. It is kept in states from which
the quickest stop, with limited acceleration and jerk, stays inside all limits: such a stop is always at hand,
and it is what a hold does. So the intervals between commands may vary, and a hold may come at any time.

The quickest stop of a jerk-limited point has at most three phases, in closed form. Brake trajectories as a
certificate are the idea of Ruckig (Berscheid and Kroeger, "Jerk-limited Real-time Trajectory Generation with
Arbitrary Target States", RSS 2021), whose free version does not know limits of position. Pure.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from robopolicy.errors import BadInput

# Jerks that are tried at once, odd so that none at all is among them; then as many around the best of them.
_TRIED = 33
_ROUNDING = 1e-9
# Times its limit, the speed of a target that makes no more difference.
_FAST = 10.0


@dataclass(frozen=True)
class Bounds:
    """What a position, in radians or metres, may be and how it may change; arrays (A,).

    Attributes:
        names: of the actions.
        low: smallest position.
        high: largest position.
        speed: largest, per second.
        acceleration: largest, per second squared.
        jerk: largest, per second cubed.
        paced: bool, whether velocity is commanded instead of position.
    """

    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    speed: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray
    paced: np.ndarray

    def __post_init__(self) -> None:
        for name in (f.name for f in dataclasses.fields(self)[1:]):
            value = getattr(self, name)
            if value.shape != (len(self.names),) or not np.isfinite(value).all():
                raise BadInput(f"bounds.{name}", f"{len(self.names)} finite numbers", value)
        for i in np.flatnonzero(self.low >= self.high):
            raise BadInput(f"bounds.{self.names[i]}", "low < high", (self.low[i], self.high[i]))
        for name in ("speed", "acceleration", "jerk"):
            for i in np.flatnonzero(getattr(self, name) <= 0):
                raise BadInput(f"bounds.{self.names[i]}.{name}", "more than 0", getattr(self, name)[i])


@dataclass(frozen=True)
class Moving:
    """A moving point: position, velocity, acceleration, arrays of one shape."""

    q: np.ndarray
    v: np.ndarray
    a: np.ndarray

    def after(self, t: np.ndarray | float, jerk: np.ndarray) -> Moving:
        """Where it is after `t` seconds of constant jerk."""
        return Moving(
            self.q + t * (self.v + t * (self.a / 2 + t * jerk / 6)),
            self.v + t * (self.a + t * jerk / 2),
            self.a + t * jerk,
        )


class Motion:
    """The commanded point of a robot.

    Args:
        bounds: its limits.
        start: (A,) where it rests.

    Raises:
        BadInput: if it does not rest inside the limits.
    """

    def __init__(self, bounds: Bounds, start: np.ndarray):
        for i in np.flatnonzero(~((bounds.low <= start) & (start <= bounds.high))):
            wanted = f"inside [{bounds.low[i]:g}, {bounds.high[i]:g}]"
            raise BadInput(f"start.{bounds.names[i]}", wanted, float(start[i]))
        self._bounds = bounds
        self.now = Moving(start.astype(np.float64), np.zeros(len(start)), np.zeros(len(start)))

    @property
    def resting(self) -> bool:
        """Whether it stands still, up to rounding."""
        v, a = np.abs(self.now.v) / self._bounds.speed, np.abs(self.now.a) / self._bounds.acceleration
        return bool((v < _ROUNDING).all() and (a < _ROUNDING).all())

    def follow(self, target: np.ndarray, speed: np.ndarray, dt: float) -> np.ndarray:
        """Moves for `dt` seconds towards a target that will then be at `target` (A,) and move with `speed`.

        It takes the jerk after which it could come to rest, relative to the target, nearest to it; what is
        paced, the one after which it could go on most nearly with `speed`.

        Returns:
            (A,) the next command.
        """
        b, jerk = self._bounds, self._bounds.jerk
        # Far beyond the limits is beyond them; what follows stays finite.
        span = b.high - b.low
        target = np.clip(target, b.low - span, b.high + span)
        speed = np.clip(speed, -_FAST * b.speed, _FAST * b.speed)
        tried = np.linspace(-1.0, 1.0, _TRIED)[:, None] * jerk
        miss = best = np.empty(0)
        for width in (2 / (_TRIED - 1), 0.0):
            then = self.now.after(dt, tried)
            miss = np.where(self._allowed(tried, then, dt), self._miss(then, target, speed), np.inf)
            best = miss.argmin(0)[None]
            around = np.take_along_axis(tried, best, 0) + np.linspace(-width, width, _TRIED)[:, None] * jerk
            tried = np.clip(around, -jerk, jerk)
        moved, braked = self.now.after(dt, tried[0]), self._braked(dt)
        # Stopping is always allowed, and can be the way to stop at the target.
        better = np.take_along_axis(miss, best, 0)[0] <= self._miss(braked, target, speed)
        self.now = Moving(
            np.where(better, moved.q, braked.q),
            np.where(better, moved.v, braked.v),
            np.where(better, moved.a, braked.a),
        )
        return self.command

    def brake(self, dt: float) -> np.ndarray:
        """Goes on for `dt` seconds with the quickest stop; (A,) the next command."""
        self.now = self._braked(dt)
        return self.command

    @property
    def command(self) -> np.ndarray:
        """(A,) position, or velocity of what is paced."""
        return np.where(self._bounds.paced, self.now.v, self.now.q)

    def anchor(self, where: np.ndarray) -> None:
        """Puts the positions of what is paced to where (A,) they were measured."""
        self.now = dataclasses.replace(self.now, q=np.where(self._bounds.paced, where, self.now.q))

    def seconds_to_rest(self) -> float:
        """How long the quickest stop takes."""
        times, _ = _phases(self.now, self._bounds.acceleration, self._bounds.jerk)
        return float(np.sum(times, 0).max())

    def _miss(self, moving: Moving, target: np.ndarray, speed: np.ndarray) -> np.ndarray:
        """How far from the target the quickest stop relative to it ends; if paced, how much slower it is."""
        b, relative = self._bounds, Moving(moving.q - target, moving.v - speed, moving.a)
        ends = stop(relative, b.acceleration, b.jerk)[-1].q
        return np.abs(np.where(b.paced, relative.v + moving.a * np.abs(moving.a) / (2 * b.jerk), ends))

    def _braked(self, dt: float) -> Moving:
        times, jerks = _phases(self.now, self._bounds.acceleration, self._bounds.jerk)
        moving, left = self.now, np.full_like(self.now.q, dt)
        for time, jerk in zip(times, jerks, strict=True):
            used = np.minimum(time, left)
            moving, left = moving.after(used, jerk), left - used
        rests = left > 0
        return Moving(moving.q, np.where(rests, 0.0, moving.v), np.where(rests, 0.0, moving.a))

    def _allowed(self, jerk: np.ndarray, then: Moving, dt: float) -> np.ndarray:
        """(C, A) whether `dt` seconds of a jerk, and the quickest stop after them, stay inside all limits."""
        b, now = self._bounds, self.now
        # On the way speed is extreme where there is no acceleration, position where there is no speed.
        turns = _roots(np.zeros_like(jerk), jerk, now.a, dt)[:1]
        speeds = [now.after(t, jerk).v for t in turns]
        places = [
            now.after(t, jerk).q for t in _roots(jerk / 2, np.broadcast_to(now.a, jerk.shape), now.v, dt)
        ]
        stages = stop(then, b.acceleration, b.jerk)
        speeds += [s.v for s in stages]
        places += [s.q for s in stages]
        within = np.abs(then.a) <= b.acceleration * (1 + _ROUNDING)
        for v in speeds:
            within &= np.abs(v) <= b.speed * (1 + _ROUNDING)
        # What is paced is where it was measured: outside, it may come back, but not go further out.
        slack = _ROUNDING * (b.high - b.low)
        low, high = np.minimum(b.low, now.q) - slack, np.maximum(b.high, now.q) + slack
        for q in places:
            within &= (q >= low) & (q <= high)
        return within


def stop(moving: Moving, acceleration: np.ndarray, jerk: np.ndarray) -> tuple[Moving, ...]:
    """The states of the quickest stop in which position or speed can be extreme; the last one is at rest."""
    times, jerks = _phases(moving, acceleration, jerk)
    # Until the first phase has turned acceleration round, speed goes on to grow; it may be zero before that.
    first = times[0]
    turn = np.where(moving.a * jerks[0] < 0, np.abs(moving.a) / jerk, 0.0)
    back = _roots(jerks[0] / 2, moving.a, moving.v, first)
    ahead, stages = moving, [moving, *(moving.after(t, jerks[0]) for t in (turn, *back))]
    for time, j in zip(times, jerks, strict=True):
        ahead = ahead.after(time, j)
    return (*stages, ahead)


def _phases(
    moving: Moving, acceleration: np.ndarray, jerk: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Durations and jerks of the quickest stop: acceleration grows against it, stays, returns to 0."""
    v, a = moving.v, moving.a
    sign = np.where(v + a * np.abs(a) / (2 * jerk) < 0, -1.0, 1.0)
    v, a = sign * v, sign * a
    peak = np.minimum(np.sqrt(np.maximum(jerk * v + a * a / 2, 0.0)), acceleration)
    grows = np.maximum((a + peak) / jerk, 0.0)
    stays = np.maximum((v + (a * a / 2 - peak * peak) / jerk) / acceleration, 0.0)
    return [grows, stays, peak / jerk], [-sign * jerk, np.zeros_like(peak), sign * jerk]


def _roots(c2: np.ndarray, c1: np.ndarray, c0: np.ndarray, until: np.ndarray | float) -> list[np.ndarray]:
    """Zeros of c2 t^2 + c1 t + c0 in [0, until], with 0 in place of those that are not there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        # Either zero by the quotient that does not lose digits.
        half = -(c1 + np.where(c1 < 0, -1.0, 1.0) * np.sqrt(np.maximum(c1 * c1 - 4 * c2 * c0, 0.0))) / 2
        found = [c0 / half, half / c2]
    return [np.where(np.isfinite(t) & (t > 0) & (t < until), t, 0.0) for t in found]
