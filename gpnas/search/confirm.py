"""The last phase of a search: its leaders and its baselines are trained again with fresh seeds.

    chosen = choose(leaders(trials, results, by_ap), known, cost, room)     # the trials, and how many seeds each gets
    confirmation = Confirmation([trials[i] for i in chosen.trials], ladder.fidelities, chosen.seeds)
    while suggestions := confirmation.ask():
        confirmation.start(suggestions[0])
        confirmation.tell(suggestions[0], evaluator.evaluate(...))

A search that trains many candidates once declares a lucky one the winner. Fresh seeds have no part in the choice, so their mean
is not biased by it. Each seed is trained on all rungs, as the trials of the search are. docs/search.md says how often simulated
searches lose to GELAN-T with a confirmation and without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gpnas.search.controller import Key, Suggestion
from gpnas.search.pareto import Point
from gpnas.search.trial import FIRST_FRESH, Evaluation, Fidelity, Trial, TrialState

CONFIRM_SHARE = 0.4
"""Share of the budget that is kept for the confirmation, at most. benchmarks/winning.py compares shares."""

PACKED = 0.9
"""Share of the room for the confirmation that its evaluations may fill: seeds are whole, and estimates err."""

LEADERS = 5
"""Trials that the search found and that are confirmed, at most."""

SEEDS = 3
"""Fresh seeds of each."""

FEWEST_SEEDS = 2
"""Fresh seeds without which a mean says nothing about noise."""


@dataclass(frozen=True)
class Chosen:
    """Ids of the trials to confirm, and the number of fresh seeds of each. Empty: the room pays for no confirmation."""

    trials: tuple[int, ...] = ()
    seeds: int = 0


def leaders(
    trials: Sequence[Trial], results: Mapping[Key, Evaluation], best_first: Callable[[Sequence[Point]], list[Point]]
) -> list[int]:
    """Ids of the trials that have results: those on a higher rung before others, on a rung as `best_first` orders them.

    Warm trials, which started from weights of others, come after those of the same rung that started from scratch.
    """
    aps: dict[int, dict[int, list[float]]] = {}  # by trial, then rung
    for (i, rung, seed), evaluation in results.items():
        if evaluation.state is TrialState.COMPLETE and seed < FIRST_FRESH:
            aps.setdefault(i, {}).setdefault(rung, []).append(evaluation.metrics["ap"])
    order: list[int] = []
    highest = {i: max(rungs) for i, rungs in aps.items()}
    for rung in sorted(set(highest.values()), reverse=True):
        for is_warm in (False, True):
            here = [i for i in aps if highest[i] == rung and (trials[i].lender is not None) is is_warm]
            points = [Point(i, sum(aps[i][rung]) / len(aps[i][rung]), trials[i].cost.macs) for i in here]
            order += [point.id for point in best_first(points)]
    return order


def choose(
    order: Sequence[int],  # ids, best first
    known: Sequence[int],  # ids of the baselines and the start
    cost: Callable[[int], float],  # of one seed of a trial on all rungs
    room: float,  # in the unit of `cost`
) -> Chosen:
    """The largest of these that `room` pays for: the first LEADERS of what was found and all that are known, with SEEDS seeds
    each; fewer leaders, down to two; two and the best of the known; three or two and that, with FEWEST_SEEDS; one and that,
    with SEEDS or FEWEST_SEEDS. The best come first.

    More leaders with two seeds are worth more than fewer with three (`python benchmarks/winning.py`).
    """
    found = [i for i in order if i not in known]
    measured = [i for i in order if i in known]
    most = min(LEADERS, len(found))
    options = [(found[:k] + measured, SEEDS) for k in range(most, 1, -1)]
    options += [
        (found[:k] + measured[:1], seeds)
        for k, seeds in ((2, SEEDS), (3, FEWEST_SEEDS), (2, FEWEST_SEEDS), (1, SEEDS), (1, FEWEST_SEEDS))
        if k <= most
    ]
    for ids, seeds in options:
        if len(ids) > 1 and seeds * sum(map(cost, ids)) <= room:
            return Chosen(tuple(sorted(ids, key=order.index)), seeds)
    return Chosen()


class Confirmation:
    """Which evaluations confirm trials: seed by seed, and within a seed trial by trial, each up to the top rung.

    It trains every trial from scratch, even one that started from weights of another. most_seeds: after `seeds` of each,
    further ones may follow for as long as somebody asks.
    """

    def __init__(
        self, trials: Sequence[Trial], fidelities: Sequence[Fidelity], seeds: int, most_seeds: int | None = None
    ) -> None:
        self.trials, self.seeds = list(trials), seeds
        self._fidelities = tuple(fidelities)
        self._most = seeds if most_seeds is None else max(seeds, most_seeds)
        self._started: set[Key] = set()
        self._ended: dict[Key, bool] = {}  # whether it completed

    def ask(self) -> list[Suggestion]:
        """All evaluations that can start now, the most important first: for each trial and seed the rung above those that it
        completed. A seed that failed is not repeated."""
        suggestions = []
        for number in range(self._most):
            for trial in self.trials:
                next_one = self._next(trial, FIRST_FRESH + number)
                if next_one is not None and next_one.key not in self._started:
                    suggestions.append(next_one)
        return suggestions

    def rest(self, suggestion: Suggestion) -> list[Suggestion]:
        """The suggestion and those that follow it up to the top rung, with the same trial and seed."""
        seed, rungs = suggestion.fidelity.seed, range(suggestion.rung, len(self._fidelities))
        return [self._suggestion(suggestion.trial, rung, seed) for rung in rungs]

    def has_begun(self, trial_id: int) -> bool:
        """Whether an evaluation of the trial was started."""
        return any(i == trial_id for i, _, _ in self._started)

    def start(self, suggestion: Suggestion) -> None:
        """The evaluation runs: do not suggest it again."""
        self._started.add(suggestion.key)

    def tell(self, suggestion: Suggestion, evaluation: Evaluation) -> None:
        """Record a result."""
        self._started.add(suggestion.key)
        self._ended[suggestion.key] = evaluation.state is TrialState.COMPLETE

    def on_top(self) -> list[tuple[int, int]]:
        """Trial ids and seeds that completed the top rung."""
        top = len(self._fidelities) - 1
        return [(i, seed) for (i, rung, seed), complete in self._ended.items() if complete and rung == top]

    def _next(self, trial: Trial, seed: int) -> Suggestion | None:
        for rung in range(len(self._fidelities)):
            suggestion = self._suggestion(trial, rung, seed)
            if not self._ended.get(suggestion.key, False):
                return None if suggestion.key in self._ended else suggestion
        return None

    def _suggestion(self, trial: Trial, rung: int, seed: int) -> Suggestion:
        return Suggestion(trial, rung, replace(self._fidelities[rung], seed=seed))
