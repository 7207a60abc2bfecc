"""Correlations within groups of like cost, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gpnas.bench.like_cost import (
    correlate_within,
    holm,
    kendall_within,
    less_cost,
    like_groups,
    one_group,
    replicated,
)

GROUPS = np.array([0, 1, 0, 1, 0, 1, 1])
VALUES = np.array([3.0, 10, 1, 40, 2, 30, 20])
ACCURACY = np.array([0.9, 0.1, 0.7, 0.2, 0.8, 0.4, 0.3])


def test_holm_by_hand() -> None:
    """Sorted .005, .01, .03, .04 times 4, 3, 2, 1 are .02, .03, .06, .04, and the last may not be below the third."""
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.9])) == pytest.approx([1.0, 1.0])
    assert holm(np.array([0.2])) == pytest.approx([0.2])


def test_kendall_counts_the_pairs_of_a_group_alone_by_hand() -> None:
    """Group 0 has 3 concordant pairs. Group 1, by value 10, 20, 30, 40: accuracies .1, .3, .4, .2 have 4 concordant pairs and 2
    discordant ones. Between the groups the order is the opposite."""
    assert kendall_within(VALUES, ACCURACY, GROUPS) == pytest.approx((3 + 4 - 2) / 9)
    tied = np.array([3.0, 10, 3, 40, 3, 30, 20])  # group 0 has no order
    assert kendall_within(tied, ACCURACY, GROUPS) == pytest.approx((4 - 2) / np.sqrt(6 * 9))
    assert np.isnan(kendall_within(np.ones(7), ACCURACY, GROUPS))


def test_kendall_of_one_group_is_tau_b_and_takes_minus_infinity() -> None:
    values = np.array([1.0, 2, 2, -np.inf, 5, -np.inf])
    aps = np.array([1.0, 3, 2, 2, 5, 0])
    expected = stats.kendalltau(stats.rankdata(values), aps).statistic
    assert kendall_within(values, aps, one_group(6)) == pytest.approx(expected)


def test_spearman_within_groups_by_hand() -> None:
    """Centred ranks of group 0: 1, -1, 0 and the same. Of group 1: -1.5, 1.5, .5, -.5 and -1.5, -.5, 1.5, .5."""
    found = correlate_within({"v": VALUES}, ACCURACY, GROUPS)["v"]
    assert found.spearman == pytest.approx((2 + 2.25 - 0.75 + 0.75 - 0.25) / (2 + 5))


def test_p_is_the_share_of_permutations_within_groups() -> None:
    """Of the 3! * 2! permutations within the groups two reach a correlation of 1 with either sign."""
    groups, values = np.array([0, 0, 0, 1, 1]), np.array([1.0, 2, 3, 5, 4])
    found = correlate_within({"v": values, "constant": np.ones(5)}, values * 2, groups)
    assert found["v"].spearman == pytest.approx(1) and found["v"].p == pytest.approx(2 / 12, abs=0.01)
    assert found["v"].holm == found["v"].p  # a constant is not asked
    assert np.isnan([found["constant"].spearman, found["constant"].p, found["constant"].holm]).all()


def test_cost_alone_explains_nothing_among_like_costs() -> None:
    rng = np.random.default_rng(0)
    costs = np.exp2(np.arange(40, dtype=np.float64))
    ap = np.log(costs) + 0.01 * rng.random(40)
    groups = like_groups(costs)
    assert correlate_within({"cost": costs}, ap, one_group(40))["cost"].spearman == pytest.approx(1)
    noise = rng.random(40)
    assert abs(correlate_within({"noise": noise}, ap, groups)["noise"].spearman) < 0.4


def test_groups_are_neighbours_in_cost() -> None:
    costs = np.array([5.0, 1, 9, 2, 8, 3, 7, 4, 6, 20, 12, 11, 13, 14, 15, 16, 17, 18, 19])
    groups = like_groups(costs)
    assert [sorted(costs[groups == k]) for k in (0, 1)] == [[*range(1, 9)], [9, *range(11, 21)]]
    assert groups.max() == 1  # the rest joins the last group
    assert set(like_groups([3.0, 1.0])) == {0}


def test_less_cost_leaves_what_a_parabola_does_not_explain() -> None:
    costs = np.array([1.0, 2, 4, 8, 16, 32, 1, 2, 4])
    groups = np.array([0] * 6 + [1] * 3)
    logs = np.log2(costs)
    assert less_cost(3 + 2 * logs - logs**2, costs, groups).tolist() == [0.0] * 9  # ties, not the noise of rounding
    cubic = np.array([-5.0, 7, 4, -4, -7, 5])  # orthogonal to all parabolas on six equal steps (Fisher and Yates)
    rest = less_cost(np.append(10 + logs[:6] + cubic, [1, 2, 9]), costs, groups)
    assert rest[:6] == pytest.approx(cubic) and rest[6:].tolist() == [0, 0, 0]


def test_the_halves_are_judged_on_their_own() -> None:
    values = np.array([1.0, 2, 3, 4, 1, 2, 3, 4])
    ap = np.array([1.0, 2, 3, 4, 4, 3, 2, 1])
    first = np.array([True] * 4 + [False] * 4)
    found = replicated({"v": values}, ap, one_group(8), first)["v"]
    assert (found.first.kendall, found.other.kendall, found.whole.kendall) == pytest.approx((1, -1, 0))
