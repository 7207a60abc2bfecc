"""The cache of decoded images: an image is decoded once; a changed file, a damaged entry or a full disk changes no result."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evaluators.data import bank, cache
from evaluators.data.bank import load_bank
from evaluators.data.cache import cache_folder
from evaluators.data.images import Broken, readable_image
from evaluators.data.records import Record
from gpnas.errors import DataError


def record(folder: Path, level: int, number: int = 0) -> Record:
    path = folder / f"{number}.png"
    cv2.imwrite(str(path), np.full((20, 30, 3), level, np.uint8))
    return Record(number, 30, 20, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), path=path)


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are decoded from now on."""
    seen: list[Path] = []
    original = readable_image

    def watched(record: Record) -> NDArray[np.uint8] | Broken:
        assert record.path is not None
        seen.append(record.path)
        return original(record)

    monkeypatch.setattr(bank, "readable_image", watched)
    return seen


def test_a_split_is_decoded_once_for_each_size_into_the_same_bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records, seen = [record(tmp_path, 40 * i, i) for i in range(3)], decoded(monkeypatch)
    first = load_bank(records, 32)
    assert len(seen) == 3
    again = load_bank(records, 32)
    assert len(seen) == 3
    assert torch.equal(first.pixels, again.pixels) and torch.equal(first.sizes, again.sizes)
    load_bank(records, 64)
    assert len(seen) == 6


def test_a_moved_file_is_in_the_cache_and_a_changed_one_is_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    load_bank([record(tmp_path / "a", 10)], 32)
    seen = decoded(monkeypatch)
    load_bank([record(tmp_path / "b", 10)], 32)
    assert not seen
    changed = load_bank([record(tmp_path / "a", 200)], 32)
    assert len(seen) == 1 and int(changed.pixels[0, 0, 0, 0]) == 200


def test_a_broken_entry_is_made_again(tmp_path: Path) -> None:
    whole = load_bank([record(tmp_path, 90)], 32)
    (kept,) = cache_folder().glob("*.npz")
    for content in (b"", b"no zip", kept.read_bytes()[:200]):
        kept.write_bytes(content)
        assert torch.equal(load_bank([record(tmp_path, 90)], 32).pixels, whole.pixels)
    assert not list(cache_folder().glob("*.tmp"))


def test_a_damaged_image_is_left_out_and_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record(tmp_path, 40 * i, i) for i in range(3)]
    damaged = records[1].path
    assert damaged is not None
    damaged.write_bytes(damaged.read_bytes()[:60])
    seen = decoded(monkeypatch)
    first, again = load_bank(records, 32), load_bank(records, 32)
    assert len(seen) == 3
    for loaded in (first, again):
        assert [r.image_id for r in loaded.records] == [0, 2] and loaded.pixels[:, 0, 0, 0].tolist() == [0, 80]
        assert list(map(str, loaded.problems)) == [f"1 of 3 images cannot be read and was left out: {damaged} is truncated"]


def test_a_bank_of_damaged_images_is_refused_unless_they_are_accepted(tmp_path: Path) -> None:
    records = [record(tmp_path, 90, i) for i in range(5)]
    for damaged in records[:4]:
        assert damaged.path is not None
        damaged.path.write_bytes(b"")
    with pytest.raises(
        DataError, match=r"4 of 5 images cannot be read: .*0\.png is not a readable image; .*; \.\.\. \(up to 5%"
    ):
        load_bank(records, 32)
    assert [r.image_id for r in load_bank(records, 32, accept_broken=True).records] == [4]
    with pytest.raises(DataError, match="no image can be used: 2 of 2 images cannot be read"):
        load_bank(records[:2], 32)
    assert load_bank(records[:2], 32, accept_broken=True).boxes.shape == (0, 1, 4)


def test_a_wrong_size_is_found_though_the_pixels_are_stored(tmp_path: Path) -> None:
    right = record(tmp_path, 90)
    load_bank([right], 32)
    wrong = Record(0, 31, 20, right.boxes, right.classes, path=right.path)
    with pytest.raises(DataError, match="has 30x20 pixels, not 31x20"):
        load_bank([wrong], 32)


def test_the_least_recently_used_entries_are_deleted_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_BYTES", 3 * 32 * 32 * 3 + 5000)
    for i in range(4):
        load_bank([record(tmp_path, 10 * i, i)], 32)
        for path in cache_folder().glob("*.npz"):
            os.utime(path, (path.stat().st_mtime - 100,) * 2)
    assert len(list(cache_folder().glob("*.npz"))) == 3
    seen = decoded(monkeypatch)
    load_bank([record(tmp_path, 30, 3)], 32)
    assert not seen
    load_bank([record(tmp_path, 0, 0)], 32)
    assert len(seen) == 1


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load_bank([record(tmp_path, 90)], 32).pixels.shape == (1, 32, 32, 3)


def test_the_folder_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == Path(os.environ["XDG_CACHE_HOME"]) / "gpnas/images"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache/gpnas/images"


def test_a_split_larger_than_half_of_the_cache_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = 32 * 32 * 3
    monkeypatch.setattr(cache, "MOST_BYTES", 2 * pixels - 1)
    load_bank([record(tmp_path, 90)], 32)
    assert not cache_folder().exists()
    monkeypatch.setattr(cache, "MOST_BYTES", 2 * pixels)
    load_bank([record(tmp_path, 90)], 32)
    assert len(list(cache_folder().glob("*.npz"))) == 1


def test_a_damaged_image_that_was_moved_is_told_where_it_is_now(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        records = [record(tmp_path / folder, 40 * i, i) for i in range(3)]
        assert records[1].path is not None
        records[1].path.write_bytes(records[1].path.read_bytes()[:60])
        assert load_bank(records, 32).problems[0].examples == (f"{records[1].path} is truncated",)
