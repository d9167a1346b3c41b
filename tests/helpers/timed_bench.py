"""A gate of an arm that is driven by time, on the bench: two joints and a velocity."""

from __future__ import annotations

import numpy as np

from ros_nodes.limits import Timing
from ros_nodes.motion import Bounds
from ros_nodes.safety import Decision, Reason
from ros_nodes.timed import Drive, TimedGate

SECOND = 1_000_000_000
NAMES = ("shoulder", "elbow", "vz")
MAX_CHUNK = 16
BOUNDS = Bounds(
    NAMES,
    low=np.array([-1.0, -0.5, -1e3]),
    high=np.array([1.0, 2.0, 1e3]),
    speed=np.array([1.0, 2.0, 0.2]),
    acceleration=np.array([5.0, 8.0, 1.0]),
    jerk=np.array([100.0, 150.0, 20.0]),
    paced=np.array([False, False, True]),
)
DRIVE = Drive(
    rate=100.0,
    bounds=BOUNDS,
    scale=np.array([1.0, 1.0, 20.0]),
    start=np.array([0.1, 0.1, 1.0]),
    follow=np.array([0.3, 0.3, 1.0]),
)
TIMING = Timing(
    period_s=0.05,
    state_max_age_s=0.05,
    chunk_max_age_s=0.4,
    chunk_life_s=1.0,
    heartbeat_max_age_s=0.2,
    hold_after_s=0.035,
    fault_after_s=0.5,
)


class TimedBench:
    """The gate with its two clocks, and an arm that is where it was last told to be."""

    def __init__(self, drive: Drive = DRIVE, point: np.ndarray | None = None):
        self.gate = TimedGate(drive, TIMING, MAX_CHUNK)
        self.now, self.wall = 1000.0, 5 * SECOND
        self.arm = np.zeros(3)
        self.point = np.zeros(0) if point is None else point
        self.stamp = 0
        self.commands: list[tuple[float, np.ndarray]] = []

    def let(self, seconds: float, wall: float | None = None) -> None:
        self.now += seconds
        self.wall += int((seconds if wall is None else wall) * SECOND)

    def state(self, measured: np.ndarray | None = None, offset: float = 0.0, finite: bool = True) -> Reason:
        self.stamp = self.wall + int(offset * SECOND)
        measured = self.arm if measured is None else measured
        return self.gate.state(self.now, self.wall, self.stamp, self.point, finite, measured)

    def beat(self, epoch: int = 1) -> None:
        self.gate.heartbeat(self.now, epoch)

    def chunk(self, actions: np.ndarray, offset_ns: int = 0, names=NAMES) -> Reason:
        return self.gate.chunk(self.now, self.wall, self.stamp + offset_ns, names, actions)

    def tick(self) -> Decision:
        decision = self.gate.tick(self.now)
        if decision.command is not None:
            self.commands.append((self.now, decision.command))
            self.arm = np.where(BOUNDS.paced, 0.0, decision.command)
        return decision

    def go(self, seconds: float, dt: float = 0.01, beat: bool = True) -> Decision:
        """Time in which state and heartbeat arrive at every tick."""
        decision = self.tick()
        for _ in range(round(seconds / dt)):
            self.let(dt)
            self.state()
            if beat:
                self.beat()
            decision = self.tick()
        return decision

    def run(self, target: np.ndarray, steps: int = 8) -> Decision:
        """Engaged, on the way along a straight line from rest to `target`."""
        self.go(0.02)
        assert self.gate.engage(self.now) is Reason.NONE
        assert self.tick().request is not None
        assert self.chunk(ramp(self.arm, target, steps)) is Reason.NONE
        return self.tick()


def ramp(start: np.ndarray, end: np.ndarray, steps: int = 8) -> np.ndarray:
    """(K, A) a straight line that begins at `start`."""
    return start + np.linspace(0, 1, steps)[:, None] * (end - start)
