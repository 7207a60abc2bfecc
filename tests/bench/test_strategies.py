"""Searches that are replayed on a benchmark, query by query, and evolution worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gpnas.bench.strategies import MOST_REPEATS, POPULATION, Query, Search, Training, evolve, in_order, replay

CURVES = np.array([[[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8], [0.15, 0.25, 0.35, 0.45]]])  # one seed


def scripted(queries: list[tuple[int, int]], answers: list[float]) -> Search:
    """Makes the queries in order and keeps the answers."""
    for row, epochs in queries:
        answers.append((yield Query(row, epochs)))


def test_a_search_pays_for_the_epochs_that_a_row_has_not_had() -> None:
    answers: list[float] = []
    queries = [(0, 1), (1, 4), (0, 1), (1, 2), (1, 4), (0, 3), (2, 4), (2, 1)]
    trainings = list(replay(scripted(queries, answers), CURVES, 9))
    # 1 + 4 + 0 + 0 + 0 + 2 epochs; then 2 are left, and the next query costs 4.
    assert trainings == [Training(0, 1, 1), Training(1, 4, 5), Training(0, 3, 7)]
    assert answers == [0.1, 0.8, 0.1, 0.6, 0.8, 0.3]


def test_another_seed_of_a_row_costs_all_of_its_epochs() -> None:
    curves = np.concatenate([CURVES, CURVES + 0.01])
    curves[1, 2] = np.nan
    answers: list[float] = []

    def search() -> Search:
        for query in (Query(0, 4), Query(0, 2, seed=1), Query(0, 3, seed=1), Query(0, 4), Query(2, 4)):
            answers.append((yield query))

    trainings = list(replay(search(), curves, 11))
    assert trainings == [Training(0, 4, 4), Training(0, 2, 6, 1), Training(0, 3, 7, 1), Training(2, 4, 11)]
    assert answers == pytest.approx([0.4, 0.21, 0.31, 0.4, 0.45])


@pytest.mark.parametrize("query", [Query(2, 1, 1), Query(0, 1, 2)])
def test_a_training_that_the_table_lacks_is_refused(query: Query) -> None:
    curves = np.concatenate([CURVES, CURVES])
    curves[1, 2] = np.nan
    with pytest.raises(ValueError, match=f"no training of row {query.row} with seed {query.seed} for 1 epochs"):
        list(replay(iter([query]), curves, 8))  # type: ignore[arg-type]


def test_a_search_ends_with_the_budget_and_with_its_last_query() -> None:
    answers: list[float] = []
    assert list(replay(scripted([(0, 4), (2, 4), (1, 1)], answers), CURVES, 8)) == [Training(0, 4, 4), Training(2, 4, 8)]
    assert answers == [0.4, 0.45]
    assert list(replay(scripted([(1, 2)], answers), CURVES, 8)) == [Training(1, 2, 2)]
    assert list(replay(scripted([], answers), CURVES, 8)) == []


@pytest.mark.parametrize(("repeats", "rows"), [(MOST_REPEATS - 1, [0, 1]), (MOST_REPEATS, [0])])
def test_a_search_that_asks_for_nothing_new_ends(repeats: int, rows: list[int]) -> None:
    answers: list[float] = []
    queries = [(0, 1)] * (1 + repeats) + [(1, 1), (0, 1), (2, 4)]
    trainings = list(replay(scripted(queries, answers), CURVES, 2))
    assert [training.row for training in trainings] == rows
    assert len(answers) == 1 + repeats + (len(rows) - 1)


def test_a_new_training_sets_the_count_of_repeats_to_zero() -> None:
    queries = [*[(0, 1)] * MOST_REPEATS, *[(1, 1)] * MOST_REPEATS, (2, 4)]
    assert [training.row for training in replay(scripted(queries, []), CURVES, 6)] == [0, 1, 2]


def test_in_order_trains_every_row_in_full() -> None:
    assert list(in_order(np.array([7, 2, 5]), 4)) == [Query(7, 4), Query(2, 4), Query(5, 4)]


def test_evolution_by_hand() -> None:
    """The accuracy of a row is its number, except that row 3 has 100. Row r mutates to 2 r + 20 and, once, to nothing."""
    sampled = iter(range(POPULATION))
    tournaments = iter([(0, 3, 9), (2, 3, 4), (1, 2, 3), (9, 2, 0), (9, 1, 2)])
    parents: list[int] = []
    sizes: list[int] = []

    def mutate(row: int) -> int | None:
        parents.append(row)
        return None if len(parents) == 2 else 2 * row + 20

    def tournament(size: int) -> tuple[int, ...]:
        sizes.append(size)
        return next(tournaments)

    search = evolve(lambda: next(sampled), mutate, tournament, epochs=8)
    queries = [next(search)]
    while len(queries) < 14:
        row = queries[-1].row
        queries.append(search.send(100.0 if row == 3 else float(row)))
    # 0 ... 9, then row 3 wins; the member at position 0 dies and row 26 is the last one, at position 9.
    # Positions 2, 3, 4 are then rows 3, 4, 5: row 3 wins, but its mutation is not in the benchmark.
    # Positions 1, 2, 3 are rows 2, 3, 4: row 3 wins. Then positions 9, 2, 0 are rows 26, 4, 2: row 26 wins.
    # Then positions 9, 1, 2 are rows 72, 4, 5: row 72 wins.
    assert parents == [3, 3, 3, 26, 72] and sizes == [POPULATION] * 5
    assert queries == [Query(row, 8) for row in (*range(10), 26, 26, 72, 164)]
