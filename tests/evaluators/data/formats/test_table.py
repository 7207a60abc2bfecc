from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings

from evaluators.data.annotations import NO_SPLIT, RawData
from evaluators.data.clean import clean_records
from evaluators.data.formats.table import find_csv, read_csv
from evaluators.data.problems import Findings, Kind
from evaluators.data.tree import Tree
from gpnas.errors import DataError
from tests.evaluators.data.formats.layouts_voc_csv_labelme import (
    write_csv,
    write_csv_automl,
    write_csv_retinanet,
    write_text,
)
from tests.evaluators.data.formats.twin import TwinData, assert_same, boxes, boxes_read, example, paths, twin_data, write_image

TENSORFLOW = "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,60,40,cat,10,5,30,35\n"


def read(root: Path) -> RawData:
    tree = Tree.of(root)
    return read_csv(tree, find_csv(tree))


def write_one(root: Path, text: str, file: str = "boxes.csv", encoding: str = "utf-8") -> Path:
    """A table beside the image a.png of 60x40 pixels."""
    write_image(root / "a.png", 60, 40, seed=1)
    write_text(root / file, text, encoding)
    return root


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as refused:
        read(root)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def without_empty_images(data: TwinData) -> TwinData:
    return TwinData(data.names, {split: [i for i in images if i.boxes] for split, images in data.splits.items()})


def test_every_box_of_a_table_of_roboflow_comes_back(tmp_path: Path) -> None:
    raw = read(write_csv(tmp_path, example()))
    assert raw.names == ("cat", "dog", "traffic light")
    assert raw.splits["train"].where(0) == "train/_annotations.csv, line 2"
    assert raw.lines == 7 and raw.notes == []
    assert_same(raw, without_empty_images(example()), tolerance=0)


@pytest.mark.parametrize("write", [write_csv_retinanet, write_csv_automl])
def test_every_box_of_a_table_without_header_comes_back(tmp_path: Path, write: Callable[[Path, TwinData], Path]) -> None:
    raw = read(write(tmp_path, example()))
    assert raw.names == ("cat", "dog", "traffic light")
    assert raw.lines == 8
    assert_same(raw, example(), tolerance=1e-3)


@pytest.mark.parametrize("write", [write_csv, write_csv_retinanet, write_csv_automl])
def test_without_splits(tmp_path: Path, write: Callable[[Path, TwinData], Path]) -> None:
    data = without_empty_images(example()).without_split()
    assert_same(read(write(tmp_path, data)), data)


@settings(max_examples=25, deadline=None)
@given(data=twin_data(empty_images=False))
def test_any_table_of_roboflow_comes_back(data: TwinData) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw = read(write_csv(Path(folder), data))
        assert raw.names == data.used_names
        assert_same(raw, data)


@pytest.mark.parametrize("write", [write_csv_retinanet, write_csv_automl])
@settings(max_examples=25, deadline=None)
@given(data=twin_data())
def test_any_table_without_header_comes_back(write: Callable[[Path, TwinData], Path], data: TwinData) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw = read(write(Path(folder), data))
        assert raw.names == data.used_names
        assert_same(raw, data)


class TestFind:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "\n\n",
            "id,name\n1,cat\n",
            "epoch,loss\n1,0.5\n",
            "cat,0\ndog,1\n",
            "filename,class\na.png,cat\n",
            "xmin,ymin,xmax,ymax,class\n1,2,3,4,cat\n",
            "image,x,y,label\na.png,1,2,cat\n",
            "a.png,1,2,3,cat\n",
            "a.png,one,2,3,4,cat\n",
            "1,2,3,4,5,6\n",
        ],
    )
    def test_tables_of_something_else(self, tmp_path: Path, text: str) -> None:
        assert find_csv(Tree.of(write_one(tmp_path, text))) == []

    def test_only_the_tables_of_boxes(self, tmp_path: Path) -> None:
        write_one(tmp_path, TENSORFLOW)
        write_text(tmp_path / "classes.csv", "cat,0\n")
        write_text(tmp_path / "results.csv", "epoch,loss\n1,0.5\n")
        assert find_csv(Tree.of(tmp_path)) == [tmp_path / "boxes.csv"]

    def test_of_many_tables_all_are_found_although_only_some_are_looked_into_at_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("evaluators.data.formats.table.SAMPLED", 2)
        for i in range(5):
            write_one(tmp_path, TENSORFLOW, f"{i}.csv")
        assert len(find_csv(Tree.of(tmp_path))) == 5

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(bytes(range(256)))
        assert find_csv(Tree.of(tmp_path)) == []

    def test_a_file_alone(self, tmp_path: Path) -> None:
        write_one(tmp_path, TENSORFLOW)
        write_one(tmp_path, TENSORFLOW, "other.csv")
        assert find_csv(Tree.of(tmp_path / "boxes.csv")) == [tmp_path / "boxes.csv"]


