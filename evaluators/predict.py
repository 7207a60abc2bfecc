"""A detector in use, whatever computes it: images of any size in; boxes, scores and classes out.

    detector = Detector(names, imgsz=640, run=...)          # gpnas.cli.loading makes it from a checkpoint or an exported file
    found = detector(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))       # or the path of a file or a folder, or a list of images
    found.boxes, found.scores, found.classes

    records, broken = image_records(Path("photos"))
    for record, rows in predict(detector, records, least_score=0.25):
        Path("out.jpg").write_bytes(encoded(drawn(image_of(record), rows, names), ".jpg"))

Images are padded as other programs pad: in the middle of a square, with grey (`evaluators.data.letterbox`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from evaluators.data.images import IMAGE_SUFFIXES, Broken, image_size, images_below, read_image, readable_image
from evaluators.data.letterbox import Letterbox, letterbox
from evaluators.data.records import Record
from evaluators.detector.ap import CocoEvaluation, Detections, coco_evaluation
from evaluators.detector.head import non_max_suppression
from gpnas.errors import DataError, InputError

PREDICTIONS = "predictions.json"
"""The file that `gpnas predict` writes beside its drawings, and by which it knows them."""

MOST = 300
"""Detections in an image, where the caller does not say otherwise."""

SCORE = 0.25
"""The least score of a detection, where the caller does not say otherwise."""

_BATCH = 32  # images in memory at the same time

_CANDIDATES = 2000  # before suppression, in an image; more where more detections are wanted

_COLOURS = ((47, 109, 181), (194, 65, 12), (22, 128, 86), (140, 60, 160), (180, 130, 0), (200, 40, 90), (0, 140, 160))


@dataclass(frozen=True)
class Found:
    """What was found in one image, the best first."""

    boxes: NDArray[np.float32]  # (n, 4), xyxy in pixels of the image
    scores: NDArray[np.float32]  # (n,), in [0, 1]
    classes: NDArray[np.int64]  # (n,), indices into `names`
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.boxes)

    def to_supervision(self) -> Any:
        """The same as `supervision.Detections`. Raises InputError where supervision is not installed."""
        try:
            import supervision  # late: it is no dependency
        except ImportError as error:
            raise InputError("to_supervision needs supervision, which is not installed; `pip install supervision`") from error
        labels = np.array([self.names[label] for label in self.classes], dtype=np.str_)
        return supervision.Detections(
            xyxy=self.boxes, confidence=self.scores, class_id=self.classes, data={"class_name": labels}
        )


Picture = str | Path | NDArray[np.uint8] | Any
"""The path of an image, an array (height, width, 3) of RGB bytes, or an image of Pillow."""


@dataclass(frozen=True)
class Detector:
    """A detector that is ready to use.

    names: of the classes. imgsz: height and width that `run` takes, in pixels. run: float32 (batch, 3, imgsz, imgsz), RGB in
    [0, 1], to float32 (batch, 4 + classes, anchors): xywh in input pixels, then scores in [0, 1]; or, if `is_suppressed`, to
    (batch, n, 6) after non-maximum suppression: x1, y1, x2, y2, score, class, zeros after the last. batch: images that `run`
    takes at once; None for any number. weights: where they come from.
    """

    names: tuple[str, ...]
    imgsz: int
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    is_suppressed: bool = False
    batch: int | None = None
    weights: str = ""

    def __call__(self, images: Picture | Sequence[Picture], *, score: float = SCORE, most: int = MOST) -> Found | list[Found]:
        """What is found in one image, or a list for a list of images and for the path of a folder.

        score: the least of a detection. most: detections in an image. Raises DataError for a file that is no image, InputError
        for an array that is none.
        """
        if isinstance(images, str | Path) and Path(images).is_dir():
            images = [record.path for record in image_records(Path(images))[0]]
        many = isinstance(images, list | tuple)
        pictures: list[Picture] = list(images) if isinstance(images, list | tuple) else [images]
        found: list[Found] = []
        for start in range(0, len(pictures), _BATCH):
            batch = [as_pixels(picture) for picture in pictures[start : start + _BATCH]]
            found += [self._found(rows) for rows in detections(self, batch, least_score=score, most=most)]
        return found if many else found[0]

    def _found(self, rows: Detections) -> Found:
        return Found(rows[:, :4].astype(np.float32), rows[:, 4].astype(np.float32), rows[:, 5].astype(np.int64), self.names)


def as_pixels(picture: Picture) -> NDArray[np.uint8]:
    """A picture as uint8 (height, width, 3), RGB. Raises DataError and InputError as `Detector` does."""
    if isinstance(picture, str | Path):
        return read_image(Path(picture))
    if hasattr(picture, "convert"):  # an image of Pillow
        picture = picture.convert("RGB")
    pixels = np.asarray(picture)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        got = f"got shape {pixels.shape} of {pixels.dtype}"
        raise InputError(f"an image must be a path or an array (height, width, 3) of uint8 in RGB, {got}")
    return pixels


def detections(
    detector: Detector, images: Sequence[NDArray[np.uint8]], *, least_score: float = 0.001, most: int = 100
) -> list[Detections]:
    """The detections in each image, (height, width, 3) RGB: (n, 6), the best first. A row is x1, y1, x2, y2 in pixels of
    the image, score, class. At least `least_score`, at most `most` an image."""
    step = detector.batch or _BATCH
    found: list[Detections] = []
    for start in range(0, len(images), step):
        boxed = [letterbox(image, detector.imgsz) for image in images[start : start + step]]
        pixels = np.zeros((detector.batch or len(boxed), detector.imgsz, detector.imgsz, 3), dtype=np.uint8)
        pixels[: len(boxed)] = [box.pixels for box in boxed]  # a file of a fixed batch gets black images to fill it
        batch = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
        output = detector.run(batch)[: len(boxed)]
        rows = _suppressed(output, boxed, most) if detector.is_suppressed else _suppress(output, boxed, most)
        found += rows
    return [
        _in_image(rows[rows[:, 4] >= least_score], image.shape[:2], detector.imgsz)
        for rows, image in zip(found, images, strict=True)
    ]


def _suppress(output: NDArray[np.float32], boxed: Sequence[Letterbox], most: int) -> list[Detections]:
    """(batch, 4 + classes, anchors) -> the detections of each image, in pixels of its scaled form."""
    values = torch.from_numpy(output).transpose(1, 2)  # (batch, anchors, 4 + classes)
    corner = torch.tensor([[box.left, box.top] for box in boxed], dtype=torch.float32)[:, None]
    centres, half = values[..., :2] - corner, values[..., 2:4] / 2
    boxes = torch.cat([centres - half, centres + half], dim=-1)
    sizes = [(box.height, box.width) for box in boxed]
    return non_max_suppression(boxes, values[..., 4:], sizes, candidates=max(_CANDIDATES, 4 * most), most=most)


def _suppressed(output: NDArray[np.float32], boxed: Sequence[Letterbox], most: int) -> list[Detections]:
    """(batch, n, 6) after suppression -> the same as `_suppress`."""
    per_image = []
    for image_rows, box in zip(output.astype(np.float64), boxed, strict=True):
        rows = image_rows[image_rows[:, 4] > 0]
        corners = rows[:, :4] - [box.left, box.top] * 2
        rows[:, :4] = np.clip(corners, 0, [box.width, box.height] * 2)
        per_image.append(rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])][:most])
    return per_image


def _in_image(rows: Detections, size: tuple[int, ...], imgsz: int) -> Detections:
    """Rows in pixels of the scaled image -> in pixels of the image of that height and width."""
    height, width = size
    rows[:, :4] = np.clip(rows[:, :4] * (max(height, width) / imgsz), 0, [width, height] * 2)
    return rows


def judge_records(
    detector: Detector, records: Sequence[Record]
) -> tuple[CocoEvaluation, list[Detections], list[Record], list[str]]:
    """COCO's metrics on the images of `records` that can be read, the detections, those records, and what is wrong with the
    others.

    Raises DataError when none can be read.
    """
    broken: list[str] = []
    pairs = list(predict(detector, records, least_score=0.0, most=100, tell=broken.append))
    if not pairs:
        raise DataError(f"no image can be used: {'. '.join(broken[:3])}; restore the files")
    read, found = [record for record, _ in pairs], [rows for _, rows in pairs]
    return coco_evaluation(read, detector.names, found), found, read, broken


def image_records(source: Path) -> tuple[list[Record], list[str]]:
    """The image `source`, or all images below the folder `source`, as records without boxes; and what is wrong with those
    whose header cannot be read. Drawings of `gpnas predict` are left out. Raises DataError when there are none, or none with a
    header.
    """
    if source.is_dir():
        files = images_below(source)
        drawings = [file.parent for file in source.rglob(PREDICTIONS) if is_predictions(file)]
        kept = [file for file in files if not any(file.is_relative_to(folder) for folder in drawings)]
        if files and not kept:
            raise DataError(f"{source} holds only drawings of `gpnas predict`; give the folder of the images that it drew on")
        files = kept
    elif source.is_file():
        files = [source]
    else:
        raise DataError(f"no image or folder at '{source}'; give one that is there")
    if not files:
        raise DataError(f"{source} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}); give another folder")
    records, broken = [], []
    for number, file in enumerate(files):
        try:
            width, height = image_size(file)
        except DataError as error:
            broken.append(str(error))
            continue
        records.append(Record(number, width, height, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), path=file))
    if not records:
        raise DataError(f"{broken[0]}; none of {len(files)} images can be read")
    return records, broken


def is_predictions(file: Path) -> bool:
    """Whether `gpnas predict` wrote this file."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(rows, list) and all(isinstance(row, dict) and {"file", "boxes"} <= row.keys() for row in rows)


