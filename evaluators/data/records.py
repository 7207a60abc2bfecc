"""Records: the images of a data set with their boxes, checked, before any pixel is scaled or moved.

`DetectionData` is a data set; `subset` takes a random share of a split; `digest` tells whether two data sets are the same.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluators.data.problems import Problem

SPLITS = ("train", "val", "test")
"""The names of splits; a data set may lack "test"."""


def _no_crowd() -> NDArray[np.bool_]:
    return np.zeros(0, dtype=np.bool_)


def _no_areas() -> NDArray[np.float32]:
    return np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Record:
    """One image and its boxes. The image is either a file (`path`) or in memory (`pixels`).

    A crowd is a box around many objects: evaluation ignores it, and training does not see it. The area of an object decides
    whether COCO's metrics call it small, medium or large. Raises ValueError for arrays of other shapes, for a box that leaves
    the image or has no area, and for an image with both a path and pixels or neither.
    """

    image_id: int | str
    width: int  # pixels of the original image, after its EXIF rotation
    height: int
    boxes: NDArray[np.float32]  # (n, 4), xyxy in original pixels
    classes: NDArray[np.int64]  # (n,), indices into the names of the classes
    path: Path | None = None
    pixels: NDArray[np.uint8] | None = None  # (height, width, 3), RGB
    crowd: NDArray[np.bool_] = field(default_factory=_no_crowd)  # (n,); when left out, no box is a crowd
    areas: NDArray[np.float32] = field(default_factory=_no_areas)  # (n,), in pixels; when left out, those of the boxes

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if self.boxes.shape != (n, 4) or self.classes.shape != (n,):
            raise ValueError(f"boxes {self.boxes.shape} and classes {self.classes.shape} must be (n, 4) and (n,)")
        if (self.path is None) == (self.pixels is None):
            raise ValueError(f"image {self.image_id} needs a path or pixels, and not both")
        if self.pixels is not None and self.pixels.shape != (self.height, self.width, 3):
            raise ValueError(f"pixels {self.pixels.shape} must be {(self.height, self.width, 3)}")
        x1, y1, x2, y2 = self.boxes.T
        inside = (x1 >= 0) & (y1 >= 0) & (x2 <= self.width) & (y2 <= self.height) & (x1 < x2) & (y1 < y2)
        if not inside.all():
            raise ValueError(f"box {self.boxes[~inside][0]} of image {self.image_id} is outside it or has no area")
        if not len(self.crowd):
            object.__setattr__(self, "crowd", np.zeros(n, dtype=np.bool_))
        if not len(self.areas):
            object.__setattr__(self, "areas", ((x2 - x1) * (y2 - y1)).astype(np.float32))
        if self.crowd.shape != (n,) or self.areas.shape != (n,):
            raise ValueError(f"crowd {self.crowd.shape} and areas {self.areas.shape} must be ({n},)")


@dataclass(frozen=True, eq=False)
class DetectionData:
    """A data set."""

    source: str  # what was opened: a path, or the name of a built-in data set
    names: tuple[str, ...]  # of the classes
    splits: Mapping[str, tuple[Record, ...]]  # "train", "val" and perhaps "test"
    category_ids: tuple[int, ...]  # the COCO id of each class
    may_flip: bool = True
    """Whether a mirrored image is as good an example. Mirrored digits and letters are not."""
    split: str = ""
    """The shares that the user asked for; "" for none."""
    val: str = ""
    """The path of the other data set that is the val split, as the user gave it; "" for none."""
    shares: str = ""
    """Shares of train, val and test, by which the data were divided, such as "70/15/15"; "" for splits of their own."""
    format: str = "built in"
    """The format that was found, such as "Pascal VOC"."""
    problems: tuple[Problem, ...] = ()
    """What was mended when the data set was opened."""
    notes: tuple[str, ...] = ()
    """What else the user should know, one sentence each."""


def subset(records: Sequence[Record], share: float, seed: int) -> tuple[Record, ...]:
    """A random share of the records, at least one, in their order. With the same seed, a smaller share is part of a larger.

    Raises ValueError for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    count = max(1, round(share * len(records)))
    chosen = np.random.default_rng(seed).permutation(len(records))[:count]
    return tuple(records[i] for i in sorted(chosen.tolist()))


def at_most(records: Sequence[Record], count: int) -> tuple[Record, ...]:
    """All records, or a random choice of `count`, in their order and always the same. Of those with boxes and of those without,
    it has the same share as all have; at least one with boxes, if any has."""
    if len(records) <= count:
        return tuple(records)
    order = np.random.default_rng(0).permutation(len(records)).tolist()
    labelled = [i for i in order if not records[i].crowd.all()]
    empty = [i for i in order if records[i].crowd.all()]
    with_boxes = max(round(count * len(labelled) / len(records)), min(1, len(labelled)), count - len(empty))
    return tuple(records[i] for i in sorted(labelled[:with_boxes] + empty[: count - with_boxes]))


def splits_table(data: DetectionData) -> str:
    """CSV that says which image is in which split: columns `split` and `image`, a path or an id."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("split", "image"))
    writer.writerows((split, _printable(r)) for split, records in data.splits.items() for r in records)
    return text.getvalue()


def _printable(record: Record) -> str:
    """The absolute path of an image, or its id. A name that is no UTF-8 is escaped."""
    if record.path is None:
        return str(record.image_id)
    return os.fsencode(os.path.abspath(record.path)).decode("utf-8", "backslashreplace")


def digest(data: DetectionData) -> str:
    """16 hex digits that identify the content of a data set, wherever its folder is.

    They depend on the names of the classes, the boxes, the sizes of the images, and the name and length of each image file (or
    the pixels of images in memory).
    """
    sha = hashlib.sha256(json.dumps([data.names, data.category_ids]).encode())
    for split, records in sorted(data.splits.items()):
        sha.update(json.dumps([split, len(records)]).encode())
        for r in records:
            file = None if r.path is None else (r.path.name, r.path.stat().st_size)
            sha.update(json.dumps([r.image_id, r.width, r.height, len(r.boxes), file]).encode())
            for array in (r.boxes, r.classes, r.crowd, r.areas):
                sha.update(array.tobytes())
            if r.pixels is not None:
                sha.update(r.pixels.tobytes())
    return sha.hexdigest()[:16]
