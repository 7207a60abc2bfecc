"""COCO folders (cocodataset.org, "Data format"), as COCO itself and Roboflow lay them out.

    annotations/instances_train*.json, annotations/instances_val*.json        or
    train/_annotations.coco.json, valid/_annotations.coco.json

The classes are the categories of the train file, in the order of their ids. Images are looked for in the folders where such
data sets keep them (`_image_folders`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from evaluators.data.formats.boxes import AnnotatedBox, annotated_record, box_area, checked_box
from evaluators.data.records import SPLITS, DetectionData, Record
from gpnas.errors import DataError

_ROBOFLOW = "_annotations.coco.json"


def open_coco(folder: Path) -> DetectionData:
    """Raises DataError, naming the file and the entry, for what is missing or wrong."""
    files = _annotation_files(folder)
    contents = {split: _read_json(file) for split, file in files.items()}
    if all(file.name == _ROBOFLOW for file in files.values()):
        _drop_project(contents.values())
    names = _category_names(files["train"], contents["train"])
    labels = {category: i for i, category in enumerate(names)}
    for split, file in files.items():
        for category, name in _category_names(file, contents[split]).items():
            if names.get(category, name) != name:
                raise DataError(
                    f"{file} calls category {category} '{name}', the train file '{names[category]}'; make them agree"
                )
    splits = {split: _split_records(folder, split, file, contents[split], labels) for split, file in files.items()}
    return DetectionData(str(folder), tuple(names.values()), splits, tuple(names))


def _annotation_files(root: Path) -> dict[str, Path]:
    """The annotation file of each split; "test" may be absent."""
    folder = root / "annotations"
    candidates = {split: sorted(folder.glob(f"instances_{split}*.json")) for split in SPLITS}
    roboflow = not any(candidates.values())
    if roboflow:
        candidates = {split: sorted(root.glob(f"{split}*/{_ROBOFLOW}")) for split in SPLITS}
    if not any(candidates.values()):
        inside = sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
        remedy = f"give {inside[0]} itself" if inside else "add them, or give the path of a data.yaml"
        looked = f"annotations/instances_train*.json and instances_val*.json, or train/{_ROBOFLOW}"
        raise DataError(f"{root} has no annotations ({looked}); {remedy}")
    for split, files in candidates.items():
        if not files and split != "test":
            missing = root / split / _ROBOFLOW if roboflow else folder / f"instances_{split}.json"
            raise DataError(f"{root} has no {split} split; add the file {missing}")
        if len(files) > 1:
            two = " and ".join(str(file.relative_to(root)) for file in files[:2])
            raise DataError(f"{root} has two files for the {split} split, {two}; keep one")
    return {split: files[0] for split, files in candidates.items() if files}


def _read_json(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, OSError) as error:  # ValueError: both bad JSON and bad UTF-8
        raise DataError(f"{file} is not valid JSON ({error}); export it again") from error
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(f"{file} has no list '{key}' of objects; give a COCO detection file")
    checked: dict[str, list[dict[str, Any]]] = content
    return checked


def _drop_project(contents: Iterable[dict[str, list[dict[str, Any]]]]) -> None:
    """Roboflow lists the project itself as the first category, the parent of all others. Without boxes it is no class."""
    contents = list(contents)
    used = [annotation.get("category_id") for content in contents for annotation in content["annotations"]]
    for content in contents:
        first, *others = content["categories"] or [{}]
        is_parent = first.get("name") and all(category.get("supercategory") == first["name"] for category in others)
        if others and is_parent and first.get("id") not in used:
            content["categories"] = others


def _category_names(file: Path, content: Mapping[str, list[dict[str, Any]]]) -> dict[int, str]:
    """The name of each category id, in ascending order of the ids, which is the order of the classes."""
    names: dict[int, str] = {}
    for category in content["categories"]:
        key, name = _integer(category, "id", f"{file}: category {category}"), str(category.get("name", ""))
        if key in names or name in names.values() or not name:
            raise DataError(f"{file}: category id {key} or its name '{name}' is repeated or empty; give each its own")
        names[key] = name
    if not names:
        raise DataError(f"{file} has no categories; list the classes under 'categories'")
    return dict(sorted(names.items()))


def _split_records(
    root: Path, split: str, file: Path, content: Mapping[str, list[dict[str, Any]]], labels: Mapping[int, int]
) -> tuple[Record, ...]:
    """The records of one annotation file; `labels` maps category ids to class indices."""
    sizes: dict[int, tuple[int, int]] = {}
    for image in content["images"]:
        what = f"{file}: image {image.get('id', image)}"
        key = _integer(image, "id", what)
        if key in sizes:
            raise DataError(f"{what} stands there twice; give each image an id of its own")
        sizes[key] = _integer(image, "width", what, least=1), _integer(image, "height", what, least=1)
    boxes: dict[int, list[AnnotatedBox]] = {key: [] for key in sizes}
    for annotation in content["annotations"]:
        what = f"{file}: annotation {annotation.get('id', annotation)}"
        key = _integer(annotation, "image_id", what)
        if key not in sizes:
            raise DataError(f"{what} is of image {key}, which is not among the images; add the image or remove it")
        category = _integer(annotation, "category_id", what)
        if category not in labels:
            known = ", ".join(str(k) for k in list(labels)[:10])
            raise DataError(f"{what} has category_id {category}, unknown to the train file ({known}); add the category")
        boxes[key].append(_annotated_box(annotation, labels[category], sizes[key], f"{what} of image {key}"))
    folders = [file.parent] if file.name == _ROBOFLOW else _image_folders(root, split, file)
    return tuple(
        annotated_record(key, size, _image_file(image, folders, f"{file}: image {key}"), boxes[key])
        for image, (key, size) in zip(content["images"], sizes.items(), strict=True)
    )


def _annotated_box(annotation: Mapping[str, Any], label: int, size: tuple[int, int], what: str) -> AnnotatedBox:
    bbox = annotation.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(v) for v in bbox):
        raise DataError(f"{what} has the bbox {bbox}; give four numbers, [x, y, width, height] in pixels")
    x, y, width, height = (float(v) for v in bbox)
    xyxy = checked_box(x, y, x + width, y + height, *size, what)
    outlined = annotation.get("area")  # the area of the object's outline; files without outlines may lack it
    area = float(outlined) if _is_number(outlined) and outlined > 0 else box_area(xyxy)
    return AnnotatedBox(xyxy, label, bool(annotation.get("iscrowd", 0)), area)


def _image_folders(root: Path, split: str, file: Path) -> list[Path]:
    """The folders in which the images of a split may lie, the most specific first (`suffix` is, say, train2017 or train)."""
    suffix = file.stem.removeprefix("instances_")
    others = sorted(path for path in root.glob(f"{split}*") if path.is_dir())
    folders = [root / "images" / suffix, root / "images" / split, root / suffix, *others, root / "images", root]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _image_file(image: Mapping[str, Any], folders: Iterable[Path], what: str) -> Path:
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{what} has no file_name; add it")
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    looked = ", ".join(str(folder) for folder in folders)
    raise DataError(f"{what} has the missing file {name} (looked in {looked}); restore the file or remove the image")


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _integer(entry: Mapping[str, Any], key: str, what: str, least: int | None = None) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
        wanted = "an integer" if least is None else f"an integer of at least {least}"
        raise DataError(f"{what} has {key} {value!r}; give {wanted}")
    return value
