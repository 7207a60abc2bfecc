"""Sizes of objects, and the levels and image sizes that follow from them: numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.data.digits import digit_scenes
from evaluators.data.records import Record
from evaluators.data.sizes import best_levels, median_small, object_sides, proxy_size

LEVELS_2_5, LEVELS_3_5, LEVELS_3_6 = (4, 8, 16, 32), (8, 16, 32), (8, 16, 32, 64)


def a_record(width: int, height: int, boxes: list[list[float]], crowd: list[bool] | None = None) -> Record:
    return Record(
        image_id=1,
        width=width,
        height=height,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        classes=np.zeros(len(boxes), dtype=np.int64),
        path=Path("unread.jpg"),
        crowd=np.array(crowd or [False] * len(boxes), dtype=np.bool_),
    )


def test_a_side_is_that_of_a_square_of_the_same_area_at_the_scale_of_the_longer_side() -> None:
    """16 x 9 pixels are a square of 12; 2 x 8 one of 4. 640 / 320 doubles, 640 / 1280 halves."""
    wide = a_record(320, 200, [[10, 20, 26, 29], [0, 0, 2, 8]])
    tall = a_record(500, 1280, [[100, 100, 136, 200]])  # 36 x 100: a square of 60
    assert object_sides([wide, tall], 640).tolist() == [24, 8, 30]
    assert object_sides([wide, tall], 320).tolist() == [12, 4, 15]


def test_crowds_and_images_without_objects_count_nothing() -> None:
    crowded = a_record(100, 100, [[0, 0, 50, 50], [0, 0, 10, 40]], [True, False])
    assert object_sides([a_record(64, 64, []), crowded], 200).tolist() == [40]
    assert object_sides([], 640).shape == object_sides([a_record(64, 64, [])], 640).shape == (0,)


def test_the_median_small_object_is_the_median_of_the_smaller_half() -> None:
    assert median_small(np.array([50.0, 10, 40, 20, 30])) == 20  # the middle of 10, 20, 30
    assert median_small(np.array([8.0, 4])) == 5  # between both, a quarter of the way
    with pytest.raises(ValueError, match="no objects"):
        median_small(np.zeros(0))


@pytest.mark.parametrize(
    ("sides", "imgsz", "levels"),
    [
        ([15.9, 15.9, 200], 640, "2-5"),
        ([16, 16, 200], 640, "3-5"),
        ([15, 100, 100, 100, 100], 640, "3-5"),  # the smallest alone does not decide
        ([13, 13, 13, 900, 900], 1280, "2-5"),  # small objects go first
        ([100, 513], 1280, "3-5"),  # nine tenths of the way from 100 to 513: 471.7
        ([100, 560], 1280, "3-6"),  # 514
        ([100, 557], 1280, "3-5"),  # 511.3
        ([600, 600], 1248, "3-5"),
        ([600, 600], 1280, "3-6"),
        ([512, 512], 1280, "3-5"),
        ([512.5, 512.5], 1280, "3-6"),
        ([], 640, "3-5"),
        ([], 1280, "3-5"),
    ],
)
def test_levels_follow_the_small_objects_and_then_the_large_ones(sides: list[float], imgsz: int, levels: str) -> None:
    assert best_levels(np.array(sides, dtype=np.float64), imgsz) == levels


@pytest.mark.parametrize(
    ("side", "imgsz", "strides", "size"),
    [
        # At 640 the median small object has 13 pixels. It has 8 at 640 * 8 / 13 = 393.8, in multiples of 32: 416.
        (13, 640, LEVELS_2_5, 416),
        (8, 640, LEVELS_2_5, 640),  # two cells at imgsz itself
        (5, 640, LEVELS_2_5, 640),  # 1024, but at most imgsz
        (20, 640, LEVELS_3_5, 512),  # 640 * 16 / 20
        (20.1, 640, LEVELS_3_5, 512),  # 509.5
        (19.9, 640, LEVELS_3_5, 544),  # 514.6
        (16, 640, LEVELS_3_5, 640),
        (32, 640, LEVELS_3_5, 320),  # two cells at 320
        (100, 640, LEVELS_3_5, 320),  # 102.4, but not below 320
        (100, 192, LEVELS_3_5, 192),
        (1, 192, LEVELS_3_5, 192),
        (40, 1280, LEVELS_3_6, 512),  # 512 = 8 * 64
        (39, 1280, LEVELS_3_6, 576),  # 525.1 = 8.2 * 64
        (900, 1280, LEVELS_3_6, 320),
        (900, 256, LEVELS_3_6, 256),
    ],
)
def test_proxies_see_the_median_small_object_in_two_cells(side: float, imgsz: int, strides: tuple[int, ...], size: int) -> None:
    assert proxy_size(np.full(3, float(side)), imgsz, strides) == size


def test_without_objects_proxies_have_the_usual_size() -> None:
    assert proxy_size(np.zeros(0), 640, LEVELS_3_5) == 320
    assert proxy_size(np.zeros(0), 256, LEVELS_3_5) == 256


@given(
    st.lists(st.floats(0.1, 2000), min_size=1, max_size=30),
    st.integers(1, 30),
    st.sampled_from([LEVELS_2_5, LEVELS_3_5, LEVELS_3_6]),
)
def test_a_proxy_size_is_the_least_that_fits(sides: list[float], multiples: int, strides: tuple[int, ...]) -> None:
    deepest, array = strides[-1], np.array(sides)
    imgsz = multiples * deepest
    size = proxy_size(array, imgsz, strides)
    assert size % deepest == 0 and min(imgsz, 320) <= size <= imgsz

    def seen(at: int) -> bool:
        return median_small(array) * at / imgsz >= 2 * strides[0] * (1 - 1e-9)

    assert seen(size) or size == imgsz
    assert size == min(imgsz, 320) or not seen(size - deepest)


def test_the_built_in_digits_are_large_enough_for_levels_3_5_and_the_usual_proxies() -> None:
    """Digits have 32 to 96 of 192 pixels."""
    sides = object_sides(digit_scenes(30, 1, 0).splits["train"], 640)
    assert 60 < median_small(sides) < 200
    assert best_levels(sides, 640) == "3-5" and proxy_size(sides, 640, LEVELS_3_5) == 320
