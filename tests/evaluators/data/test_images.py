"""Image files become RGB bytes, and damaged ones are refused by name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from evaluators.data.bank import load_bank
from evaluators.data.images import image_of, image_size, read_image
from evaluators.data.open import open_data
from evaluators.data.records import Record
from gpnas.errors import DataError
from tests.evaluators.data.small_data import (
    HEIGHT,
    WIDTH,
    picture,
    write_coco,
    write_picture,
)


def jpeg_with_exif(rgb: NDArray[np.uint8], orientation: int) -> bytes:
    """A JPEG with an orientation tag, and a false end marker in the same segment, as a thumbnail would have."""
    tiff = b"II*\x00\x08\x00\x00\x00" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b"Exif\x00\x00" + tiff + b"\xff\xd9"
    plain = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]


def palette_png(indices: NDArray[np.uint8], colours: list[tuple[int, int, int]]) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = indices.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    rows = b"".join(b"\x00" + row.tobytes() for row in indices)
    palette = bytes(v for colour in colours for v in colour)
    chunks = [(b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def test_exif_turns_the_image_and_its_size_alike(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg_with_exif(picture(), orientation=6))  # show it turned by 90 degrees clockwise
    image = read_image(path)
    assert image.shape == (WIDTH, HEIGHT, 3)
    assert np.abs(image.astype(int) - np.rot90(picture(), -1)).max() < 12  # JPEG is not exact
    turned = Record(1, HEIGHT, WIDTH, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), path)
    assert load_bank([turned], 60).sizes.tolist() == [[60, 40]]
    unturned = Record(1, WIDTH, HEIGHT, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), path)
    with pytest.raises(DataError, match=r"turned\.jpg has 40x60 pixels \(its EXIF turns it\), not 60x40"):
        load_bank([unturned], 60)


def test_grey_palette_alpha_and_16_bit_images_become_rgb_bytes(tmp_path: Path) -> None:
    rgb = picture()
    grey = rgb[..., 0]
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([rgb[..., ::-1], grey]))
    cv2.imwrite(str(tmp_path / "deep.png"), rgb[..., ::-1].astype(np.uint16) * 257)
    colours = [(250, 10, 20), (0, 200, 90)]
    chosen = (grey > 100).astype(np.uint8)
    (tmp_path / "palette.png").write_bytes(palette_png(chosen, colours))
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=-1))
    assert np.array_equal(read_image(tmp_path / "alpha.png"), rgb)
    assert np.array_equal(read_image(tmp_path / "deep.png"), rgb)
    assert np.array_equal(read_image(tmp_path / "palette.png"), np.array(colours, dtype=np.uint8)[chosen])


@pytest.mark.parametrize("kind", ["jpg", "exif.jpg", "png", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.5, 0.98])
def test_a_truncated_image_is_refused_by_name(tmp_path: Path, kind: str, share: float) -> None:
    path = write_picture(tmp_path / f"cut.{kind}", picture())
    content = jpeg_with_exif(picture(), 1) if kind == "exif.jpg" else path.read_bytes()
    path.write_bytes(content)
    assert read_image(path).shape == (HEIGHT, WIDTH, 3)
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=rf"cut\.{kind} is truncated; restore it"):
        read_image(path)


def test_other_formats_are_left_to_the_decoder(tmp_path: Path) -> None:
    assert np.array_equal(read_image(write_picture(tmp_path / "a.tiff", picture())), picture())


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8"])
def test_what_is_no_image_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.jpg (is not a readable image|is truncated); restore it"):
        read_image(tmp_path / "x.jpg")
    with pytest.raises(DataError, match=r"y\.jpg cannot be read \(No such file or directory\)"):
        read_image(tmp_path / "y.jpg")


def test_an_image_of_another_size_than_annotated_is_refused_with_both(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    write_picture(root / "images/1.png", picture(30, 60))
    data = open_data(str(root))  # does not decode
    bank = load_bank(data.splits["train"], 32)
    assert [record.image_id for record in bank.records] == [2] and len(bank.pixels) == 1
    [problem] = bank.problems
    told = "1 of 2 images has another size than its annotation says and was left out: "
    assert str(problem) == f"{told}{root}/images/1.png has 60x30 pixels, not 60x40"
    with pytest.raises(DataError, match=r"1\.png has 60x30 pixels, not 60x40; correct its annotation"):
        image_of(data.splits["train"][0])


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "bmp", "gif", "avif", "jp2", "ppm"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_in_the_header_is_that_of_the_pixels(tmp_path: Path, suffix: str, orientation: int) -> None:
    path, exif = tmp_path / f"a.{suffix}", Image.Exif()
    exif[0x0112] = orientation
    has_exif = suffix in ("jpg", "png", "webp", "tiff", "avif")
    options: dict[str, Any] = {"exif": exif} if has_exif else {}
    Image.fromarray(picture()).save(path, **options)
    height, width = read_image(path).shape[:2]
    assert image_size(path) == (width, height)
    assert (width, height) == ((HEIGHT, WIDTH) if orientation > 4 and has_exif and suffix != "avif" else (WIDTH, HEIGHT))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8"])
def test_a_header_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.jpg has no readable header"):
        image_size(tmp_path / "x.jpg")
    with pytest.raises(DataError, match=r"y\.jpg has no readable header"):
        image_size(tmp_path / "y.jpg")
