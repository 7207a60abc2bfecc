"""How well surrogates rank what they have not seen: what is judged, and what they read."""

from __future__ import annotations

import numpy as np
import pytest

from gpnas.bench import surrogate_skill
from gpnas.bench.accuracy_benchmark import SURROGATE_FEATURES, AccuracyBenchmark, one_hot
from gpnas.bench.surrogate_skill import encodings, skill
from gpnas.search.surrogate import normal_scores
from tests.bench.test_cell_strategies import made_benchmark


def test_a_surrogate_of_noiseless_features_ranks_the_rest() -> None:
    benchmark = made_benchmark()
    result = skill(benchmark.features, benchmark.score, benchmark, 40, draws=3)
    assert result.spearman > 0.97 and 0 < result.deviation < 0.02


def test_an_interval_of_80_percent_holds_about_80_percent_of_noisy_truths() -> None:
    benchmark = made_benchmark(noise=4.0)
    assert 0.72 < skill(benchmark.features, benchmark.score, benchmark, 60, draws=6).coverage < 0.9


class FixedPredictions:
    """Predicts the first feature, with a deviation of the second."""

    def predict(self, features: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return features[:, 0], features[:, 1]


def test_skill_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions are the truth, without doubt, for the even candidates and far off for the odd ones."""
    monkeypatch.setattr(surrogate_skill, "fit", lambda features, prior, scores: FixedPredictions())
    accuracy = np.arange(40.0)
    truth = normal_scores(accuracy)
    odd = np.arange(40) % 2 == 1
    features = np.column_stack([truth + np.where(odd, 9.0, 0.0), np.where(odd, 1.0, 0.0)])
    benchmark = AccuracyBenchmark([()] * 40, accuracy[:, None], features, np.zeros(40), accuracy)
    drawn = [np.random.default_rng(seed).choice(40, 10, replace=False) for seed in range(3)]
    coverages = [(20 - sum(row % 2 == 0 for row in rows)) / 30 for rows in drawn]
    assert skill(features, np.zeros(40), benchmark, 10, draws=3).coverage == pytest.approx(np.mean(coverages))
    features[:, 0] = -truth
    assert skill(features, np.zeros(40), benchmark, 10, draws=3).spearman == pytest.approx(-1)
    # 1.2816 deviations on either side hold 80 %.
    features[:, 1] = 1.0
    features[:, 0] = truth + np.where(odd, 1.29, -1.27)
    assert skill(features, np.zeros(40), benchmark, 10, draws=3).coverage == pytest.approx(np.mean(coverages))


def test_isomorphic_candidates_are_not_judged_and_at_most_so_many_are(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[int] = []

    class Counting(FixedPredictions):
        def predict(self, features: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            judged.append(len(features))
            return super().predict(features, prior)

    monkeypatch.setattr(surrogate_skill, "fit", lambda features, prior, scores: Counting())
    accuracy, twins = np.arange(40.0), np.repeat(np.arange(20.0), 2)[:, None]  # twenty pairs of isomorphic candidates
    features = np.column_stack([accuracy, np.ones(40)])
    benchmark = AccuracyBenchmark([()] * 40, twins, features, np.zeros(40), accuracy)
    skill(features, np.zeros(40), benchmark, 5, draws=4)
    pairs = [len({row // 2 for row in np.random.default_rng(seed).choice(40, 5, replace=False)}) for seed in range(4)]
    assert judged == [40 - 2 * count for count in pairs] and min(pairs) < 5
    monkeypatch.setattr(surrogate_skill, "MOST_JUDGED", 7)
    skill(features, np.zeros(40), benchmark, 5, draws=1)
    assert judged[-1] == 7


def test_encodings_by_hand() -> None:
    choices = [("a", "b", "a"), ("b", "b", "a"), ("a", "c", "a"), ("b", "a", "b")]
    features, score = np.random.default_rng(0).permuted(np.arange(80.0)).reshape(4, 20), np.array([3.0, 1, 4, 2])
    benchmark = AccuracyBenchmark(choices, features, one_hot(choices), score, np.zeros(4))
    by_name = encodings(benchmark)
    assert list(by_name) == [
        "one-hot encoding",
        "operation counts",
        "operation counts and live parameters",
        "gradient paths",
        "gradient paths, score as prior",
        "gradient paths and encoding, score as prior",
    ]
    read = {name: columns for name, (columns, _) in by_name.items()}
    assert read["one-hot encoding"] is benchmark.encoding
    assert read["gradient paths"] is read["gradient paths, score as prior"] is features
    assert read["gradient paths and encoding, score as prior"].tolist() == np.hstack([features, benchmark.encoding]).tolist()
    # a: 2, 1, 2, 1, with mean 1.5 and deviation 0.5. b: 1, 2, 0, 2. c: 0, 0, 1, 0.
    counts = read["operation counts"]
    assert counts[:, 0].tolist() == [1, -1, 1, -1]
    assert counts[:, 1] == pytest.approx((np.array([1, 2, 0, 2]) - 1.25) / 0.6875**0.5)
    assert counts[:, 2] == pytest.approx((np.array([0, 0, 1, 0]) - 0.25) / 0.1875**0.5)
    live_params = features[:, SURROGATE_FEATURES.index("live_params")]
    assert read["operation counts and live parameters"].tolist() == np.column_stack([counts, live_params]).tolist()
    priors = [prior.tolist() for _, prior in by_name.values()]
    assert priors == [[0] * 4] * 4 + [score.tolist()] * 2


def test_counts_that_are_the_same_for_all_are_left_out() -> None:
    choices = [("a", "b", "c"), ("b", "a", "c")]
    benchmark = AccuracyBenchmark(choices, np.zeros((2, 20)), one_hot(choices), np.zeros(2), np.zeros(2))
    assert encodings(benchmark)["operation counts"][0].shape == (2, 0)
