"""Strategies on a benchmark of cells whose truth is known by construction."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gpnas.bench.accuracy_benchmark import AccuracyBenchmark, one_hot
from gpnas.bench.cell_strategies import FIRST, STRATEGIES, random_search, regrets
from gpnas.bench.strategies import POPULATION, Query, Search
from gpnas.search.surrogate import ranks


def made_benchmark(noise: float = 0.0) -> AccuracyBenchmark:
    """Three choices of six values each. Features are curved functions of them, and accuracy is a function of the features."""
    choices = list(itertools.product("012345", repeat=3))
    values = np.array([[float(v) for v in choice] for choice in choices])
    features = ranks(np.column_stack([values.sum(1) ** 2, values[:, 0] * values[:, 1], values[:, 2] - values[:, 1]]))
    accuracy = 10 * features[:, 0] + 3 * np.sin(2 * features[:, 1]) + 2 * features[:, 2]
    accuracy += noise * np.random.default_rng(0).standard_normal(len(choices))
    return AccuracyBenchmark(choices, features, one_hot(choices), features[:, 0], accuracy)


def first_queries(search: Search, accuracy: np.ndarray, count: int) -> list[int]:
    """The rows of the first queries, each answered by its accuracy."""
    queries: list[Query] = [next(search)]
    while len(queries) < count:
        queries.append(search.send(float(accuracy[queries[-1].row])))
    assert all(query.epochs == 1 for query in queries)
    return [query.row for query in queries]


def scripted(rows: list[int]) -> Search:
    for row in rows:
        yield Query(row, 1)


def test_regret_by_hand() -> None:
    accuracy = np.array([4.0, 9, 6, 7, 1])
    benchmark = AccuracyBenchmark([(str(k),) for k in range(5)], np.zeros((5, 1)), np.eye(5), np.zeros(5), accuracy)
    scripts = [[4, 2, 4, 2, 0, 3], [0, 1, 2, 3, 4]]
    curves = regrets(lambda benchmark, seed: scripted(scripts[seed]), benchmark, evaluations=4, seeds=2)
    assert curves.tolist() == [[8, 3, 3, 2], [5, 0, 0, 0]]  # a second query for 4 and for 2 does not count
    curves = regrets(lambda benchmark, seed: scripted([2, 3]), benchmark, evaluations=4, seeds=1)
    assert curves.tolist() == [[3, 2, 2, 2]]  # a search that ends keeps its regret


VARIANT = "ours without gradient paths"


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == VARIANT else n for n in STRATEGIES])
def test_a_strategy_repeats_with_its_seed_and_its_regret_never_rises(name: str) -> None:
    benchmark = made_benchmark()
    first, again = (regrets(STRATEGIES[name], benchmark, 8, 2) for _ in range(2))
    assert np.array_equal(first, again) and first.shape == (2, 8)
    assert (np.diff(first, axis=1) <= 0).all() and (first >= 0).all()
    assert not np.array_equal(first[0], first[1])


def test_a_model_never_asks_twice_and_ends_with_the_benchmark() -> None:
    whole, rows = made_benchmark(), slice(30, 42)
    columns = (whole.features[rows], whole.encoding[rows], whole.score[rows], whole.accuracy[rows])
    benchmark = AccuracyBenchmark(whole.choices[rows], *columns)
    search = STRATEGIES["ours"](benchmark, 0)
    queries = first_queries(search, benchmark.accuracy, 12)
    assert sorted(queries) == list(range(12))
    with pytest.raises(StopIteration):
        search.send(0.0)


def test_ours_starts_with_the_best_scores() -> None:
    whole, rng = made_benchmark(), np.random.default_rng(4)
    rows = rng.choice(216, 40, replace=False)
    score = rng.permutation(40).astype(float)  # no ties
    choices = [whole.choices[row] for row in rows]
    benchmark = AccuracyBenchmark(choices, whole.features[rows], whole.encoding[rows], score, whole.accuracy[rows])
    queries = first_queries(STRATEGIES["ours"](benchmark, 0), benchmark.accuracy, FIRST + 1)
    assert queries[:FIRST] == (-score).argsort()[:FIRST].tolist()


def test_the_fourth_candidate_is_where_the_surrogate_expects_most() -> None:
    """One feature that is the accuracy: after the three best scores, which are the worst candidates here, it goes up."""
    features = ranks(np.arange(30.0)[:, None])
    benchmark = AccuracyBenchmark([(str(k),) for k in range(30)], features, features, -features[:, 0], features[:, 0])
    queries = first_queries(STRATEGIES["ours without gradient paths"](benchmark, 1), benchmark.accuracy, 8)
    assert benchmark.accuracy[queries[FIRST:]].max() == benchmark.accuracy.max()
    assert first_queries(STRATEGIES["ours"](benchmark, 1), benchmark.accuracy, FIRST) == [0, 1, 2]


def test_evolution_changes_one_choice_of_a_member_of_the_population() -> None:
    benchmark = made_benchmark()
    queries = first_queries(STRATEGIES["regularised evolution"](benchmark, 3), benchmark.accuracy, 60)
    for k in range(POPULATION, 60):
        child, population = benchmark.choices[queries[k]], [benchmark.choices[row] for row in queries[k - POPULATION : k]]
        differing = [sum(a != b for a, b in zip(child, member, strict=True)) for member in population]
        assert min(d for d in differing if d) == 1


def test_evolution_mutates_positions_of_two_values_and_leaves_constant_ones() -> None:
    choices = list(itertools.product("ab", "c", "de"))
    accuracy = np.array([1.0, 2.0, 3.0, 5.0])
    benchmark = AccuracyBenchmark(choices, np.zeros((4, 1)), one_hot(choices), np.zeros(4), accuracy)
    for seed in range(3):
        assert set(first_queries(STRATEGIES["regularised evolution"](benchmark, seed), accuracy, 40)) == {0, 1, 2, 3}


def test_ours_beats_random_where_features_tell_the_truth() -> None:
    benchmark = made_benchmark(noise=1.0)
    ours, chance = (regrets(STRATEGIES[name], benchmark, 15, 4)[:, -1].mean() for name in ("ours", "random"))
    assert ours < 0.5 * chance


def test_random_search_finds_what_chance_finds() -> None:
    """Regret after n draws without replacement has a known mean: the sum over order statistics."""
    benchmark = made_benchmark()
    values = np.sort(benchmark.accuracy)
    n, total = 10, len(values)
    weights = np.array([float(np.prod([(k - i) / (total - i) for i in range(n)])) for k in range(1, total + 1)])
    best = float(values @ np.diff(np.concatenate([[0.0], weights])))
    reached = regrets(random_search, benchmark, n, 1000)[:, -1]
    assert reached.mean() == pytest.approx(values[-1] - best, abs=4 * reached.std() / 1000**0.5)
