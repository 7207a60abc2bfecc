import math
import random

import pytest

from gpnas.graph.cost import Cost
from gpnas.search.limits import Limits
from gpnas.search.pareto import Point, front, hypervolume, ranked


def test_front_keeps_what_no_other_beats_and_the_lowest_id_of_equals():
    points = [Point(0, 0.5, 10), Point(1, 0.4, 10), Point(2, 0.5, 8), Point(3, 0.6, 20), Point(4, 0.5, 8), Point(5, 0.1, 2)]
    assert [p.id for p in front(points)] == [5, 2, 3]


def test_front_agrees_with_pairwise_dominance_on_random_points_with_ties():
    rng = random.Random(0)
    for _ in range(50):
        points = [Point(i, rng.randint(0, 5) / 5, rng.randint(1, 6)) for i in range(12)]
        expected = {
            (p.ap, p.macs)
            for p in points
            if not any((q.ap >= p.ap and q.macs <= p.macs) and (q.ap > p.ap or q.macs < p.macs) for q in points)
        }
        found = front(points)
        assert {(p.ap, p.macs) for p in found} == expected
        assert len(found) == len(expected)


def test_ranked_puts_whole_fronts_first():
    points = [Point(0, 0.5, 10), Point(1, 0.4, 20), Point(2, 0.2, 5), Point(3, 0.6, 30)]
    assert [p.id for p in ranked(points)] == [3, 0, 2, 1]
    assert ranked([]) == []


def test_within_a_front_the_best_ap_comes_first_then_who_dominates_most_alone():
    # Alone, between AP and log2 MACs: 1 has (.4 - .3) * (log2 8 - log2 4), 2 has (.3 - .2) * (log2 4 - log2 2), 3 has .2 * 1.
    points = [Point(0, 0.5, 8), Point(1, 0.4, 4), Point(2, 0.25, 2), Point(3, 0.2, 1), Point(4, 0.1, 8)]
    assert [p.id for p in ranked(points)] == [0, 3, 1, 2, 4]
    points = [Point(0, 0.5, 16), Point(1, 0.4, 8), Point(2, 0.3, 1)]
    assert [p.id for p in ranked(points)] == [0, 2, 1]


def test_hypervolume_of_two_points_is_the_area_worked_out_by_hand():
    # Bars: [0, 50) nothing, [50, 80) ap 0.2, [80, 100) ap 0.5 -> 0.3 * 0.2 + 0.2 * 0.5
    assert hypervolume([Point(0, 0.2, 50), Point(1, 0.5, 80)], 100) == pytest.approx(0.16)
    assert hypervolume([Point(0, 0.9, 100)], 100) == 0.0
    assert hypervolume([], 100) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_bad_number_enters(bad):
    with pytest.raises(ValueError, match="must be finite"):
        Point(0, bad, 1.0)
    with pytest.raises(ValueError, match="must be finite"):
        Point(0, 0.5, bad)


def test_limits_hold_to_the_last_unit():
    limits = Limits(max_flops=200, max_params=50)
    assert limits.allows(Cost(50, 100, 0))
    assert not limits.allows(Cost(51, 100, 0))
    assert not limits.allows(Cost(50, 101, 0))
    assert Limits().allows(Cost(10**12, 10**15, 0))
