"""Splits for data that have none: by class, groups together, every split with boxes, the same each time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.data.records import Record
from evaluators.data.splitting import assign, parse_shares
from gpnas.errors import InputError

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}


def record(number: int, *labels: int) -> Record:
    boxes = np.array([[i, 0, i + 1, 5] for i in range(len(labels))], dtype=np.float32).reshape(-1, 4)
    return Record(number, 99, 99, boxes, np.array(labels, dtype=np.int64), pixels=np.zeros((99, 99, 3), np.uint8))


def alone(records: list[Record]) -> np.ndarray:
    return np.arange(len(records))


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("70/15/15", {"train": 0.7, "val": 0.15, "test": 0.15}),
        ("80/20", {"train": 0.8, "val": 0.2}),
        ("3/1", {"train": 0.75, "val": 0.25}),
        ("0.5/0.25/0.25", {"train": 0.5, "val": 0.25, "test": 0.25}),
    ],
)
def test_shares_add_up_to_one(text: str, shares: dict[str, float]) -> None:
    assert parse_shares(text) == pytest.approx(shares)


@pytest.mark.parametrize("text", ["70", "70/0/30", "70/-1", "a/b", "70/15/10/5", "70:30", "nan/1", "inf/1", "/"])
def test_what_are_no_shares_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--split .*: must be the shares of train, val and test, such as 70/15/15"):
        parse_shares(text)


def test_every_class_is_divided_by_the_shares() -> None:
    """Class 0 in 200 images, class 1 in 40, class 2 in 20; each split has its share of each to within one image."""
    records = [record(i, *((0,) if i < 140 else (0, 1) if i < 180 else (2,) if i < 200 else (0,))) for i in range(220)]
    splits = assign(records, alone(records), SHARES)
    for label, total in ((0, 200), (1, 40), (2, 20)):
        held = Counter(split for r, split in zip(records, splits, strict=True) if label in r.classes)
        assert {split: held[split] for split in SHARES} == pytest.approx(
            {split: share * total for split, share in SHARES.items()}, abs=1.01
        )
    assert Counter(splits) == pytest.approx({split: share * 220 for split, share in SHARES.items()}, abs=2.01)


def test_images_without_boxes_are_divided_too() -> None:
    records = [record(i, 0) for i in range(20)] + [record(i) for i in range(20, 120)]
    empty = Counter(assign(records, alone(records), SHARES)[20:])
    assert empty == pytest.approx({"train": 70, "val": 15, "test": 15}, abs=1.01)


def test_groups_stay_together_and_large_ones_are_cut_in_order() -> None:
    """80 of 100 images look alike: they go in pieces of ten, neighbours together."""
    records = [record(i, i % 2) for i in range(100)]
    groups = np.where(np.arange(100) < 80, 0, np.arange(100) // 2)
    splits = assign(records, groups, SHARES)
    for start in range(0, 80, 10):
        assert len(set(splits[start : start + 10])) == 1
    for start in range(80, 100, 2):
        assert splits[start] == splits[start + 1]
    assert Counter(splits) == pytest.approx({"train": 70, "val": 15, "test": 15}, abs=6)


def test_the_same_seed_gives_the_same_and_another_seed_another() -> None:
    records = [record(i, i % 3) for i in range(60)]
    first = assign(records, alone(records), SHARES, seed=1)
    assert first == assign(records, alone(records), SHARES, seed=1) != assign(records, alone(records), SHARES, seed=2)


def test_the_order_of_the_numbers_of_groups_does_not_matter() -> None:
    records = [record(i, i % 3) for i in range(30)]
    assert assign(records, alone(records), SHARES) == assign(records, alone(records) + 7, SHARES)


@given(
    labels=st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=2, max_size=25),
    merged=st.integers(1, 6),
    two=st.booleans(),
)
def test_every_split_has_boxes_where_that_is_possible(labels: list[list[int]], merged: int, two: bool) -> None:
    records = [record(i, *found) for i, found in enumerate(labels)]
    groups = np.arange(len(records)) // merged
    shares = {"train": 0.8, "val": 0.2} if two else SHARES
    splits = assign(records, groups, shares)
    with_boxes = {split for r, split in zip(records, splits, strict=True) if len(r.classes)}
    pieces = max(1, int(0.1 * len(records)))  # the largest group that is not cut
    units = {
        (g, k // pieces if sum(groups == g) > pieces else 0)
        for g in set(groups.tolist())
        for k in range(sum(groups == g))
        if any(len(records[i].classes) for i in np.flatnonzero(groups == g)[k : k + 1])
    }
    wanted = list(shares)[: max(1, min(len(units), len(shares)))] if units else []
    assert with_boxes.issuperset(wanted)
    assert len(splits) == len(records) and set(splits) <= set(shares)


def test_nothing_is_divided_into_nothing() -> None:
    assert assign([], np.zeros(0, np.int64), SHARES) == []
