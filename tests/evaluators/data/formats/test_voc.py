from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from evaluators.data.annotations import NO_SPLIT, RawData
from evaluators.data.clean import clean_records
from evaluators.data.formats.voc import find_voc, read_voc
from evaluators.data.problems import Findings, Kind
from evaluators.data.tree import Tree
from gpnas.errors import DataError
from tests.evaluators.data.formats.layouts_voc_csv_labelme import write_text, write_voc, write_voc_roboflow
from tests.evaluators.data.formats.twin import TwinData, assert_same, boxes, example, paths, twin_data, write_image

LAYOUTS = [write_voc, write_voc_roboflow]
BOX = "<bndbox><xmin>10</xmin><ymin>5</ymin><xmax>30</xmax><ymax>35</ymax></bndbox>"
CAT = f"<object><name>cat</name>{BOX}</object>"
SIZE = "<size><width>60</width><height>40</height></size>"


def read(root: Path) -> RawData:
    tree = Tree.of(root)
    return read_voc(tree, find_voc(tree))


def write_one(root: Path, inside: str = CAT, file: str = "a.xml", filename: str | None = "a.png", size: str = SIZE) -> Path:
    """An XML file with these objects beside the image a.png of 60x40 pixels."""
    write_image(root / "a.png", 60, 40, seed=1)
    named = "" if filename is None else f"<filename>{filename}</filename>"
    write_text(root / file, f"<annotation>{named}{size}{inside}</annotation>")
    return root


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as refused:
        read(root)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("write", LAYOUTS)
def test_every_box_comes_back(tmp_path: Path, write: Callable[[Path, TwinData], Path]) -> None:
    raw = read(write(tmp_path, example()))
    assert raw.names == ("cat", "dog", "traffic light")
    assert raw.notes == []
    assert_same(raw, example(), tolerance=0)


@pytest.mark.parametrize("write", LAYOUTS)
def test_without_splits(tmp_path: Path, write: Callable[[Path, TwinData], Path]) -> None:
    assert_same(read(write(tmp_path, example().without_split())), example().without_split())


@pytest.mark.parametrize("write", LAYOUTS)
@settings(max_examples=25, deadline=None)
@given(data=twin_data())
def test_any_data_set_comes_back(write: Callable[[Path, TwinData], Path], data: TwinData) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw = read(write(Path(folder), data))
        assert raw.names == data.used_names
        assert_same(raw, data)


class TestFind:
    def test_other_xml_is_not_voc(self, tmp_path: Path) -> None:
        write_text(tmp_path / "annotations.xml", "<annotations><image name='a.png'><box label='cat'/></image></annotations>")
        write_text(tmp_path / "pom.xml", "<project><filename>a.png</filename></project>")
        write_text(tmp_path / "poem.xml", "<annotation><verse>one</verse></annotation>")
        assert find_voc(Tree.of(tmp_path)) == []

    def test_not_only_the_first_file_is_looked_into(self, tmp_path: Path) -> None:
        for i in range(3):
            write_text(tmp_path / f"{i}.xml", "<project/>")
        write_one(tmp_path)
        assert paths(read(tmp_path)) == ["a.png"]

    def test_no_xml(self, tmp_path: Path) -> None:
        assert find_voc(Tree.of(tmp_path)) == []

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_what_comes_before_the_root_does_not_matter(self, tmp_path: Path, encoding: str) -> None:
        write_text(tmp_path / "a.xml", f'\n<?xml version="1.0"?><!-- by <tool> -->\n<annotation>{SIZE}</annotation>', encoding)
        assert find_voc(Tree.of(tmp_path)) == [tmp_path / "a.xml"]

    def test_a_file_alone(self, tmp_path: Path) -> None:
        write_voc(tmp_path, example())
        tree = Tree.of(tmp_path / "Annotations" / "street.xml")
        raw = read_voc(tree, find_voc(tree))
        assert paths(raw) == ["street.png"]
        assert len(raw.splits[NO_SPLIT]) == 2


