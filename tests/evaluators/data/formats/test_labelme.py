from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from evaluators.data.annotations import NO_SPLIT, RawData
from evaluators.data.clean import clean_records
from evaluators.data.formats.labelme import find_labelme, read_labelme
from evaluators.data.problems import Findings, Kind
from evaluators.data.tree import Tree
from gpnas.errors import DataError
from tests.evaluators.data.formats.layouts_voc_csv_labelme import write_labelme, write_text
from tests.evaluators.data.formats.twin import TwinData, assert_same, boxes, example, twin_data, write_image

CORNERS = [[10, 5], [30, 35]]


def read(root: Path) -> RawData:
    tree = Tree.of(root)
    return read_labelme(tree, find_labelme(tree))


def shape(points: Any = CORNERS, kind: str = "rectangle", label: Any = "cat") -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": 3, "flags": {"blurred": True}}


def write_one(root: Path, *shapes: Any, file: str = "a.json", **other: Any) -> Path:
    """A JSON file with these shapes beside the image a.png of 60x40 pixels. other: keys to change; ... removes one."""
    write_image(root / "a.png", 60, 40, seed=1)
    content = {"shapes": list(shapes), "imagePath": "a.png", "imageData": None, "imageHeight": 40, "imageWidth": 60} | other
    write_text(root / file, json.dumps({key: value for key, value in content.items() if value is not ...}))
    return root


def paths(raw: RawData, split: str = NO_SPLIT) -> list[Path]:
    return [image.path for image in raw.splits[split].images]


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as refused:
        read(root)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("data", [example(), example().without_split()])
def test_every_box_comes_back(tmp_path: Path, data: TwinData) -> None:
    raw = read(write_labelme(tmp_path, data))
    assert raw.names == ("cat", "dog", "traffic light")
    assert raw.notes == []
    assert_same(raw, data, tolerance=0)


@settings(max_examples=25, deadline=None)
@given(data=twin_data())
def test_any_data_set_comes_back(data: TwinData) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw = read(write_labelme(Path(folder), data))
        assert raw.names == data.used_names
        assert_same(raw, data, tolerance=1e-4)


class TestFind:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[]",
            "{}",
            '{"images": [], "annotations": [], "categories": []}',
            '[{"shapes": [], "imagePath": "a.png"}]',
            '{"shapes": []}',
        ],
    )
    def test_other_json_is_not_labelme(self, tmp_path: Path, text: str) -> None:
        write_text(tmp_path / "a.json", text)
        assert find_labelme(Tree.of(tmp_path)) == []

    @pytest.mark.parametrize("first", ["imageData", "shapes"])
    def test_long_files_are_known_by_their_head(self, tmp_path: Path, first: str) -> None:
        long = {"imageData": "x" * 2_000_000, "shapes": [shape()] * 20_000}
        write_text(tmp_path / "a.json", json.dumps({first: long[first]} | long | {"imagePath": "a.png"}))
        assert find_labelme(Tree.of(tmp_path)) == [tmp_path / "a.json"]

    def test_not_only_the_first_file_is_looked_into(self, tmp_path: Path) -> None:
        for i in range(3):
            write_text(tmp_path / f"{i}.json", "{}")
        assert paths(read(write_one(tmp_path, shape()))) == [tmp_path / "a.png"]

    def test_a_file_alone(self, tmp_path: Path) -> None:
        write_labelme(tmp_path, example())
        raw = read(tmp_path / "train" / "street.json")
        assert paths(raw) == [tmp_path / "train" / "street.png"] and len(boxes(raw)) == 2


