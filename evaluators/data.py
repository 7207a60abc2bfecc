"""Detection data: from a COCO folder or a data.yaml to checked records, and from records to images on a device.

    data = open_data("digits")                            # or a COCO folder, or the path of a data.yaml
    bank = load_bank(data.splits["train"], size=320, device="cuda")
    as_images(bank.pixels[:16])                           # float32 (16, 3, 320, 320) in [0, 1]

`open_data` checks everything that it can without decoding: what is wrong is one `DataError` that names it. A split is
decoded once for each image size and then lives on the device as bytes, so that an epoch reads no file.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import cv2
import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from evaluators.cache import Images, cache_folder, cached
from gpnas.errors import DataError

GREY = 114
"""The level of every pixel that no image covers."""

_SPLITS = ("train", "val", "test")
_ROBOFLOW = "_annotations.coco.json"
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
_OVERHANG = 1.0  # pixels by which a box may leave its image: what rounding in annotation tools makes
_DECODERS = 2  # threads


def _no_crowd() -> NDArray[np.bool_]:
    return np.zeros(0, dtype=np.bool_)


def _no_areas() -> NDArray[np.float32]:
    return np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Record:
    """One image and its boxes; the image is a file (`path`) or in memory (`pixels`).

    width, height: pixels of the original image, after its EXIF rotation.
    boxes: (n, 4), xyxy in original pixels, inside the image, positive area. classes: (n,), index into the names.
    pixels: (height, width, 3), RGB.
    crowd: (n,), boxes around many objects: evaluation ignores them, training does not see them; empty means none.
    areas: (n,), pixels of the object, by which COCO calls it small, medium or large; empty means the boxes' areas.
    """

    image_id: int
    width: int
    height: int
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    path: Path | None = None
    pixels: NDArray[np.uint8] | None = None
    crowd: NDArray[np.bool_] = field(default_factory=_no_crowd)
    areas: NDArray[np.float32] = field(default_factory=_no_areas)

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if self.boxes.shape != (n, 4) or self.classes.shape != (n,):
            raise ValueError(f"boxes {self.boxes.shape} and classes {self.classes.shape} must be (n, 4) and (n,)")
        if (self.path is None) == (self.pixels is None):
            raise ValueError(f"image {self.image_id} needs a path or pixels, and not both")
        if self.pixels is not None and self.pixels.shape != (self.height, self.width, 3):
            raise ValueError(f"pixels {self.pixels.shape} must be {(self.height, self.width, 3)}")
        x1, y1, x2, y2 = self.boxes.T
        inside = (x1 >= 0) & (y1 >= 0) & (x2 <= self.width) & (y2 <= self.height) & (x1 < x2) & (y1 < y2)
        if not inside.all():
            raise ValueError(f"box {self.boxes[~inside][0]} of image {self.image_id} is outside it or has no area")
        if not len(self.crowd):
            object.__setattr__(self, "crowd", np.zeros(n, dtype=np.bool_))
        if not len(self.areas):
            object.__setattr__(self, "areas", ((x2 - x1) * (y2 - y1)).astype(np.float32))
        if self.crowd.shape != (n,) or self.areas.shape != (n,):
            raise ValueError(f"crowd {self.crowd.shape} and areas {self.areas.shape} must be ({n},)")


@dataclass(frozen=True, eq=False)
class DetectionData:
    """A data set: `splits` holds "train", "val" and maybe "test"; `category_ids[i]` is the COCO id of class i."""

    source: str
    names: tuple[str, ...]
    splits: Mapping[str, tuple[Record, ...]]
    category_ids: tuple[int, ...]
    may_flip: bool = True
    """Whether a mirrored image is as good an example: not so for digits and letters."""


@dataclass
class ImageBank:
    """A split at one image size, resident on a device.

    pixels: uint8 (images, size, size, 3), RGB; an image's long side is `size`, its top left corner that of the square,
    and the rest is GREY. sizes: int64 (images, 2), height and width that the scaled image occupies.
    boxes: float32 (images, most_boxes, 4), xyxy in scaled pixels, zero padded, crowds left out.
    classes: int64 (images, most_boxes), -1 padded. scales: float32 (images,), scaled pixels per original pixel.
    """

    pixels: Tensor
    sizes: Tensor
    boxes: Tensor
    classes: Tensor
    scales: Tensor
    image_ids: tuple[int, ...]


def open_data(spec: str) -> DetectionData:
    """The data set that `spec` names: "digits" (built in), a COCO folder, or the path of a data.yaml.

    Raises DataError, in one line, for whatever could not be trained on or judged. ("./digits" is a folder.)
    """
    if spec == "digits":
        from evaluators.scenes import digit_scenes  # late: scenes.py builds on this module

        return digit_scenes()
    path = Path(spec).expanduser()
    if path.is_dir():
        data = _open_coco(path)
    elif path.is_file() and path.suffix in (".yaml", ".yml"):
        data = _open_yaml(path)
    elif path.exists():
        raise DataError(f"{path} is neither a folder nor a .yaml file; give a COCO folder or the path of a data.yaml")
    else:
        near = difflib.get_close_matches(spec, ["digits"])
        hint = " (did you mean 'digits'?)" if near else ""
        raise DataError(f"no data at '{spec}'{hint}; give 'digits', a COCO folder, or the path of a data.yaml")
    for name, records in data.splits.items():
        if not records:
            raise DataError(f"{spec}: the split '{name}' has no images; add images to it or remove the split")
    for name in ("train", "val"):  # without boxes there is nothing to learn, and no AP
        if all(record.crowd.all() for record in data.splits[name]):
            raise DataError(f"{spec}: no image of the split '{name}' has a box; check that its labels are in place")
    return data


def load_bank(records: Sequence[Record], size: int, device: str | torch.device = "cpu") -> ImageBank:
    """Decode the images, or read them as they were decoded before (cache.py), with their long side scaled to `size` pixels, and
    put them on `device`.

    Raises DataError, naming the file, for an image that is unreadable, truncated, or not of its record's size.
    """
    if not records:
        raise DataError("no images to load; give a split that has some")
    if size < 1:
        raise ValueError(f"size must be positive, got {size}")
    files = [record.path for record in records if record.path is not None]
    if len(files) == len(records):
        shapes = [(record.width, record.height) for record in records]  # of the images, which the cache's key must hold too
        pixels, shown = cached(cache_folder(), files, shapes, size, lambda: _decoded(records, size))
    else:
        pixels, shown = _decoded(records, size)
    sizes = [(int(height), int(width)) for height, width in shown]
    scales = np.array([size / max(r.width, r.height) for r in records], dtype=np.float32)
    boxes, classes = _padded(records, scales, sizes)
    return ImageBank(
        pixels=torch.from_numpy(pixels).to(device),
        sizes=torch.tensor(sizes, dtype=torch.int64, device=device),
        boxes=torch.from_numpy(boxes).to(device),
        classes=torch.from_numpy(classes).to(device),
        scales=torch.from_numpy(scales).to(device),
        image_ids=tuple(record.image_id for record in records),
    )


def _decoded(records: Sequence[Record], size: int) -> Images:
    pixels = np.full((len(records), size, size, 3), GREY, dtype=np.uint8)

    def place(i: int) -> tuple[int, int]:
        image = _scaled(image_of(records[i]), size)
        pixels[i, : image.shape[0], : image.shape[1]] = image
        return image.shape[0], image.shape[1]

    with ThreadPoolExecutor(_DECODERS) as pool:
        sizes = list(pool.map(place, range(len(records))))
    return pixels, np.array(sizes, dtype=np.int64)


def as_images(pixels: Tensor) -> Tensor:
    """uint8 (batch, h, w, 3) -> float32 (batch, 3, h, w) in [0, 1], channels_last in memory: what a network reads."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last).div_(255)