class TestColumns:
    @pytest.mark.parametrize(
        "text",
        [
            TENSORFLOW,
            "class,ymax,xmax,ymin,xmin,filename\ncat,35,30,5,10,a.png\n",
            "image,label,x1,y1,x2,y2\na.png,cat,10,5,30,35\n",
            "image,label,x0,y0,x1,y1\na.png,cat,10,5,30,35\n",
            "Image Path,Class Name,X_min,Y_min,X_max,Y_max\na.png,cat,10,5,30,35\n",
            "file_name,category,left,top,right,bottom\na.png,cat,10,5,30,35\n",
            "image_id,label,x,y,w,h\na,cat,10,5,20,30\n",
            "path,label,x,y,width,height\na.png,cat,10,5,20,30\n",
            "img,category_name,cx,cy,w,h\na.png,cat,20,20,20,30\n",
            "img,category_name,x_center,y_center,width,height\na.png,cat,20,20,20,30\n",
            "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\ncat,10,5,20,30,a.png,60,40\n",
            "cat,10,5,20,30,a.png,60,40\n",
            "a.png,10,5,30,35,cat\n",
            "UNASSIGNED,gs://b/a.png,cat,0.16666667,0.125,0.5,0.125,0.5,0.875,0.16666667,0.875\n",
        ],
    )
    def test_the_same_box_in_other_columns(self, tmp_path: Path, text: str) -> None:
        raw = read(write_one(tmp_path, text))
        assert raw.names == ("cat",)
        assert boxes_read(raw)[NO_SPLIT]["a.png"] == [("cat", *(pytest.approx(v, abs=1e-4) for v in (10, 5, 30, 35)))]

    @pytest.mark.parametrize(
        ("columns", "values", "size"),
        [("width,height", "60,40", (60, 40)), ("img_width,img_height", "60,40", (60, 40)), ("a,b", "60,40", (0, 0))],
    )
    def test_size_of_the_image(self, tmp_path: Path, columns: str, values: str, size: tuple[int, int]) -> None:
        raw = read(write_one(tmp_path, f"image,{columns},class,xmin,ymin,xmax,ymax\na.png,{values},cat,10,5,30,35\n"))
        assert raw.splits[NO_SPLIT].images[0][1:3] == size

    def test_width_and_height_beside_x_and_y_are_those_of_the_box(self, tmp_path: Path) -> None:
        raw = read(write_one(tmp_path, "image,label,x,y,width,height\na.png,cat,10,5,20,30\n"))
        assert raw.splits[NO_SPLIT].images[0][1:3] == (0, 0)

    def test_no_column_of_classes(self, tmp_path: Path) -> None:
        write_one(tmp_path, "image,xmin,ymin,xmax,ymax\na.png,10,5,30,35\n")
        wanted = "has no column of classes (class, classname, label); add it, or rename it so"
        assert refusal(tmp_path) == f"{tmp_path / 'boxes.csv'} {wanted}"

    def test_group_boxes_of_open_images_are_crowds(self, tmp_path: Path) -> None:
        header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf\n"
        raw = read(write_one(tmp_path, f"{header}a,x,/m/01,1,0.1,0.5,0.2,0.9,0\na,x,/m/02,1,0.1,0.5,0.2,0.8,1\n"))
        assert boxes(raw) == [[0.1, 0.2, 0.5, 0.9], [0.1, 0.2, 0.5, 0.8]]
        assert raw.splits[NO_SPLIT].crowds.tolist() == [False, True]
        assert raw.splits[NO_SPLIT].relative

    def test_a_first_row_that_is_broken(self, tmp_path: Path) -> None:
        raw = read(write_one(tmp_path, "a.png,ten,5,30,35,cat\na.png,10,5,30,35,cat\n"))
        assert boxes(raw)[1:] == [[10, 5, 30, 35]] and len(boxes(raw)) == 2


