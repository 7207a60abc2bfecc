"""Which candidates to train, and how far: ask and tell.

    controller = Controller(space, ladder, limits, imgsz=640, seed=0)
    while open_suggestions := controller.ask():
        suggestion = open_suggestions[0]
        controller.start(suggestion)
        controller.tell(suggestion.trial, suggestion.rung, evaluator.evaluate(...))

The first candidates are random ones at sizes that spread up to the limit. From then on one decision makes one evaluation: a
trial that its rung's results promote climbs (successive halving, asynchronous); else a new candidate starts, out of thousands
within the limits, sampled and bred from the best. A surrogate on gradient-path features, learnt from the finished trials, says
what may come of each: every other new candidate is the one by which the dominated area is expected to grow most, for the front;
those between are the ones by which the best accuracy is, whatever they cost within the limits (acquisition.py).

A decision knows the results of all evaluations that were asked before it but the last `Ladder.pending`, which may still run:
workers never wait for a whole rung, and what is asked depends on the seed and on results, never on their timing. A run
therefore replays exactly from its results; the candidates that a journal holds are adopted, not found again.
"""

from __future__ import annotations

import contextlib
import gc
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gpnas.graph.cost import Cost, deployed_cost
from gpnas.paths.features import features
from gpnas.search.ladder import REDUCTION, Ladder, quota
from gpnas.search.limits import Limits
from gpnas.search.pareto import Point, ranked
from gpnas.search.trial import Candidate, Evaluation, Fidelity, Origin, Space, TrialState

POOL, FIRST_POOL, GROWTH = 10_000, 1000, 500
"""Candidates drawn for a decision to look at: at most, for the first one, and more for each further one. Those within the
limits stay; where they are fewer than a quarter, as many more are bred from the smallest."""

BRED = 500
"""Candidates bred from the best that a decision looks at besides."""

SIZE_RANGE = 8.0
"""Sizes spread over this factor of MACs; below it nothing is gained by being smaller."""

LIKE_SIZE = 1.25
"""Candidates within this factor of MACs are of like size."""

BEST_TURN = 2
"""One new candidate in so many is chosen for the best accuracy, the others for the dominated area."""

LEAST_TRAINED = 3
"""Finished trials from which a surrogate learns; with fewer, one of a size of its own is drawn, as at first."""


@dataclass(frozen=True)
class Trial:
    """A candidate that was chosen to be trained. cost: of its fused inference form on one image of the run's size. features: by
    name, those of `gpnas.features`."""

    id: int
    candidate: Candidate
    origin: Origin
    features: Mapping[str, float]
    cost: Cost

    @property
    def lender(self) -> int | None:
        """The trial from whose weights it starts; None for one that starts from scratch."""
        return self.origin.lender


@dataclass(frozen=True)
class Suggestion:
    """One evaluation to run."""

    trial: Trial
    rung: int
    fidelity: Fidelity


@dataclass(frozen=True)
class _Proposal:
    """A candidate of the pool: what a decision needs of it; its graph is built again when it is chosen."""

    genotype: str
    hash: str
    origin: Origin
    cost: Cost
    features: Mapping[str, float]


