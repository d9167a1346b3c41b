"""Laws of the gate, whatever arrives in whatever order; then one example per fault."""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ros_nodes.limits import Limits, Timing
from ros_nodes.safety import Decision, Gate, Mode, Reason

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
SLACK = 1e-12

times = st.sampled_from([0.0, 0.001, 0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 1.5, 3600.0, -0.001, -1.0, -3600.0])
numbers = st.sampled_from([0.0, 0.01, -0.03, 0.05, 1.0, -1e6, 1e300, np.nan, np.inf, -np.inf])


class Bench:
    """A gate with its two clocks; everything that is done to it can be done to another one again."""

    def __init__(self):
        self.gate = Gate(LIMITS, TIMING, MAX_CHUNK)
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
        return self.tick()


class AnythingGoes(RuleBasedStateMachine):
    """Arbitrary interleavings of good, late, early, duplicate, NaN, huge, missing and clock-jumped input."""

    def __init__(self):
        super().__init__()
        self.bench = Bench()
        self.before = np.zeros(4)
        self.point = CENTRE
        self.latched = False
        self.last: Decision | None = None

    @rule(seconds=times, wall=times | st.none())
    def time_passes(self, seconds, wall):
        self.bench.let(seconds, wall)

    @rule(
        offset=st.sampled_from([0.0, 0.0, 0.0, -0.1, -1.0, 0.01, 10.0]),
        finite=st.booleans() | st.just(True),
        z=st.sampled_from([1.0, 1.0, 0.81, 0.7, 1.39, 5.0, np.nan]),
    )
    def state(self, offset, finite, z):
        point = np.array([0.0, 0.39, z])
        if self.bench.state(offset, point, finite) is Reason.NONE:
            self.point = point

    @rule(epoch=st.sampled_from([1, 1, 1, 2]))
    def beat(self, epoch):
        self.bench.beat(epoch)

    @rule(
        row=st.lists(numbers, min_size=4, max_size=4),
        length=st.sampled_from([0, 1, 8, MAX_CHUNK, MAX_CHUNK + 1]),
        offset_ns=st.sampled_from([0, 0, 0, -1, 1, SECOND]),
        names=st.sampled_from([NAMES, NAMES, NAMES[::-1], NAMES[:3], (*NAMES[:3], "dx"), (*NAMES, "roll")]),
    )
    def chunk(self, row, length, offset_ns, names):
        self.bench.chunk(np.tile(row, (length, 1)), offset_ns, names)

    @rule(row=st.lists(st.floats(-0.2, 0.2), min_size=4, max_size=4))
    def normal_life(self, row):
        self.bench.let(0.04)
        self.state(0.0, True, 1.0)
        self.bench.beat()
        self.tick()
        self.bench.gate.engage(self.bench.now)
        self.tick()
        self.bench.chunk(np.tile(row, (8, 1)))
        self.tick()

    @rule()
    def engage(self):
        self.bench.gate.engage(self.bench.now)

    @rule()
    def disengage(self):
        self.bench.gate.disengage()
        self.before = np.zeros(4)

    @rule()
    def policy_lost(self):
        self.bench.gate.policy_lost()

    @rule(yes=st.sampled_from([True, True, True, False]))
    def alone(self, yes):
        self.bench.gate.alone(yes)

    @rule()
    def stop(self):
        self.bench.gate.stop()

    @rule()
    def reset(self):
        if self.bench.gate.reset():
            self.latched = False
            self.before = np.zeros(4)

    @rule()
    def tick(self):
        decision = self.bench.tick()
        self.last = decision
        if decision.command is None:
            if decision.hold or decision.mode is not Mode.RUNNING:
                self.before = np.zeros(4)
            return
        assert decision.mode is Mode.RUNNING
        assert not decision.hold
        command = decision.command
        assert np.isfinite(command).all()
        assert (command >= LIMITS.low - SLACK).all()
        assert (command <= LIMITS.high + SLACK).all()
        after = self.point + command[:3]
        outward = (after < LIMITS.box_low - SLACK) & (command[:3] < 0)
        outward |= (after > LIMITS.box_high + SLACK) & (command[:3] > 0)
        assert not outward.any()
        faster = np.abs(command) - np.where(command * self.before > 0, np.abs(self.before), 0)
        assert (faster <= LIMITS.max_change + SLACK).all()
        self.before = command

    @invariant()
    def fault_is_latched(self):
        assert not self.latched or self.bench.gate.mode is Mode.FAULT
        self.latched = self.bench.gate.mode is Mode.FAULT

    @invariant()
    def nothing_moves_unless_running(self):
        if self.last is not None and self.last.command is not None:
            assert self.last.mode is Mode.RUNNING

    @invariant()
    def every_stop_has_a_reason(self):
        if self.bench.gate.mode in (Mode.HOLD, Mode.FAULT):
            assert self.bench.gate.reason is not Reason.NONE


