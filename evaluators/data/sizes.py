"""How large the objects of a data set are, and what that says about a detector: its levels, and the images of its proxies.

    sides = object_sides(data.splits["train"], imgsz=640)
    median_small(sides)                                   # 13.0 pixels, for example
    levels = best_levels(sides, 640)                      # "2-5"
    proxy_size(sides, 640, (4, 8, 16, 32))                # 416: there it still has the 8 pixels that two cells of stride 4 have

The small objects decide, because the others are seen anyway. The *median small object* is the median of the smaller half of
all objects: the 25th percentile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluators.data.records import Record

CELLS = 2
"""Cells of the finest level that an object needs along its side to be seen. Then four centres of cells lie inside it wherever
it is, so that four predictions learn it (evaluators/detector/assign.py); with one cell a side it is one."""

FINEST_STRIDE = 8
"""Pixels in a cell of the finest of levels 3-5."""

USUAL_PROXY_SIZE = 320
"""Pixels of the images that proxies see even where the objects would do with fewer."""

LARGE_IMGSZ, LARGE_SIDE = 1280, 512
"""Pixels. YOLOv5 and YOLOv7 give their models a level 6 (YOLOv5l6, YOLOv7-W6) for images of 1280; feature pyramids put objects
of 512 pixels on it (arXiv:1612.03144, section 4.1)."""


def object_sides(records: Sequence[Record], imgsz: int) -> NDArray[np.float64]:
    """The side of each object when its image is scaled to `imgsz` pixels along its longer side: (objects,), in pixels.

    The side is that of a square of the same area. Crowds are no objects.
    """
    sides = [np.zeros(0)]
    for record in records:
        x1, y1, x2, y2 = record.boxes[~record.crowd].astype(np.float64).T
        sides.append(np.sqrt((x2 - x1) * (y2 - y1)) * imgsz / max(record.width, record.height))
    return np.concatenate(sides)


def median_small(sides: NDArray[np.float64]) -> float:
    """The side of the median small object. Raises ValueError when there are no objects."""
    if not len(sides):
        raise ValueError("there are no objects, so there is no median small object")
    return float(np.percentile(sides, 25))


def best_levels(
    sides: NDArray[np.float64],  # (objects,), in pixels at `imgsz`
    imgsz: int,  # pixels, of the final detector
) -> Literal["3-5", "2-5", "3-6"]:
    """The levels that objects of these sides need.

    2-5 (stride 4 too) when the median small object has fewer than 16 pixels, which are CELLS cells of stride 8: then levels 3-5
    have fewer than four cells for half of the smaller objects. Otherwise 3-6 (stride 64 too) when images have at least
    LARGE_IMGSZ pixels and a tenth of the objects more than LARGE_SIDE. Otherwise, and without objects, 3-5.
    """
    if not len(sides):
        return "3-5"
    if median_small(sides) < CELLS * FINEST_STRIDE:
        return "2-5"
    return "3-6" if imgsz >= LARGE_IMGSZ and float(np.percentile(sides, 90)) > LARGE_SIDE else "3-5"


def proxy_size(
    sides: NDArray[np.float64],  # (objects,), in pixels at `imgsz`
    imgsz: int,  # pixels, of the final detector; a multiple of the deepest stride
    strides: Sequence[int],  # of the levels
) -> int:
    """The image size, in pixels, at which the median small object has CELLS cells of the finest stride.

    It is a multiple of the deepest stride, at most `imgsz`, and at least USUAL_PROXY_SIZE, or `imgsz` if that is less.
    """
    needed = imgsz * CELLS * min(strides) / median_small(sides) if len(sides) else 0
    wanted = max(needed, USUAL_PROXY_SIZE)
    return min(math.ceil(wanted / max(strides)) * max(strides), imgsz)
