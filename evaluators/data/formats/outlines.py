"""The box around an outline, and the area inside of it: polygons, ellipses and turned boxes, in the units of their numbers.

All functions give [x1, y1, x2, y2]; four times math.nan where a number is not finite, which counts as a box of no four numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

NOWHERE = [math.nan] * 4
"""The extent of what has no numbers."""


def extent(xs: Sequence[float], ys: Sequence[float]) -> list[float]:
    """The box around points."""
    if not xs or len(xs) != len(ys) or not all(map(math.isfinite, (*xs, *ys))):
        return list(NOWHERE)
    return [min(xs), min(ys), max(xs), max(ys)]


def polygon_area(xs: Sequence[float], ys: Sequence[float]) -> float:
    """By the shoelace formula."""
    return abs(sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))) / 2


def turned_box(cx: float, cy: float, width: float, height: float, angle: float) -> list[float]:
    """The box around a box that is turned about its centre. angle: in radians. It is as wide as the shadows of both sides."""
    if not math.isfinite(angle):
        return list(NOWHERE)
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    return _about(cx, cy, (width * cos + height * sin) / 2, (width * sin + height * cos) / 2)


def turned_ellipse(cx: float, cy: float, rx: float, ry: float, angle: float) -> list[float]:
    """The box around an ellipse of the radii rx and ry that is turned about its centre. angle: in radians."""
    if not math.isfinite(angle):
        return list(NOWHERE)
    cos, sin = math.cos(angle), math.sin(angle)
    return _about(cx, cy, math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos))


def _about(cx: float, cy: float, half_width: float, half_height: float) -> list[float]:
    return [cx - half_width, cy - half_height, cx + half_width, cy + half_height]
