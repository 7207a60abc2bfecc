"""Batches of images from a bank: augmented and shuffled for training, unchanged and in order for evaluation.

    for batch in prefetched(train_batches(bank, 16, Augmentation(), torch.Generator().manual_seed(0))):
        batch.images, batch.boxes, batch.classes

All random numbers come from one generator in a fixed order: the same seed gives the same epoch.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from evaluators.data.augment import Augmentation
from evaluators.data.bank import Bank, as_images
from evaluators.data.colours import draw_colour_matrices
from evaluators.data.gather import gathered_images
from evaluators.data.layout import Layout, draw_images, draw_layout, moved_boxes, packed_boxes
from evaluators.data.warp import warped_images

MOSAIC_WINDOW = 2048
"""A mosaic of a larger split takes its other three images from the last so many of the epoch, in place of all.

So each image must be decoded only once an epoch (streamed.py). Banks of both kinds do the same.
"""

_BETA = 63
"""Uniform numbers whose median has the distribution Beta(32, 32), as the 32nd of 63 in their order has: the weight of the
first of two blended images, as in YOLOv9's trainer (github.com/WongKinYiu/yolov9, utils/augmentations.py)."""


class BatchShare(NamedTuple):
    """The part of every batch that process `rank` of `size` processes computes."""

    rank: int = 0
    size: int = 1

    def of(self, images: int) -> slice:
        """Its part of a batch of `images` images; the parts of two processes differ by at most one image."""
        return slice(self.rank * images // self.size, (self.rank + 1) * images // self.size)


WHOLE_BATCH = BatchShare()
"""The share of a process that trains alone."""


@dataclass(frozen=True)
class Batch:
    """A process's share of one batch. most is at least 1."""

    images: Tensor  # float32 (share, 3, size, size) in [0, 1], channels_last
    boxes: Tensor  # float32 (share, most, 4), xyxy in pixels of the batch's size, zero padded
    classes: Tensor  # int64 (share, most), -1 where padded
    full_size: int  # number of images in the batch, over all processes


def train_batches(
    bank: Bank,
    batch_size: int,
    augmentation: Augmentation,
    generator: torch.Generator,
    share: BatchShare = WHOLE_BATCH,
) -> Generator[Batch, None, None]:
    """One epoch, shuffled: every image leads one output.

    A process gets its `share` of each batch; all processes draw the same numbers. Batch normalisation
    cannot learn from one image, so a last batch with fewer than two images for each process is left out, unless it is full or
    the only one. Raises ValueError for a batch_size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    plans, again = itertools.tee(_plans(bank, batch_size, augmentation, generator, share))
    with contextlib.closing(bank.served((plan.layout.tiles for plan in again), MOSAIC_WINDOW)) as served:
        for plan, (pixels, places) in zip(plans, served, strict=True):
            yield made(bank, plan, pixels, places)


def _plans(
    bank: Bank, batch_size: int, augmentation: Augmentation, generator: torch.Generator, share: BatchShare
) -> Iterator[Plan]:
    count = len(bank)
    order = torch.randperm(count, generator=generator, device=generator.device).to(bank.sizes.device)
    for start in range(0, count, batch_size):
        end = min(start + batch_size, count)
        if start and end - start < min(2 * share.size, batch_size):
            return
        recent = order[max(0, end - MOSAIC_WINDOW) : end] if count > MOSAIC_WINDOW else None
        yield draw_plan(bank, order[start:end], augmentation, generator, share, recent)


def plain_batches(bank: Bank, batch_size: int) -> Iterator[tuple[Tensor, slice]]:
    """The bank's images in order, unchanged: float32 (batch, 3, size, size), and their indices in the bank."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    parts = [slice(start, min(start + batch_size, len(bank))) for start in range(0, len(bank), batch_size)]
    wanted = (torch.arange(part.start, part.stop, device=bank.sizes.device) for part in parts)
    for part, (pixels, places) in zip(parts, bank.served(wanted), strict=True):
        yield as_images(pixels[places.to(pixels.device)]), part


@dataclass(frozen=True)
class Plan:
    """What a process's share of a batch shows, before any pixel is made.

    Some outputs are blends of two (MixUp, arXiv:1710.09412). The seconds stand behind the `share` outputs in the layout.
    """

    layout: Layout  # of share + blends outputs, with indices into the bank
    colours: Tensor | None  # float32 (share + blends, 3, 3)
    blended: Tensor  # int64 (blends,): which outputs of the share are blended
    weights: Tensor  # float32 (blends,): of the first of the two
    full_size: int  # number of images in the batch, over all processes


def draw_plan(
    bank: Bank,
    chosen: Tensor,  # int64 (batch,), indices into the bank
    augmentation: Augmentation,
    generator: torch.Generator,
    share: BatchShare = WHOLE_BATCH,
    others: Tensor | None = None,  # int64 (any,), the images that mosaics and blends may add; None: all
) -> Plan:
    """One output for each chosen image. Numbers are drawn for the whole batch; the plan has only the outputs of `share`."""
    mine = share.of(len(chosen))
    whole = draw_layout(bank, chosen, augmentation, generator, others)
    colours = draw_colour_matrices(len(chosen), augmentation, generator)
    layout, colours = whole.part(mine), None if colours is None else colours[mine]
    if not augmentation.mixup or not augmentation.mosaic:
        nothing = torch.zeros(0, dtype=torch.int64)
        return Plan(layout, colours, nothing, nothing.float(), len(chosen))
    leaders = draw_images(bank, (len(chosen),), generator, others)
    seconds = draw_layout(bank, leaders, replace(augmentation, mosaic=1.0), generator, others).part(mine)
    drawn = torch.rand((len(chosen), 1 + _BETA), generator=generator, device=generator.device).cpu()[mine]
    is_mosaic = layout.sizes[:, 0, 0].cpu() > 0
    blended = ((drawn[:, 0] < augmentation.mixup) & is_mosaic).nonzero().squeeze(1)
    layout = layout.followed_by(seconds.part(blended.to(seconds.tiles.device)))
    colours = None if colours is None else torch.cat([colours, colours[blended]])
    return Plan(layout, colours, blended, drawn[blended, 1:].median(dim=1).values, len(chosen))


def made(
    bank: Bank,
    plan: Plan,
    pixels: Tensor,  # uint8 (any, size, size, 3), as `Bank.served` gives them
    places: Tensor,  # int64 (share + blends, 4), the tiles' indices into `pixels`
) -> Batch:
    """The batch that a plan describes, on the bank's device."""
    render = renderer_for(pixels.device)
    images = render(pixels, plan.layout.at(places, pixels.device), plan.colours)
    boxes, classes = moved_boxes(bank, plan.layout)
    if len(plan.blended):
        images = _blended(images, plan.blended.to(images.device), plan.weights.to(images.device))
        boxes, classes = _joined(boxes, classes, plan.blended.to(boxes.device))
    return Batch(images, boxes.to(pixels.device), classes.to(pixels.device), plan.full_size)


def _blended(images: Tensor, blended: Tensor, weights: Tensor) -> Tensor:
    """The outputs of the share, (share, 3, size, size), some of them blended with the images behind them."""
    share = len(images) - len(blended)
    first, second = images[blended], images[share:]
    images = images[:share]
    images[blended] = second.lerp(first, weights.view(-1, 1, 1, 1))
    return images


def _joined(boxes: Tensor, classes: Tensor, blended: Tensor) -> tuple[Tensor, Tensor]:
    """The boxes and classes of the share, those of both images where two are blended, packed as `moved_boxes` packs them."""
    share, most = len(boxes) - len(blended), boxes.shape[1]
    boxes, more_boxes = torch.cat([boxes[:share], torch.zeros_like(boxes[:share])], dim=1), boxes[share:]
    classes, more = torch.cat([classes[:share], torch.full_like(classes[:share], -1)], dim=1), classes[share:]
    boxes[blended, most:], classes[blended, most:] = more_boxes, more
    return packed_boxes(boxes, classes, classes >= 0)


def augmented(
    bank: Bank,
    chosen: Tensor,  # int64 (batch,), indices into the bank
    augmentation: Augmentation,
    generator: torch.Generator,
    share: BatchShare = WHOLE_BATCH,
) -> Batch:
    """A single batch: one output for each chosen image."""
    plan = draw_plan(bank, chosen, augmentation, generator, share)
    [(pixels, places)] = bank.served([plan.layout.tiles])
    return made(bank, plan, pixels, places)


Renderer = Callable[[Tensor, Layout, Tensor | None], Tensor]
"""Makes the images of a layout from pixels, with colour matrices or None."""


def renderer_for(device: torch.device) -> Renderer:
    return warped_images if device.type == "cpu" else gathered_images


def prefetched(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """The same batches in the same order; a thread makes each one while the one before it is used.

    OpenCV and torch release Python's lock. An error in the thread is raised here. A consumer that stops early (`close`) ends
    the thread.
    """
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
        torch.set_num_threads(1)  # in this thread only: the other cores belong to the training
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
