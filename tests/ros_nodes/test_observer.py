"""States are put together by stamp, whatever the order in which their parts arrive."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from ros_nodes.observer import Observer, TimedObserver

MS = 1_000_000


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.permutations([(s, e) for s in range(4) for e in "abc"]))
def test_observer_any_order_of_parts_gives_whole_states_in_order(parts):
    observer = Observer("abc", steps=4)
    states = {s: np.array([10.0 * s + i for i in range(3)]) for s in range(4)}
    seen = []
    for stamp, element in parts:
        state = observer.add(stamp, {element: states[stamp]["abc".index(element)]})
        if state is not None:
            assert np.array_equal(state, states[observer.stamp_ns])
            seen.append(observer.stamp_ns)
    assert seen == sorted(set(seen))
    assert seen[-1] == 3


def test_observer_old_or_repeated_stamp_is_ignored():
    observer = Observer("a")
    assert observer.add(5, {"a": 1.0}) is not None
    assert observer.add(5, {"a": 2.0}) is None
    assert observer.add(4, {"a": 2.0}) is None
    assert observer.history().tolist() == [[1.0]]


def test_observer_history_waits_until_it_is_full_and_forgets_on_clear():
    observer = Observer("a", steps=2)
    observer.add(1, {"a": 1.0})
    assert observer.history() is None
    observer.add(2, {"a": 2.0})
    assert observer.history().tolist() == [[1.0], [2.0]]
    observer.clear()
    assert observer.history() is None
    assert observer.stamp_ns is None


def test_observer_gap_between_states_is_no_history():
    observer = Observer("a", steps=2, max_gap_s=0.075)
    for stamp, whole in ((0, False), (50, True), (150, False), (200, True)):
        observer.add(stamp * MS, {"a": 0.0})
        assert (observer.history() is not None) is whole


def test_observer_parts_that_never_complete_take_no_memory():
    observer = Observer("ab")
    for stamp in range(1000):
        observer.add(stamp, {"a": 0.0})
    assert len(observer._partial) <= 8


def _timed(steps=2) -> TimedObserver:
    return TimedObserver("abc", ["ab", "c"], steps, period_s=0.05, max_age_s=0.1)


def test_timed_observer_slower_topic_joins_with_what_it_said_last():
    observer = _timed()
    assert observer.add(0, {"a": 1.0, "b": 2.0}) is None
    assert observer.add(1 * MS, {"c": 3.0}) is None
    assert observer.add(10 * MS, {"a": 4.0, "b": 5.0}).tolist() == [4.0, 5.0, 3.0]
    assert observer.stamp_ns == 10 * MS


def test_timed_observer_part_that_is_too_old_makes_no_state():
    observer = _timed()
    observer.add(0, {"c": 3.0})
    assert observer.add(100 * MS, {"a": 1.0, "b": 2.0}) is not None
    assert observer.add(101 * MS, {"a": 1.0, "b": 2.0}) is None


def test_timed_observer_history_is_one_control_step_apart_whatever_the_rate():
    observer = _timed(steps=3)
    for i in range(40):
        observer.add(7 * i * MS, {"c": float(i)})
        observer.add(7 * i * MS + 1, {"a": 7.0 * i, "b": 0.0})
    ages = observer.history()[:, 0] - 7 * 39
    assert np.abs(ages - np.array([-100, -50, 0])).max() <= 3.5


def test_timed_observer_gap_or_too_short_gives_no_history():
    observer = _timed()
    assert observer.history() is None
    for stamp in (0, 10, 20):
        observer.add(stamp * MS, {"c": 0.0})
        observer.add(stamp * MS, {"a": 0.0, "b": 0.0})
    assert observer.history() is None
    observer.add(100 * MS, {"a": 0.0, "b": 0.0})
    assert observer.history() is None
    observer.clear()
    assert observer.stamp_ns is None


def test_timed_observer_old_message_changes_nothing():
    observer = _timed(steps=1)
    observer.add(0, {"c": 1.0})
    observer.add(10 * MS, {"a": 1.0, "b": 1.0})
    assert observer.add(5 * MS, {"a": 9.0, "b": 9.0}) is None
    assert observer.add(11 * MS, {"a": 2.0, "b": 2.0}).tolist() == [2.0, 2.0, 1.0]
