"""What a command may be and how long things may take: the numbers behind `ros_nodes.safety`. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from robopolicy.errors import BadInput


@dataclass(frozen=True)
class Limits:
    """What one command may be; arrays (A,), in the order of `names`, in the units of the Spec.

    Attributes:
        names: action names.
        low: smallest value.
        high: largest value.
        max_change: largest change from one command to the next; going back to `hold` is always allowed.
        hold: the command that keeps the arm where it is.
        moved_by: for x, y, z of the guarded point, the action that displaces it; empty without a workspace.
        box_low: (3,) workspace.
        box_high: (3,) workspace.
    """

    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    max_change: np.ndarray
    hold: np.ndarray
    moved_by: tuple[int, ...] = ()
    box_low: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    box_high: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        size = len(self.names)
        for name in ("low", "high", "max_change", "hold"):
            value = getattr(self, name)
            if value.shape != (size,) or not np.isfinite(value).all():
                raise BadInput(f"limits.{name}", f"{size} finite numbers", value)
        if not ((self.low <= self.hold) & (self.hold <= self.high) & (self.max_change > 0)).all():
            raise BadInput("limits", "low <= hold <= high and max_change > 0", self)
        for name in ("box_low", "box_high"):
            value = getattr(self, name)
            if value.shape != (len(self.moved_by),) or not np.isfinite(value).all():
                raise BadInput(f"limits.{name}", f"{len(self.moved_by)} finite numbers", value)
        if not (self.box_low < self.box_high).all() or self.hold[list(self.moved_by)].any():
            raise BadInput("limits", "box_low < box_high, and hold 0 for what moves the point", self)

    def clamp(self, wanted: np.ndarray, before: np.ndarray, point: np.ndarray) -> np.ndarray:
        """The allowed command nearest to `wanted` (A,), after `before` (A,), with the point (3,) there."""
        low = np.maximum(self.low, np.minimum(before, self.hold) - self.max_change)
        high = np.minimum(self.high, np.maximum(before, self.hold) + self.max_change)
        if self.moved_by:
            # Outside the box the point may come back or rest, but not go further out.
            axes = list(self.moved_by)
            low[axes] = np.maximum(low[axes], np.minimum(self.box_low - point, 0.0))
            high[axes] = np.minimum(high[axes], np.maximum(self.box_high - point, 0.0))
        return np.clip(wanted, low, high)

    def differ(self, wanted: np.ndarray, command: np.ndarray) -> np.ndarray:
        """(A,) whether a command is not what was wanted; float32 rounding of a bound is no difference."""
        return np.abs(wanted - command) > 1e-6 * (self.high - self.low)


@dataclass(frozen=True)
class Timing:
    """Deadlines in seconds, on the steady clock unless said otherwise.

    Attributes:
        period_s: one control step.
        state_max_age_s: an older robot state means HOLD (by arrival, and by stamp when it arrives).
        chunk_max_age_s: chunks answering an older state are refused (by stamp).
        chunk_life_s: a chunk not played out within this time is dropped.
        future_s: stamps this far ahead are refused.
        heartbeat_max_age_s: silence of the policy for longer means HOLD.
        hold_after_s: a state for which there is no action is answered by hold after this time.
        fault_after_s: HOLD, or ARMED without a chunk, for longer means FAULT.
        tick_gap_s: longer without a tick means that the gate was suspended.
        ask_again_s: an unanswered request for a chunk is repeated after this time.
        ask_ahead_s: an arm that is driven by time asks for the next chunk so long before the end of the
            present one.
    """

    period_s: float
    state_max_age_s: float
    chunk_max_age_s: float
    chunk_life_s: float
    heartbeat_max_age_s: float
    hold_after_s: float
    fault_after_s: float
    future_s: float = 0.02
    tick_gap_s: float = 0.25
    ask_again_s: float = 0.5
    ask_ahead_s: float = 0.2

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if not (isinstance(value, float | int) and 0 < value < 60):
                raise BadInput(f"timing.{f.name}", "seconds between 0 and 60", value)
