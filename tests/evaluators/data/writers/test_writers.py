"""Data sets written in each format and read again: the same images, classes and boxes."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from numpy.typing import NDArray

from evaluators.data.annotations import RawData
from evaluators.data.clean import clean_records
from evaluators.data.digits import digit_scenes
from evaluators.data.formats.coco import find_coco, read_coco
from evaluators.data.formats.voc import find_voc, read_voc
from evaluators.data.formats.yolo import find_data_yaml, read_data_yaml
from evaluators.data.images import read_image
from evaluators.data.open import open_data
from evaluators.data.problems import Findings
from evaluators.data.records import DetectionData, Record
from evaluators.data.tree import Tree
from evaluators.data.writers.coco import image_ids
from evaluators.data.writers.convert import WRITERS, check_target, convert
from evaluators.data.writers.placing import by_name, by_stem, own_name, put_image, unique_names
from evaluators.data.writers.voc import class_names
from gpnas.errors import InputError
from tests.evaluators.data.formats.twin import TwinData, assert_same, example, twin_data, write_image

READERS = {"coco": (find_coco, read_coco), "yolo": (find_data_yaml, read_data_yaml), "voc": (find_voc, read_voc)}


def read(format_: str, folder: Path) -> RawData:
    find, reader = READERS[format_]
    tree = Tree.of(folder)
    return reader(tree, find(tree))


def records_of(data: TwinData, root: Path) -> DetectionData:
    """A twin data set with its images on disk, below a folder for each split."""
    seeds = iter(range(1000))
    keys = iter(range(7, 1000, 3))
    splits = {
        split: tuple(
            Record(
                next(keys),
                image.width,
                image.height,
                np.array([box[1:] for box in image.boxes], dtype=np.float32).reshape(-1, 4),
                np.array([box[0] for box in image.boxes], dtype=np.int64),
                path=write_image(root / (split or "all") / image.file, image.width, image.height, next(seeds)),
            )
            for image in images
        )
        for split, images in data.splits.items()
    }
    return DetectionData("twin", data.names, splits, tuple(range(3, 3 + len(data.names))))


@pytest.fixture
def pets(tmp_path: Path) -> DetectionData:
    return records_of(example(), tmp_path / "source")


def crowded(data: DetectionData) -> DetectionData:
    """The first box of the first image is a crowd, of an area that is not that of its box."""
    first, *others = data.splits["train"]
    n = len(first.boxes)
    areas = first.areas.copy()
    areas[0] = 123.5
    first = replace(first, crowd=np.arange(n) == 0, areas=areas)
    return replace(data, splits={**data.splits, "train": (first, *others)})


@pytest.mark.parametrize("format_", WRITERS)
def test_what_is_written_is_read_again(format_: str, pets: DetectionData, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()  # an empty folder will do
    told = convert(pets, format_, tmp_path / "out")
    assert told.partition(";")[0] == f"wrote 5 images and 7 boxes as {format_} into {tmp_path / 'out'}"
    assert told.count(";") == ("1 images got a new name" in told) == (format_ == "voc")  # "two dogs.jpg"
    twin = example()
    if format_ == "voc":
        names = {image.file: image.file.replace(" ", "_") for image in twin.images}
        splits = {s: [replace(image, file=names[image.file]) for image in images] for s, images in twin.splits.items()}
        twin = TwinData(twin.names, splits)
    assert_same(read(format_, tmp_path / "out"), twin, tolerance=0.01)


@pytest.mark.parametrize("format_", WRITERS)
@given(data=twin_data())
@settings(max_examples=15, deadline=None)
def test_a_detour_through_any_format_keeps_every_box(format_: str, data: TwinData) -> None:
    """COCO -> format -> COCO."""
    data = TwinData(data.names, data.splits if "train" in data.splits else {"train": data.images})
    assume(data.used_names)  # open_data accepts no data without boxes, and VOC tells no class without a box
    if format_ == "voc":
        assume(len({" ".join(name.split()) for name in data.names}) == len(data.names))  # refused: see below
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        first = records_of(data, root / "source")
        if "val" not in first.splits:
            first = replace(first, splits={**first.splits, "val": ()})
        convert(first, "coco", root / "coco")
        again = as_data(read("coco", root / "coco"), "coco")
        convert(again, format_, root / "there")
        there = as_data(read(format_, root / "there"), format_)
        convert(there, "coco", root / "back")
        assert_equal(as_data(read("coco", root / "back"), "coco"), first)


def as_data(raw: RawData, format_: str) -> DetectionData:
    found = Findings()
    splits, _ = clean_records(raw, found)
    assert found.counts == {} and raw.found.counts == {}
    ids = raw.category_ids or tuple(range(len(raw.names)))
    return DetectionData(format_, raw.names, {split: splits.get(split, ()) for split in ("train", "val", "test")}, ids)


Boxes = tuple[list[str], NDArray[np.float32]]
"""Of an image: the class and the corners of each box."""


def by_content(data: DetectionData) -> dict[tuple[str, bytes], Boxes]:
    """The boxes of each image, told by its split and its bytes. XML keeps no double spaces in names."""
    return {
        (split, record.path.read_bytes()): (
            [" ".join(data.names[label].split()) for label in record.classes.tolist()],
            record.boxes,
        )
        for split, records in data.splits.items()
        for record in records
    }


def assert_equal(data: DetectionData, other: DetectionData) -> None:
    """The same images in the same splits, each with the same classes, and corners half a pixel away at most."""
    mine, others = by_content(data), by_content(other)
    assert mine.keys() == others.keys()
    for image, (names, boxes) in mine.items():
        assert names == others[image][0]
        np.testing.assert_allclose(boxes, others[image][1], atol=0.5)


def test_coco_keeps_ids_categories_crowds_and_areas(pets: DetectionData, tmp_path: Path) -> None:
    convert(crowded(pets), "coco", tmp_path / "out")
    content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert [(i["id"], i["file_name"]) for i in content["images"]] == [(7, "street.png"), (10, "two dogs.jpg"), (13, "sky.png")]
    assert content["categories"] == [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}, {"id": 5, "name": "traffic light"}]
    crowd, cat, *_ = content["annotations"]
    assert (crowd["iscrowd"], crowd["area"], crowd["bbox"], crowd["category_id"]) == (1, 123.5, [10, 5, 20, 40], 5)
    assert (cat["iscrowd"], cat["area"], cat["image_id"]) == (0, 58 * 49, 7)
    assert [a["id"] for a in content["annotations"]] == [1, 2, 3, 4]
    again = open_data(str(tmp_path / "out"))
    assert again.splits["train"][0].crowd.tolist() == [True, False]
    assert again.splits["train"][0].areas.tolist() == [123.5, 58 * 49]


@pytest.mark.parametrize("format_", ["yolo", "voc"])
def test_crowds_are_left_out_and_counted_where_a_format_has_none(format_: str, pets: DetectionData, tmp_path: Path) -> None:
    told = convert(crowded(pets), format_, tmp_path / "out")
    assert "wrote 5 images and 6 boxes" in told and "; 1 crowds were left out" in told
    assert sum(map(len, read(format_, tmp_path / "out").splits.values())) == 6


def test_yolo_writes_the_files_that_trainers_expect(pets: DetectionData, tmp_path: Path) -> None:
    convert(pets, "yolo", tmp_path / "out")
    assert (tmp_path / "out/data.yaml").read_text() == (
        "train: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n  2: traffic light\n"
    )
    assert (tmp_path / "out/labels/train/sky.txt").read_text() == ""
    # (10, 5, 30, 45) and (60, 30, 118, 79) in 120 x 80 pixels.
    assert (tmp_path / "out/labels/train/street.txt").read_text() == (
        "2 0.1666666667 0.3125 0.1666666667 0.5\n0 0.7416666667 0.68125 0.4833333333 0.6125\n"
    )


VOC_XML = """\
<annotation>
  <folder>JPEGImages</folder>
  <filename>street.png</filename>
  <size>
    <width>120</width>
    <height>80</height>
    <depth>3</depth>
  </size>
  <segmented>0</segmented>
  <object>
    <name>traffic light</name>
    <pose>Unspecified</pose>
    <truncated>0</truncated>
    <difficult>0</difficult>
    <bndbox>
      <xmin>10.25</xmin>
      <ymin>5</ymin>
      <xmax>30.1</xmax>
      <ymax>45</ymax>
    </bndbox>
  </object>
