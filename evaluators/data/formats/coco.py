"""COCO's JSON (cocodataset.org, "Data format"), as COCO, Roboflow, CVAT, Label Studio and others lay it out.

    annotations/instances_train2017.json, annotations/instances_val2017.json
    train/_annotations.coco.json, valid/_annotations.coco.json
    annotations/instances_default.json        or        result.json             (no split)

A file is one split, which its name or its folder tells. The classes are the categories of the train file, in the order of their
ids.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evaluators.data.annotations import NO_SPLIT, Annotations, RawData
from evaluators.data.formats.json_files import top_level
from evaluators.data.problems import Findings, Kind
from evaluators.data.records import SPLITS
from evaluators.data.tree import Tree, split_of
from gpnas.errors import DataError

_LISTS = ("images", "annotations", "categories")

_ROBOFLOW = "_annotations.coco.json"

_WITHOUT_BOXES = "image_info_"
"""How the names of COCO's lists of images without annotations begin (image_info_test2017.json)."""


_MOST_PIXELS = 10**6
"""Of a side of an image. What is larger is no size, and is read from the image itself."""


class Box(NamedTuple):
    """What is read of an entry of "annotations"; nothing is checked."""

    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = 0


class CocoFile(NamedTuple):
    """The lists of a COCO file."""

    images: list[dict[str, Any]]
    annotations: list[Any]  # with the attributes of Box
    categories: list[dict[str, Any]]


def find_coco(tree: Tree) -> list[Path]:
    """The JSON files that hold a list of images and one of categories; of a large file, the first of its lists tells."""
    found = [file for file in tree.files(".json") if _is_coco(file)]
    return [file for file in found if not file.name.startswith(_WITHOUT_BOXES)] or found


def _is_coco(file: Path) -> bool:
    top = top_level(file)
    if top is None or top.kind != "object":
        return False
    lists = {key for key, kind in top.keys.items() if key in _LISTS and kind == "list"}
    return {"images", "categories"} <= lists if top.is_complete else bool(lists)


def read_coco(tree: Tree, files: Sequence[Path]) -> RawData:
    """Raises DataError, naming the file and the entry, for what cannot be guessed."""
    by_split = _one_file_a_split(tree, files)
    contents = {split: _parsed(file) for split, file in by_split.items()}
    leader = "train" if "train" in by_split else next(iter(by_split))
    if all(file.name == _ROBOFLOW for file in by_split.values()):
        _drop_project(contents.values())
    names = _category_names(by_split[leader], contents[leader])
    for split, file in by_split.items():
        for category, name in _category_names(file, contents[split]).items():
            if names.get(category, name) != name:
                raise DataError(
                    f"{file} calls category {category} '{name}', {by_split[leader].name} '{names[category]}'; make them agree"
                )
    raw = RawData(tuple(names.values()), {}, tuple(names))
    labels = {category: i for i, category in enumerate(names)}
    for split, file in by_split.items():
        raw.splits[split] = _annotations(tree, split, file, contents[split], labels, raw.found)
    return raw


def _one_file_a_split(tree: Tree, files: Sequence[Path]) -> dict[str, Path]:
    """The annotation file of each split. A file that no name assigns is the train file beside others, or else all there is."""
    grouped: dict[str, list[Path]] = {}
    for file in files:
        grouped.setdefault(split_of(file.relative_to(tree.root)), []).append(file)
    if "train" in grouped or ("val" not in grouped and NO_SPLIT in grouped):
        grouped = {s: f for s, f in grouped.items() if ("train" in grouped) == (s != NO_SPLIT)}
    elif NO_SPLIT in grouped:
        grouped["train"] = grouped.pop(NO_SPLIT)
    chosen = {split: _instances(tree, grouped[split]) for split in (*SPLITS, NO_SPLIT) if split in grouped}
    for split, several in chosen.items():
        if len(several) > 1:
            two = " and ".join(map(tree.told, several[:2]))
            what = f"the {split} split" if split else "its images"
            raise DataError(f"{tree.root} has two files for {what}, {two}; keep one, or give the path of one")
    return {split: several[0] for split, several in chosen.items()}


def _instances(tree: Tree, files: Sequence[Path]) -> Sequence[Path]:
    """COCO keeps boxes in annotations/instances_*.json, beside captions, key points and stuff of the same images."""
    named = [file for file in files if file.name.startswith("instances_")] or files
    return [file for file in named if file.parent == tree.root / "annotations"] or named


