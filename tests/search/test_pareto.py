"""Fronts, ranks and areas by hand and by pairwise comparison."""

from __future__ import annotations

import math
import random

import moocore
import pytest

from gpnas.search.pareto import Point, front, hypervolume, ranked


def test_the_front_is_what_no_other_point_dominates_with_the_lowest_id_of_equal_points() -> None:
    points = [Point(0, 0.5, 10), Point(1, 0.4, 10), Point(2, 0.5, 8), Point(3, 0.6, 20), Point(4, 0.5, 8), Point(5, 0.1, 2)]
    assert [p.id for p in front(points)] == [5, 2, 3]


def test_front_agrees_with_pairwise_dominance_on_random_points_with_ties() -> None:
    rng = random.Random(0)
    for _ in range(50):
        points = [Point(i, rng.randint(0, 5) / 5, rng.randint(1, 6)) for i in range(12)]
        expected = {
            (p.ap, p.macs)
            for p in points
            if not any((q.ap >= p.ap and q.macs <= p.macs) and (q.ap > p.ap or q.macs < p.macs) for q in points)
        }
        values = [(p.ap, p.macs) for p in front(points)]
        assert len(values) == len(expected) and set(values) == expected


def test_ranked_puts_whole_fronts_first() -> None:
    points = [Point(0, 0.5, 10), Point(1, 0.4, 20), Point(2, 0.2, 5), Point(3, 0.6, 30)]
    assert [p.id for p in ranked(points)] == [3, 0, 2, 1]
    assert ranked([]) == []


def test_within_a_rank_the_best_ap_comes_first_then_the_largest_exclusive_contribution() -> None:
    # Exclusive contributions between AP and log2 MACs. 1: (.4 - .25) * (3 - 2), 2: (.25 - .2) * (2 - 1), 3: (.2 - 0) * (1 - 0).
    points = [Point(0, 0.5, 8), Point(1, 0.4, 4), Point(2, 0.25, 2), Point(3, 0.2, 1), Point(4, 0.1, 8)]
    assert [p.id for p in ranked(points)] == [0, 3, 1, 2, 4]
    # 1: (.4 - .05) * (4 - 3), 2: (.05 - 0) * (3 - 0).
    points = [Point(0, 0.5, 16), Point(1, 0.4, 8), Point(2, 0.05, 1)]
    assert [p.id for p in ranked(points)] == [0, 1, 2]


def test_the_order_is_that_of_moocores_ranks_and_contributions_on_random_points_with_twins() -> None:
    rng = random.Random(1)
    for count in (1, 2, 7, 40):
        points = [Point(i, rng.random(), rng.randint(1, 10**9)) for i in range(count)]
        points += [Point(count + i, p.ap, p.macs) for i, p in enumerate(points[::3])]
        rng.shuffle(points)
        values = [[-p.ap, math.log2(p.macs)] for p in points]
        reference = [0.0, max(log_macs for _, log_macs in values) + 1]
        ranks = moocore.pareto_rank(values).tolist()
        keys: dict[int, tuple[float, ...]] = {}
        for rank in set(ranks):
            members = [i for i in range(len(points)) if ranks[i] == rank]
            top = max(points[i].ap for i in members)
            areas = moocore.hv_contributions([values[i] for i in members], ref=reference)
            for i, area in zip(members, areas.tolist(), strict=True):
                keys[points[i].id] = (rank, -math.inf if points[i].ap == top else -area, points[i].id)
        assert [p.id for p in ranked(points)] == sorted(keys, key=keys.__getitem__)


def test_equal_points_are_ranked_by_id() -> None:
    points = [Point(4, 0.3, 5), Point(2, 0.3, 5), Point(3, 0.1, 1), Point(1, 0.1, 1)]
    assert [p.id for p in ranked(points)] == [2, 4, 1, 3]


def test_hypervolume_of_two_points_is_the_area_worked_out_by_hand() -> None:
    # Bars: [0, 50) nothing, [50, 80) ap 0.2, [80, 100) ap 0.5 -> 0.3 * 0.2 + 0.2 * 0.5
    assert hypervolume([Point(0, 0.2, 50), Point(1, 0.5, 80)], 100) == pytest.approx(0.16)
    assert hypervolume([Point(0, 0.9, 100)], 100) == 0.0
    assert hypervolume([Point(0, 0.2, 50), Point(1, 0.5, 80), Point(2, 0.9, 101)], 100) == pytest.approx(0.16)
    assert hypervolume([], 100) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_point_refuses_numbers_that_are_not_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        Point(0, bad, 1.0)
    with pytest.raises(ValueError, match="must be finite"):
        Point(0, 0.5, bad)