class TestText:
    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
    def test_byte_order_mark(self, tmp_path: Path, encoding: str) -> None:
        assert boxes(read(write_one(tmp_path, TENSORFLOW, encoding=encoding))) == [[10, 5, 30, 35]]

    def test_byte_order_mark_without_header(self, tmp_path: Path) -> None:
        assert paths(read(write_one(tmp_path, "a.png,10,5,30,35,cat\n", encoding="utf-8-sig"))) == ["a.png"]

    def test_semicolons_and_decimal_commas(self, tmp_path: Path) -> None:
        raw = read(write_one(tmp_path, "image;label;xmin;ymin;xmax;ymax\na.png;cat;10,25;5;30;35,5\n"))
        assert boxes(raw) == [[10.25, 5, 30, 35.5]]

    def test_tabs(self, tmp_path: Path) -> None:
        assert boxes(read(write_one(tmp_path, TENSORFLOW.replace(",", "\t")))) == [[10, 5, 30, 35]]

    def test_quotes_and_spaces(self, tmp_path: Path) -> None:
        header = '"image", "label", "xmin", "ymin", "xmax", "ymax"\n'
        raw = read(write_one(tmp_path, f'{header}"a.png", "cat, or ""dog""", 10, 5, 30, 35\n'))
        assert raw.names == ('cat, or "dog"',) and boxes(raw) == [[10, 5, 30, 35]]

    def test_blank_lines_are_no_lines(self, tmp_path: Path) -> None:
        raw = read(write_one(tmp_path, "\n" + TENSORFLOW + "\n,,,,,,,\na.png,60,40,cat,11,6,31,36\n"))
        assert raw.lines == 2 and raw.splits[NO_SPLIT].where(1) == "boxes.csv, line 6"

    def test_another_encoding(self, tmp_path: Path) -> None:
        write_one(tmp_path, TENSORFLOW.replace("cat", "Kätzchen"), encoding="latin-1")
        told = refusal(tmp_path)
        assert told.startswith(f"cannot read {tmp_path / 'boxes.csv'} as a table ('utf-8' codec can't decode byte 0xe4")
        assert told.endswith("; write it as CSV in UTF-8")

    def test_a_quote_that_does_not_end(self, tmp_path: Path) -> None:
        write_one(tmp_path, TENSORFLOW + 'a.png,60,40,"cat' + "x" * 140_000)
        assert "field larger than field limit" in refusal(tmp_path)


class TestRows:
    @pytest.mark.parametrize(
        "bad", ["a.png,60,40,cat,ten,5,30,35", "a.png,60,40,cat,10,5,30,", "a.png,60,40,cat,,,,", "a.png,60,40,cat"]
    )
    def test_a_row_without_four_numbers_is_counted(self, tmp_path: Path, bad: str) -> None:
        raw = read(write_one(tmp_path, f"{TENSORFLOW}{bad}\n"))
        found = Findings()
        records, totals = clean_records(raw, found)
        assert found.counts == {Kind.NOT_FINITE: 1} and totals["box"] == 2
        assert found.examples[Kind.NOT_FINITE] == ["boxes.csv, line 3"]
        assert records[NO_SPLIT][0].boxes.tolist() == [[10, 5, 30, 35]]

    @pytest.mark.parametrize(
        "bad", [",60,40,cat,10,5,30,35", "a.png,60,40,,10,5,30,35", "a.png,60,40,cat,or dog,10,5,30,35", "cat"]
    )
    def test_a_row_that_is_no_label_is_counted(self, tmp_path: Path, bad: str) -> None:
        bad = "," * 3 + bad if bad == "cat" else bad
        raw = read(write_one(tmp_path, f"{TENSORFLOW}{bad}\n"))
        assert raw.found.counts == {Kind.NOT_A_LINE: 1} and raw.lines == 2
        assert raw.found.examples[Kind.NOT_A_LINE] == [f"boxes.csv, line 3 ({bad})"]
        assert raw.names == ("cat",) and boxes(raw) == [[10, 5, 30, 35]]

    @pytest.mark.parametrize("row", ["b.png,,,,,", "b.png", "b.png,,,,, "])
    def test_an_image_without_boxes(self, tmp_path: Path, row: str) -> None:
        write_image(tmp_path / "b.png", 60, 40, seed=2)
        raw = read(write_one(tmp_path, f"{row}\na.png,10,5,30,35,cat\n"))
        assert paths(raw) == ["b.png", "a.png"] and raw.splits[NO_SPLIT].image_of_box.tolist() == [1]
        assert raw.found.counts == {}

    def test_rows_of_one_image_need_not_stand_together(self, tmp_path: Path) -> None:
        write_image(tmp_path / "b.png", 60, 40, seed=2)
        raw = read(write_one(tmp_path, "a.png,10,5,30,35,cat\nb.png,11,5,30,35,dog\n./a.png,12,5,30,35,ant\n"))
        assert paths(raw) == ["a.png", "b.png"]
        assert raw.splits[NO_SPLIT].image_of_box.tolist() == [0, 1, 0]
        assert [raw.names[label] for label in raw.splits[NO_SPLIT].labels] == ["cat", "dog", "ant"]

    def test_a_table_without_rows(self, tmp_path: Path) -> None:
        write_one(tmp_path, TENSORFLOW.splitlines()[0])
        assert refusal(tmp_path) == f"{tmp_path} has no row that names an image; give the table of the boxes"

    def test_an_image_without_a_file(self, tmp_path: Path) -> None:
        found = Findings()
        clean_records(read(write_one(tmp_path, TENSORFLOW + "b.png,60,40,cat,10,5,30,35\n")), found)
        assert found.counts == {Kind.MISSING: 1} and found.examples[Kind.MISSING] == [str(tmp_path / "b.png")]


