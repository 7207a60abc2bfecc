"""Search strategies on a benchmark with one objective: the regret that each has after so many evaluations.

benchmark = accuracy_benchmark(choices, features, accuracy)
regrets(ours, benchmark, evaluations=100, seeds=50)          # (seeds, evaluations)
"""

from __future__ import annotations

import numpy as np

from gpnas.bench.accuracy_benchmark import AccuracyBenchmark
from gpnas.bench.strategies import TOURNAMENT, Query, Search, Strategy, evolve, in_order, replay
from gpnas.search.acquisition import log_expected_improvement
from gpnas.search.surrogate import Floats, fit, normal_scores

POOL = 3000
"""Candidates among which a model-based strategy chooses each evaluation."""

FIRST = 3
"""Evaluations before the surrogate is used. Each is the best by the prior among FIRST_POOL drawn candidates."""

FIRST_POOL = 500


def ours(benchmark: AccuracyBenchmark, seed: int) -> Search:
    """Expected improvement of the surrogate on gradient-path features, with the score as its prior."""
    yield from _model_based(benchmark.features, benchmark.score, seed)


def without_paths(benchmark: AccuracyBenchmark, seed: int) -> Search:
    """The same on the one-hot encoding alone, without a prior."""
    yield from _model_based(benchmark.encoding, np.zeros(len(benchmark.encoding)), seed)


def _model_based(features: Floats, prior: Floats, seed: int) -> Search:
    rng = np.random.default_rng(seed)
    trained: list[int] = []
    accuracies: list[float] = []
    while len(trained) < len(features):
        pool = np.setdiff1d(rng.choice(len(features), min(POOL, len(features)), replace=False), trained)
        if not len(pool):
            continue
        if len(trained) < FIRST:
            pool = rng.permutation(pool)[:FIRST_POOL]
            row = int(pool[np.argmax(prior[pool])])
        else:
            model = fit(features[trained], prior[trained], normal_scores(np.array(accuracies)))
            mean, deviation = model.predict(features[pool], prior[pool])
            row = int(pool[np.argmax(log_expected_improvement(mean, deviation, model.best))])
        trained.append(row)
        accuracies.append((yield Query(row, 1)))


def random_search(benchmark: AccuracyBenchmark, seed: int) -> Search:
    """Every candidate, in random order."""
    yield from in_order(np.random.default_rng(seed).permutation(len(benchmark.choices)), 1)


def regularised_evolution(benchmark: AccuracyBenchmark, seed: int) -> Search:
    """Regularised evolution; a mutation draws another value for one choice."""
    rng = np.random.default_rng(seed)
    rows = {choices: row for row, choices in enumerate(benchmark.choices)}
    values = [sorted(set(position)) for position in zip(*benchmark.choices, strict=True)]

    def mutate(row: int) -> int | None:
        parent = benchmark.choices[row]
        k = int(rng.choice([k for k in range(len(parent)) if len(values[k]) > 1]))
        other = str(rng.choice([value for value in values[k] if value != parent[k]]))
        return rows.get((*parent[:k], other, *parent[k + 1 :]))

    yield from evolve(
        sample=lambda: int(rng.integers(len(benchmark.choices))),
        mutate=mutate,
        tournament=lambda size: rng.choice(size, TOURNAMENT, replace=False),
        epochs=1,
    )


STRATEGIES: dict[str, Strategy[AccuracyBenchmark]] = {
    "ours": ours,
    "ours without gradient paths": without_paths,
    "random": random_search,
    "regularised evolution": regularised_evolution,
}


def regrets(strategy: Strategy[AccuracyBenchmark], benchmark: AccuracyBenchmark, evaluations: int, seeds: int) -> Floats:
    """(seeds, evaluations): the best accuracy of the benchmark minus the best that the search has reached so far.

    A candidate that a search asks for again is not counted: a journal would answer it. When a search ends early, its regret
    stays what it was.
    """
    return np.array([_regret_curve(strategy(benchmark, seed), benchmark.accuracy, evaluations) for seed in range(seeds)])


def _regret_curve(search: Search, accuracy: Floats, evaluations: int) -> Floats:
    reached = [float(accuracy[training.row]) for training in replay(search, accuracy[None, :, None], evaluations)]
    reached += [max(reached)] * (evaluations - len(reached))
    return np.asarray(np.max(accuracy) - np.maximum.accumulate(reached), dtype=np.float64)
