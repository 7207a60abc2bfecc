"""A cache of decoded images on disk: other processes and later runs read bytes instead of decoding files again.

An entry is a whole split at one image size. Its key is a hash of the contents of the image files: a changed file gets another
key, and a data set that was moved keeps its key. The folder holds at most MOST_BYTES; the least recently used entry is deleted
first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpnas.files import replacing

FORMAT = 3
"""Part of every key. Raise it when the decoding or scaling of images changes."""

MOST_BYTES = 4 * 2**30
"""A split larger than half of this is not stored."""


class DecodedImages(NamedTuple):
    """The images of a split at one size, without those that cannot be used.

    pixels: (images, size, size, 3). kept: (images,), their positions among the files. broken: (files that cannot be used, 3),
    texts: the position among the files, the name of the kind of problem, and the reason.
    """

    pixels: NDArray[np.uint8]
    kept: NDArray[np.int64]
    broken: NDArray[np.str_]


def cache_folder() -> Path:
    """`gpnas/images` in the user's cache folder (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gpnas" / "images"


def is_kept(size: int) -> bool:
    """Whether the cache keeps a split of `size` bytes of pixels. One that is not kept need not be looked for."""
    return size <= MOST_BYTES // 2


def cached(
    folder: Path,
    files: Sequence[Path],
    shapes: Sequence[tuple[int, int]],  # width and height of each image, by its record
    size: int,  # of the long side after scaling
    decode: Callable[[], DecodedImages],
) -> DecodedImages:
    """The result of `decode`, read from `folder` if it was stored there for the same file contents, shapes and size.

    A folder that cannot be written or an entry that cannot be read is no error: the images are then decoded.
    """
    sha = hashlib.sha256(f"{FORMAT}/{size}/{list(shapes)}".encode())
    try:
        for file in files:
            sha.update(hashlib.sha256(file.read_bytes()).digest())
    except OSError:
        return decode()  # it says which file cannot be read
    path = folder / f"{sha.hexdigest()[:32]}.npz"
    arrays = stored_arrays(path, *DecodedImages._fields)
    if arrays is not None:
        with contextlib.suppress(OSError):
            os.utime(path)
        return DecodedImages(*arrays)
    images = decode()
    _store(path, images)
    return images


def _store(path: Path, images: DecodedImages) -> None:
    with contextlib.suppress(OSError):
        _make_room(path.parent, MOST_BYTES - images.pixels.nbytes)
    store_arrays(path, **images._asdict())


def store_arrays(path: Path, **arrays: Any) -> None:
    """Write arrays to a file of the cache, by name. On a full or read-only disk nothing is written, and the next process
    computes them again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)


def stored_arrays(path: Path, *names: str) -> list[NDArray[Any]] | None:
    """The arrays of these names that `store_arrays` wrote; None where they cannot be read."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as entry:
            return [entry[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _make_room(folder: Path, most: int) -> None:
    """Delete the least recently used entries until the others hold at most `most` bytes."""
    newest_first = sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in newest_first:
        total += path.stat().st_size
        if total > most:
            path.unlink(missing_ok=True)
