"""Search strategies on a table of trainings whose truth is known: how much of the front, and of the best AP, each has after so
many epochs.

    table = FrontTable(TableSpace, candidates, choices, features, macs, curves, imgsz=128)
    shares(STRATEGIES["ours"], table, epochs=800, seeds=50)       # (seeds, measures, epochs)

Every seed draws PART of the rows, the same for all strategies, and is a search of its own on them. A strategy is a generator:
it yields a row and epochs, total from scratch, and is sent the AP after them. It pays for the epochs that the row has not had
yet. What counts in the end are rows that were trained in full: the area that they dominate between AP and log2 MACs, or their
best AP, as a share of that of all rows.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpnas.bench.cell_strategies import MOST_REPEATS, POPULATION, TOURNAMENT, Table, make_table
from gpnas.search.acquisition import dominated_area
from gpnas.search.controller import SIZE_RANGE, Controller
from gpnas.search.ladder import EPOCH_GROWTH, WAVE_SIZES, Ladder
from gpnas.search.limits import Limits
from gpnas.search.surrogate import Floats
from gpnas.search.trial import Candidate, Evaluation, Fidelity, Space, TrialState

PART = 0.75
"""Share of a table's rows that one search has before it."""

ENOUGH = 0.95
"""Share of a measure at which a search has found it."""


@dataclass(frozen=True)
class FrontTable:
    """make_space: of candidates and their choices, proposes them and nothing else. candidates, choices (by label), features (by
    name), macs (of one image of `imgsz` pixels), curves (rows, epochs; AP): row by row."""

    make_space: Callable[[Sequence[Candidate], Sequence[Mapping[str, object]]], Space]
    candidates: Sequence[Candidate]
    choices: Sequence[Mapping[str, object]]
    features: Sequence[Mapping[str, float]]
    macs: Sequence[float]
    curves: Floats
    imgsz: int

    @functools.cached_property
    def space(self) -> Space:
        return self.make_space(self.candidates, self.choices)

    def part(self, rows: Sequence[int]) -> FrontTable:
        """The same table with those rows alone."""
        candidates, choices = [self.candidates[i] for i in rows], [self.choices[i] for i in rows]
        features, macs = [self.features[i] for i in rows], [self.macs[i] for i in rows]
        return FrontTable(self.make_space, candidates, choices, features, macs, self.curves[list(rows)], self.imgsz)

    def encoding(self) -> list[dict[str, float]]:
        """One-hot of the choices, row by row."""
        values = sorted({(label, str(value)) for choices in self.choices for label, value in choices.items()})
        return [{f"{label}={value}": float(str(of.get(label)) == value) for label, value in values} for of in self.choices]

    def flat(self) -> Table:
        """For surrogates of one objective, the AP in the end; a label without effect counts as a value."""
        labels = sorted({label for choices in self.choices for label in choices})
        choices = [tuple(str(of.get(label)) for label in labels) for of in self.choices]
        return make_table(choices, self.features, self.curves[:, -1])

    @property
    def epochs(self) -> int:
        """Of a full training."""
        return int(self.curves.shape[1])

    def area(self, rows: Sequence[int]) -> float:
        """What `rows`, trained in full, dominate; sizes below 1 / SIZE_RANGE of the largest count as that."""
        costs = np.maximum(np.log2(self.macs), np.log2(max(self.macs) / SIZE_RANGE))
        points = [(float(self.curves[i, -1]), float(costs[i])) for i in rows]
        return dominated_area(points, 0.0, float(costs.max()) + 1)

    def best(self, rows: Sequence[int]) -> float:
        """The highest AP of `rows`, trained in full, whatever they cost."""
        return float(self.curves[list(rows), -1].max())


Strategy = Callable[[FrontTable, int], Generator[tuple[int, int], float, None]]


def ours(table: FrontTable, seed: int) -> Generator[tuple[int, int], float, None]:
    """The controller of `gpnas search`, on rungs of a quarter, half and all of the epochs, knowing every result before it
    decides, as all others here do."""
    yield from controlled(table, seed, table.features)


def with_two_workers(table: FrontTable, seed: int) -> Generator[tuple[int, int], float, None]:
    """The same while the last four evaluations are not known yet, as in a search with two workers."""
    yield from controlled(table, seed, table.features, pending=4)


def without_paths(table: FrontTable, seed: int) -> Generator[tuple[int, int], float, None]:
    """The same controller with the one-hot encoding of the choices in place of features."""
    yield from controlled(table, seed, table.encoding())


