"""Which part of which image lies where in an output: mosaic, scale, shift and flip, drawn for a batch at once.

An output shows up to four tiles that touch at a centre (mosaic, arXiv:2004.10934, section 3.3). Each tile is one image. An
output without mosaic shows one tile, whose top left corner is the centre. Let c be the centre of an output, s its scale, and
w the width of the image in a tile. Column i of the image lies at output column

    x = c + s * u        u in [0, w) right of the centre, u in [-w, 0) left of it
    u = i                right of the centre (w - i in place of i if the image is flipped)
    u = i - w            left of the centre

and the same holds for rows. Boxes are moved by this map; pixels are picked by its inverse (warp.py, gather.py). Tiles are
numbered 2 * (1 if below the centre) + (1 if right of the centre): 0, 1 above, 2, 3 below.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from evaluators.data.augment import Augmentation
from evaluators.data.bank import Bank

_LEAST_AREA = 0.1  # a box is dropped if less than this share of its area stays in view
_LEAST_SIDE = 2.0  # or if one of its sides is shorter, in pixels


@dataclass(frozen=True)
class Layout:
    """The tiles of each output. Drawn on the CPU."""

    tiles: Tensor  # int64 (batch, 4): the image of each tile, an index into the bank; that of the last where there is no tile
    sizes: Tensor  # int64 (batch, 4, 2): height and width of that image; 0 where there is no tile
    flips: Tensor  # bool (batch, 4): whether the image is mirrored
    centres: Tensor  # float32 (batch, 2): y and x of the centre, in output pixels
    scales: Tensor  # float32 (batch,): output pixels per image pixel

    def part(self, outputs: slice | Tensor) -> Layout:
        """The layout of some of the outputs."""
        return Layout(*(values[outputs] for values in vars(self).values()))

    def followed_by(self, other: Layout) -> Layout:
        """The outputs of both layouts."""
        return Layout(*(torch.cat(both) for both in zip(vars(self).values(), vars(other).values(), strict=True)))


def draw_layout(
    bank: Bank,
    chosen: Tensor,  # int64 (batch,), indices into the bank
    augmentation: Augmentation,
    generator: torch.Generator,
    others: Tensor | None = None,  # int64 (any,), indices of the images that mosaics may add; None: all
) -> Layout:
    """One output for each chosen image, which lies below and right of the centre; a mosaic adds three random images."""
    batch, size, device = len(chosen), bank.size, chosen.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(shape, generator=generator, device=generator.device)
        return drawn.to(device) * (high - low) + low

    scales = uniform(1 - augmentation.scale, 1 + augmentation.scale, batch)
    shift = uniform(-augmentation.translate, augmentation.translate, batch, 2) * size
    is_mosaic = uniform(0, 1, batch) < augmentation.mosaic
    added = draw_images(bank, (batch, 3), generator, others)
    # Without mosaic only the tile below and right of the centre is present.
    present = is_mosaic[:, None] | torch.tensor([False, False, False, True], device=device)
    tiles = torch.where(present, torch.cat([added, chosen[:, None]], dim=1), chosen[:, None])
    flips = uniform(0, 1, batch, 4) < augmentation.flip
    # Vector from the output's middle to the centre, before scale and shift: random for a mosaic, else up and left by half
    # the size, so that the middle of the bank's square lies in the middle of the output.
    from_middle = torch.where(is_mosaic[:, None], uniform(-0.5, 0.5, batch, 2), torch.tensor(-0.5, device=device))
    centres = size / 2 + scales[:, None] * from_middle * size + shift
    return Layout(tiles, bank.sizes[tiles] * present[..., None], flips, centres, scales)


def draw_images(bank: Bank, shape: tuple[int, ...], generator: torch.Generator, pool: Tensor | None) -> Tensor:
    """Random images, int64 indices into the bank of that shape: of `pool`, (any,), or of all."""
    count = len(bank) if pool is None else len(pool)
    drawn = torch.randint(count, shape, generator=generator, device=generator.device).cpu()
    return drawn if pool is None else pool[drawn]


def moved_boxes(bank: Bank, layout: Layout) -> tuple[Tensor, Tensor]:
    """The boxes of all tiles where they lie in their output, and their classes.

    Boxes are clipped to the output; those of which too little stays in view are dropped. Returns boxes, float32
    (batch, most, 4), and classes, int64 (batch, most), with padding to the right: zeros, and class -1. most is at least 1.
    """
    batch, size, device = len(layout.tiles), bank.size, layout.tiles.device
    height, width = layout.sizes[..., None, 0], layout.sizes[..., None, 1]  # (batch, 4, 1)
    x1, y1, x2, y2 = bank.boxes[layout.tiles].unbind(-1)  # (batch, 4, boxes of an image)
    flips = layout.flips[..., None]
    x1, x2 = torch.where(flips, width - x2, x1), torch.where(flips, width - x1, x2)
    is_left = torch.tensor([True, False, True, False], device=device)[:, None]
    is_above = torch.tensor([True, True, False, False], device=device)[:, None]
    xs = torch.stack([x1, x2], dim=-1) - (is_left * width)[..., None]  # (batch, 4, boxes of an image, 2)
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
    return packed_boxes(boxes.flatten(1, 2), classes.flatten(1), kept.flatten(1))


def packed_boxes(
    boxes: Tensor,  # (batch, n, 4)
    classes: Tensor,  # (batch, n)
    kept: Tensor,  # bool (batch, n)
) -> tuple[Tensor, Tensor]:
    """The kept boxes and classes of each output, in their order, then padding."""
    most = max(1, int(kept.sum(1).max()))
    order = kept.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    kept = kept.gather(1, order)
    boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4)) * kept[..., None]
    return boxes, torch.where(kept, classes.gather(1, order), -1)
