"""A tiny COCO folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

BOX = [12, 16, 40, 24]
"""x, y, width, height of the object of every image, which is 64 pixels wide and high."""


def write_coco(folder: Path, change: Callable[[dict[str, Any]], None] = lambda document: None, images: int = 4) -> Path:
    """Grey images with one bright bar each, for train and val. change: made to the document of train."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    x, y, width, height = BOX
    for split, first in (("train", 0), ("val", images)):
        document: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "bar"}]}
        for i in range(first, first + images):
            picture = np.full((64, 64, 3), 90 + i, np.uint8)
            picture[y : y + height, x : x + width] = 220
            cv2.imwrite(str(folder / "images" / f"{i}.png"), picture)
            document["images"].append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 64})
            box = {"id": i, "image_id": i, "category_id": 7, "bbox": BOX, "area": width * height, "iscrowd": 0}
            document["annotations"].append(box)
        if split == "train":
            change(document)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return folder
