"""Expected gains against many draws, mpmath and the plain formulas; the dominated area by hand."""

from __future__ import annotations

import math

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
from scipy.stats import norm

from gpnas.search.acquisition import (
    dominated_area,
    log_expected_hypervolume_improvement,
    log_expected_improvement,
    log_h,
)
from gpnas.search.surrogate import Floats

POINTS = [(0.2, 1.0), (0.5, 2.5), (0.4, 3.0), (0.5, 2.0), (0.9, 9.0), (-3.0, 0.0)]


def plain_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """Jones et al. 1998, equation 15."""
    z = (mean - best) / deviation
    return np.asarray((mean - best) * norm.cdf(z) + deviation * norm.pdf(z))


def exact_log_h(z: float) -> float:
    """With as many digits as cancel, about z^2 / 4.6, and 60 more."""
    with mpmath.workdps(60 + int(z * z / 4)):
        x = mpmath.mpf(z)
        return float(mpmath.log(mpmath.npdf(x) + x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2))


@pytest.mark.parametrize("z", [-40.0, -5.0, -1.001, -1.0, -0.999, -0.3, 0.0, 0.5, 3.0, 8.0])
def test_log_h_agrees_with_mpmath(z: float) -> None:
    assert log_h(np.array([z]))[0] == pytest.approx(exact_log_h(z), rel=3e-15, abs=1e-15)


@pytest.mark.parametrize("z", [-99.0, -101.0, -120.0, -1e4, -1e6])
def test_log_h_far_below_is_the_asymptotic_series(z: float) -> None:
    """Integral of t exp(-t^2 / 2 - t |z|) over t > 0, times the density: substitute t = s / |z|."""
    with mpmath.workdps(40):
        x = mpmath.mpf(-z)
        tail = mpmath.quad(lambda s: s * mpmath.exp(-s - (s / x) ** 2 / 2), [0, 1, 10, 100]) / x**2
        exact = -x * x / 2 - mpmath.log(2 * mpmath.pi) / 2 + mpmath.log(tail)
        assert float(exact) == pytest.approx(log_h(np.array([z]))[0], rel=3e-16)


def test_log_h_rises_over_all_of_its_branches() -> None:
    z = np.concatenate([-np.logspace(6, -3, 4000), np.logspace(-3, 6, 400)])
    assert (np.diff(log_h(z)) > 0).all()


def test_expected_improvement_is_the_mean_gain_over_many_draws() -> None:
    mean, deviation = np.array([0.0, 1.0, -1.0]), np.array([1.0, 0.5, 2.0])
    drawn = mean + deviation * np.random.default_rng(0).standard_normal((400_000, 3))
    gain = np.exp(log_expected_improvement(mean, deviation, 0.3))
    assert gain == pytest.approx(np.maximum(drawn - 0.3, 0).mean(axis=0), abs=5e-3)


def test_the_logarithm_is_that_of_the_plain_form_and_has_its_order() -> None:
    rng = np.random.default_rng(1)
    mean, deviation = rng.normal(0, 3, 500), rng.uniform(0.2, 2, 500)
    plain, log = plain_improvement(mean, deviation, 0.7), log_expected_improvement(mean, deviation, 0.7)
    above = plain > 1e-12  # below, the plain form cancels
    assert above.sum() > 400
    assert log[above] == pytest.approx(np.log(plain[above]), abs=1e-3)
    assert np.argsort(log[above]).tolist() == np.argsort(plain[above]).tolist()


def test_where_the_plain_form_underflows_to_a_tie_the_logarithm_does_not() -> None:
    """Four candidates 40 to 90 deviations below the best: the plain gain is 0, the logarithm ranks them by mean."""
    mean, deviation = np.array([-4.0, -9.0, -5.0, -6.0]), np.full(4, 0.1)
    assert (plain_improvement(mean, deviation, 0.0) == 0).all()
    assert np.argsort(log_expected_improvement(mean, deviation, 0.0)).tolist() == [1, 3, 2, 0]
    costs = np.array([1.0, 1.0, 0.5, 1.0])
    measured = [(0.0, 0.0), (0.5, 1.5)]
    log_gain = log_expected_hypervolume_improvement(mean, deviation, costs, measured, -0.5, 2.0)
    assert np.isfinite(log_gain).all() and np.argsort(log_gain).tolist() == [1, 3, 2, 0]


def test_the_dominated_area_by_hand() -> None:
    assert dominated_area([(0.2, 1.0), (0.5, 3.0), (0.1, 2.0)], 0.0, 4.0) == pytest.approx(2 * 0.2 + 1 * 0.5)
    assert dominated_area([(0.2, -1.0), (-0.5, 0.0), (0.7, 4.0)], -1.0, 4.0) == pytest.approx(5 * 1.2)
    assert dominated_area([], 0.0, 4.0) == dominated_area([(1.0, 4.0), (0.0, 1.0)], 0.0, 4.0) == 0.0


def test_expected_growth_is_the_mean_growth_over_many_draws() -> None:
    rng = np.random.default_rng(2)
    mean, deviation = np.array([0.3, 0.6, -0.5, 0.8, 0.1]), np.array([0.2, 0.5, 1.0, 0.1, 0.3])
    costs = np.array([0.5, 2.2, 1.0, 4.9, 5.0])
    log_gain = log_expected_hypervolume_improvement(mean, deviation, costs, POINTS, 0.0, 5.0)
    before = dominated_area(POINTS, 0.0, 5.0)
    for k in range(5):
        drawn = mean[k] + deviation[k] * rng.standard_normal(20_000)
        grown = [dominated_area([*POINTS, (float(value), costs[k])], 0.0, 5.0) - before for value in drawn]
        assert math.exp(log_gain[k]) == pytest.approx(float(np.mean(grown)), abs=0.02)
    assert log_gain[4] == -math.inf


def test_expected_growth_by_hand() -> None:
    """A candidate of cost 1 with a mean far above all and hardly any deviation gains 5 - .2 on [1, 2], 5 - .5 on [2, 4]."""
    measured = [(0.2, 0.5), (0.5, 2.0), (0.4, 3.0), (0.7, 4.0)]
    gain = np.exp(log_expected_hypervolume_improvement(np.array([5.0]), np.array([1e-6]), np.array([1.0]), measured, 0.0, 4.0))
    assert gain == pytest.approx([1 * 4.8 + 2 * 4.5])


def test_before_anything_is_measured_cheap_and_good_gains_most() -> None:
    gain = np.exp(
        log_expected_hypervolume_improvement(
            np.array([0.5, 0.5, 0.6]), np.full(3, 1e-6), np.array([1.0, 2.0, 1.0]), [], 0.0, 3.0
        )
    )
    assert gain == pytest.approx([2 * 0.5, 1 * 0.5, 2 * 0.6])
