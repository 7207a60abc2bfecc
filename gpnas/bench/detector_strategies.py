"""Search strategies on a benchmark of trained detectors: the share of the front, and of the best AP, after so many epochs.

    shares(STRATEGIES["ours"], benchmark, epochs=800, seeds=50)       # (seeds, measures, epochs)

Every seed is a search of its own on SUBSET of the rows; all strategies get the same rows for the same seed. Only rows that the
search trained in full count in the end: the area that they dominate between AP and log2 MACs, and their best AP, each divided
by what all rows of the search reach. A search sees the trainings of seed 0, and pays for another seed where it asks for one.
Its rows are judged by the mean of all seeds that the benchmark has.

BOUNDS are no strategies: they know the mean AP. They show what a search could gain by better choices.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gpnas.bench.detector_benchmark import DetectorBenchmark
from gpnas.bench.strategies import TOURNAMENT, Query, Search, Strategy, evolve, in_order, replay
from gpnas.search.controller import Controller, Policy
from gpnas.search.ladder import EPOCH_GROWTH, Ladder
from gpnas.search.limits import Limits
from gpnas.search.plan import WAVE_SIZES
from gpnas.search.surrogate import Floats
from gpnas.search.trial import DETECTOR_SCORE, Candidate, Evaluation, Fidelity, TrialState

SUBSET = 0.75
"""Share of the benchmark's rows on which one search runs."""

ENOUGH = 0.95
"""Share of a measure that counts as success: tables show the epochs until the mean search reaches it."""


def ours(benchmark: DetectorBenchmark, seed: int) -> Search:
    """The controller of `gpnas search`, on rungs of a quarter, half and all of the epochs. It knows every result before it
    decides, as all other strategies here do."""
    yield from controlled(benchmark, seed, benchmark.features)


def with_two_workers(benchmark: DetectorBenchmark, seed: int) -> Search:
    """The same without the results of the last four evaluations, as in a search with two workers."""
    yield from controlled(benchmark, seed, benchmark.features, pending=4)


def without_paths(benchmark: DetectorBenchmark, seed: int) -> Search:
    """The same controller with the one-hot encoding of the choices in place of the features."""
    yield from controlled(benchmark, seed, benchmark.encoding())


def on_operation_counts(benchmark: DetectorBenchmark, seed: int) -> Search:
    """The same controller on operation counts and live parameters in place of the gradient paths, with the same prior."""
    kept = [{name: row[name] for name in ("live_params", DETECTOR_SCORE)} for row in benchmark.features]
    counts = benchmark.operation_counts()
    yield from controlled(benchmark, seed, [own | other for own, other in zip(counts, kept, strict=True)])