class TestShares:
    def test_a_tie_is_in_pixels(self, tmp_path: Path) -> None:
        raw = read(write_one(tmp_path, "a.png,0,0,1,1,cat\na.png,0,0,1,2,cat\n"))
        assert not raw.splits[NO_SPLIT].relative

    def test_a_share_may_leave_the_image_a_little(self, tmp_path: Path) -> None:
        raw = read(write_one(tmp_path, "a.png,-0.01,0,1.02,0.5,cat\n"))
        assert boxes_read(raw)[NO_SPLIT]["a.png"] == [("cat", 0, 0, 60, 20)]

    def test_one_box_that_is_wrong_does_not_turn_a_table_into_pixels(self, tmp_path: Path) -> None:
        raw = read(write_one(tmp_path, "a.png,0.25,0.5,1,1,cat\na.png,0.5,0.5,50,1,cat\na.png,0,0,0.5,1,cat\n"))
        assert boxes_read(raw)[NO_SPLIT]["a.png"] == [("cat", 0, 0, 30, 40), ("cat", 15, 20, 60, 40), ("cat", 30, 20, 60, 40)]

    def test_boxes_in_the_first_pixel_do_not_turn_a_table_into_shares(self, tmp_path: Path) -> None:
        raw = read(write_one(tmp_path, "a.png,0,0,1,1,cat\na.png,10,5,30,35,cat\n"))
        assert boxes_read(raw)[NO_SPLIT]["a.png"] == [("cat", 0, 0, 1, 1), ("cat", 10, 5, 30, 35)]

    def test_a_number_that_is_not_finite_does_not_count(self, tmp_path: Path) -> None:
        raw = read(write_one(tmp_path, "a.png,0.25,0.5,1,1,cat\na.png,inf,nan,1,1,cat\n"))
        assert boxes_read(raw)[NO_SPLIT]["a.png"] == [("cat", 15, 20, 60, 40)]

    def test_a_table_without_boxes_is_neither(self, tmp_path: Path) -> None:
        write_image(tmp_path / "b.png", 60, 40, seed=2)
        write_one(tmp_path, "b.png,,,,,\n", "one.csv")
        raw = read(write_one(tmp_path, "a.png,0.25,0.5,1,1,cat\n", "two.csv"))
        assert boxes_read(raw)[NO_SPLIT] == {"a.png": [("cat", 15, 20, 60, 40)], "b.png": []}

    def test_pixels_and_shares_in_two_tables(self, tmp_path: Path) -> None:
        write_one(tmp_path, TENSORFLOW, "one.csv")
        write_one(tmp_path, "a.png,0.1,0.2,0.3,0.4,cat\n", "two.csv")
        one, two = tmp_path / "one.csv", tmp_path / "two.csv"
        assert refusal(tmp_path) == f"{one} gives boxes in pixels, {two} as shares of the image; write both in pixels"


