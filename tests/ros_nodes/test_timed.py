"""One example per fault that the gate of an arm driven by time must catch; its laws: test_timed_laws.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from crowded import CAMERAS, JOINTS, CrowdedBench
from timed_bench import BOUNDS, DRIVE, NAMES, TimedBench, ramp

from robopolicy.errors import BadInput
from ros_nodes.safety import Mode, Reason
from ros_nodes.timed import Drive

THERE = np.array([0.3, 0.6, 0.0])


def test_gate_engaged_follows_the_chunk_and_asks_for_the_next_before_its_end():
    bench = TimedBench()
    bench.run(THERE / 5)
    began, asked = bench.now, None
    while asked is None and bench.now < began + 1:
        asked = bench.go(0.01).request
    left = 0.4 - (bench.now - began)
    assert 0.17 < left <= 0.21
    assert np.allclose(bench.arm, THERE / 5 * (0.21 - 0.05) / 0.35, atol=0.01)


def test_gate_chunk_after_chunk_arrives_where_it_was_sent():
    bench = TimedBench()
    bench.run(THERE)
    bench.go(0.25)
    assert bench.chunk(np.tile(THERE, (12, 1))) is Reason.NONE
    bench.go(0.5)
    assert np.allclose(bench.arm, THERE, atol=1e-3)
    assert bench.gate.mode is Mode.RUNNING


def test_gate_ticked_faster_sends_one_command_per_period():
    bench = TimedBench()
    bench.run(THERE)
    before = len(bench.commands)
    bench.go(0.1, dt=0.002)
    assert 9 <= len(bench.commands) - before <= 13


def test_gate_end_of_the_chunk_brakes_to_rest_and_keeps_saying_where():
    bench = TimedBench()
    bench.run(THERE)
    bench.go(0.38)
    decision = bench.go(0.04)
    assert (decision.mode, decision.reason) == (Mode.HOLD, Reason.NO_CHUNK)
    bench.go(0.3)
    last = bench.commands[-1][1]
    bench.go(0.1)
    assert np.array_equal(bench.commands[-1][1], last)
    assert bench.gate.resting


def test_gate_policy_lost_stops_within_the_bound_of_its_limits_then_faults():
    bench = TimedBench()
    bench.run(THERE)
    bench.go(0.2)
    bench.gate.policy_lost()
    bound = bench.gate.seconds_to_rest()
    assert 0 < bound < 0.5
    assert bench.go(bound + 0.02, beat=False).reason is Reason.POLICY_LOST
    assert bench.gate.resting
    bench.go(0.6, beat=False)
    assert bench.gate.mode is Mode.FAULT
    held = len(bench.commands)
    bench.go(0.1, beat=False)
    assert len(bench.commands) > held


def test_gate_resumes_from_hold_only_near_where_it_rests():
    bench = TimedBench()
    bench.run(THERE)
    bench.go(0.6)
    assert bench.gate.mode is Mode.HOLD
    assert bench.chunk(np.tile(bench.arm + 0.2, (8, 1))) is Reason.CHUNK_FAR
    bench.go(0.01)
    assert bench.chunk(ramp(bench.arm, bench.arm + 0.2)) is Reason.NONE
    assert bench.go(0.02).mode is Mode.RUNNING


def test_gate_first_chunk_far_from_the_arm_refused():
    bench = TimedBench()
    bench.go(0.02)
    bench.gate.engage(bench.now)
    bench.tick()
    assert bench.chunk(np.tile(THERE, (8, 1))) is Reason.CHUNK_FAR
    assert bench.go(0.1).command is None
    assert bench.commands == []


def test_gate_after_a_refused_chunk_asks_for_one_of_a_newer_state():
    bench = TimedBench()
    bench.go(0.02)
    bench.gate.engage(bench.now)
    first = bench.tick().request
    bench.chunk(np.tile(THERE, (8, 1)))
    bench.let(0.01)
    bench.state()
    assert bench.tick().request > first


def test_gate_engage_outside_the_limits_refused():
    bench = TimedBench()
    bench.arm = np.array([0.0, -0.6, 0.0])
    bench.go(0.02)
    assert bench.gate.engage(bench.now) is Reason.WORKSPACE


@pytest.mark.parametrize("inside", [True, False])
def test_gate_guarded_point_outside_its_box_holds(inside):
    drive = replace(DRIVE, box_low=np.full(3, -0.2), box_high=np.full(3, 0.2))
    bench = TimedBench(drive, np.zeros(3))
    bench.run(THERE)
    bench.go(0.02)
    bench.point = np.full(3, 0.1 if inside else 0.3)
    decision = bench.go(0.05)
    assert decision.reason is Reason.WORKSPACE if not inside else decision.mode is Mode.RUNNING


def test_gate_arm_that_does_not_follow_holds():
    bench = TimedBench()
    bench.run(THERE)
    bench.go(0.3)
    stuck = bench.arm - np.array([0.0, 0.4, 0.0])
    bench.let(0.01)
    bench.state(stuck)
    decision = bench.tick()
    assert (decision.mode, decision.reason) == (Mode.HOLD, Reason.TRACKING)


def test_gate_what_was_late_of_a_chunk_is_skipped():
    bench = TimedBench()
    bench.go(0.02)
    bench.gate.engage(bench.now)
    bench.tick()
    stamp = bench.stamp
    bench.go(0.2)
    row = ramp(np.zeros(3), np.array([0.16, 0.16, 0.0]), 16)
    assert bench.gate.chunk(bench.now, bench.wall, stamp, NAMES, row) is Reason.NONE
    bench.go(0.3)
    assert np.allclose(bench.arm[:2], 0.16 * (0.51 - 0.05) / 0.75, atol=2e-3)


def test_gate_chunk_whose_time_is_over_refused():
    bench = TimedBench()
    bench.go(0.02)
    bench.gate.engage(bench.now)
    bench.tick()
    stamp = bench.stamp
    bench.go(0.2)
    assert bench.gate.chunk(bench.now, bench.wall, stamp, NAMES, np.zeros((3, 3))) is Reason.CHUNK_EXPIRED


def test_gate_asked_beyond_a_limit_for_long_faults():
    bench = TimedBench()
    bench.run(np.array([1.4, 0.0, 0.0]), 16)
    for _ in range(20):
        bench.go(0.1)
        bench.chunk(np.tile([1.4, 0.0, 0.0], (16, 1)))
    assert bench.gate.mode is Mode.FAULT
    assert bench.gate.reason is Reason.LIMITED
    assert max(c[0] for _, c in bench.commands) <= 1.0


def test_gate_velocity_is_scaled_and_ends_with_the_hold():
    bench = TimedBench()
    bench.run(np.array([0.0, 0.0, 0.005]))
    bench.go(0.3)
    assert np.isclose(bench.commands[-1][1][2], 20 * 0.005 * 0.75, atol=0.02)
    bench.go(0.6)
    assert bench.commands[-1][1][2] == 0


def test_gate_velocity_that_moves_the_point_stops_before_the_box():
    drive = replace(DRIVE, moved_by=(2,), box_low=np.array([-0.1]), box_high=np.array([0.1]))
    bench = TimedBench(drive, np.zeros(1))
    bench.run(np.array([0.0, 0.0, 0.01]), 16)
    for i in range(300):
        bench.go(0.01)
        bench.point = bench.point + 0.01 * bench.commands[-1][1][2]
        if i % 40 == 30:
            bench.chunk(np.tile([0.0, 0.0, 0.01], (16, 1)))
    assert 0.08 < bench.point[0] <= 0.1 + 1e-6


def test_gate_disengaged_in_motion_comes_to_rest_before_it_falls_silent():
    bench = TimedBench()
    bench.run(THERE)
    bench.go(0.2)
    bench.gate.disengage()
    assert bench.gate.engage(bench.now) is Reason.BUSY
    bench.go(0.5)
    assert bench.gate.resting
    silent = len(bench.commands)
    bench.go(0.1)
    assert len(bench.commands) == silent
    assert bench.gate.engage(bench.now) is Reason.NONE


@pytest.mark.parametrize("way", ["disengage", "reset"])
def test_gate_stopped_after_letting_go_does_not_send_the_arm_back(way):
    bench = TimedBench()
    bench.run(THERE)
    bench.go(0.2)
    if way == "reset":
        bench.gate.stop()
        bench.go(0.5)
        bench.gate.reset()
    else:
        bench.gate.disengage()
    bench.go(0.5)
    told = len(bench.commands)
    bench.arm = np.array([-0.4, 0.0, 0.0])  # moved by someone else
    bench.go(0.02)
    bench.gate.stop()
    bench.go(0.1)
    assert len(bench.commands) == told


def test_gate_fault_reset_in_motion_comes_to_rest_first():
    bench = TimedBench()
    bench.run(THERE)
    bench.go(0.2)
    bench.gate.stop()
    bench.tick()
    assert bench.gate.reset()
    bench.go(0.5)
    assert bench.gate.resting


def test_gate_suspended_goes_on_from_its_last_command():
    bench = TimedBench()
    bench.run(THERE)
    bench.go(0.2)
    last = bench.commands[-1][1]
    bench.let(5.0)
    decision = bench.tick()
    assert (decision.mode, decision.reason) == (Mode.HOLD, Reason.CLOCK)
    assert decision.command is not None
    assert (np.abs(decision.command - last) <= BOUNDS.speed * 0.02 + 1e-9).all()


def test_gate_single_action_is_a_place_to_be():
    bench = TimedBench()
    bench.run(np.zeros(3), 1)
    assert bench.go(0.03).mode is Mode.RUNNING
    assert np.array_equal(bench.arm, np.zeros(3))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scale", np.zeros(3)),
        ("start", np.array([0.1, np.nan, 0.1])),
        ("follow", np.ones(2)),
        ("moved_by", (0,)),
    ],
)
def test_drive_that_makes_no_sense_refused(field, value):
    with pytest.raises(BadInput):
        replace(DRIVE, box_low=np.zeros(1), box_high=np.ones(1), **{field: value})


def test_drive_empty_box_refused():
    with pytest.raises(BadInput, match="workspace"):
        Drive(100.0, BOUNDS, *(np.ones(3) for _ in range(3)), (), np.ones(3), np.zeros(3))


def test_gate_state_from_the_future_or_non_finite_refused():
    bench = TimedBench()
    assert bench.state(offset=1.0) is Reason.STATE_STAMP
    assert bench.state(np.array([0.0, np.nan, 0.0])) is Reason.STATE_INVALID


def test_gate_of_an_arm_among_500_joints_moves_it_and_nothing_else():
    bench = CrowdedBench()
    for _ in range(10):
        bench.step()
    assert bench.engage() is Reason.NONE
    for _ in range(200):
        decision = bench.step()
    assert decision.mode is Mode.RUNNING
    assert np.allclose(np.rad2deg(bench.arm[:6]), 20, atol=0.5)
    assert len(bench.arm) == JOINTS
    assert not bench.arm[6:].any()


@pytest.mark.parametrize("blind", [f"camera{i}" for i in range(CAMERAS)])
def test_gate_with_8_cameras_any_of_which_is_blind_rests(blind):
    bench = CrowdedBench()
    for _ in range(10):
        bench.step()
    assert bench.engage() is Reason.NONE
    for _ in range(40):
        bench.step()
    for _ in range(60):
        decision = bench.step(blind)
    assert (decision.mode, decision.reason) == (Mode.HOLD, Reason.CAMERA_STALE)
    assert bench.gate.resting
