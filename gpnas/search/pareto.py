"""Limits, dominance, the front, hypervolume. AP is maximised, MACs are minimised.

Limits are hard: what exceeds one is infeasible and never compared. moocore does the geometry; no NaN may reach it (it answers
0 without a word), so a point with one is refused here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A measured trial: AP in [0, 1] and MACs on one image."""

    id: int
    ap: float
    macs: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.ap) and math.isfinite(self.macs)):
            raise ValueError(f"a point of the front must be finite, got ap {self.ap}, macs {self.macs} for trial {self.id}")


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in AP and MACs, by rising MACs; of equal points the lowest id."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.macs, -p.ap, p.id)):
        if not best or point.ap > best[-1].ap:
            best.append(point)
    return best


def ranked(points: Sequence[Point]) -> list[Point]:
    """All points, best first: by non-dominated rank (NSGA-II's sorting); within a rank the highest AP, then by falling share of
    the dominated area, between AP and log MACs, that is a point's alone; then by id."""
    if not points:
        return []
    import moocore  # late: it loads a compiled library that `gpnas --help` does without

    values = [[-p.ap, math.log2(p.macs)] for p in points]
    ranks = moocore.pareto_rank(values)
    reference = [0.0, max(cost for _, cost in values) + 1.0]  # one doubling beyond the largest
    keys: list[tuple[float, ...]] = [()] * len(points)
    for rank in set(ranks.tolist()):
        members = [i for i in range(len(points)) if ranks[i] == rank]
        alone = moocore.hv_contributions([values[i] for i in members], ref=reference)
        top = max(points[i].ap for i in members)
        for i, area in zip(members, alone.tolist(), strict=True):
            keys[i] = (rank, -math.inf if points[i].ap == top else -area, points[i].id)
    return [points[i] for i in sorted(range(len(points)), key=keys.__getitem__)]


def hypervolume(points: Sequence[Point], max_macs: float) -> float:
    """Area that the points dominate in AP x MACs/max_macs, between AP 0 and `max_macs`: 1 is an AP of 1 for nothing."""
    inside = [p for p in points if p.macs < max_macs]
    if not inside:
        return 0.0
    import moocore

    return float(moocore.hypervolume([[-p.ap, p.macs / max_macs] for p in inside], ref=[0.0, 1.0]))