def subset(records: Sequence[Record], share: float, seed: int) -> tuple[Record, ...]:
    """A random share of the records, at least one, in their order. Under one seed a smaller share lies in a larger."""
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    count = max(1, round(share * len(records)))
    chosen = np.random.default_rng(seed).permutation(len(records))[:count]
    return tuple(records[i] for i in sorted(chosen.tolist()))


def digest(data: DetectionData) -> str:
    """16 hex digits that change with what is learnt or judged: names, boxes, image sizes, and the files' names and
    sizes in bytes (or the pixels, for images in memory). The folder that holds them does not matter."""
    sha = hashlib.sha256(json.dumps([data.names, data.category_ids]).encode())
    for split, records in sorted(data.splits.items()):
        sha.update(json.dumps([split, len(records)]).encode())
        for r in records:
            file = None if r.path is None else (r.path.name, r.path.stat().st_size)
            sha.update(json.dumps([r.image_id, r.width, r.height, len(r.boxes), file]).encode())
            for array in (r.boxes, r.classes, r.crowd, r.areas):
                sha.update(array.tobytes())
            if r.pixels is not None:
                sha.update(r.pixels.tobytes())
    return sha.hexdigest()[:16]


def read_image(path: Path) -> NDArray[np.uint8]:
    """The image of a file as (height, width, 3) RGB bytes, turned as its EXIF tells; DataError if it is damaged.

    Grey, palette, alpha and 16-bit images become 8-bit RGB (alpha is dropped).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the image {path}: {error.strerror}; restore it or remove it") from error
    # OpenCV 4 fills what is missing with grey and goes on, so a truncated file has to be found beforehand.
    if _is_truncated(content):
        raise DataError(f"the image {path} is truncated; restore it or remove it from the data")
    try:
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR) if content else None
    except cv2.error:  # a header that promises an absurd size
        image = None
    if image is None:
        raise DataError(f"the image {path} is not a readable image; restore it or remove it from the data")
    rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def _is_truncated(content: bytes) -> bool:
    """Whether a JPEG, PNG, WebP or BMP ends before its end; of other formats only the decoder can tell."""
    if content.startswith(b"\xff\xd8"):
        return not _has_jpeg_end(content)
    if content.startswith(b"\x89PNG"):
        return content.rfind(b"IEND") < 0
    if content.startswith(b"RIFF"):
        return len(content) < 8 + int.from_bytes(content[4:8], "little")
    if content.startswith(b"BM"):
        return len(content) < int.from_bytes(content[2:6], "little")
    return False


def _has_jpeg_end(content: bytes) -> bool:
    """Whether the end marker FFD9 follows the first scan (ITU-T T.81, B.1). The segments before it are stepped over:
    a thumbnail in the EXIF has an end marker of its own."""
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        at += 2 + length
        if marker == 0xDA:
            return content.find(b"\xff\xd9", at) >= 0
    return False


def image_of(record: Record) -> NDArray[np.uint8]:
    """The image of a record as (height, width, 3) RGB bytes; DataError if it is damaged or not of the record's size."""
    if record.pixels is not None:
        return record.pixels
    assert record.path is not None  # checked when built
    image = read_image(record.path)
    height, width = image.shape[:2]
    if (width, height) != (record.width, record.height):
        turned = " (its EXIF turns it)" if (height, width) == (record.width, record.height) else ""
        raise DataError(
            f"the image {record.path} is {width}x{height} pixels{turned} but its annotation says "
            f"{record.width}x{record.height}; correct width and height, or the image"
        )
    return image


