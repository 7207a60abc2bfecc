"""The ladder of a search: the fidelity of each rung, and how many trials are promoted (asynchronous successive halving,
arXiv:1810.05934). plan.py chooses the ladder that a budget pays for.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpnas.search.trial import Fidelity

REDUCTION: int = 3
"""The best 1/REDUCTION of a rung are promoted (eta in the paper)."""

EPOCH_GROWTH = 2
"""Each rung trains this many times the epochs of the rung below. With larger images too, and fewer trials, all rungs of a wave
cost about the same."""


@dataclass(frozen=True)
class Ladder:
    """fidelities: by rung, lowest first. wave: candidates that start together, before there are results. pending: each decision
    lacks the results of the last `pending` evaluations, which may still run; twice the workers keep all workers busy. seeds:
    with how many the search may explore a trial, 1 or 2."""

    fidelities: tuple[Fidelity, ...]
    wave: int
    pending: int = 4
    seeds: int = 1

    def to_dict(self) -> dict[str, Any]:
        """For JSON. A rung has no seed: trials are trained on it with several."""
        fidelities = [{"epochs": f.epochs, "imgsz": f.imgsz, "data_share": f.data_share} for f in self.fidelities]
        return {"fidelities": fidelities, "wave": self.wave, "pending": self.pending, "seeds": self.seeds}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Ladder:
        return cls(
            tuple(Fidelity(**fidelity) for fidelity in data["fidelities"]), data["wave"], data["pending"], data.get("seeds", 1)
        )


def quota(rung: int, finished: int) -> int:
    """How many of the trials that `finished` a rung are promoted: 1/REDUCTION of them, rounded down on the lowest rung, and to
    the nearest on higher rungs, which have few trials."""
    return finished // REDUCTION if rung == 0 else round(finished / REDUCTION)


def fidelities(epochs: int, top: int, stride: int, share: float = 1.0) -> tuple[Fidelity, ...]:
    """Three rungs with `epochs` on the lowest and EPOCH_GROWTH times as many on each higher one, on a `share` of the data.

    top: image size of the highest rung in pixels, a multiple of `stride` pixels. The others have half and three quarters of
    it, at least 64 pixels and two cells of the stride.
    """
    low, middle = (max(64, 2 * stride, round(top * part / stride) * stride) for part in (0.5, 0.75))
    sizes = min(low, top), min(middle, top), top
    return tuple(Fidelity(epochs * EPOCH_GROWTH**rung, size, share) for rung, size in enumerate(sizes))


def tells(
    low: Sequence[float],  # AP on a rung of trials that completed the next one too
    high: Sequence[float],  # their AP on the next rung
    everyone: Sequence[float],  # AP of all trials on the lower rung
) -> float:
    """How well a rung predicts the next one: Pearson's correlation, as it would be had everyone been promoted.

    The promoted trials are the best ones of the lower rung and differ less than all do, which lowers their correlation; it is
    corrected for this restriction of range (Thorndike 1949, case II). 0 where the lower rung cannot tell the trials apart.
    """
    narrow, wide, spread = (statistics.pstdev(values) for values in (low, everyone, high))
    if not narrow or not spread:
        return 0.0
    r, u = statistics.correlation(low, high), wide / narrow
    return r * u / math.sqrt(1 + r * r * (u * u - 1))


def baseline_seats(wave: int, with_start: bool) -> int:
    """How many baselines may be among the `wave` first candidates. With the start they are at most half, so that a search in a
    short budget still looks at its space."""
    return max(0, wave // 2 - with_start)
