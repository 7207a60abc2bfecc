"""The summary of a data set, and the advice that it gives, from boxes whose sides are worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from evaluators.data.records import DetectionData, Record
from evaluators.data.summary import Bar, ImageSize, SideFacts, SplitFacts, advice, summarize

Box = tuple[int, float, float]
"""Class, width and height."""


def record(key: int, width: int, height: int, boxes: Sequence[Box], crowds: Sequence[int] = ()) -> Record:
    """An image with boxes near its top left corner; `crowds` are the numbers of those that are crowds."""
    corners = [[x := min(3, width - w), y := min(2, height - h), x + w, y + h] for _, w, h in boxes]
    return Record(
        key,
        width,
        height,
        np.array(corners, dtype=np.float32).reshape(-1, 4),
        np.array([label for label, _, _ in boxes], dtype=np.int64),
        path=Path(f"{key}.jpg"),
        crowd=np.array([i in crowds for i in range(len(boxes))], dtype=np.bool_),
    )


def data(names: tuple[str, ...] = ("cat", "dog"), **splits: list[Record]) -> DetectionData:
    return DetectionData("pets", names, {split: tuple(r) for split, r in splits.items()}, tuple(range(len(names))))


def many(count: int, width: int, height: int, boxes: Sequence[Box]) -> list[Record]:
    return [record(i, width, height, boxes) for i in range(count)]


PETS = data(
    train=[
        record(1, 320, 240, [(0, 10, 40), (1, 100, 25), (0, 300, 200)], crowds=[2]),  # at 640: sides 40 and 100
        record(2, 320, 240, [(0, 4, 9)]),  # 12
        record(3, 500, 1280, [(1, 32, 128)]),  # 64 * 640 / 1280 = 32
        record(4, 320, 240, []),
    ],
    val=[record(5, 320, 240, [(0, 20, 30)])],
)


def test_images_boxes_crowds_and_empty_images_are_counted_by_split() -> None:
    splits = summarize(PETS, 640).splits
    assert splits["train"] == SplitFacts(images=4, boxes=4, crowds=1, empty=1, median_boxes=1.0, most_boxes=2)
    assert splits["val"] == SplitFacts(images=1, boxes=1, crowds=0, empty=0, median_boxes=1.0, most_boxes=1)


def test_sides_are_measured_at_imgsz_without_crowds() -> None:
    summary = summarize(PETS, 640)
    assert summary.sides is not None
    # Sides 12, 32, 40, 100: percentile p lies at position 0.03 p between them.
    assert vars(summary.sides) == pytest.approx({"p5": 15.0, "p25": 27.0, "median": 36.0, "p75": 55.0, "p95": 91.0}, abs=1e-4)
    assert summary.size_shares == {"small": 0.25, "medium": 0.5, "large": 0.25}  # 32 is medium
    half = summarize(PETS, 320)
    assert half.sides is not None
    assert half.sides.median == pytest.approx(18.0, abs=1e-4)


def test_boxes_are_counted_by_class_and_split() -> None:
    cat, dog = summarize(PETS, 640).classes
    assert (cat.name, cat.boxes) == ("cat", {"train": 2, "val": 1})
    assert (dog.name, dog.boxes) == ("dog", {"train": 2, "val": 0})
    assert cat.sides is not None and cat.sides.median == pytest.approx(26.0, abs=1e-4)  # of 12 and 40
    assert dog.sides is not None and dog.sides.median == pytest.approx(66.0, abs=1e-4)  # of 32 and 100


def test_a_class_without_boxes_in_train_has_no_sides() -> None:
    only_val = data(train=[record(1, 64, 64, [(0, 8, 8)])], val=[record(2, 64, 64, [(1, 8, 8)])])
    assert [facts.sides is None for facts in summarize(only_val, 64).classes] == [False, True]


def test_the_most_common_sizes_of_images_are_listed() -> None:
    sizes = [record(i, width, 30, []) for i, width in enumerate((10, 20, 20, 40, 50, 60, 70, 20, 70))]
    summary = summarize(data(train=sizes, val=[]), 640)
    assert summary.image_sizes[:2] == (ImageSize(20, 30, 3), ImageSize(70, 30, 2))
    assert len(summary.image_sizes) == 5 and summary.other_sizes == 1
    assert summary.long_side == 40  # 30, 30, 30, 30, 40, 50, 60, 70, 70


def test_bars_grow_by_the_same_factor_and_hold_every_object() -> None:
    bars = summarize(data(train=[record(1, 64, 64, [(0, 8, 8), (0, 8, 9), (0, 16, 16)])], val=[]), 64).bars
    assert [bar.count for bar in bars] == [2, 0, 0, 0, 1]
    assert bars[0] == Bar(8.0, 8 * 2**0.25, 2)
    assert [bar.low for bar in bars[1:]] == [bar.high for bar in bars[:-1]]


def test_a_split_without_images_has_zeros() -> None:
    summary = summarize(data(train=[], val=[]), 640)
    assert summary.splits["val"] == SplitFacts(0, 0, 0, 0, 0.0, 0)
    assert (summary.sides, summary.bars, summary.vanishing, summary.long_side) == (None, (), 0, 0.0)


def told(part: str, given: DetectionData, imgsz: int = 640) -> list[str]:
    """The advice that holds `part`."""
    return [text for text in advice(summarize(given, imgsz)) if part in text]


def test_good_data_get_no_advice() -> None:
    boxes = [(0, 50, 60), (1, 70, 40)]
    assert advice(summarize(data(train=many(30, 640, 480, boxes), val=many(60, 640, 480, boxes)), 640)) == []


def test_very_large_objects_ask_for_level_6() -> None:
    """At 1280 pixels a tenth of the objects has more than 512."""
    huge = data(train=many(30, 1280, 1280, [(0, 600, 600), (0, 300, 300)]), val=many(60, 1280, 1280, [(0, 300, 300)]))
    assert [text for text in advice(summarize(huge, 1280)) if "levels" in text] == [
        "many objects are very large at --imgsz 1280: gpnas search takes levels 3-6 (stride 64 too), if the limits allow them"
    ]
    assert told("levels", huge) == []  # at 640 pixels they are half as large


def test_tiny_objects_ask_for_level_2() -> None:
    val = many(3, 640, 640, [(0, 40, 40)])
    small = data(train=[*many(30, 640, 640, [(0, 10, 40), (0, 10, 40), (0, 40, 40), (0, 40, 40)])], val=val)
    assert told("P2", small) == []  # a quarter is smaller than 20 pixels
    tiny = data(train=[*many(30, 640, 640, [(0, 9, 25), (0, 9, 25), (0, 40, 40), (0, 40, 40)])], val=val)
    assert told("P2", tiny) == [
        "a quarter of the objects is smaller than 15 pixels at --imgsz 640: a level of stride 4 (P2) sees them better; "
        "gpnas search takes levels 2-5, if the limits allow them"
    ]


def test_objects_that_vanish_ask_for_the_size_at_which_they_do_not() -> None:
    # Sides of 3 pixels at 640: 4 pixels need 853, of which the next multiple of 32 is 864.
    vanishing = data(train=many(30, 640, 640, [(0, 3, 3), (0, 40, 40)]), val=many(3, 640, 640, [(0, 40, 40)]))
    assert told("vanish", vanishing) == [
        "30 of 60 objects are smaller than 4 pixels at --imgsz 640 and vanish; --imgsz 864 would keep 99 of 100"
    ]
    assert told("vanish", vanishing, 864) == []


def test_objects_that_no_image_size_shows_ask_for_tiles() -> None:
    hopeless = data(train=many(30, 640, 640, [(0, 0.5, 0.5), (0, 40, 40)]), val=many(3, 640, 640, [(0, 40, 40)]))
    assert "; cut the images into tiles, or leave these objects out" in told("vanish", hopeless)[0]


def test_what_is_tiny_vanishing_or_small_begins_below_its_limit() -> None:
    val = many(3, 640, 640, [(0, 40, 40)])
    assert told("P2", data(train=many(4, 640, 640, [(0, 16, 16)]), val=val)) == []
    assert len(told("P2", data(train=many(4, 640, 640, [(0, 16, 15)]), val=val))) == 1
    hundred = [record(1, 640, 640, [(0, 3, 3)]), *many(99, 640, 640, [(0, 40, 40)])]
    assert told("vanish", data(train=hundred, val=val)) == []  # one of 100
    assert len(told("vanish", data(train=hundred[:-1], val=val))) == 1
    assert summarize(data(train=many(5, 640, 640, [(0, 4, 4)]), val=val), 640).vanishing == 0
    sizes = summarize(data(train=[record(1, 640, 640, [(0, 32, 32), (0, 96, 96), (0, 96, 97), (0, 32, 31)])], val=val), 640)
    assert sizes.size_shares == {"small": 0.25, "medium": 0.5, "large": 0.25}


def test_images_shrink_a_lot_from_three_times_the_size() -> None:
    val = many(3, 640, 640, [(0, 40, 40)])
    assert len(told("shrink to 1/3", data(train=many(30, 1000, 1920, [(0, 50, 50)]), val=val))) == 1
    assert told("shrink", data(train=many(30, 1000, 1919, [(0, 50, 50)]), val=val)) == []


def test_long_lists_of_classes_are_cut() -> None:
    names = tuple(f"c{i:02}" for i in range(13))
    of_12 = data(names, train=many(30, 640, 480, [(12, 50, 50)]), val=many(9, 640, 480, [(12, 50, 50)]))
    assert (
        "no box in train: c00, c01, c02, c03, c04, c05, c06, c07, c08, c09 and 2 more; such"
        in told("no box in train", of_12)[0]
    )


def test_images_that_shrink_a_lot_are_told_where_their_objects_are_small() -> None:
    val = many(3, 4000, 3000, [(0, 400, 400)])
    assert told("shrink", data(train=many(30, 4000, 3000, [(0, 150, 150)]), val=val)) == [
        "the images shrink to 1/6 of their size at --imgsz 640, and their objects are small; a larger --imgsz, or images cut "
        "into tiles, would show more"
    ]
    assert told("shrink", data(train=many(30, 4000, 3000, [(0, 900, 900)]), val=val)) == []


def test_classes_with_few_or_no_boxes_are_named() -> None:
    train = [*many(19, 640, 480, [(0, 50, 50)]), *many(20, 640, 480, [(1, 50, 50)])]
    given = data(("cat", "dog", "cow", "owl"), train=train, val=many(2, 640, 480, [(0, 50, 50), (2, 50, 50)]))
    assert told("fewer than 20", given) == ["fewer than 20 boxes in train: cat (19); label more of them, or join classes"]
    assert told("no box in train", given) == ["no box in train: cow, owl; such a class cannot be learned"]
    assert [text.split(";")[0] for text in told("no box in val", given)] == ["no box in val: dog"]


def test_uneven_classes_and_a_small_val_split_are_told() -> None:
    train = [*many(20, 640, 480, [(0, 50, 50)]), *many(100, 640, 480, [(1, 50, 50)] * 20)]
    given = data(train=train, val=many(99, 640, 480, [(0, 50, 50)]))
    assert [text.split(";")[0] for text in told("times", given)] == ["dog has 100 times as many boxes as cat"]
    assert [text.split(",")[0] for text in told("val has", given)] == ["val has only 99 boxes"]


def test_sides_of_nothing_are_none() -> None:
    assert SideFacts.of(np.zeros(0)) is None