def _scaled(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = size / max(height, width)
    if scale == 1:
        return image
    to = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Averaging over areas avoids aliasing where the image shrinks; where it grows it would show blocks.
    scaled: NDArray[np.uint8] = cv2.resize(image, to, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return scaled


def _padded(
    records: Sequence[Record], scales: NDArray[np.float32], sizes: Sequence[tuple[int, int]]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The boxes and classes of a bank, crowds left out. `sizes` are rounded to pixels: no box may stand out."""
    kept = [~record.crowd for record in records]
    most = max(1, *(int(keep.sum()) for keep in kept))
    boxes = np.zeros((len(records), most, 4), dtype=np.float32)
    classes = np.full((len(records), most), -1, dtype=np.int64)
    for i, (record, keep, (height, width)) in enumerate(zip(records, kept, sizes, strict=True)):
        n = int(keep.sum())
        boxes[i, :n] = np.minimum(record.boxes[keep] * scales[i], [width, height, width, height])
        classes[i, :n] = record.classes[keep]
    return boxes, classes


def _inside(x1: float, y1: float, x2: float, y2: float, width: int, height: int, what: str) -> list[float]:
    """The box clipped to its image; DataError if it has no size, or leaves the image by more than _OVERHANG pixels."""
    shown = f"{what} has the box [{x1:g}, {y1:g}, {x2:g}, {y2:g}] (x1, y1, x2, y2)"
    if not all(math.isfinite(v) for v in (x1, y1, x2, y2)):
        raise DataError(f"{shown}, which is not finite; correct it or remove it")
    if x2 <= x1 or y2 <= y1:
        raise DataError(f"{shown}, whose width {x2 - x1:g} or height {y2 - y1:g} is not positive; correct or remove it")
    clipped = [max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))]
    overhang = max(-x1, -y1, x2 - width, y2 - height)
    if overhang > _OVERHANG or clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise DataError(f"{shown}, outside its image of {width}x{height} pixels; correct it or remove it")
    return clipped


class _Row(NamedTuple):
    """One box of a record that is being read."""

    box: list[float]
    label: int
    crowd: bool
    area: float


def _record(image_id: int, size: tuple[int, int], path: Path, rows: Sequence[_Row]) -> Record:
    return Record(
        image_id=image_id,
        width=size[0],
        height=size[1],
        boxes=np.array([row.box for row in rows], dtype=np.float32).reshape(-1, 4),
        classes=np.array([row.label for row in rows], dtype=np.int64),
        path=path,
        crowd=np.array([row.crowd for row in rows], dtype=np.bool_),
        areas=np.array([row.area for row in rows], dtype=np.float32),
    )


def _open_coco(root: Path) -> DetectionData:
    files = _coco_files(root)
    contents = {split: _read_json(file) for split, file in files.items()}
    if all(file.name == _ROBOFLOW for file in files.values()):
        _drop_project(contents.values())
    names = _coco_names(files["train"], contents["train"])
    labels = {category: i for i, category in enumerate(names)}
    for split, file in files.items():
        for category, name in _coco_names(file, contents[split]).items():
            if names.get(category, name) != name:
                raise DataError(
                    f"{file} calls category {category} '{name}', the train file '{names[category]}'; make them agree"
                )
    splits = {split: _coco_split(root, split, file, contents[split], labels) for split, file in files.items()}
    return DetectionData(str(root), tuple(names.values()), splits, tuple(names))


def _coco_files(root: Path) -> dict[str, Path]:
    """The annotation file of each split: annotations/instances_train*.json, or Roboflow's train/_annotations.coco.json."""
    folder = root / "annotations"
    found = {split: sorted(folder.glob(f"instances_{split}*.json")) for split in _SPLITS}
    roboflow = not any(found.values())
    if roboflow:
        found = {split: sorted(root.glob(f"{split}*/{_ROBOFLOW}")) for split in _SPLITS}
    if not any(found.values()):
        inside = sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
        remedy = f"give {inside[0]} itself" if inside else "add them, or give the path of a data.yaml"
        looked = f"annotations/instances_train*.json and instances_val*.json, or train/{_ROBOFLOW}"
        raise DataError(f"{root} has no annotations ({looked}); {remedy}")
    for split, files in found.items():
        if not files and split != "test":
            missing = root / split / _ROBOFLOW if roboflow else folder / f"instances_{split}.json"
            raise DataError(f"{root} has no {split} split; add the file {missing}")
        if len(files) > 1:
            two = " and ".join(str(file.relative_to(root)) for file in files[:2])
            raise DataError(f"{root} has two files for the {split} split, {two}; keep one")
    return {split: files[0] for split, files in found.items() if files}


def _read_json(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, OSError) as error:  # ValueError: both bad JSON and bad UTF-8
        raise DataError(f"{file} is not valid JSON ({error}); export it again") from error
    for key in ("images", "annotations", "categories"):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{file} has no list '{key}' of objects; give a COCO detection file")
    checked: dict[str, list[dict[str, Any]]] = content
    return checked


def _drop_project(contents: Iterable[dict[str, list[dict[str, Any]]]]) -> None:
    """Roboflow lists the project itself as the category above all others: without boxes it is no class."""
    contents = list(contents)
    used = [annotation.get("category_id") for content in contents for annotation in content["annotations"]]
    for content in contents:
        first, *others = content["categories"] or [{}]
        above_all = first.get("name") and all(of.get("supercategory") == first["name"] for of in others)
        if others and above_all and first.get("id") not in used:
            content["categories"] = others


def _coco_names(file: Path, content: Mapping[str, list[dict[str, Any]]]) -> dict[int, str]:
    """The category ids, ascending, with their names: the order of the classes."""
    names: dict[int, str] = {}
    for category in content["categories"]:
        key, name = _integer(category, "id", f"{file}: category {category}"), str(category.get("name", ""))
        if key in names or name in names.values() or not name:
            raise DataError(f"{file}: category id {key} or its name '{name}' is repeated or empty; give each its own")
        names[key] = name
    if not names:
        raise DataError(f"{file} has no categories; list the classes under 'categories'")
    return dict(sorted(names.items()))


def _coco_split(
    root: Path, split: str, file: Path, content: Mapping[str, list[dict[str, Any]]], labels: Mapping[int, int]
) -> tuple[Record, ...]:
    sizes: dict[int, tuple[int, int]] = {}
    for image in content["images"]:
        what = f"{file}: image {image.get('id', image)}"
        key = _integer(image, "id", what)
        if key in sizes:
            raise DataError(f"{what} stands there twice; give each image an id of its own")
        sizes[key] = _integer(image, "width", what, least=1), _integer(image, "height", what, least=1)
    rows: dict[int, list[_Row]] = {key: [] for key in sizes}
    for annotation in content["annotations"]:
        what = f"{file}: annotation {annotation.get('id', annotation)}"
        key = _integer(annotation, "image_id", what)
        if key not in sizes:
            raise DataError(f"{what} is of image {key}, which is not among the images; add the image or remove it")
        category = _integer(annotation, "category_id", what)
        if category not in labels:
            known = ", ".join(str(k) for k in list(labels)[:10])
            raise DataError(f"{what} has category_id {category}, unknown to the train file ({known}); add the category")
        rows[key].append(_coco_row(annotation, labels[category], sizes[key], f"{what} of image {key}"))
    folders = [file.parent] if file.name == _ROBOFLOW else _coco_folders(root, split, file)
    return tuple(
        _record(key, size, _find_image(image, folders, f"{file}: image {key}"), rows[key])
        for image, (key, size) in zip(content["images"], sizes.items(), strict=True)
    )


def _coco_row(annotation: Mapping[str, Any], label: int, size: tuple[int, int], what: str) -> _Row:
    bbox = annotation.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(v) for v in bbox):
        raise DataError(f"{what} has the bbox {bbox}; give four numbers, [x, y, width, height] in pixels")
    x, y, width, height = (float(v) for v in bbox)
    box = _inside(x, y, x + width, y + height, *size, what)
    area = annotation.get("area")  # COCO's is that of the object's outline; files without outlines may lack it
    own = (box[2] - box[0]) * (box[3] - box[1])
    return _Row(box, label, bool(annotation.get("iscrowd", 0)), float(area) if _is_number(area) and area > 0 else own)


def _coco_folders(root: Path, split: str, file: Path) -> list[Path]:
    """Where the images of a split may lie, the most particular folder first (`suffix` is train2017 or train)."""
    suffix = file.stem.removeprefix("instances_")
    others = sorted(path for path in root.glob(f"{split}*") if path.is_dir())
    folders = [root / "images" / suffix, root / "images" / split, root / suffix, *others, root / "images", root]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _find_image(image: Mapping[str, Any], folders: Iterable[Path], what: str) -> Path:
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


def _integer(row: Mapping[str, Any], key: str, what: str, least: int | None = None) -> int:
    value = row.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
        wanted = "an integer" if least is None else f"an integer of at least {least}"
        raise DataError(f"{what} has {key} {value!r}; give {wanted}")
    return value


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


def _image_size(path: Path) -> tuple[int, int]:
    """Width and height, by decoding: OpenCV reads no header alone."""
    image = read_image(path)
    return image.shape[1], image.shape[0]


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
