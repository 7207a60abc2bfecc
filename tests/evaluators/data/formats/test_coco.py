"""COCO folders become records, and every refusal names the file and the entry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluators.data.open import open_data
from tests.evaluators.data.small_data import (
    HEIGHT,
    WIDTH,
    coco_content,
    picture,
    refusal,
    write_coco,
    write_data_yaml,
    write_picture,
)


def test_a_coco_folder_becomes_records_with_classes_in_the_order_of_their_category_ids(tmp_path: Path) -> None:
    data = open_data(str(write_coco(tmp_path)))
    assert data.names == ("dog", "cat")
    assert data.category_ids == (3, 7)
    assert sorted(data.splits) == ["train", "val"]
    first, second = data.splits["train"]
    assert (first.image_id, first.width, first.height) == (1, WIDTH, HEIGHT)
    assert first.boxes.tolist() == [[10, 5, 30, 35], [0, 0, 8, 4]]
    assert first.classes.tolist() == [1, 0]
    assert first.areas.tolist() == [600, 20.5]
    assert not first.crowd.any()
    assert second.boxes.shape == (0, 4)
    assert second.classes.shape == (0,)


@pytest.mark.parametrize("folder", ["images/val2017", "images/val", "val2017", "valid", "images", "."])
def test_images_are_found_wherever_coco_folders_keep_them(tmp_path: Path, folder: str) -> None:
    write_coco(tmp_path)
    (tmp_path / "annotations/instances_val.json").rename(tmp_path / "annotations/instances_val2017.json")
    for name in ("5.png", "6.png"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).rename(tmp_path / folder / name)
    records = open_data(str(tmp_path)).splits["val"]
    assert [record.path for record in records] == [tmp_path / folder / "5.png", tmp_path / folder / "6.png"]


def test_the_folder_of_the_split_comes_before_the_common_one(tmp_path: Path) -> None:
    write_coco(tmp_path)
    write_picture(tmp_path / "images/val/5.png", picture())
    assert open_data(str(tmp_path)).splits["val"][0].path == tmp_path / "images/val/5.png"


def test_an_overhang_of_a_pixel_is_clipped(tmp_path: Path) -> None:
    content = coco_content(1)
    content["annotations"][0]["bbox"] = [-1, -0.5, 62, 41.5]
    assert open_data(str(write_coco(tmp_path, train=content))).splits["train"][0].boxes[0].tolist() == [0, 0, 60, 40]


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["annotations"][0].update(bbox=[41.5, 5, 20, 30]), ["annotation 1", "[41.5, 5, 61.5, 35]", "60x40"]),
        (lambda c: c["annotations"][0].update(bbox=[-2, 5, 20, 30]), ["annotation 1", "outside", "60x40"]),
        (lambda c: c["annotations"][0].update(bbox=[60.5, 5, 0.4, 30]), ["annotation 1", "outside", "60x40"]),
        (lambda c: c["annotations"][0].update(bbox=[60, 5, 0.4, 30]), ["annotation 1", "outside", "60x40"]),
        (lambda c: c["annotations"][0].update(bbox=[5, -0.5, 20, 0.5]), ["annotation 1", "outside", "60x40"]),
        (lambda c: c["annotations"][1].update(bbox=[3, 3, 0, 4]), ["annotation 2", "width 0", "remove"]),
        (lambda c: c["annotations"][1].update(bbox=[3, 3, 4, -2]), ["annotation 2", "height -2", "remove"]),
        (lambda c: c["annotations"][1].update(bbox=[3, 3, 4]), ["annotation 2", "[3, 3, 4]", "four numbers"]),
        (lambda c: c["annotations"][1].update(bbox=[3, 3, 4, "5"]), ["annotation 2", "four numbers"]),
        (lambda c: c["annotations"][1].update(bbox=[3, 3, 4, float("nan")]), ["annotation 2", "four numbers"]),
        (lambda c: c["annotations"][1].pop("bbox"), ["annotation 2", "bbox None", "four numbers"]),
        (lambda c: c["annotations"][1].update(image_id=99), ["annotation 2", "image 99", "not among the images"]),
        (lambda c: c["annotations"][1].update(category_id=4), ["annotation 2", "category_id 4", "unknown", "3, 7"]),
        (lambda c: c["annotations"][1].pop("category_id"), ["annotation 2", "category_id None", "give an integer"]),
        (lambda c: c["images"][1].update(id=1), ["image 1", "twice"]),
        (lambda c: c["images"][1].update(width=0), ["image 2", "width 0", "at least 1"]),
        (lambda c: c["images"][1].pop("file_name"), ["image 2", "file_name"]),
        (lambda c: c["images"][1].update(file_name="gone.png"), ["image 2", "gone.png", "looked in", "restore"]),
        (lambda c: c.pop("images"), ["instances_train.json", "no list 'images'"]),
        (lambda c: c.update(annotations=[3]), ["instances_train.json", "no list 'annotations'"]),
        (lambda c: c.update(categories=[]), ["instances_train.json", "no categories"]),
        (lambda c: c["categories"][1].update(id=7), ["category id 7", "repeated"]),
        (lambda c: c["categories"][1].update(name="cat"), ["category id 3", "'cat'", "repeated"]),
        (lambda c: c["categories"][1].update(name="cow"), ["category 3", "'dog'", "'cow'", "make them agree"]),
        (lambda c: c.update(images=[], annotations=[]), ["split 'train' has no images"]),
        (lambda c: c.update(annotations=[]), ["no image of the split 'train' has a box", "labels"]),
        (lambda c: [a.update(iscrowd=1) for a in c["annotations"]], ["no image of the split 'train' has a box"]),
    ],
)
def test_a_coco_file_that_is_wrong_is_refused_by_name(tmp_path: Path, change: Change, said: list[str]) -> None:
    root = write_coco(tmp_path)
    file = root / "annotations/instances_train.json"
    content = coco_content(1)
    change(content)
    file.write_text(json.dumps(content))
    message = refusal(root)
    assert all(word in message for word in said), message


def test_an_unknown_category_is_refused_with_ten_known_ones(tmp_path: Path) -> None:
    content = coco_content(1)
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, 15)]
    content["annotations"][0]["category_id"] = 30
    root = write_coco(tmp_path, train=content | {"categories": categories}, val=coco_content(5) | {"categories": categories})
    assert "category_id 30, unknown to the train file (1, 2, 3, 4, 5, 6, 7, 8, 9, 10);" in refusal(root)


def test_broken_json_is_refused_by_file(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    (root / "annotations/instances_val.json").write_text('{"images": [')
    message = refusal(root)
    assert "instances_val.json is not valid JSON" in message
    assert "export it again" in message


def test_an_image_file_that_is_gone_is_refused_when_the_data_are_opened(tmp_path: Path) -> None:
    (write_coco(tmp_path) / "images/2.png").unlink()
    assert "missing file 2.png" in refusal(tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_split_is_refused_with_the_file_to_add(tmp_path: Path, split: str) -> None:
    message = refusal(write_coco(tmp_path, **{split: None}))
    assert f"has no {split} split" in message
    assert f"instances_{split}.json" in message


def test_a_folder_may_have_braces_in_its_name(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "{cells}", val=None)
    assert f"add the file {root}/annotations/instances_val.json" in refusal(root)


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    shutil.copy(root / "annotations/instances_val.json", root / "annotations/instances_val2017.json")
    assert "annotations/instances_val.json and annotations/instances_val2017.json; keep one" in refusal(root)


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    assert "has no annotations" in refusal(tmp_path)
    assert f"give {write_data_yaml(tmp_path)} itself" in refusal(tmp_path)


def test_a_roboflow_category_above_all_others_stays_when_it_has_boxes_and_ids_are_checked(tmp_path: Path) -> None:
    for split, first in (("train", 1), ("valid", 5)):
        content = coco_content(first)
        content["categories"] = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog", "supercategory": "cat"}]
        for key in (first, first + 1):
            write_picture(tmp_path / split / f"{key}.png", picture())
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
    assert open_data(str(tmp_path)).names == ("dog", "cat")
    content["annotations"][0]["category_id"] = [1]
    (tmp_path / "valid/_annotations.coco.json").write_text(json.dumps(content))
    assert "category_id [1]" in refusal(tmp_path)


@pytest.mark.parametrize("project", ["pets", "cat"])
def test_a_roboflow_coco_folder(tmp_path: Path, project: str) -> None:
    root = {"id": 0, "name": project, "supercategory": "none"}
    for split, first in (("train", 1), ("valid", 5)):
        content = coco_content(first)
        others = [category | {"supercategory": project} for category in content["categories"]]
        write_picture(tmp_path / split / f"{first}.png", picture())
        write_picture(tmp_path / split / f"{first + 1}.png", picture())
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content | {"categories": [root, *others]}))
    data = open_data(str(tmp_path))
    assert data.names == ("dog", "cat") and data.category_ids == (3, 7)
    assert [record.path for record in data.splits["val"]] == [tmp_path / "valid/5.png", tmp_path / "valid/6.png"]
    (tmp_path / "away").mkdir()
    (tmp_path / "valid").rename(tmp_path / "away/valid")
    assert f"add the file {tmp_path}/val/_annotations.coco.json" in refusal(tmp_path)
    (tmp_path / "away/valid").rename(tmp_path / "valid")
    again = tmp_path / "val"
    (tmp_path / "valid").rename(again)
    (tmp_path / "valid").mkdir()
    (tmp_path / "valid/_annotations.coco.json").write_text((again / "_annotations.coco.json").read_text())
    assert "two files for the val split, val/_annotations.coco.json and valid/_annotations.coco.json" in refusal(tmp_path)
