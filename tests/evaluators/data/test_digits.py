"""The built-in digit scenes: deterministic, disjoint between splits, boxes tight, neither empty nor overcrowded."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest

from evaluators.data import digits as scenes
from evaluators.data.digits import Content, digit_scenes
from evaluators.data.open import open_data
from evaluators.data.records import Record, digest


def test_the_same_arguments_make_the_same_scenes_and_another_seed_makes_others() -> None:
    first, again, other = (digest(digit_scenes(6, 2, 2, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_scene_does_not_depend_on_how_many_there_are() -> None:
    few, many = (digit_scenes(count, 1, 0).splits["train"][1] for count in (2, 5))
    assert np.array_equal(few.pixels, many.pixels)  # type: ignore[arg-type]
    assert np.array_equal(few.boxes, many.boxes)


def test_scenes_have_the_splits_sizes_and_classes_that_were_asked_for() -> None:
    data = digit_scenes(40, 12, 8, size=128)
    assert data.names == tuple("0123456789")
    assert data.category_ids == tuple(range(10))
    assert not data.may_flip  # a mirrored digit is no digit
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 40, "val": 12, "test": 8}
    records = [record for split in data.splits.values() for record in split]
    assert len({record.image_id for record in records}) == 60
    assert {(r.width, r.height) for r in records} == {(128, 128)}
    assert set(np.concatenate([r.classes for r in data.splits["train"]])) == set(range(10))
    assert digit_scenes(2, 1, 0).splits.keys() == {"train", "val"}


def test_a_scene_may_show_many_small_digits() -> None:
    """Ink of 13 to 24 of 640 pixels; a box is turned and slanted a little, and rounded to whole pixels."""
    content = Content(heights=(13 / 640, 24 / 640), digits=(15, 20), clutter=(4, 6))
    data = digit_scenes(4, 1, 0, size=640, content=content)
    boxes = np.concatenate([record.boxes for record in data.splits["train"]])
    heights = boxes[:, 3] - boxes[:, 1]
    assert all(15 <= len(record.boxes) <= 20 for record in data.splits["train"])
    assert heights.min() >= 8 and heights.max() <= 30 and 14 < np.median(heights) < 22
    assert digest(digit_scenes(2, 1, 0, content=Content())) == digest(digit_scenes(2, 1, 0))


def test_every_seed_finds_room_for_its_digits_and_keeps_their_overlap_small() -> None:
    low, high = scenes._DIGITS
    for seed in range(6):
        for record in digit_scenes(20, 0, 0, size=96, seed=seed).splits["train"]:
            assert low <= len(record.boxes) <= high
            for a, b in combinations(record.boxes, 2):
                width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
                smaller = min(np.prod(box[2:] - box[:2]) for box in (a, b))
                assert max(width, 0) * max(height, 0) <= 0.25 * smaller + 1e-3


def test_no_digit_is_in_two_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    used: dict[int, set[bytes]] = {}
    original = scenes._scene

    def watched(image_id: int, glyphs: list[scenes.Array], *rest: object) -> object:
        used.setdefault(id(glyphs), set()).update(glyph.tobytes() for glyph in glyphs)
        kept.append(glyphs)  # so that no id is used again
        return original(image_id, glyphs, *rest)  # type: ignore[arg-type]

    kept: list[list[scenes.Array]] = []
    monkeypatch.setattr(scenes, "_scene", watched)
    digit_scenes(1, 1, 1)
    assert len(used) == 3
    for a, b in combinations(used.values(), 2):
        assert not a & b
    assert sum(len(glyphs) for glyphs in used.values()) > 1780  # of 1797, sharpened: hardly any look alike


def test_a_box_is_tight_around_the_ink() -> None:
    rng = np.random.default_rng(0)
    glyph = np.zeros((80, 80), dtype=np.float32)
    cv2.ellipse(glyph, (40, 40), (15, 25), 0, 0, 360, 1.0, 6)
    for _ in range(20):
        patch = scenes._turned(glyph, 40, rng)
        canvas = np.zeros((150, 150, 3), dtype=np.float32)
        scenes._blend(canvas, patch, 30, 20, np.ones(3, dtype=np.float32))
        ys, xs = np.nonzero(canvas[..., 0] > 0.5)
        box = scenes._ink_box(patch, 30, 20)
        assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert 30 < box[3] - box[1] < 56  # 40, slanted and turned a little


def test_digits_stand_out_from_their_scene() -> None:
    """Ink differs from paper: within a box the grey levels spread more than noise alone would make them."""
    spread = [
        np.subtract(*np.percentile(record.pixels[y1:y2, x1:x2].mean(axis=-1), [95, 5]))  # type: ignore[index]
        for record in digit_scenes(30, 0, 0).splits["train"]
        for x1, y1, x2, y2 in record.boxes.astype(int)
    ]
    assert np.percentile(spread, 5) > 40


def test_digits_is_the_built_in_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one real scene for all of a split: making 720 takes long."""
    (real,) = digit_scenes(1, 0, 0, size=64).splits["train"]
    sizes: list[int] = []

    def same(image_id: int, glyphs: object, labels: object, size: int, *rest: object) -> Record:
        sizes.append(size)
        return real

    monkeypatch.setattr(scenes, "_scene", same)
    data = open_data("digits")
    assert data.source == "digits"
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 480, "val": 120, "test": 120}
    assert set(sizes) == {192}
