"""A gate on the bench: shared by the tests of its laws and of its single faults."""

from __future__ import annotations

import numpy as np

from ros_nodes.limits import Limits, Timing
from ros_nodes.safety import Decision, Reason
from ros_nodes.stepped import SteppedGate

NAMES = ("dx", "dy", "dz", "grip")
LIMITS = Limits(
    names=NAMES,
    low=np.array([-0.05, -0.05, -0.05, -1.0]),
    high=np.array([0.05, 0.05, 0.05, 1.0]),
    max_change=np.array([0.02, 0.02, 0.02, 2.0]),
    hold=np.zeros(4),
    moved_by=(0, 1, 2),
    box_low=np.array([-0.4, -0.4, 0.8]),
    box_high=np.array([0.4, 0.4, 1.4]),
)
TIMING = Timing(
    period_s=0.05,
    state_max_age_s=0.15,
    chunk_max_age_s=0.4,
    chunk_life_s=0.8,
    heartbeat_max_age_s=0.2,
    hold_after_s=0.035,
    fault_after_s=1.0,
)
MAX_CHUNK = 16
SECOND = 1_000_000_000
CENTRE = np.array([0.0, 0.0, 1.0])


class Bench:
    """A gate with its two clocks; everything that is done to it can be done to another one again."""

    def __init__(self):
        self.gate = SteppedGate(LIMITS, TIMING, MAX_CHUNK)
        self.now, self.wall = 1000.0, 5 * SECOND
        self.point = CENTRE.copy()
        self.stamp = 0

    def let(self, seconds: float, wall: float | None = None) -> None:
        self.now += seconds
        self.wall += int((seconds if wall is None else wall) * SECOND)

    def state(self, offset: float = 0.0, point: np.ndarray | None = None, finite: bool = True) -> Reason:
        self.stamp = self.wall + int(offset * SECOND)
        self.point = CENTRE if point is None else point
        return self.gate.state(self.now, self.wall, self.stamp, self.point, finite)

    def beat(self, epoch: int = 1) -> None:
        self.gate.heartbeat(self.now, epoch)

    def chunk(self, actions: np.ndarray | None = None, offset_ns: int = 0, names=NAMES) -> Reason:
        actions = np.full((8, 4), 0.01) if actions is None else actions
        return self.gate.chunk(self.now, self.wall, self.stamp + offset_ns, names, actions)

    def tick(self) -> Decision:
        return self.gate.tick(self.now)

    def step(self, seconds: float = 0.05) -> Decision:
        """One control step in which state and heartbeat arrive."""
        ticks = round(seconds / 0.01)
        for _ in range(ticks):
            self.let(seconds / ticks)
            self.tick()
        self.state()
        self.beat()
        return self.tick()

    def run(self) -> Decision:
        """Engaged, with a chunk whose first action is out."""
        self.step()
        assert self.gate.engage(self.now) is Reason.NONE
        assert self.tick().request is not None
        assert self.chunk() is Reason.NONE
        assert self.tick().command is None  # not before the next state
        return self.step()
