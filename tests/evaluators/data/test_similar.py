"""Images that are the same, or nearly: found by content, whatever their names, sizes and compression."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evaluators.data import similar
from evaluators.data.similar import MOST_BITS, alike, difference_hashes, groups_of, same_files


def scene(seed: int, width: int = 320, height: int = 240) -> NDArray[np.uint8]:
    """A picture with much in it, other for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def test_equal_files_in_two_splits_are_found_and_within_one_split_they_are_not(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.bin" for name in "abcdef"}
    contents = {"a": b"one", "b": b"two", "c": b"one", "d": b"one", "e": b"three", "f": b"two"}
    for name, content in contents.items():
        paths[name].write_bytes(content)
    splits = {"train": [paths["a"], paths["b"], paths["d"]], "val": [paths["c"], paths["e"]], "test": [paths["f"]]}
    assert same_files(splits) == [(paths["a"], paths["c"]), (paths["b"], paths["f"])]
    assert same_files({"train": [paths["a"], paths["c"], paths["d"]]}) == []


def test_copies_look_alike_and_other_pictures_do_not(tmp_path: Path) -> None:
    """Compressed, scaled, a bit brighter, a bit blurred, as a PNG."""
    original = scene(1)
    variants = {
        "a.jpg": original,
        "small.jpg": cv2.resize(original, (160, 120), interpolation=cv2.INTER_AREA),
        "brighter.png": np.clip(original.astype(int) + 8, 0, 255).astype(np.uint8),
        "blurred.jpg": cv2.GaussianBlur(original, (5, 5), 0),
        **{f"other{i}.jpg": scene(i) for i in range(2, 22)},
    }
    for name, pixels in variants.items():
        assert cv2.imwrite(str(tmp_path / name), pixels)
    groups = alike([tmp_path / name for name in variants])
    assert len(set(groups[:4].tolist())) == 1 and len(set(groups.tolist())) == 21


def test_an_image_that_cannot_be_decoded_is_alone(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    assert len(set(alike([tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg")]).tolist())) == 3


def flipped(hash_: NDArray[np.uint16], bits: list[int]) -> NDArray[np.uint16]:
    changed = hash_.copy()
    for bit in bits:
        changed[bit // 16] ^= np.uint16(1 << (bit % 16))
    return changed


@given(seed=st.integers(0, 2**32 - 1), bits=st.lists(st.integers(0, 127), unique=True, max_size=12))
def test_hashes_are_one_group_when_they_differ_in_few_bits(seed: int, bits: list[int]) -> None:
    one = np.random.default_rng(seed).integers(0, 2**16, 8, dtype=np.uint16)
    groups = groups_of(np.stack([one, flipped(one, bits)]))
    assert (groups[0] == groups[1]) == (len(bits) <= MOST_BITS)


def test_groups_agree_with_all_pairs_compared() -> None:
    """Hashes around five centres; a chain of near pairs is one group."""
    rng = np.random.default_rng(3)
    centres = rng.integers(0, 2**16, (5, 8), dtype=np.uint16)
    hashes = np.stack([flipped(centres[i % 5], rng.choice(128, rng.integers(0, 9), replace=False).tolist()) for i in range(60)])
    parent = list(range(len(hashes)))

    def root(i: int) -> int:
        return i if parent[i] == i else root(parent[i])

    for i, j in itertools.combinations(range(len(hashes)), 2):
        if sum(int(a ^ b).bit_count() for a, b in zip(hashes[i].tolist(), hashes[j].tolist(), strict=True)) <= MOST_BITS:
            parent[root(j)] = root(i)
    groups = groups_of(hashes)
    for i, j in itertools.combinations(range(len(hashes)), 2):
        assert (groups[i] == groups[j]) == (root(i) == root(j))


def test_hashes_are_made_once_for_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        assert cv2.imwrite(str(path), scene(i))
    first = difference_hashes(paths)
    monkeypatch.setattr(similar, "_hash", lambda path: pytest.fail("hashed again"))
    assert np.array_equal(difference_hashes(paths), first)
    monkeypatch.undo()
    shutil.copy(paths[1], paths[0])
    os.utime(paths[0], (1, 1))
    changed = difference_hashes(paths)
    assert np.array_equal(changed[0], first[1]) and np.array_equal(changed[1:], first[1:])


def test_no_images_have_no_groups() -> None:
    assert alike([]).shape == (0,)


def test_thousands_of_frames_of_one_camera_are_connected_by_as_many_pairs() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 2**16, 8, dtype=np.uint16)
    hashes = np.unique([flipped(frame, rng.choice(128, 3, replace=False).tolist()) for _ in range(3000)], axis=0)
    assert len(set(groups_of(hashes).tolist())) == 1
    assert sum(len(list(similar._near(hashes, piece))) for piece in range(8)) < 8 * len(hashes)
