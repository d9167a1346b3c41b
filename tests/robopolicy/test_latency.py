"""Latency: timed by the clock that is given; the advice follows from it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from steering_toy import FlippingPolicy, ToyPolicy

from robopolicy.errors import BadInput
from robopolicy.latency import chunk_ms, execution
from robopolicy.rollout import PriorSteerer


@pytest.mark.parametrize("policy", [ToyPolicy(), FlippingPolicy()])
def test_chunk_ms_is_what_the_clock_says_of_each_chunk(policy):
    ticks = itertools.count()
    times = chunk_ms(policy, PriorSteerer(), 7, 0, clock=lambda: 0.004 * next(ticks))
    assert times.tolist() == pytest.approx([4.0] * 7)


def test_execution_of_a_chunk_of_eight_at_twenty_hertz():
    fast, slow, hopeless = (execution(ms, 20, 8) for ms in (3, 120, 500))
    assert (fast.late_steps, fast.ask_after_steps) == (1, 7)
    assert (slow.late_steps, slow.ask_after_steps) == (3, 5)
    assert (hopeless.late_steps, hopeless.ask_after_steps) == (10, 0)
    assert slow.waiting_share == pytest.approx(120 / 520)


@given(st.floats(0.1, 1e4), st.floats(1, 200), st.integers(1, 50))
def test_execution_asked_then_is_there_in_time_and_asked_later_is_not(latency_ms, fps, chunk):
    advice, period_ms = execution(latency_ms, fps, chunk), 1000 / fps
    left = chunk - advice.ask_after_steps
    if advice.ask_after_steps:
        assert latency_ms <= left * period_ms * (1 + 1e-9)
        assert latency_ms > (left - 1) * period_ms * (1 - 1e-9)
    else:
        assert latency_ms > (chunk - 1) * period_ms * (1 - 1e-9)


@pytest.mark.parametrize("bad", [(0, 20, 8), (3, -1, 8), (float("nan"), 20, 8)])
def test_execution_of_what_is_not_positive_refused(bad):
    with pytest.raises(BadInput, match="positive"):
        execution(*bad)
