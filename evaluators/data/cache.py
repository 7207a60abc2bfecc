"""Decoded images on disk, so that every process and every later run reads bytes instead of decoding files again.

What is kept is a whole split at one image size, under a hash of the files' contents: a changed file is another key, and a moved
data set is the same one. The folder holds at most MOST_BYTES; what was not read for the longest time goes first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpnas.files import replacing

FORMAT = 1
"""Part of every key: to be raised when the scaling of images changes."""

MOST_BYTES = 4 * 2**30
"""Splits that are larger than half of this are not kept."""

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Pixels (images, size, size, 3) and sizes (images, 2) of an ImageBank."""


def cache_folder() -> Path:
    """`gpnas/images` in the user's cache folder (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gpnas" / "images"


def cached(
    folder: Path, files: Sequence[Path], shapes: Sequence[tuple[int, int]], size: int, make: Callable[[], Images]
) -> Images:
    """What `make` returns, read from `folder` when it was made before of the same contents, said to have the same shapes (width
    and height of each image), at the same size.

    A folder that cannot be written, or a file that cannot be read, costs time but no result.
    """
    sha = hashlib.sha256(f"{FORMAT}/{size}/{list(shapes)}".encode())
    try:
        for file in files:
            sha.update(hashlib.sha256(file.read_bytes()).digest())
    except OSError:
        return make()  # which tells what is the matter with the file
    path = folder / f"{sha.hexdigest()[:32]}.npz"
    try:
        with np.load(path, allow_pickle=False) as kept:
            images = kept["pixels"], kept["sizes"]
        os.utime(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        images = make()
        _keep(path, images)
    return images


def _keep(path: Path, images: Images) -> None:
    pixels, sizes = images
    if pixels.nbytes > MOST_BYTES // 2:
        return
    with contextlib.suppress(OSError):  # a full or read-only disk: the next process decodes again
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_room(path.parent, MOST_BYTES - pixels.nbytes)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, pixels=pixels, sizes=sizes)


def _make_room(folder: Path, most: int) -> None:
    kept = sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in kept:
        total += path.stat().st_size
        if total > most:
            path.unlink(missing_ok=True)
