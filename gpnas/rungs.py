"""Trials in, promotions out: successive halving over epochs and image size (Hyperband, arXiv:1603.06560; multi-objective).

A ladder of fidelities is planned once, from the budget, the data, the limits and the kind and number of workers, never from
measured speed: the same command gives the same ladder on two machines of a kind, and the slower one climbs it less often.
Every wave starts `wave` candidates on the lowest rung; a third of each rung goes on to the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gpnas.pareto import Point, ranked
from gpnas.trial import Fidelity

REDUCTION: int = 3
"""One in so many is promoted (eta of Hyperband)."""

EPOCH_GROWTH = 2
"""Epochs from rung to rung. With the images growing too, every rung of a wave costs about the same."""

WAVES = 3
"""Waves that a budget is planned for, so that later ones can learn from earlier ones."""

WAVE_SIZES = (9, 6, 4)
"""Candidates that start a wave: fewer when the budget is short."""

LEAST_STEPS = 200
"""Optimiser steps on the lowest rung: after fewer a detector from scratch finds nothing, and there is nothing to compare."""

PROXY_BATCH = 8
"""Images a step of a proxy: small, for many steps in few epochs."""

NOMINAL_FLOPS = {"cpu": 1e10, "cuda": 6e12}
"""Training FLOPs a second that one worker is taken to reach; only the plan and the first estimate read it."""

EVALUATION_OVERHEAD = 4.0
"""Seconds around a proxy's training (network, validation, checkpoint) that the plan allows for."""


@dataclass(frozen=True)
class Ladder:
    """fidelities: by rung, rising. wave: candidates that start on rung 0 together."""

    fidelities: tuple[Fidelity, ...]
    wave: int

    def seats(self, rung: int) -> int:
        """How many candidates of one wave reach `rung`."""
        return max(1, round(self.wave / float(REDUCTION) ** rung))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Ladder:
        return cls(tuple(Fidelity(**fidelity) for fidelity in data["fidelities"]), data["wave"])


def promotions(points: Sequence[Point], seats: int) -> list[int]:
    """Ids of the trials that go on, by non-dominated rank, then AP."""
    return [point.id for point in ranked(points)[:seats]]


def plan(budget: Budget, *, imgsz: int, images: int, typical_macs: float, slots: int, device: str) -> Ladder:
    """The ladder for a budget.

    imgsz: pixels, of the final detector. images: in the training split. typical_macs: for one image at `imgsz`.
    slots: workers. A training step costs three forward passes, 2 FLOPs a MAC.
    """
    sizes = _sizes(imgsz)
    least = max(1, min(30, math.ceil(LEAST_STEPS * PROXY_BATCH / images)))
    if budget.kind == "trials":
        return Ladder(_fidelities(least, sizes), max(1, min(WAVE_SIZES[0], budget.amount)))
    if budget.kind == "epochs":
        wave = max(1, min(WAVE_SIZES[0], budget.amount // (2 * least)))
        return Ladder(_fidelities(min(least, budget.amount), sizes), wave)
    epoch_flops = 6 * typical_macs * images  # at imgsz

    def seconds(ladder: Ladder) -> float:
        return _wave_seconds(ladder, epoch_flops, imgsz, device) / slots

    for wave in WAVE_SIZES:
        for waves in range(WAVES, 0, -1):
            epochs = 60
            while epochs >= least and seconds(Ladder(_fidelities(epochs, sizes), wave)) > budget.amount / waves:
                epochs -= 1
            if epochs >= least:
                return Ladder(_fidelities(epochs, sizes), wave)
    return Ladder(_fidelities(least, sizes), WAVE_SIZES[-1])


def _fidelities(epochs: int, sizes: tuple[int, int, int]) -> tuple[Fidelity, ...]:
    """Twice the epochs on each higher rung, at a larger image."""
    return tuple(Fidelity(epochs * EPOCH_GROWTH**rung, size) for rung, size in enumerate(sizes))


def _sizes(imgsz: int) -> tuple[int, int, int]:
    """Proxy image sizes in pixels: half, three quarters and all of the final size, at most 320 and at least 64."""
    top = min(imgsz, 320)
    low, middle = (max(64, round(top * share / 32) * 32) for share in (0.5, 0.75))
    return min(low, top), min(middle, top), top


def _wave_seconds(ladder: Ladder, epoch_flops: float, imgsz: int, device: str) -> float:
    """Nominal worker-seconds of one wave; a promoted trial trains only what the rung below has not."""
    total = 0.0
    trained = 0
    for rung, fidelity in enumerate(ladder.fidelities):
        flops = (fidelity.epochs - trained) * epoch_flops * (fidelity.imgsz / imgsz) ** 2
        total += ladder.seats(rung) * (flops / NOMINAL_FLOPS[device] + EVALUATION_OVERHEAD)
        trained = fidelity.epochs
    return total


@dataclass(frozen=True)
class Budget:
    """kind: seconds (wall clock), trials (candidates trained) or epochs (over all candidates)."""

    kind: str
    amount: int
