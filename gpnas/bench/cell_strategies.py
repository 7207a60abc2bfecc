"""Search strategies on a table whose truth is known: what each has found after so many evaluations.

    table = Table(choices, features, score, accuracy)
    regrets(ours, table, evaluations=100, seeds=50)          # (seeds, evaluations)

A strategy is a generator: it yields the index of a candidate and is sent its accuracy. It sees nothing of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, spearmanr

from gpnas.paths.features import FEATURES
from gpnas.search.acquisition import expected_improvement
from gpnas.search.surrogate import Floats, fit, normal_scores, ranks

POOL = 3000
"""Candidates that a model-based strategy looks at for each evaluation."""

FIRST = 3
"""Evaluations before the surrogate is asked: the best scores, each out of FIRST_POOL drawn candidates."""

FIRST_POOL = 500

MOST_REPEATS = 1000

POPULATION, TOURNAMENT = 10, 3
"""Of regularised evolution: small, as budgets of 100 are."""


@dataclass(frozen=True)
class Table:
    """choices: a tuple of choices for each candidate. features, score: known before training, by `surrogate.ranks`. encoding:
    one-hot of the choices. accuracy: the truth."""

    choices: Sequence[tuple[str, ...]]
    features: Floats
    encoding: Floats
    score: Floats
    accuracy: Floats


LEARNT = tuple(name for name in FEATURES if name not in ("flops", "duplicated_share", "auxiliary_only"))
"""What the surrogate reads: without what follows from others on every table so far."""


def make_table(choices: Sequence[tuple[str, ...]], rows: Sequence[Mapping[str, float]], accuracy: Floats) -> Table:
    """rows: what `gpnas.features` knows of each candidate."""
    columns = ranks(np.array([[row[name] for name in LEARNT] for row in rows]))
    return Table(choices, columns, one_hot(choices), columns[:, LEARNT.index("score")], accuracy)


Strategy = Callable[[Table, np.random.Generator], Generator[int, float, None]]


def one_hot(choices: Sequence[tuple[str, ...]]) -> Floats:
    """(candidates, positions x values)."""
    columns = [[of[k] for of in choices] for k in range(len(choices[0]))]
    return np.column_stack([[float(own == value) for own in column] for column in columns for value in sorted(set(column))])


def ours(table: Table, rng: np.random.Generator) -> Generator[int, float, None]:
    """Expected improvement of the surrogate on gradient-path features, with the score as its prior."""
    yield from _model_based(table.features, table.score, rng)


def without_paths(table: Table, rng: np.random.Generator) -> Generator[int, float, None]:
    """The same on the encoding alone, without a prior."""
    yield from _model_based(table.encoding, np.zeros(len(table.encoding)), rng)


def _model_based(features: Floats, prior: Floats, rng: np.random.Generator) -> Generator[int, float, None]:
    seen: list[int] = []
    found: list[float] = []
    while len(seen) < len(features):
        new = np.setdiff1d(rng.choice(len(features), min(POOL, len(features)), replace=False), seen)
        if not len(new):
            continue
        if len(seen) < FIRST:
            few = rng.permutation(new)[:FIRST_POOL]
            pick = int(few[np.argmax(prior[few])])
        else:
            model = fit(features[seen], prior[seen], normal_scores(np.array(found)))
            mean, deviation = model.predict(features[new], prior[new])
            pick = int(new[np.argmax(expected_improvement(mean, deviation, model.best))])
        seen.append(pick)
        found.append((yield pick))


def random_search(table: Table, rng: np.random.Generator) -> Generator[int, float, None]:
    for pick in rng.permutation(len(table.choices)):
        yield int(pick)


def regularised_evolution(table: Table, rng: np.random.Generator) -> Generator[int, float, None]:
    """Real et al., arXiv:1802.01548, algorithm 1: one choice of a tournament's winner is drawn again; the oldest dies."""
    index = {choice: i for i, choice in enumerate(table.choices)}
    values = [sorted({choice[k] for choice in table.choices}) for k in range(len(table.choices[0]))]
    population: list[tuple[float, int]] = []
    while True:
        if len(population) < POPULATION:
            pick = int(rng.integers(len(table.choices)))
        else:
            rivals = [population[i] for i in rng.choice(len(population), TOURNAMENT, replace=False)]
            parent = table.choices[max(rivals)[1]]
            k = int(rng.choice([k for k in range(len(parent)) if len(values[k]) > 1]))
            other = str(rng.choice([value for value in values[k] if value != parent[k]]))
            child = (*parent[:k], other, *parent[k + 1 :])
            if child not in index:
                continue
            pick = index[child]
        accuracy = yield pick
        population = [*population, (accuracy, pick)][-POPULATION:]


