"""TODO."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def _no_crowd() -> NDArray[np.bool_]:
    return np.zeros(0, dtype=np.bool_)


def _no_areas() -> NDArray[np.float32]:
    return np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Record:
    """One image and its boxes; the image is a file (`path`) or in memory (`pixels`).

    width, height: pixels of the original image, after its EXIF rotation.
    boxes: (n, 4), xyxy in original pixels, inside the image, positive area. classes: (n,), index into the names.
    pixels: (height, width, 3), RGB.
    crowd: (n,), boxes around many objects: evaluation ignores them, training does not see them; empty means none.
    areas: (n,), pixels of the object, by which COCO calls it small, medium or large; empty means the boxes' areas.
    """

    image_id: int
    width: int
    height: int
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    path: Path | None = None
    pixels: NDArray[np.uint8] | None = None
    crowd: NDArray[np.bool_] = field(default_factory=_no_crowd)
    areas: NDArray[np.float32] = field(default_factory=_no_areas)

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
    """A data set: `splits` holds "train", "val" and maybe "test"; `category_ids[i]` is the COCO id of class i."""

    source: str
    names: tuple[str, ...]
    splits: Mapping[str, tuple[Record, ...]]
    category_ids: tuple[int, ...]
    may_flip: bool = True
    """Whether a mirrored image is as good an example: not so for digits and letters."""


def subset(records: Sequence[Record], share: float, seed: int) -> tuple[Record, ...]:
    """A random share of the records, at least one, in their order. Under one seed a smaller share lies in a larger."""
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    count = max(1, round(share * len(records)))
    chosen = np.random.default_rng(seed).permutation(len(records))[:count]
    return tuple(records[i] for i in sorted(chosen.tolist()))


def digest(data: DetectionData) -> str:
    """16 hex digits that change with what is learnt or judged: names, boxes, image sizes, and the files' names and
    sizes in bytes (or the pixels, for images in memory). The folder that holds them does not matter."""
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