def controlled(
    table: FrontTable, seed: int, known: Sequence[Mapping[str, float]], pending: int = 0
) -> Generator[tuple[int, int], float, None]:
    """The controller with what is `known` of each row before training, deciding without the last `pending` results."""
    rows = {candidate.hash: i for i, candidate in enumerate(table.candidates)}
    fidelities = tuple(Fidelity(max(1, table.epochs // EPOCH_GROWTH**k), table.imgsz) for k in (2, 1, 0))
    ladder = Ladder(fidelities, WAVE_SIZES[0], pending)
    pool = 10 * len(rows)  # draws with replacement that leave out next to nothing

    def describe(candidate: Candidate) -> Mapping[str, float]:
        return known[rows[candidate.hash]]

    controller = Controller(table.space, ladder, Limits(), imgsz=table.imgsz, seed=seed, pool=pool, describe=describe)
    while suggestions := controller.ask(1):
        suggestion = suggestions[0]
        controller.start(suggestion)
        ap = yield rows[suggestion.trial.candidate.hash], suggestion.fidelity.epochs
        controller.tell(suggestion.trial, suggestion.rung, Evaluation(TrialState.COMPLETE, {"ap": ap}))


def random_search(table: FrontTable, seed: int) -> Generator[tuple[int, int], float, None]:
    """Every row in full, in random order."""
    order = list(range(len(table.candidates)))
    random.Random(seed).shuffle(order)
    for row in order:
        yield row, table.epochs


def regularised_evolution(table: FrontTable, seed: int) -> Generator[tuple[int, int], float, None]:
    """Real et al., arXiv:1802.01548, algorithm 1, by AP alone as published; every row in full."""
    rng = random.Random(seed)
    rows = {candidate.hash: i for i, candidate in enumerate(table.candidates)}
    population: list[tuple[float, int]] = []
    while True:
        parents = [table.candidates[max(rng.sample(population, TOURNAMENT))[1]]] if len(population) == POPULATION else []
        row = rows[table.space.propose(parents, rng).hash]
        ap = yield row, table.epochs
        population = [*population, (ap, row)][-POPULATION:]


STRATEGIES: dict[str, Strategy] = {
    "ours": ours,
    "ours, two workers": with_two_workers,
    "ours without gradient paths": without_paths,
    "random": random_search,
    "regularised evolution": regularised_evolution,
}


MEASURES: dict[str, Callable[[FrontTable, Sequence[int]], float]] = {"area": FrontTable.area, "best AP": FrontTable.best}
"""What rows that were trained in full are worth together."""


def shares(strategy: Strategy, table: FrontTable, epochs: int, seeds: int) -> Floats:
    """(seeds, measures, epochs): the share of each seed's rows, by MEASURES, that is found when so many epochs are spent.

    What was trained already is answered and not counted; a strategy that asks for nothing new in MOST_REPEATS times has no
    further finds.
    """
    return np.array([share(strategy, table, epochs, seed) for seed in range(seeds)])


def share(strategy: Strategy, table: FrontTable, epochs: int, seed: int) -> Floats:
    """(measures, epochs): `shares` for one seed."""
    size = round(PART * len(table.candidates))
    table = table.part(sorted(random.Random(f"part/{seed}").sample(range(len(table.candidates)), size)))
    search = strategy(table, seed)
    whole = [worth(table, range(len(table.candidates))) for worth in MEASURES.values()]
    trained: dict[int, int] = {}
    found = np.zeros((len(MEASURES), epochs + 1))
    spent = repeats = 0
    asked: tuple[int, int] | None = next(search, None)
    while asked is not None and repeats < MOST_REPEATS:
        row, total = asked
        new = max(0, total - trained.get(row, 0))
        if spent + new > epochs:
            break
        repeats = 0 if new else repeats + 1
        trained[row] = max(total, trained.get(row, 0))
        spent += new
        if new and total == table.epochs:
            rows = [i for i, of in trained.items() if of == table.epochs]
            for k, worth in enumerate(MEASURES.values()):
                found[k, spent:] = worth(table, rows) / whole[k]
        try:
            asked = search.send(float(table.curves[row, total - 1]))
        except StopIteration:
            break
    return found[:, 1:]


def epochs_to(share: float, curves: Floats) -> float:
    """Epochs after which the mean over seeds first reaches `share`; infinity when it does not."""
    reached = np.flatnonzero(curves.mean(axis=0) >= share)
    return float(reached[0] + 1) if len(reached) else float("inf")