AnythingGoes.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True
)
test_gate_anything_goes_keeps_its_laws = AnythingGoes.TestCase


script = st.lists(
    st.tuples(st.sampled_from(["state", "beat", "chunk", "tick", "engage", "lost"]), times), max_size=60
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(script)
def test_gate_same_inputs_twice_same_decisions(events):
    def play() -> list[Decision]:
        bench, decisions = Bench(), []
        bench.run()
        for kind, seconds in events:
            bench.let(seconds)
            if kind == "engage":
                bench.gate.engage(bench.now)
            elif kind == "lost":
                bench.gate.policy_lost()
            elif kind == "tick":
                decisions.append(bench.tick())
            else:
                getattr(bench, kind)()
        return decisions

    for a, b in zip(play(), play(), strict=True):
        assert np.array_equal(a.command, b.command) if a.command is not None else b.command is None
        assert dataclasses.replace(a, command=None) == dataclasses.replace(b, command=None)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    missing=st.sampled_from(["state", "beat", "chunk", "all"]),
    after=st.integers(0, 12),
    rate=st.sampled_from([0.002, 0.01, 0.02]),
)
def test_gate_input_missing_holds_within_bound(missing, after, rate):
    """Whatever stops coming, hold is out within its deadline plus one tick and one control step."""
    bench = Bench()
    bench.run()
    for _ in range(after):
        if bench.step().request is not None:
            bench.chunk()
            bench.tick()
    waited = 0.0
    # What is left of the chunk may be played if only chunks are missing.
    limit = TIMING.heartbeat_max_age_s + TIMING.period_s + rate
    limit += 8 * TIMING.period_s if missing == "chunk" else 0.0
    next_state = TIMING.period_s
    while True:
        bench.let(rate)
        waited += rate
        if waited >= next_state:
            next_state += TIMING.period_s
            if missing in ("beat", "chunk"):
                bench.state()
            if missing in ("state", "chunk"):
                bench.beat()
        if bench.tick().hold:
            break
        assert waited <= limit, bench.gate.mode
    assert bench.gate.mode is Mode.HOLD


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    wanted=st.lists(st.floats(-1e9, 1e9), min_size=4, max_size=4),
    before=st.lists(st.floats(-0.05, 0.05), min_size=4, max_size=4),
    point=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
)
def test_clamp_any_request_is_idempotent_and_leaves_rest_alone(wanted, before, point):
    wanted, before, point = np.array(wanted), np.array(before), np.array(point)
    once = LIMITS.clamp(wanted, before, point)
    assert np.array_equal(LIMITS.clamp(once, before, point), once)
    assert np.array_equal(LIMITS.clamp(LIMITS.hold, before, point), LIMITS.hold)


def test_clamp_just_inside_unchanged_just_outside_limited():
    inside = np.array([0.0199, -0.0199, 0.0199, 0.99])
    assert np.array_equal(LIMITS.clamp(inside, np.zeros(4), CENTRE), inside)
    outside = np.array([0.0201, -0.0201, 0.06, 1.01])
    assert np.allclose(LIMITS.clamp(outside, np.zeros(4), CENTRE), [0.02, -0.02, 0.02, 1.0])


def test_gate_engaged_plays_chunk_then_asks_for_the_next():
    bench = Bench()
    assert bench.run().command is not None
    answers = [bench.step() for _ in range(7)]
    assert all(d.command is not None and d.answers == bench.gate._stamps[i - 7] for i, d in enumerate(answers))
    assert answers[-1].request == bench.stamp
    assert [d.request for d in answers[:-1]] == [None] * 6


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        (lambda b: b.chunk(np.full((8, 4), np.nan)), Reason.CHUNK_NONFINITE),
        (lambda b: b.chunk(np.array([[0, 0, 0, np.inf]])), Reason.CHUNK_NONFINITE),
        (lambda b: b.chunk(np.zeros((8, 3))), Reason.CHUNK_SIZE),
        (lambda b: b.chunk(np.zeros((0, 4))), Reason.CHUNK_SIZE),
        (lambda b: b.chunk(np.zeros((MAX_CHUNK + 1, 4))), Reason.CHUNK_SIZE),
        (lambda b: b.chunk(names=("dx", "dy", "dz", "yaw")), Reason.CHUNK_NAMES),
        (lambda b: b.chunk(names=("dx", "dy", "dz", "dx")), Reason.CHUNK_NAMES),
        (lambda b: b.chunk(offset_ns=-1), Reason.CHUNK_STAMP),
        (lambda b: b.chunk(offset_ns=SECOND), Reason.CHUNK_STAMP),
    ],
)
def test_gate_malformed_chunk_refused_and_counted(poison, reason):
    bench = Bench()
    bench.step()
    bench.gate.engage(bench.now)
    bench.tick()
    assert poison(bench) is reason
    assert bench.gate.refused[reason] == 1
    assert bench.tick().command is None


