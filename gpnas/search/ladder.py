"""The ladder of a search: how far candidates are trained, and how many climb (asynchronous successive halving,
arXiv:1810.05934).

It is planned once, from the budget, the data, the limits and the kind and number of workers, never from measured speed: the
same command gives the same ladder on two machines of a kind, and the slower one climbs it less often. Whoever is in the best
third of a rung goes on to the next: as each decision sees it, so that in the end rather more than a third have climbed.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from gpnas.search.budget import Budget
from gpnas.search.trial import Fidelity

REDUCTION: int = 3
"""One in so many is promoted (eta of Hyperband)."""

EPOCH_GROWTH = 2
"""Epochs from rung to rung. With the images growing too, every rung of a wave costs about the same."""

WAVES = 3
"""Times `Ladder.wave` candidates that a budget is planned for, so that later ones can learn from earlier ones."""

WAVE_SIZES = (9, 6, 4)
"""Candidates that start together: fewer when the budget is short."""

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
    """fidelities: by rung, rising. wave: candidates that start together, before anything is known. pending: the last so many
    evaluations may still run when the next is decided on; twice the workers keeps all of them busy."""

    fidelities: tuple[Fidelity, ...]
    wave: int
    pending: int = 4

    def seats(self, rung: int) -> int:
        """How many candidates of one wave reach `rung`."""
        return max(1, round(self.wave / float(REDUCTION) ** rung))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Ladder:
        return cls(tuple(Fidelity(**fidelity) for fidelity in data["fidelities"]), data["wave"], data["pending"])


def quota(rung: int, finished: int) -> int:
    """How many of the trials that finished `rung` are its best, which go on: one in REDUCTION, and higher up, where few are, as
    many as that rounds to."""
    return finished // REDUCTION if rung == 0 else round(finished / REDUCTION)


def plan(budget: Budget, *, imgsz: int, images: int, typical_macs: float, slots: int, device: str) -> Ladder:
    """The ladder for a budget.

    imgsz: pixels, of the final detector. images: in the training split. typical_macs: for one image at `imgsz`.
    slots: workers. A training step costs three forward passes, 2 FLOPs a MAC.
    """
    sizes, pending = _sizes(imgsz), 2 * slots
    waves_of = [max(size, pending) for size in WAVE_SIZES]  # what starts together must keep all workers busy
    least = max(1, min(30, math.ceil(LEAST_STEPS * PROXY_BATCH / images)))
    if budget.kind == "trials":
        return Ladder(_fidelities(least, sizes), max(1, min(waves_of[0], budget.amount)), pending)
    if budget.kind == "epochs":
        wave = max(1, min(waves_of[0], budget.amount // (2 * least)))
        return Ladder(_fidelities(min(least, budget.amount), sizes), wave, pending)
    epoch_flops = 6 * typical_macs * images  # at imgsz

    def seconds(ladder: Ladder) -> float:
        return _wave_seconds(ladder, epoch_flops, imgsz, device) / slots

    share = 1.0
    while True:
        for wave in waves_of:
            for waves in range(WAVES, 0, -1):
                for epochs in range(60 if share == 1 else least, least - 1, -1):
                    ladder = Ladder(_fidelities(epochs, sizes, share), wave, pending)
                    if seconds(ladder) <= budget.amount / waves:
                        return ladder
        if share / 2 * images * least < LEAST_STEPS * PROXY_BATCH:
            return Ladder(_fidelities(least, sizes, share), waves_of[-1], pending)
        share /= 2  # an epoch of the whole data is more than the budget pays for


def _fidelities(epochs: int, sizes: tuple[int, int, int], share: float = 1.0) -> tuple[Fidelity, ...]:
    """Twice the epochs on each higher rung, at a larger image, over a `share` of the data."""
    return tuple(Fidelity(epochs * EPOCH_GROWTH**rung, size, share) for rung, size in enumerate(sizes))


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
        epochs = (fidelity.epochs - trained) * fidelity.data_share
        flops = epochs * epoch_flops * (fidelity.imgsz / imgsz) ** 2
        total += ladder.seats(rung) * (flops / NOMINAL_FLOPS[device] + EVALUATION_OVERHEAD)
        trained = fidelity.epochs
    return total
