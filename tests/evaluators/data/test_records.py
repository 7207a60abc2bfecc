"""Records refuse what cannot be; subsets are nested; a digest depends on the content alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.data.open import open_data
from evaluators.data.records import DetectionData, Record, at_most, digest, subset
from tests.evaluators.data.small_data import (
    HEIGHT,
    WIDTH,
    coco_content,
    picture,
    record,
    write_coco,
)


@pytest.mark.parametrize("box", [[-1, 0, 5, 5], [0, 0, 61, 5], [0, 0, 5, 41], [5, 0, 5, 5], [0, 6, 5, 5]])
def test_a_record_refuses_a_box_that_is_not_in_its_image(box: list[float]) -> None:
    with pytest.raises(ValueError, match="outside it or has no area"):
        record(picture(), [box])


def test_a_record_has_a_path_or_pixels() -> None:
    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    with pytest.raises(ValueError, match="a path or pixels, and not both"):
        Record(1, WIDTH, HEIGHT, *empty)
    with pytest.raises(ValueError, match="must be"):
        Record(1, WIDTH, HEIGHT, *empty, pixels=picture().transpose(1, 0, 2))


def test_subsets_are_deterministic_nested_and_in_order() -> None:
    records = [record(picture(), [], image_id=i) for i in range(40)]
    quarter, half = (tuple(r.image_id for r in subset(records, share, seed=3)) for share in (0.25, 0.5))
    assert len(quarter) == 10
    assert len(half) == 20
    assert set(quarter) < set(half)
    assert list(half) == sorted(half)
    assert quarter == tuple(r.image_id for r in subset(records, 0.25, seed=3))
    assert quarter != tuple(r.image_id for r in subset(records, 0.25, seed=4))
    assert len(subset(records, 0.001, seed=3)) == 1
    assert subset(records, 1, seed=3) == tuple(records)
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\], got 0"):
        subset(records, 0, seed=3)


def test_a_digest_changes_with_the_content_and_not_with_the_place(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "a")
    first = digest(open_data(str(root)))
    assert len(first) == 16
    assert first == digest(open_data(str(shutil.copytree(root, tmp_path / "b"))))
    content = coco_content(1)
    content["annotations"][0]["bbox"] = [10, 5, 20, 31]
    assert first != digest(open_data(str(write_coco(tmp_path / "c", train=content))))
    with (root / "images/1.png").open("ab") as file:
        file.write(b"\x00")
    assert first != digest(open_data(str(root)))


def test_a_digest_sees_pixels_in_memory() -> None:
    def data(rgb: NDArray[np.uint8]) -> DetectionData:
        return DetectionData("x", ("cat",), {"train": (record(rgb, [[0, 0, 5, 5]]),)}, (1,))

    other = picture()
    other[3, 3, 0] ^= 1
    assert digest(data(picture())) == digest(data(picture()))
    assert digest(data(picture())) != digest(data(other))


def test_a_choice_of_records_keeps_the_share_of_those_with_boxes_and_their_order() -> None:
    records = [record(picture(), [[0, 0, 5, 4]] if i % 4 == 0 else [], image_id=i) for i in range(40)]
    chosen = at_most(records, 12)
    ids = [r.image_id for r in chosen]
    assert len(ids) == 12 and ids == sorted(ids) and ids != list(range(12))
    assert sum(len(r.boxes) for r in chosen) == 3
    assert [r.image_id for r in at_most(records, 12)] == ids
    assert at_most(records, 40) == tuple(records)


@pytest.mark.parametrize(("labelled", "count", "with_boxes"), [(1, 10, 1), (0, 10, 0), (39, 10, 10), (40, 10, 10), (2, 1, 1)])
def test_a_choice_of_records_has_a_box_if_any_has(labelled: int, count: int, with_boxes: int) -> None:
    records = [record(picture(), [[0, 0, 5, 4]] if i < labelled else [], image_id=i) for i in range(40)]
    chosen = at_most(records, count)
    assert len(chosen) == count and sum(len(r.boxes) for r in chosen) == with_boxes
