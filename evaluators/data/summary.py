"""What a data set holds, in numbers: images and boxes by split and class, and the sizes of objects at the size of training.

    summary = summarize(open_data("cells"), imgsz=640)
    summary.splits["train"].boxes, summary.sides.median, advice(summary)

The side of an object is the square root of the area of its box, in pixels of an image whose long side is scaled to `imgsz`, as
training does it. Crowds are counted for themselves; they are in no other number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.data.records import DetectionData, Record
from evaluators.data.sizes import best_levels, object_sides

SMALL, LARGE = 32, 96
"""Sides in pixels: COCO calls an object below the first one small, and one above the second one large."""

VANISHING = 4
"""Side in pixels below which nothing can be told of an object."""

FEW_BOXES = 20
"""A class with fewer boxes for training is hardly learned."""

FEW_JUDGED = 100
"""With fewer boxes in val, AP differs by chance more than candidates do."""

UNEVEN = 100
"""A class with so many times the boxes of another one outweighs it in training."""

MUCH_LARGER = 3
"""Images whose long side is so many times `imgsz` lose much detail."""

SHOWN_SIZES = 5
"""Sizes of images that are listed, the most common ones."""

LARGEST_IMGSZ = 2048
"""A larger image size is not suggested: it takes more memory than most GPUs have."""

BARS_A_DOUBLING = 4
"""Bars of the histogram of sides between one side and twice that side."""

Sides = NDArray[np.float64]
"""(objects,): in pixels at `imgsz`."""


@dataclass(frozen=True)
class SplitFacts:
    """images: number of images; empty: of those without a box or crowd. boxes: without crowds. median_boxes, most_boxes: in an
    image."""

    images: int
    boxes: int
    crowds: int
    empty: int
    median_boxes: float
    most_boxes: int


@dataclass(frozen=True)
class SideFacts:
    """Percentiles of the sides of objects, in pixels at `imgsz`."""

    p5: float
    p25: float
    median: float
    p75: float
    p95: float

    @classmethod
    def of(cls, sides: Sides) -> SideFacts | None:
        """None where there are no objects."""
        return cls(*np.percentile(sides, (5, 25, 50, 75, 95)).tolist()) if len(sides) else None


@dataclass(frozen=True)
class ClassFacts:
    """boxes: by split, without crowds. sides: of its objects in train; None where it has none."""

    name: str
    boxes: Mapping[str, int]
    sides: SideFacts | None


@dataclass(frozen=True)
class Bar:
    """Of a histogram: `count` objects have a side of at least `low` and below `high` pixels."""

    low: float
    high: float
    count: int


@dataclass(frozen=True)
class ImageSize:
    """`count` images have this size, in pixels."""

    width: int
    height: int
    count: int


@dataclass(frozen=True)
class Summary:
    """A data set in numbers.

    sides, size_shares, bars and vanishing are those of the objects in train, in pixels at `imgsz`. size_shares: of "small",
    "medium" and "large" objects. vanishing: how many are smaller than VANISHING. enough_imgsz: the image size at which 99 of
    100 of them are not. image_sizes: the SHOWN_SIZES most common ones over all splits; other_sizes: number of images of all
    other sizes. long_side: the median of the images' long sides. levels: what a search takes by itself (sizes.py).
    """

    imgsz: int
    splits: Mapping[str, SplitFacts]
    classes: tuple[ClassFacts, ...]
    sides: SideFacts | None
    size_shares: Mapping[str, float]
    bars: tuple[Bar, ...]
    vanishing: int
    enough_imgsz: int
    image_sizes: tuple[ImageSize, ...]
    other_sizes: int
    long_side: float
    levels: str


def summarize(data: DetectionData, imgsz: int) -> Summary:
    """The summary of a data set at an image size in pixels. No image is read."""
    labels = {split: _labels(records) for split, records in data.splits.items()}
    counts = {split: np.bincount(values, minlength=len(data.names)).tolist() for split, values in labels.items()}
    sides = object_sides(data.splits["train"], imgsz)
    every = [record for records in data.splits.values() for record in records]
    sizes = Counter((record.width, record.height) for record in every).most_common()
    return Summary(
        imgsz=imgsz,
        splits={split: _split_facts(records) for split, records in data.splits.items()},
        classes=tuple(
            ClassFacts(name, {split: counts[split][i] for split in counts}, SideFacts.of(sides[labels["train"] == i]))
            for i, name in enumerate(data.names)
        ),
        sides=SideFacts.of(sides),
        size_shares=_size_shares(sides),
        bars=_bars(sides),
        vanishing=int((sides < VANISHING).sum()),
        enough_imgsz=_enough_imgsz(sides, imgsz),
        image_sizes=tuple(ImageSize(width, height, count) for (width, height), count in sizes[:SHOWN_SIZES]),
        other_sizes=sum(count for _, count in sizes[SHOWN_SIZES:]),
        long_side=float(np.median([max(record.width, record.height) for record in every])) if every else 0.0,
        levels=best_levels(sides, imgsz),
    )


def _labels(records: Sequence[Record]) -> NDArray[np.int64]:
    """The class of each object of a split, in the order of `object_sides`."""
    return np.concatenate([np.zeros(0, dtype=np.int64), *(record.classes[~record.crowd] for record in records)])


def _split_facts(records: Sequence[Record]) -> SplitFacts:
    boxes = np.array([int((~record.crowd).sum()) for record in records], dtype=np.int64)
    return SplitFacts(
        images=len(records),
        boxes=int(boxes.sum()),
        crowds=sum(int(record.crowd.sum()) for record in records),
        empty=sum(len(record.boxes) == 0 for record in records),
        median_boxes=float(np.median(boxes)) if len(boxes) else 0.0,
        most_boxes=int(boxes.max(initial=0)),
    )


def _size_shares(sides: Sides) -> dict[str, float]:
    total = max(1, len(sides))
    small, large = int((sides < SMALL).sum()), int((sides > LARGE).sum())
    return {"small": small / total, "medium": (len(sides) - small - large) / total, "large": large / total}


def _bars(sides: Sides) -> tuple[Bar, ...]:
    """Bars that get wider by the same factor, BARS_A_DOUBLING of them from 8 to 16 pixels."""
    if not len(sides):
        return ()
    steps = np.floor(BARS_A_DOUBLING * np.log2(sides)).astype(np.int64)
    first = int(steps.min())
    edges = [2 ** ((first + i) / BARS_A_DOUBLING) for i in range(int(steps.max()) - first + 2)]
    counts = np.bincount(steps - first).tolist()
    return tuple(Bar(low, high, count) for low, high, count in zip(edges, edges[1:], counts, strict=False))


def _enough_imgsz(sides: Sides, imgsz: int) -> int:
    """The multiple of 32 at which one object of 100 is smaller than VANISHING; at least `imgsz`."""
    if not len(sides):
        return imgsz
    return max(imgsz, 32 * math.ceil(imgsz * VANISHING / float(np.percentile(sides, 1)) / 32))


def advice(summary: Summary) -> list[str]:
    """What the numbers suggest to do before or with a search: plain sentences, none where there is nothing to say."""
    return [*_on_sizes(summary), *_on_classes(summary)]


def _on_sizes(summary: Summary) -> list[str]:
    sides, imgsz, total = summary.sides, summary.imgsz, summary.splits["train"].boxes
    if sides is None:
        return []
    told = []
    if summary.vanishing > 0.01 * total:
        lost = f"{summary.vanishing} of {total} objects are smaller than {VANISHING} pixels at --imgsz {imgsz} and vanish"
        remedy = f"--imgsz {summary.enough_imgsz} would keep 99 of 100"
        if summary.enough_imgsz > min(LARGEST_IMGSZ, 2 * summary.long_side):
            remedy = "cut the images into tiles, or leave these objects out"
        told.append(f"{lost}; {remedy}")
    if summary.levels == "2-5":
        small = f"a quarter of the objects is smaller than {sides.p25:.0f} pixels at --imgsz {imgsz}"
        told.append(
            f"{small}: a level of stride 4 (P2) sees them better; gpnas search takes levels 2-5, if the limits allow them"
        )
    if summary.levels == "3-6":
        remedy = "gpnas search takes levels 3-6 (stride 64 too), if the limits allow them"
        told.append(f"many objects are very large at --imgsz {imgsz}: {remedy}")
    if summary.long_side >= MUCH_LARGER * imgsz and sides.p25 < SMALL:
        shrink = f"the images shrink to 1/{summary.long_side / imgsz:.0f} of their size at --imgsz {imgsz}"
        told.append(f"{shrink}, and their objects are small; a larger --imgsz, or images cut into tiles, would show more")
    return told


def _on_classes(summary: Summary) -> list[str]:
    told = []
    train = {facts.name: facts.boxes["train"] for facts in summary.classes}
    without = [name for name, count in train.items() if count == 0]
    if without:
        told.append(f"no box in train: {_list(without)}; such a class cannot be learned")
    few = {name: count for name, count in train.items() if 0 < count < FEW_BOXES}
    if few:
        told.append(f"fewer than {FEW_BOXES} boxes in train: {_list(_counted(few))}; label more of them, or join classes")
    unseen = [facts.name for facts in summary.classes if facts.boxes["train"] and not facts.boxes["val"]]
    if unseen:
        told.append(f"no box in val: {_list(unseen)}; AP says nothing of such a class: --split divides the images by class")
    enough = {name: count for name, count in train.items() if count >= FEW_BOXES}
    if enough and max(enough.values()) >= UNEVEN * min(enough.values()):
        most, least = max(enough, key=lambda name: enough[name]), min(enough, key=lambda name: enough[name])
        ratio = enough[most] / enough[least]
        told.append(
            f"{most} has {ratio:.0f} times as many boxes as {least}; look at the AP of each class, not at the mean alone"
        )
    judged = summary.splits["val"].boxes
    if judged < FEW_JUDGED:
        told.append(
            f"val has only {judged} boxes, so that AP differs by chance; label more, or give it a larger share by --split"
        )
    return told


def _counted(counts: Mapping[str, int]) -> list[str]:
    return [f"{name} ({count})" for name, count in sorted(counts.items(), key=lambda item: item[1])]


def _list(names: Sequence[Any], most: int = 10) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
