"""One text file of boxes for each image, as YOLO trainers read them: with a data.yaml, or as darknet keeps them.

    path: pets                       # data.yaml; optional; relative to its folder
    train: images/train              # a folder, a .txt list of images, or a list of these
    val: images/val
    names: [cat, dog]                # or a mapping from 0, 1, 2, ...

Without a data.yaml the names of the classes stand in classes.txt, obj.names or _darknet.labels, a line each. The boxes of
images/train/a.jpg stand in labels/train/a.txt, or in a.txt beside it. A line is `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3
...`, a polygon, of which the bounding box is taken; all lengths are shares of the image's width and height. Where the data.yaml
has a kpt_shape, the box comes first and its key points are left out.
"""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from evaluators.data.annotations import Annotations, RawData
from evaluators.data.images import IMAGE_SUFFIXES, images_below
from evaluators.data.problems import Kind
from evaluators.data.records import SPLITS
from evaluators.data.tree import Tree, split_of
from gpnas.errors import DataError

_MOST_YAML_BYTES = 2**20
_CLASS_FILES = frozenset({"classes.txt", "obj.names", "_darknet.labels"})
_LISTS = {"train.txt": "train", "val.txt": "val", "valid.txt": "val", "test.txt": "test"}
_PROBED = 50
"""Text files that are read to see whether they are labels."""


def find_data_yaml(tree: Tree) -> list[Path]:
    """The YAML files that say where images lie, and what the classes are; other YAML files are left alone."""
    found = [file for file in tree.files(".yaml", ".yml") if _is_data_yaml(file)]
    named = [file for file in found if file.name == "data.yaml"] or found
    return [file for file in named if file.parent == tree.root] or named


def _is_data_yaml(file: Path) -> bool:
    """By what the file holds; a file called data.yaml is one in any case, so that its faults are told."""
    if file.name in ("data.yaml", "data.yml"):
        return True
    try:
        if file.stat().st_size > _MOST_YAML_BYTES:
            return False
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError, RecursionError):
        return False
    return isinstance(settings, dict) and bool(settings.keys() & {"names", "nc"}) and bool(settings.keys() & {*SPLITS, "valid"})


def read_data_yaml(tree: Tree, files: Sequence[Path]) -> RawData:
    """Raises DataError, naming the file, and the key or the line, for what is missing or wrong."""
    if len(files) > 1:
        two = " and ".join(map(tree.told, files[:2]))
        raise DataError(f"{tree.root} has two descriptions, {two}; give the path of one of them")
    file = files[0]
    settings = _settings(file)
    names = _class_names(file, settings)
    raw = RawData(names, {})
    labels = _LabelFiles(tree, raw, has_key_points="kpt_shape" in settings)
    for split in SPLITS:
        value = settings.get(split) or (settings.get("valid") if split == "val" else None)
        if not value:
            continue
        images = _image_files(file, settings, split, value if isinstance(value, list) else [value], raw)
        if images is not None:
            raw.splits[split] = labels.read(images)
    if "train" not in raw.splits:
        raise DataError(f"{file} has no train split; add the key 'train' with a folder or a .txt list of images")
    labels.finish()
    return raw


def _settings(file: Path) -> Mapping[str, Any]:
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise DataError(f"{file} is not valid YAML ({' '.join(str(error).split())}); correct it") from error
    if not isinstance(settings, dict):
        raise DataError(f"{file} holds no keys; give path, train, val and names")
    return settings


def _class_names(file: Path, settings: Mapping[str, Any]) -> tuple[str, ...]:
    listed = settings.get("names")
    if isinstance(listed, dict) and sorted(listed, key=str) == sorted(range(len(listed)), key=str):
        listed = [listed[i] for i in range(len(listed))]
    if not isinstance(listed, list) or not listed:
        raise DataError(f"{file} has the names {listed!r}; give a list of class names, or a mapping from 0, 1, 2, ...")
    names = _checked_names(file, [str(name) for name in listed])
    if settings.get("nc", len(names)) != len(names):
        raise DataError(f"{file} has nc {settings['nc']} but {len(names)} names; correct or remove nc")
    return names


def _checked_names(file: Path, names: Sequence[str]) -> tuple[str, ...]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{file} names the class '{repeated[0]}' twice; give each class a name of its own")
    return tuple(names)


