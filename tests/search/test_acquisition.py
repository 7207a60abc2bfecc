"""The dominated area and its expected growth, against moocore and against many draws."""

from __future__ import annotations

import numpy as np
import pytest

from gpnas.search.acquisition import dominated_area, expected_hypervolume_improvement, expected_improvement

POINTS = [(0.2, 1.0), (0.5, 2.5), (0.4, 3.0), (0.5, 2.0), (0.9, 9.0), (-3.0, 0.0)]


def test_expected_improvement_is_the_mean_gain_over_many_draws() -> None:
    mean, deviation = np.array([0.0, 1.0, -1.0]), np.array([1.0, 0.5, 2.0])
    drawn = mean + deviation * np.random.default_rng(0).standard_normal((400_000, 3))
    assert expected_improvement(mean, deviation, 0.3) == pytest.approx(np.maximum(drawn - 0.3, 0).mean(axis=0), abs=5e-3)


def test_the_dominated_area_by_hand() -> None:
    assert dominated_area([(0.2, 1.0), (0.5, 3.0), (0.1, 2.0)], 0.0, 4.0) == pytest.approx(2 * 0.2 + 1 * 0.5)
    assert dominated_area([(0.2, -1.0), (-0.5, 0.0), (0.7, 4.0)], -1.0, 4.0) == pytest.approx(5 * 1.2)
    assert dominated_area([], 0.0, 4.0) == dominated_area([(1.0, 4.0), (0.0, 1.0)], 0.0, 4.0) == 0.0


def test_expected_growth_is_the_mean_growth_over_many_draws() -> None:
    rng = np.random.default_rng(2)
    mean, deviation = np.array([0.3, 0.6, -0.5, 0.8, 0.1]), np.array([0.2, 0.5, 1.0, 0.1, 0.3])
    costs = np.array([0.5, 2.2, 1.0, 4.9, 6.0])
    found = expected_hypervolume_improvement(mean, deviation, costs, POINTS, 0.0, 5.0)
    before = dominated_area(POINTS, 0.0, 5.0)
    for k in range(5):
        drawn = mean[k] + deviation[k] * rng.standard_normal(20_000)
        grown = [dominated_area([*POINTS, (float(value), costs[k])], 0.0, 5.0) - before for value in drawn]
        assert found[k] == pytest.approx(float(np.mean(grown)), abs=0.02)
    assert found[4] == 0.0


def test_before_anything_is_measured_cheap_and_good_gains_most() -> None:
    gain = expected_hypervolume_improvement(np.array([0.5, 0.5, 0.6]), np.full(3, 0.1), np.array([1.0, 2.0, 1.0]), [], 0.0, 3.0)
    assert gain[2] > gain[0] > gain[1] > 0
