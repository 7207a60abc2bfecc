"""Batches of images from an ImageBank: augmented and shuffled for training, unchanged and in order for evaluation.

    for batch in prefetched(train_batches(bank, 16, Augmentation(), torch.Generator().manual_seed(0))):
        batch.images, batch.boxes, batch.classes

All random numbers come from one generator in a fixed order: the same seed gives the same epoch.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from evaluators.data.augment import Augmentation
from evaluators.data.bank import ImageBank, as_images
from evaluators.data.colours import draw_colour_matrices
from evaluators.data.gather import gathered_images
from evaluators.data.layout import Layout, draw_layout, moved_boxes
from evaluators.data.warp import warped_images


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
    bank: ImageBank,
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
    count = len(bank.pixels)
    order = torch.randperm(count, generator=generator, device=generator.device).to(bank.pixels.device)
    for start in range(0, count, batch_size):
        chosen = order[start : start + batch_size]
        if start and len(chosen) < min(2 * share.size, batch_size):
            return
        yield augmented(bank, chosen, augmentation, generator, share)


def plain_batches(bank: ImageBank, batch_size: int) -> Iterator[tuple[Tensor, slice]]:
    """The bank's images in order, unchanged: float32 (batch, 3, size, size), and their indices in the bank."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    for start in range(0, len(bank.pixels), batch_size):
        part = slice(start, min(start + batch_size, len(bank.pixels)))
        yield as_images(bank.pixels[part]), part


def augmented(
    bank: ImageBank,
    chosen: Tensor,  # int64 (batch,), indices into the bank
    augmentation: Augmentation,
    generator: torch.Generator,
    share: BatchShare = WHOLE_BATCH,
) -> Batch:
    """One output for each chosen image. Numbers are drawn for the whole batch; only the outputs of `share` are made."""
    mine = share.of(len(chosen))
    layout = draw_layout(bank, chosen, augmentation, generator).part(mine)
    colours = draw_colour_matrices(len(chosen), augmentation, generator)
    render = renderer_for(bank.pixels.device)
    images = render(bank, layout, None if colours is None else colours[mine])
    boxes, classes = moved_boxes(bank, layout)
    return Batch(images, boxes, classes, len(chosen))


Renderer = Callable[[ImageBank, Layout, Tensor | None], Tensor]
"""Makes the images of a layout, with colour matrices or None."""


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
