"""The pixels of a layout on a CPU: OpenCV warps one tile at a time.

On a CPU this is several times as fast as gathering (`benchmarks/trainer.py` measures both). OpenCV works in bytes and
rounds source positions to 1/32 of a pixel, so the pixels are those of gather.py up to rounding.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from evaluators.data.bank import as_images
from evaluators.data.layout import Layout
from evaluators.data.letterbox import GREY


def warped_images(
    pixels: Tensor,  # uint8 (images, size, size, 3), on the CPU
    layout: Layout,  # its tiles are indices into `pixels`
    colours: Tensor | None,  # (batch, 3, 3) of `draw_colour_matrices`
) -> Tensor:
    """The outputs, float32 (batch, 3, size, size) in [0, 1]: bilinear within an image, GREY elsewhere."""
    batch, size = len(layout.tiles), pixels.shape[1]
    source, outputs = pixels.numpy(), np.full((batch, size, size, 3), GREY, dtype=np.uint8)
    lists = (values.tolist() for values in (layout.tiles, layout.sizes, layout.flips, layout.centres, layout.scales))
    for output, tiles, sizes, flips, (cy, cx), scale in zip(outputs, *lists, strict=True):
        for number, (tile, (height, width), flip) in enumerate(zip(tiles, sizes, flips, strict=True)):
            below, right = divmod(number, 2)
            y, y_end, top = _span(cy, scale, height, below, size)
            x, x_end, left = _span(cx, scale, width, right, size)
            if y >= y_end or x >= x_end:
                continue
            across = (-1 / scale, 0.0, width - 1 - left) if flip else (1 / scale, 0.0, left)
            output[y:y_end, x:x_end] = cv2.warpAffine(
                source[tile, :height, :width],
                np.array([across, (0.0, 1 / scale, top)]),
                (x_end - x, y_end - y),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
    if colours is not None:
        for output, matrix in zip(outputs, colours.transpose(1, 2).numpy(), strict=True):
            cv2.transform(output, matrix, dst=output)
    return as_images(torch.from_numpy(outputs))


def _span(centre: float, scale: float, length: int, after: int, size: int) -> tuple[int, int, float]:
    """Where, along one axis, a tile lies in the output and what its first output pixel sees.

    The tile shows an image of `length` pixels before (`after` is 0) or after (1) the centre. Returns the first output pixel
    of the tile, the one past its last, and the position in the image at which the first one looks; OpenCV counts positions
    from the middle of pixel 0.
    """
    low = length * (after - 1)
    first, end = (math.ceil(centre + scale * at - 0.5) for at in (low, low + length))
    first = max(0, first)
    return first, min(size, end), (first + 0.5 - centre) / scale - low - 0.5
