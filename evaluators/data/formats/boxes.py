"""The boxes of annotation files: checked against their image, then collected into a Record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evaluators.data.records import Record
from gpnas.errors import DataError

_OVERHANG = 1.0  # pixels by which a box may leave its image, since annotation tools round


class AnnotatedBox(NamedTuple):
    """One box of an annotation file."""

    xyxy: tuple[float, float, float, float]  # original pixels, inside the image
    label: int  # index into the names of the classes
    crowd: bool
    area: float  # of the object, in pixels

    @classmethod
    def of_object(cls, xyxy: tuple[float, float, float, float], label: int) -> AnnotatedBox:
        """A box around one object whose outline is not known: its area counts as the object's."""
        return cls(xyxy, label, False, box_area(xyxy))


def box_area(xyxy: tuple[float, float, float, float]) -> float:
    return (xyxy[2] - xyxy[0]) * (xyxy[3] - xyxy[1])


def checked_box(
    x1: float, y1: float, x2: float, y2: float, width: int, height: int, what: str
) -> tuple[float, float, float, float]:
    """The box, clipped to its image of `width` x `height` pixels.

    Raises DataError, which starts with `what` (a file and its line or annotation), if the box is not finite, has no positive
    width and height, or leaves the image by more than a pixel.
    """
    shown = f"{what} has the box [{x1:g}, {y1:g}, {x2:g}, {y2:g}] (x1, y1, x2, y2)"
    if not all(math.isfinite(v) for v in (x1, y1, x2, y2)):
        raise DataError(f"{shown}, which is not finite; correct it or remove it")
    if x2 <= x1 or y2 <= y1:
        raise DataError(f"{shown}, whose width {x2 - x1:g} or height {y2 - y1:g} is not positive; correct or remove it")
    clipped = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    overhang = max(-x1, -y1, x2 - width, y2 - height)
    if overhang > _OVERHANG or clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise DataError(f"{shown}, outside its image of {width}x{height} pixels; correct it or remove it")
    return clipped


def annotated_record(image_id: int, size: tuple[int, int], path: Path, boxes: Sequence[AnnotatedBox]) -> Record:
    """The record of an image file; `size` is its width and height."""
    return Record(
        image_id=image_id,
        width=size[0],
        height=size[1],
        boxes=np.array([box.xyxy for box in boxes], dtype=np.float32).reshape(-1, 4),
        classes=np.array([box.label for box in boxes], dtype=np.int64),
        path=path,
        crowd=np.array([box.crowd for box in boxes], dtype=np.bool_),
        areas=np.array([box.area for box in boxes], dtype=np.float32),
    )
