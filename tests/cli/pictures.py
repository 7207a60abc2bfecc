"""Tiny data sets."""

import json
from pathlib import Path

import cv2
import numpy as np


def write_coco(folder: Path, change=lambda document: None, images=4) -> Path:
    """A tiny COCO folder: grey images with one bright square each, for train and val."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    for split, first in (("train", 0), ("val", images)):
        document = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "square"}]}
        for i in range(first, first + images):
            picture = np.full((64, 64, 3), 90, np.uint8)
            picture[16:48, 16:48] = 220
            cv2.imwrite(str(folder / "images" / f"{i}.png"), picture)
            document["images"].append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 64})
            box = {"id": i, "image_id": i, "category_id": 7, "bbox": [16, 16, 32, 32], "area": 1024, "iscrowd": 0}
            document["annotations"].append(box)
        if split == "train":
            change(document)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return folder
