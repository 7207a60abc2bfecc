"""Writes a twin data set as Pascal VOC, CSV and LabelMe, each as a real tool lays it out."""

from __future__ import annotations

import base64
import csv
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape

from tests.evaluators.data.formats.twin import TwinData, TwinImage, write_image

ROBOFLOW = {"train": "train", "val": "valid", "test": "test", "": ""}
"""The folder of each split."""


def write_voc(root: Path, data: TwinData) -> Path:
    """As the VOC2007 kit: Annotations, JPEGImages and, where there are splits, ImageSets/Main."""
    for split, images in data.splits.items():
        for image in images:
            write_image(root / "JPEGImages" / image.file, image.width, image.height, _seed(image))
            write_text(root / "Annotations" / f"{Path(image.file).stem}.xml", voc_xml(data.names, image))
        if split:
            stems = "".join(f"{Path(image.file).stem}\n" for image in images)
            write_text(root / "ImageSets" / "Main" / f"{split}.txt", stems)
    return root


def write_voc_roboflow(root: Path, data: TwinData) -> Path:
    """As Roboflow: the XML files lie beside the images in train, valid and test."""
    for split, images in data.splits.items():
        for image in images:
            path = write_image(root / ROBOFLOW[split] / image.file, image.width, image.height, _seed(image))
            write_text(path.with_suffix(".xml"), voc_xml(data.names, image))
    return root


def voc_xml(names: tuple[str, ...], image: TwinImage) -> str:
    objects = ""
    for label, *xyxy in image.boxes:
        edges = zip(("xmin", "ymin", "xmax", "ymax"), xyxy, strict=True)
        box = "".join(f"<{edge}>{round(value)}</{edge}>" for edge, value in edges)
        objects += (
            f"  <object>\n    <name>{escape(names[label])}</name>\n    <pose>Unspecified</pose>\n"
            f"    <difficult>0</difficult>\n    <bndbox>{box}</bndbox>\n  </object>\n"
        )
    return (
        f"<annotation>\n  <folder>JPEGImages</folder>\n  <filename>{escape(image.file)}</filename>\n"
        f"  <size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>\n"
        f"  <segmented>0</segmented>\n{objects}</annotation>\n"
    )


def write_csv(root: Path, data: TwinData) -> Path:
    """As Roboflow for TensorFlow: _annotations.csv in each folder. An image without boxes has no row."""
    header = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
    for split, images in data.splits.items():
        folder = root / ROBOFLOW[split]
        rows = [
            (image.file, image.width, image.height, data.names[label], *map(round, xyxy))
            for image in images
            for label, *xyxy in image.boxes
        ]
        _write_images(folder, images)
        write_rows(folder / "_annotations.csv", [header, *rows])
    return root


def write_csv_retinanet(root: Path, data: TwinData) -> Path:
    """As keras-retinanet: no header, train.csv and val.csv above the folder of images, empty fields for no box."""
    for split, images in data.splits.items():
        rows: list[tuple[object, ...]] = []
        for image in images:
            boxes = [(*map(round, xyxy), data.names[label]) for label, *xyxy in image.boxes]
            rows += [(f"images/{image.file}", *box) for box in boxes or [("",) * 5]]
        _write_images(root / "images", images)
        write_rows(root / f"{split or 'annotations'}.csv", rows)
    return root


def write_csv_automl(root: Path, data: TwinData) -> Path:
    """As Google's AutoML: shares of width and height, and all splits in one file."""
    rows: list[tuple[object, ...]] = []
    uses = {"train": "TRAIN", "val": "VALIDATION", "test": "TEST", "": "UNASSIGNED"}
    for split, images in data.splits.items():
        for image in images:
            start = (uses[split], f"gs://bucket/{image.file}")
            if not image.boxes:
                rows.append((*start, *("",) * 9))
            for label, x1, y1, x2, y2 in image.boxes:
                w, h = image.width, image.height
                rows.append((*start, data.names[label], x1 / w, y1 / h, "", "", x2 / w, y2 / h, "", ""))
        _write_images(root / "images", images)
    write_rows(root / "import.csv", rows)
    return root


def write_labelme(root: Path, data: TwinData) -> Path:
    """As LabelMe: a JSON file beside each image, with the image in base64; rectangles drawn from the lower right."""
    for split, images in data.splits.items():
        for image in images:
            path = write_image(root / split / image.file, image.width, image.height, _seed(image))
            pixels = base64.b64encode(path.read_bytes()).decode()
            write_text(path.with_suffix(".json"), json.dumps(labelme_content(data.names, image, pixels), indent=2))
    return root


def labelme_content(names: tuple[str, ...], image: TwinImage, pixels: str | None = None) -> dict[str, object]:
    shapes = [
        {"label": names[label], "points": [[x2, y2], [x1, y1]], "group_id": None, "shape_type": "rectangle", "flags": {}}
        for label, x1, y1, x2, y2 in image.boxes
    ]
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": image.file,
        "imageData": pixels,
        "imageHeight": image.height,
        "imageWidth": image.width,
    }


def write_text(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)
    return path


def write_rows(path: Path, rows: Iterable[Iterable[object]], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)
    return path


def _write_images(folder: Path, images: list[TwinImage]) -> None:
    for image in images:
        write_image(folder / image.file, image.width, image.height, _seed(image))


def _seed(image: TwinImage) -> int:
    return zlib.crc32(image.file.encode())
