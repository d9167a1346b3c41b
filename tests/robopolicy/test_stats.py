"""Intervals and tests against known values, brute force and laws."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robopolicy.errors import BadInput
from robopolicy.stats import difference, mcnemar, paired, wilson

outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [
        # Newcombe (1998), table I, method 3; then the closed forms at the ends.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (10, 10, 0.7225, 1.0),
    ],
)
def test_wilson_matches_published_values(successes, episodes, low, high):
    rate = wilson(successes, episodes)
    assert rate.low == pytest.approx(low, abs=5e-5)
    assert rate.high == pytest.approx(high, abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_rate_and_is_symmetric(case):
    successes, episodes = case
    rate, mirrored = wilson(successes, episodes), wilson(episodes - successes, episodes)
    assert 0 <= rate.low <= rate.rate <= rate.high <= 1
    assert rate.low == pytest.approx(1 - mirrored.high, abs=1e-12)


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_narrows_with_more_episodes(successes, more):
    a, b = wilson(successes, 50), wilson(successes * (more + 1), 50 * (more + 1))
    assert b.high - b.low < a.high - a.low


@pytest.mark.parametrize(("successes", "episodes"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_impossible_counts(successes, episodes):
    with pytest.raises(BadInput, match="successes"):
        wilson(successes, episodes)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        # Newcombe (1998), table II, method 10.
        ((48, 80), (56, 70), 0.0524, 0.3339),
        ((3, 10), (9, 10), 0.1705, 0.8090),
        ((0, 29), (5, 56), -0.0381, 0.1926),
        ((0, 20), (10, 10), 0.6791, 1.0),
    ],
)
def test_difference_matches_published_values(first, second, low, high):
    assert difference(wilson(*first), wilson(*second)) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 40), st.integers(0, 40))
def test_difference_holds_that_of_the_rates_and_is_antisymmetric(a, b):
    first, second = wilson(a, 40), wilson(b, 40)
    low, high = difference(first, second)
    assert low <= second.rate - first.rate <= high
    assert difference(second, first) == pytest.approx((-high, -low))


@given(st.integers(0, 5), st.integers(0, 5))
def test_mcnemar_equals_brute_force_over_fair_coins(fixed, broken):
    n = fixed + broken
    observed = abs(fixed - broken)
    tosses = list(product([-1, 1], repeat=n))
    as_extreme = sum(abs(sum(t)) >= observed for t in tosses) / len(tosses)
    assert mcnemar(fixed, broken) == pytest.approx(as_extreme)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_a_symmetric_probability(fixed, broken):
    assert 0 < mcnemar(fixed, broken) <= 1
    assert mcnemar(fixed, broken) == mcnemar(broken, fixed)


@given(outcomes)
def test_swapping_policies_mirrors_the_difference(pairs):
    first, second = zip(*pairs, strict=True)
    a = paired(first, second, np.random.default_rng(0), draws=200)
    b = paired(second, first, np.random.default_rng(0), draws=200)
    assert a.mean == -b.mean
    assert (a.low, a.high) == pytest.approx((-b.high, -b.low))
    assert (a.fixed, a.broken, a.p_value) == (b.broken, b.fixed, b.p_value)


@given(outcomes)
def test_difference_agrees_with_its_counts(pairs):
    first, second = zip(*pairs, strict=True)
    p = paired(first, second, np.random.default_rng(0), draws=200)
    assert p.mean == pytest.approx((p.fixed - p.broken) / len(pairs))
    assert p.mean == pytest.approx(np.mean(second) - np.mean(first))


def test_bootstrap_interval_is_near_the_normal_one():
    rng = np.random.default_rng(1)
    first, second = rng.random(400) < 0.4, rng.random(400) < 0.6
    p = paired(first.tolist(), second.tolist(), np.random.default_rng(2))
    half = 1.96 * (second.astype(float) - first).std() / 20
    assert p.low == pytest.approx(p.mean - half, abs=0.01)
    assert p.high == pytest.approx(p.mean + half, abs=0.01)


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], [True, False])])
def test_paired_refuses_lists_that_do_not_pair(first, second):
    with pytest.raises(BadInput, match="paired outcomes"):
        paired(first, second, np.random.default_rng(0))
