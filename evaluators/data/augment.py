"""Batches from an ImageBank: mosaic, scale, shift, flip and colour jitter, drawn for a whole batch at once.

Where an output pixel comes from is computed by one inverse map. The output shows up to four tiles, each one image, that
touch at a centre (mosaic, arXiv:2004.10934, section 3.3); an output without mosaic shows one tile whose top left corner
is the centre. With the centre c and the scale s of an output, and a tile's image of width w:

    x = c + s * u        u in [0, w) right of the centre, u in [-w, 0) left of it
    u = i                right of the centre, i = x in the tile's image (w - i if it is flipped)
    u = i - w            left of it

The inverse picks the pixels, and the forward map moves the boxes. On a GPU one gather picks those of a batch, four taps of the
bank's bytes each; on a processor OpenCV warps tile by tile, several times as fast there. All shapes carry the batch first, and
random numbers come from one generator in a fixed order: a seed repeats an epoch exactly.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from evaluators.data.bank import GREY, ImageBank, as_images


class Share(NamedTuple):
    """Which part of every batch one process of several computes; by default all of it."""

    rank: int = 0
    size: int = 1

    def of(self, images: int) -> slice:
        """The part of a batch of `images`; the parts of two processes differ by one image at most."""
        return slice(self.rank * images // self.size, (self.rank + 1) * images // self.size)


ALL = Share()

_LEAST_AREA = 0.1  # a box of which less than this share stays in view is dropped
_LEAST_SIDE = 2.0  # and so is one with a shorter side, in pixels


@dataclass(frozen=True)
class Augmentation:
    """How strongly training images are varied; all zero leaves them as they are.

    mosaic, flip: probability for an output, and for each image in it. scale: the factor lies in 1 +- scale.
    translate: shift in either direction, as a share of the size. hue: rotation in either direction, in turns.
    saturation, value: their factors lie in 1 +- x.
    """

    mosaic: float = 1.0
    scale: float = 0.5
    translate: float = 0.1
    flip: float = 0.5
    hue: float = 0.015
    saturation: float = 0.7
    value: float = 0.4

    def __post_init__(self) -> None:
        for name in ("mosaic", "flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, got {getattr(self, name)}")
        for name in ("scale", "translate", "hue", "saturation", "value"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")


@dataclass(frozen=True)
class Batch:
    """images: float32 (batch, 3, size, size) in [0, 1], channels_last. boxes: float32 (batch, most, 4), xyxy in pixels
    of the batch's size, zero padded. classes: int64 (batch, most), -1 where padded; most is at least 1. whole: images of the
    batch that these are a share of."""

    images: Tensor
    boxes: Tensor
    classes: Tensor
    whole: int


def train_batches(
    bank: ImageBank, batch_size: int, augmentation: Augmentation, generator: torch.Generator, share: Share = ALL
) -> Generator[Batch, None, None]:
    """One epoch, shuffled: every image leads one output. A last batch of a single image is left out (batch
    normalisation cannot learn from it), unless it is the only one. Every process gets its `share` of each batch; all of
    them draw the same numbers."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    count = len(bank.pixels)
    order = torch.randperm(count, generator=generator, device=generator.device).to(bank.pixels.device)
    for start in range(0, count, batch_size):
        chosen = order[start : start + batch_size]
        if start and len(chosen) < min(2 * share.size, batch_size):
            return
        yield augmented(bank, chosen, augmentation, generator, share)


