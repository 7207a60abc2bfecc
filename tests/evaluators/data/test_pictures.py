"""Which images are shown, and how small they become."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from evaluators.data.pictures import has_box_at_edge, sample, small_jpeg
from evaluators.data.records import Record
from tests.evaluators.data.small_data import picture, record


def boxed(key: int, *boxes: list[float]) -> Record:
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Record(key, 60, 40, array, np.zeros(len(boxes), np.int64), path=Path(f"{key}.png"))


@pytest.mark.parametrize("box", [[0, 5, 9, 9], [5, 0, 9, 9], [5, 5, 60, 9], [5, 5, 9, 40]])
def test_a_box_at_any_edge_is_seen(box: list[float]) -> None:
    assert has_box_at_edge(boxed(1, [5, 6, 7, 8], box))


def test_a_box_inside_is_at_no_edge() -> None:
    assert not has_box_at_edge(boxed(1, [1, 1, 59, 39])) and not has_box_at_edge(boxed(1))


def test_the_same_seed_chooses_the_same_images_in_their_order() -> None:
    records = [boxed(i, [5, 5, 9, 9]) for i in range(50)]
    chosen = [r.image_id for r in sample(records, 12, 3, at_edge_first=False)]
    assert len(chosen) == 12 and chosen == sorted(chosen)
    assert chosen == [r.image_id for r in sample(records, 12, 3, at_edge_first=False)]
    assert chosen != [r.image_id for r in sample(records, 12, 4, at_edge_first=False)]
    assert sample(records[:5], 12, 3, at_edge_first=False) == records[:5]


def test_images_without_boxes_fill_up_only() -> None:
    records = [boxed(i, *([[5.0, 5, 9, 9]] if i % 10 == 0 else [])) for i in range(50)]
    chosen = {r.image_id for r in sample(records, 7, 0, at_edge_first=False)}
    assert len(chosen) == 7 and chosen >= {0, 10, 20, 30, 40}


def test_half_of_the_images_have_a_box_at_the_edge_where_that_is_wanted() -> None:
    records = [boxed(i, [0 if i % 10 == 0 else 5, 5, 9, 9]) for i in range(100)]
    chosen = sample(records, 7, 0, at_edge_first=True)
    assert len(chosen) == 7 and sum(map(has_box_at_edge, chosen)) >= 4


def decoded(jpeg: bytes | None) -> NDArray[np.uint8]:
    assert jpeg is not None
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), dtype=np.uint8)[..., ::-1]


def test_a_picture_is_shrunk_and_never_enlarged() -> None:
    assert decoded(small_jpeg(record(picture(400, 1000), []), 480)).shape == (192, 480, 3)
    again = decoded(small_jpeg(record(picture(40, 100), []), 480))
    assert again.shape == (40, 100, 3)
    np.testing.assert_allclose(again[20, 50], picture(40, 100)[20, 50], atol=6)


def test_a_damaged_image_gives_no_picture(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"no image")
    assert small_jpeg(Record(1, 60, 40, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), path=file), 480) is None