def _image_files(file: Path, settings: Mapping[str, Any], split: str, values: Sequence[Any], raw: RawData) -> list[Path] | None:
    """The images of a split: all below each folder, and those in each .txt list. None for a test split that is not there."""
    images: list[Path] = []
    for value in values:
        sources = [Path(os.path.normpath(root / part)) for root in _roots(file, settings) for part in _spellings(str(value))]
        source = next((source for source in sources if source.exists()), sources[0])
        if source.is_dir():
            images += images_below(source)
        elif source.is_file() and source.suffix == ".txt":
            images += _listed(source)
        elif split == "test" and not source.exists():
            raw.notes.append(f"there is no test split, because {file.name} names the folder {source}, which is not there")
            return None
        else:
            raise DataError(f"{file}: {split} is {source}, no folder and no .txt list; correct the key 'path' or '{split}'")
    return images


def _roots(file: Path, settings: Mapping[str, Any]) -> list[Path]:
    """Where relative folders start: at `path`, seen from the data.yaml. Ultralytics keeps all data sets in one folder, so that
    pets/data.yaml may say `path: pets`; then they start beside the data.yaml."""
    given = Path(os.path.expanduser(str(settings.get("path") or "")))
    return [file.parent / given, file.parent] if given.name == file.parent.name else [file.parent / given]


def _spellings(value: str) -> list[str]:
    """Roboflow writes paths as if data.yaml lay in a folder beside the images."""
    return [value, value.removeprefix("../")] if value.startswith("../") else [value]


def _listed(file: Path) -> list[Path]:
    """The images that a .txt file lists; relative lines start at its folder."""
    lines = [line.strip() for line in _lines(file)]
    return [Path(os.path.normpath(file.parent / line)) for line in lines if line]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (ValueError, OSError) as error:
        raise DataError(f"cannot read {file} as text ({error}); write it in UTF-8") from error


def find_label_files(tree: Tree) -> list[Path]:
    """Text files of boxes that belong to images by their names, for a data set without a data.yaml."""
    files = [file for file in tree.files(".txt") if file.name not in _CLASS_FILES | _LISTS.keys()]
    belonging = [file for file in files if tree.image_of_stem(file) is not None]
    probed = itertools.islice((file for file in belonging if file.stat().st_size), _PROBED)
    return belonging if any(map(_holds_boxes, probed)) else []


def _holds_boxes(file: Path) -> bool:
    try:
        lines = [line for line in _lines(file) if line.strip()]
    except DataError:
        return False
    return bool(lines) and _parsed(lines[0], has_key_points=False) is not None


def read_label_files(tree: Tree, files: Sequence[Path]) -> RawData:
    """The images of a data set without a data.yaml. Raises DataError for what is missing or wrong."""
    raw = RawData(_names_of_class_files(tree, files), {})
    described = {tree.image_of_stem(file): file for file in files}
    labels = _LabelFiles(tree, raw, has_key_points=False, elsewhere=described)
    for split, images in _images_by_split(tree).items():
        raw.splits[split] = labels.read(images)
    labels.finish()
    return raw


def _names_of_class_files(tree: Tree, files: Sequence[Path]) -> tuple[str, ...]:
    """The class names of classes.txt, obj.names or _darknet.labels; several such files must agree."""
    found = [file for file in tree.files(".txt", ".labels", ".names") if file.name in _CLASS_FILES or file.suffix == ".names"]
    if not found:
        raise DataError(
            f"{tree.root} has {len(files)} label files, such as {files[0].name}, but nothing names its classes; add a file "
            f"classes.txt with a name a line"
        )
    named = {file: _checked_names(file, [line.strip() for line in _lines(file) if line.strip()]) for file in found}
    first, *others = found
    for other in others:
        if named[other] != named[first]:
            raise DataError(f"{first} and {other} name other classes; keep one of them")
    if not named[first]:
        raise DataError(f"{first} is empty; write the name of a class on each line")
    return named[first]


def _images_by_split(tree: Tree) -> dict[str, list[Path]]:
    """By the lists train.txt, val.txt and test.txt, where they are there; else by the folders of the images."""
    lists = {_LISTS[file.name]: file for file in tree.files(".txt") if file.name in _LISTS}
    listed = {split: _listed_images(tree, lists[split]) for split in SPLITS if split in lists}
    if listed.get("train"):
        return listed
    images: dict[str, list[Path]] = {}
    for path in tree.images:
        images.setdefault(tree.split_of_folder(path), []).append(path)
    return images


