"""Laws of the gate of an arm driven by time, whatever arrives in whatever order; what an arm then does."""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st
import numpy as np
from gate_machine import GateMachine, times
from hypothesis import given, settings
from hypothesis.stateful import invariant, rule
from timed_bench import BOUNDS, MAX_CHUNK, NAMES, SECOND, TIMING, TimedBench, ramp

from ros_nodes.safety import Decision, Mode, Reason

_EXACT = 1e-6
numbers = st.sampled_from([0.0, 0.01, -0.03, 0.5, 1.0, -1e6, 1e300, np.nan, np.inf, -np.inf])
targets = st.lists(st.floats(-1.5, 1.5), min_size=3, max_size=3).map(np.array)


class AnythingGoes(GateMachine):
    """Arbitrary interleavings of good, late, early, duplicate, NaN, huge, missing and clock-jumped input."""

    def __init__(self):
        super().__init__()
        self.bench = TimedBench()
        self.seen = self.began = 0

    @rule(offset=st.sampled_from([0.0, 0.0, -0.1, 0.01, 10.0]), finite=st.booleans(), off=numbers)
    def state(self, offset, finite, off):
        self.bench.state(self.bench.arm + off, offset, finite)

    @rule(
        row=st.lists(numbers, min_size=3, max_size=3),
        length=st.sampled_from([0, 1, 8, MAX_CHUNK, MAX_CHUNK + 1]),
        offset_ns=st.sampled_from([0, 0, 0, -1, 1, SECOND]),
        names=st.sampled_from([NAMES, NAMES, NAMES[::-1], NAMES[:2], (*NAMES[:2], "elbow"), (*NAMES, "z")]),
    )
    def chunk(self, row, length, offset_ns, names):
        self.bench.chunk(np.tile(row, (length, 1)), offset_ns, names)

    @rule(end=targets, seconds=st.sampled_from([0.05, 0.2, 0.4]), dt=st.sampled_from([0.004, 0.01, 0.017]))
    def normal_life(self, end, seconds, dt):
        self.bench.go(0.02)
        self.engage()
        self.bench.tick()
        self.bench.chunk(ramp(self.bench.arm, end))
        self.bench.go(seconds, dt)

    @rule()
    def engage(self):
        if self.bench.gate.engage(self.bench.now) is Reason.NONE:
            self.seen = self.began = len(self.bench.commands)

    @rule()
    def tick(self):
        self.bench.tick()

    @invariant()
    def commands_keep_all_limits(self):
        for i in range(self.seen, len(self.bench.commands)):
            _within(self.bench.commands[i][1])
            if i > self.began:
                _near(*self.bench.commands[i - 1 : i + 1])
        self.seen = len(self.bench.commands)

    @invariant()
    def the_quickest_stop_stays_at_hand(self):
        motion = self.bench.gate._motion
        if motion is not None:
            assert (np.abs(motion.now.v) <= BOUNDS.speed * (1 + _EXACT)).all()
            assert (np.abs(motion.now.a) <= BOUNDS.acceleration * (1 + _EXACT)).all()
            assert motion.seconds_to_rest() < 1.0


def _within(command: np.ndarray) -> None:
    assert np.isfinite(command).all()
    assert (command >= np.where(BOUNDS.paced, -BOUNDS.speed, BOUNDS.low) - _EXACT).all()
    assert (command <= np.where(BOUNDS.paced, BOUNDS.speed, BOUNDS.high) + _EXACT).all()


def _near(before: tuple[float, np.ndarray], after: tuple[float, np.ndarray]) -> None:
    """A command is as near to the one before as the time between them demands."""
    passed = after[0] - before[0]
    # When the clock went back nothing is known but that no command moves on by more than two periods.
    passed = passed if passed >= 0.0075 - _EXACT else 0.02
    most = np.where(BOUNDS.paced, BOUNDS.acceleration, BOUNDS.speed) * passed
    assert (np.abs(after[1] - before[1]) <= most + _EXACT).all()


