"""Banks: a split at one image size, ready for batches. `ImageBank` holds all images as bytes on a device, so that an epoch
reads no file; streamed.py has the bank of a split that does not fit into memory.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.data.cache import DecodedImages, cache_folder, cached, is_kept
from evaluators.data.images import Broken, decoding_threads, readable_image
from evaluators.data.letterbox import GREY, scaled, scaled_size
from evaluators.data.memory import bytes_of, check_memory
from evaluators.data.problems import Findings, Kind, Problem, check_problems
from evaluators.data.records import Record
from gpnas.errors import DataError


class Served(NamedTuple):
    """Where wanted images are."""

    pixels: Tensor  # uint8 (any, size, size, 3), RGB, on the bank's device
    places: Tensor  # int64, of the shape that was asked for, on the CPU: the first index into `pixels` of each image


class Bank(Protocol):
    """A split at one image size. Batches are made of it on `device`.

    Each image is scaled so that its long side has `size` pixels. It lies in the top left corner of a square; the rest is GREY.
    The pixels are got by `served`; all else is there at once, on the CPU, where batches are laid out.

        for pixels, places in bank.served([torch.tensor([3, 5]), torch.tensor([7, 0])]):
            pixels[places]                              # images 3 and 5, then 7 and 0
    """

    @property
    def sizes(self) -> Tensor: ...  # int64 (images, 2), height and width of the scaled image
    @property
    def boxes(self) -> Tensor: ...  # float32 (images, most, 4), xyxy in scaled pixels, without crowds, zero padded
    @property
    def classes(self) -> Tensor: ...  # int64 (images, most), -1 where padded
    @property
    def scales(self) -> Tensor: ...  # float32 (images,), scaled pixels per original pixel
    @property
    def records(self) -> tuple[Record, ...]: ...  # of the images
    @property
    def problems(self) -> tuple[Problem, ...]: ...  # images that were left out: they cannot be read, or have another size
    @property
    def size(self) -> int: ...  # pixels
    @property
    def device(self) -> torch.device: ...

    def __len__(self) -> int:
        """The number of images."""

    def served(self, wanted: Iterable[Tensor], again: int = 0) -> Generator[Served, None, None]:
        """The pixels of the images of each tensor of indices, which lies on the CPU. They may change when the next is taken.
        again: images last wanted, of which some will be wanted again."""

    def to(self, device: str | torch.device) -> Bank:
        """The same bank for another device; itself where it is for that one already."""


@dataclass
class ImageBank:
    """A bank that holds the pixels of all its images on one device."""

    pixels: Tensor  # uint8 (images, size, size, 3), RGB
    sizes: Tensor
    boxes: Tensor
    classes: Tensor
    scales: Tensor
    records: tuple[Record, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def size(self) -> int:
        return self.pixels.shape[1]

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    def __len__(self) -> int:
        return len(self.pixels)

    def served(self, wanted: Iterable[Tensor], again: int = 0) -> Generator[Served, None, None]:
        return (Served(self.pixels, indices) for indices in wanted)

    def to(self, device: str | torch.device) -> ImageBank:
        """The same bank with its pixels on another device; itself where they lie there already."""
        if self.pixels.device == torch.device(device):
            return self
        return replace(self, pixels=self.pixels.to(device))


def load_bank(
    records: Sequence[Record], size: int, device: str | torch.device = "cpu", *, accept_broken: bool = False
) -> ImageBank:
    """The images of `records`, decoded or read from the cache (cache.py), scaled to `size` pixels; their pixels on `device`.

    Images that are damaged or not of their record's size are left out. Raises DataError if there are no records, or too many
    such images (problems.py) unless any number of them is to be accepted; InputError for images that do not fit into memory;
    ValueError for a size below 1.
    """
    if not records:
        raise DataError("no images to load; give a split that has some")
    if size < 1:
        raise ValueError(f"size must be positive, got {size}")
    check_memory(len(records), size)
    files = [record.path for record in records if record.path is not None]
    # A split that the cache would not keep is not hashed either.
    if len(files) == len(records) and is_kept(bytes_of(len(records), size)):
        shapes = [(record.width, record.height) for record in records]  # part of the cache's key: decoding checks them
        images = cached(cache_folder(), files, shapes, size, lambda: _decoded(records, size))
    else:
        images = _decoded(records, size)
    labels = new_labels(records, size, images.kept, images.broken, accept_broken=accept_broken)
    return ImageBank(torch.from_numpy(images.pixels).to(device), *labels)


class Labels(NamedTuple):
    """All of a bank but its pixels, on the CPU, in the order of ImageBank's fields; `Bank` says what each is."""

    sizes: Tensor
    boxes: Tensor
    classes: Tensor
    scales: Tensor
    records: tuple[Record, ...]
    problems: tuple[Problem, ...]