def ahead(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """The same batches in the same order, each made by a thread while the one before it is used: OpenCV and torch work without
    Python's lock. What the making raises is raised here; a consumer that stops early (`close`) ends the thread."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=1)
    ended = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not ended.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def make() -> None:
        torch.set_num_threads(1)  # of this thread alone: the others belong to the training
        try:
            for batch in batches:
                put(batch)
                if ended.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    maker = threading.Thread(target=make, name="augmentation", daemon=True)
    maker.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
        maker.join()


def plain_batches(bank: ImageBank, batch_size: int) -> Iterator[tuple[Tensor, slice]]:
    """The bank's images in order, unchanged: float32 (batch, 3, size, size) and which images of the bank they are."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    for start in range(0, len(bank.pixels), batch_size):
        part = slice(start, min(start + batch_size, len(bank.pixels)))
        yield as_images(bank.pixels[part]), part


def augmented(
    bank: ImageBank, chosen: Tensor, augmentation: Augmentation, generator: torch.Generator, share: Share = ALL
) -> Batch:
    """One output for each image of `chosen`: int64 (batch,), indices into the bank. Only the outputs of `share` are made."""
    mine = share.of(len(chosen))
    layout = _layout(bank, chosen, augmentation, generator).part(mine)
    colours = _colour_matrices(len(chosen), augmentation, generator)
    images = (_warped if _on_processor(bank) else _gathered)(bank, layout, None if colours is None else colours[mine])
    boxes, classes = _moved(bank, layout)
    return Batch(images, boxes, classes, len(chosen))


def _on_processor(bank: ImageBank) -> bool:
    return bank.pixels.device.type == "cpu"


@dataclass(frozen=True)
class _Layout:
    """Where the tiles of each output lie. Tiles are numbered 2 * below + right of the centre.

    tiles: int64 (batch, 4), indices into the bank. sizes: (batch, 4, 2), height and width of a tile's image, 0 where
    there is no tile. flips: bool (batch, 4). centres: (batch, 2), y and x in output pixels. scales: (batch,).
    """

    tiles: Tensor
    sizes: Tensor
    flips: Tensor
    centres: Tensor
    scales: Tensor

    def part(self, which: slice) -> _Layout:
        return _Layout(*(values[which] for values in vars(self).values()))


def _layout(bank: ImageBank, chosen: Tensor, augmentation: Augmentation, generator: torch.Generator) -> _Layout:
    batch, size, device = len(chosen), bank.pixels.shape[1], bank.pixels.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(shape, generator=generator, device=generator.device)
        return drawn.to(device) * (high - low) + low

    scales = uniform(1 - augmentation.scale, 1 + augmentation.scale, batch)
    shift = uniform(-augmentation.translate, augmentation.translate, batch, 2) * size
    is_mosaic = uniform(0, 1, batch) < augmentation.mosaic
    others = torch.randint(len(bank.pixels), (batch, 3), generator=generator, device=generator.device).to(device)
    tiles = torch.cat([others, chosen[:, None]], dim=1)
    # Without mosaic only the tile right below the centre is there.
    present = is_mosaic[:, None] | torch.tensor([False, False, False, True], device=device)
    flips = uniform(0, 1, batch, 4) < augmentation.flip
    # The output's middle sees the middle of the one image, or a point at most half a size from the mosaic's centre.
    from_middle = torch.where(is_mosaic[:, None], uniform(-0.5, 0.5, batch, 2), torch.tensor(-0.5, device=device))
    centres = size / 2 + scales[:, None] * from_middle * size + shift
    return _Layout(tiles, bank.sizes[tiles] * present[..., None], flips, centres, scales)


def _warped(bank: ImageBank, layout: _Layout, colours: Tensor | None) -> Tensor:
    """The outputs, float32 (batch, 3, size, size) in [0, 1]: bilinear within an image, in bytes, GREY outside."""
    batch, size = len(layout.tiles), bank.pixels.shape[1]
    source, seen = bank.pixels.numpy(), np.full((batch, size, size, 3), GREY, dtype=np.uint8)
    lists = (values.tolist() for values in (layout.tiles, layout.sizes, layout.flips, layout.centres, layout.scales))
    for output, tiles, sizes, flips, (cy, cx), scale in zip(seen, *lists, strict=True):
        for number, (tile, (height, width), flip) in enumerate(zip(tiles, sizes, flips, strict=True)):
            below, right = divmod(number, 2)
            y, bottom, top = _span(cy, scale, height, below, size)
            x, end, left = _span(cx, scale, width, right, size)
            if y >= bottom or x >= end:
                continue
            across = (-1 / scale, 0.0, width - 1 - left) if flip else (1 / scale, 0.0, left)
            output[y:bottom, x:end] = cv2.warpAffine(
                source[tile, :height, :width],
                np.array([across, (0.0, 1 / scale, top)]),
                (end - x, bottom - y),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
    if colours is not None:
        for output, matrix in zip(seen, colours.transpose(1, 2).numpy(), strict=True):
            cv2.transform(output, matrix, dst=output)
    return as_images(torch.from_numpy(seen))


def _span(centre: float, scale: float, length: int, beyond: int, size: int) -> tuple[int, int, float]:
    """Along one axis, the output pixels that see an image of `length` pixels before (0) or `beyond` (1) the centre: the first,
    past the last, and where the first sees the image, counted from the middle of its pixel 0, as OpenCV counts."""
    low = length * (beyond - 1)
    first, end = (math.ceil(centre + scale * at - 0.5) for at in (low, low + length))
    first = max(0, first)
    return first, min(size, end), (first + 0.5 - centre) / scale - low - 0.5


def _gathered(bank: ImageBank, layout: _Layout, colours: Tensor | None) -> Tensor:
    """The same, for the whole batch at once and unrounded."""
    pixels = _sampled(bank, layout)
    if colours is not None:
        pixels = torch.bmm(pixels.flatten(1, 2), colours.to(pixels.device)).clamp_(0, 1).view_as(pixels)
    return pixels.permute(0, 3, 1, 2)


def _sampled(bank: ImageBank, layout: _Layout) -> Tensor:
    """The outputs' pixels, float32 (batch, size, size, 3) in [0, 1]: bilinear within an image, GREY outside.

    A pixel's source row depends on its own row and on which side of the centre it lies, and so for its column: both are
    computed for lines of pixels, (batch, 2 sides, size), and only put together for each pixel.
    """
    batch, size = len(layout.tiles), bank.pixels.shape[1]
    right, above, below = 1, 0, 2  # in the numbers of the tiles
    v, u = _offsets(layout, 0, size), _offsets(layout, 1, size)
    tile_of_row = torch.where(v < 0, above, below)[:, None, :] + torch.arange(2, device=v.device)[:, None]
    tile_of_column = torch.where(u < 0, 0, right)[:, None, :] + 2 * torch.arange(2, device=u.device)[:, None]
    rows = _line(v, layout, tile_of_row, axis=0)
    columns = _line(u, layout, tile_of_column, axis=1)
    first = layout.tiles.gather(1, tile_of_row.flatten(1)).view_as(tile_of_row) * size
    # A bank of fewer than 2^31 pixels is indexed by 32 bits, which halves the traffic.
    index = torch.int32 if bank.pixels.numel() // 3 < 2**31 else torch.int64
    is_right, is_below = (u >= 0)[:, None, :], (v >= 0)[:, :, None]

    def by_row(values: Tensor) -> Tensor:  # (batch, 2, size) -> (batch, size, size)
        return torch.where(is_right, values[:, 1, :, None], values[:, 0, :, None])

    def by_column(values: Tensor) -> Tensor:
        return torch.where(is_below, values[:, 1, None, :], values[:, 0, None, :])

    upper, lower = (by_row(((first + tap) * size).to(index)) for tap in rows.taps)
    left, right_ = (by_column(tap.to(index)) for tap in columns.taps)
    flat = bank.pixels.view(-1, 3)

    def taken(row: Tensor, column: Tensor) -> Tensor:
        return flat.index_select(0, (row + column).view(-1)).float()

    fx = by_column(columns.fractions).view(-1, 1).expand(-1, 3).contiguous()  # one float a value: no broadcasting below
    fy = by_row(rows.fractions).view(-1, 1).expand(-1, 3).contiguous()
    pixels = taken(upper, left).lerp_(taken(upper, right_), fx)  # in place: fresh memory costs more than the sum
    pixels.lerp_(taken(lower, left).lerp_(taken(lower, right_), fx), fy)
    outside = by_row(rows.outside) | by_column(columns.outside)
    return pixels.masked_fill_(outside.view(-1, 1), GREY).div_(255).view(batch, size, size, 3)


@dataclass(frozen=True)
class _Line:
    """Source positions along one axis, each (batch, 2, size): two neighbouring pixels, the weight of the second, and
    whether the position is outside the image."""

    taps: tuple[Tensor, Tensor]
    fractions: Tensor
    outside: Tensor


def _offsets(layout: _Layout, axis: int, size: int) -> Tensor:
    """v (axis 0) or u (axis 1) of the output's pixel centres: (batch, size), image pixels from the centre."""
    at = torch.arange(size, device=layout.centres.device) + 0.5
    return (at - layout.centres[:, axis, None]) / layout.scales[:, None]


def _line(offsets: Tensor, layout: _Layout, tile: Tensor, axis: int) -> _Line:
    """The inverse map along one axis, for the tile (batch, 2, size) in which each position would lie."""
    length = layout.sizes[..., axis].gather(1, tile.flatten(1)).view_as(tile)
    at = offsets[:, None, :] + torch.where(offsets[:, None, :] < 0, length, 0)
    outside = (at < 0) | (at >= length)
    if axis == 1:
        at = torch.where(layout.flips.gather(1, tile.flatten(1)).view_as(tile), length - at, at)
    at = at - 0.5  # the middle of pixel 0 is 0
    last = (length - 1).clamp(min=0).to(at.dtype)
    lower = at.floor()
    first, second = (lower + step for step in (0, 1))
    zero = torch.zeros_like(last)
    return _Line((first.clamp(zero, last).long(), second.clamp(zero, last).long()), at - lower, outside)


def _colour_matrices(batch: int, augmentation: Augmentation, generator: torch.Generator) -> Tensor | None:
    """(batch, 3, 3), to multiply RGB rows from the right: hue, then saturation, then value; None if nothing varies.

    All three are linear when hue turns colours about the grey axis (Rodrigues' formula) and saturation moves them to
    or from their luma (ITU-R BT.601): far cheaper than a way to HSV and back, and the same to the eye.
    """
    limits = torch.tensor([augmentation.hue, augmentation.saturation, augmentation.value])
    if not limits.any():
        return None
    drawn = torch.rand((batch, 3), generator=generator, device=generator.device).cpu() * 2 - 1
    turn, saturation, value = (drawn * limits).view(batch, 3, 1, 1).unbind(1)
    angle = 2 * math.pi * turn
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    hues = angle.cos() * torch.eye(3) + (1 - angle.cos()) / 3 + angle.sin() * cross
    luma = torch.tensor([0.299, 0.587, 0.114]).expand(3, 3)
    saturations = (1 + saturation) * torch.eye(3) - saturation * luma
    return ((1 + value) * saturations @ hues).transpose(1, 2).contiguous()


def _moved(bank: ImageBank, layout: _Layout) -> tuple[Tensor, Tensor]:
    """The boxes of all tiles in the output, and their classes: clipped, those that left dropped, packed to the left."""
    batch, size, device = len(layout.tiles), bank.pixels.shape[1], bank.pixels.device
    height, width = layout.sizes[..., None, 0], layout.sizes[..., None, 1]  # (batch, 4, 1), beside (batch, 4, boxes)
    x1, y1, x2, y2 = bank.boxes[layout.tiles].unbind(-1)
    flips = layout.flips[..., None]
    x1, x2 = torch.where(flips, width - x2, x1), torch.where(flips, width - x1, x2)
    is_left = torch.tensor([True, False, True, False], device=device)[:, None]
    is_above = torch.tensor([True, True, False, False], device=device)[:, None]
    xs = torch.stack([x1, x2], dim=-1) - (is_left * width)[..., None]
    ys = torch.stack([y1, y2], dim=-1) - (is_above * height)[..., None]
    scales = layout.scales.view(batch, 1, 1, 1)
    xs = xs * scales + layout.centres[:, 1].view(batch, 1, 1, 1)
    ys = ys * scales + layout.centres[:, 0].view(batch, 1, 1, 1)
    areas = xs.diff(dim=-1) * ys.diff(dim=-1)
    xs, ys = xs.clamp(0, size), ys.clamp(0, size)
    sides = torch.cat([xs.diff(dim=-1), ys.diff(dim=-1)], dim=-1)
    classes = bank.classes[layout.tiles]
    kept = (classes >= 0) & (width > 0) & (sides.amin(-1) >= _LEAST_SIDE)
    kept &= sides.prod(-1) >= _LEAST_AREA * areas.squeeze(-1)
    boxes = torch.stack([xs[..., 0], ys[..., 0], xs[..., 1], ys[..., 1]], dim=-1)
    return _packed(boxes.flatten(1, 2), classes.flatten(1), kept.flatten(1))


def _packed(boxes: Tensor, classes: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The kept of (batch, n, 4) boxes and (batch, n) classes first, in their order, then padding."""
    most = max(1, int(kept.sum(1).max()))
    order = kept.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    kept = kept.gather(1, order)
    boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4)) * kept[..., None]
    return boxes, torch.where(kept, classes.gather(1, order), -1)