class Controller:
    """The state of a search; rebuilt by telling it again what was measured."""

    def __init__(
        self,
        space: Space,
        ladder: Ladder,
        limits: Limits,
        *,
        imgsz: int,
        seed: int,
        max_trials: int | None = None,
        start: Candidate | None = None,
        pool: int = POOL,
        describe: Callable[[Candidate], Mapping[str, float]] | None = None,
        warm_start: bool = False,
    ) -> None:
        """describe: what is known of a candidate before training (None: gpnas.features). warm_start: bred candidates start from
        the weights that the lowest rung gave their parent or, where that did not start from scratch, gave its lender.
        """
        self.trials: list[Trial] = []
        self.results: dict[tuple[int, int], Evaluation] = {}
        self._space, self._ladder, self._limits = space, ladder, limits
        self._imgsz, self._seed, self._pool_size = imgsz, seed, pool
        self._max_trials = math.inf if max_trials is None else max_trials
        self._first_trials = int(min(ladder.wave, self._max_trials))
        self._start = start
        self._warm_start = warm_start
        self._describe = describe or (lambda candidate: features(candidate.graph, imgsz, imgsz))
        self._asked: list[Suggestion] = []
        self._settled = 0  # evaluations known to the decisions to come, whatever else they may know
        self._nothing = (-1, -1)  # the last decision (its number, what it knew) that found nothing to do
        self._out: set[int] = set()
        self._started: set[tuple[int, int]] = set()
        self._adopted: list[tuple[str, Origin]] = []
        self._first: list[_Proposal] | None = None
        self._sampled: dict[str, _Proposal] = {}
        self._draws = 0

    def adopt(self, trials: Sequence[tuple[str, Origin]]) -> None:
        """The first candidates will be these (genotype, origin), in order: those of a run that goes on."""
        self._adopted = list(trials)

    def ask(self, wanted: int | None = None) -> list[Suggestion]:
        """Evaluations that may start now, in the order of the decisions; empty while results are awaited.

        No more is decided than it takes to have `wanted` of them (None: whatever can be decided): a decision takes a second.
        """
        while wanted is None or len(self._open()) < wanted:
            if not self._advance():
                break
        return self._open()

    def _open(self) -> list[Suggestion]:
        return [s for s in self._asked if (s.trial.id, s.rung) not in self._started]

    def start(self, suggestion: Suggestion) -> None:
        """It is being evaluated: do not suggest it again."""
        self._started.add((suggestion.trial.id, suggestion.rung))

    def tell(self, trial: Trial, rung: int, evaluation: Evaluation) -> None:
        if (trial.id, rung) in self.results:
            raise ValueError(f"trial {trial.id} was already told at rung {rung}")
        self.results[trial.id, rung] = evaluation

    def promotable(self) -> set[int]:
        """Trials that may still climb: all that are not on top, not failed, and not in the worse half of a rung. One that was
        pruned may when the run gets a larger budget."""
        failed = {i for (i, _), result in self.results.items() if result.state is TrialState.FAILED}
        return {trial.id for trial in self.trials} - failed - self._out - self.on_top()

    def on_top(self) -> set[int]:
        """Trials that reached the top rung."""
        return {s.trial.id for s in self._asked if s.rung == len(self._ladder.fidelities) - 1}

    def lenders(self) -> set[int]:
        """Trials from whose weights children may start, whatever becomes of them."""
        return {trial.id for trial in self.trials if trial.lender is None} if self._warm_start else set()

    def _kinds(self, points: Sequence[Point]) -> list[list[Point]]:
        """Those that started from scratch, and those that did not: their AP is not compared."""
        kinds: tuple[list[Point], list[Point]] = ([], [])
        for point in points:
            kinds[self.trials[point.id].lender is not None].append(point)
        return [kind for kind in kinds if kind]

    def fidelity(self, rung: int) -> Fidelity:
        return self._ladder.fidelities[rung]

    def _advance(self) -> bool:
        """Make the next decision if the results that it knows are there; whether it asked for something."""
        while True:
            number = len(self._asked)
            known = max(self._settled, 0 if number < self._first_trials else number - self._ladder.pending)
            if not self._told(self._asked[:known]):
                return False
            suggestion = None if self._nothing == (number, known) else self._decide(self._asked[:known])
            if suggestion is not None:
                self._asked.append(suggestion)
                return True
            self._nothing = (number, known)
            if self._settled == number or not self._told(self._asked):
                return False
            self._settled = number  # nothing to do with what is known by now: decide with everything

    def _told(self, asked: Sequence[Suggestion]) -> bool:
        return all((s.trial.id, s.rung) in self.results for s in asked)

    def _decide(self, known: Sequence[Suggestion]) -> Suggestion | None:
        """The next evaluation, given the results of those that are `known`."""
        if (climber := self._promoted(known, least=0)) is not None:
            return climber
        if len(self.trials) < self._max_trials and (trial := self._new_trial(known)) is not None:
            self.trials.append(trial)
            return self._suggest(trial, 0)
        # With nothing new to start, the best of every rung climbs, however few there are.
        return self._promoted(known, least=1) if len(known) == len(self._asked) else None

    def _suggest(self, trial: Trial, rung: int) -> Suggestion:
        return Suggestion(trial, rung, self._ladder.fidelities[rung])

    def _promoted(self, known: Sequence[Suggestion], least: int) -> Suggestion | None:
        """The best trial of the highest rung that has room above it, for `least` at least (of either kind)."""
        asked = {(s.trial.id, s.rung) for s in self._asked}
        for rung in reversed(range(len(self._ladder.fidelities) - 1)):
            for points in self._kinds(self._points(known, rung)):
                order = [point.id for point in ranked(points)]
                if len(order) >= 2 * REDUCTION:
                    self._out |= {i for i in order[(len(order) + 1) // 2 :] if (i, rung + 1) not in asked}
                for i in order[: max(least, quota(rung, len(order)))]:
                    if (i, rung + 1) not in asked and i not in self._out:
                        return self._suggest(self.trials[i], rung + 1)
        return None

    def _points(self, known: Sequence[Suggestion], rung: int) -> list[Point]:
        results = [(s.trial, self.results[s.trial.id, rung]) for s in known if s.rung == rung]
        return [
            Point(trial.id, result.metrics["ap"], trial.cost.macs)
            for trial, result in results
            if result.state is TrialState.COMPLETE
        ]

    def _new_trial(self, known: Sequence[Suggestion]) -> Trial | None:
        number = len(self.trials)
        if number < len(self._adopted):
            genotype, origin = self._adopted[number]
            found = self._space.read(genotype)
            return Trial(number, found, origin, self._describe(found), deployed_cost(found.graph, self._imgsz))
        with screening():
            chosen = self._chosen(known)
        if chosen is None:
            return None
        return Trial(number, self._space.read(chosen.genotype), chosen.origin, chosen.features, chosen.cost)

    def _chosen(self, known: Sequence[Suggestion]) -> _Proposal | None:
        number = len(self.trials)
        used = {trial.candidate.hash for trial in self.trials}
        if number < self._first_trials:
            if self._first is None:
                rng = random.Random(f"{self._seed}/first")
                self._first = _spread_by_size(self._samples(0), self._first_trials, self._start_proposal(), rng)
            for proposal in self._first[number:]:
                if proposal.hash not in used:  # as those of a run whose budget was smaller
                    return proposal
        values = self._values(known)
        pool = self._samples(max(0, number + 1 - self._first_trials))
        if values:
            pool += self._bred(values, random.Random(f"{self._seed}/bred/{number}"))
        pool = list({p.hash: p for p in pool if p.hash not in used}.values())
        if len(values) < LEAST_TRAINED:
            likely = _spread_by_size(pool, self._ladder.wave, None, random.Random(f"{self._seed}/first/{number}"))
            return likely[number % len(likely)] if likely else None
        failed = {s.trial.id for s in known if self.results[s.trial.id, s.rung].state is not TrialState.COMPLETE}
        awaited = [trial for trial in self.trials if trial.id not in values and trial.id not in failed]
        return self._most_promising(pool, values, awaited) if pool else None

    def _values(self, known: Sequence[Suggestion]) -> dict[int, float]:
        """AP of every finished trial, comparable among its kind: that of the lowest rung, handed round among those that climbed
        so that it stands in the order of the higher rung."""
        values = {point.id: point.ap for point in self._points(known, 0)}
        for rung in range(1, len(self._ladder.fidelities)):
            for climbed in self._kinds([point for point in self._points(known, rung) if point.id in values]):
                order = sorted(climbed, key=lambda p: (p.ap, p.id))
                values |= dict(zip((p.id for p in order), sorted(values[p.id] for p in order), strict=True))
        return values

    def _most_promising(self, pool: Sequence[_Proposal], values: Mapping[int, float], awaited: Sequence[Trial]) -> _Proposal:
        """The candidate by which the dominated area, or in its turn the best accuracy, is expected to grow most, while the
        `awaited` are being trained."""
        import numpy as np  # late, with scikit-learn behind it: reading a run does without

        from gpnas.search.acquisition import expected_hypervolume_improvement, expected_improvement
        from gpnas.search.surrogate import fit, head_start, normal_scores, ranks

        known = [self.trials[i] for i in values]
        rows: list[Trial | _Proposal] = [*known, *awaited, *pool]
        names = list(rows[0].features)
        columns = ranks(np.array([[row.features[name] for name in names] for row in rows]))
        none = np.zeros(len(rows))  # the score is no prior: among detectors of like FLOPs it is not better than chance
        costs = np.array([math.log2(row.cost.macs) for row in rows])
        largest = math.log2(_largest(self._sampled.values() or pool))
        costs = np.maximum(costs, largest - math.log2(SIZE_RANGE))

        n, m = len(known), len(rows) - len(pool)
        scores = normal_scores(np.array(list(values.values())))
        warm = np.array([trial.lender is not None for trial in known])
        if warm.any():
            scores[warm] -= head_start(columns[:n], warm, scores)
        model = fit(columns[:n], none[:n], scores)
        if awaited:
            means = model.predict(columns[n:m], none[n:m])[0]
            model = model.believing(columns[n:m])
            scores = np.concatenate([scores, means])
        mean, deviation = model.predict(columns[m:], none[m:])
        if len(self.trials) % BEST_TURN == BEST_TURN - 1:
            gain = expected_improvement(mean, deviation, float(scores.max()))
        else:
            measured = list(zip(scores.tolist(), costs[:m].tolist(), strict=True))
            reference = max(largest, float(costs.max())) + 1  # a doubling beyond: at the limit there still is something to gain
            gain = expected_hypervolume_improvement(mean, deviation, costs[m:], measured, float(scores.min()), reference)
        best = float(gain.max())
        # Equals but for rounding: candidates that gradient paths cannot tell apart.
        return min((p for p, of in zip(pool, gain, strict=True) if of >= best * (1 - 1e-9)), key=lambda p: p.hash)

    def _samples(self, decisions: int) -> list[_Proposal]:
        """Sampled candidates within the limits, for the decision after so many others; the same for the same seed."""
        wanted = min(self._pool_size, FIRST_POOL + GROWTH * decisions)
        while self._draws < wanted:
            rng = random.Random(f"{self._seed}/sample/{self._draws}")
            self._consider(self._space.propose([], rng), Origin("sample"), self._sampled)
            self._draws += 1
            if self._draws == min(self._pool_size, FIRST_POOL) and len(self._sampled) < self._draws // 4:
                self._grow_from_smallest()
        return list(self._sampled.values())

    def _grow_from_smallest(self) -> None:
        """Under a limit that few samples meet, reach the feasible corner of the space by mutation."""
        rng = random.Random(f"{self._seed}/smallest")
        smallest = self._space.smallest()
        self._consider(smallest, Origin("smallest"), self._sampled)
        family = [smallest, *(self._space.read(proposal.genotype) for proposal in self._sampled.values())]
        for _ in range(min(self._pool_size, FIRST_POOL)):
            child = self._space.propose([rng.choice(family)], rng)
            if self._consider(child, Origin("mutate smallest"), self._sampled):
                family.append(child)

    def _bred(self, values: Mapping[int, float], rng: random.Random) -> list[_Proposal]:
        """Mutations of the best third of the trials and of the start, and crossings of two of them: two to one."""
        finished = [Point(i, value, self.trials[i].cost.macs) for i, value in values.items()]
        parents = [
            self.trials[point.id]
            for points in self._kinds(finished)
            for point in ranked(points)[: max(2, math.ceil(len(points) / REDUCTION))]
        ]
        if self.trials[0].origin.kind == "start" and self.trials[0] not in parents:
            parents.append(self.trials[0])
        found: dict[str, _Proposal] = {}
        for k in range(min(BRED, self._pool_size)):
            pair = rng.sample(parents, 2) if k % 3 == 0 and len(parents) > 1 else [rng.choice(parents)]
            lender = None
            if self._warm_start and pair[0].id in values:
                lender = pair[0].id if pair[0].lender is None else pair[0].lender
            origin = Origin("cross" if len(pair) == 2 else "mutate", tuple(parent.id for parent in pair), lender)
            self._consider(self._space.propose([parent.candidate for parent in pair], rng), origin, found)
        return list(found.values())

    def _start_proposal(self) -> _Proposal | None:
        if self._start is None:
            return None
        costs = deployed_cost(self._start.graph, self._imgsz)
        known = self._describe(self._start)
        proposal = _Proposal(self._start.genotype, self._start.hash, Origin("start"), costs, known)
        return proposal if self._limits.allows(costs) else None

    def _consider(self, candidate: Candidate, origin: Origin, found: dict[str, _Proposal]) -> bool:
        """Add a candidate to the pool when it is new and within the limits."""
        if candidate.hash in found or candidate.hash in self._sampled:
            return False
        costs = deployed_cost(candidate.graph, self._imgsz)
        if not self._limits.allows(costs):
            return False
        found[candidate.hash] = _Proposal(candidate.genotype, candidate.hash, origin, costs, self._describe(candidate))
        return True


@contextlib.contextmanager
def screening() -> Iterator[None]:
    """Pause the collector of reference cycles while thousands of candidates are made, which hold none: it would only scan
    them again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _largest(pool: Iterable[_Proposal]) -> int:
    """MACs up to which sizes spread: those of the largest candidates within the limits but for a tenth, which without a limit
    on FLOPs are outliers."""
    macs = sorted(p.cost.macs for p in pool)
    return macs[int(0.9 * (len(macs) - 1))]


def _spread_by_size(pool: Sequence[_Proposal], wanted: int, start: _Proposal | None, rng: random.Random) -> list[_Proposal]:
    """Candidates of `wanted` sizes, spread evenly in log MACs; the start comes first."""
    by_macs = sorted(pool, key=lambda p: (p.cost.macs, p.hash))
    chosen = [start][:wanted] if start is not None else []
    if not by_macs:
        return chosen
    largest = _largest(by_macs)
    spread = min(SIZE_RANGE, max(LIKE_SIZE, largest / by_macs[0].cost.macs))  # a limit may leave less than SIZE_RANGE
    steps = wanted - len(chosen)
    for i in range(steps):
        target = largest / spread ** (i / max(1, steps - 1)) / math.sqrt(LIKE_SIZE)
        taken = {p.hash for p in chosen}
        rest = [p for p in by_macs if p.hash not in taken]
        like = [p for p in rest if 1 / LIKE_SIZE < p.cost.macs / target < LIKE_SIZE]
        if like:
            chosen.append(_one_of(like, chosen, rng))
        elif rest:
            chosen.append(min(rest, key=lambda p: abs(math.log(p.cost.macs / target))))
    return chosen


def _one_of(like: Sequence[_Proposal], chosen: Sequence[_Proposal], rng: random.Random) -> _Proposal:
    """Of candidates of one size, beside those `chosen` before: by chance (what else was tried: docs/search.md)."""
    return rng.choice(like)
