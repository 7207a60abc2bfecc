"""Label Studio's export "JSON" (labelstud.io, "Label Studio Task Format"), its older form with completions, and "JSON-MIN".

    [{"id": 1, "data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"}, "annotations": [{"result": [
        {"type": "rectanglelabels", "original_width": 640, "original_height": 480,
         "value": {"x": 10, "y": 20, "width": 5, "height": 8, "rotation": 0, "rectanglelabels": ["cat"]}}]}]}]

Coordinates are percents of the image. The export holds no images: they lie beside it, under the name that they were uploaded
by or with the prefix that Label Studio gave them. A task without a submitted annotation is not labelled yet and is left out;
an annotation without results says that the image shows no object.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import unquote, unquote_plus, urlsplit

from evaluators.data.annotations import Annotations, ClassNames, RawData
from evaluators.data.formats.json_files import has_keys, mentions, read_json, top_level
from evaluators.data.formats.numerals import number, pixels
from evaluators.data.formats.outlines import NOWHERE, extent, polygon_area, turned_ellipse
from evaluators.data.images import IMAGE_SUFFIXES, image_size
from evaluators.data.tree import Tree, split_of
from gpnas.errors import DataError

_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of a file that is uploaded, so that all names differ."""

_MIN_WORDS = ("annotation_id", "rectanglelabels", "polygonlabels", "ellipselabels")

Outline = tuple[list[float], float]
"""The extent x1, y1, x2, y2 of a shape in pixels, and its area; math.nan where the extent tells the area."""

Value = Mapping[str, Any]


