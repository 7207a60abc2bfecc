"""The plan of a search: the longest trainings with which the budget still pays for enough candidates, on this machine.

    machine = Machine(seconds_per_flop=2e-10, overhead=2.0, slots=2)      # measured in the first seconds of a search
    costs = Costs(macs=4e8, imgsz=640, images=480, val_images=120, machine=machine)
    made = plan(parse_budget("40m"), proxy_imgsz=320, stride=32, costs=costs)
    made.ladder, made.candidates

Speeds are rounded, so that one machine mostly plans the same. The plan is kept in the journal: a search that is resumed, even
on another machine, keeps its ladder.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gpnas.search.budget import Budget
from gpnas.search.confirm import CONFIRM_SHARE, PACKED
from gpnas.search.ladder import REDUCTION, Ladder, fidelities
from gpnas.search.trial import Fidelity

WANTED = 40
"""Candidates that a time budget should pay for: enough for an exploration whose later candidates learn from the earlier ones.
It was chosen, not measured."""

WANTED_SEEDS = 9
"""Fresh seeds, of all trials together, that the confirmation should pay for: three each for two leaders and a baseline."""

FEWEST = 30
"""With fewer candidates the best one is a matter of luck, and the search says so."""

WAVE_SIZES = (9, 6, 4)
"""Candidates that start together, before there are results: fewer where a budget pays for fewer than three such waves."""

LEAST_STEPS = 200
"""Optimiser steps on the lowest rung. After fewer, a detector that starts from scratch finds no objects, and all APs are 0."""

ENOUGH_EPOCHS = 30
"""Epochs on the lowest rung that are enough even when they have fewer than LEAST_STEPS steps."""

MOST_EPOCHS = 60
"""Epochs on the lowest rung at most, however large the budget is."""

PROXY_BATCH = 8
"""Images in a training step of a search. Small batches give many steps in few epochs."""

OVERHEAD = 2.0
"""Seconds that the plan adds to each evaluation for building the network and for its checkpoint."""

SEEDS = 2
"""Seeds with which a search may explore a trial (replication.py)."""

PATIENCE = 30.0
"""Seconds that the first evaluation of a candidate may take where neither the budget nor a limit bounds its cost."""

ROUNDING = 2**0.25
"""Measured speeds are rounded to powers of it, so that most machines of nearly equal speed plan the same."""


@dataclass(frozen=True)
class Machine:
    """seconds_per_flop: of training, in one worker. overhead: seconds of each evaluation beside training and validation. slots:
    workers."""

    seconds_per_flop: float
    overhead: float
    slots: int

    @classmethod
    def measured(cls, seconds_per_flop: float, slots: int) -> Machine:
        """With the measured speed, rounded."""
        return cls(ROUNDING ** round(math.log(seconds_per_flop, ROUNDING)), OVERHEAD, slots)


@dataclass(frozen=True)
class Costs:
    """Seconds that evaluations of a typical candidate take.

    macs: of its train form on one image of `imgsz` pixels. images, val_images: in the train and val splits.
    """

    macs: float
    imgsz: int
    images: int
    val_images: int
    machine: Machine

    def seconds(self, fidelity: Fidelity, trained: int = 0) -> float:
        """Of one worker for one evaluation of a candidate that has `trained` epochs: forward and backward passes of all images
        take three passes, validation takes one."""
        image = 2 * self.macs * (fidelity.imgsz / self.imgsz) ** 2 * self.machine.seconds_per_flop  # one pass
        passes = 3 * (fidelity.epochs - trained) * fidelity.data_share * self.images + self.val_images
        return image * passes + self.machine.overhead

    def candidates(self, rungs: Sequence[Fidelity], seconds: float) -> float:
        """How many candidates can be explored in a budget of so many seconds, with promotions and second seeds."""
        return explored_candidates(self._by_rung(rungs), seconds, self.machine.slots)

    def fresh_seeds(self, rungs: Sequence[Fidelity], seconds: float) -> float:
        """How many candidates could be trained on all rungs in the part of the budget that confirms."""
        return PACKED * CONFIRM_SHARE * seconds * self.machine.slots / sum(self._by_rung(rungs))

    def _by_rung(self, rungs: Sequence[Fidelity]) -> list[float]:
        epochs = [0, *(fidelity.epochs for fidelity in rungs)]
        return [self.seconds(fidelity, epochs[rung]) for rung, fidelity in enumerate(rungs)]


def explored_seconds(by_rung: Sequence[float]) -> float:
    """Seconds that a search spends on a candidate while it explores, in the mean. by_rung: of an evaluation on each rung.

    1/REDUCTION of a rung are promoted. On rungs between the lowest and the top, 1/REDUCTION get a second seed, which trains on
    the rungs below too, and 1/REDUCTION of those are promoted.
    """
    total, share = 0.0, 1.0
    for rung, seconds in enumerate(by_rung):
        total += share * seconds
        if 0 < rung < len(by_rung) - 1:
            share /= REDUCTION
            total += share * sum(by_rung[: rung + 1])
        share /= REDUCTION
    return total


def explored_candidates(by_rung: Sequence[float], seconds: float, slots: int) -> float:
    """How many candidates so many workers explore in a budget of so many seconds. by_rung: as in `explored_seconds`."""
    return (1 - CONFIRM_SHARE) * seconds * slots / explored_seconds(by_rung)


@dataclass(frozen=True)
class Plan:
    """candidates: that the budget pays for, as far as can be told now. fresh_seeds: that the confirmation can pay for, of all
    trials together. Both are None for a budget that does not count time."""

    ladder: Ladder
    candidates: float | None
    fresh_seeds: float | None = None


def least_epochs(images: int) -> int:
    """Epochs of the lowest rung, at least, on so many images."""
    return max(1, min(ENOUGH_EPOCHS, math.ceil(LEAST_STEPS * PROXY_BATCH / images)))


def plan(
    budget: Budget,
    *,
    proxy_imgsz: int,  # pixels, on the highest rung; a multiple of `stride`
    stride: int,  # pixels, of the deepest level
    costs: Costs,
) -> Plan:
    """The plan for a budget.

    Of a time budget: the longest trainings with which it pays for WANTED candidates and WANTED_SEEDS; where it does not, the
    shortest ones on all data or, if need be, on a share of the data that still makes LEAST_STEPS.
    """
    slots, images, least = costs.machine.slots, costs.images, least_epochs(costs.images)
    pending = 2 * slots
    waves = [max(size, pending) for size in WAVE_SIZES]  # a wave must keep all workers busy
    if budget.kind == "trials":
        return Plan(Ladder(fidelities(least, proxy_imgsz, stride), max(1, min(waves[0], budget.amount)), pending, SEEDS), None)
    if budget.kind == "epochs":
        wave = max(1, min(waves[0], budget.amount // (2 * least)))
        return Plan(Ladder(fidelities(min(least, budget.amount), proxy_imgsz, stride), wave, pending, SEEDS), None)
    share = 1.0
    while True:
        most = MOST_EPOCHS if share == 1 else least
        for epochs in range(most, least - 1, -1):
            rungs = fidelities(epochs, proxy_imgsz, stride, share)
            count, seeds = costs.candidates(rungs, budget.amount), costs.fresh_seeds(rungs, budget.amount)
            if count >= WANTED and seeds >= WANTED_SEEDS:
                return Plan(Ladder(rungs, waves[0], pending, SEEDS), count, seeds)
        if share / 2 * images * least < LEAST_STEPS * PROXY_BATCH:
            wave = next((size for size in waves if count >= 3 * size), waves[-1])
            return Plan(Ladder(rungs, wave, pending, SEEDS), count, seeds)
        share /= 2


def affordable_macs(budget: Budget, *, proxy_imgsz: int, stride: int, costs: Costs) -> float:
    """MACs of the train form, on an image of `costs.imgsz` pixels, of the largest candidates of which a time budget pays for
    WANTED and for WANTED_SEEDS; for another budget, of those whose first evaluation takes PATIENCE seconds. 0 where overheads
    alone are too much."""
    least = least_epochs(costs.images)
    if budget.kind != "seconds":
        rungs = fidelities(least, proxy_imgsz, stride)
        fixed, growing = _split(costs, lambda c: c.seconds(rungs[0]))
        return max(0.0, (PATIENCE - fixed) / growing) * costs.macs
    share = min(1.0, LEAST_STEPS * PROXY_BATCH / (costs.images * least))
    rungs = fidelities(least, proxy_imgsz, stride, 2.0 ** math.ceil(math.log2(share)))
    shares = []
    for paid, wanted in ((Costs.candidates, WANTED), (Costs.fresh_seeds, WANTED_SEEDS)):
        fixed, growing = _split(costs, functools.partial(_inverse, paid, rungs, budget.amount))
        shares.append((1 / wanted - fixed) / growing)
    return max(0.0, min(shares)) * costs.macs


def _inverse(paid: Callable[..., float], rungs: Sequence[Fidelity], seconds: float, costs: Costs) -> float:
    return 1 / paid(costs, rungs, seconds)


def _split(costs: Costs, measure: Callable[[Costs], float]) -> tuple[float, float]:
    """The part of a measure that does not depend on MACs, and the part that is proportional to them."""
    fixed = measure(replace(costs, macs=0.0))
    return fixed, measure(costs) - fixed


def rounded_down(value: float) -> float:
    """The largest number of the form 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6 or 8 times a power of ten that is at most `value`, so that
    equal machines get equal limits."""
    power = 10.0 ** math.floor(math.log10(value))
    return power * max(step for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if step * power <= value * (1 + 1e-9))
