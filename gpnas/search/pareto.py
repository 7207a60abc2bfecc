"""The Pareto front, non-dominated ranking and hypervolume of measured trials. AP is maximised, MACs are minimised.

moocore computes ranks and whole areas. It silently returns an area of 0 for points with NaN, so a Point cannot hold one.
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


def by_ap(points: Sequence[Point]) -> list[Point]:
    """All points by falling AP; of equal ones the one with the fewest MACs comes first, then that with the lowest id."""
    return sorted(points, key=lambda p: (-p.ap, p.macs, p.id))


def ranked(points: Sequence[Point]) -> list[Point]:
    """All points, best first.

    They are sorted by non-dominated rank (NSGA-II, Deb et al. 2002, section III-A). Within a rank the highest AP comes first,
    then the largest exclusive hypervolume contribution between AP and log2 MACs, then the lowest id.
    """
    if not points:
        return []
    import moocore  # late: it loads a compiled library that `gpnas --help` does without

    by_rank: dict[int, list[Point]] = {}
    for point, rank in zip(points, moocore.pareto_rank([[-p.ap, p.macs] for p in points]).tolist(), strict=True):
        by_rank.setdefault(rank, []).append(point)
    most = 2 * max(p.macs for p in points)
    return [point for rank in sorted(by_rank) for point in _by_area(by_rank[rank], most)]


def _by_area(points: list[Point], most: float) -> list[Point]:
    """Points of one non-dominated rank in the order of `ranked`. most: MACs up to which a point dominates."""
    points = sorted(points, key=lambda p: (p.macs, p.id))
    top = points[-1].ap  # in one rank, AP rises with MACs
    keys: dict[int, tuple[float, int]] = {}
    for k, point in enumerate(points):
        width = math.log2(points[k + 1].macs if k + 1 < len(points) else most) - math.log2(point.macs)
        height = point.ap - (points[k - 1].ap if k else 0.0)
        keys[point.id] = (-math.inf if point.ap == top else -width * height, point.id)  # equal points: 0 for both
    return sorted(points, key=lambda p: keys[p.id])


def hypervolume(points: Sequence[Point], max_macs: float) -> float:
    """Area that the points dominate between AP and MACs / max_macs, above AP 0 and below `max_macs`; in [0, 1]. Only an AP of 1
    at 0 MACs would dominate all of it."""
    inside = [p for p in points if p.macs < max_macs]
    if not inside:
        return 0.0
    import moocore

    return float(moocore.hypervolume([[-p.ap, p.macs / max_macs] for p in inside], ref=[0.0, 1.0]))
