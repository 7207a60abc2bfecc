"""FiftyOne's exports (docs.voxel51.com, "Exporting FiftyOne Datasets"): FiftyOneImageDetectionDataset and FiftyOneDataset.

    labels.json     {"classes": ["cat"], "labels": {"a": [{"label": 0, "bounding_box": [x, y, width, height]}], "b": null}}
    data/a.jpg

    samples.json    {"samples": [{"filepath": "data/a.jpg", "tags": ["train"], "ground_truth": {"_cls": "Detections",
                    "detections": [{"label": "cat", "bounding_box": [x, y, width, height]}]}}]}
    metadata.json   {"classes": {"ground_truth": ["cat"]}, "default_classes": []}

Coordinates are shares of the image's width and height. An image whose label is null is not labelled and is left out; one with
an empty list shows no object.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluators.data.annotations import NO_SPLIT, Annotations, ClassNames, RawData
from evaluators.data.formats.json_files import has_keys, mentions, read_json, top_level
from evaluators.data.formats.numerals import number, pixels
from evaluators.data.tree import Tree, split_of
from gpnas.errors import DataError

_PREFERRED = ("ground_truth", "detections")
"""The field with the labels, where samples have several."""


@dataclass
class _Reading:
    """What is known while the files are read. classes: those that the files list. used: number of boxes of each label."""

    tree: Tree
    splits: dict[str, Annotations] = field(default_factory=dict)
    classes: dict[str, None] = field(default_factory=dict)
    used: Counter[str] = field(default_factory=Counter)
    names: ClassNames = field(default_factory=ClassNames)
    not_labelled: list[str] = field(default_factory=list)


def find_fiftyone(tree: Tree) -> list[Path]:
    """The files labels.json and samples.json in the tree, under whatever names."""
    return [file for file in tree.files(".json") if _is_labels(file) or _is_samples(file)]


def _is_labels(file: Path) -> bool:
    top = top_level(file)
    if top is None or top.kind != "object" or not has_keys(file, "classes", "labels"):
        return False
    return top.keys.get("classes", "list") in ("list", "null") and top.keys.get("labels", "object") == "object"


def _is_samples(file: Path) -> bool:
    top = top_level(file)
    return top is not None and top.kind == "object" and top.keys.get("samples") == "list" and mentions(file, "filepath")


def read_fiftyone(tree: Tree, files: list[Path]) -> RawData:
    """The labelled images of all `files`. Raises DataError for labels that are not among the classes, for samples with several
    fields of detections and none of them called ground_truth or detections, and for tags of two splits."""
    reading = _Reading(tree)
    for file in files:
        content = read_json(file)
        if _is_samples(file):
            _read_samples(content, file, reading)
        else:
            _read_labels(content, file, reading)
    told = ", ".join(reading.tree.told(file) for file in files)
    if not reading.splits:
        raise DataError(f"{told}: no image has labels; export the field that holds them")
    _check_classes(told, reading)
    names = reading.names.sort(reading.splits.values(), listed=reading.classes)
    return RawData(names, reading.splits, notes=_notes(reading.not_labelled))


def _read_labels(content: Mapping[str, Any], file: Path, reading: _Reading) -> None:
    told, classes = reading.tree.told(file), content["classes"] or []
    if not isinstance(classes, list) or not isinstance(content["labels"], dict):
        raise DataError(f"{told} needs a list of classes, or null, and an object of labels; export it again")
    reading.classes.update(dict.fromkeys(map(str, classes)))
    images = _images_by_stem(file, reading.tree)
    of_file = split_of(file.relative_to(reading.tree.root))
    for stem, detections in content["labels"].items():
        if detections is None:
            reading.not_labelled.append(f"{told}, image {stem}")
            continue
        path = _one_image(images.get(stem, []), file, stem, told)
        annotations = reading.splits.setdefault(of_file or reading.tree.split_of_folder(path), Annotations(relative=True))
        image = annotations.add_image(path)
        _add_boxes(detections, classes, annotations, image, f"{told}, image {stem}", reading)


def _images_by_stem(file: Path, tree: Tree) -> dict[str, list[Path]]:
    """The images below data/, beside `file`, by their paths there without suffix; where there is no data/, all below the folder
    of `file`, by their names without suffix."""
    data = file.parent / "data"
    named: dict[str, list[Path]] = {}
    for path in tree.images:
        if path.is_relative_to(data):
            named.setdefault((path.relative_to(data).parent / path.stem).as_posix(), []).append(path)
    if named:
        return named
    for path in tree.images:
        if path.is_relative_to(file.parent):
            named.setdefault(path.stem, []).append(path)
    return named


def _one_image(found: list[Path], file: Path, stem: str, told: str) -> Path:
    if len(found) > 1:
        raise DataError(f"{told} has the image {stem}, which may be {found[0]} or {found[1]}; remove one of them")
    return found[0] if found else file.parent / "data" / stem


def _read_samples(content: Mapping[str, Any], file: Path, reading: _Reading) -> None:
    told, samples = reading.tree.told(file), content["samples"]
    for position, sample in enumerate(samples, 1):
        if not isinstance(sample, dict) or not isinstance(sample.get("filepath"), str):
            raise DataError(f"{told}, sample {position} has no filepath; export it again")
    chosen = _label_field(samples, told)
    classes = _listed_classes(file, chosen)
    reading.classes.update(dict.fromkeys(classes))
    of_file = split_of(file.relative_to(reading.tree.root))
    for sample in samples:
        where = f"{told}, image {sample['filepath']}"
        label = sample.get(chosen)
        if not isinstance(label, dict):
            reading.not_labelled.append(where)
            continue
        split = _split_of_tags(sample.get("tags"), where)
        path = reading.tree.image_named(sample["filepath"], file, split)
        split = split or reading.tree.split_of_folder(path) or of_file
        annotations = reading.splits.setdefault(split, Annotations(relative=True))
        size = sample.get("metadata") if isinstance(sample.get("metadata"), dict) else {}
        image = annotations.add_image(path, pixels(size.get("width")), pixels(size.get("height")))
        _add_boxes(label.get("detections") or [], classes, annotations, image, where, reading)


def _label_field(samples: list[dict[str, Any]], told: str) -> str:
    """The field of a sample that holds its detections."""
    fields = {
        key: None
        for sample in samples
        for key, value in sample.items()
        if isinstance(value, dict) and value.get("_cls") == "Detections"
    }
    if not fields:
        raise DataError(f"{told}: no sample has a field of Detections; export the field with the boxes")
    preferred = [name for name in _PREFERRED if name in fields]
    if not preferred and len(fields) > 1:
        listed = ", ".join(fields)
        raise DataError(f"{told}: the samples have several fields of Detections, {listed}; export one, or call it ground_truth")
    return (preferred or list(fields))[0]


def _listed_classes(file: Path, chosen: str) -> list[str]:
    """The classes of a field by metadata.json, which may be missing; an empty list where none are listed."""
    beside = file.parent / "metadata.json"
    metadata = read_json(beside) if beside.is_file() else {}
    if not isinstance(metadata, dict):
        return []
    by_field = metadata.get("classes")
    classes = (by_field.get(chosen) if isinstance(by_field, dict) else None) or metadata.get("default_classes")
    return [str(name) for name in classes] if isinstance(classes, list) else []


def _split_of_tags(tags: Any, where: str) -> str:
    """The split that a tag names. Tags of several words, such as "needs validation", speak of something else."""
    words = [tag.lower() for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
    named = {split_of(Path(word)) for word in words if re.fullmatch(r"[a-z]+[_-]?\d*", word)} - {NO_SPLIT}
    if len(named) > 1:
        raise DataError(f"{where} has tags of several splits, {', '.join(sorted(named))}; leave one")
    return named.pop() if named else NO_SPLIT


def _add_boxes(
    detections: Any, classes: list[Any], annotations: Annotations, image: int, where: str, reading: _Reading
) -> None:
    if not isinstance(detections, list) or not all(isinstance(detection, dict) for detection in detections):
        raise DataError(f"{where} has labels that are no list of detections; export it as detections")
    for position, detection in enumerate(detections, 1):
        at = f"{where}, box {position}"
        label = _label(detection.get("label"), classes, at)
        reading.used[label] += 1
        crowd = bool(_attribute(detection, "iscrowd"))
        annotations.add_box(image, reading.names.number(label), _corners(detection.get("bounding_box")), at, crowd=crowd)


def _label(label: Any, classes: list[Any], where: str) -> str:
    """The name of a label, which may be an index into the classes."""
    if isinstance(label, int) and not isinstance(label, bool) and classes:
        if not 0 <= label < len(classes):
            raise DataError(f"{where} has the label {label}, but there are {len(classes)} classes; add the class or correct it")
        return str(classes[label])
    if label is None or label == "":
        raise DataError(f"{where} has no label; add it or remove the box")
    return str(label)


def _attribute(detection: Mapping[str, Any], name: str) -> Any:
    """An attribute, as a field of the detection or among its attributes, where older exports wrap its value."""
    attributes = detection.get("attributes")
    value = detection.get(name, attributes.get(name) if isinstance(attributes, dict) else None)
    return value.get("value") if isinstance(value, dict) else value


def _corners(bounding_box: Any) -> list[float]:
    if not isinstance(bounding_box, list) or len(bounding_box) != 4:
        return [math.nan] * 4
    x, y, width, height = map(number, bounding_box)
    return [x, y, x + width, y + height]


def _check_classes(told: str, reading: _Reading) -> None:
    unknown = {name: count for name, count in reading.used.items() if reading.classes and name not in reading.classes}
    if unknown:
        listed = ", ".join(f"{name!r} ({count})" for name, count in sorted(unknown.items()))
        classes = ", ".join(reading.classes)
        raise DataError(f"{told}: boxes have labels that are not among the classes ({classes}): {listed}; add or rename them")


def _notes(not_labelled: list[str]) -> list[str]:
    more = ", ..." if len(not_labelled) > 1 else ""
    return [f"Images without labels were left out: {len(not_labelled)} ({not_labelled[0]}{more})."] if not_labelled else []
