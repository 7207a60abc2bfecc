"""An image in a square: scaled so that its long side fits, with grey around it, in the middle as other programs place it.

The banks that training and `gpnas val` of a checkpoint read (bank.py) place it in the top left corner.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

GREY = 114
"""The value of all three channels where no image lies."""


class Letterbox(NamedTuple):
    """An image in a square, and where it lies there."""

    pixels: NDArray[np.uint8]  # (size, size, 3)
    scale: float  # pixels of the square per pixel of the image
    left: int  # columns of grey before the image
    top: int
    height: int  # of the scaled image
    width: int


def letterbox(
    image: NDArray[np.uint8],  # (height, width, 3)
    size: int,  # pixels
) -> Letterbox:
    """`image` in the middle of a square of `size` pixels. An odd row or column of grey lies below or to the right."""
    inside = scaled(image, size)
    height, width = inside.shape[:2]
    left, top = (size - width) // 2, (size - height) // 2
    pixels = np.full((size, size, 3), GREY, dtype=np.uint8)
    pixels[top : top + height, left : left + width] = inside
    return Letterbox(pixels, size / max(image.shape[:2]), left, top, height, width)


def scaled_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of an image when its long side has `size` pixels."""
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def scaled(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """`image` so that its long side has `size` pixels."""
    before = image.shape[:2]
    height, width = scaled_size(before[0], before[1], size)
    if (height, width) == before:
        return image
    # Averages over areas avoid aliasing in an image that shrinks, but show blocks in one that grows.
    way = cv2.INTER_AREA if size < max(before) else cv2.INTER_LINEAR
    result: NDArray[np.uint8] = cv2.resize(image, (width, height), interpolation=way)
    return result
