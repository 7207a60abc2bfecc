"""The image bank: a split at one image size as bytes on a device, so that an epoch reads no file."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.data.cache import DecodedImages, cache_folder, cached
from evaluators.data.images import DECODING_THREADS, Broken, readable_image
from evaluators.data.letterbox import GREY, scaled
from evaluators.data.problems import Findings, Kind, Problem, check_problems
from evaluators.data.records import Record
from gpnas.errors import DataError, InputError


@dataclass
class ImageBank:
    """A split at one image size, on one device.

    Each image is scaled so that its long side has `size` pixels. It lies in the top left corner of a square; the rest is GREY.
    """

    pixels: Tensor  # uint8 (images, size, size, 3), RGB
    sizes: Tensor  # int64 (images, 2), height and width of the scaled image
    boxes: Tensor  # float32 (images, most, 4), xyxy in scaled pixels, without crowds, zero padded
    classes: Tensor  # int64 (images, most), -1 where padded
    scales: Tensor  # float32 (images,), scaled pixels per original pixel
    records: tuple[Record, ...]  # of the images
    problems: tuple[Problem, ...] = ()  # images that were left out, because they cannot be read or have another size

    def to(self, device: str | torch.device) -> ImageBank:
        """The same bank on another device; itself where it lies there already."""
        if self.pixels.device == torch.device(device):
            return self
        return replace(
            self,
            pixels=self.pixels.to(device),
            sizes=self.sizes.to(device),
            boxes=self.boxes.to(device),
            classes=self.classes.to(device),
            scales=self.scales.to(device),
        )


def load_bank(
    records: Sequence[Record], size: int, device: str | torch.device = "cpu", *, accept_broken: bool = False
) -> ImageBank:
    """The images of `records`, decoded or read from the cache (cache.py), scaled to `size` pixels and put on `device`.

    Images that are damaged or not of their record's size are left out. Raises DataError if there are no records, or too many
    such images (problems.py) unless any number of them is to be accepted; InputError for images that do not fit into memory;
    ValueError for a size below 1.
    """
    if not records:
        raise DataError("no images to load; give a split that has some")
    if size < 1:
        raise ValueError(f"size must be positive, got {size}")
    check_memory(len(records), size, "cpu")
    files = [record.path for record in records if record.path is not None]
    if len(files) == len(records):
        shapes = [(record.width, record.height) for record in records]  # part of the cache's key: decoding checks them
        images = cached(cache_folder(), files, shapes, size, lambda: _decoded(records, size))
    else:
        images = _decoded(records, size)
    problems = _problems(images, records)
    if not accept_broken:
        check_problems("the images", problems, strict=False)
        if not len(images.kept):
            raise DataError(f"no image can be used: {'. '.join(map(str, problems))}; restore the files")
    records = tuple(records[i] for i in images.kept.tolist())
    sizes = [(int(height), int(width)) for height, width in images.sizes]
    scales = np.array([size / max(r.width, r.height) for r in records], dtype=np.float32)
    boxes, classes = _padded(records, scales, sizes)
    return ImageBank(
        pixels=torch.from_numpy(images.pixels).to(device),
        sizes=torch.tensor(sizes, dtype=torch.int64, device=device),
        boxes=torch.from_numpy(boxes).to(device),
        classes=torch.from_numpy(classes).to(device),
        scales=torch.from_numpy(scales).to(device),
        records=records,
        problems=problems,
    )


def check_memory(images: int, size: int, device: str | torch.device, copies: int = 1, option: str = "--imgsz") -> None:
    """Raises InputError when `copies` of that many images at `size` pixels do not fit into the free memory of `device`.

    option: of the command line, which sets the size.
    """
    needed, free = copies * images * size * size * 3, _free_bytes(torch.device(device))
    if free is None or needed <= free:
        return
    fits = int((free / (3 * copies * images)) ** 0.5) // 32 * 32
    remedy = f"{option} {fits} would fit" if fits else "use fewer images"
    where = "memory" if torch.device(device).type == "cpu" else "the memory of the GPU"
    raise InputError(
        f"{option} {size}: {images} images of {size} x {size} pixels take {needed / 2**30:.1f} GiB of {where}, of which "
        f"{free / 2**30:.1f} GiB are free; {remedy}"
    )


def _free_bytes(device: torch.device) -> int | None:
    """Bytes that can be allocated on a device; None where the system does not tell (macOS and Windows, for a CPU)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _problems(images: DecodedImages, records: Sequence[Record]) -> tuple[Problem, ...]:
    """The problems of images that cannot be used."""
    found = Findings()
    for position, kind, reason in images.broken.tolist():
        found.add(Kind[kind], f"{records[int(position)].path} {reason}")
    return found.problems({"image": len(records)})


def _decoded(records: Sequence[Record], size: int) -> DecodedImages:
    pixels = np.full((len(records), size, size, 3), GREY, dtype=np.uint8)

    def place(i: int) -> tuple[int, int] | Broken:
        image = readable_image(records[i])
        if isinstance(image, Broken):
            return image
        inside = scaled(image, size)
        pixels[i, : inside.shape[0], : inside.shape[1]] = inside
        return inside.shape[0], inside.shape[1]

    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        placed = list(pool.map(place, range(len(records))))
    kept = [i for i, result in enumerate(placed) if not isinstance(result, Broken)]
    sizes = np.array([placed[i] for i in kept], dtype=np.int64).reshape(-1, 2)
    broken = [(str(i), result.kind.name, result.reason) for i, result in enumerate(placed) if isinstance(result, Broken)]
    if broken:
        pixels = pixels[kept]
    return DecodedImages(pixels, sizes, np.array(kept, dtype=np.int64), np.array(broken, dtype=np.str_).reshape(-1, 3))


def as_images(pixels: Tensor) -> Tensor:
    """uint8 (batch, height, width, 3) -> float32 (batch, 3, height, width) in [0, 1], channels_last: what a network reads."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last).div_(255)


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
