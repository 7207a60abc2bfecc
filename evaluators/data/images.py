"""Image files as RGB bytes, refused by name when they are damaged or not of their record's size; sizes from headers alone."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluators.data.problems import Kind
from evaluators.data.records import Record
from gpnas.errors import DataError

IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".bmp",
        ".dib",
        ".webp",
        ".tif",
        ".tiff",
        ".gif",
        ".avif",
        ".jp2",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    ]
)
"""In lower case: what OpenCV decodes. Of a file with several frames the first one is the image."""

HEADER_THREADS = 8
"""Threads that read headers at the same time: they wait for the disk."""

_TURNED_BY_EXIF = frozenset({"JPEG", "MPO", "PNG", "WEBP"})
"""Formats whose EXIF orientation OpenCV applies. Pillow tells the size of a TIFF after it was turned."""

_QUARTER_TURNS = frozenset({5, 6, 7, 8})
"""Values of the EXIF tag Orientation that swap width and height (EXIF 2.3, 4.6.4 A)."""


def decoding_threads() -> int:
    """Threads that decode images at the same time: one for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def images_below(folder: Path) -> list[Path]:
    """The images below a folder, sorted by path, without hidden ones (macOS puts a ._a.jpg beside each a.jpg)."""
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts))


class Broken(NamedTuple):
    """Why an image cannot be used: the kind of problem, and the reason, which follows the name of the file in a sentence."""

    kind: Kind
    reason: str


def read_image(path: Path) -> NDArray[np.uint8]:
    """The image of a file as uint8 (height, width, 3), RGB, rotated as its EXIF says.

    Grey, palette, alpha and 16-bit images become 8-bit RGB; alpha is dropped. Raises DataError for a file that is missing,
    truncated or no image.
    """
    image = _decoded(path)
    if isinstance(image, str):
        raise DataError(f"the image {path} {image}; restore it or remove it from the data")
    return image


def _decoded(path: Path) -> NDArray[np.uint8] | str:
    """The image of a file, or what is wrong with it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    # OpenCV 4 fills the missing part of a truncated file with grey, without an error.
    if _is_truncated(content):
        return "is truncated"
    try:
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR) if content else None
    except cv2.error:  # a header that promises an absurd size
        image = None
    if image is None:
        return "is not a readable image"
    rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def _is_truncated(content: bytes) -> bool:
    """Whether a JPEG, PNG, WebP or BMP file is cut off. For other formats only the decoder can tell."""
    if content.startswith(b"\xff\xd8"):
        return not _has_jpeg_end(content)
    if content.startswith(b"\x89PNG"):
        return content.rfind(b"IEND") < 0
    if content.startswith(b"RIFF"):
        return len(content) < 8 + int.from_bytes(content[4:8], "little")
    if content.startswith(b"BM"):
        return len(content) < int.from_bytes(content[2:6], "little")
    return False


def _has_jpeg_end(content: bytes) -> bool:
    """Whether the end marker FFD9 follows the first scan (ITU-T T.81, B.1).

    The segments before the scan are skipped, because a thumbnail in the EXIF has an end marker of its own.
    """
    at = 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        at += 2 + length
        if marker == 0xDA:
            return content.find(b"\xff\xd9", at) >= 0
    return False


def image_of(record: Record) -> NDArray[np.uint8]:
    """The image of a record as uint8 (height, width, 3), RGB. Raises DataError if it is damaged or not of the record's size."""
    image = readable_image(record)
    if isinstance(image, Broken):
        raise DataError(f"the image {record.path} {image.reason}; correct its annotation, or restore or remove the file")
    return image


def readable_image(record: Record) -> NDArray[np.uint8] | Broken:
    """The image of a record, or why it cannot be used: it is damaged or not of the record's size."""
    if record.pixels is not None:
        return record.pixels
    assert record.path is not None  # Record checks it
    image = _decoded(record.path)
    if isinstance(image, str):
        return Broken(Kind.UNREADABLE, image)
    height, width = image.shape[:2]
    if (width, height) == (record.width, record.height):
        return image
    turned = " (its EXIF turns it)" if (height, width) == (record.width, record.height) else ""
    return Broken(Kind.OTHER_SIZE, f"has {width}x{height} pixels{turned}, not {record.width}x{record.height}")


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, after the rotation that the EXIF asks for, from the header: nothing is decoded.

    Raises DataError for a file that is missing, or whose header cannot be read.
    """
    from PIL import Image, UnidentifiedImageError  # late: only opening a data set needs it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of many pixels and of damaged EXIF
            with Image.open(path) as image:
                width, height = image.size
                turned = image.format in _TURNED_BY_EXIF and image.getexif().get(0x0112) in _QUARTER_TURNS
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"the image {path} has no readable header ({error}); restore it or remove it") from error
    return (height, width) if turned else (width, height)
