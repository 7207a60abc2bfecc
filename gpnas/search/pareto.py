"""The Pareto front, non-dominated ranking and hypervolume of measured trials. AP is maximised, MACs are minimised.

moocore computes ranks and areas. It silently returns an area of 0 for points with NaN, so a Point cannot hold one.
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
    """The points that no other dominates, by rising MACs; of equal points the one with the lowest id."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.macs, -p.ap, p.id)):
        if not best or point.ap > best[-1].ap:
            best.append(point)
    return best


def ranked(points: Sequence[Point]) -> list[Point]:
    """All points, best first.

    They are sorted by non-dominated rank (NSGA-II, Deb et al. 2002, section III-A). Within a rank the highest AP comes first,
    then the largest exclusive hypervolume contribution between AP and log2 MACs, then the lowest id.
    """
    if not points:
        return []
    import moocore  # late: it loads a compiled library that `gpnas --help` does without

    values = [[-p.ap, math.log2(p.macs)] for p in points]
    ranks = moocore.pareto_rank(values)
    reference = [0.0, max(log_macs for _, log_macs in values) + 1.0]  # AP 0 and twice the largest MACs
    keys: list[tuple[float, ...]] = [()] * len(points)
    for rank in set(ranks.tolist()):
        members = [i for i in range(len(points)) if ranks[i] == rank]
        top = max(points[i].ap for i in members)
        behind = [i for i in members if points[i].ap < top]
        areas = [0.0] * len(members)
        if len(behind) > 1:  # their order needs areas
            areas = moocore.hv_contributions([values[i] for i in members], ref=reference).tolist()
        for i, area in zip(members, areas, strict=True):
            keys[i] = (rank, -math.inf if points[i].ap == top else -area, points[i].id)
    return [points[i] for i in sorted(range(len(points)), key=keys.__getitem__)]


def hypervolume(points: Sequence[Point], max_macs: float) -> float:
    """Area that the points dominate between AP and MACs / max_macs, above AP 0 and below `max_macs`; in [0, 1]. Only an AP of 1
    at 0 MACs would dominate all of it."""
    inside = [p for p in points if p.macs < max_macs]
    if not inside:
        return 0.0
    import moocore

    return float(moocore.hypervolume([[-p.ap, p.macs / max_macs] for p in inside], ref=[0.0, 1.0]))
