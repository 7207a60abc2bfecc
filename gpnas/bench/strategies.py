"""What the search strategies on all tabular benchmarks share: how a strategy asks, how the benchmark answers, and evolution.

A strategy makes a search, which is a generator. The search yields `Query(row, epochs)` and is sent the accuracy of that row
after so many epochs in total. It sees nothing else of the truth. `replay` answers the queries and counts their cost:

    for training in replay(in_order([7, 2, 5], epochs=1), accuracy[None, :, None], budget=100):
        print(training.row, training.spent)

`Query(row, epochs, seed=1)` asks for another training of the same row, from another seed, and pays for all of its epochs.

On a benchmark that has only accuracies of full trainings, a full training is one epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from gpnas.search.surrogate import Floats

MOST_REPEATS = 1000
"""A search ends after so many queries in a row for trainings that are paid for already."""

POPULATION, TOURNAMENT = 10, 3
"""Sizes in regularised evolution. They are small because budgets are about 100 trainings."""


class Query(NamedTuple):
    """Train `row` of the benchmark for `epochs` in total, from scratch with `seed`."""

    row: int
    epochs: int
    seed: int = 0


class Training(NamedTuple):
    """A training that a search paid for. epochs: in total for this row and seed. spent: epochs spent on all rows, up to its
    end."""

    row: int
    epochs: int
    spent: int
    seed: int = 0


Search = Generator[Query, float, None]

Benchmark = TypeVar("Benchmark")

Strategy = Callable[[Benchmark, int], Search]
"""Starts a search on a benchmark with a seed."""


def replay(
    search: Search,
    curves: Floats,  # (seeds, rows, epochs), accuracy of each row after each epoch; NaN where there is no training
    budget: int,
) -> Iterator[Training]:
    """Answer the queries of `search` from `curves` and yield the trainings that it pays for, until `budget` epochs are spent.

    A query costs the epochs that its row has not had yet with its seed. A query that costs nothing is answered and yields no
    training. The search ends early when a query costs more than is left, or after MOST_REPEATS queries in a row that cost
    nothing. Raises ValueError for a query of a training that `curves` lack.
    """
    trained: dict[tuple[int, int], int] = {}
    spent = repeats = 0
    query = next(search, None)
    while query is not None and spent < budget and repeats < MOST_REPEATS:
        row, epochs, seed = query
        if seed >= len(curves) or np.isnan(curves[seed, row, epochs - 1]):
            raise ValueError(f"there is no training of row {row} with seed {seed} for {epochs} epochs")
        cost = max(0, epochs - trained.get((row, seed), 0))
        if spent + cost > budget:
            return
        repeats = 0 if cost else repeats + 1
        if cost:
            spent += cost
            trained[row, seed] = epochs
            yield Training(row, epochs, spent, seed)
        try:
            query = search.send(float(curves[seed, row, epochs - 1]))
        except StopIteration:
            return


def in_order(rows: Iterable[int], epochs: int) -> Search:
    """Train every row in full, in the given order."""
    for row in rows:
        yield Query(int(row), epochs)


def evolve(
    sample: Callable[[], int],
    mutate: Callable[[int], int | None],
    tournament: Callable[[int], Iterable[int]],
    epochs: int,
) -> Search:
    """Regularised evolution (Real et al., arXiv:1802.01548, algorithm 1): the best of a tournament is mutated, and the oldest
    member of the population dies. Every row is trained in full.

    sample: a random row. mutate: a mutation of a row; None if the benchmark does not have it, then the tournament is drawn
    again. tournament: positions of TOURNAMENT different members of a population of the given size.
    """
    population: list[tuple[float, int]] = []  # (accuracy, row), the oldest first
    while True:
        if len(population) < POPULATION:
            row: int | None = sample()
        else:
            row = mutate(max(population[i] for i in tournament(len(population)))[1])
        if row is not None:
            accuracy = yield Query(row, epochs)
            population = [*population, (accuracy, row)][-POPULATION:]
