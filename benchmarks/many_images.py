"""What it takes to train on as many images as COCO has: seconds to open them, and resident memory while batches are made.

    python benchmarks/many_images.py FOLDER [--images 118287] [--imgsz 640] [--batch 16] [--steps 300]

Makes FOLDER/images: small JPEG files, most of them hard links to a few hundred, so that they take little disk. All count as
different images with boxes of their own. Memory does not depend on the size of the files, only on --imgsz; decoding larger
files takes longer than is shown here. Nothing is trained.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from evaluators.data import streamed
from evaluators.data.augment import Augmentation
from evaluators.data.batches import MOSAIC_WINDOW, train_batches
from evaluators.data.images import decoding_threads, image_of
from evaluators.data.memory import bytes_of, free_bytes
from evaluators.data.records import Record
from evaluators.data.streamed import StreamedBank, open_bank

DISTINCT = 300
"""Files with a content of their own."""

WIDTH, HEIGHT, BOXES = 160, 120, 7


def linked_files(folder: Path, count: int) -> list[Path]:
    """`count` JPEG files, DISTINCT of them with an own content. Those that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, paths = np.random.default_rng(0), [folder / f"{i:06}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        if path.exists():
            continue
        if i < DISTINCT:
            noise = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
            cv2.imwrite(str(path), cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))
        else:
            os.link(paths[i % DISTINCT], path)
    return paths


def boxed(paths: list[Path]) -> list[Record]:
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, [WIDTH * 0.7, HEIGHT * 0.7], (len(paths), BOXES, 2))
    sides = rng.uniform(6, [WIDTH * 0.3, HEIGHT * 0.3], (len(paths), BOXES, 2))
    boxes = np.concatenate([corners, corners + sides], axis=2).astype(np.float32)
    classes = rng.integers(0, 80, (len(paths), BOXES))
    return [Record(i, WIDTH, HEIGHT, boxes[i], classes[i], path=path) for i, path in enumerate(paths)]


def resident_gib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    records = boxed(linked_files(arguments.folder / "images", arguments.images))
    free, needed = free_bytes(torch.device("cpu")), bytes_of(arguments.images, arguments.imgsz)
    print(
        f"{len(records)} images at {arguments.imgsz} px take {needed / 2**30:.1f} GiB; {(free or 0) / 2**30:.1f} GiB are free"
    )
    print(f"resident before: {resident_gib():.2f} GiB (torch, and the records)")
    for attempt in ("first", "second"):
        began, busy = time.perf_counter(), time.process_time()
        bank = open_bank(records, arguments.imgsz)
        took, busy = time.perf_counter() - began, time.process_time() - busy
        print(f"opened for the {attempt} time: {took:.1f} s, {type(bank).__name__}, resident {resident_gib():.2f} GiB")
        print(f"  {busy:.1f} s of a core")
    if not isinstance(bank, StreamedBank):
        print("the images fit into memory; nothing is streamed")
        return

    decoded = 0

    def counted(record: Record) -> np.ndarray:
        nonlocal decoded
        decoded += 1
        return image_of(record)

    streamed.image_of = counted
    made, began = (
        train_batches(bank, arguments.batch, Augmentation(), torch.Generator().manual_seed(0), ahead=True),
        time.perf_counter(),
    )
    images, largest, busy = 0, 0.0, time.process_time()
    for batch in itertools.islice(made, arguments.steps):
        images += batch.full_size
        largest = max(largest, resident_gib())
    took, busy = time.perf_counter() - began, time.process_time() - busy
    made.close()
    print(f"{images} images in batches of {arguments.batch}, mosaics of the last {MOSAIC_WINDOW}: {images / took:.0f} a second")
    print(f"  {1000 * busy / images:.1f} ms of a core an image")
    print(f"decoded {decoded}, {decoding_threads()} threads; resident {largest:.2f} GiB at most")


if __name__ == "__main__":
    main()
