"""Noise between seeds, with variances and Student's t worked out by hand."""

from __future__ import annotations

import math

import pytest

from gpnas.run.noise import Noise, pooled

TWO = [[0.40, 0.42], [0.31, 0.30, 0.32]]
"""Variances .0002 and .0001 with 1 and 2 degrees of freedom: (.0002 + .0002) / 3 together."""


def test_variances_are_weighted_by_degrees_of_freedom() -> None:
    noise = pooled(TWO)
    assert noise is not None and noise.freedom == 3
    assert noise.deviation == pytest.approx(math.sqrt(0.0004 / 3))


def test_single_seeds_say_nothing_about_noise() -> None:
    assert pooled([]) is None and pooled([[0.4], [0.9]]) is None
    assert pooled([[0.9], *TWO]) == pooled(TWO)


def test_the_error_of_a_difference_counts_the_seeds_of_both() -> None:
    noise = Noise(0.12, 3)
    assert noise.error(2, 3) == pytest.approx(0.12 * math.sqrt(5 / 6))
    assert noise.error(4, 4) == pytest.approx(0.12 / math.sqrt(2))


@pytest.mark.parametrize(
    ("difference", "is_tie"), [(0.0, True), (0.0299, True), (-0.0299, True), (0.0301, False), (-0.0301, False)]
)
def test_a_tie_is_within_one_standard_error(difference: float, is_tie: bool) -> None:
    assert Noise(0.03, 4).is_tie(difference, 2, 2) is is_tie  # the error is .03 sqrt(1/2 + 1/2)


def test_without_noise_there_is_no_tie() -> None:
    still = Noise(0.0, 4)
    assert not still.is_tie(0.001, 3, 3) and not still.is_tie(0.0, 3, 3)
    assert still.interval(0.25, 3, 3) == (0.25, 0.25)


@pytest.mark.parametrize(("freedom", "t"), [(1, 6.314), (3, 2.353), (4, 2.132), (10, 1.812)])  # tables of Student's t, 5 %
def test_the_interval_is_student_s_with_the_pooled_degrees_of_freedom(freedom: int, t: float) -> None:
    ends = 0.05 - t * 0.02, 0.05 + t * 0.02
    assert Noise(0.02, freedom).interval(0.05, 2, 2) == pytest.approx(ends, abs=2e-5)


@pytest.mark.parametrize(("deviation", "freedom"), [(math.nan, 2), (math.inf, 2), (-0.1, 2), (0.1, 0)])
def test_noise_that_is_none_is_refused(deviation: float, freedom: int) -> None:
    with pytest.raises(ValueError, match="noise has a finite deviation and at least one degree of freedom"):
        Noise(deviation, freedom)