AnythingGoes.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, derandomize=True
)
test_gate_anything_goes_keeps_its_laws = AnythingGoes.TestCase


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    target=targets,
    after=st.floats(0.02, 0.35),
    silent=st.sampled_from(["state", "beat"]),
    dt=st.sampled_from([0.005, 0.01, 0.02]),
)
def test_gate_input_missing_rests_within_its_deadline_and_the_quickest_stop(target, after, silent, dt):
    bench = TimedBench()
    bench.run(target)
    bench.go(after)
    deadline = TIMING.state_max_age_s if silent == "state" else TIMING.heartbeat_max_age_s
    left = np.inf
    waited = 0.0
    while waited < deadline + left + 3 * dt:
        bench.let(dt)
        waited += dt
        if silent == "state":
            bench.beat()
        else:
            bench.state()
        bench.tick()
        if bench.gate.mode is not Mode.RUNNING and left == np.inf:
            left = bench.gate.seconds_to_rest()
    assert bench.gate.resting
    assert bench.gate.mode in (Mode.HOLD, Mode.FAULT)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["go", "chunk", "tick", "engage", "lost"]), times), max_size=30))
def test_gate_same_inputs_twice_same_decisions(events):
    def play() -> list[Decision]:
        bench, decisions = TimedBench(), []
        bench.run(np.array([0.3, 0.6, 0.004]))
        for kind, seconds in events:
            bench.let(seconds)
            if kind == "go":
                decisions.append(bench.go(0.05))
            elif kind == "engage":
                bench.gate.engage(bench.now)
            elif kind == "lost":
                bench.gate.policy_lost()
            elif kind == "tick":
                decisions.append(bench.tick())
            else:
                bench.chunk(ramp(bench.arm, np.zeros(3)))
        return decisions

    for a, b in zip(play(), play(), strict=True):
        assert np.array_equal(a.command, b.command) if a.command is not None else b.command is None
        assert dataclasses.replace(a, command=None) == dataclasses.replace(b, command=None)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), lag=st.floats(0.0, 0.05), dropped=st.floats(0.0, 0.4))
def test_arm_with_latency_noise_and_dropouts_stays_inside_and_keeps_up(seed, lag, dropped):
    """The arm itself, not only its commands: it follows, as a first-order lag, the last one that arrived."""
    rng, bench = np.random.default_rng(seed), TimedBench()
    bench.go(0.02)
    bench.gate.engage(bench.now)
    bench.tick()
    arm, goal, under_way = np.zeros(3), np.zeros(3), []
    for i in range(250):
        bench.let(0.01)
        if rng.random() >= dropped:
            bench.state(arm + rng.normal(0, 1e-4, 3))
        if rng.random() >= dropped:
            bench.beat()
        if i % 20 == 0:
            bench.chunk(ramp(bench.arm, rng.uniform(-2, 2, 3), 10))
        before = len(bench.commands)
        bench.tick()
        under_way += [(bench.now + lag, c) for _, c in bench.commands[before:] if rng.random() >= dropped]
        for _, c in [x for x in under_way if x[0] <= bench.now]:
            goal = np.where(BOUNDS.paced, 0.0, c)
        under_way = [x for x in under_way if x[0] > bench.now]
        # A driver that goes to what it was told last, no faster than it may.
        arm = arm + np.clip(0.3 * (goal - arm), -BOUNDS.speed * 0.01, BOUNDS.speed * 0.01)
        assert (arm[:2] >= BOUNDS.low[:2] - _EXACT).all()
        assert (arm[:2] <= BOUNDS.high[:2] + _EXACT).all()
        motion = bench.gate._motion
        if motion is not None and dropped == 0:
            # Behind its command by the lag and three periods, at most, while commands arrive.
            assert (np.abs(arm - goal)[:2] <= BOUNDS.speed[:2] * (lag + 0.05)).all()
    assert bench.gate.played > 0
