"""Trials in, promotions out: successive halving over epochs and image size (Hyperband, arXiv:1603.06560; multi-objective).

A ladder of fidelities is planned once, from the budget alone, never from measured speed: the same command gives the same
ladder on every machine, and a slow machine climbs it less often. Every wave starts `wave` candidates on the lowest rung;
a third of each rung goes on to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gpnas.pareto import Point, ranked
from gpnas.trial import Fidelity

REDUCTION: int = 3
"""One in so many is promoted (eta of Hyperband)."""

WAVES = 3
"""Waves that a budget is planned for, so that later ones can learn from earlier ones."""

NOMINAL_FLOPS = {"cpu": 6e10, "cuda": 6e12}
"""Training FLOPs a second that one worker is taken to reach; only the plan reads it."""

EVALUATION_OVERHEAD = 3.0
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
    if budget.kind != "seconds":
        epochs = 5 if budget.kind == "trials" else max(1, budget.amount // 100)
        wave = max(1, min(9, budget.amount)) if budget.kind == "trials" else 9
        return Ladder(_fidelities(epochs, sizes), wave)
    seconds = budget.amount * slots / WAVES  # worker-seconds for one wave
    flops = 6 * typical_macs * images  # one epoch at imgsz
    wave = 9
    while wave > 3 and _wave_seconds(Ladder(_fidelities(1, sizes), wave), flops, imgsz, device) > seconds:
        wave -= 1
    epochs = 1
    while epochs < 30 and _wave_seconds(Ladder(_fidelities(epochs + 1, sizes), wave), flops, imgsz, device) <= seconds:
        epochs += 1
    return Ladder(_fidelities(epochs, sizes), wave)


def _fidelities(epochs: int, sizes: tuple[int, int, int]) -> tuple[Fidelity, ...]:
    """Three times the epochs on each higher rung, at a larger image."""
    return tuple(Fidelity(epochs * REDUCTION**rung, size) for rung, size in enumerate(sizes))


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
