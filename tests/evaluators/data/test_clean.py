"""From what annotation files say to records: sizes, boxes in pixels, and what is wrong mended and counted."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from evaluators.data.annotations import Annotations, ClassNames, RawData
from evaluators.data.clean import ROUNDING, clean_records
from evaluators.data.problems import Findings, Kind
from evaluators.data.records import Record
from tests.evaluators.data.small_data import HEIGHT, WIDTH, picture, write_picture

Box = tuple[float, float, float, float]


def cleaned(split: Annotations) -> tuple[tuple[Record, ...], Findings]:
    found = Findings()
    splits, _ = clean_records(RawData(("cat", "dog"), {"train": split}), found)
    return splits["train"], found


def one_image(tmp_path: Path, *boxes: Box, relative: bool = False) -> Annotations:
    """Boxes of one image of 60 x 40 pixels, all of the class 1."""
    split = Annotations(relative=relative)
    image = split.add_image(write_picture(tmp_path / "a.png", picture()), WIDTH, HEIGHT)
    for i, box in enumerate(boxes, 1):
        split.add_box(image, 1, box, f"a.txt, line {i}")
    return split


@pytest.mark.parametrize(
    ("box", "kept", "kind"),
    [
        ((10, 5, 30, 35), (10, 5, 30, 35), None),
        ((-ROUNDING, 5, 61, 35), (0, 5, 60, 35), None),
        ((-1.1, 5, 30, 35), (0, 5, 30, 35), Kind.CUT),
        ((10, 5, 30, 41.1), (10, 5, 30, 40), Kind.CUT),
        ((10, -7, 99, 35), (10, 0, 60, 35), Kind.CUT),
        ((60, 5, 70, 35), None, Kind.OUTSIDE),
        ((10, -30, 30, 0), None, Kind.OUTSIDE),
        ((60.2, 5, 60.9, 35), None, Kind.OUTSIDE),
        ((10, 5, 10, 35), None, Kind.NO_AREA),
        ((10, 5, 30, 5), None, Kind.NO_AREA),
        ((30, 5, 10, 35), None, Kind.REVERSED),
        ((10, 35, 30, 5), None, Kind.REVERSED),
        ((math.nan, 5, 30, 35), None, Kind.NOT_FINITE),
        ((10, 5, math.inf, 35), None, Kind.NOT_FINITE),
        ((10, -math.inf, 30, 35), None, Kind.NOT_FINITE),
        ((59.99999999, 5, 60, 35), None, Kind.NO_AREA),  # its sides are equal in single precision
    ],
)
def test_each_box_is_kept_cut_or_left_out(tmp_path: Path, box: Box, kept: Box | None, kind: Kind | None) -> None:
    good = (1.0, 2.0, 9.0, 7.0)
    [record], found = cleaned(one_image(tmp_path, good, box))
    assert record.boxes.tolist() == [list(good)] + ([] if kept is None else [list(kept)])
    assert found.counts == ({} if kind is None else {kind: 1})
    if kind is not None:
        assert found.examples[kind][0].startswith("a.txt, line 2")


def test_a_repeated_box_is_left_out_and_one_of_another_class_or_image_is_not(tmp_path: Path) -> None:
    split = one_image(tmp_path, (10, 5, 30, 35), (10, 5, 30, 36), (10, 5, 30, 35), (10, 5, 30, 35))
    split.add_box(0, 0, (10, 5, 30, 35), "a.txt, line 5")
    split.add_box(0, 1, (10, 5, 30, 35), "a.txt, line 6", crowd=True)
    other = split.add_image(write_picture(tmp_path / "b.png", picture()), WIDTH, HEIGHT)
    split.add_box(other, 1, (10, 5, 30, 35), "b.txt, line 1")
    (first, second), found = cleaned(split)
    assert first.boxes[:, 3].tolist() == [35, 36, 35, 35] and first.classes.tolist() == [1, 1, 0, 1]
    assert first.crowd.tolist() == [False, False, False, True] and len(second.boxes) == 1
    assert found.counts == {Kind.REPEATED: 2}
    assert [example.split(" [")[0] for example in found.examples[Kind.REPEATED]] == ["a.txt, line 3", "a.txt, line 4"]


def test_boxes_in_shares_of_the_image_become_pixels(tmp_path: Path) -> None:
    [record], _ = cleaned(one_image(tmp_path, (0.25, 0.1, 0.5, 0.9), relative=True))
    assert record.boxes.tolist() == [[15, 4, 30, 36]]


def test_boxes_go_to_their_images_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    split = Annotations()
    for name in ("a", "b", "c"):
        split.add_image(write_picture(tmp_path / f"{name}.png", picture()), WIDTH, HEIGHT)
    for image, x in ((2, 1), (0, 2), (2, 3), (0, 4)):
        split.add_box(image, x % 2, (x, 1, x + 5, 9), "somewhere")
    (a, b, c), _ = cleaned(split)
    assert [r.boxes[:, 0].tolist() for r in (a, b, c)] == [[2, 4], [], [1, 3]]
    assert [r.classes.tolist() for r in (a, b, c)] == [[0, 0], [], [1, 1]]
    assert [r.image_id for r in (a, b, c)] == [1, 2, 3]


def test_an_area_is_what_the_file_tells_or_that_of_the_box(tmp_path: Path) -> None:
    split = one_image(tmp_path, (10, 5, 30, 35))
    for area in (123.5, 0.0, -4.0, math.inf):
        split.add_box(0, 0, (area % 7 if math.isfinite(area) else 8.0, 5, 30, 35), "line", area=area)
    [record], _ = cleaned(split)
    widths = record.boxes[:, 2] - record.boxes[:, 0]
    assert record.areas.tolist() == [600, 123.5, *(30 * widths[2:]).tolist()]


def test_images_without_a_file_or_a_header_are_left_out_with_their_boxes(tmp_path: Path) -> None:
    split = Annotations(relative=True)
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "folder.png").mkdir()
    for name in ("gone.png", "broken.png", "folder.png"):
        split.add_box(split.add_image(tmp_path / name), 1, (0.1, 0.1, 0.9, 0.9), name)
    image = split.add_image(write_picture(tmp_path / "good.png", picture()), key="good")
    split.add_box(image, 1, (0.5, 0.1, 0.9, 0.9), "good.txt")
    [record], found = cleaned(split)
    assert (record.image_id, record.width, record.height) == ("good", WIDTH, HEIGHT)
    assert record.boxes.tolist() == np.array([[30, 4, 54, 36]], np.float32).tolist()
    assert found.counts == {Kind.MISSING: 2, Kind.UNREADABLE: 1}
    assert found.examples[Kind.UNREADABLE] == [str(tmp_path / "broken.png")]


def test_a_split_without_images_or_boxes_is_empty(tmp_path: Path) -> None:
    assert cleaned(Annotations())[0] == ()
    [record], _ = cleaned(one_image(tmp_path))
    assert record.boxes.shape == (0, 4)


def test_totals_count_what_is_left_out_too(tmp_path: Path) -> None:
    found = Findings()
    found.add(Kind.NO_IMAGE, "annotation 9")
    raw = RawData(("cat", "dog"), {"train": one_image(tmp_path, (1, 1, 1, 9), (1, 1, 8, 9))}, lines=7, found=found)
    assert clean_records(raw, raw.found)[1] == {"box": 3, "image": 1, "line": 7}


def test_names_are_numbered_as_they_come_and_sorted_in_the_end() -> None:
    names, split = ClassNames(), Annotations()
    image = split.add_image(Path("a.png"), 9, 9)
    for name in ("pig", "ant", "pig", "cow"):
        split.add_box(image, names.number(name), (1, 1, 5, 5), "")
    assert names.sort([split]) == ("ant", "cow", "pig")
    assert split.labels.tolist() == [2, 0, 2, 1]
