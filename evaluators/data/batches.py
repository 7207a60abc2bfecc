"""Batches of images from an ImageBank, augmented and shuffled for training.

    for batch in train_batches(bank, 16, Augmentation(), torch.Generator().manual_seed(0), ahead=True):
        batch.images, batch.boxes, batch.classes

All random numbers come from one generator in a fixed order: the same seed gives the same epoch.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from evaluators.data.augment import Augmentation
from evaluators.data.bank import ImageBank
from evaluators.data.colours import draw_colour_matrices
from evaluators.data.gather import gathered_images
from evaluators.data.layout import Layout, draw_layout, moved_boxes
from evaluators.data.parcel import Parcel, packed, unpacked
from evaluators.data.warp import warped_images

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


class BatchPlan(NamedTuple):
    """A process's share of one batch before its pixels are made, worked out on the CPU.

    parcel: the tensors of its layout, boxes, classes and, unless colours stay as they are, colour matrices.
    """

    parcel: Parcel
    full_size: int  # number of images in the batch, over all processes


def train_batches(
    bank: ImageBank,
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
    plans = _planned(bank, batch_size, augmentation, generator, share)
    if not ahead:
        return _made(bank, plans)
    return prefetched(_made(bank, plans)) if bank.pixels.device.type == "cpu" else _made(bank, prefetched(plans))


def _planned(
    bank: ImageBank, batch_size: int, augmentation: Augmentation, generator: torch.Generator, share: BatchShare
) -> Generator[BatchPlan, None, None]:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    count = len(bank.pixels)
    order = torch.randperm(count, generator=generator, device=generator.device).cpu()
    for start in range(0, count, batch_size):
        chosen = order[start : start + batch_size]
        if start and len(chosen) < min(2 * share.size, batch_size):
            return
        yield _plan(bank, chosen, augmentation, generator, share)


def _plan(
    bank: ImageBank, chosen: Tensor, augmentation: Augmentation, generator: torch.Generator, share: BatchShare
) -> BatchPlan:
    mine = share.of(len(chosen))
    layout = draw_layout(bank, chosen, augmentation, generator).part(mine)
    colours = draw_colour_matrices(len(chosen), augmentation, generator)
    tensors = [*vars(layout).values(), *moved_boxes(bank, layout), *([] if colours is None else [colours[mine]])]
    return BatchPlan(packed(tensors, pin=bank.pixels.device.type == "cuda"), len(chosen))


def _made(bank: ImageBank, plans: Generator[BatchPlan, None, None]) -> Generator[Batch, None, None]:
    with contextlib.closing(plans):
        for plan in plans:
            yield _rendered(bank, plan)


def _rendered(bank: ImageBank, plan: BatchPlan) -> Batch:
    tensors = unpacked(plan.parcel, bank.pixels.device)
    layout, (boxes, classes, *colours) = Layout(*tensors[:_OF_LAYOUT]), tensors[_OF_LAYOUT:]
    images = renderer_for(bank.pixels.device)(bank, layout, colours[0] if colours else None)
    return Batch(images, boxes, classes, plan.full_size)


_OF_LAYOUT = len(fields(Layout))


def augmented(
    bank: ImageBank,
    chosen: Tensor,  # int64 (batch,), indices into the bank
    augmentation: Augmentation,
    generator: torch.Generator,
    share: BatchShare = WHOLE_BATCH,
) -> Batch:
    """One output for each chosen image. Numbers are drawn for the whole batch; only the outputs of `share` are made."""
    return _rendered(bank, _plan(bank, chosen, augmentation, generator, share))


Renderer = Callable[[ImageBank, Layout, Tensor | None], Tensor]
"""Makes the images of a layout, with colour matrices or None."""


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
