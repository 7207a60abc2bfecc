"""How well a surrogate that learned from a few trained candidates ranks the others, by what it reads of them.

for name, (features, prior) in encodings(benchmark).items():
    print(name, skill(features, prior, benchmark, trained=20, draws=20).spearman)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, spearmanr

from gpnas.bench.accuracy_benchmark import SURROGATE_FEATURES, AccuracyBenchmark
from gpnas.search.surrogate import Floats, fit, normal_scores

MOST_JUDGED = 4000
"""Candidates on which one draw is judged, at most."""


@dataclass(frozen=True)
class Skill:
    """spearman: rank correlation of predicted and true accuracy, mean over draws. deviation: standard deviation of it over
    draws. coverage: share of the true accuracies that lie in the predicted 80 % interval, mean over draws."""

    spearman: float
    deviation: float
    coverage: float


def skill(features: Floats, prior: Floats, benchmark: AccuracyBenchmark, trained: int, draws: int) -> Skill:
    """In each draw, fit the surrogate on `trained` random candidates and judge it on up to MOST_JUDGED others.

    features: of shape (candidates, features). prior: of shape (candidates,). Candidates with the features of a trained one,
    such as isomorphic cells, are not judged.
    """
    truth = normal_scores(benchmark.accuracy)
    _, group = np.unique(benchmark.features, axis=0, return_inverse=True)
    spearmans, coverages = [], []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        chosen = rng.choice(len(features), trained, replace=False)
        judged = rng.permutation(np.flatnonzero(~np.isin(group, group[chosen])))[:MOST_JUDGED]
        model = fit(features[chosen], prior[chosen], normal_scores(benchmark.accuracy[chosen]))
        mean, deviation = model.predict(features[judged], prior[judged])
        inside = np.abs(truth[judged] - mean) <= norm.ppf(0.9) * deviation
        spearmans.append(float(spearmanr(mean, truth[judged]).statistic))
        coverages.append(float(inside.mean()))
    return Skill(float(np.mean(spearmans)), float(np.std(spearmans)), float(np.mean(coverages)))


def encodings(benchmark: AccuracyBenchmark) -> dict[str, tuple[Floats, Floats]]:
    """(features, prior) of each surrogate that is compared, by name. A prior of zeros means none."""
    no_prior = np.zeros(len(benchmark.score))
    both = np.column_stack([benchmark.features, benchmark.encoding])
    counts = _value_counts(benchmark)
    live_params = benchmark.features[:, SURROGATE_FEATURES.index("live_params")]
    return {
        "one-hot encoding": (benchmark.encoding, no_prior),
        "operation counts": (counts, no_prior),
        "operation counts and live parameters": (np.column_stack([counts, live_params]), no_prior),
        "gradient paths": (benchmark.features, no_prior),
        "gradient paths, score as prior": (benchmark.features, benchmark.score),
        "gradient paths and encoding, score as prior": (both, benchmark.score),
    }


def _value_counts(benchmark: AccuracyBenchmark) -> Floats:
    """(candidates, values): how often a candidate chose each value, standardised, without counts that are the same for all."""
    values = sorted({value for choices in benchmark.choices for value in choices})
    counts = np.array([[choices.count(value) for value in values] for choices in benchmark.choices], dtype=np.float64)
    counts = counts[:, counts.std(axis=0) > 0]
    return np.asarray((counts - counts.mean(axis=0)) / counts.std(axis=0), dtype=np.float64)