STRATEGIES: dict[str, Strategy] = {
    "ours": ours,
    "ours without gradient paths": without_paths,
    "random": random_search,
    "regularised evolution": regularised_evolution,
}


def regrets(strategy: Strategy, table: Table, evaluations: int, seeds: int) -> Floats:
    """(seeds, evaluations): the best accuracy of the table minus the best that was found so far.

    A candidate that a strategy asks for again is answered and not counted: a journal knows it. A strategy that asks for nothing
    new in MOST_REPEATS times has no further finds.
    """
    return np.array([_regret(strategy, table, evaluations, seed) for seed in range(seeds)])


def _regret(strategy: Strategy, table: Table, evaluations: int, seed: int) -> Floats:
    search = strategy(table, np.random.default_rng(seed))
    pick, known, repeats = next(search), dict[int, float](), 0
    while len(known) < evaluations and repeats < MOST_REPEATS:
        repeats = repeats + 1 if pick in known else 0
        known[pick] = float(table.accuracy[pick])
        pick = search.send(known[pick])
    found = list(known.values())
    found += [max(found)] * (evaluations - len(found))
    return np.asarray(np.max(table.accuracy) - np.maximum.accumulate(found), dtype=np.float64)


@dataclass(frozen=True)
class Skill:
    """Of a surrogate that learnt from a few candidates, on those that are not among them and not their equals. spearman: mean
    over draws, and its standard deviation. coverage: share of the truth inside the 80 % interval."""

    spearman: float
    deviation: float
    coverage: float


def skill(features: Floats, prior: Floats, table: Table, trained: int, draws: int, judged: int = 4000) -> Skill:
    """Fit on `trained` candidates, judge on up to `judged` others whose features differ (isomorphic cells are one)."""
    truth = normal_scores(table.accuracy)
    _, group = np.unique(table.features, axis=0, return_inverse=True)
    found = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        chosen = rng.choice(len(features), trained, replace=False)
        rest = rng.permutation(np.flatnonzero(~np.isin(group, group[chosen])))[:judged]
        model = fit(features[chosen], prior[chosen], normal_scores(table.accuracy[chosen]))
        mean, deviation = model.predict(features[rest], prior[rest])
        inside = np.abs(truth[rest] - mean) <= norm.ppf(0.9) * deviation
        found.append((float(spearmanr(mean, truth[rest]).statistic), float(inside.mean())))
    spearmans, coverages = zip(*found, strict=True)
    return Skill(float(np.mean(spearmans)), float(np.std(spearmans)), float(np.mean(coverages)))


def encodings(table: Table) -> dict[str, tuple[Floats, Floats]]:
    """Features and prior of the surrogates that are compared, by name."""
    none = np.zeros(len(table.score))
    values = sorted({value for choice in table.choices for value in choice})
    counts = np.array([[choice.count(value) for value in values] for choice in table.choices], dtype=np.float64)
    counts = counts[:, counts.std(axis=0) > 0]
    counts = (counts - counts.mean(axis=0)) / counts.std(axis=0)
    return {
        "one-hot encoding": (table.encoding, none),
        "operation counts": (counts, none),
        "gradient paths": (table.features, none),
        "gradient paths, score as prior": (table.features, table.score),
        "gradient paths and encoding, score as prior": (np.column_stack([table.features, table.encoding]), table.score),
    }
