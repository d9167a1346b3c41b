"""Laws of smooth commands: limits hold whatever is asked, however long a step is; a stop is at hand."""

from dataclasses import replace

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robopolicy.errors import BadInput
from ros_nodes.motion import Bounds, Motion, Moving, stop

_JOINTS = 3
_EXACT = 1e-6


def _bounds(size=_JOINTS, low=-1.0, high=1.5, speed=1.0, acceleration=5.0, jerk=80.0, paced=False):
    full = (np.full(size, float(x)) for x in (low, high, speed, acceleration, jerk))
    return Bounds(tuple(f"j{i}" for i in range(size)), *full, np.full(size, paced))


def _array(low, high):
    return hnp.arrays(np.float64, _JOINTS, elements=st.floats(low, high))


@st.composite
def _bounded(draw):
    low = draw(_array(-3, 0))
    return Bounds(
        ("a", "b", "c"),
        low,
        low + draw(_array(0.01, 4)),
        draw(_array(0.05, 3)),
        draw(_array(0.2, 20)),
        draw(_array(2, 500)),
        draw(hnp.arrays(bool, _JOINTS)),
    )


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["follow", "follow", "brake"]),
        _array(-6, 6),
        _array(-4, 4),
        st.floats(0.0005, 0.1),
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None, derandomize=True)
@given(bounds=_bounded(), where=_array(0, 1), steps=_STEPS)
def test_motion_arbitrary_targets_and_steps_stay_inside_all_limits_and_can_stop(bounds, where, steps):
    motion = Motion(bounds, bounds.low + where * (bounds.high - bounds.low))
    for how, target, speed, dt in steps:
        before = motion.now
        motion.follow(target, speed, dt) if how == "follow" else motion.brake(dt)
        _inside(bounds, motion.now)
        assert (np.abs(motion.now.a - before.a) <= bounds.jerk * dt * (1 + _EXACT)).all()
        assert (np.abs(motion.now.q - before.q) <= bounds.speed * dt * (1 + _EXACT)).all()
        for state in stop(motion.now, bounds.acceleration, bounds.jerk):
            _inside(bounds, state)
    left = motion.seconds_to_rest()
    motion.brake(left * (1 + 1e-9) + 1e-9)
    assert motion.resting
    _inside(bounds, motion.now)


def _inside(bounds, moving):
    slack = _EXACT * (bounds.high - bounds.low)
    assert (moving.q >= bounds.low - slack).all()
    assert (moving.q <= bounds.high + slack).all()
    assert (np.abs(moving.v) <= bounds.speed * (1 + _EXACT)).all()
    assert (np.abs(moving.a) <= bounds.acceleration * (1 + _EXACT)).all()


@settings(deadline=None, derandomize=True)
@given(v=_array(-2, 2), a=_array(-5, 5), t=st.floats(0, 2))
def test_stop_of_any_state_ends_at_rest_and_shows_all_extremes(v, a, t):
    motion = _moving(v, a)
    stages = stop(motion.now, np.full(_JOINTS, 5.0), np.full(_JOINTS, 80.0))
    assert np.allclose(stages[-1].v, 0, atol=1e-9)
    assert np.allclose(stages[-1].a, 0, atol=1e-9)
    motion.brake(t)
    for name in ("q", "v"):
        seen = np.stack([getattr(s, name) for s in stages])
        value = getattr(motion.now, name)
        assert (value >= seen.min(0) - 1e-9).all()
        assert (value <= seen.max(0) + 1e-9).all()


def _moving(v, a):
    motion = Motion(_bounds(low=-9, high=9, speed=9), np.zeros(_JOINTS))
    motion.now = Moving(np.zeros(_JOINTS), v, a)
    return motion


@settings(deadline=None, derandomize=True)
@given(v=_array(-2, 2), a=_array(-5, 5), cut=st.floats(0, 1))
def test_stop_taken_in_two_parts_ends_where_the_whole_ends(v, a, cut):
    motion = _moving(v, a)
    end = stop(motion.now, np.full(_JOINTS, 5.0), np.full(_JOINTS, 80.0))[-1].q
    whole = motion.seconds_to_rest()
    motion.brake(cut * whole)
    motion.brake((1 - cut) * whole + 1e-6)
    assert np.allclose(motion.now.q, end, atol=1e-7)


