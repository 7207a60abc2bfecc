"""Which images of a split are shown to people, and these images as small JPEG files.

for record in sample(data.splits["train"], count=12, seed=0, at_edge_first=True):
    small_jpeg(record, 480)
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from evaluators.data.images import Broken, readable_image
from evaluators.data.records import Record

_QUALITY = 80  # of JPEG, in [0, 100]


def sample(records: Sequence[Record], count: int, seed: int, *, at_edge_first: bool) -> list[Record]:
    """At most `count` records at random, in their order; the same seed gives the same ones. Images with boxes are preferred.

    at_edge_first: half of them have a box that ends where the image does, as boxes that were cut do.
    """
    order = [records[i] for i in np.random.default_rng(seed).permutation(len(records)).tolist()]
    with_boxes = [record for record in order if len(record.boxes)]
    at_edge = [record for record in with_boxes if has_box_at_edge(record)] if at_edge_first else []
    preferred = [*at_edge[: (count + 1) // 2], *with_boxes, *order]
    chosen = set(list(dict.fromkeys(preferred))[:count])  # records are equal only to themselves
    return [record for record in records if record in chosen]


def has_box_at_edge(record: Record) -> bool:
    """Whether a box ends exactly where the image does."""
    x1, y1, x2, y2 = record.boxes.T
    return bool(((x1 == 0) | (y1 == 0) | (x2 == record.width) | (y2 == record.height)).any())


def small_jpeg(record: Record, most_pixels: int) -> bytes | None:
    """The image of a record as a JPEG file, shrunk so that neither side has more than `most_pixels`; None if it cannot be
    read."""
    image = readable_image(record)
    if isinstance(image, Broken):
        return None
    scale = min(1.0, most_pixels / max(record.width, record.height))
    size = (max(1, round(record.width * scale)), max(1, round(record.height * scale)))
    shrunk = image if scale == 1.0 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(shrunk, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])