def predict(
    detector: Detector,
    records: Sequence[Record],
    *,
    least_score: float,
    most: int = 1000,
    tell: Callable[[str], None] = lambda what: None,
) -> Iterator[tuple[Record, Detections]]:
    """Each record whose image can be read, with its detections of at least `least_score`, the best first, at most `most`.

    `tell` gets what is wrong with each image that cannot be read.
    """
    for start in range(0, len(records), _BATCH):
        read, pixels = [], []
        for record in records[start : start + _BATCH]:
            image = readable_image(record)
            if isinstance(image, Broken):
                tell(f"the image {record.path} {image.reason}; it is left out")
                continue
            read.append(record)
            pixels.append(image)
        yield from zip(read, detections(detector, pixels, least_score=least_score, most=most), strict=True)


def as_json(record: Record, rows: Detections, names: Sequence[str]) -> dict[str, Any]:
    """One image's detections, ready for JSON. Boxes are x1, y1, x2, y2 in pixels of the image."""
    boxes = [
        {"class": names[int(label)], "score": round(score, 4), "box": [round(v, 2) for v in box]}
        for *box, score, label in rows.tolist()
    ]
    return {"file": str(record.path), "width": record.width, "height": record.height, "boxes": boxes}


def drawn(image: NDArray[np.uint8], rows: Detections, names: Sequence[str]) -> NDArray[np.uint8]:
    """A copy of `image`, (height, width, 3) RGB, with boxes, classes and scores. The best detections lie on top."""
    image = np.ascontiguousarray(image).copy()
    unit = max(image.shape[:2]) / 640
    thickness, font_scale = max(1, round(2 * unit)), max(0.35, 0.5 * unit)
    for x1, y1, x2, y2, score, label in rows[::-1].tolist():
        colour = _COLOURS[int(label) % len(_COLOURS)]
        left, top = round(x1), round(y1)
        cv2.rectangle(image, (left, top), (round(x2), round(y2)), colour, thickness)
        text = f"{names[int(label)]} {score:.2f}"
        (width, height), descent = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, font_scale, 1)
        top = max(top, height + descent)  # above the box, or inside the image where there is no room above
        cv2.rectangle(image, (left, top - height - descent), (left + width, top), colour, -1)
        origin = (left, top - descent + 1)
        cv2.putText(image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, font_scale, (255, 255, 255), 1, cv2.LINE_AA)
    return image


_WRITTEN = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tif": ".tiff"} | {
    s: s for s in (".jpg", ".png", ".bmp", ".webp", ".tiff")
}
"""The formats in which drawings keep the suffix of their image, and OpenCV's name for each."""


def drawing_name(image: Path) -> Path:
    """The name of the drawing of `image`: the same, or with .jpg after it where its format cannot be written."""
    return image if image.suffix.lower() in _WRITTEN else image.with_name(f"{image.name}.jpg")


def encoded(image: NDArray[np.uint8], suffix: str) -> bytes:
    """An RGB image as the bytes of a file with this suffix, which `drawing_name` gave it."""
    return bytes(cv2.imencode(_WRITTEN[suffix.lower()], cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1])


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """An RGB image as the bytes of a JPEG file."""
    return encoded(image, ".jpg")