class TestFiles:
    def test_files_of_other_programs_are_skipped(self, tmp_path: Path) -> None:
        write_one(tmp_path, shape())
        write_text(tmp_path / "settings.json", '{"shapes": 3, "imagePath": "a.png"}')
        write_text(tmp_path / "shapes.json", '{"shapes": []}')
        raw = read(tmp_path)
        assert len(paths(raw)) == 1 and raw.found.counts == {}

    def test_a_broken_file_is_left_out_and_counted(self, tmp_path: Path) -> None:
        write_one(tmp_path, shape())
        write_text(tmp_path / "cells" / "b.json", '{"shapes": [], "imagePath": ')
        raw = read(tmp_path)
        assert paths(raw) == [tmp_path / "a.png"] and raw.found.counts == {Kind.UNREADABLE: 1}
        assert raw.found.examples[Kind.UNREADABLE][0].startswith("cells/b.json (Expecting value")

    def test_byte_order_mark(self, tmp_path: Path) -> None:
        write_one(tmp_path, shape())
        text = (tmp_path / "a.json").read_text()
        write_text(tmp_path / "a.json", text, "utf-8-sig")
        assert boxes(read(tmp_path)) == [[10, 5, 30, 35]]

    def test_no_file_of_the_format(self, tmp_path: Path) -> None:
        remedy = "a JSON object with imagePath and shapes; give their folder"
        assert refusal(tmp_path) == f"{tmp_path} has no LabelMe file, {remedy}"

    def test_two_files_about_one_image(self, tmp_path: Path) -> None:
        write_one(tmp_path, shape())
        write_one(tmp_path, shape(), file="old/a.json")
        first, second = tmp_path / "a.json", tmp_path / "old" / "a.json"
        assert refusal(tmp_path) == f"{first} and {second} both describe the image {tmp_path / 'a.png'}; remove one of them"

    def test_two_files_about_one_image_that_is_missing(self, tmp_path: Path) -> None:
        for stem in ("b", "c"):
            write_one(tmp_path, shape(), file=f"{stem}.json", imagePath="x.png")
        found = Findings()
        clean_records(read(tmp_path), found)
        assert found.counts == {Kind.MISSING: 2}

    def test_folders_of_images_name_the_splits_where_those_of_the_files_do_not(self, tmp_path: Path) -> None:
        for split, stem in (("train", "b"), ("val", "c")):
            write_image(tmp_path / "images" / split / f"{stem}.png", 60, 40, seed=2)
            write_one(tmp_path, shape(), file=f"labels/{stem}.json", imagePath=f"..\\images\\{split}\\{stem}.png")
        raw = read(tmp_path)
        assert [path.name for path in paths(raw, "train") + paths(raw, "val")] == ["b.png", "c.png"]

    def test_an_image_outside_of_the_splits_is_left_out(self, tmp_path: Path) -> None:
        write_labelme(tmp_path, example())
        raw = read(write_one(tmp_path, shape(label="ant")))
        assert raw.notes == [f"1 image belongs to no split, unlike the others, and stayed out: {tmp_path / 'a.png'}"]
        assert_same(raw, example(), tolerance=0)


class TestImage:
    @pytest.mark.parametrize(
        "name", ["a.png", "renamed.png", "..\\cells\\a.png", "C:\\mine\\a.png", "/mine/a.png", None, 3, ""]
    )
    def test_the_image_beside_the_file(self, tmp_path: Path, name: Any) -> None:
        assert paths(read(write_one(tmp_path, shape(), imagePath=name))) == [tmp_path / "a.png"]

    @pytest.mark.parametrize("name", ["..\\images\\b.png", "../images/b.png", "..\\..\\elsewhere\\b.png", "b.png"])
    def test_an_image_in_another_folder_under_another_name(self, tmp_path: Path, name: str) -> None:
        write_image(tmp_path / "images" / "b.png", 60, 40, seed=2)
        raw = read(write_one(tmp_path, shape(), file="json/0001.json", imagePath=name))
        assert paths(raw) == [tmp_path / "images" / "b.png"]

    @pytest.mark.parametrize("size", [None, ..., 0, "forty"])
    def test_a_missing_size_comes_from_the_header(self, tmp_path: Path, size: Any) -> None:
        raw = read(write_one(tmp_path, shape(), imageHeight=size, imageWidth=size))
        assert raw.splits[NO_SPLIT].images[0][1:3] == (0, 0)
        records, _ = clean_records(raw, Findings())
        assert (records[NO_SPLIT][0].width, records[NO_SPLIT][0].height) == (60, 40)

    def test_an_image_without_a_file(self, tmp_path: Path) -> None:
        found = Findings()
        clean_records(read(write_one(tmp_path, shape(), file="b.json", imagePath="b.png")), found)
        assert found.counts == {Kind.MISSING: 1} and found.examples[Kind.MISSING] == [str(tmp_path / "b.png")]

    def test_an_image_that_stands_only_in_the_json_file(self, tmp_path: Path) -> None:
        write_one(tmp_path, shape(), imageData="aGVsbG8=")
        raw = read(write_one(tmp_path, shape(), file="cells/b.json", imagePath="b.png", imageData="aGVsbG8="))
        assert paths(raw) == [tmp_path / "a.png"] and raw.found.counts == {Kind.MISSING: 1}
        place = "it stands only in the imageData of cells/b.json; labelme_export_json writes it to a file"
        assert raw.found.examples[Kind.MISSING] == [f"b.png ({place})"]

    def test_nothing_but_images_in_json_files(self, tmp_path: Path) -> None:
        write_one(tmp_path, shape(), imageData="aGVsbG8=")
        (tmp_path / "a.png").unlink()
        place = "it stands only in the imageData of a.json; labelme_export_json writes it to a file"
        assert refusal(tmp_path) == f"{tmp_path} has no image that has a file: a.png ({place})"


