"""A data.yaml with one text file of boxes for each image, as YOLO trainers read them.

    path: pets                       # optional; relative to the folder of the data.yaml
    train: images/train              # a folder, a .txt list of images, or a list of these
    val: images/val
    names: [cat, dog]                # or a mapping from 0, 1, 2, ...

The boxes of images/train/a.jpg stand in labels/train/a.txt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from evaluators.data.formats.boxes import AnnotatedBox, annotated_record, checked_box
from evaluators.data.images import DECODING_THREADS, IMAGE_SUFFIXES, image_size
from evaluators.data.records import SPLITS, DetectionData, Record
from gpnas.errors import DataError


def is_data_yaml(path: Path) -> bool:
    return path.is_file() and path.suffix in (".yaml", ".yml")


def open_data_yaml(file: Path) -> DetectionData:
    """Raises DataError, naming the file, and the key or the line, for what is missing or wrong."""
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise DataError(f"{file} is not valid YAML ({' '.join(str(error).split())}); correct it") from error
    if not isinstance(settings, dict):
        raise DataError(f"{file} holds no keys; give path, train, val and names")
    names = _class_names(file, settings)
    root = file.parent / Path(str(settings.get("path") or "")).expanduser()
    splits: dict[str, tuple[Record, ...]] = {}
    first_id = 1
    for split in SPLITS:
        value = settings.get(split)
        if value is None and split != "test":
            raise DataError(f"{file} has no {split} split; add the key '{split}' with a folder or a .txt list of images")
        if value is None:
            continue
        images = _image_files(file, root, split, value if isinstance(value, list) else [value])
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            sizes = list(pool.map(image_size, images))
        numbered = enumerate(zip(images, sizes, strict=True), first_id)
        splits[split] = tuple(annotated_record(i, size, path, _boxes(path, size, names)) for i, (path, size) in numbered)
        first_id += len(images)
    return DetectionData(str(file), names, splits, tuple(range(len(names))))


def _class_names(file: Path, settings: Mapping[str, Any]) -> tuple[str, ...]:
    listed = settings.get("names")
    if isinstance(listed, dict) and sorted(listed, key=str) == sorted(range(len(listed)), key=str):
        listed = [listed[i] for i in range(len(listed))]
    if not isinstance(listed, list) or not listed:
        raise DataError(f"{file} has the names {listed!r}; give a list of class names, or a mapping from 0, 1, 2, ...")
    names = tuple(str(name) for name in listed)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{file} names the class '{repeated[0]}' twice; give each class a name of its own")
    if settings.get("nc", len(names)) != len(names):
        raise DataError(f"{file} has nc {settings['nc']} but {len(names)} names; correct or remove nc")
    return names


def _image_files(file: Path, root: Path, split: str, values: Sequence[Any]) -> list[Path]:
    """The images of a split: all below each folder, and those in each .txt list, whose relative lines start at its folder."""
    images: list[Path] = []
    for value in values:
        source = root / str(value)
        if not source.exists() and str(value).startswith("../"):
            source = root / str(value).removeprefix("../")  # Roboflow writes paths as if data.yaml lay in a folder beside it
        if source.is_dir():
            images += sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        elif source.is_file() and source.suffix == ".txt":
            lines = [line.strip() for line in _lines(source)]
            listed = [source.parent / line for line in lines if line]
            missing = [path for path in listed if not path.is_file()]
            if missing:
                raise DataError(f"{source} lists the missing image {missing[0]}; restore it or remove the line")
            images += listed
        else:
            raise DataError(f"{file}: {split} is {source}, no folder and no .txt list; correct the key 'path' or '{split}'")
    return images


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except (ValueError, OSError) as error:
        raise DataError(f"cannot read {file} as text ({error}); write it in UTF-8") from error


def _boxes(image: Path, size: tuple[int, int], names: Sequence[str]) -> list[AnnotatedBox]:
    """The boxes in an image's label file; an image without a label file has none.

    A line is `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 ...`, a polygon, of which the bounding box is taken. Lengths are
    shares of the image's width and height.
    """
    file = _label_file(image)
    if not file.is_file():
        return []
    boxes = []
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        what = f"{file}, line {number},"
        try:
            label, *numbers = (float(word) for word in line.split())
            x1, y1, x2, y2 = _corners(numbers)
        except ValueError as error:
            remedy = "give five numbers, class cx cy w h, or a class and the corners of a polygon, x y each"
            raise DataError(f"{what} is '{line.strip():.80}'; {remedy}") from error
        if label not in range(len(names)):
            raise DataError(f"{what} has class {label:g}, out of the range 0 to {len(names) - 1}; correct it or the names")
        width, height = size
        xyxy = checked_box(x1 * width, y1 * height, x2 * width, y2 * height, width, height, what)
        boxes.append(AnnotatedBox.of_object(xyxy, int(label)))
    return boxes


def _corners(numbers: Sequence[float]) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of `cx cy w h` or of a polygon. Raises ValueError for another count of numbers."""
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        xs, ys = numbers[::2], numbers[1::2]
        return float(np.min(xs)), float(np.min(ys)), float(np.max(xs)), float(np.max(ys))  # nan stays nan
    cx, cy, w, h = numbers
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def _label_file(image: Path) -> Path:
    """The path with its last folder named `images` replaced by `labels`; without one the label file lies beside its image."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")
