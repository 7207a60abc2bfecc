"""Which candidates to train, and how far: ask and tell.

    controller = Controller(space, ladder, limits, imgsz=640, seed=0)
    while open_suggestions := controller.ask():
        suggestion = open_suggestions[0]
        controller.start(suggestion)
        controller.tell(suggestion.trial, suggestion.rung, evaluator.evaluate(...))

Candidates come in waves. For each wave thousands are proposed (sampled; from the second wave on also mutated and crossed from
what was promoted), cut by the limits, ranked by the gradient-path score among those of like size, and the best of each size
start on the lowest rung. Promotions wait for a whole rung, the next wave for the first rung of this one: what is asked
depends on the seed and on results, never on their timing, so a run replays exactly from its results.
"""

from __future__ import annotations

import contextlib
import gc
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gpnas.cost import Cost, cost
from gpnas.errors import LimitError
from gpnas.pareto import Limits, Point
from gpnas.rungs import Ladder, promotions
from gpnas.score import gradient_path_score
from gpnas.trial import Candidate, Evaluation, Fidelity, Space, TrialState

POOL = 2000
"""Candidates proposed for a wave."""

SIZE_RANGE = 8.0
"""A wave's sizes spread over this factor of MACs, up to the limit."""

LIKE_SIZE = 1.25
"""Candidates within this factor of MACs are of like size."""


@dataclass(frozen=True)
class Trial:
    """A candidate that was chosen to be trained. cost: of its fused inference form on one image of the run's size."""

    id: int
    candidate: Candidate
    origin: str
    score: float
    cost: Cost
    wave: int


@dataclass(frozen=True)
class Suggestion:
    """One evaluation to run."""

    trial: Trial
    rung: int
    fidelity: Fidelity


@dataclass
class _Wave:
    rungs: list[list[int]] = field(default_factory=list)
    """Trial ids by rung."""


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
    ) -> None:
        self.trials: list[Trial] = []
        self.results: dict[tuple[int, int], Evaluation] = {}
        self._space, self._ladder, self._limits = space, ladder, limits
        self._imgsz, self._seed, self._pool_size = imgsz, seed, pool
        self._max_trials = math.inf if max_trials is None else max_trials
        self._start = start
        self._waves: list[_Wave] = []
        self._started: set[tuple[int, int]] = set()
        self._hashes: set[str] = set()

    def ask(self) -> list[Suggestion]:
        """Every evaluation that may start now: promotions first, then the lowest rung; empty while results are awaited."""
        self._advance()
        return [
            Suggestion(self.trials[i], rung, self._ladder.fidelities[rung])
            for wave in self._waves
            for rung in reversed(range(len(wave.rungs)))
            for i in wave.rungs[rung]
            if (i, rung) not in self._started
        ]

    def start(self, suggestion: Suggestion) -> None:
        """It is being evaluated: do not suggest it again."""
        self._started.add((suggestion.trial.id, suggestion.rung))

    def tell(self, trial: Trial, rung: int, evaluation: Evaluation) -> None:
        if (trial.id, rung) in self.results:
            raise ValueError(f"trial {trial.id} was already told at rung {rung}")
        self.results[trial.id, rung] = evaluation

    @property
    def finished(self) -> bool:
        """Nothing runs, and nothing more will be suggested."""
        return not self.ask() and self._started == set(self.results)

    def promotable(self) -> set[int]:
        """Trials that may still climb: those of a rung that is not decided yet."""
        top = len(self._ladder.fidelities) - 1
        return {i for wave in self._waves for i in wave.rungs[-1] if len(wave.rungs) - 1 < top}

    def on_top(self) -> set[int]:
        """Trials that reached the top rung."""
        top = len(self._ladder.fidelities) - 1
        return {i for wave in self._waves if len(wave.rungs) > top for i in wave.rungs[top]}

    def fidelity(self, rung: int) -> Fidelity:
        return self._ladder.fidelities[rung]

    def _advance(self) -> None:
        """Decide every promotion, and propose every wave, whose results are all there."""
        for wave in self._waves:
            while len(wave.rungs) < len(self._ladder.fidelities) and self._rung_done(wave, len(wave.rungs) - 1):
                rung = len(wave.rungs) - 1
                wave.rungs.append(promotions(self._points(wave.rungs[rung], rung), self._ladder.seats(rung + 1)))
        first_rung_done = not self._waves or self._rung_done(self._waves[-1], 0)
        earlier_done = all(self._wave_done(wave) for wave in self._waves[:-1])
        if first_rung_done and earlier_done and len(self.trials) < self._max_trials:
            self._waves.append(self._propose_wave())

    def _rung_done(self, wave: _Wave, rung: int) -> bool:
        return all((i, rung) in self.results for i in wave.rungs[rung])

    def _wave_done(self, wave: _Wave) -> bool:
        return len(wave.rungs) == len(self._ladder.fidelities) and all(
            self._rung_done(wave, rung) for rung in range(len(wave.rungs))
        )

    def _points(self, ids: Sequence[int], rung: int) -> list[Point]:
        results = [(i, self.results[i, rung]) for i in ids]
        return [
            Point(i, result.metrics["ap"], self.trials[i].cost.macs)
            for i, result in results
            if result.state is TrialState.COMPLETE
        ]

    def _propose_wave(self) -> _Wave:
        number = len(self._waves)
        rng = random.Random(f"{self._seed}/wave/{number}")
        wanted = int(min(self._ladder.wave, self._max_trials - len(self.trials)))
        ids = []
        with screening():
            chosen = _best_by_size(self._pool(rng, number), wanted, self._limits)
        for candidate, origin, costs, score in chosen:
            trial = Trial(len(self.trials), candidate, origin, score, costs, number)
            self.trials.append(trial)
            self._hashes.add(candidate.hash)
            ids.append(trial.id)
        return _Wave([ids])

    def _pool(self, rng: random.Random, number: int) -> list[_Proposal]:
        """Feasible proposals, scored, each hash once."""
        parents = self._parents()
        found: dict[str, _Proposal] = {}
        if number == 0 and self._start is not None:
            self._consider(self._start, "start", found)
        for _ in range(self._pool_size):
            chosen, origin = _choose_parents(parents, rng)
            self._consider(self._space.propose([trial.candidate for trial in chosen], rng), origin, found)
        if len(found) < 4 * self._ladder.wave:
            self._grow_from_smallest(found, rng)
        return list(found.values())

    def _parents(self) -> list[Trial]:
        """The start, and what was promoted at least once."""
        promoted = [self.trials[i] for wave in self._waves if len(wave.rungs) > 1 for i in wave.rungs[1]]
        if self._start is not None and self.trials and self.trials[0].origin == "start":
            promoted.append(self.trials[0])
        return promoted

    def _grow_from_smallest(self, found: dict[str, _Proposal], rng: random.Random) -> None:
        """Under a limit that few samples meet, reach the feasible corner of the space by mutation."""
        smallest = self._space.smallest()
        self._consider(smallest, "smallest", found)
        family = [smallest, *(proposal.candidate for proposal in found.values())]
        for _ in range(self._pool_size):
            child = self._space.propose([rng.choice(family)], rng)
            if self._consider(child, "mutate smallest", found):
                family.append(child)

    def _consider(self, candidate: Candidate, origin: str, found: dict[str, _Proposal]) -> bool:
        """Add a candidate to the pool when it is new and within the limits."""
        if candidate.hash in self._hashes or candidate.hash in found:
            return False
        costs = inference_cost(candidate, self._imgsz)
        if not self._limits.allows(costs):
            return False
        found[candidate.hash] = _Proposal(candidate, origin, costs)
        return True


