"""Strategies for the front, on a benchmark of chains whose truth is known."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from gpnas.bench import detector_strategies
from gpnas.bench.detector_benchmark import DetectorBenchmark
from gpnas.bench.detector_strategies import (
    BOUNDS,
    ENOUGH,
    MEASURES,
    STRATEGIES,
    epochs_to,
    ratio_interval,
    share_curves,
    shares,
)
from gpnas.bench.strategies import POPULATION, Query, Search
from gpnas.graph.cost import deployed_cost
from gpnas.paths.features import FEATURES, features
from gpnas.search.surrogate import Floats
from gpnas.search.trial import Fidelity
from search_spaces.tabular import TabularSpace
from tests.grid import grid_candidate, true_ap

EPOCHS = 4


@pytest.fixture(scope="module")
def benchmark() -> DetectorBenchmark:
    """Sixty chains. AP grows with depth and falls with width beyond 32."""
    rng = random.Random(0)
    cells = rng.sample([(width, depth) for width in range(4, 68, 4) for depth in range(1, 13)], 60)
    candidates = [grid_candidate(width, depth) for width, depth in cells]
    choices = [{"width": width, "depth": depth} for width, depth in cells]
    known = [features(candidate.graph, 32, 32) for candidate in candidates]
    macs = [deployed_cost(candidate.graph, 32).macs for candidate in candidates]
    curves = np.array([[[true_ap(candidate, Fidelity(epoch, 32)) for epoch in (1, 2, 4, 8)] for candidate in candidates]])
    return DetectorBenchmark(TabularSpace, candidates, choices, known, macs, curves, 32)


@pytest.fixture
def small() -> DetectorBenchmark:
    """Three rows of 2**20, 2**22 and 2**24 MACs, two epochs each. Their mean AP is .1, .3 and .2; by seed 0 row 2 is best."""
    candidates = [grid_candidate(4 * k, k) for k in (1, 2, 3)]
    curves = np.array([[[0.05, 0.1], [0.4, 0.25], [0.1, 0.26]], [[np.nan, np.nan], [0.3, 0.35], [0.2, 0.14]]])
    return DetectorBenchmark(
        TabularSpace, candidates, [{"k": k} for k in range(3)], [{}] * 3, [2**20, 2**22, 2**24], curves, 64
    )


def queries_of(search: Search, benchmark: DetectorBenchmark, count: int) -> list[Query]:
    """The first queries, each answered from the benchmark."""
    queries = [next(search)]
    while len(queries) < count:
        row, epochs, seed = queries[-1]
        queries.append(search.send(float(benchmark.curves[seed, row, epochs - 1])))
    return queries


def test_shares_by_hand(small: DetectorBenchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    """The areas of all rows, of row 2, and of rows 2 and 0 are 1.0, 0.2 and 0.5 (test_detector_benchmark.py)."""
    monkeypatch.setattr(detector_strategies, "SUBSET", 1.0)

    def search(benchmark: DetectorBenchmark, seed: int) -> Search:
        for query in ((2, 2), (1, 1), (0, 1), (0, 2), (2, 1), (1, 2)):
            yield Query(*query)

    area, best = share_curves(search, small, 8, 0)
    assert area == pytest.approx([0, 0.2, 0.2, 0.2, 0.5, 1, 1, 1])
    assert best == pytest.approx([0, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 1, 1, 1])
    assert share_curves(search, small, 5, 0) == pytest.approx(np.array([area[:5], best[:5]]))


def test_another_seed_is_paid_in_full_and_a_row_counts_once(small: DetectorBenchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector_strategies, "SUBSET", 1.0)

    def search(benchmark: DetectorBenchmark, seed: int) -> Search:
        for query in ((2, 2, 0), (2, 1, 1), (2, 2, 1), (1, 2, 0)):
            yield Query(*query)

    area, best = share_curves(search, small, 6, 0)  # row 2 after 2 epochs, its second seed after 4, row 1 after 6
    assert area == pytest.approx([0, 0.2, 0.2, 0.2, 0.2, 0.9])
    assert best == pytest.approx([0, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 1])


def test_the_bounds_train_in_the_order_of_the_mean_ap(small: DetectorBenchmark) -> None:
    """Alone, rows 0, 1 and 2 dominate 0.4, 0.9 and 0.2 of area; beside row 1, row 0 adds 0.1 and row 2 nothing."""
    assert list(BOUNDS["clairvoyant, for the area"](small, 0)) == [Query(1, 2), Query(0, 2), Query(2, 2)]
    assert list(BOUNDS["clairvoyant, for the best AP"](small, 0)) == [Query(1, 2), Query(2, 2), Query(0, 2)]


def test_the_perfect_promoter_promotes_by_the_truth_whatever_it_measures(benchmark: DetectorBenchmark) -> None:
    """The tenth decision promotes the best of the first nine by the truth; the controller is sent the reverse."""
    search = BOUNDS["perfect promoter"](benchmark, 0)
    queries = [next(search)]
    while len(queries) < 10:
        queries.append(search.send(1 - float(benchmark.mean_ap[queries[-1].row])))
    best = max(benchmark.mean_ap[query.row] for query in queries[:9])
    assert queries[9].epochs == 2 and benchmark.mean_ap[queries[9].row] == best
    assert best > min(benchmark.mean_ap[query.row] for query in queries[:9])


def test_every_seed_searches_three_quarters_of_the_rows_the_same_for_all_strategies(benchmark: DetectorBenchmark) -> None:
    seen: list[list[str]] = []

    def search(benchmark: DetectorBenchmark, seed: int) -> Search:
        seen.append([candidate.hash for candidate in benchmark.candidates])
        return
        yield

    assert (shares(search, benchmark, 3, 2) == 0).all() and shares(search, benchmark, 3, 2).shape == (2, 2, 3)
    assert len(set(seen[0])) == len(set(seen[1])) == 45
    assert seen[:2] == seen[2:4] and seen[0] != seen[1]
    everything = [candidate.hash for candidate in benchmark.candidates]
    assert [name for name in everything if name in seen[0]] == seen[0]  # in the benchmark's order


VARIANTS = ("ours, two workers", "ours without gradient paths", "ours on operation counts")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in VARIANTS else n for n in STRATEGIES])
def test_shares_rise_repeat_and_never_exceed_one(benchmark: DetectorBenchmark, name: str) -> None:
    first, again = (shares(STRATEGIES[name], benchmark, 24, 2) for _ in range(2))
    assert np.array_equal(first, again) and first.shape == (2, 2, 24)
    assert (np.diff(first, axis=2) >= 0).all() and first[:, :, -1].min() > 0 and first.max() <= 1 + 1e-9


def test_random_search_pays_all_epochs_of_every_row(benchmark: DetectorBenchmark) -> None:
    curves = shares(STRATEGIES["random"], benchmark, 45 * EPOCHS, 2)
    assert (curves[..., : EPOCHS - 1] == 0).all() and (curves[..., EPOCHS - 1] > 0).all()
    assert curves[..., -1] == pytest.approx(1.0)
    assert (np.diff(curves)[..., np.arange(1, 45 * EPOCHS) % EPOCHS != EPOCHS - 1] == 0).all()
    queries = list(STRATEGIES["random"](benchmark, 5))
    assert sorted(queries) == [Query(row, EPOCHS) for row in range(60)] != queries
    assert list(STRATEGIES["random"](benchmark, 6)) != queries


def test_ours_trains_on_rungs_of_a_quarter_half_and_all_epochs(benchmark: DetectorBenchmark) -> None:
    queries = queries_of(STRATEGIES["ours"](benchmark, 0), benchmark, 25)
    assert {query.epochs for query in queries} == {1, 2, 4}
    assert [query.epochs for query in queries[:4]] == [1, 1, 1, 1]
    for k, (row, epochs, _) in enumerate(queries):
        if epochs > 1:
            assert Query(row, epochs // 2) in queries[:k]


@pytest.mark.parametrize(("name", "last_known"), [("ours", 8), ("ours, two workers", 4)])
def test_two_workers_decide_without_the_last_four_results(benchmark: DetectorBenchmark, name: str, last_known: int) -> None:
    """AP rises from each of the nine first trials to the next, so the tenth decision promotes the last one that it knows."""
    search = STRATEGIES[name](benchmark, 0)
    queries = [next(search)]
    while len(queries) < 10:
        queries.append(search.send(0.1 + 0.01 * len(queries)))
    assert queries[9] == Query(queries[last_known].row, 2)


def test_evolution_samples_the_space_and_then_mutates(benchmark: DetectorBenchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    parents: list[list[int]] = []
    rows = {candidate.hash: row for row, candidate in enumerate(benchmark.candidates)}
    propose = TabularSpace.propose

    def spy(space: TabularSpace, given, rng: random.Random):
        parents.append([rows[candidate.hash] for candidate in given])
        return propose(space, given, rng)

    monkeypatch.setattr(TabularSpace, "propose", spy)
    queries = queries_of(STRATEGIES["regularised evolution"](benchmark, 2), benchmark, 30)
    assert all(query.epochs == EPOCHS for query in queries)
    assert parents[:POPULATION] == [[]] * POPULATION
    for k in range(POPULATION, 30):
        (parent,) = parents[k]
        population = [query.row for query in queries[k - POPULATION : k]]
        assert parent in population
        # The best of three out of ten has at least two others, worse or equal, beside it.
        assert sum(benchmark.curves[0, row, -1] <= benchmark.curves[0, parent, -1] for row in population) >= 3


def test_on_operation_counts_the_controller_reads_no_gradient_path(
    benchmark: DetectorBenchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[set[str]] = []

    def controlled(benchmark: DetectorBenchmark, seed: int, rows: Sequence[Mapping[str, float]]) -> Search:
        given.append({name for row in rows for name in row})
        assert all(row["live_params"] == own["live_params"] for row, own in zip(rows, benchmark.features, strict=True))
        yield Query(0, 1)

    monkeypatch.setattr(detector_strategies, "controlled", controlled)
    next(STRATEGIES["ours on operation counts"](benchmark, 0))
    assert {"live_params", "detector_score", "conv 3 1"} <= given[0]
    assert not given[0] & (set(FEATURES) - {"live_params", "detector_score"})


def test_without_paths_the_controller_reads_the_encoding(benchmark: DetectorBenchmark) -> None:
    bare = DetectorBenchmark(
        benchmark.make_space,
        benchmark.candidates,
        benchmark.choices,
        [{"score": 0.0}] * 60,
        benchmark.macs,
        benchmark.curves,
        benchmark.imgsz,
    )
    queries = {
        name: [queries_of(STRATEGIES[name](source, 1), source, 16) for source in (benchmark, bare)]
        for name in ("ours", "ours without gradient paths")
    }
    assert queries["ours without gradient paths"][0] == queries["ours without gradient paths"][1]
    assert queries["ours"][0] != queries["ours"][1]


@pytest.mark.slow
def test_ours_needs_fewer_epochs_than_chance(benchmark: DetectorBenchmark) -> None:
    ours, chance = (shares(STRATEGIES[name], benchmark, 140, 3) for name in ("ours", "random"))
    for k in range(len(MEASURES)):
        assert epochs_to(ENOUGH, ours[:, k]) < 0.7 * epochs_to(ENOUGH, chance[:, k])


def test_epochs_to_by_hand() -> None:
    assert epochs_to(0.5, np.array([[0.0, 0.4, 0.6], [0.0, 0.6, 1.0]])) == 2.0
    assert epochs_to(0.9, np.array([[0.0, 0.4]])) == float("inf")


def reaching(after: list[int], most: int) -> Floats:
    """(searches, most): shares that jump from 0 to 1 after so many epochs."""
    return (np.arange(1, most + 1) >= np.array(after)[:, None]).astype(float)


def test_the_interval_of_a_ratio_is_that_of_pairs_of_searches() -> None:
    """The one needs 20 epochs on half of the seeds and 60 on the others; the other twice as many on the same seeds.

    Of a sample the mean reaches one half after 20 and 40 epochs, or after 60 and 120. Without pairs, 20 / 120 would be likely.
    """
    one, other = reaching([20, 60] * 20, 200), reaching([40, 120] * 20, 200)
    assert ratio_interval(0.5, one, other) == (0.5, 0.5)
    assert ratio_interval(0.5, other, one) == (2.0, 2.0)


def test_the_interval_of_a_ratio_grows_with_the_differences_between_searches() -> None:
    """By the normal approximation: the mean share of 400 searches that jump at uniform times from 1 to 100 reaches one half
    after 50 +- 1.645 * 100 * .5 / 20 epochs, and the other needs 50 epochs in all of its searches."""
    one = reaching(np.random.default_rng(3).permutation(np.arange(400) % 100 + 1).tolist(), 100)
    low, high = ratio_interval(0.5, one, reaching([50] * 400, 100))
    assert low == pytest.approx(1 - 4.11 / 50, abs=0.025) and high == pytest.approx(1 + 4.11 / 50, abs=0.025)


def test_where_the_share_is_never_reached_the_interval_holds_what_is_possible() -> None:
    one, never = reaching([20] * 9, 80), np.zeros((9, 80))
    assert ratio_interval(0.95, one, never) == (0.0, 20 / 80)
    assert ratio_interval(0.95, never, one) == (80 / 20, np.inf)
    assert ratio_interval(0.95, never, never) == (0.0, np.inf)