class TestFiles:
    def test_files_of_other_programs_are_skipped(self, tmp_path: Path) -> None:
        write_one(tmp_path)
        write_text(tmp_path / "annotations.xml", "<annotations><image/></annotations>")
        write_text(tmp_path / "pom.xml", "<project><filename>b.png</filename></project>")
        write_text(tmp_path / "poem.xml", "<annotation><verse>one</verse></annotation>")
        write_text(tmp_path / "list.xml", '<!DOCTYPE plist SYSTEM "x.dtd"><plist/>')
        raw = read(tmp_path)
        assert paths(raw) == ["a.png"] and raw.found.counts == {}

    def test_a_broken_file_is_left_out_and_counted(self, tmp_path: Path) -> None:
        write_one(tmp_path)
        write_text(tmp_path / "labels" / "b.xml", f"<annotation><filename>b.png</filename>{SIZE}<object>")
        raw = read(tmp_path)
        assert paths(raw) == ["a.png"]
        assert raw.found.counts == {Kind.UNREADABLE: 1}
        assert raw.found.examples[Kind.UNREADABLE][0].startswith("labels/b.xml (no element found")

    def test_an_encoding_that_expat_does_not_know(self, tmp_path: Path) -> None:
        write_one(tmp_path)
        write_text(tmp_path / "b.xml", f'<?xml version="1.0" encoding="gbk"?><annotation>{SIZE}</annotation>')
        assert "multi-byte" in read(tmp_path).found.examples[Kind.UNREADABLE][0]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"])
    def test_encodings_and_blank_lines_around(self, tmp_path: Path, encoding: str) -> None:
        mark = "\ufeff" if encoding.startswith("utf-16") else "\n" if encoding == "utf-8" else ""
        named = {"utf-16-le": "utf-16", "utf-16-be": "utf-16"}.get(encoding, "utf-8")
        write_one(tmp_path)
        text = (
            f'{mark}<?xml version="1.0" encoding="{named}"?><annotation>{SIZE}{CAT.replace("cat", "Kätzchen")}</annotation>\n'
        )
        write_text(tmp_path / "a.xml", text, encoding)
        assert read(tmp_path).names == ("Kätzchen",)

    def test_nothing_but_broken_files(self, tmp_path: Path) -> None:
        write_text(tmp_path / "b.xml", f"<annotation>{SIZE}<object>")
        told = refusal(tmp_path)
        assert told.startswith(f"{tmp_path} has no XML file that can be read: b.xml (no element found")
        assert told.endswith("; export it again")

    def test_no_file_of_the_format(self, tmp_path: Path) -> None:
        remedy = "<annotation> with <filename> and <object>; give their folder"
        assert refusal(tmp_path) == f"{tmp_path} has no Pascal VOC file, {remedy}"

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    def test_a_document_type_is_refused(self, tmp_path: Path, encoding: str) -> None:
        entities = '<!ENTITY a "cat"><!ENTITY b "&a;&a;&a;">'
        text = f"<!DOCTYPE annotation [{entities}]><annotation>{SIZE}<object><name>&b;</name>{BOX}</object></annotation>"
        write_text(tmp_path / "a.xml", text, encoding)
        wanted = f"{tmp_path / 'a.xml'} declares a document type (<!DOCTYPE), which may hide entities; remove it"
        assert refusal(tmp_path) == wanted

    def test_two_files_about_one_image(self, tmp_path: Path) -> None:
        write_one(tmp_path)
        write_one(tmp_path, file="old/a.xml")
        first, second = tmp_path / "a.xml", tmp_path / "old" / "a.xml"
        assert refusal(tmp_path) == f"{first} and {second} both describe the image {tmp_path / 'a.png'}; remove one of them"

    def test_two_files_about_one_image_that_is_missing(self, tmp_path: Path) -> None:
        for stem in ("b", "c"):
            write_text(tmp_path / f"{stem}.xml", f"<annotation><filename>x.png</filename>{SIZE}{CAT}</annotation>")
        found = Findings()
        clean_records(read(tmp_path), found)
        assert found.counts == {Kind.MISSING: 2}


