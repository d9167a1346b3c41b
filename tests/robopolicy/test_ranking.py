"""Rank metrics: laws, closed forms, and a verdict that follows the evidence."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from robopolicy.errors import BadInput
from robopolicy.ranking import mmrv, pearson, rank

rates = arrays(int, st.integers(3, 8), elements=st.integers(0, 100)).map(lambda x: x / 100)


def outcomes(rates: list[float], episodes: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((len(rates), episodes)) < np.array(rates)[:, None]


@given(rates)
def test_mmrv_of_an_order_preserving_map_is_zero(real):
    assert mmrv(real, real) == 0
    assert mmrv(real, 0.1 + 0.5 * real**3) == 0


@given(rates)
def test_mmrv_of_the_reversed_order_is_the_distance_to_the_farther_end(real):
    farthest = np.maximum(real - real.min(), real.max() - real)
    assert mmrv(real, -real) == pytest.approx(farthest.mean())


@given(rates, st.randoms())
def test_mmrv_does_not_depend_on_the_order_of_the_policies(real, random):
    imagined = np.roll(real, 1)
    order = list(range(len(real)))
    random.shuffle(order)
    assert mmrv(real[order], imagined[order]) == pytest.approx(mmrv(real, imagined))


def test_mmrv_one_swapped_pair_counts_its_real_difference_for_both():
    assert mmrv(np.array([0.2, 0.5, 0.9]), np.array([0.5, 0.2, 0.9])) == pytest.approx((0.3 + 0.3 + 0) / 3)


def test_mmrv_imagination_that_tells_nothing_apart_is_wrong_about_every_pair():
    assert mmrv(np.array([0.0, 0.5, 1.0]), np.zeros(3)) == pytest.approx((1 + 0.5 + 1) / 3)


@given(rates)
def test_pearson_of_a_line_is_one_and_of_a_constant_zero(real):
    if np.ptp(real) > 0:
        assert pearson(real, 0.3 + 0.2 * real) == pytest.approx(1)
    assert pearson(real, np.full(len(real), 0.4)) == 0


def test_rank_true_order_gets_yes_and_reversed_order_no():
    truth = [0.1, 0.3, 0.5, 0.7, 0.9]
    good = rank(outcomes(truth, 200, 0), outcomes(truth, 500, 1), np.random.default_rng(0), 200)
    assert good.verdict == "yes"
    assert good.spearman.value > 0.9
    assert good.mmrv.value == 0
    assert good.gap.value < 0.06
    bad = rank(outcomes(truth, 200, 0), outcomes(truth[::-1], 500, 1), np.random.default_rng(0), 200)
    assert bad.verdict == "no"
    assert bad.spearman.value < -0.9


def test_rank_policies_that_do_not_differ_cannot_be_told_apart():
    same = [0.5] * 5
    result = rank(outcomes(same, 100, 0), outcomes(same, 100, 1), np.random.default_rng(0), 200)
    assert result.verdict == "cannot tell"
    assert result.spearman.low < 0 < result.spearman.high


def test_rank_intervals_hold_their_value_and_shrink_with_episodes():
    truth = [0.2, 0.5, 0.6, 0.8]

    def width(episodes: int) -> float:
        r = rank(outcomes(truth, episodes, 2), outcomes(truth, episodes, 3), np.random.default_rng(0), 200)
        assert r.pearson.low <= r.pearson.value <= r.pearson.high
        return r.pearson.high - r.pearson.low

    assert width(2000) < width(50)


@pytest.mark.parametrize("shapes", [((2, 5), (2, 5)), ((3, 5), (4, 5)), ((3, 0), (3, 5))])
def test_rank_too_few_or_different_policies_refused(shapes):
    real, imagined = (np.ones(s) for s in shapes)
    with pytest.raises(BadInput, match="policies"):
        rank(real, imagined, np.random.default_rng(0))