def _listed_images(tree: Tree, file: Path) -> list[Path]:
    """The images of a list; its lines may start anywhere (darknet writes data/obj/a.jpg, as seen from its own folder)."""
    names = [line.strip() for line in _lines(file) if line.strip()]
    return [tree.image_named(name, file, split_of(Path(file.name))) for name in names]


class _LabelFiles:
    """Reads label files into a RawData, and collects the classes that nobody named, and labels without an image.

    elsewhere: the label files of images whose labels lie in no usual place.
    """

    def __init__(
        self, tree: Tree, raw: RawData, *, has_key_points: bool, elsewhere: Mapping[Path | None, Path] = MappingProxyType({})
    ) -> None:
        self.tree, self.raw, self.has_key_points, self.elsewhere = tree, raw, has_key_points, elsewhere
        self.unknown: Counter[str] = Counter()
        self.first_unknown = ""
        self.image_folders: dict[Path, set[Path]] = {}  # by the folder of their label files

    def read(self, images: Sequence[Path]) -> Annotations:
        annotations = Annotations(relative=True)
        for path in images:
            number = annotations.add_image(path)
            file = _label_file(path) or self.elsewhere.get(path)
            if file is not None:
                self.image_folders.setdefault(file.parent, set()).add(path.parent)
                self._read_file(annotations, number, file)
        return annotations

    def _read_file(self, annotations: Annotations, image: int, file: Path) -> None:
        where = self.tree.told(file)
        for number, line in enumerate(_lines(file), 1):
            if not line.strip():
                continue
            self.raw.lines += 1
            place = f"{where}, line {number}"
            parsed = _parsed(line, self.has_key_points)
            if parsed is None:
                self.raw.found.add(Kind.NOT_A_LINE, f"{place} '{line.strip():.60}'")
            elif not 0 <= parsed[0] < len(self.raw.names):
                self.unknown[str(parsed[0])] += 1
                self.first_unknown = self.first_unknown or place
            else:
                annotations.add_box(image, parsed[0], parsed[1], place)

    def finish(self) -> None:
        """Count the label files whose image is gone. Raises DataError when a box has a class without a name."""
        for folder, image_folders in self.image_folders.items():
            beside = (path for images in image_folders for path in images.iterdir())
            stems = {path.stem for path in beside if path.suffix.lower() in IMAGE_SUFFIXES}
            for file in sorted(folder.glob("*.txt")):
                if file.stem not in stems and file.name not in _CLASS_FILES | _LISTS.keys() and _holds_boxes(file):
                    self.raw.found.add(Kind.MISSING, f"that of {file}")
        if self.unknown:
            told = ", ".join(f"{label} ({count} boxes)" for label, count in self.unknown.most_common(5))
            last = len(self.raw.names) - 1
            raise DataError(
                f"{self.first_unknown}: class {told} out of the range 0 to {last}; correct the labels or add names of classes"
            )


def _parsed(line: str, has_key_points: bool) -> tuple[int, tuple[float, float, float, float]] | None:
    """The class of a line, and its box as shares of the image, xyxy; None for what is no label."""
    try:
        label, *numbers = map(float, line.split())
        box = _corners(numbers[:4] if has_key_points else numbers)
    except ValueError:
        return None
    return (int(label), box) if label.is_integer() else None


def _corners(numbers: Sequence[float]) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of `cx cy w h` or of a polygon. Raises ValueError for another count of numbers."""
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        xs, ys = numbers[::2], numbers[1::2]
        if not all(map(math.isfinite, numbers)):
            return math.nan, math.nan, math.nan, math.nan
        return min(xs), min(ys), max(xs), max(ys)
    cx, cy, w, h = numbers
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def _label_file(image: Path) -> Path | None:
    """The label file of an image; None for an image without one.

    It has the image's path with the last folder named `images` (or `JPEGImages`) replaced by `labels`, or lies beside the
    image, or in a folder `labels` beside the image's folder.
    """
    name = f"{image.stem}.txt"
    places = [image.parent, image.parent.parent / "labels"]
    parts = list(image.parent.parts)
    for folder in ("images", "JPEGImages"):
        if folder in parts:
            at = len(parts) - 1 - parts[::-1].index(folder)
            places.insert(0, Path(*parts[:at], "labels", *parts[at + 1 :]))
    return next((place / name for place in places if (place / name).is_file()), None)