def _parsed(file: Path) -> CocoFile:
    """The lists of a COCO file. Of a box only the keys of `Box` are kept: outlines are most of a large file."""
    import msgspec  # late: only COCO files need it

    entry = msgspec.defstruct("Entry", [(key, Any, default) for key, default in Box._field_defaults.items()], gc=False)
    lists = [(key, list[entry] if key == "annotations" else list[dict[str, Any]]) for key in _LISTS]  # type: ignore[valid-type]
    content = msgspec.defstruct("Content", lists)
    try:
        text = file.read_bytes()
        try:
            read: Any = msgspec.json.decode(text, type=content)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:  # NaN and Infinity are no JSON, but Python writes and reads them
            read = msgspec.convert(json.loads(text), type=content)
    except msgspec.ValidationError as error:
        raise DataError(f"{file} has no lists {', '.join(_LISTS)} of objects ({error}); give a COCO detection file") from error
    except (ValueError, OSError, RecursionError) as error:  # ValueError: bad JSON and bad UTF-8
        raise DataError(f"{file} is not valid JSON ({error}); export it again") from error
    return CocoFile(read.images, read.annotations, read.categories)


def _drop_project(contents: Iterable[CocoFile]) -> None:
    """Roboflow lists the project itself as the first category, the parent of all others. Without boxes it is no class."""
    contents = list(contents)
    used = {box.category_id for content in contents for box in content.annotations if isinstance(box.category_id, int)}
    for content in contents:
        first, *others = content.categories or [{}]
        is_parent = first.get("name") and all(category.get("supercategory") == first["name"] for category in others)
        if others and is_parent and first.get("id") not in used:
            content.categories[:] = others


def _category_names(file: Path, content: CocoFile) -> dict[int, str]:
    """The name of each category id, in ascending order of the ids, which is the order of the classes."""
    names: dict[int, str] = {}
    for category in content.categories:
        key, name = category.get("id"), str(category.get("name", ""))
        if not isinstance(key, int) or isinstance(key, bool):
            raise DataError(f"{file}: category {category} has id {key!r}; give an integer")
        if key in names or name in names.values() or not name:
            raise DataError(f"{file}: category id {key} or its name '{name}' is repeated or empty; give each its own")
        names[key] = name
    if not names:
        raise DataError(f"{file} has no categories; list the classes under 'categories'")
    return dict(sorted(names.items()))


def _annotations(
    tree: Tree, split: str, file: Path, content: CocoFile, labels: Mapping[int, int], found: Findings
) -> Annotations:
    """The images and boxes of one file; `labels` maps category ids to class indices."""
    annotations = Annotations()
    where = tree.told(file)
    numbers: dict[Any, int] = {}
    for image in content.images:
        key, name = image.get("id"), image.get("file_name")
        if not isinstance(key, int | str) or isinstance(key, bool):
            raise DataError(f"{file}: image {image} has id {key!r}; give an integer or a text")
        if key in numbers:
            raise DataError(f"{file}: image {key} stands there twice; give each image an id of its own")
        if isinstance(name, str) and name:
            path = tree.image_named(name, file, split)
        else:
            path = file.parent / f"image {key} without a file_name"
        numbers[key] = annotations.add_image(path, _pixels(image.get("width")), _pixels(image.get("height")), key)
    unknown: Counter[str] = Counter()
    for box in content.annotations:
        place = f"{where}: annotation {box.id}"
        try:
            label = labels[box.category_id]
        except (KeyError, TypeError):
            unknown[repr(box.category_id)] += 1
            continue
        try:
            number = numbers[box.image_id]
        except (KeyError, TypeError):
            found.add(Kind.NO_IMAGE, f"{place} of image {box.image_id}")
            continue
        annotations.add_box(number, label, _corners(box.bbox), place, crowd=bool(box.iscrowd), area=_area(box.area))
    if unknown:
        told = ", ".join(f"{category} ({count} boxes)" for category, count in unknown.most_common(5))
        known = ", ".join(str(k) for k in list(labels)[:10])
        raise DataError(f"{file} has boxes of unknown category_id {told}; add them to the train file's categories ({known})")
    return annotations


def _corners(bbox: Any) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of COCO's [x, y, width, height]; NaN for what is no four numbers."""
    try:
        x, y, width, height = bbox
        return float(x), float(y), float(x) + float(width), float(y) + float(height)
    except (TypeError, ValueError, OverflowError):
        return math.nan, math.nan, math.nan, math.nan


def _area(area: Any) -> float:
    try:
        return float(area) if isinstance(area, int | float) else math.nan
    except OverflowError:
        return math.nan


def _pixels(length: Any) -> int:
    """A width or height in pixels; 0 where the file does not tell one that an image can have."""
    return int(length) if isinstance(length, int | float) and 1 <= length <= _MOST_PIXELS else 0
