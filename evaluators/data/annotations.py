"""What annotation files say, before anything is checked: the images of a split, and a table of their boxes.

    split = Annotations()
    image = split.add_image(Path("a.jpg"), 640, 480)
    split.add_box(image, 0, (10, 20, 30, 40), "a.xml, object 1")
    RawData(names=("cat",), splits={"train": split, "val": other})

Every reader of `evaluators.data.formats` returns a RawData; `evaluators.data.clean` turns it into records.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluators.data.problems import Findings

NO_SPLIT = ""
"""The name of the only split of a data set whose files do not say what is for training and what for validation."""


class AnnotatedImage(NamedTuple):
    """An image as its annotations describe it.

    path: the file, which may be missing. width, height: pixels; 0 where the annotations do not tell them. key: the id that the
    annotation file gives the image; None where it gives none.
    """

    path: Path
    width: int
    height: int
    key: int | str | None


class Annotations:
    """The images and boxes of one split. Boxes lie in columns, because a data set may have a million of them.

    relative: whether the numbers of its boxes are shares of the image's width and height, and no pixels.
    """

    def __init__(self, *, relative: bool = False) -> None:
        self.relative = relative
        self.images: list[AnnotatedImage] = []
        self._corners = array("d")
        self._image = array("q")
        self._label = array("q")
        self._crowd = array("b")
        self._area = array("d")
        self._where: list[str] = []

    def add_image(self, path: Path, width: int = 0, height: int = 0, key: int | str | None = None) -> int:
        """Add an image; returns its number, which `add_box` takes."""
        self.images.append(AnnotatedImage(path, width, height, key))
        return len(self.images) - 1

    def add_box(
        self,
        image: int,
        label: int,
        xyxy: Sequence[float],
        where: str,
        *,
        crowd: bool = False,
        area: float = math.nan,
    ) -> None:
        """Add a box.

        label: index into the names of the classes. xyxy: x1, y1, x2, y2; what is no number is math.nan. where: the place in
        the annotation files, for messages, such as "a.xml, object 3". crowd: whether it is a box around many objects.
        area: of the object's outline in pixels, where the file tells it.
        """
        self._corners.extend(xyxy)
        self._image.append(image)
        self._label.append(label)
        self._crowd.append(crowd)
        self._area.append(area)
        self._where.append(where)

    def __len__(self) -> int:
        """The number of boxes."""
        return len(self._image)

    def relabel(self, new: Sequence[int]) -> None:
        """Give each box of class i the class new[i]."""
        self._label = array("q", np.asarray(new, dtype=np.int64)[self.labels].tolist())

    @property
    def xyxy(self) -> NDArray[np.float64]:
        return np.array(self._corners, dtype=np.float64).reshape(-1, 4)

    @property
    def image_of_box(self) -> NDArray[np.int64]:
        return np.array(self._image, dtype=np.int64)

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.array(self._label, dtype=np.int64)

    @property
    def crowds(self) -> NDArray[np.bool_]:
        return np.array(self._crowd, dtype=np.bool_)

    @property
    def areas(self) -> NDArray[np.float64]:
        return np.array(self._area, dtype=np.float64)

    def where(self, box: int) -> str:
        return self._where[box]


@dataclass
class RawData:
    """A data set as its files tell it.

    names: of the classes, in the order of their indices. splits: "train", "val", "test"; or all images under NO_SPLIT.
    category_ids: the id of each class where the files have ids of their own (COCO); empty otherwise. lines: number of lines
    that were read from label files of one box a line. found: problems that a reader met. notes: sentences for the user.
    """

    names: tuple[str, ...]
    splits: dict[str, Annotations]
    category_ids: tuple[int, ...] = ()
    lines: int = 0
    found: Findings = field(default_factory=Findings)
    notes: list[str] = field(default_factory=list)


class ClassNames:
    """The classes of a data set whose boxes carry names: numbered as they come, and sorted in the end."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    def sort(self, splits: Iterable[Annotations], listed: Iterable[str] = ()) -> tuple[str, ...]:
        """The names in the order in which the files list them, or in alphabetical order where these list none; the labels of
        all `splits` are changed to that order. A list must have all names."""
        names = tuple(listed) or tuple(sorted(self._numbers))
        new = [names.index(name) for name in self._numbers]
        for split in splits:
            split.relabel(new)
        return names
