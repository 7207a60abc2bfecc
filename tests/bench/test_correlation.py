"""Rank correlation and regret of predictors, worked out by hand, and what the score reaches on NAS-Bench-201."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from gpnas.bench import correlation
from gpnas.bench.accuracy_benchmark import read_accuracies
from gpnas.bench.correlation import at_equal_size, correlate, correlations, regret
from gpnas.paths.features import features
from search_spaces.nasbench201 import build_cell_network, cell_code

NB201 = Path(__file__).parents[3] / "shared" / "data" / "nb201" / "nb201.csv"

VALUES = np.array([3.0, 1, 4, 1, 5, 9, 2])
ACCURACY = np.array([2.0, 7, 1, 8, 2, 8, 3])


def test_spearman_and_kendall_with_ties_by_hand() -> None:
    """Ranks are 4, 1.5, 5, 1.5, 6, 7, 3 and 2.5, 5, 1, 6.5, 2.5, 6.5, 4. Their deviations from the mean 4 have the products
    0, -2.5, -3, -6.25, -3, 7.5, 0 and the sums of squares 27.5 and 27. Of the 21 pairs 6 are concordant, 12 are discordant,
    1 is a tie of values, and 2 are ties of accuracies."""
    result = correlate(VALUES, ACCURACY, np.arange(7.0))
    assert result.spearman == pytest.approx(-7.25 / (27.5 * 27) ** 0.5, abs=1e-12)
    assert result.kendall == pytest.approx((6 - 12) / ((21 - 1) * (21 - 2)) ** 0.5, abs=1e-12)
    assert np.isnan(result.equal)  # every candidate has a size of its own
    assert result.regret == 0.0  # the highest value, 9, belongs to an accuracy of 8, the highest


def test_a_network_without_live_layers_ranks_last() -> None:
    assert features(build_cell_network("000000"), 32, 32)["score"] == -np.inf
    result = correlate(np.array([2.0, -np.inf, 1.0]), np.array([2.0, 0.0, 1.5]), np.zeros(3))
    assert (result.spearman, result.kendall, result.regret) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("values", "accuracy"),
    [(np.ones(7), ACCURACY), (VALUES, np.ones(7)), (np.array([-np.inf] * 6 + [np.nan]), ACCURACY)],
)
def test_what_is_constant_or_not_finite_has_no_correlation(values: np.ndarray, accuracy: np.ndarray) -> None:
    result = correlate(values, accuracy, np.zeros(7))
    assert np.isnan([result.spearman, result.kendall, result.equal, result.regret]).all()


def test_correlation_at_equal_size_is_weighted_by_the_sizes_of_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Group 10: 1 - 6 x 4 / 120 = 0.8. Group 20: 1 - 6 x 6 / 24 = -0.5. Group 30 has only two members. Groups 40 and 50 are
    constant on one side."""
    monkeypatch.setattr(correlation, "SMALLEST_GROUP", 3)
    parameters = np.array([10.0] * 5 + [20] * 3 + [30] * 2 + [40] * 3 + [50] * 4)
    values = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 1, 2, 3, 1, 2, 1, 2, 3, 6, 6, 6, 6])
    accuracy = np.array([2.0, 1, 4, 3, 5, 0.3, 0.1, 0.2, 2, 1, 7, 7, 7, 1, 2, 3, 4])
    assert at_equal_size(values, accuracy, parameters) == pytest.approx((5 * 0.8 + 3 * -0.5) / 8)
    shuffled = np.random.default_rng(0).permutation(17)
    assert at_equal_size(values[shuffled], accuracy[shuffled], parameters[shuffled]) == pytest.approx(0.3125)
    assert correlate(values, accuracy, parameters).equal == pytest.approx(0.3125)
    assert np.isnan(at_equal_size(values[8:], accuracy[8:], parameters[8:]))


def test_a_group_counts_from_30_members_on() -> None:
    values = np.arange(30.0)
    assert at_equal_size(values, -values, np.ones(30)) == pytest.approx(-1)
    assert np.isnan(at_equal_size(values[:29], values[:29], np.ones(29)))


def test_regret_of_candidates_that_share_the_highest_value_is_their_mean() -> None:
    assert regret(np.array([0.0, 2, 2, 1]), np.array([5.0, 1, 4, 3]), seed=0) == pytest.approx(5 - (1 + 4) / 2)


def test_regret_is_that_of_1_in_1000_as_the_tables_say() -> None:
    assert (correlation.POOL, correlation.DRAWS) == (1000, 200)


def test_regret_is_a_mean_over_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the three are drawn: regret is 4 - 1, 4 - 2 or 2 - 2, each in a third of the draws."""
    monkeypatch.setattr(correlation, "POOL", 2)
    monkeypatch.setattr(correlation, "DRAWS", 1000)
    values, accuracy = np.array([1.0, 2, 3]), np.array([4.0, 1, 2])
    assert regret(values, accuracy, seed=0) == pytest.approx(5 / 3, abs=0.12)
    assert regret(values, accuracy, seed=0) == regret(values, accuracy, seed=0) != regret(values, accuracy, seed=1)


def test_correlations_of_every_predictor_with_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlation, "SMALLEST_GROUP", 3)
    rows = [{"parameters": 5.0 + (k > 3), "score": value, "longest": -value} for k, value in enumerate(VALUES)]
    by_predictor = correlations(rows, {"val": ACCURACY, "test": -ACCURACY}, ("score", "longest"))
    assert list(by_predictor) == ["score", "longest"] and list(by_predictor["score"]) == ["val", "test"]
    rho = -7.25 / (27.5 * 27) ** 0.5
    spearmans = [by_predictor[name][column].spearman for name in ("score", "longest") for column in ("val", "test")]
    assert spearmans == pytest.approx([rho, -rho, -rho, rho])
    # Parameters 5: ranks 3, 1.5, 4, 1.5 and 2, 3, 1, 4. Parameters 6: ranks 2, 3, 1 and 1, 3, 2.
    first, second = -4.5 / (4.5 * 5) ** 0.5, 0.5
    assert by_predictor["score"]["val"].equal == pytest.approx((4 * first + 3 * second) / 7)


@pytest.mark.slow
@pytest.mark.skipif(not NB201.is_file(), reason="../shared is not here")
def test_the_score_ranks_trained_cells_better_than_their_parameters() -> None:
    """A tenth of the cells. `gpnas bench correlation` analyses all of them, and docs/nasbench201.md has what it prints."""
    cells, accuracies = read_accuracies(NB201)
    drawn = random.Random(0).sample(range(len(cells)), 1500)
    rows = [features(build_cell_network(cell_code(cells[i])), 32, 32) for i in drawn]
    columns = {name: accuracies[name][drawn] for name in ("c10_val", "c100_val", "in16_val")}
    by_predictor = correlations(rows, columns, ("score", "parameters", "live_params"))
    for column in columns:
        spearman = {name: by_predictor[name][column].spearman for name in by_predictor}
        assert spearman["score"] > max(0.86, spearman["parameters"] + 0.1, spearman["live_params"] + 0.05)
