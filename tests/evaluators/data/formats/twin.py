"""One small data set, to be written in the layout of any format and read back with the same boxes.

    root = write_voc(tmp_path, example())
    assert_same(read_voc(tree, find_voc(tree)), example())

`twin_data()` draws such data sets for hypothesis.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import strategies as st

from evaluators.data.annotations import NO_SPLIT, RawData
from evaluators.data.clean import clean_records
from evaluators.data.problems import Findings

Box = tuple[int, float, float, float, float]
"""Label, an index into the names of the classes, and x1, y1, x2, y2 in pixels."""

NamedBox = tuple[str, float, float, float, float]


@dataclass(frozen=True)
class TwinImage:
    """file: a name without folders, unlike that of any other image of the data set."""

    file: str
    width: int
    height: int
    boxes: list[Box]


@dataclass(frozen=True)
class TwinData:
    """splits: "train", "val", "test"; or all images under "" (no split)."""

    names: tuple[str, ...]
    splits: dict[str, list[TwinImage]]

    @property
    def images(self) -> list[TwinImage]:
        return [image for images in self.splits.values() for image in images]

    @property
    def used_names(self) -> tuple[str, ...]:
        """The names of the classes that have a box, in alphabetical order."""
        return tuple(sorted({self.names[box[0]] for image in self.images for box in image.boxes}))

    def without_split(self) -> TwinData:
        return TwinData(self.names, {NO_SPLIT: self.images})


def example() -> TwinData:
    """Three images for training and two for validation, one of them without boxes; no box is square."""
    return TwinData(
        names=("cat", "dog", "traffic light"),
        splits={
            "train": [
                TwinImage("street.png", 120, 80, [(2, 10, 5, 30, 45), (0, 60, 30, 118, 79)]),
                TwinImage("two dogs.jpg", 90, 110, [(1, 3, 4, 40, 100), (1, 41, 7, 88, 60)]),
                TwinImage("sky.png", 100, 60, []),
            ],
            "val": [
                TwinImage("park.v2.jpg", 64, 96, [(0, 0, 0, 20, 50)]),
                TwinImage("yard.png", 130, 70, [(1, 100, 20, 130, 70), (0, 8, 9, 25, 33)]),
            ],
        },
    )


def write_image(path: Path, width: int, height: int, seed: int) -> Path:
    """An image file whose content no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
    assert cv2.imwrite(str(path), pixels)
    return path


def boxes_of(data: TwinData) -> dict[str, dict[str, list[NamedBox]]]:
    """The boxes of each image of each split, sorted."""
    return {
        split: {image.file: sorted((data.names[box[0]], *box[1:]) for box in image.boxes) for image in images}
        for split, images in data.splits.items()
    }


def boxes_read(raw: RawData) -> dict[str, dict[str, list[NamedBox]]]:
    """The boxes of each image of each split, sorted, after the data set was cleaned."""
    splits, _ = clean_records(raw, Findings())
    return {
        split: {
            record.path.name: sorted(
                (raw.names[label], *map(float, box)) for label, box in zip(record.classes, record.boxes, strict=True)
            )
            for record in records
        }
        for split, records in splits.items()
    }


def boxes(raw: RawData, split: str = NO_SPLIT) -> list[list[float]]:
    """The corners of the boxes of a split as a reader gave them."""
    return raw.splits[split].xyxy.tolist()


def paths(raw: RawData, split: str = NO_SPLIT) -> list[str]:
    """The names of the images of a split as a reader gave them."""
    return [image.path.name for image in raw.splits[split].images]


def assert_same(raw: RawData, data: TwinData, tolerance: float = 0.5) -> None:
    """Same splits, images, classes and boxes, up to `tolerance` pixels; and nothing had to be mended."""
    cleaned = Findings()
    clean_records(raw, cleaned)
    assert raw.found.counts == {} and cleaned.counts == {}
    read, wanted = boxes_read(raw), boxes_of(data)
    assert {split: set(images) for split, images in read.items()} == {split: set(images) for split, images in wanted.items()}
    for split, images in wanted.items():
        for file, boxes in images.items():
            _assert_near(read[split][file], boxes, tolerance, f"{split}/{file}")


def _assert_near(read: list[NamedBox], wanted: list[NamedBox], tolerance: float, where: str) -> None:
    """Each wanted box has its own box among those that were read; neighbours may have changed places by rounding."""
    left = list(read)
    for name, *xyxy in wanted:
        match = next((box for box in left if box[0] == name and box[1:] == pytest.approx(xyxy, abs=tolerance + 1e-3)), None)
        assert match is not None, f"{where} has no box {name} {xyxy}, but {left}"
        left.remove(match)
    assert not left, f"{where} has the further boxes {left}"


@st.composite
def twin_data(draw: st.DrawFn, *, splits: bool = True, empty_images: bool = True) -> TwinData:
    """Any small data set. Boxes have sides of two pixels and more, and stay different when they are rounded.

    splits: whether it may have splits. empty_images: whether an image may have no boxes.
    """
    word = st.text("abzéß中&<>,;:'\"-_. ", min_size=1, max_size=8).filter(lambda text: text == text.strip() and text != ".")
    names = tuple(draw(st.lists(word, min_size=1, max_size=4, unique=True)))
    listed = draw(st.sampled_from([("train", "val"), ("train", "val", "test"), (NO_SPLIT,)])) if splits else (NO_SPLIT,)
    styles = st.sampled_from(["{}.png", "{}.jpg", "a b {}.png", "c.d.{}.jpg", "é{}.png"])
    numbers = iter(range(100))
    return TwinData(
        names,
        {
            split: [
                draw(_images(draw(styles).format(next(numbers)), len(names), empty_images))
                for _ in range(draw(st.integers(1, 3)))
            ]
            for split in listed
        },
    )


@st.composite
def _images(draw: st.DrawFn, file: str, classes: int, may_be_empty: bool) -> TwinImage:
    width, height = draw(st.integers(10, 90)), draw(st.integers(10, 90))
    corners = st.tuples(
        st.integers(0, classes - 1),
        st.integers(0, width - 2),
        st.integers(0, height - 2),
        st.integers(2, width),
        st.integers(2, height),
    ).filter(lambda box: box[3] - box[1] >= 2 and box[4] - box[2] >= 2)
    boxes = draw(st.lists(corners, min_size=0 if may_be_empty else 1, max_size=4, unique=True))
    shift = st.floats(-0.4, 0.4).map(lambda value: round(value, 2))

    def moved(box: tuple[int, int, int, int, int]) -> Box:
        label, x1, y1, x2, y2 = box
        xs = (min(max(x + draw(shift), 0.0), float(width)) for x in (x1, x2))
        ys = (min(max(y + draw(shift), 0.0), float(height)) for y in (y1, y2))
        (left, right), (top, bottom) = xs, ys
        return label, left, top, right, bottom

    return TwinImage(file, width, height, [moved(box) for box in boxes])