def test_gate_chunk_of_old_observation_refused():
    bench = Bench()
    bench.step()
    bench.gate.engage(bench.now)
    bench.tick()
    bench.let(0.0, wall=0.5)
    assert bench.chunk() is Reason.CHUNK_STAMP


def test_gate_duplicate_or_unasked_chunk_refused():
    bench = Bench()
    bench.run()
    assert bench.chunk() is Reason.CHUNK_UNASKED


def test_gate_names_permuted_gives_the_same_command():
    row = np.array([0.01, 0.002, -0.003, 1.0])
    commands = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        bench = Bench()
        bench.step()
        bench.gate.engage(bench.now)
        bench.tick()
        bench.chunk(np.tile(row[order], (8, 1)), names=[NAMES[i] for i in order])
        commands.append(bench.tick().command)
    assert np.array_equal(commands[0], commands[1])


@pytest.mark.parametrize("offset", [-1.0, 10.0])
def test_gate_state_stale_or_from_the_future_refused(offset):
    assert Bench().state(offset) is Reason.STATE_STAMP


def test_gate_same_state_twice_refused():
    bench = Bench()
    bench.state()
    assert bench.state() is Reason.STATE_STAMP


@pytest.mark.parametrize("missing", ["state", "beat"])
def test_gate_engage_without_input_refused(missing):
    bench = Bench()
    if missing == "state":
        bench.beat()
    else:
        bench.state()
    assert bench.gate.engage(bench.now) is (Reason.NO_STATE if missing == "state" else Reason.POLICY_LOST)
    assert bench.gate.mode is Mode.DISARMED


def test_gate_policy_lost_holds_at_the_next_tick_then_faults():
    bench = Bench()
    bench.run()
    bench.gate.policy_lost()
    decision = bench.tick()
    assert decision.hold
    assert (decision.mode, decision.reason) == (Mode.HOLD, Reason.POLICY_LOST)
    for _ in range(25):
        bench.let(0.05)
        bench.state()
        decision = bench.tick()
        assert decision.hold
    assert (decision.mode, decision.reason) == (Mode.FAULT, Reason.POLICY_LOST)


def test_gate_server_restarted_faults():
    bench = Bench()
    bench.run()
    bench.beat(epoch=2)
    assert bench.tick().hold
    assert bench.gate.reason is Reason.EPOCH


def test_gate_second_publisher_faults_and_blocks_engaging():
    bench = Bench()
    bench.run()
    bench.gate.alone(False)
    assert bench.tick().reason is Reason.TWO_PUBLISHERS
    bench.gate.reset()
    bench.step()
    assert bench.gate.engage(bench.now) is Reason.TWO_PUBLISHERS


@pytest.mark.parametrize("jump", [-3600.0, -0.001, 0.3, 3600.0])
def test_gate_clock_jumps_holds_and_drops_the_chunk(jump):
    bench = Bench()
    bench.run()
    bench.let(jump)
    decision = bench.tick()
    assert decision.hold
    assert decision.reason is Reason.CLOCK
    assert bench.step().command is None


def test_gate_held_then_fresh_chunk_resumes():
    bench = Bench()
    bench.run()
    for _ in range(9):
        bench.step()
    assert bench.gate.mode is Mode.HOLD
    assert bench.chunk() is Reason.NONE
    bench.let(0.01)
    bench.state()
    assert bench.tick().mode is Mode.RUNNING


def test_gate_disengaged_says_hold_once_and_then_nothing():
    bench = Bench()
    bench.run()
    bench.gate.disengage()
    assert bench.tick().hold
    decision = bench.step()
    assert not decision.hold
    assert decision.command is None


def test_gate_stop_from_any_mode_latches_until_reset():
    bench = Bench()
    bench.gate.stop()
    bench.step()
    assert bench.gate.engage(bench.now) is Reason.BUSY
    bench.gate.disengage()
    assert bench.gate.mode is Mode.FAULT
    assert bench.gate.reset()
    assert bench.gate.mode is Mode.DISARMED
    assert not bench.gate.reset()
