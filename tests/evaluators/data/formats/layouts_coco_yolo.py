"""Writers of the layouts of COCO's JSON and of YOLO's text files, as their tools make them. They return what a user gives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.evaluators.data.formats.twin import TwinData, TwinImage, write_image


def coco_content(data: TwinData, images: Sequence[TwinImage], first_id: int = 1) -> dict[str, Any]:
    """A COCO file of some of the images; category ids start at 1."""
    annotations = [
        {
            "image_id": i,
            "category_id": 1 + label,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "iscrowd": 0,
            "area": (x2 - x1) * (y2 - y1),
        }
        for i, image in enumerate(images, first_id)
        for label, x1, y1, x2, y2 in image.boxes
    ]
    return {
        "info": {"description": "made by a test"},
        "images": [
            {"id": i, "file_name": image.file, "width": image.width, "height": image.height}
            for i, image in enumerate(images, first_id)
        ],
        "annotations": [{"id": i, **annotation} for i, annotation in enumerate(annotations, 1)],
        "categories": [{"id": 1 + i, "name": name, "supercategory": "thing"} for i, name in enumerate(data.names)],
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_images(folder: Path, data: TwinData, images: Sequence[TwinImage]) -> None:
    for image in images:
        write_image(folder / image.file, image.width, image.height, data.images.index(image))


def write_coco(root: Path, data: TwinData) -> Path:
    """cocodataset.org: annotations/instances_train2017.json, images in train2017."""
    for split, images in data.splits.items():
        _write_json(root / f"annotations/instances_{split}2017.json", coco_content(data, images))
        write_images(root / f"{split}2017", data, images)
    return root


def write_coco_cvat(root: Path, data: TwinData) -> Path:
    """CVAT's export: annotations/instances_default.json, images in images/default; no split."""
    _write_json(root / "annotations/instances_default.json", coco_content(data, data.images))
    write_images(root / "images/default", data, data.images)
    return root


def write_coco_studio(root: Path, data: TwinData) -> Path:
    """Label Studio's export: result.json, whose names start with images/; no split."""
    content = coco_content(data, data.images)
    for image in content["images"]:
        image["file_name"] = f"images/{image['file_name']}"
    _write_json(root / "result.json", content)
    write_images(root / "images", data, data.images)
    return root


def write_coco_roboflow(root: Path, data: TwinData) -> Path:
    """Roboflow's export: train/_annotations.coco.json, images beside it, the project as category 0."""
    for split, images in data.splits.items():
        folder = root / {"val": "valid"}.get(split, split)
        content = coco_content(data, images)
        content["categories"] = [
            {"id": 0, "name": "street", "supercategory": "none"},
            *({**category, "supercategory": "street"} for category in content["categories"]),
        ]
        _write_json(folder / "_annotations.coco.json", content)
        write_images(folder, data, images)
    return root


def write_coco_beside(root: Path, data: TwinData) -> Path:
    """A folder of images with train.json and val.json among them."""
    for split, images in data.splits.items():
        _write_json(root / f"{split}.json", coco_content(data, images))
        write_images(root, data, images)
    return root


def label_text(image: TwinImage) -> str:
    return "".join(
        f"{label} {(x1 + x2) / 2 / image.width:.8f} {(y1 + y2) / 2 / image.height:.8f} "
        f"{(x2 - x1) / image.width:.8f} {(y2 - y1) / image.height:.8f}\n"
        for label, x1, y1, x2, y2 in image.boxes
    )


def _write_labels(folder: Path, images: Sequence[TwinImage]) -> None:
    """A label file for each image that has boxes, as most tools do."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        if image.boxes:
            (folder / f"{Path(image.file).stem}.txt").write_text(label_text(image))


def write_ultralytics(root: Path, data: TwinData) -> Path:
    """Ultralytics: data.yaml with `path` and a mapping of names; images/train and labels/train."""
    for split, images in data.splits.items():
        write_images(root / "images" / split, data, images)
        _write_labels(root / "labels" / split, images)
    keys = "".join(f"{split}: images/{split}\n" for split in data.splits)
    names = "".join(f"  {i}: {json.dumps(name)}\n" for i, name in enumerate(data.names))
    (root / "data.yaml").write_text(f"path: .\n{keys}names:\n{names}", encoding="utf-8")
    return root


def write_ultralytics_lists(root: Path, data: TwinData) -> Path:
    """Ultralytics: a YAML with another name, lists of images in .txt files; images and labels side by side."""
    for split, images in data.splits.items():
        write_images(root / "all", data, images)
        _write_labels(root / "all", images)
        (root / f"{split}.txt").write_text("".join(f"./all/{image.file}\n" for image in images), encoding="utf-8")
    keys = "".join(f"{split}: {split}.txt\n" for split in data.splits)
    (root / "street.yaml").write_text(f"{keys}nc: {len(data.names)}\nnames: {json.dumps(list(data.names))}\n")
    return root / "street.yaml"


def write_yolo_labels(root: Path, data: TwinData) -> Path:
    """Label Studio's YOLO export: images, labels and classes.txt; no split."""
    write_images(root / "images", data, data.images)
    _write_labels(root / "labels", data.images)
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in data.names), encoding="utf-8")
    return root


def write_darknet_roboflow(root: Path, data: TwinData) -> Path:
    """Roboflow's darknet export: images and labels beside each other in train and valid, with _darknet.labels in each."""
    for split, images in data.splits.items():
        folder = root / {"val": "valid"}.get(split, split)
        write_images(folder, data, images)
        _write_labels(folder, images)
        (folder / "_darknet.labels").write_text("".join(f"{name}\n" for name in data.names), encoding="utf-8")
    return root


def write_darknet(root: Path, data: TwinData) -> Path:
    """CVAT's darknet export: obj.data, obj.names, train.txt, and a folder of images and labels for each split."""
    for split, images in data.splits.items():
        write_images(root / f"obj_{split}_data", data, images)
        _write_labels(root / f"obj_{split}_data", images)
        lines = "".join(f"data/obj_{split}_data/{image.file}\n" for image in images)
        (root / f"{split}.txt").write_text(lines, encoding="utf-8")
    (root / "obj.names").write_text("".join(f"{name}\n" for name in data.names), encoding="utf-8")
    (root / "obj.data").write_text(
        f"classes = {len(data.names)}\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    )
    return root
