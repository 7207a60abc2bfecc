"""Which candidates to train, and on which rung: the decisions of a search, as ask and tell.

    controller = Controller(space, ladder, limits, imgsz=640, seed=0)
    while suggestions := controller.ask():
        suggestion = suggestions[0]
        controller.start(suggestion)
        controller.tell(suggestion, evaluator.evaluate(...))

The first trials are baselines (known architectures, with which a search is compared) and random candidates, near the limits or
of sizes that spread up to them. A baseline counts like any other trial from then on. Each later decision suggests one
evaluation. If the results of a rung promote a trial, it is trained on the next rung (asynchronous successive halving,
arXiv:1810.05934), or from a second seed where that tells more (replication.py). Otherwise a new trial starts: the most
promising candidate of the pool (pool.py, choice.py), for the best accuracy or, where sizes spread, by turns for the dominated
area.

A decision knows all results except those of the last `Ladder.pending` evaluations, which may still run. So workers never wait
for a whole rung, and decisions depend on the seed and on results, not on the order in which results arrive. The same results
replay the same search. In a run that is resumed, the controller adopts the candidates of the journal; it does not choose again.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpnas.graph.cost import Cost, deployed_cost
from gpnas.paths.features import features
from gpnas.search.ladder import REDUCTION, Ladder, baseline_seats, quota, tells
from gpnas.search.limits import Limits
from gpnas.search.pareto import Point, by_ap, ranked
from gpnas.search.pool import POOL, Pick, Pool, Proposal, garbage_collection_paused, large_macs, pick_at_random, spread_by_size
from gpnas.search.replication import seed_tells_more
from gpnas.search.trial import Candidate, Evaluation, Fidelity, Origin, Space, Trial, TrialState

if TYPE_CHECKING:
    from gpnas.search.choice import Fit

BEST_TURN = 2
"""Every BEST_TURN-th new trial is chosen for the best accuracy, the others for the dominated area."""

Key = tuple[int, int, int]
"""Trial id, rung and seed of an evaluation."""

FAR_TURN = 5
"""In a search near its limits, every FAR_TURN-th new trial may be of any size. All are chosen and promoted for the best AP."""

LEAST_PAIRS = 8
"""Trials on the two lowest rungs from which their correlation is judged."""

LEAST_TOLD = 0.3
"""The correlation of AP on the lowest rung with that on the second, below which the lowest rung chooses blindly."""

LEAST_TRAINED = 3
"""Finished trials from which a surrogate can learn. With fewer, new trials are chosen by size, as the first ones are."""


@dataclass(frozen=True)
class Suggestion:
    """One evaluation to run."""

    trial: Trial
    rung: int
    fidelity: Fidelity

    @property
    def key(self) -> Key:
        return self.trial.id, self.rung, self.fidelity.seed


@dataclass(frozen=True)
class Policy:
    """What benchmarks vary in the choice of new trials (benchmarks/controller_variants.py).

    best_turn: as BEST_TURN. pick: picks a first trial among candidates of one size. fit: learns the surrogate (None:
    `surrogate.fit`).
    """

    best_turn: int = BEST_TURN
    pick: Pick = pick_at_random
    fit: Fit | None = None


class Controller:
    """The state of a search. It is never stored: the same calls with the same results rebuild it."""

    def __init__(
        self,
        space: Space,
        ladder: Ladder,
        limits: Limits,
        *,
        imgsz: int,  # pixels, for the cost that the limits bound
        seed: int,
        max_trials: int | None = None,
        start: Candidate | None = None,  # the first trial, if it is within the limits
        baselines: Sequence[tuple[str, Candidate]] = (),  # with names: the next first trials, those that are within the limits
        pool: int = POOL,  # draws from the space, at most
        describe: Callable[[Candidate], Mapping[str, float]] | None = None,  # features by name; None: `gpnas.paths.features`
        cost: Callable[[Candidate], Cost] | None = None,  # None: `deployed_cost` on images of `imgsz`
        warm_start: bool = False,  # children start from weights of their parent's lowest rung (`Pool.breed`)
        near_limits: bool = False,  # most candidates cost nearly what the limits allow (`Limits.nearly_met`)
        policy: Policy = Policy(),
    ) -> None:
        self.trials: list[Trial] = []
        self.results: dict[Key, Evaluation] = {}
        self._aps: dict[Key, float] = {}  # of those that are complete
        self._rankings: dict[tuple[int, bool], tuple[list[Point], list[Point]]] = {}  # `_ranked` in the last decision
        self.ladder = ladder
        self._space, self._seed = space, seed
        self._max_trials = math.inf if max_trials is None else max_trials
        self._first_trials = int(min(ladder.wave, self._max_trials))
        self._start, self._baselines, self._warm_start, self._policy = start, baselines, warm_start, policy
        self.near_limits = near_limits
        self._describe = describe or (lambda candidate: features(candidate.graph, imgsz, imgsz))
        self._cost = cost or (lambda candidate: deployed_cost(candidate.graph, imgsz))
        self._pool = Pool(space, limits, seed=seed, size=pool, describe=self._describe, cost=self._cost, near=near_limits)
        self._first: list[Proposal] | None = None
        self._adopted: list[tuple[str, Origin]] = []
        self._suggested: list[Suggestion] = []  # one for each decision
        self._started: set[Key] = set()
        self._known_to_all = 0  # results of so many first suggestions are known to all decisions to come
        self._idle = (-1, -1)  # the last decision that suggested nothing: its number, and how many results it knew
        self._dropped: set[int] = set()  # trials in the worse half of a rung
        self._rungs = [(0, len(ladder.fidelities))]  # (decision, number of rungs from that decision on)

    def adopt(self, trials: Sequence[tuple[str, Origin]], rungs: Sequence[tuple[int, int]] = ()) -> None:
        """Take over from a run that is resumed: (genotype, origin) of its first trials, in their order, and what `use_rungs`
        was told, as (decision, count)."""
        self._adopted = list(trials)
        self._rungs += rungs

    def use_rungs(self, count: int) -> int:
        """Promote no trial beyond the lowest `count` rungs from the next decision on, whose number is returned."""
        self._rungs.append((len(self._suggested), count))
        return len(self._suggested)

    def ask(self, wanted: int | None = None) -> list[Suggestion]:
        """Suggestions that are not started, in the order of the decisions; empty while results must come in first.

        It stops deciding when there are `wanted` of them (None: when no decision can be made), as a decision takes a second.
        """
        while wanted is None or len(self._not_started()) < wanted:
            if not self._decide_next():
                break
        return self._not_started()

    def start(self, suggestion: Suggestion) -> None:
        """The evaluation runs: do not suggest it again."""
        self._started.add(suggestion.key)

    def tell(self, suggestion: Suggestion, evaluation: Evaluation) -> None:
        """Record a result. Raises ValueError when the trial has one on this rung with this seed."""
        if suggestion.key in self.results:
            trial, rung, seed = suggestion.key
            raise ValueError(f"trial {trial} was already told at rung {rung} with seed {seed}")
        self.results[suggestion.key] = evaluation
        if evaluation.state is TrialState.COMPLETE:
            self._aps[suggestion.key] = evaluation.metrics["ap"]

    def promotable(self) -> set[int]:
        """Ids of trials that a later decision may promote: those that did not fail, are not in the worse half of a rung and
        are not on the top rung. Pruned trials are among them, as a run may be resumed with a larger budget."""
        failed = {i for (i, _, seed), r in self.results.items() if r.state is TrialState.FAILED and not seed}
        return {trial.id for trial in self.trials} - failed - self._dropped - self.on_top()

    def on_top(self) -> set[int]:
        """Ids of trials that were suggested for the top rung."""
        return {s.trial.id for s in self._suggested if s.rung >= len(self.fidelities) - 1}

    def lenders(self) -> set[int]:
        """Ids of trials from whose weights children may start, now or later, even if they are not promotable."""
        return {trial.id for trial in self.trials if trial.lender is None} if self._warm_start else set()

    @property
    def fidelities(self) -> tuple[Fidelity, ...]:
        """By rung, lowest first, of the rungs that are used now."""
        count = next(count for decision, count in reversed(self._rungs) if decision <= len(self._suggested))
        return self.ladder.fidelities[:count]

    def _not_started(self) -> list[Suggestion]:
        return [s for s in self._suggested if s.key not in self._started]

    def _decide_next(self) -> bool:
        """Make the next decision if the results that it must know are there. Returns whether it suggested an evaluation."""
        while True:
            number = len(self._suggested)
            known = max(self._known_to_all, 0 if number < self._first_trials else number - self.ladder.pending)
            if not self._all_told(self._suggested[:known]):
                return False
            suggestion = None if self._idle == (number, known) else self._decide(self._suggested[:known])
            if suggestion is not None:
                self._suggested.append(suggestion)
                return True
            self._idle = (number, known)
            if self._known_to_all == number or not self._all_told(self._suggested):
                return False
            self._known_to_all = number  # what is known leads to no suggestion: decide again with all results

    def _all_told(self, suggestions: Sequence[Suggestion]) -> bool:
        return all(s.key in self.results for s in suggestions)

    def _decide(self, known: Sequence[Suggestion]) -> Suggestion | None:
        """The next suggestion, given the results of those that are `known`."""
        if (promoted := self._promote(known, least=0)) is not None:
            return promoted
        if len(self.trials) < self._max_trials and (trial := self._new_trial(known)) is not None:
            self.trials.append(trial)
            return self._suggestion(trial, 0)
        # No new trial can start: promote the best of every rung, even if a rung has too few trials for a quota.
        return self._promote(known, least=1) if len(known) == len(self._suggested) else None

    def _suggestion(self, trial: Trial, rung: int, seed: int = 0) -> Suggestion:
        return Suggestion(trial, rung, replace(self.ladder.fidelities[rung], seed=seed))

    def _promote(self, known: Sequence[Suggestion], least: int) -> Suggestion | None:
        """Promote the best trial of the highest rung whose quota, or `least`, is not used up. When a rung has 2 * REDUCTION
        trials or more, those in its worse half are dropped.

        Above the lowest rung, where a second seed tells more than training on, the best third get a second seed; of those that
        have one, the best third are promoted.
        """
        suggested = {s.key for s in self._suggested}
        aps = {s.key: self._aps[s.key] for s in known if s.key in self._aps}
        blind = self._is_blind(known)
        for rung in reversed(range(len(self.fidelities) - 1)):
            for points in self._by_start(self._points(known, rung)):
                order = [point.id for point in self._ranked(points, rung)]
                everyone = rung == 0 and blind
                if len(order) >= 2 * REDUCTION and not everyone:
                    self._dropped |= {i for i in order[(len(order) + 1) // 2 :] if (i, rung + 1, 0) not in suggested}
                chosen = order if everyone else order[: max(least, quota(rung, len(order)))]
                if rung and self._seed_tells_more(aps, rung):
                    begun = [i for i in order if (i, 0, 1) in suggested and i not in chosen]
                    for i in [*begun, *chosen]:
                        if i not in self._dropped and (more := self._second_seed(suggested, aps, i, rung)) is not None:
                            return more
                    twice = [i for i in order if (i, rung, 1) in aps]
                    chosen = twice[: max(least, quota(rung, len(twice)))]
                for i in chosen:
                    if (i, rung + 1, 0) not in suggested and i not in self._dropped:
                        return self._suggestion(self.trials[i], rung + 1)
        return None

    def _seed_tells_more(self, aps: Mapping[Key, float], rung: int) -> bool:
        """Whether the trials so far say that a second seed on the rung tells more than training on, for its cost."""
        if self.ladder.seeds < 2:
            return False
        rungs = self.ladder.fidelities
        second = [(i, ap) for (i, r, seed), ap in aps.items() if (r, seed) == (rung, 1)]
        seeds, crossed = ([(aps[i, r, 0], ap) for i, ap in second if (i, r, 0) in aps] for r in (rung, rung + 1))
        costs = [(high.epochs - low) * high.imgsz**2 for low, high in zip([0, *(f.epochs for f in rungs)], rungs, strict=False)]
        return seed_tells_more(seeds, crossed, sum(costs[: rung + 1]), costs[rung + 1])

    def _second_seed(self, suggested: Container[Key], aps: Container[Key], i: int, rung: int) -> Suggestion | None:
        """The next evaluation of the trial's second seed on its way up to the rung; None when it runs, failed or is there."""
        for step in range(rung + 1):
            if (i, step, 1) not in suggested:
                return self._suggestion(self.trials[i], step, seed=1) if step == 0 or (i, step - 1, 1) in aps else None
        return None

    def _is_blind(self, known: Sequence[Suggestion]) -> bool:
        """Whether the lowest rung does not tell which trials are good: `tells` says so of the trials on both lowest rungs. Then
        every trial is promoted from it: the trainings before the first choice have grown to those of the second rung."""
        low = {point.id: point.ap for point in self._points(known, 0)}
        high = {point.id: point.ap for point in self._points(known, 1) if point.id in low}
        return len(high) >= LEAST_PAIRS and tells([low[i] for i in high], list(high.values()), list(low.values())) < LEAST_TOLD

    def _points(self, known: Sequence[Suggestion], rung: int) -> list[Point]:
        """Mean AP over seeds, and MACs, of trials that completed the rung."""
        aps: dict[int, list[float]] = {}
        for s in known:
            if s.rung == rung and s.key in self._aps:
                aps.setdefault(s.trial.id, []).append(self._aps[s.key])
        return [Point(i, statistics.fmean(values), self.trials[i].cost.macs) for i, values in aps.items()]

    def _ranked(self, points: list[Point], rung: int) -> list[Point]:
        """`best_first`; most decisions have new results of one rung alone."""
        key = (rung, self.trials[points[0].id].lender is None)
        if key not in self._rankings or self._rankings[key][0] != points:
            self._rankings[key] = (points, self.best_first(points))
        return self._rankings[key][1]

    def best_first(self, points: Sequence[Point]) -> list[Point]:
        """By AP in a search near its limits, where all cost about the same; else by `ranked`."""
        return by_ap(points) if self.near_limits else ranked(points)

    def _by_start(self, points: Sequence[Point]) -> list[list[Point]]:
        """Trials that started from scratch, and trials that started from weights of others: AP compares only within each."""
        from_scratch = [point for point in points if self.trials[point.id].lender is None]
        warm = [point for point in points if self.trials[point.id].lender is not None]
        return [group for group in (from_scratch, warm) if group]

    def _new_trial(self, known: Sequence[Suggestion]) -> Trial | None:
        number = len(self.trials)
        if number < len(self._adopted):
            genotype, origin = self._adopted[number]
            candidate = self._space.read(genotype)
            return Trial(number, candidate, origin, self._describe(candidate), self._cost(candidate))
        with garbage_collection_paused():
            proposal = self._choose(known)
        if proposal is None:
            return None
        return Trial(number, self._space.read(proposal.genotype), proposal.origin, proposal.features, proposal.cost)

    def _choose(self, known: Sequence[Suggestion]) -> Proposal | None:
        """The candidate of the next trial; None when the pool has no new one."""
        number = len(self.trials)
        used = {trial.candidate.hash for trial in self.trials}
        if number < self._first_trials:
            # A run that is resumed with a larger budget may have used any of them.
            for proposal in self._first_proposals()[number:]:
                if proposal.hash not in used:
                    return proposal
        aps = self._comparable_aps(known)
        pool = self._pool.sample(max(0, number + 1 - self._first_trials))
        if aps and not self._pool.exhausted:
            pool += self._bred(aps, random.Random(f"{self._seed}/bred/{number}"))
        pool = list({p.hash: p for p in pool if p.hash not in used}.values())
        if self.near_limits and number % FAR_TURN != FAR_TURN - 1:
            pool = self._pool.near(pool) or pool
        if len(aps) < LEAST_TRAINED:
            rng = random.Random(f"{self._seed}/first/{number}")
            spread = spread_by_size(pool, self.ladder.wave, (), rng, self._policy.pick)
            return spread[number % len(spread)] if spread else None
        return self._most_promising(pool, aps, known) if pool else None

    def _first_proposals(self) -> list[Proposal]:
        """The candidates of the first trials: of spread sizes, after the known ones."""
        if self._first is None:
            sampled = self._pool.sample(0)
            if self.near_limits:
                sampled = self._pool.near(sampled) or sampled
            rng = random.Random(f"{self._seed}/first")
            self._first = spread_by_size(sampled, self._first_trials, self._known_proposals(), rng, self._policy.pick)
        return self._first

    def _known_proposals(self) -> list[Proposal]:
        """The start and as many baselines as have seats, without those that exceed a limit, each architecture once."""
        start = None if self._start is None else self._pool.proposal(self._start, Origin("start"))
        known = {} if start is None else {start.hash: start}
        most = len(known) + baseline_seats(self._first_trials, bool(known))
        for name, candidate in self._baselines:
            proposal = self._pool.proposal(candidate, Origin("baseline", name=name))
            if proposal is not None and len(known) < most:
                known.setdefault(proposal.hash, proposal)
        return list(known.values())

    def _comparable_aps(self, known: Sequence[Suggestion]) -> dict[int, float]:
        """AP of every trial that completed the lowest rung, by id. Among trials that a higher rung has trained, the APs of the
        lowest rung are permuted to match the ranking of the higher rung."""
        aps = {point.id: point.ap for point in self._points(known, 0)}
        for rung in range(1, len(self.ladder.fidelities)):
            for points in self._by_start([point for point in self._points(known, rung) if point.id in aps]):
                order = sorted(points, key=lambda p: (p.ap, p.id))
                aps |= dict(zip((p.id for p in order), sorted(aps[p.id] for p in order), strict=True))
        return aps

    def _relative_noise(self, known: Sequence[Suggestion]) -> dict[int, float]:
        """Noise variance of the AP of each trial in `_comparable_aps`, by id, in units of that of one training: the mean of two
        seeds on its highest rung has half of it."""
        trainings = Counter((s.trial.id, s.rung) for s in known if s.key in self._aps)
        return {i: 1 / count for (i, _), count in sorted(trainings.items())}

    def _bred(self, aps: Mapping[int, float], rng: random.Random) -> list[Proposal]:
        """Children of the best 1/REDUCTION of the trials, and of the start."""
        finished = [Point(i, ap, self.trials[i].cost.macs) for i, ap in aps.items()]
        parents = [
            self.trials[point.id]
            for points in self._by_start(finished)
            for point in self.best_first(points)[: max(2, math.ceil(len(points) / REDUCTION))]
        ]
        if self.trials[0].origin.kind == "start" and self.trials[0] not in parents:
            parents.append(self.trials[0])
        return self._pool.breed(parents, aps if self._warm_start else (), rng)

    def _most_promising(self, pool: Sequence[Proposal], aps: Mapping[int, float], known: Sequence[Suggestion]) -> Proposal:
        from gpnas.search.choice import most_promising  # late: it loads scipy, which reading a run does without
        from gpnas.search.surrogate import fit

        failed = {s.trial.id for s in known if self.results[s.key].state is not TrialState.COMPLETE}
        noise = self._relative_noise(known)
        return most_promising(
            pool,
            [(self.trials[i], ap) for i, ap in aps.items()],
            [noise[i] for i in aps],
            [trial for trial in self.trials if trial.id not in aps and trial.id not in failed],
            large_macs=large_macs(self._pool.sampled or pool),
            for_best=self._is_for_best(len(self.trials)),
            fit=self._policy.fit or fit,
        )

    def _is_for_best(self, number: int) -> bool:
        """Whether the new trial of this number is chosen for the best accuracy instead of the dominated area."""
        return self.near_limits or number % self._policy.best_turn == self._policy.best_turn - 1
