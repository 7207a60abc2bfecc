"""The surrogate on values whose truth is known by construction."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
from scipy.stats import norm

from gpnas.search import surrogate
from gpnas.search.gaussian_process import Process
from gpnas.search.surrogate import Floats, Surrogate, fit, head_start, normal_scores, ranks


def test_ranks_by_hand() -> None:
    """Ranks 2, 1 and 3 over 4, and 1.5, 1.5 and 3; then minus 1/2 and times sqrt(12)."""
    columns = np.array([[5.0, 7.0], [-np.inf, 7.0], [1e9, 8.0]])
    expected = np.array([[0, -1 / 8], [-1 / 4, -1 / 8], [1 / 4, 1 / 4]]) * math.sqrt(12)
    assert ranks(columns) == pytest.approx(expected)


def test_ranks_of_many_distinct_values_have_mean_0_and_variance_1() -> None:
    column = ranks(np.random.default_rng(0).random((2000, 1)))
    assert column.mean() == pytest.approx(0, abs=1e-9) and column.var() == pytest.approx(1, abs=2e-3)


def test_normal_scores_by_hand() -> None:
    assert normal_scores(np.array([30.0, 10.0, 20.0])) == pytest.approx(norm.ppf([0.75, 0.25, 0.5]))
    assert normal_scores(np.array([5.0, 5.0, 1.0, 9.0])) == pytest.approx(norm.ppf([0.5, 0.5, 0.2, 0.8]))


class FixedProcess:
    """A process with given means and deviations."""

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        return 3.0 * features[:, 0], np.full(len(features), 0.5)


@pytest.mark.parametrize(("trained", "factor"), [(1, 6), (5, 2), (20, 1.25), (500, 1.01)])
def test_deviations_are_widened_where_few_trials_were_seen(trained: int, factor: float) -> None:
    """By 1 + 5 / trained. The prior adds its slope to the mean."""
    model = Surrogate(cast(Process, FixedProcess()), slope=0.25, best=1.0, trained=trained)
    mean, deviation = model.predict(np.array([[1.0], [2.0]]), np.array([-2.0, 8.0]))
    assert mean == pytest.approx([3 - 0.5, 6 + 2])
    assert deviation == pytest.approx([0.5 * factor] * 2)


def test_the_slope_of_the_prior_by_hand() -> None:
    """(sum of prior x score + 20 x 0.9) / (sum of prior^2 + 20) = (-3 + 18) / (14 + 20)."""
    prior, scores = np.array([1.0, -2.0, 3.0]), np.array([-1.0, 1.0, 0.0])
    model = fit(np.array([[0.0], [1.0], [2.0]]), prior, scores)
    assert model.slope == pytest.approx(15 / 34)
    assert (model.best, model.trained) == (1.0, 3)
    assert model.process.values == pytest.approx(scores - 15 / 34 * prior)


def test_few_trials_leave_the_prior_and_many_correct_it() -> None:
    features = ranks(np.random.default_rng(0).random((160, 2)))
    prior, accuracy = features[:, 0], -features[:, 0]  # the prior is wrong
    few, many = (fit(features[:n], prior[:n], normal_scores(accuracy[:n])) for n in (2, 60))
    assert few.slope > 0 > many.slope
    mean, deviation = many.predict(features[60:], prior[60:])
    assert np.corrcoef(mean, accuracy[60:])[0, 1] > 0.95 and (deviation > 0).all()


def test_equal_scores_are_no_error() -> None:
    features = ranks(np.random.default_rng(0).random((9, 2)))
    mean, _ = fit(features[:3], features[:3, 0], normal_scores(np.ones(3))).predict(features, features[:, 0])
    assert np.isfinite(mean).all()


def test_a_line_is_extrapolated_and_a_curve_is_followed() -> None:
    x = np.linspace(-1.5, 1.5, 25)[:, None]
    zeros, far = np.zeros(25), np.array([[2.5]])
    assert fit(x, zeros, 0.8 * x[:, 0]).predict(far, zeros[:1])[0] == pytest.approx([2.0], abs=0.1)
    middle = np.array([[0.31]])
    assert fit(x, zeros, np.sin(3 * x[:, 0])).predict(middle, zeros[:1])[0] == pytest.approx(np.sin(0.93), abs=0.05)


def test_a_surrogate_that_believes_is_surer_there_and_no_surer_far_away() -> None:
    features = np.linspace(-1.7, 1.7, 40)[:, None]
    zeros = np.zeros(40)
    model = fit(features[:8], zeros[:8], normal_scores(np.sin(3 * features[:8, 0])))
    believing = model.believing(features[30:31])
    (mean, before), (same, after) = (m.predict(features, zeros) for m in (model, believing))
    assert after[30] < 0.8 * before[30] and after[3] == pytest.approx(before[3], rel=0.05)
    assert same[30] == pytest.approx(mean[30], abs=0.05)
    assert (believing.slope, believing.best, believing.trained) == (model.slope, model.best, 8)


TRUTHS: list[Callable[[Floats], Floats]] = [
    lambda x: 0.5 * x[:, 0],
    lambda x: np.sin(1.5 * x[:, 0]) + np.sin(1.5 * x[:, 1]),
]


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("bonus", [0.0, 1.0, -0.75])
def test_the_head_start_is_separated_from_what_the_candidates_are_worth(
    truth: Callable[[Floats], Floats], bonus: float
) -> None:
    rng, starts = np.random.default_rng(0), []
    for _ in range(5):
        features = ranks(rng.random((40, 4)))
        warm = np.arange(40) >= 25
        features[warm, 0] += 0.5  # they differ from the others
        scores = truth(features) + rng.normal(0, 0.1, 40)
        starts.append(head_start(features, warm, scores + bonus * warm))
    assert np.mean(starts) == pytest.approx(bonus, abs=0.3)


def test_the_head_start_is_the_mean_over_the_warm_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that predicts features x w of the warm column: the difference is sqrt(12) x the first feature."""

    class Interaction:
        def predict(self, features: Floats, prior: Floats) -> tuple[Floats, Floats]:
            return features[:, 0] * features[:, -1] + 7.0, prior

    monkeypatch.setattr(surrogate, "fit", lambda features, prior, scores: Interaction())
    features, warm = np.array([[2.0], [5.0], [9.0]]), np.array([True, False, True])
    assert head_start(features, warm, np.zeros(3)) == pytest.approx(math.sqrt(12) * (2 + 9) / 2)


def test_the_length_of_the_kernel_is_at_least_half_a_standard_deviation_of_a_feature() -> None:
    """Scores that alternate from one candidate to the next would be followed by a shorter length."""
    x = np.linspace(-1.5, 1.5, 31)[:, None]
    model = fit(x, np.zeros(31), np.tile([1.0, -1.0, 0.0, 1.5], 8)[:31] * np.sin(9 * x[:, 0]))
    assert model.process.kernel.length == pytest.approx(0.5, rel=1e-3)
