"""Second seeds against longer trainings, by correlations worked out by hand."""

from __future__ import annotations

import math

import pytest

from gpnas.search.replication import PRIOR, PRIOR_PAIRS, seed_tells_more

ALIKE = [(0.1, 0.1), (0.2, 0.2), (0.3, 0.3), (0.4, 0.4)]
OPPOSITE = [(0.1, 0.4), (0.2, 0.3), (0.3, 0.2), (0.4, 0.1)]


def test_before_there_are_pairs_a_second_seed_tells_more_whatever_it_costs() -> None:
    """The next rung is assumed to tell as much as this one, so training on adds nothing."""
    assert seed_tells_more([], [], 1.0, 1.0) and seed_tells_more([], [], 100.0, 1.0)
    assert seed_tells_more([(0.1, 0.2)], [(0.1, 0.2)], 100.0, 1.0)


def test_the_next_rung_wins_when_it_agrees_better_with_the_other_seed_for_its_cost() -> None:
    """Four pairs of correlation 1 count 4, the prior of .8 counts 8: the next rung has 10.4 / 12 = .8667. Seeds have .8: a
    second one adds .8 * sqrt(2 / 1.8) - .8 = .0433, training on .0667."""
    assert (PRIOR, PRIOR_PAIRS) == (0.8, 8)
    by_seed, by_length = 0.8 * math.sqrt(2 / 1.8) - 0.8, 10.4 / 12 - 0.8
    ratio = by_length / by_seed
    assert ratio == pytest.approx(1.54, abs=0.01)
    assert not seed_tells_more([], ALIKE, 1.0, 1.0)
    assert not seed_tells_more([], ALIKE, 1.0, ratio - 0.01)
    assert seed_tells_more([], ALIKE, 1.0, ratio + 0.01)


def test_seeds_that_disagree_leave_more_to_a_longer_training() -> None:
    """Four pairs of correlation -1: seeds have (8 * .8 - 4) / 12 = .2, and a second one adds .2 * sqrt(2 / 1.2) - .2 = .058.
    The next rung adds .6."""
    assert not seed_tells_more(OPPOSITE, [], 1.0, 1.0)
    assert not seed_tells_more(OPPOSITE, [], 1.0, 10.2)
    assert seed_tells_more(OPPOSITE, [], 1.0, 10.4)


def test_a_next_rung_that_tells_less_never_wins() -> None:
    assert seed_tells_more(ALIKE, OPPOSITE, 1e6, 1.0)


def test_seeds_that_tell_nothing_at_all_add_nothing() -> None:
    many = 10 * OPPOSITE  # (8 * .8 - 40) / 48 is negative
    assert not seed_tells_more(many, [], 1.0, 1e6)


def test_equal_values_count_as_no_measurement() -> None:
    assert seed_tells_more([(0.1, 0.2), (0.1, 0.3)], [(0.2, 0.0), (0.3, 0.0)], 100.0, 1.0)
