"""One example per fault that the gate must catch; its laws are in test_safety_laws.py."""

from __future__ import annotations

import numpy as np
import pytest
from gate_bench import CENTRE, LIMITS, MAX_CHUNK, NAMES, SECOND, TIMING, Bench

from ros_nodes.safety import Mode, Reason


def test_clamp_just_inside_unchanged_just_outside_limited():
    inside = np.array([0.0199, -0.0199, 0.0199, 0.99])
    assert np.array_equal(LIMITS.clamp(inside, np.zeros(4), CENTRE), inside)
    outside = np.array([0.0201, -0.0201, 0.06, 1.01])
    assert np.allclose(LIMITS.clamp(outside, np.zeros(4), CENTRE), [0.02, -0.02, 0.02, 1.0])


def test_gate_engaged_plays_chunk_then_asks_for_the_next():
    bench = Bench()
    assert bench.run().command is not None
    answers = [bench.step() for _ in range(7)]
    assert all(d.command is not None for d in answers)
    assert [d.answers for d in answers] == list(bench.gate._stamps)[-7:]
    assert answers[-1].request == bench.stamp
    assert [d.request for d in answers[:-1]] == [None] * 6


def test_gate_answers_each_state_once_however_often_an_arm_at_rest_repeats_it():
    bench = Bench()
    bench.step()
    assert bench.gate.engage(bench.now) is Reason.NONE
    assert bench.tick().request is not None
    assert bench.chunk() is Reason.NONE
    # The chunk came some time after the state: the arm may have said it again, with a new stamp, by now.
    assert bench.tick().command is None
    bench.let(0.04)
    assert bench.state() is Reason.NONE
    bench.let(0.02)
    assert bench.tick().command is not None
    # What was measured before that command is not what has become of it.
    assert bench.state(offset=-0.01) is Reason.NONE
    assert bench.tick().command is None
    assert bench.step().command is not None


def _at_the_end_of_a_chunk() -> Bench:
    """The next one has been asked for; its state is about to come."""
    bench = Bench()
    bench.run()
    while bench.step().request is None:
        pass
    bench.let(0.05)
    bench.beat()
    return bench


def test_gate_chunk_that_overtakes_its_state_waits_for_it():
    bench = _at_the_end_of_a_chunk()
    coming = bench.wall - bench.stamp
    assert bench.chunk(offset_ns=coming) is Reason.NONE
    assert bench.tick().command is None
    assert bench.state() is Reason.NONE
    assert bench.tick().command is not None
    assert sum(bench.gate.refused.values()) == 0


def test_gate_chunk_of_a_state_that_never_comes_is_refused_with_the_next():
    bench = _at_the_end_of_a_chunk()
    assert bench.chunk(offset_ns=bench.wall - bench.stamp - 1) is Reason.NONE
    assert bench.state() is Reason.NONE
    assert bench.tick().command is None
    assert bench.gate.refused == {Reason.CHUNK_STAMP: 1}


def test_gate_held_up_answers_only_the_first_of_the_states_that_waited():
    bench = Bench()
    bench.run()
    bench.let(0.2)
    bench.beat()
    commands = []
    for late in (0.14, 0.09, 0.04):
        assert bench.state(offset=-late) is Reason.NONE
        commands.append(bench.tick().command)
    assert [c is not None for c in commands] == [True, False, False]
    assert bench.step().command is not None


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


def test_gate_armed_with_a_first_answer_too_late_asks_for_a_newer_state():
    bench = Bench()
    bench.step()
    assert bench.gate.engage(bench.now) is Reason.NONE
    first = bench.tick().request
    assert first == bench.stamp - 1
    asked = bench.stamp
    for _ in range(9):
        bench.step()
    assert bench.chunk(offset_ns=asked - bench.stamp) is Reason.CHUNK_STAMP
    bench.let(TIMING.ask_again_s - 9 * TIMING.period_s + 0.01)
    # Whoever has answered the first request does not answer the same one again.
    assert bench.tick().request == bench.stamp - 1 > asked


def test_gate_chunk_that_is_played_too_slowly_expires():
    bench = Bench()
    bench.run()
    # Seven actions are left; states come so slowly that the chunk's life is over after six.
    seconds = 0.12
    modes = [bench.step(seconds).mode for _ in range(7)]
    assert modes == [Mode.RUNNING] * 6 + [Mode.HOLD]
    assert 6 * seconds < TIMING.chunk_life_s < 7 * seconds
    assert bench.gate.reason is Reason.CHUNK_EXPIRED


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


def test_gate_steady_clock_goes_back_and_the_arm_goes_on_with_a_new_chunk():
    bench = Bench()
    bench.run()
    bench.let(-3600.0, wall=0.05)
    assert bench.tick().reason is Reason.CLOCK
    assert bench.step().request is not None
    assert bench.chunk() is Reason.NONE
    assert bench.step().command is not None
    assert bench.step().command is not None


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
