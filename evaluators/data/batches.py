"""Batches of images from a bank, augmented and shuffled for training.

    for batch in train_batches(bank, 16, Augmentation(), torch.Generator().manual_seed(0), ahead=True):
        batch.images, batch.boxes, batch.classes

All random numbers come from one generator in a fixed order: the same seed gives the same epoch. A batch is drawn and laid out
on the CPU (`Plan`) and sent to the bank's device in one copy (`PackedPlan`), where its pixels are made.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from evaluators.data.augment import Augmentation
from evaluators.data.bank import Bank, Served
from evaluators.data.colours import draw_colour_matrices
from evaluators.data.gather import gathered_images
from evaluators.data.layout import Layout, draw_images, draw_layout, moved_boxes, packed_boxes
from evaluators.data.parcel import Parcel, packed, unpacked
from evaluators.data.warp import warped_images

MOSAIC_WINDOW = 2048
"""A mosaic of a larger split takes its other three images from the last so many of the epoch, in place of all.

So each image must be decoded only once an epoch (streamed.py). Banks of both kinds do the same.
"""

_BETA = 63
"""Uniform numbers whose median has the distribution Beta(32, 32), as the 32nd of 63 in their order has: the weight of the
first of two blended images, as in YOLOv9's trainer (github.com/WongKinYiu/yolov9, utils/augmentations.py)."""

_OF_LAYOUT = len(fields(Layout))

Item = TypeVar("Item")


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
    *,
    ahead: bool = False,
) -> Generator[Batch, None, None]:
    """One epoch, shuffled: every image leads one output.

    A process gets its `share` of each batch; all processes draw the same numbers. Batch normalisation
    cannot learn from one image, so a last batch with fewer than two images for each process is left out, unless it is full or
    the only one. ahead: a thread prepares the next batch, on a CPU with its pixels. On a GPU the pixels are only queued, by
    this thread, so that the two do not compete for Python's lock. Raises ValueError for a batch_size below 1, OutOfMemory.
    """
    plans = (packed_plan(bank, plan) for plan in _plans(bank, batch_size, augmentation, generator, share))
    if not ahead:
        return _made(bank, plans)
    return prefetched(_made(bank, plans)) if bank.device.type == "cpu" else _made(bank, prefetched(plans))


def _plans(
    bank: Bank, batch_size: int, augmentation: Augmentation, generator: torch.Generator, share: BatchShare
) -> Iterator[Plan]:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    count = len(bank)
    order = torch.randperm(count, generator=generator, device=generator.device).cpu()
    for start in range(0, count, batch_size):
        end = min(start + batch_size, count)
        if start and end - start < min(2 * share.size, batch_size):
            return
        recent = order[max(0, end - MOSAIC_WINDOW) : end] if count > MOSAIC_WINDOW else None
        yield draw_plan(bank, order[start:end], augmentation, generator, share, recent)


def _made(bank: Bank, plans: Generator[PackedPlan, None, None]) -> Generator[Batch, None, None]:
    now, before = itertools.tee(plans)  # a bank looks at plans before they are made
    with (
        contextlib.closing(plans),
        contextlib.closing(bank.served((plan.tiles for plan in before), MOSAIC_WINDOW)) as all_served,
    ):
        for plan, served in zip(now, all_served, strict=True):
            yield made(bank, plan, served)


@dataclass(frozen=True)
class Plan:
    """What a process's share of a batch shows, before any pixel is made. All tensors lie on the CPU.

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
    is_mosaic = layout.sizes[:, 0, 0] > 0
    blended = ((drawn[:, 0] < augmentation.mixup) & is_mosaic).nonzero().squeeze(1)
    layout = layout.followed_by(seconds.part(blended))
    colours = None if colours is None else torch.cat([colours, colours[blended]])
    return Plan(layout, colours, blended, drawn[blended, 1:].median(dim=1).values, len(chosen))


class PackedPlan(NamedTuple):
    """A plan, and the boxes and classes of its outputs, ready to be sent to the bank's device.

    tiles: int64 (share + blends, 4), on the CPU, indices into the bank.
    parcel: the tensors of the layout, boxes, classes, which outputs are blended, the weights of blends and, unless colours stay
    as they are, colour matrices.
    """

    tiles: Tensor
    parcel: Parcel
    full_size: int  # number of images in the batch, over all processes


def packed_plan(bank: Bank, plan: Plan) -> PackedPlan:
    boxes, classes = moved_boxes(bank, plan.layout)
    if len(plan.blended):
        boxes, classes = _joined(boxes, classes, plan.blended)
    tensors = [*vars(plan.layout).values(), boxes, classes, plan.blended, plan.weights]
    tensors += [] if plan.colours is None else [plan.colours]
    return PackedPlan(plan.layout.tiles, packed(tensors, pin=bank.device.type == "cuda"), plan.full_size)


def made(bank: Bank, plan: PackedPlan, served: Served) -> Batch:
    """The batch that a plan describes, on the bank's device. served: of the plan's tiles."""
    device = bank.device
    tensors = unpacked(plan.parcel, device)
    layout, (boxes, classes, blended, weights, *colours) = Layout(*tensors[:_OF_LAYOUT]), tensors[_OF_LAYOUT:]
    if served.places is not plan.tiles:  # the bank's pixels are not all there, and those of the tiles are somewhere else
        [places] = unpacked(packed([served.places], pin=device.type == "cuda"), device)
        layout = replace(layout, tiles=places)
    images = renderer_for(device)(served.pixels, layout, colours[0] if colours else None)
    if len(blended):
        images = _blended(images, blended, weights)
    return Batch(images, boxes, classes, plan.full_size)


def _blended(images: Tensor, blended: Tensor, weights: Tensor) -> Tensor:
    """The outputs of the share, (share, 3, size, size), some of them blended with the images behind them."""
    share = len(images) - len(blended)
    first, second = images[blended], images[share:]
    return images[:share].index_copy_(0, blended, second.lerp(first, weights.view(-1, 1, 1, 1)))


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
    plan = packed_plan(bank, draw_plan(bank, chosen, augmentation, generator, share))
    [served] = bank.served([plan.tiles])
    return made(bank, plan, served)


Renderer = Callable[[Tensor, Layout, Tensor | None], Tensor]
"""Makes the images of a layout from pixels, with colour matrices or None."""


def renderer_for(device: torch.device) -> Renderer:
    return warped_images if device.type == "cpu" else gathered_images


def prefetched(batches: Iterator[Item]) -> Generator[Item, None, None]:
    """The same batches (or plans) in the same order; a thread makes each one while the one before it is used.

    OpenCV and torch release Python's lock. An error in the thread is raised here. A consumer that stops early (`close`) ends
    the thread.
    """
    ready: queue.Queue[Item | BaseException | None] = queue.Queue(maxsize=1)
    ended = threading.Event()

    def put(item: Item | BaseException | None) -> None:
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