def new_labels(
    records: Sequence[Record],
    size: int,
    kept: NDArray[np.int64],  # positions of the records whose images can be used
    broken: NDArray[np.str_],  # (others, 3), as DecodedImages has them
    *,
    accept_broken: bool,
) -> Labels:
    """The labels of the images that can be used. Raises DataError as `load_bank` does."""
    problems = _problems(broken, records)
    if not accept_broken:
        check_problems("the images", problems, strict=False)
        if not len(kept):
            raise DataError(f"no image can be used: {'. '.join(map(str, problems))}; restore the files")
    records = tuple(records[i] for i in kept.tolist())
    sizes = [scaled_size(r.height, r.width, size) for r in records]
    scales = np.array([size / max(r.width, r.height) for r in records], dtype=np.float32)
    boxes, classes = _padded(records, scales, sizes)
    return Labels(
        sizes=torch.tensor(sizes, dtype=torch.int64).view(-1, 2),
        boxes=torch.from_numpy(boxes),
        classes=torch.from_numpy(classes),
        scales=torch.from_numpy(scales),
        records=records,
        problems=problems,
    )


def _problems(broken: NDArray[np.str_], records: Sequence[Record]) -> tuple[Problem, ...]:
    """The problems of images that cannot be used."""
    found = Findings()
    for position, kind, reason in broken.tolist():
        found.add(Kind[kind], f"{records[int(position)].path} {reason}")
    return found.problems({"image": len(records)})


def _decoded(records: Sequence[Record], size: int) -> DecodedImages:
    pixels = np.full((len(records), size, size, 3), GREY, dtype=np.uint8)

    def place(i: int) -> Broken | None:
        image = readable_image(records[i])
        if isinstance(image, Broken):
            return image
        draw_scaled(image, pixels[i])
        return None

    with ThreadPoolExecutor(decoding_threads()) as pool:
        kept, broken = sorted_out(list(pool.map(place, range(len(records)))))
    return DecodedImages(pixels[kept] if len(broken) else pixels, kept, broken)


def sorted_out(found: Sequence[Broken | None]) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """`kept` and `broken` of DecodedImages, from what is wrong with each image."""
    kept = [i for i, what in enumerate(found) if what is None]
    broken = [(str(i), what.kind.name, what.reason) for i, what in enumerate(found) if what is not None]
    return np.array(kept, dtype=np.int64), np.array(broken, dtype=np.str_).reshape(-1, 3)


def as_images(pixels: Tensor) -> Tensor:
    """uint8 (batch, height, width, 3) -> float32 (batch, 3, height, width) in [0, 1], channels_last: what a network reads."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last).div_(255)


def draw_scaled(
    image: NDArray[np.uint8],  # (height, width, 3)
    square: NDArray[np.uint8],  # (size, size, 3)
) -> None:
    """Scale an image into the top left corner of a square."""
    inside = scaled(image, len(square))
    square[: inside.shape[0], : inside.shape[1]] = inside


def _padded(
    records: Sequence[Record], scales: NDArray[np.float32], sizes: Sequence[tuple[int, int]]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The boxes and classes of a bank, without crowds. Boxes are clipped to `sizes`, which are rounded to whole pixels."""
    kept = [~record.crowd for record in records]
    most = max([1, *(int(keep.sum()) for keep in kept)])
    boxes = np.zeros((len(records), most, 4), dtype=np.float32)
    classes = np.full((len(records), most), -1, dtype=np.int64)
    for i, (record, keep, (height, width)) in enumerate(zip(records, kept, sizes, strict=True)):
        n = int(keep.sum())
        boxes[i, :n] = np.minimum(record.boxes[keep] * scales[i], [width, height, width, height])
        classes[i, :n] = record.classes[keep]
    return boxes, classes
