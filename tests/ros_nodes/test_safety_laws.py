"""Laws of the gate, whatever arrives in whatever order."""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st
import numpy as np
from gate_bench import CENTRE, LIMITS, MAX_CHUNK, NAMES, SECOND, TIMING, Bench
from gate_machine import GateMachine, times
from hypothesis import given, settings
from hypothesis.stateful import invariant, rule

from ros_nodes.safety import Decision, Mode, Reason

SLACK = 1e-12

numbers = st.sampled_from([0.0, 0.01, -0.03, 0.05, 1.0, -1e6, 1e300, np.nan, np.inf, -np.inf])


class AnythingGoes(GateMachine):
    """Arbitrary interleavings of good, late, early, duplicate, NaN, huge, missing and clock-jumped input."""

    def __init__(self):
        super().__init__()
        self.bench = Bench()
        self.before = np.zeros(4)
        self.point = CENTRE
        self.last: Decision | None = None

    @rule(
        offset=st.sampled_from([0.0, 0.0, 0.0, -0.1, -1.0, 0.01, 10.0]),
        finite=st.booleans() | st.just(True),
        z=st.sampled_from([1.0, 1.0, 0.81, 0.7, 1.39, 5.0, np.nan]),
    )
    def state(self, offset, finite, z):
        point = np.array([0.0, 0.39, z])
        if self.bench.state(offset, point, finite) is Reason.NONE:
            self.point = point

    @rule(
        row=st.lists(numbers, min_size=4, max_size=4),
        length=st.sampled_from([0, 1, 8, MAX_CHUNK, MAX_CHUNK + 1]),
        offset_ns=st.sampled_from([0, 0, 0, -1, 1, SECOND // 100, SECOND]),
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
        self.bench.let(0.04)
        self.state(0.0, True, 1.0)
        self.tick()

    @rule()
    def engage(self):
        self.bench.gate.engage(self.bench.now)

    def came_to_rest(self):
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
    def nothing_moves_unless_running(self):
        if self.last is not None and self.last.command is not None:
            assert self.last.mode is Mode.RUNNING


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
