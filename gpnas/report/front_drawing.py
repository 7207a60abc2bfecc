"""The drawing of a search's Pareto front: AP over FLOPs of every measured trial.

front_svg([FrontPoint(3, flops=2e9, ap=0.31, rung=2), ...], front=[3], best=3, max_flops=4e9)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape

from gpnas.report.drawing import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    axis,
    dot,
    drawing,
    empty,
    frame,
    rung_legend,
    rung_look,
    short,
    steps,
)
from gpnas.units import brief


@dataclass(frozen=True)
class FrontPoint:
    """A measured trial.

    flops: 2 x MACs of the fused network on one image. ap: in [0, 1], of the evaluations on `rung`. name: of a baseline, by
    which the drawing labels it. error: the standard error of the AP of a confirmed trial; None for other trials.
    """

    id: int
    flops: float
    ap: float
    rung: int = 0
    name: str = ""
    error: float | None = None


def front_svg(
    points: Sequence[FrontPoint],
    *,
    front: Collection[int],
    best: int | None = None,
    max_flops: float | None = None,
    title: str = "AP over FLOPs",
) -> str:
    """A drawing of all measured trials, with the front as a step line, marks for the best trial and the limit, the names of
    baselines, and bars of one standard error up and down at confirmed trials.

    front, best: trial ids. Points of higher rungs are larger and more solid, because the AP of a low rung understates a
    candidate; those of confirmed trials are the largest.
    """
    if not points:
        return empty(title, "no trial was measured")
    limit = [] if max_flops is None else [max_flops]
    x = axis([p.flops for p in points] + limit, LEFT, WIDTH - RIGHT, "FLOPs of the fused network (2 x MACs)", log=True)
    bars = [p.ap + sign * (p.error or 0.0) for p in points for sign in (-1, 1)]
    y = axis([max(0.0, end) for end in bars], HEIGHT - BOTTOM, TOP, "AP", floor=0.0)
    parts = [frame(x, y)]
    if max_flops is not None:
        parts.append(_limit_line(x(max_flops), f"limit {short(max_flops)}"))
    on_front = sorted((p for p in points if p.id in front), key=lambda p: p.flops)
    top = max(map(_level, points))
    parts.append(steps([(x(p.flops), y(p.ap)) for p in on_front], WIDTH - RIGHT, "front"))
    for p in sorted(points, key=lambda p: (p.id in front, _level(p))):
        radius, opacity = rung_look(_level(p), top)
        style, opacity = ("on-front", max(opacity, 0.75)) if p.id in front else ("dot", opacity)
        parts.append(dot(x(p.flops), y(p.ap), _told(p), style, radius, opacity))
    parts += [_error_bar(p, p.error, x, y) for p in points if p.error is not None]
    parts += _labels([*on_front, *(p for p in points if p.name and p.id not in front)], best, x, y)
    confirmed = [p for p in points if p.error is not None]
    counted = f"{len(points)} measured trials, " + (f"{len(confirmed)} of them confirmed, " if confirmed else "")
    legend = [("line front", "Pareto front"), *rung_legend(sorted({p.rung for p in points if p.error is None}), top)]
    if confirmed:
        legend += [(f"mark dot {top} {top}", "confirmed"), ("line error", "standard error")]
    return drawing(title, f"{counted}{len(on_front)} of them on the Pareto front", parts, legend)


def _level(point: FrontPoint) -> int:
    """How solid a point is drawn: by its rung, and above all rungs when it is confirmed, which it is on the highest one."""
    return point.rung + (point.error is not None)


def _told(point: FrontPoint) -> str:
    named = f" ({point.name})" if point.name else ""
    error = "" if point.error is None else f", standard error {point.error:.3f}"
    confirmed = "" if point.error is None else ", confirmed"
    return f"trial {point.id}{named}: AP {point.ap:.3f}{error}, {brief(point.flops)} FLOPs, rung {point.rung}{confirmed}"


def _error_bar(point: FrontPoint, error: float, x: Axis, y: Axis) -> str:
    """One standard error up and down, not below AP 0. It lies over the mark and is wider, so that a small one is seen."""
    at, low, high = x(point.flops), y(max(0.0, point.ap - error)), y(point.ap + error)
    ends = "".join(f"M{at - 7:.1f} {end:.1f}H{at + 7:.1f}" for end in (low, high))
    return f'<path class="error" d="M{at:.1f} {low:.1f}V{high:.1f}{ends}"/>'


def _limit_line(x: float, name: str) -> str:
    left = x > WIDTH - RIGHT - 90
    return (
        f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text x="{x + (-6 if left else 6):.1f}" y="{HEIGHT - BOTTOM - 8}" text-anchor="{"end" if left else "start"}">'
        f"{escape(name)}</text>"
    )


def _labels(labelled: Sequence[FrontPoint], best: int | None, x: Axis, y: Axis) -> list[str]:
    """Labels: the best trial with its AP, then baselines with their names, the others with their ids where labels do not
    overlap. A name is moved down or up where its place is taken: baselines may be near copies of each other."""
    taken: list[tuple[float, float, float, float]] = []
    parts = []
    for p in sorted(labelled, key=lambda p: (p.id != best, not p.name, -p.ap)):
        text = f"{p.name or f'trial {p.id}'}, AP {p.ap:.3f}" if p.id == best else p.name or str(p.id)
        px, py = x(p.flops), y(p.ap)
        if p.id == best:
            parts.append(f'<circle class="best" cx="{px:.1f}" cy="{py:.1f}" r="10"/>')
        width = 6.6 * len(text)
        right = min(px - 8, WIDTH - RIGHT - 4) if px - 8 - width > LEFT else px + 8 + width
        places = [py - (12 if p.id == best else 8) + move for move in (_MOVES if p.name else (0,))]
        boxes = [(right - width - 4, bottom - 12, right + 4, bottom) for bottom in places if TOP < bottom < HEIGHT - BOTTOM]
        free = [box for box in boxes if not any(_overlap(box, other) for other in taken)]
        if not free:
            continue
        taken.append(free[0])
        bottom = free[0][3]
        style = "label strong" if p.id == best else "label"
        parts.append(f'<text class="{style}" x="{right:.1f}" y="{bottom:.1f}" text-anchor="end">{escape(text)}</text>')
    return parts


_MOVES = (0, 26, 40, -14, -28)
"""Pixels downwards by which the name of a baseline may be moved, in the order in which they are tried."""


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    """Whether two boxes (left, top, right, bottom) share an area."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
