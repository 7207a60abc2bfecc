"""An image bank of black images with white rectangles, and augmentations that leave something out."""

from __future__ import annotations

import numpy as np
import torch

from evaluators.data.augment import Augmentation
from evaluators.data.bank import ImageBank, load_bank
from evaluators.data.records import Record

SIZE = 96
NONE = Augmentation(mosaic=0, scale=0, translate=0, flip=0, hue=0, saturation=0, value=0)
GEOMETRY = {"hue": 0.0, "saturation": 0.0, "value": 0.0}
"""For an augmentation that changes no colours."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def painted_bank(images: int = 6, painted: int | None = None) -> ImageBank:
    """Images that are square, wide and high in turn, black but for two white rectangles each: the classes 2 * image and
    2 * image + 1. With `painted` only the rectangle of that class is white."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(images):
        width, height = [(SIZE, SIZE), (SIZE, SIZE * 3 // 4), (SIZE * 2 // 3, SIZE)][i % 3]
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        boxes = []
        for label in (2 * i, 2 * i + 1):
            low = (label % 2) * (width // 2)
            x1, y1 = low + int(rng.integers(2, 6)), int(rng.integers(2, height // 2))
            x2, y2 = x1 + int(rng.integers(12, width // 2 - 8)), y1 + int(rng.integers(12, height // 2))
            boxes.append([x1, y1, x2, y2])
            if painted in (None, label):
                pixels[y1:y2, x1:x2] = 255
        array = np.array(boxes, dtype=np.float32)
        records.append(Record(i, width, height, array, np.array([2 * i, 2 * i + 1], np.int64), pixels=pixels))
    return load_bank(records, SIZE)