def test_motion_brake_speed_falls_once_acceleration_has_turned():
    motion = Motion(_bounds(), np.zeros(_JOINTS))
    for _ in range(20):
        motion.follow(np.full(_JOINTS, 1.4), np.zeros(_JOINTS), 0.01)
    speeds = []
    while not motion.resting:
        motion.brake(0.002)
        speeds.append(np.abs(motion.now.v))
    fell = np.diff(np.array(speeds), axis=0) <= 1e-12
    turned = int(np.ceil(5.0 / 80.0 / 0.002))
    assert fell[turned:].all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(target=_array(-1.0, 1.5), dt=st.floats(0.01, 0.05))
def test_motion_still_target_is_reached_without_passing_it(target, dt):
    motion = Motion(_bounds(), np.zeros(_JOINTS))
    path = np.array([motion.follow(target, np.zeros(_JOINTS), dt) for _ in range(int(3 / dt))])
    assert np.allclose(path[-1], target, atol=1e-4)
    assert (np.abs(path) <= np.abs(target) + 5e-4).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(speed=_array(-0.9, 0.9), dt=st.floats(0.01, 0.05))
def test_motion_paced_reaches_the_speed_and_stops_before_a_wall(speed, dt):
    motion = Motion(_bounds(paced=True), np.zeros(_JOINTS))
    path = np.array([motion.follow(np.zeros(_JOINTS), speed, dt) for _ in range(int(0.6 / dt))])
    assert np.allclose(path[-1], speed, atol=1e-3)
    for _ in range(int(3 / dt)):
        motion.follow(np.zeros(_JOINTS), np.sign(speed), dt)
    walls = np.where(speed > 0, 1.5, -1.0)
    assert np.allclose(np.where(speed == 0, walls, motion.now.q), walls, atol=2e-2)


def test_motion_anchored_counts_only_what_is_paced():
    bounds = _bounds()
    motion = Motion(replace(bounds, paced=np.array([True, False, True])), np.zeros(_JOINTS))
    motion.anchor(np.full(_JOINTS, 0.7))
    assert motion.now.q.tolist() == [0.7, 0.0, 0.7]
    assert motion.command.tolist() == [0.0, 0.0, 0.0]


def test_motion_smooth_targets_inside_the_limits_are_followed_unchanged():
    motion, dt, missed = Motion(_bounds(), np.zeros(_JOINTS)), 0.01, []
    rate = np.array([0.3, 0.7, 1.1])
    for i in range(1, 800):
        t = i * dt
        target, speed = 0.8 * np.sin(rate * t), 0.8 * rate * np.cos(rate * t)
        missed.append(np.abs(motion.follow(target, speed, dt) - target))
    assert np.max(missed[200:]) < 1e-3


@given(size=st.floats(1e3, 1.7e308), dt=st.floats(0.001, 0.1), paced=st.booleans())
def test_motion_target_of_any_size_is_one_beyond_the_limit(size, dt, paced):
    huge, large = (Motion(_bounds(paced=paced), np.zeros(_JOINTS)) for _ in range(2))
    far, beyond = np.full(_JOINTS, size), np.full(_JOINTS, 1e3)
    for _ in range(5):
        assert np.array_equal(huge.follow(far, -far, dt), large.follow(beyond, -beyond, dt))


@pytest.mark.parametrize("side", [-1, 1])
def test_motion_target_beyond_a_limit_ends_at_rest_on_it(side):
    bounds = _bounds()
    motion = Motion(bounds, np.zeros(_JOINTS))
    for _ in range(600):
        command = motion.follow(np.full(_JOINTS, side * 50.0), np.full(_JOINTS, side * 3.0), 0.01)
    assert np.allclose(command, bounds.high if side > 0 else bounds.low, atol=1e-3)


def test_motion_at_rest_on_its_target_stays_exactly():
    motion = Motion(_bounds(), np.full(_JOINTS, 0.3))
    for dt in (0.01, 0.02, 0.005):
        assert (motion.follow(np.full(_JOINTS, 0.3), np.zeros(_JOINTS), dt) == 0.3).all()


def test_motion_started_outside_its_limits_names_the_joint():
    with pytest.raises(BadInput, match=r"start\.j1"):
        Motion(_bounds(), np.array([0.0, 1.6, 0.0]))
    with pytest.raises(BadInput, match=r"start\.j2"):
        Motion(_bounds(), np.array([0.0, 0.0, np.nan]))


@pytest.mark.parametrize(
    ("field", "value"),
    [("low", 2.0), ("high", np.inf), ("speed", 0.0), ("acceleration", -1.0), ("jerk", 0.0)],
)
def test_bounds_that_allow_nothing_are_refused(field, value):
    with pytest.raises(BadInput, match="bounds"):
        _bounds(**{field: value})