class TestSplits:
    @pytest.mark.parametrize("file", ["train.csv", "train/boxes.csv", "labels/train_labels.csv", "test/train.csv"])
    def test_the_path_of_the_table_names_the_split(self, tmp_path: Path, file: str) -> None:
        assert list(read(write_one(tmp_path, TENSORFLOW, file)).splits) == ["train"]

    def test_a_column_goes_before_the_path(self, tmp_path: Path) -> None:
        for name in ("b.png", "c.png"):
            write_image(tmp_path / name, 60, 40, seed=2)
        rows = "val,a.png,cat,10,5,30,35\nTraining,b.png,cat,10,5,30,35\n,c.png,cat,10,5,30,35\n"
        raw = read(write_one(tmp_path, f"split,image,label,x1,y1,x2,y2\n{rows}", "test.csv"))
        assert [(split, paths(raw, split)) for split in raw.splits] == [
            ("train", ["b.png"]),
            ("val", ["a.png"]),
            ("test", ["c.png"]),
        ]

    def test_folders_of_images_name_the_splits_where_nothing_else_does(self, tmp_path: Path) -> None:
        write_image(tmp_path / "images" / "train" / "b.png", 60, 40, seed=2)
        write_image(tmp_path / "images" / "val" / "c.png", 60, 40, seed=3)
        raw = read(write_table(tmp_path, "images/train/b.png,10,5,30,35,cat\nc.png,10,5,30,35,cat\n"))
        assert paths(raw, "train") == ["b.png"] and paths(raw, "val") == ["c.png"]

    def test_images_of_one_name_in_two_splits(self, tmp_path: Path) -> None:
        for split in ("train", "val"):
            write_image(tmp_path / "images" / split / "b.png", 60, 40, seed=2)
            write_text(tmp_path / f"{split}.csv", "b.png,10,5,30,35,cat\n")
        raw = read(tmp_path)
        assert {split: raw.splits[split].images[0].path.parent.name for split in raw.splits} == {"train": "train", "val": "val"}

    def test_two_images_that_a_row_may_mean(self, tmp_path: Path) -> None:
        for folder in ("one", "two"):
            write_image(tmp_path / folder / "b.png", 60, 40, seed=2)
        write_text(tmp_path / "boxes.csv", "b.png,10,5,30,35,cat\n")
        assert "names the image b.png, which may be" in refusal(tmp_path)

    def test_unassigned_rows_stay_out_with_their_classes(self, tmp_path: Path) -> None:
        write_csv_automl(tmp_path, example())
        with (tmp_path / "import.csv").open("a") as table:
            table.write("UNASSIGNED,gs://b/a.png,ant,0.1,0.2,,,0.3,0.4,,\n")
        write_image(tmp_path / "a.png", 60, 40, seed=1)
        raw = read(tmp_path)
        assert raw.notes == [f"1 image belongs to no split, unlike the others, and stayed out: {tmp_path / 'a.png'}"]
        assert raw.names == ("cat", "dog", "traffic light")
        assert_same(raw, example(), tolerance=1e-3)

    def test_two_tables_about_one_image_are_one_image(self, tmp_path: Path) -> None:
        write_one(tmp_path, TENSORFLOW, "cats.csv")
        raw = read(write_one(tmp_path, TENSORFLOW.replace("cat", "dog"), "dogs.csv"))
        assert paths(raw) == ["a.png"] and len(raw.splits[NO_SPLIT]) == 2


def write_table(root: Path, text: str) -> Path:
    write_text(root / "boxes.csv", text)
    return root


def test_a_quotation_mark_without_its_partner_swallows_no_lines_in_silence(tmp_path: Path) -> None:
    """Lines 3 to 5 become one cell."""
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax", *(f"{i}.png,60,40,cat,{i},2,30,40" for i in range(4))]
    rows[2] = '1.png,60,40,"6 inch,1,2,30,40'
    for i in range(4):
        write_image(tmp_path / f"{i}.png", 60, 40, i)
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    tree = Tree.of(tmp_path)
    raw = read_csv(tree, find_csv(tree))
    assert raw.found.counts == {Kind.NOT_A_LINE: 3} and raw.lines == 4
    assert len(raw.splits[""].images) == 1 and "\n" not in raw.found.examples[Kind.NOT_A_LINE][0]