def controlled(
    benchmark: DetectorBenchmark,
    seed: int,
    features: Sequence[Mapping[str, float]],  # of each row, by name
    *,
    pending: int = 0,
    policy: Policy | None = None,
    told: Sequence[float] | None = None,  # of each row: the AP that the controller is told in place of the measured one
    baselines: Sequence[tuple[str, Candidate]] = (),  # rows of the benchmark, with names
    seeds: int = 1,  # with which the controller may explore a row
    near_limits: bool = False,  # the controller is after AP alone, and prefers rows that come near the limits, if there are any
    limits: Limits | None = None,
) -> Search:
    """The controller. Each decision lacks the results of the last `pending` evaluations."""
    rows = {candidate.hash: i for i, candidate in enumerate(benchmark.candidates)}
    epochs = sorted({max(1, benchmark.epochs // EPOCH_GROWTH**k) for k in (2, 1, 0)})  # one rung if only one epoch is known
    fidelities = tuple(Fidelity(count, benchmark.imgsz) for count in epochs)
    ladder = Ladder(fidelities, WAVE_SIZES[0], pending, seeds)
    pool = 10 * len(rows)  # drawn with replacement: nearly every row is among them

    def describe(candidate: Candidate) -> Mapping[str, float]:
        return features[rows[candidate.hash]]

    controller = Controller(
        benchmark.space,
        ladder,
        limits or Limits(),
        imgsz=benchmark.imgsz,
        seed=seed,
        pool=pool,
        describe=describe,
        cost=benchmark.cost,
        baselines=baselines,
        near_limits=near_limits,
        policy=policy or Policy(),
    )
    while suggestions := controller.ask(1):
        suggestion = suggestions[0]
        controller.start(suggestion)
        row = rows[suggestion.trial.candidate.hash]
        measured = yield Query(row, suggestion.fidelity.epochs, suggestion.fidelity.seed)
        ap = measured if told is None else float(told[row])
        controller.tell(suggestion, Evaluation(TrialState.COMPLETE, {"ap": ap}))


def random_search(benchmark: DetectorBenchmark, seed: int) -> Search:
    """Every row in full, in random order."""
    rows = list(range(len(benchmark.candidates)))
    random.Random(seed).shuffle(rows)
    yield from in_order(rows, benchmark.epochs)


def regularised_evolution(benchmark: DetectorBenchmark, seed: int) -> Search:
    """Regularised evolution by AP alone, as published; mutations are those of the benchmark's space."""
    rng = random.Random(seed)
    rows = {candidate.hash: i for i, candidate in enumerate(benchmark.candidates)}
    yield from evolve(
        sample=lambda: rows[benchmark.space.propose([], rng).hash],
        mutate=lambda row: rows[benchmark.space.propose([benchmark.candidates[row]], rng).hash],
        tournament=lambda size: rng.sample(range(size), TOURNAMENT),
        epochs=benchmark.epochs,
    )


STRATEGIES: dict[str, Strategy[DetectorBenchmark]] = {
    "ours": ours,
    "ours, two workers": with_two_workers,
    "ours without gradient paths": without_paths,
    "ours on operation counts": on_operation_counts,
    "random": random_search,
    "regularised evolution": regularised_evolution,
}


def perfect_promoter(benchmark: DetectorBenchmark, seed: int) -> Search:
    """Ours, told the mean AP of a row after full training on whichever rung it trains the row. It pays the epochs as ours does,
    but promotes by the true ranking and learns from noiseless values."""
    yield from controlled(benchmark, seed, benchmark.features, told=benchmark.mean_ap.tolist())


def clairvoyant_for_area(benchmark: DetectorBenchmark, seed: int) -> Search:
    """Every row in full, that with the largest growth of the area first. The best set of several rows may begin otherwise."""
    left, trained = list(range(len(benchmark.candidates))), list[int]()
    while left:
        row = max(left, key=lambda row: benchmark.dominated_area([*trained, row]))
        left.remove(row)
        trained.append(row)
        yield Query(row, benchmark.epochs)


def clairvoyant_for_best(benchmark: DetectorBenchmark, seed: int) -> Search:
    """Every row in full, the best mean AP first."""
    yield from in_order(np.argsort(-benchmark.mean_ap, kind="stable"), benchmark.epochs)


BOUNDS: dict[str, Strategy[DetectorBenchmark]] = {
    "perfect promoter": perfect_promoter,
    "clairvoyant, for the area": clairvoyant_for_area,
    "clairvoyant, for the best AP": clairvoyant_for_best,
}

RESAMPLES = 2000
"""Bootstrap samples of an interval."""

ROUNDING = 1e-12
"""A mean share that lacks less than this has reached its goal."""

MEASURES: dict[str, Callable[[DetectorBenchmark, Sequence[int]], float]] = {
    "area": DetectorBenchmark.dominated_area,
    "best AP": DetectorBenchmark.best_ap,
}
"""How good a set of fully trained rows is, by name."""


def shares(strategy: Strategy[DetectorBenchmark], benchmark: DetectorBenchmark, epochs: int, seeds: int) -> Floats:
    """(seeds, measures, epochs): `share_curves` for the seeds 0, 1, ..."""
    return np.array([share_curves(strategy, benchmark, epochs, seed) for seed in range(seeds)])


def share_curves(strategy: Strategy[DetectorBenchmark], benchmark: DetectorBenchmark, epochs: int, seed: int) -> Floats:
    """(measures, epochs): by MEASURES, the share of what all rows of this seed reach, after 1, 2, ... spent epochs."""
    count = len(benchmark.candidates)
    rows = random.Random(f"part/{seed}").sample(range(count), round(SUBSET * count))
    benchmark = benchmark.subset(sorted(rows))
    most = [measure(benchmark, range(len(rows))) for measure in MEASURES.values()]
    curves = np.zeros((len(MEASURES), epochs))
    finished: list[int] = []
    for training in replay(strategy(benchmark, seed), benchmark.curves, epochs):
        if training.epochs == benchmark.epochs:
            finished.append(training.row)
            for k, measure in enumerate(MEASURES.values()):
                curves[k, training.spent - 1 :] = measure(benchmark, finished) / most[k]
    return curves


def epochs_to(share: float, curves: Floats) -> float:
    """The first number of epochs at which the mean of `curves` (searches, epochs) reaches `share`; infinity for never."""
    return float(_first_epochs(share, curves.mean(axis=0)))


def ratio_interval(
    share: float,
    first: Floats,  # (searches, epochs)
    other: Floats,  # (searches, epochs), of the same seeds
) -> tuple[float, float]:
    """The 90 % interval of `epochs_to` of `first` divided by that of `other`: percentile bootstrap over searches (Efron and
    Tibshirani 1993, section 13.3).

    A search of one strategy is drawn together with that of the other on the same rows. Where a mean never reaches `share`, all
    that is known is that it needs more epochs than the curve has; the interval then holds all that this leaves possible.
    """
    searches, most = first.shape
    chosen = np.random.default_rng(0).integers(searches, size=(RESAMPLES, searches))
    weights = np.array([np.bincount(row, minlength=searches) for row in chosen]) / searches  # (RESAMPLES, searches)
    a, b = (_first_epochs(share, weights @ curves) for curves in (first, other))  # (RESAMPLES,), infinity for never
    least, greatest = np.minimum(a, most) / b, a / np.minimum(b, most)
    low, high = np.quantile(least, 0.05, method="lower"), np.quantile(greatest, 0.95, method="higher")
    return float(low), float(high)


def _first_epochs(share: float, means: Floats) -> Floats:
    """(...): the first number of epochs at which means (..., epochs) reach `share`; infinity where they never do."""
    reached = means >= share - ROUNDING
    return np.where(reached.any(axis=-1), reached.argmax(axis=-1) + 1.0, np.inf)