class TestImage:
    @pytest.mark.parametrize(
        "filename", ["a.png", "a", "a.jpg", "renamed.png", "../pictures/a.png", "C:\\mine\\a.png", "", None]
    )
    def test_the_image_of_the_same_stem(self, tmp_path: Path, filename: str | None) -> None:
        assert paths(read(write_one(tmp_path, filename=filename))) == ["a.png"]

    @pytest.mark.parametrize("filename", ["a.png", "a", "C:\\mine\\a.png"])
    def test_a_name_that_the_xml_file_does_not_share(self, tmp_path: Path, filename: str) -> None:
        raw = read(write_one(tmp_path, file="0001.xml", filename=filename))
        assert [image.path for image in raw.splits[NO_SPLIT].images] == [tmp_path / "a.png"]

    def test_a_stale_name_that_is_another_image_now(self, tmp_path: Path) -> None:
        write_image(tmp_path / "b.png", 60, 40, seed=2)
        assert paths(read(write_one(tmp_path, filename="b.png"))) == ["a.png"]

    def test_the_suffix_tells_two_images_of_one_stem_apart(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.jpg", 60, 40, seed=2)
        assert paths(read(write_one(tmp_path, filename="a.png"))) == ["a.png"]
        assert paths(read(write_one(tmp_path, filename="a.jpg"))) == ["a.jpg"]

    @pytest.mark.parametrize("filename", ["a.jpg", "a", "renamed.jpg", None])
    def test_masks_of_the_kit_are_no_images(self, tmp_path: Path, filename: str | None) -> None:
        write_one(tmp_path, file="Annotations/a.xml", filename=filename)
        (tmp_path / "a.png").unlink()
        for file in ("JPEGImages/a.jpg", "SegmentationClass/a.png", "SegmentationObject/a.png"):
            write_image(tmp_path / file, 60, 40, seed=1)
        assert paths(read(tmp_path)) == ["a.jpg"]

    def test_two_images_that_the_name_may_mean(self, tmp_path: Path) -> None:
        write_one(tmp_path, file="Annotations/a.xml")
        (tmp_path / "a.png").unlink()
        one, two = (write_image(tmp_path / folder / "a.png", 60, 40, seed=1) for folder in ("one", "two"))
        file = tmp_path / "Annotations" / "a.xml"
        assert refusal(tmp_path).startswith(f"{file} names the image a.png, which may be {one} or {two}; ")

    @pytest.mark.parametrize(("filename", "missing"), [("b.png", "b.png"), (None, "b.jpg")])
    def test_an_image_without_a_file(self, tmp_path: Path, filename: str | None, missing: str) -> None:
        write_text(
            tmp_path / "b.xml", f"<annotation>{f'<filename>{filename}</filename>' if filename else ''}{CAT}</annotation>"
        )
        found = Findings()
        clean_records(read(tmp_path), found)
        assert found.counts == {Kind.MISSING: 1}
        assert found.examples[Kind.MISSING] == [str(tmp_path / missing)]

    @pytest.mark.parametrize(
        "size",
        [
            "",
            "<size><width>0</width><height>0</height></size>",
            "<size/>",
            "<size><width>-60</width><height>x</height></size>",
        ],
    )
    def test_a_missing_size_comes_from_the_header(self, tmp_path: Path, size: str) -> None:
        raw = read(write_one(tmp_path, size=size))
        assert raw.splits[NO_SPLIT].images[0][1:3] == (0, 0)
        records, _ = clean_records(raw, Findings())
        assert (records[NO_SPLIT][0].width, records[NO_SPLIT][0].height) == (60, 40)

    def test_size_in_decimals(self, tmp_path: Path) -> None:
        raw = read(write_one(tmp_path, size="<size><width>60.0</width><height> 40,0 </height></size>"))
        assert raw.splits[NO_SPLIT].images[0][1:3] == (60, 40)


class TestObject:
    def test_corners_are_read_as_they_are_written(self, tmp_path: Path) -> None:
        raw = read(write_one(tmp_path))
        assert boxes(raw) == [[10, 5, 30, 35]]
        assert raw.splits[NO_SPLIT].where(0) == "a.xml, object 1"

    @pytest.mark.parametrize(("xmin", "read_as"), [("10.25", 10.25), ("10,25", 10.25), (" 10\n", 10), ("1e1", 10)])
    def test_forms_of_a_number(self, tmp_path: Path, xmin: str, read_as: float) -> None:
        assert boxes(read(write_one(tmp_path, CAT.replace(">10<", f">{xmin}<")))) == [[read_as, 5, 30, 35]]

    @pytest.mark.parametrize(
        "entry",
        [
            CAT.replace(">10<", ">ten<"),
            CAT.replace(">10<", "><"),
            CAT.replace(">10<", ">1_0<"),
            CAT.replace(">10<", ">1,234.5<"),
            CAT.replace("<xmin>10</xmin>", ""),
            "<object><name>cat</name></object>",
            "<object><name>cat</name><polygon><x1>10</x1></polygon></object>",
            "<object><name>cat</name><robndbox><cx>5</cx></robndbox></object>",
            "<object><name>cat</name><robndbox><cx>5</cx><cy>5</cy><w>4</w><h>2</h><angle>inf</angle></robndbox></object>",
        ],
    )
    def test_what_is_no_box_is_counted(self, tmp_path: Path, entry: str) -> None:
        raw = read(write_one(tmp_path, CAT + entry.replace("cat", "dog")))
        found = Findings()
        records, totals = clean_records(raw, found)
        assert found.counts == {Kind.NOT_FINITE: 1} and totals["box"] == 2
        assert found.examples[Kind.NOT_FINITE] == ["a.xml, object 2"]
        assert records[NO_SPLIT][0].boxes.tolist() == [[10, 5, 30, 35]]

    def test_boxes_of_parts_are_ignored(self, tmp_path: Path) -> None:
        part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></part>"
        raw = read(write_one(tmp_path, f"<object><name>cat</name>{part}{BOX}{part}</object>"))
        assert raw.names == ("cat",) and boxes(raw) == [[10, 5, 30, 35]]

    def test_a_difficult_object_is_an_ordinary_one_and_a_note_says_so(self, tmp_path: Path) -> None:
        raw = read(write_one(tmp_path, CAT.replace("</name>", "</name><difficult>1</difficult>") + CAT.replace("10", "11")))
        assert raw.splits[NO_SPLIT].crowds.tolist() == [False, False]
        assert raw.notes == ["marked difficult: 1 of 2 boxes; VOC's own evaluation ignores such boxes, here they count"]

    def test_a_rotated_box_of_rolabelimg(self, tmp_path: Path) -> None:
        """A box of 20 x 10 that is turned by 30 degrees is 20 cos + 10 sin = 22.32 wide and 20 sin + 10 cos = 18.66 high."""
        turned = f"<robndbox><cx>30</cx><cy>20</cy><w>20</w><h>10</h><angle>{np.pi / 6}</angle></robndbox>"
        raw = read(write_one(tmp_path, f"<object><name>cat</name>{turned}</object>"))
        np.testing.assert_allclose(boxes(raw), [[18.840, 10.670, 41.160, 29.330]], atol=1e-3)

    @pytest.mark.parametrize(
        "polygon",
        [
            "<x1>30</x1><y1>9</y1><x2>12</x2><y2>5</y2><x3>10</x3><y3>35</y3>",
            "<pt><x>30</x><y>9</y></pt><pt><x>12</x><y>5</y></pt><pt><x>10</x><y>35</y></pt>",
        ],
    )
    def test_a_polygon_without_a_box(self, tmp_path: Path, polygon: str) -> None:
        raw = read(write_one(tmp_path, f"<object><name>cat</name><polygon>{polygon}</polygon></object>"))
        assert boxes(raw) == [[10, 5, 30, 35]]

    def test_a_box_goes_before_its_polygon(self, tmp_path: Path) -> None:
        polygon = "<polygon><x1>0</x1><y1>0</y1><x2>50</x2><y2>20</y2></polygon>"
        assert boxes(read(write_one(tmp_path, CAT.replace("</name>", f"</name>{polygon}")))) == [[10, 5, 30, 35]]

    def test_a_deleted_object_of_the_old_labelme(self, tmp_path: Path) -> None:
        raw = read(write_one(tmp_path, CAT.replace("</name>", "</name><deleted>1</deleted>") + CAT))
        assert raw.splits[NO_SPLIT].where(0) == "a.xml, object 2" and len(raw.splits[NO_SPLIT]) == 1

    @pytest.mark.parametrize("name", ["", "<name/>", "<name>  </name>"])
    def test_an_object_without_a_name(self, tmp_path: Path, name: str) -> None:
        write_one(tmp_path, CAT + CAT.replace("<name>cat</name>", name))
        assert refusal(tmp_path) == "a.xml, object 2 has no <name>; name its class or remove the object"

    def test_space_around_a_name(self, tmp_path: Path) -> None:
        assert read(write_one(tmp_path, CAT + CAT.replace("cat", "\n cat "))).names == ("cat",)


def write_list(root: Path, name: str, *lines: str) -> None:
    write_text(root / "ImageSets" / "Main" / f"{name}.txt", "".join(f"{line}\n" for line in lines))


class TestLists:
    @pytest.fixture
    def kit(self, tmp_path: Path) -> Path:
        """The five images of the example, without lists."""
        return write_voc(tmp_path, example().without_split())

    def test_an_image_in_no_list_is_left_out(self, kit: Path) -> None:
        write_list(kit, "train", "street", "sky")
        write_list(kit, "val", "two dogs")
        raw = read(kit)
        assert {split: paths(raw, split) for split in raw.splits} == {
            "train": ["sky.png", "street.png"],
            "val": ["two dogs.jpg"],
        }
        shown = "Annotations/park.v2.xml, Annotations/yard.xml"
        assert raw.notes == [f"2 of 5 XML files stand in no list of ImageSets/Main and stayed out: {shown}"]

    def test_lists_of_one_class_are_ignored(self, kit: Path) -> None:
        write_list(kit, "cat_train", "street  1", "sky -1")
        assert list(read(kit).splits) == [NO_SPLIT]

    def test_trainval_counts_where_train_and_val_are_absent(self, kit: Path) -> None:
        write_list(kit, "trainval", "street", "two dogs")
        write_list(kit, "test", "sky", "yard", "park.v2")
        raw = read(kit)
        assert paths(raw, "train") == ["street.png", "two dogs.jpg"] and len(raw.splits["test"].images) == 3

    def test_trainval_does_not_count_beside_train(self, kit: Path) -> None:
        write_list(kit, "trainval", "street", "two dogs", "sky")
        write_list(kit, "train", "street")
        write_list(kit, "val", "two dogs", "yard", "park.v2")
        assert paths(read(kit), "train") == ["street.png"]

    def test_lists_of_paths(self, kit: Path) -> None:
        write_list(kit, "train", "JPEGImages/street.png", ".\\JPEGImages\\sky.png", "Annotations/park.v2.xml")
        write_list(kit, "val", "  two dogs  ", "", "yard")
        raw = read(kit)
        assert paths(raw, "train") == ["park.v2.jpg", "sky.png", "street.png"] and raw.notes == []

    def test_a_list_with_a_byte_order_mark(self, kit: Path) -> None:
        write_text(kit / "ImageSets" / "Main" / "train.txt", "street\nsky\n", "utf-8-sig")
        assert paths(read(kit), "train") == ["sky.png", "street.png"]

    def test_valid_is_another_name_of_val(self, kit: Path) -> None:
        write_list(kit, "train", "street", "two dogs", "sky")
        write_list(kit, "valid", "yard", "park.v2")
        assert paths(read(kit), "val") == ["park.v2.jpg", "yard.png"]

    def test_an_image_in_two_lists_is_in_two_splits(self, kit: Path) -> None:
        write_list(kit, "train", "street", "two dogs", "sky")
        write_list(kit, "val", "street", "yard", "park.v2")
        raw = read(kit)
        assert "street.png" in paths(raw, "train") and "street.png" in paths(raw, "val")

    def test_a_listed_name_without_a_file_is_said(self, kit: Path) -> None:
        write_list(kit, "train", "street", "two dogs", "sky", "yard", "park.v2")
        write_list(kit, "test", "lost1", "lost2", "lost3", "lost4")
        raw = read(kit)
        assert raw.notes == ["4 names in the lists of ImageSets/Main have no XML file: lost1, lost2, lost3, ..."]
        assert list(raw.splits) == ["train"]

    def test_lists_that_fit_no_file(self, kit: Path) -> None:
        write_list(kit, "train", "0001")
        folder = kit / "ImageSets" / "Main"
        wanted = f"the lists in {folder} fit no XML file of {kit} (they name 0001)"
        assert refusal(kit) == f"{wanted}; list the names of the XML files without suffix, or remove ImageSets"

    def test_an_empty_list_says_nothing(self, kit: Path) -> None:
        write_list(kit, "test")
        assert list(read(kit).splits) == [NO_SPLIT]

    def test_a_list_that_is_no_text(self, kit: Path) -> None:
        file = kit / "ImageSets" / "Main" / "train.txt"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"\xff\xfe\x00")
        assert refusal(kit).startswith(f"cannot read {file} as text (") and refusal(kit).endswith("; write it in UTF-8")

    def test_two_kits_in_one_folder(self, tmp_path: Path) -> None:
        for year, stem in (("VOC2007", "000001"), ("VOC2012", "2012_000001")):
            write_one(tmp_path / year, file="Annotations/a.xml")
            (tmp_path / year / "Annotations" / "a.xml").rename(tmp_path / year / "Annotations" / f"{stem}.xml")
            (tmp_path / year / "a.png").rename(tmp_path / year / f"{stem}.png")
        write_list(tmp_path / "VOC2007", "train", "000001")
        write_list(tmp_path / "VOC2012", "val", "2012_000001")
        raw = read(tmp_path)
        assert paths(raw, "train") == ["000001.png"] and paths(raw, "val") == ["2012_000001.png"]


class TestFolders:
    def test_folders_of_images_name_the_splits_where_those_of_the_files_do_not(self, tmp_path: Path) -> None:
        for split, stem in (("train", "a"), ("val", "b")):
            write_image(tmp_path / "images" / split / f"{stem}.png", 60, 40, seed=1)
            write_text(tmp_path / "Annotations" / f"{stem}.xml", f"<annotation>{CAT}</annotation>")
        raw = read(tmp_path)
        assert paths(raw, "train") == ["a.png"] and paths(raw, "val") == ["b.png"]

    def test_an_image_outside_of_the_splits_is_left_out_with_its_classes(self, tmp_path: Path) -> None:
        write_voc_roboflow(tmp_path, example())
        write_one(tmp_path, CAT.replace("cat", "ant"))
        raw = read(tmp_path)
        assert raw.names == ("cat", "dog", "traffic light") and list(raw.splits) == ["train", "val"]
        assert raw.notes == [f"1 image belongs to no split, unlike the others, and stayed out: {tmp_path / 'a.png'}"]
        assert_same(raw, example(), tolerance=0)