</annotation>
"""


def test_voc_writes_the_lists_and_corners_as_they_are(pets: DetectionData, tmp_path: Path) -> None:
    convert(pets, "voc", tmp_path / "out")
    lists = {file.name: file.read_text().split() for file in (tmp_path / "out/ImageSets/Main").iterdir()}
    assert lists == {
        "train.txt": ["street", "two_dogs", "sky"],
        "val.txt": ["park.v2", "yard"],
        "trainval.txt": ["street", "two_dogs", "sky", "park.v2", "yard"],
    }
    first = pets.splits["train"][0]
    moved = Record(1, 120, 80, np.array([[10.25, 5, 30.1, 45]], np.float32), np.array([2]), path=first.path)
    convert(replace(pets, splits={"train": (moved,), "val": ()}), "voc", tmp_path / "moved")
    assert (tmp_path / "moved/Annotations/street.xml").read_text() == VOC_XML


def named(*paths: str) -> list[Record]:
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    return [Record(i, 8, 8, *none, path=Path(path)) for i, path in enumerate(paths)]


def test_names_that_collide_are_numbered_in_order() -> None:
    records = named("x/a.jpg", "y/a.jpg", "y/a_2.jpg", "z/A.JPG", "z/b.png")
    assert unique_names(records, by_name) == ["a.jpg", "a_3.jpg", "a_2.jpg", "A_4.JPG", "b.png"]
    assert unique_names(named("a.jpg", "a.png", "a.tif"), by_stem) == ["a.jpg", "a_2.png", "a_3.tif"]
    assert unique_names(named("a.jpg", "a.png", "a.tif"), by_name) == ["a.jpg", "a.png", "a.tif"]


def test_many_names_that_collide_take_no_long_search() -> None:
    names = unique_names(named(*(f"{i}/rgb.png" for i in range(5_000))), by_stem)
    assert len(set(names)) == 5_000 and names[-1] == "rgb_5000.png"


def test_names_that_no_reader_would_find_are_changed() -> None:
    assert [own_name(record) for record in named("x/.hidden.jpg", "x/a\nb\udcff.jpg", "x/é.jpg")] == [
        "_.hidden.jpg",
        "a_b_.jpg",
        "é.jpg",
    ]


@pytest.mark.parametrize("format_", ["yolo", "voc"])
def test_images_of_one_stem_keep_their_own_boxes(format_: str, tmp_path: Path) -> None:
    """a.jpg and a.png of train, a.jpg of val: in the end three images, each with its box."""
    boxes = iter([(0, 1.0, 2.0, 11.0, 22.0), (1, 3.0, 4.0, 13.0, 24.0), (0, 5.0, 6.0, 15.0, 26.0)])
    places = [("train", "a.jpg"), ("train", "a.png"), ("val", "a.jpg")]
    splits: dict[str, list[Record]] = {"train": [], "val": []}
    for i, (split, file) in enumerate(places):
        label, *corners = next(boxes)
        path = write_image(tmp_path / "source" / split / file, 40, 30, seed=i)
        box = np.array([corners], np.float32)
        splits[split].append(Record(i, 40, 30, box, np.array([label], np.int64), path=path))
    data = DetectionData("s", ("cat", "dog"), {split: tuple(records) for split, records in splits.items()}, (0, 1))
    told = convert(data, format_, tmp_path / "out")
    assert f"; {1 if format_ == 'yolo' else 2} images got a new name" in told
    assert_equal(as_data(read(format_, tmp_path / "out"), format_), data)


def test_a_name_that_ends_like_two_files_is_found_in_the_lists_of_voc(pets: DetectionData, tmp_path: Path) -> None:
    path = write_image(tmp_path / "source" / "photo.jpg.png", 120, 80, seed=9)
    first = replace(pets.splits["train"][0], path=path)
    convert(replace(pets, splits={**pets.splits, "train": (first,)}), "voc", tmp_path / "out")
    assert (tmp_path / "out/ImageSets/Main/train.txt").read_text() == "photo_jpg\n"
    assert len(open_data(str(tmp_path / "out")).splits["train"]) == 1


def test_ids_that_are_texts_or_repeated_get_the_next_free_number() -> None:
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    records = [Record(key, 8, 8, *none, path=Path("a")) for key in (5, "x", 3, 5, 9)]
    assert image_ids(records) == [5, 10, 3, 11, 9]


def test_images_are_links_to_the_files_behind_symbolic_links(tmp_path: Path) -> None:
    file = write_image(tmp_path / "a.png", 8, 8, seed=1)
    (tmp_path / "link.png").symlink_to(file)
    (record,) = named(str(tmp_path / "link.png"))
    put_image(record, tmp_path / "new.png")
    assert not (tmp_path / "new.png").is_symlink()
    assert (tmp_path / "new.png").samefile(file) and file.stat().st_nlink == 2


def test_images_are_copied_where_links_are_not_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    file = write_image(tmp_path / "a.png", 8, 8, seed=1)
    (record,) = named(str(file))
    put_image(record, tmp_path / "new.png")
    assert (tmp_path / "new.png").read_bytes() == file.read_bytes() and file.stat().st_nlink == 1


@pytest.mark.parametrize("format_", WRITERS)
def test_images_in_memory_are_written_as_png(format_: str, tmp_path: Path) -> None:
    few = digit_scenes(train=2, val=1, test=3, size=96)
    convert(few, format_, tmp_path / "out")
    again = as_data(read(format_, tmp_path / "out"), format_)
    assert {split: len(records) for split, records in again.splits.items()} == {"train": 2, "val": 1, "test": 3}
    for old, new in zip(few.splits["train"], again.splits["train"], strict=True):
        assert new.path is not None and new.path.suffix == ".png"
        np.testing.assert_array_equal(read_image(new.path), old.pixels)
        np.testing.assert_allclose(new.boxes, old.boxes, atol=0.01)


def test_files_that_their_exif_turns_stay_as_they_are(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    path = tmp_path / "source" / "turned.jpg"
    path.parent.mkdir()
    Image.fromarray(np.zeros((20, 50, 3), np.uint8)).save(path, exif=exif)
    record = Record(1, 20, 50, np.array([[2, 5, 12, 45]], np.float32), np.zeros(1, np.int64), path=path)
    for format_ in WRITERS:
        convert(DetectionData("s", ("cat",), {"train": (record,), "val": (record,)}, (0,)), format_, tmp_path / format_)
        train, *_ = as_data(read(format_, tmp_path / format_), format_).splits["train"]
        assert (train.width, train.height) == (20, 50) and train.path.samefile(path)
        np.testing.assert_allclose(train.boxes, record.boxes, atol=0.01)


def test_classes_that_xml_cannot_tell_apart_are_refused() -> None:
    assert class_names(["traffic  light ", "a\tb"]) == ["traffic light", "a b"]
    with pytest.raises(InputError, match=r"the class name 'cat ' is like 'cat' without its white space; rename the class"):
        class_names(["dog", "cat", "cat "])
    with pytest.raises(InputError, match=r"the class name '\\t' is empty"):
        class_names(["\t"])


def test_a_folder_that_is_not_new_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.txt").write_text("")
    (tmp_path / "empty").mkdir()
    check_target("coco", tmp_path / "empty", "digits")
    with pytest.raises(InputError, match=r"--to coco .*full: is not empty; give a new folder"):
        check_target("coco", tmp_path / "full", "digits")
    with pytest.raises(InputError, match=r"--to coco .*a\.txt: is not empty; give a new folder"):
        check_target("coco", tmp_path / "full/a.txt", "digits")
    with pytest.raises(InputError, match=r"--to kitti: must be one of coco, yolo, voc, followed by a folder"):
        check_target("kitti", tmp_path / "empty", "digits")
    with pytest.raises(InputError, match=r"lies inside of the data .*full; give a folder outside of it"):
        check_target("coco", tmp_path / "full/new", str(tmp_path / "full"))


def test_a_failure_half_way_is_one_line_and_leaves_the_source(pets: DetectionData, tmp_path: Path) -> None:
    files = sorted((tmp_path / "source").rglob("*.*"))
    before = [file.read_bytes() for file in files]
    lost = replace(pets.splits["val"][1], path=tmp_path / "gone.png")
    with pytest.raises(
        InputError, match=r"cannot be written \(No such file or directory: .*\); the data are as they were"
    ) as e:
        convert(replace(pets, splits={**pets.splits, "val": (lost,)}), "yolo", tmp_path / "out")
    assert "\n" not in str(e.value)
    assert sorted((tmp_path / "source").rglob("*.*")) == files and [file.read_bytes() for file in files] == before


def test_written_images_are_never_encoded_again(pets: DetectionData, tmp_path: Path) -> None:
    convert(pets, "voc", tmp_path / "out")
    for record in (r for records in pets.splits.values() for r in records):
        assert record.path is not None
        name = record.path.name.replace(" ", "_")
        assert (tmp_path / "out/JPEGImages" / name).read_bytes() == record.path.read_bytes()
        assert cv2.imread(str(tmp_path / "out/JPEGImages" / name)) is not None
