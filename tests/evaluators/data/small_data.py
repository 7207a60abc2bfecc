"""Small pictures, records and data sets on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.data.open import open_data
from evaluators.data.records import Record
from gpnas.errors import DataError

WIDTH, HEIGHT = 60, 40


def picture(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """Smooth colours, different in each corner."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, 255 - x * 255 // width], axis=-1).astype(np.uint8)


def another(number: int) -> NDArray[np.uint8]:
    """A picture that differs from that of every other number in its first pixels."""
    pixels = picture()
    pixels[:8, :8] = number
    return pixels


def write_picture(path: Path, rgb: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(rgb[..., ::-1]))
    return path


def record(rgb: NDArray[np.uint8], boxes: list[list[float]], image_id: int = 1) -> Record:
    height, width = rgb.shape[:2]
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Record(image_id, width, height, array, np.arange(len(boxes), dtype=np.int64), pixels=rgb)


def annotation(key: int, image: int, bbox: list[float], category: int = 7, **more: Any) -> dict[str, Any]:
    return {"id": key, "image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0} | more


def coco_content(first: int) -> dict[str, Any]:
    """Two images, `first` with two boxes, the next with none."""
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in (first, first + 1)],
        "annotations": [annotation(1, first, [10, 5, 20, 30]), annotation(2, first, [0, 0, 8, 4], 3, area=20.5)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    }


def write_coco(root: Path, **splits: dict[str, Any] | None) -> Path:
    contents = {"train": coco_content(1), "val": coco_content(5)} | splits
    (root / "annotations").mkdir(parents=True)
    for split, content in contents.items():
        if content is None:
            continue
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        for image in content["images"]:
            write_picture(root / "images" / image["file_name"], another(image["id"] if isinstance(image["id"], int) else 0))
    return root


def write_data_yaml(root: Path, text: str = "train: images/train\nval: images/val\nnames: [cat, dog]\n") -> Path:
    for number, split in enumerate(("train", "val")):
        write_picture(root / "images" / split / "a.png", another(100 * number))
        write_picture(root / "images" / split / "b.jpg", another(100 * number + 50))
        (root / "labels" / split).mkdir(parents=True)
        # Of 60x40 pixels: centre (24, 22), 15 wide and 20 high.
        (root / "labels" / split / "a.txt").write_text("1 0.4 0.55 0.25 0.5\n\n")
    (root / "data.yaml").write_text(text)
    return root / "data.yaml"


def refusal(spec: object) -> str:
    """The message with which open_data refuses: one line."""
    with pytest.raises(DataError) as refused:
        open_data(str(spec))
    assert "\n" not in str(refused.value)
    return str(refused.value)
