"""The image bank: a split at one image size as bytes on a device, so that an epoch reads no file."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.data.cache import DecodedImages, cache_folder, cached
from evaluators.data.images import DECODING_THREADS, image_of
from evaluators.data.records import Record
from gpnas.errors import DataError

GREY = 114
"""The value of all three channels where no image lies."""


@dataclass
class ImageBank:
    """A split at one image size, on one device.

    Each image is scaled so that its long side has `size` pixels. It lies in the top left corner of a square; the rest is GREY.
    """

    pixels: Tensor  # uint8 (images, size, size, 3), RGB
    sizes: Tensor  # int64 (images, 2), height and width of the scaled image
    boxes: Tensor  # float32 (images, most, 4), xyxy in scaled pixels, without crowds, zero padded
    classes: Tensor  # int64 (images, most), -1 where padded
    scales: Tensor  # float32 (images,), scaled pixels per original pixel


def load_bank(records: Sequence[Record], size: int, device: str | torch.device = "cpu") -> ImageBank:
    """The images of `records`, decoded or read from the cache (cache.py), scaled to `size` pixels and put on `device`.

    Raises DataError if there are no records, or for an image that is unreadable, truncated or not of its record's size, with
    the name of its file; ValueError for a size below 1.
    """
    if not records:
        raise DataError("no images to load; give a split that has some")
    if size < 1:
        raise ValueError(f"size must be positive, got {size}")
    files = [record.path for record in records if record.path is not None]
    if len(files) == len(records):
        shapes = [(record.width, record.height) for record in records]  # part of the cache's key: decoding checks them
        pixels, occupied = cached(cache_folder(), files, shapes, size, lambda: _decoded(records, size))
    else:
        pixels, occupied = _decoded(records, size)
    sizes = [(int(height), int(width)) for height, width in occupied]
    scales = np.array([size / max(r.width, r.height) for r in records], dtype=np.float32)
    boxes, classes = _padded(records, scales, sizes)
    return ImageBank(
        pixels=torch.from_numpy(pixels).to(device),
        sizes=torch.tensor(sizes, dtype=torch.int64, device=device),
        boxes=torch.from_numpy(boxes).to(device),
        classes=torch.from_numpy(classes).to(device),
        scales=torch.from_numpy(scales).to(device),
    )


def _decoded(records: Sequence[Record], size: int) -> DecodedImages:
    pixels = np.full((len(records), size, size, 3), GREY, dtype=np.uint8)

    def place(i: int) -> tuple[int, int]:
        image = _scaled(image_of(records[i]), size)
        pixels[i, : image.shape[0], : image.shape[1]] = image
        return image.shape[0], image.shape[1]

    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        sizes = list(pool.map(place, range(len(records))))
    return pixels, np.array(sizes, dtype=np.int64)


def as_images(pixels: Tensor) -> Tensor:
    """uint8 (batch, height, width, 3) -> float32 (batch, 3, height, width) in [0, 1], channels_last: what a network reads."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last).div_(255)


def _scaled(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = size / max(height, width)
    if scale == 1:
        return image
    to = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Averages over areas avoid aliasing in an image that shrinks, but show blocks in one that grows.
    scaled: NDArray[np.uint8] = cv2.resize(image, to, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return scaled


def _padded(
    records: Sequence[Record], scales: NDArray[np.float32], sizes: Sequence[tuple[int, int]]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The boxes and classes of a bank, without crowds. Boxes are clipped to `sizes`, which are rounded to whole pixels."""
    kept = [~record.crowd for record in records]
    most = max(1, *(int(keep.sum()) for keep in kept))
    boxes = np.zeros((len(records), most, 4), dtype=np.float32)
    classes = np.full((len(records), most), -1, dtype=np.int64)
    for i, (record, keep, (height, width)) in enumerate(zip(records, kept, sizes, strict=True)):
        n = int(keep.sum())
        boxes[i, :n] = np.minimum(record.boxes[keep] * scales[i], [width, height, width, height])
        classes[i, :n] = record.classes[keep]
    return boxes, classes
