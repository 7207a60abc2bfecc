"""A split of any size: images that do not fit into memory are decoded from their files, ahead of the step that needs them.

    bank = open_bank(records, 640, device)                   # an ImageBank where that fits, else a StreamedBank

Both kinds make the same batches. A StreamedBank keeps the images that it decoded last in a ring on the device, from which a
mosaic takes three of its four (batches.MOSAIC_WINDOW). So each image is decoded once an epoch. All cores decode; on a GPU the
images are sent from pinned memory while the GPU computes. Files stay on the disk: the operating system keeps as many of them
in its memory as fit.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.data.bank import Bank, Labels, Served, draw_scaled, load_bank, new_labels, sorted_out
from evaluators.data.cache import cache_folder, store_arrays, stored_arrays
from evaluators.data.images import Broken, decoding_threads, image_of, readable_image
from evaluators.data.letterbox import GREY
from evaluators.data.memory import bytes_of, fits, free_bytes
from evaluators.data.records import Record

_AHEAD = 4  # images that are decoded ahead, for each thread ...
_MOST_BATCHES = 16  # ... in so many batches at most
_RING_SHARE = 0.25  # of the free memory, which the ring takes at most


def open_bank(records: Sequence[Record], size: int, device: str | torch.device = "cpu", *, sharers: int = 1) -> Bank:
    """The images of `records` at `size` pixels for `device`: in memory where they fit, else streamed from their files.

    sharers: processes that open as many images at the same time. Every image is decoded once here, in both cases, so that a
    damaged one is found before any training. Raises what `load_bank` raises.
    """
    if not records or size < 1 or fits(len(records), size, device, sharers):
        return load_bank(records, size, device)
    kept, broken = _checked(records)
    return StreamedBank(
        new_labels(records, size, kept, broken, accept_broken=False), size, device, decoding_threads() // sharers
    )


class StreamedBank:
    """A bank that decodes its images when they are wanted. Its labels lie on the CPU."""

    def __init__(self, labels: Labels, size: int, device: str | torch.device, threads: int) -> None:
        self.sizes, self.boxes, self.classes, self.scales, self.records, self.problems = labels
        self.size, self.device = size, torch.device(device)
        self._labels, self._threads = labels, max(1, threads)
        self._ring = torch.empty((0, size, size, 3), dtype=torch.uint8, device=self.device)
        self._slots: OrderedDict[int, int] = OrderedDict()  # of each image in the ring, the oldest first

    def __len__(self) -> int:
        return len(self.records)

    def to(self, device: str | torch.device) -> StreamedBank:
        return self if self.device == torch.device(device) else StreamedBank(self._labels, self.size, device, self._threads)

    def served(self, wanted: Iterable[Tensor], again: int = 0) -> Generator[Served, None, None]:
        """See `Bank.served`. Raises DataError for a file that was damaged after the bank was opened."""
        pool, waiting, source = _Decoding(self._decode, self._threads), deque[Tensor](), iter(wanted)
        with contextlib.closing(pool):
            while True:
                while len(waiting) < 2 or (len(waiting) < _MOST_BATCHES and pool.unused < _AHEAD * self._threads):
                    indices = next(source, None)
                    if indices is None:
                        break
                    waiting.append(indices)
                    pool.begin(image for image in indices.flatten().tolist() if image not in self._slots)
                if not waiting:
                    return
                places = self._placed(waiting.popleft(), pool, again)
                yield Served(self._ring, places)

    def _decode(self, image: int) -> Tensor:
        square = torch.full((self.size, self.size, 3), GREY, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        draw_scaled(image_of(self.records[image]), square.numpy())
        return square

    def _placed(self, indices: Tensor, pool: _Decoding, again: int) -> Tensor:
        """The slots of the images, all of which are in the ring afterwards."""
        images = indices.flatten().tolist()
        self._grow(len(images), again)
        now = set(images)
        missing = [image for image in dict.fromkeys(images) if image not in self._slots]
        pool.begin(missing)  # those that left the ring after they were looked ahead for
        for image in missing:
            slot = self._free_slot(now)
            self._ring[slot].copy_(pool.result(image), non_blocking=True)
            self._slots[image] = slot
        return torch.tensor([self._slots[image] for image in images], dtype=torch.int64).view_as(indices)

    def _free_slot(self, now: set[int]) -> int:
        """A slot that holds no image, or else the oldest image that is not wanted now."""
        if len(self._slots) < len(self._ring):
            return len(self._slots)
        while True:
            image, slot = self._slots.popitem(last=False)
            if image not in now:
                return slot
            self._slots[image] = slot

    def _grow(self, at_once: int, again: int) -> None:
        """Let the ring hold `at_once` images, and `again` more as far as memory allows."""
        at_once = 1 << (at_once - 1).bit_length()  # batches differ a little in length, and a new ring is a copy
        wished = min(len(self), at_once + again)
        if len(self._ring) >= wished:
            return
        free = free_bytes(self.device)
        room = wished if free is None else int(_RING_SHARE * free) // bytes_of(1, self.size)
        count = max(min(wished, room), min(len(self), at_once))
        if count > len(self._ring):
            ring = self._ring.new_empty((count, *self._ring.shape[1:]))
            ring[: len(self._ring)] = self._ring
            self._ring = ring


class _Decoding:
    """Images that threads decode ahead. unused: how many were begun and not taken yet."""

    def __init__(self, decode: Callable[[int], Tensor], threads: int) -> None:
        self._decode, self._begun = decode, dict[int, Future[Tensor]]()
        self._pool = ThreadPoolExecutor(threads, "decoding")

    @property
    def unused(self) -> int:
        return len(self._begun)

    def begin(self, images: Iterable[int]) -> None:
        for image in images:
            if image not in self._begun:
                self._begun[image] = self._pool.submit(self._decode, image)

    def result(self, image: int) -> Tensor:
        return self._begun.pop(image).result()

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _checked(records: Sequence[Record]) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """`kept` and `broken` (cache.DecodedImages) of images that are decoded for this alone.

    A small file in the cache's folder keeps the verdicts. Its key has the path, length and time of each file, not its content:
    many GB would have to be read for that.
    """
    try:
        files = [(str(r.path), r.width, r.height, (stat := r.path.stat()).st_size, stat.st_mtime_ns) for r in records if r.path]
    except OSError:
        files = []  # decoding says which file is missing
    key = hashlib.sha256(repr(files).encode()).hexdigest()[:32]
    stored = cache_folder().parent / "checked" / f"{key}.npz"
    if len(files) == len(records):
        arrays = stored_arrays(stored, "kept", "broken")
        if arrays is not None:
            return arrays[0], arrays[1]

    def what_is_wrong(record: Record) -> Broken | None:
        image = readable_image(record)
        return image if isinstance(image, Broken) else None

    with ThreadPoolExecutor(decoding_threads()) as pool:
        kept, broken = sorted_out(list(pool.map(what_is_wrong, records)))
    if len(files) == len(records):
        store_arrays(stored, kept=kept, broken=broken)
    return kept, broken
