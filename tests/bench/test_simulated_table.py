"""Simulated trainings: noise that is measured, means that are shrunk, and draws, by hand and on a truth that is known."""

from __future__ import annotations

import numpy as np
import pytest

from gpnas.bench import simulated_table
from gpnas.bench.simulated_table import Noise, believe, measured_noise

NAN = float("nan")


def test_noise_is_measured_on_the_rows_with_two_seeds() -> None:
    first = [[0.1, 0.4], [0.2, 0.2], [0.3, 0.5]]
    second = [[0.3, 0.2], [NAN, NAN], [0.3, 0.6]]
    third = [[0.9, 0.9]] * 3
    noise = measured_noise(np.array([first, second, third]))
    assert noise.levels == pytest.approx([0.3, 0.55])
    assert noise.residuals == pytest.approx(np.array([[-0.2, 0.2], [0.0, -0.1]]) / 2**0.5)


def test_the_variance_is_that_of_the_nearest_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated_table, "NEAR", 2)
    noise = Noise(np.array([0.1, 0.5, 0.2, 0.9]), np.array([[0.1, 0.2], [0.3, 0.0], [-0.3, 0.4], [0.5, -0.1]]))
    assert noise.variance(np.array([0.0, 0.8])) == pytest.approx(np.array([[0.05, 0.1], [0.17, 0.005]]))


def test_a_draw_is_a_whole_curve_of_a_near_pair_with_either_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated_table, "NEAR", 2)
    residuals = np.array([[0.1, 0.2], [0.3, 0.05], [-0.3, 0.4], [0.5, -0.1]])
    noise = Noise(np.array([0.1, 0.5, 0.2, 0.9]), residuals)
    drawn = noise.draw(np.zeros(400), np.random.default_rng(0))
    near = [sign * residuals[k] for k in (0, 2) for sign in (1, -1)]  # the pairs of AP 0.1 and 0.2
    counts = [int((np.abs(drawn - curve).max(axis=1) == 0).sum()) for curve in near]
    assert sum(counts) == 400 and all(60 < count < 140 for count in counts)


def test_trainings_scatter_around_the_truth_and_are_never_negative() -> None:
    noise = Noise(np.array([0.1]), np.array([[0.05, 0.2]]))
    truth = np.array([[0.3, 0.1], [0.4, 0.5]])
    curves = noise.trainings(truth, 50, np.random.default_rng(1))
    assert curves.shape == (50, 2, 2)
    assert sorted({round(float(ap), 6) for ap in curves[:, 0, 1]}) == [0.0, 0.3]  # 0.1 - 0.2 counts as 0
    assert sorted({round(float(ap), 6) for ap in curves[:, 1, 0]}) == [0.35, 0.45]


def test_beliefs_by_hand() -> None:
    """Four rows of two values of x, one seed each but for the last, which has four. A regression fits the mean of each value.

    x = 0 has 0.2 and 0.4, x = 1 has 0.5 and 0.9: fitted 0.3 and 0.7, residuals -0.1, 0.1, -0.2, 0.2, with a variance of
    0.1 / 2 degrees = 0.05. The noise has a variance of 0.04, in the last row a quarter of it: 0.0325 on the mean. So 0.0175 is
    left around the regression, of which rows keep 0.0175 / 0.0575 and the last 0.0175 / 0.0275.
    """
    noise = Noise(np.array([0.5]), np.array([[0.2]]))
    curves = np.full((4, 4, 1), NAN)
    curves[0, :, 0] = [0.2, 0.4, 0.5, 0.9]
    curves[1:, 3, 0] = [0.7, 1.1, 0.9]
    belief = believe(curves, np.array([[0.0], [0.0], [1.0], [1.0]]), noise)
    one, four = 0.0175 / 0.0575, 0.0175 / 0.0275
    assert belief.expected[:, 0] == pytest.approx([0.3 - 0.1 * one, 0.3 + 0.1 * one, 0.7 - 0.2 * one, 0.7 + 0.2 * four])
    assert belief.doubt[:, 0] == pytest.approx([one**0.5] * 3 + [(four / 4) ** 0.5])


def test_means_that_vary_less_than_noise_are_those_of_the_regression() -> None:
    noise = Noise(np.array([0.5]), np.array([[0.2]]))
    belief = believe(np.array([[[0.2], [0.3], [0.2]]]), np.zeros((3, 0)), noise)
    assert belief.expected[:, 0] == pytest.approx([0.7 / 3] * 3) and belief.doubt[:, 0].tolist() == [0, 0, 0]


def test_draws_are_spread_as_the_truth_is_and_agree_with_it() -> None:
    """400 rows with a truth of deviation 0.05 around a line, two seeds with noise of 0.06 each."""
    rng = np.random.default_rng(5)
    known = rng.normal(size=(400, 1))
    truth = 0.5 + 0.03 * known + rng.normal(0, 0.05, (400, 1))
    curves = truth + rng.normal(0, 0.06, (2, 400, 1))
    belief = believe(curves, known, measured_noise(curves))
    drawn = np.array([belief.draw(rng)[:, 0] for _ in range(60)])
    assert curves.mean(axis=0).std() > 1.15 * truth.std()  # what the draws must not be
    assert drawn.std(axis=1).mean() == pytest.approx(truth.std(), rel=0.08)
    assert belief.expected.std() < 0.93 * truth.std()
    # The truth is as far from what is expected as draws are.
    errors = np.sqrt(np.mean((belief.expected - truth) ** 2))
    assert np.sqrt(np.mean((drawn - belief.expected[:, 0]) ** 2)) == pytest.approx(errors, rel=0.12)
