"""The pixels of a layout on a GPU: four gathers from a bank pick those of a whole batch at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evaluators.data.layout import Layout
from evaluators.data.letterbox import GREY
from evaluators.device import in_pieces

MOST_PIXELS = 2**22
"""Pixels that are made at once, 64 images of 256 pixels or 10 of 640: with about 90 bytes each they take 0.4 GB."""


def gathered_images(
    pixels: Tensor,  # uint8 (images, size, size, 3)
    layout: Layout,  # on the device of `pixels`; its tiles are indices into them
    colours: Tensor | None,  # (batch, 3, 3) of `draw_colour_matrices`, on that device
) -> Tensor:
    """The outputs, float32 (batch, 3, size, size) in [0, 1]: bilinear within an image, GREY elsewhere, not rounded to bytes.

    A few images are made at a time, because making one takes the memory of seven. Raises OutOfMemory.
    """
    batch, size = len(layout.tiles), pixels.shape[1]
    made = torch.empty((batch, size, size, 3), device=pixels.device)

    def make(part: slice) -> None:
        sampled = _sampled(pixels, layout.part(part))
        if colours is not None:
            sampled = torch.bmm(sampled.flatten(1, 2), colours[part]).clamp_(0, 1).view_as(sampled)
        made[part] = sampled

    for _ in in_pieces(batch, max(1, MOST_PIXELS // size**2), make, made.device, f"images of {size} pixels"):
        pass
    return made.permute(0, 3, 1, 2)


def _sampled(images: Tensor, layout: Layout) -> Tensor:
    """float32 (batch, size, size, 3) in [0, 1], before the colour jitter.

    The source row of an output pixel depends on its row and on the side of the centre on which its column lies, not on the
    column itself; the same holds for the source column. Both are computed for lines of pixels, (batch, 2 sides, size), and
    combined for each pixel afterwards.
    """
    batch, size = len(layout.tiles), images.shape[1]
    right, above, below = 1, 0, 2  # in the numbers of the tiles
    v, u = _offsets(layout, 0, size), _offsets(layout, 1, size)
    tile_of_row = torch.where(v < 0, above, below)[:, None, :] + torch.arange(2, device=v.device)[:, None]
    tile_of_column = torch.where(u < 0, 0, right)[:, None, :] + 2 * torch.arange(2, device=u.device)[:, None]
    rows = _source(v, layout, tile_of_row, axis=0)
    columns = _source(u, layout, tile_of_column, axis=1)
    first = layout.tiles.gather(1, tile_of_row.flatten(1)).view_as(tile_of_row) * size
    # Images of fewer than 2^31 pixels are indexed by 32 bits, which halves the memory traffic.
    index = torch.int32 if images.numel() // 3 < 2**31 else torch.int64
    is_right, is_below = (u >= 0)[:, None, :], (v >= 0)[:, :, None]

    def by_row(values: Tensor) -> Tensor:  # (batch, 2, size) -> (batch, size, size)
        return torch.where(is_right, values[:, 1, :, None], values[:, 0, :, None])

    def by_column(values: Tensor) -> Tensor:  # (batch, 2, size) -> (batch, size, size)
        return torch.where(is_below, values[:, 1, None, :], values[:, 0, None, :])

    upper_row, lower_row = (by_row(((first + row) * size).to(index)) for row in rows.neighbours)
    left_column, right_column = (by_column(column.to(index)) for column in columns.neighbours)
    flat = images.view(-1, 3)

    def taken(row: Tensor, column: Tensor) -> Tensor:
        return flat.index_select(0, (row + column).view(-1)).float()

    fx = by_column(columns.fractions).view(-1, 1).expand(-1, 3).contiguous()  # one float a value: no broadcasting below
    fy = by_row(rows.fractions).view(-1, 1).expand(-1, 3).contiguous()
    pixels = taken(upper_row, left_column).lerp_(taken(upper_row, right_column), fx)  # in place: new memory costs more
    pixels.lerp_(taken(lower_row, left_column).lerp_(taken(lower_row, right_column), fx), fy)
    outside = by_row(rows.outside) | by_column(columns.outside)
    return pixels.masked_fill_(outside.view(-1, 1), GREY).div_(255).view(batch, size, size, 3)


@dataclass(frozen=True)
class _Source:
    """Where output pixels look in their images, along one axis. All tensors are (batch, 2, size)."""

    neighbours: tuple[Tensor, Tensor]  # int64: the two image pixels beside the position
    fractions: Tensor  # the weight of the second
    outside: Tensor  # bool: the position is not in the image


def _offsets(layout: Layout, axis: int, size: int) -> Tensor:
    """v (axis 0) or u (axis 1) of the output's pixel centres: (batch, size), image pixels from the centre of the tiles."""
    at = torch.arange(size, device=layout.centres.device) + 0.5
    return (at - layout.centres[:, axis, None]) / layout.scales[:, None]


def _source(
    offsets: Tensor,  # (batch, size)
    layout: Layout,
    tile: Tensor,  # (batch, 2, size): the tile in which each position lies
    axis: int,
) -> _Source:
    """The inverse of the layout's map along one axis."""
    length = layout.sizes[..., axis].gather(1, tile.flatten(1)).view_as(tile)
    at = offsets[:, None, :] + torch.where(offsets[:, None, :] < 0, length, 0)
    outside = (at < 0) | (at >= length)
    if axis == 1:
        at = torch.where(layout.flips.gather(1, tile.flatten(1)).view_as(tile), length - at, at)
    at = at - 0.5  # from here on 0 is the middle of pixel 0
    last = (length - 1).clamp(min=0).to(at.dtype)
    lower = at.floor()
    first, second = (lower + step for step in (0, 1))
    zero = torch.zeros_like(last)
    return _Source((first.clamp(zero, last).long(), second.clamp(zero, last).long()), at - lower, outside)