@dataclass
class _Reading:
    """What is known while the files are read. images: the file that names each image of a split. left_out: number of results
    of each type that have no box. uploaded: the images by the names that Label Studio gives them, without the prefix."""

    tree: Tree
    splits: dict[str, Annotations] = field(default_factory=dict)
    images: dict[tuple[str, Path], str] = field(default_factory=dict)
    names: ClassNames = field(default_factory=ClassNames)
    left_out: Counter[str] = field(default_factory=Counter)
    unlabelled: int = 0
    repeated: list[str] = field(default_factory=list)
    not_annotated: list[str] = field(default_factory=list)
    annotated_twice: list[str] = field(default_factory=list)
    uploaded: dict[str, list[Path]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in self.tree.images:
            self.uploaded.setdefault(_uploaded_name(path.name), []).append(path)


def find_label_studio(tree: Tree) -> list[Path]:
    """The JSON files of Label Studio in the tree, by their first task."""
    return [file for file in tree.files(".json") if _is_label_studio(file)]


def _is_label_studio(file: Path) -> bool:
    top = top_level(file)
    if top is None or top.kind != "list" or not top.keys:
        return False
    if has_keys(file, "data"):
        return any(has_keys(file, "data", key) for key in ("annotations", "completions", "predictions"))
    return mentions(file, *_MIN_WORDS)


def read_label_studio(tree: Tree, files: list[Path]) -> RawData:
    """The annotated tasks of all `files`. Raises DataError for a task without an image, an image that was turned in Label
    Studio, an image that two files describe, and exports without any annotated task."""
    reading = _Reading(tree)
    for file in files:
        tasks = read_json(file)
        if not isinstance(tasks, list):
            raise DataError(f"{reading.tree.told(file)} is no list of tasks; export it from Label Studio as JSON")
        for position, task in enumerate(tasks, 1):
            _read_task(task, file, f"{reading.tree.told(file)}, {_task_name(task, position)}", reading)
    told = ", ".join(reading.tree.told(file) for file in files)
    if not reading.splits:
        raise DataError(f"{told}: no task has an annotation (predictions are none); submit annotations and export again")
    return RawData(reading.names.sort(reading.splits.values()), reading.splits, notes=_notes(reading))


def _task_name(task: Any, position: int) -> str:
    return f"task {task.get('id', position) if isinstance(task, dict) else position}"


def _read_task(task: Any, file: Path, told: str, reading: _Reading) -> None:
    if not isinstance(task, dict):
        raise DataError(f"{told} is no object; export it from Label Studio as JSON")
    results = _results(task, told, reading)
    if results is None:
        reading.not_annotated.append(told)
        return
    data = task.get("data", task)
    path, split = _image(_image_value(data, told), file, told, reading)
    first = reading.images.get((split, path))
    if first is not None:
        if first != reading.tree.told(file):
            raise DataError(f"{told} has the image {path}, which {first} has too; keep the newer of the two files")
        reading.repeated.append(told)
        return
    reading.images[split, path] = reading.tree.told(file)
    _read_results(results, path, split, f"{reading.tree.told(file)}, image {path.name}", reading)


def _results(task: Mapping[str, Any], told: str, reading: _Reading) -> list[dict[str, Any]] | None:
    """The results of the first annotation that was not cancelled; None where there is none."""
    if "data" not in task:
        return _results_of_min(task)
    annotations = task.get("annotations", task.get("completions")) or []
    if not isinstance(annotations, list) or not all(isinstance(annotation, dict) for annotation in annotations):
        raise DataError(f"{told} has annotations that are no objects; export it as JSON with its annotations")
    submitted = [a for a in annotations if not a.get("was_cancelled") and not a.get("skipped")]
    if not submitted:
        return None
    if len(submitted) > 1:
        reading.annotated_twice.append(told)
    return [result for result in submitted[0].get("result") or [] if isinstance(result, dict)]


def _results_of_min(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """JSON-MIN holds regions under the names of the labelling configuration's tags, and an entry for each annotation only."""
    regions = [region for value in task.values() if isinstance(value, list) for region in value if isinstance(region, dict)]
    return [{**region, "value": region} for region in regions]


def _image_value(data: Any, told: str) -> str:
    """The address of the image among the data of a task: "image", or the only one that looks like an image."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)} if isinstance(data, dict) else {}
    if texts.get("image"):
        return texts["image"]
    images = [key for key, value in texts.items() if _suffix(_names(value)[0]) in IMAGE_SUFFIXES]
    if not images:
        raise DataError(f"{told} has no image among its data ({', '.join(texts) or 'no text'}); add it, or remove the task")
    if len(images) > 1:
        raise DataError(f"{told} has several images, {', '.join(images)}; rename the key of the labelled one to image")
    return texts[images[0]]


def _names(address: str) -> list[str]:
    """The names that an address may mean: a path on Label Studio's server, a URL, or a plain path."""
    if "://" not in address and not address.startswith("/data/"):
        return [address]
    try:
        parts = urlsplit(address)
    except ValueError:
        return [address]
    local = re.search(r"(?:^|&)d=([^&]*)", parts.query)
    if local:
        return list(dict.fromkeys((unquote(local[1]), unquote_plus(local[1]))))
    return [unquote(parts.path)]


def _suffix(name: str) -> str:
    return PureWindowsPath(name).suffix.lower()


def _image(address: str, file: Path, told: str, reading: _Reading) -> tuple[Path, str]:
    """The file and the split of an image."""
    split = split_of(file.relative_to(reading.tree.root))
    path = _image_file(_names(address), file, split, told, reading)
    return path, split or reading.tree.split_of_folder(path)


def _image_file(names: list[str], file: Path, split: str, told: str, reading: _Reading) -> Path:
    """The image by its name, by its name without the prefix, or the only one that Label Studio would call so."""
    for name in names:
        path = PureWindowsPath(name)
        without = _UPLOAD_PREFIX.sub("", path.name, count=1)
        for candidate in dict.fromkeys((name, str(path.with_name(without)) if without else name)):
            found = reading.tree.image_named(candidate, file, split)
            if found.is_file():
                return found
        alike = reading.uploaded.get(_uploaded_name(path.name), [])
        if len(alike) > 1:
            raise DataError(f"{told} has the image {name}, which may be {alike[0]} or {alike[1]}; remove one of them")
        if alike:
            return alike[0]
    return file.parent / PureWindowsPath(names[0]).name


def _uploaded_name(name: str) -> str:
    """The name that Label Studio gives to a file that is uploaded, without the prefix: letters, digits, "-", "_" and "."."""
    return re.sub(r"[^-\w.]", "", _UPLOAD_PREFIX.sub("", name, count=1).strip().replace(" ", "_"))


def _read_results(results: list[dict[str, Any]], path: Path, split: str, told: str, reading: _Reading) -> None:
    annotations = reading.splits.setdefault(split, Annotations())
    size = _size(results, path)
    image = annotations.add_image(path, *size)
    labels = [_labels(result) for result in results]
    labelled = {result.get("id") for result, listed in zip(results, labels, strict=True) if listed}
    counts: Counter[str] = Counter()
    for result, listed in zip(results, labels, strict=True):
        kind = _kind(result)
        if kind is None:
            reading.left_out[_type(result)] += 1
        elif not listed:
            # What is said of a labelled region (its text, a choice) is a result with the same id.
            reading.unlabelled += result.get("id") is None or result.get("id") not in labelled
        else:
            _check_not_turned(result, told)
            counts[kind] += 1
            xyxy, area = _OUTLINES[kind].extent(result["value"], *size)
            for label in listed:
                where = f"{told}, {kind} {counts[kind]}"
                annotations.add_box(image, reading.names.number(label), xyxy, where, area=area)


def _check_not_turned(result: Mapping[str, Any], told: str) -> None:
    degrees = result.get("image_rotation")
    if degrees and number(degrees):
        turned = f"was turned by {degrees} degrees in Label Studio, which its boxes do not tell"
        raise DataError(f"{told} {turned}; turn the file instead and label it again")


def _size(results: list[dict[str, Any]], path: Path) -> tuple[int, int]:
    """Width and height as the results tell them, else by the image's header; zeros for an image that is left out anyway."""
    for result in results:
        size = pixels(result.get("original_width")), pixels(result.get("original_height"))
        if all(size):
            return size
    try:
        return image_size(path) if results else (0, 0)
    except DataError:
        return 0, 0


def _labels(result: Mapping[str, Any]) -> list[str]:
    """The labels of a result, whatever the tag: rectanglelabels, polygonlabels, labels."""
    value = result.get("value")
    lists = [v for key, v in value.items() if key.endswith("labels")] if isinstance(value, dict) else []
    return list(dict.fromkeys(str(label) for listed in lists if isinstance(listed, list) for label in listed))


def _type(result: Mapping[str, Any]) -> str:
    value = result.get("value")
    keys = [key for key in value if key.endswith("labels")] if isinstance(value, dict) else []
    return str(result.get("type") or (keys or ["without type"])[0])


def _kind(result: Mapping[str, Any]) -> str | None:
    value = result.get("value")
    if not isinstance(value, dict):
        return None
    return next((kind for kind, outline in _OUTLINES.items() if outline.keys <= value.keys()), None)


def _box(value: Value, width: int, height: int) -> Outline:
    """A rotated box is turned clockwise about its top left corner, in pixels."""
    x, y = _percent(value["x"], width), _percent(value["y"], height)
    w, h = _percent(value["width"], width), _percent(value["height"], height)
    angle = math.radians(number(value.get("rotation") or 0))
    if not angle or not (w > 0 and h > 0):
        return [x, y, x + w, y + h], math.nan
    cos, sin = math.cos(angle), math.sin(angle)
    xs = [x, x + w * cos, x + w * cos - h * sin, x - h * sin]
    ys = [y, y + w * sin, y + w * sin + h * cos, y + h * cos]
    return extent(xs, ys), w * h


def _ellipse(value: Value, width: int, height: int) -> Outline:
    """An ellipse is turned about its centre."""
    x, y = _percent(value["x"], width), _percent(value["y"], height)
    rx, ry = _percent(value["radiusX"], width), _percent(value["radiusY"], height)
    return turned_ellipse(x, y, rx, ry, math.radians(number(value.get("rotation") or 0))), math.pi * rx * ry


def _polygon(value: Value, width: int, height: int) -> Outline:
    points = value["points"]
    if not isinstance(points, list) or not points or not all(isinstance(p, list) and len(p) == 2 for p in points):
        return NOWHERE, math.nan
    xs, ys = [_percent(p[0], width) for p in points], [_percent(p[1], height) for p in points]
    return extent(xs, ys), polygon_area(xs, ys)


@dataclass(frozen=True)
class _Shape:
    """keys: which a value of this shape has. extent: from a value, and the width and height of its image."""

    keys: frozenset[str]
    extent: Callable[[Value, int, int], Outline]


_OUTLINES = {
    "box": _Shape(frozenset({"x", "y", "width", "height"}), _box),
    "ellipse": _Shape(frozenset({"x", "y", "radiusX", "radiusY"}), _ellipse),
    "polygon": _Shape(frozenset({"points"}), _polygon),
}


def _percent(value: Any, whole: int) -> float:
    return number(value) * whole / 100


def _notes(reading: _Reading) -> list[str]:
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(reading.left_out.items()))
    notes = [f"Results that have no box were left out: {listed}."] if listed else []
    if reading.unlabelled:
        notes.append(f"Boxes without a label were left out: {reading.unlabelled}.")
    told = (
        ("Tasks without a submitted annotation were left out", reading.not_annotated),
        ("Of tasks with more than one annotation the first was read", reading.annotated_twice),
        ("Tasks whose image another task before has were left out", reading.repeated),
    )
    return notes + [f"{what}: {len(tasks)} ({tasks[0]}{', ...' if len(tasks) > 1 else ''})." for what, tasks in told if tasks]
