"""The ladder of a search: the fidelity of each rung, and how many trials are promoted (asynchronous successive halving,
arXiv:1810.05934).

The ladder is planned once, from the budget, the data, the limits, and the kind and number of workers. It does not depend on
measured speed: the same command plans the same ladder on every machine with the same kind and number of workers, and a slower
machine finishes fewer trials.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

from gpnas.errors import InputError
from gpnas.search.budget import Budget
from gpnas.search.trial import Fidelity

REDUCTION: int = 3
"""The best 1/REDUCTION of a rung are promoted (eta in the paper)."""

EPOCH_GROWTH = 2
"""Each rung trains this many times the epochs of the rung below. With larger images too, and fewer trials, all rungs of a wave
cost about the same."""

WAVES = 3
"""Waves of candidates that a budget should pay for, so that later candidates are chosen by the results of earlier ones."""

WAVE_SIZES = (9, 6, 4)
"""Candidates in a wave: fewer for short budgets."""

LEAST_STEPS = 200
"""Optimiser steps on the lowest rung. After fewer, a detector that starts from scratch finds no objects, and all APs are 0."""

ENOUGH_EPOCHS = 30
"""Epochs on the lowest rung that are enough even when they have fewer than LEAST_STEPS steps."""

MOST_EPOCHS = 60
"""Epochs on the lowest rung at most, however large the budget is."""

PROXY_BATCH = 8
"""Images in a training step of a search. Small batches give many steps in few epochs."""

NOMINAL_FLOPS = {"cpu": 1e10, "cuda": 6e12}
"""Training FLOPs a second assumed for one worker, by kind of device, in the plan and in the first estimate of a duration."""

EVALUATION_OVERHEAD = 4.0
"""Seconds that the plan adds to each evaluation for building, validation and checkpoint."""


@dataclass(frozen=True)
class Ladder:
    """fidelities: by rung, lowest first. wave: candidates that start together, before there are results. pending: each decision
    lacks the results of the last `pending` evaluations, which may still run; twice the workers keep all workers busy."""

    fidelities: tuple[Fidelity, ...]
    wave: int
    pending: int = 4

    def seats(self, rung: int) -> int:
        """How many candidates of one wave reach `rung`."""
        return max(1, round(self.wave / float(REDUCTION) ** rung))

    def to_dict(self) -> dict[str, Any]:
        """For JSON. A rung has no seed: trials are trained on it with several."""
        fidelities = [{"epochs": f.epochs, "imgsz": f.imgsz, "data_share": f.data_share} for f in self.fidelities]
        return {"fidelities": fidelities, "wave": self.wave, "pending": self.pending}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Ladder:
        return cls(tuple(Fidelity(**fidelity) for fidelity in data["fidelities"]), data["wave"], data["pending"])


def quota(rung: int, finished: int) -> int:
    """How many of the trials that `finished` a rung are promoted: 1/REDUCTION of them, rounded down on the lowest rung, and to
    the nearest on higher rungs, which have few trials."""
    return finished // REDUCTION if rung == 0 else round(finished / REDUCTION)


def baseline_seats(wave: int, with_start: bool) -> int:
    """How many baselines may be among the `wave` first candidates. With the start they are at most half, so that a search in a
    short budget still looks at its space."""
    return max(0, wave // 2 - with_start)


def nominal_flops(device: str) -> float:
    """Training FLOPs a second assumed for one worker on "cpu", "cuda" or "cuda:N". Raises InputError for other devices."""
    kind = device.partition(":")[0]
    if kind not in NOMINAL_FLOPS:
        raise InputError(f"device {device}: must be {' or '.join(NOMINAL_FLOPS)}, or one of several such as cuda:1")
    return NOMINAL_FLOPS[kind]


def plan(
    budget: Budget,
    *,
    imgsz: int,  # pixels, of the final detector
    proxy_imgsz: int,  # pixels, on the highest rung; a multiple of `stride`
    images: int,  # in the training split
    typical_macs: float,  # of the fused network, for one image of `imgsz` pixels
    slots: int,  # workers
    device: str,  # "cpu", "cuda" or "cuda:N"
    stride: int = 32,  # pixels, of the deepest level: image sizes are multiples of it
) -> Ladder:
    """The ladder for a budget. Raises InputError for an unknown device.

    A wall-clock budget is planned by the nominal speed of the device. The ladder is the first that the budget pays for, where
    all data come before a share of them, then large waves before small ones, then WAVES waves before fewer, then long training
    before short.
    """
    sizes, pending = _sizes(proxy_imgsz, stride), 2 * slots
    wave_sizes = [max(size, pending) for size in WAVE_SIZES]  # a wave must keep all workers busy
    least = max(1, min(ENOUGH_EPOCHS, math.ceil(LEAST_STEPS * PROXY_BATCH / images)))
    if budget.kind == "trials":
        return Ladder(_fidelities(least, sizes), max(1, min(wave_sizes[0], budget.amount)), pending)
    if budget.kind == "epochs":
        wave = max(1, min(wave_sizes[0], budget.amount // (2 * least)))
        return Ladder(_fidelities(min(least, budget.amount), sizes), wave, pending)
    epoch_flops = 6 * typical_macs * images  # at imgsz: 2 FLOPs a MAC forward, twice that backward

    def seconds(ladder: Ladder) -> float:
        return _wave_seconds(ladder, epoch_flops, imgsz, device) / slots

    share = 1.0
    while True:
        most = MOST_EPOCHS if share == 1 else least
        for wave, waves, epochs in itertools.product(wave_sizes, range(WAVES, 0, -1), range(most, least - 1, -1)):
            ladder = Ladder(_fidelities(epochs, sizes, share), wave, pending)
            if seconds(ladder) <= budget.amount / waves:
                return ladder
        if share / 2 * images * least < LEAST_STEPS * PROXY_BATCH:
            return Ladder(_fidelities(least, sizes, share), wave_sizes[-1], pending)
        share /= 2


def _fidelities(epochs: int, sizes: tuple[int, int, int], share: float = 1.0) -> tuple[Fidelity, ...]:
    """`epochs` on the lowest rung, EPOCH_GROWTH times as many on each higher one; the same `share` of the data on all."""
    return tuple(Fidelity(epochs * EPOCH_GROWTH**rung, size, share) for rung, size in enumerate(sizes))


def _sizes(top: int, stride: int) -> tuple[int, int, int]:
    """Image size of each rung in pixels: half, three quarters and all of `top`, at least 64 and two cells of `stride`."""
    low, middle = (max(64, 2 * stride, round(top * share / stride) * stride) for share in (0.5, 0.75))
    return min(low, top), min(middle, top), top


def _wave_seconds(ladder: Ladder, epoch_flops: float, imgsz: int, device: str) -> float:
    """Nominal seconds of one worker for one wave. epoch_flops: training FLOPs of an epoch of all images at `imgsz` pixels."""
    total = 0.0
    trained = 0
    for rung, fidelity in enumerate(ladder.fidelities):
        epochs = (fidelity.epochs - trained) * fidelity.data_share  # a promoted trial continues from the rung below
        flops = epochs * epoch_flops * (fidelity.imgsz / imgsz) ** 2
        total += ladder.seats(rung) * (flops / nominal_flops(device) + EVALUATION_OVERHEAD)
        trained = fidelity.epochs
    return total
