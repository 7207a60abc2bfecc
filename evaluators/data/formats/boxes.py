"""TODO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evaluators.data.records import Record
from gpnas.errors import DataError

_SPLITS = ("train", "val", "test")
_OVERHANG = 1.0  # pixels by which a box may leave its image: what rounding in annotation tools makes


def _inside(x1: float, y1: float, x2: float, y2: float, width: int, height: int, what: str) -> list[float]:
    """The box clipped to its image; DataError if it has no size, or leaves the image by more than _OVERHANG pixels."""
    shown = f"{what} has the box [{x1:g}, {y1:g}, {x2:g}, {y2:g}] (x1, y1, x2, y2)"
    if not all(math.isfinite(v) for v in (x1, y1, x2, y2)):
        raise DataError(f"{shown}, which is not finite; correct it or remove it")
    if x2 <= x1 or y2 <= y1:
        raise DataError(f"{shown}, whose width {x2 - x1:g} or height {y2 - y1:g} is not positive; correct or remove it")
    clipped = [max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))]
    overhang = max(-x1, -y1, x2 - width, y2 - height)
    if overhang > _OVERHANG or clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise DataError(f"{shown}, outside its image of {width}x{height} pixels; correct it or remove it")
    return clipped


class _Row(NamedTuple):
    """One box of a record that is being read."""

    box: list[float]
    label: int
    crowd: bool
    area: float


def _record(image_id: int, size: tuple[int, int], path: Path, rows: Sequence[_Row]) -> Record:
    return Record(
        image_id=image_id,
        width=size[0],
        height=size[1],
        boxes=np.array([row.box for row in rows], dtype=np.float32).reshape(-1, 4),
        classes=np.array([row.label for row in rows], dtype=np.int64),
        path=path,
        crowd=np.array([row.crowd for row in rows], dtype=np.bool_),
        areas=np.array([row.area for row in rows], dtype=np.float32),
    )