class TestShape:
    @pytest.mark.parametrize(
        "points",
        [[[10, 5], [30, 35]], [[30, 35], [10, 5]], [[10, 35], [30, 5]], [[30, 5], [10, 35]], [["10", "5"], [30, 35.0]]],
    )
    def test_a_rectangle_from_any_corner(self, tmp_path: Path, points: Any) -> None:
        raw = read(write_one(tmp_path, shape(points)))
        assert boxes(raw) == [[10, 5, 30, 35]]
        assert raw.splits[NO_SPLIT].where(0) == "a.json, shape 1"

    @pytest.mark.parametrize("kind", ["polygon", "mask", "rotation", "rectangle", None])
    def test_the_extent_of_a_shape(self, tmp_path: Path, kind: Any) -> None:
        raw = read(write_one(tmp_path, shape([[12, 5], [30, 9], [21, 35], [10, 20]], kind)))
        assert boxes(raw) == [[10, 5, 30, 35]]

    def test_a_shape_without_a_type_is_a_polygon(self, tmp_path: Path) -> None:
        assert boxes(read(write_one(tmp_path, {"label": "cat", "points": [[12, 5], [30, 35], [10, 20]]}))) == [[10, 5, 30, 35]]

    def test_a_circle_is_its_centre_and_a_point_of_its_rim(self, tmp_path: Path) -> None:
        """The radius is that of the triangle 3, 4, 5."""
        assert boxes(read(write_one(tmp_path, shape([[20, 15], [23, 19]], "circle")))) == [[15, 10, 25, 20]]

    def test_points_and_lines_have_no_box(self, tmp_path: Path) -> None:
        others = [
            shape([[1, 2]], "point", "eye"),
            shape(kind="line"),
            shape([[3, 4]], "point", ""),
            shape(kind="linestrip"),
            shape(kind="points"),
        ]
        raw = read(write_one(tmp_path, *others, shape()))
        assert raw.names == ("cat",) and boxes(raw) == [[10, 5, 30, 35]]
        assert raw.splits[NO_SPLIT].where(0) == "a.json, shape 6"
        assert raw.notes == ["shapes without a box stayed out: 1 line, 1 linestrip, 2 point, 1 points"]

    @pytest.mark.parametrize(
        "points",
        [
            None,
            [],
            [[10, 5]],
            [[10, 5], [30]],
            [[10, 5], "30 35"],
            [[10, 5], [30, None]],
            [[10, 5], [30, True]],
            [10, 5, 30, 35],
        ],
    )
    @pytest.mark.parametrize("kind", ["rectangle", "circle"])
    def test_what_is_no_points_is_counted(self, tmp_path: Path, points: Any, kind: str) -> None:
        raw = read(write_one(tmp_path, shape(), shape(points, kind)))
        found = Findings()
        clean_records(raw, found)
        assert found.counts == {Kind.NOT_FINITE: 1} and found.examples[Kind.NOT_FINITE] == ["a.json, shape 2"]

    def test_numbers_that_are_not_finite(self, tmp_path: Path) -> None:
        write_one(tmp_path, shape([[10, 5], [float("nan"), 35]]), shape([[10, 5], [float("inf"), 35]], "polygon"), shape())
        found = Findings()
        clean_records(read(tmp_path), found)
        assert found.counts == {Kind.NOT_FINITE: 2}

    def test_a_label_that_is_a_number(self, tmp_path: Path) -> None:
        assert read(write_one(tmp_path, shape(label=7), shape(label=" cat "))).names == ("7", "cat")

    @pytest.mark.parametrize("label", ["", " ", None, ["cat"]])
    def test_a_shape_without_a_label(self, tmp_path: Path, label: Any) -> None:
        write_one(tmp_path, shape(), shape(label=label))
        assert refusal(tmp_path) == f"a.json, shape 2 has the label {label!r}; name its class or remove the shape"

    def test_a_shape_that_is_no_object(self, tmp_path: Path) -> None:
        write_one(tmp_path, "cat")
        assert refusal(tmp_path).startswith("a.json, shape 1 has the label None")

    def test_an_image_without_shapes_has_no_boxes(self, tmp_path: Path) -> None:
        raw = read(write_one(tmp_path))
        assert paths(raw) == [tmp_path / "a.png"] and boxes(raw) == []
