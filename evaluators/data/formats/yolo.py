"""TODO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from evaluators.data.formats.boxes import _SPLITS, _inside, _record, _Row
from evaluators.data.images import _DECODERS, IMAGE_SUFFIXES, _image_size
from evaluators.data.records import DetectionData, Record
from gpnas.errors import DataError


def _open_yaml(file: Path) -> DetectionData:
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise DataError(f"{file} is not valid YAML ({' '.join(str(error).split())}); correct it") from error
    if not isinstance(settings, dict):
        raise DataError(f"{file} holds no keys; give path, train, val and names")
    names = _yaml_names(file, settings)
    root = file.parent / Path(str(settings.get("path") or "")).expanduser()
    splits: dict[str, tuple[Record, ...]] = {}
    first_id = 1
    for split in _SPLITS:
        value = settings.get(split)
        if value is None and split != "test":
            raise DataError(f"{file} has no {split} split; add the key '{split}' with a folder or a .txt list of images")
        if value is None:
            continue
        images = _yaml_images(file, root, split, value if isinstance(value, list) else [value])
        with ThreadPoolExecutor(_DECODERS) as pool:
            sizes = list(pool.map(_image_size, images))
        numbered = enumerate(zip(images, sizes, strict=True), first_id)
        splits[split] = tuple(_record(i, size, path, _label_rows(path, size, names)) for i, (path, size) in numbered)
        first_id += len(images)
    return DetectionData(str(file), names, splits, tuple(range(len(names))))


def _yaml_names(file: Path, settings: Mapping[str, Any]) -> tuple[str, ...]:
    names = settings.get("names")
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{file} has the names {names!r}; give a list of class names, or a mapping from 0, 1, 2, ...")
    found = tuple(str(name) for name in names)
    repeated = sorted({name for name in found if found.count(name) > 1})
    if repeated:
        raise DataError(f"{file} names the class '{repeated[0]}' twice; give each class a name of its own")
    if settings.get("nc", len(found)) != len(found):
        raise DataError(f"{file} has nc {settings['nc']} but {len(found)} names; correct or remove nc")
    return found


def _yaml_images(file: Path, root: Path, split: str, values: Sequence[Any]) -> list[Path]:
    """The images of a split: below each folder, or in each .txt list (relative lines start at the list's folder)."""
    images: list[Path] = []
    for value in values:
        source = root / str(value)
        if not source.exists() and str(value).startswith("../"):
            source = root / str(value).removeprefix("../")  # Roboflow writes its paths as from a folder beside data.yaml
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


def _label_rows(image: Path, size: tuple[int, int], names: Sequence[str]) -> list[_Row]:
    """The lines `class cx cy w h` (shares of the image) of its label file, or `class x1 y1 x2 y2 x3 y3 ...`, a polygon whose
    box counts; a missing file is an image without boxes."""
    file = _label_file(image)
    if not file.is_file():
        return []
    rows = []
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
        box = _inside(x1 * width, y1 * height, x2 * width, y2 * height, width, height, what)
        rows.append(_Row(box, int(label), False, (box[2] - box[0]) * (box[3] - box[1])))
    return rows


def _corners(numbers: Sequence[float]) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of `cx cy w h` or of a polygon. Raises ValueError for another count."""
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        xs, ys = numbers[::2], numbers[1::2]
        return float(np.min(xs)), float(np.min(ys)), float(np.max(xs)), float(np.max(ys))  # nan stays nan
    cx, cy, w, h = numbers
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def _label_file(image: Path) -> Path:
    """The last folder `images` on the way becomes `labels`; without one the label file lies beside its image."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")