@dataclass(frozen=True)
class _Proposal:
    candidate: Candidate
    origin: str
    cost: Cost


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


def inference_cost(candidate: Candidate, imgsz: int) -> Cost:
    """What the fused main branch costs on one square image of `imgsz` pixels."""
    return cost(candidate.graph.inference(), imgsz, imgsz)


def check_limits(space: Space, limits: Limits, imgsz: int) -> None:
    """Raises LimitError, naming the smallest architecture of the space, when even that exceeds a limit."""
    smallest = space.smallest()
    costs = inference_cost(smallest, imgsz)
    if limits.allows(costs):
        return
    over = []
    if limits.max_flops is not None and costs.flops > limits.max_flops:
        over.append(f"--max-flops {limits.max_flops:.4g}")
    if limits.max_params is not None and costs.params > limits.max_params:
        over.append(f"--max-params {limits.max_params:.4g}")
    raise LimitError(
        f"{' and '.join(over)}: nothing in the space is that small; its smallest architecture ({smallest.hash}) has "
        f"{costs.flops / 1e9:.3f}G FLOPs at {imgsz} pixels and {costs.params / 1e6:.3f}M parameters: raise the limit to at "
        "least that or lower --imgsz"
    )


def typical_macs(space: Space, limits: Limits, imgsz: int, seed: int, samples: int = 200) -> float:
    """Median MACs on one image among sampled candidates within the limits (the smallest's when none is)."""
    rng = random.Random(f"{seed}/typical")
    costs = [inference_cost(space.propose([], rng), imgsz) for _ in range(samples)]
    macs = sorted(c.macs for c in costs if limits.allows(c))
    return macs[len(macs) // 2] if macs else inference_cost(space.smallest(), imgsz).macs


def _choose_parents(parents: Sequence[Trial], rng: random.Random) -> tuple[list[Trial], str]:
    """Sample, mutate or cross, in shares of 4 : 4 : 2 once there are parents."""
    draw = rng.random()
    if not parents or draw < 0.4:
        return [], "sample"
    if draw < 0.8 or len(parents) < 2:
        parent = rng.choice(parents)
        return [parent], f"mutate {parent.id}"
    pair = rng.sample(parents, 2)
    return pair, f"cross {pair[0].id} {pair[1].id}"


def _best_by_size(pool: Sequence[_Proposal], wanted: int, limits: Limits) -> list[tuple[Candidate, str, Cost, float]]:
    """The best score at each of `wanted` sizes, spread evenly in log MACs up to the limit; the start comes first."""
    by_macs = sorted(pool, key=lambda p: (p.cost.macs, p.candidate.hash))
    if not by_macs:
        return []
    largest = by_macs[-1].cost.macs
    if limits.max_flops is None:
        largest = by_macs[int(0.9 * (len(by_macs) - 1))].cost.macs  # without a limit the largest is an outlier
    scores: dict[str, float] = {}

    def score(proposal: _Proposal) -> float:
        key = proposal.candidate.hash
        if key not in scores:
            scores[key] = gradient_path_score(proposal.candidate.graph)
        return scores[key]

    chosen: list[_Proposal] = [p for p in by_macs if p.origin == "start"][:wanted]
    for i in range(wanted - len(chosen)):
        target = largest / SIZE_RANGE ** (i / max(1, wanted - 1)) / math.sqrt(LIKE_SIZE)
        rest = [p for p in by_macs if p not in chosen]
        like = [p for p in rest if 1 / LIKE_SIZE < p.cost.macs / target < LIKE_SIZE]
        if like:
            chosen.append(max(like, key=lambda p: (score(p), p.candidate.hash)))
        elif rest:
            chosen.append(min(rest, key=lambda p: abs(math.log(p.cost.macs / target))))
    return [(p.candidate, p.origin, p.cost, score(p)) for p in chosen]
