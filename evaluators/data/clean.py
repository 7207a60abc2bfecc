"""From what annotation files say to records: sizes of images, boxes in pixels, and what is wrong mended and counted.

A box that leaves its image is cut. A box without area, with reversed corners, with a number that is not finite, or that stands
there twice is left out, and so is an image whose file is missing or has no readable header. `problems.py` says what of this is
too much.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from evaluators.data.annotations import AnnotatedImage, Annotations, RawData
from evaluators.data.images import HEADER_THREADS, image_size
from evaluators.data.problems import EXAMPLES, Findings, Kind
from evaluators.data.records import Record
from gpnas.errors import DataError

ROUNDING = 1.0
"""Pixels by which a box may leave its image without being counted, because annotation tools round."""

Sizes = NDArray[np.int64]
"""(images, 2): width and height of each image in pixels; 0 and 0 for an image that is left out."""


def clean_records(raw: RawData, found: Findings) -> tuple[dict[str, tuple[Record, ...]], dict[str, int]]:
    """The records of each split, and the number of boxes and images that its files name, those that are left out included.

    Problems are added to `found`.
    """
    splits: dict[str, tuple[Record, ...]] = {}
    before = sum(found.counts.get(kind, 0) for kind in (Kind.MISSING, Kind.UNREADABLE))  # images that a reader left out
    totals = {"box": found.counts.get(Kind.NO_IMAGE, 0), "image": before, "line": raw.lines}
    first_key = 1
    for name, split in raw.splits.items():
        splits[name] = _records(split, first_key, found)
        first_key += len(split.images)
        totals["box"] += len(split)
        totals["image"] += len(split.images)
    return splits, totals


def _records(annotations: Annotations, first_key: int, found: Findings) -> tuple[Record, ...]:
    """The records of a split; images without an id of their own are numbered from `first_key`."""
    images = annotations.images
    if not images:
        return ()
    sizes = _sizes(images, annotations.relative, found)
    boxes, areas_of_boxes, kept = _clean_boxes(annotations, sizes, found)
    image_of_box = annotations.image_of_box[kept]
    order = np.argsort(image_of_box, kind="stable")
    kept, boxes, areas_of_boxes = kept[order], boxes[order], areas_of_boxes[order]
    labels, crowds = annotations.labels[kept], annotations.crowds[kept]
    told = annotations.areas[kept]
    areas = np.where(np.isfinite(told) & (told > 0), told, areas_of_boxes).astype(np.float32)
    counts = np.bincount(image_of_box, minlength=len(images))
    ends = np.cumsum(counts)
    starts = ends - counts
    return tuple(
        Record(
            image_id=first_key + i if image.key is None else image.key,
            width=int(sizes[i, 0]),
            height=int(sizes[i, 1]),
            boxes=boxes[start:end],
            classes=labels[start:end],
            path=image.path,
            crowd=crowds[start:end],
            areas=areas[start:end],
        )
        for i, (image, start, end) in enumerate(zip(images, starts, ends, strict=True))
        if sizes[i, 0]
    )


def _sizes(images: Sequence[AnnotatedImage], read_all: bool, found: Findings) -> Sizes:
    """The size of each image: what its annotations say, or what the header of its file says."""

    def size(image: AnnotatedImage) -> tuple[int, int] | Kind:
        if not os.path.isfile(image.path):
            return Kind.MISSING
        if image.width and image.height and not read_all:
            return image.width, image.height
        try:
            return image_size(image.path)
        except DataError:
            return Kind.UNREADABLE

    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        sizes = list(pool.map(size, images)) if read_all else list(map(size, images))
    for image, result in zip(images, sizes, strict=True):
        if isinstance(result, Kind):
            found.add(result, str(image.path))
    return np.array([(0, 0) if isinstance(result, Kind) else result for result in sizes], dtype=np.int64)


def _clean_boxes(
    annotations: Annotations, sizes: Sizes, found: Findings
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]:
    """The boxes that stay, (n, 4), xyxy in pixels inside of their image, their areas and their numbers in `annotations`."""
    of_image = annotations.image_of_box
    numbers = np.flatnonzero(sizes[of_image, 0] > 0)
    of_image = of_image[numbers]
    size = sizes[of_image][:, [0, 1, 0, 1]].astype(np.float64)  # (n, 4)
    boxes = annotations.xyxy[numbers] * (size if annotations.relative else 1.0)
    finite = np.asarray(np.isfinite(boxes).all(axis=1))
    boxes = np.where(finite[:, None], boxes, 0.0)
    sides = boxes[:, 2:] - boxes[:, :2]
    exact = np.clip(boxes, 0, size)
    cut = exact.astype(np.float32)
    inside = (cut[:, 2:] > cut[:, :2]).all(axis=1)
    overhang = np.maximum(-boxes, boxes - size).max(axis=1, initial=0.0)
    # Each box has the first problem that fits it.
    reversed_ = (sides < 0).any(axis=1)
    no_area = (sides == 0).any(axis=1) | ((cut[:, 2:] == cut[:, :2]).any(axis=1) & (overhang <= 0))
    repeated = _repeated(of_image, annotations.labels[numbers], annotations.crowds[numbers], cut)
    checks = (
        (Kind.NOT_FINITE, ~finite),
        (Kind.REVERSED, reversed_),
        (Kind.NO_AREA, no_area),
        (Kind.OUTSIDE, ~inside),
        (Kind.REPEATED, repeated),
    )
    left = np.ones(len(numbers), dtype=np.bool_)
    for kind, has_problem in checks:
        _tell(annotations, numbers[left & has_problem], boxes[left & has_problem], kind, found)
        left &= ~has_problem
    is_cut = left & (overhang > ROUNDING)
    _tell(annotations, numbers[is_cut], boxes[is_cut], Kind.CUT, found)
    areas = (exact[left, 2] - exact[left, 0]) * (exact[left, 3] - exact[left, 1])
    return cut[left], areas, numbers[left]


def _repeated(
    image: NDArray[np.int64], label: NDArray[np.int64], crowd: NDArray[np.bool_], boxes: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Whether an equal box of the same class stands in the same image before."""
    order = np.lexsort((np.arange(len(image)), *boxes.T, crowd, label, image))
    columns = (image, label, crowd, *boxes.T)
    same = np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in columns])
    repeated: NDArray[np.bool_] = np.isin(np.arange(len(image)), order[1:][same])
    return repeated


def _tell(
    annotations: Annotations, numbers: NDArray[np.int64], boxes: NDArray[np.float64], kind: Kind, found: Findings
) -> None:
    """Count boxes with a problem, and say where the first ones stand and what they are."""
    texts = [annotations.where(i) for i in numbers[:EXAMPLES].tolist()]
    if kind is not Kind.NOT_FINITE:
        shown = zip(texts, boxes[:EXAMPLES].tolist(), strict=True)
        texts = [f"{where} [{', '.join(f'{v:.6g}' for v in box)}]" for where, box in shown]
    found.add_all(kind, len(numbers), texts)
