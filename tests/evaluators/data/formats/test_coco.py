"""COCO's JSON becomes records; what can be mended is counted, and every refusal names the file and the entry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluators.data.open import open_data
from tests.evaluators.data.small_data import (
    HEIGHT,
    WIDTH,
    coco_content,
    picture,
    refusal,
    write_coco,
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


@pytest.mark.parametrize("folder", ["images/val2017", "images/val", "val2017", "valid", "images", ".", "photos/new"])
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


def test_an_image_of_another_split_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    """train/5.png and val/5.png are two photographs; without the second, image 5 of val has no file."""
    write_coco(tmp_path)
    (tmp_path / "images/5.png").unlink()
    write_picture(tmp_path / "train/5.png", picture())
    content = coco_content(5)
    content["annotations"][0]["image_id"] = 6
    (tmp_path / "annotations/instances_val.json").write_text(json.dumps(content))
    data = open_data(str(tmp_path))
    assert [record.image_id for record in data.splits["val"]] == [6]
    assert str(data.problems[0]).startswith("1 of 4 images has no file and was left out: ")


def test_one_annotation_file_may_be_given(tmp_path: Path) -> None:
    """Its images lie above the folder "annotations"; it is divided, because it is all there is."""
    content = coco_content(1)
    content["annotations"].append({"id": 3, "image_id": 2, "category_id": 7, "bbox": [1, 2, 30, 4]})
    file = write_coco(tmp_path, train=content) / "annotations/instances_train.json"
    data = open_data(str(file))
    assert data.shares == "70/15/15" and {split: len(records) for split, records in data.splits.items()} == {
        "train": 1,
        "val": 1,
    }


@pytest.mark.parametrize("other", ["person_keypoints_val.json", "captions_val.json"])
def test_the_other_annotations_of_coco_stay_unread(tmp_path: Path, other: str) -> None:
    root = write_coco(tmp_path)
    shutil.copy(root / "annotations/instances_val.json", root / "annotations" / other)
    assert open_data(str(root)).names == ("dog", "cat")


def test_a_file_without_a_split_beside_a_val_file_is_for_training(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    (root / "annotations/instances_train.json").rename(root / "annotations/objects.json")
    data = open_data(str(root))
    assert [record.image_id for record in data.splits["train"]] == [1, 2] and data.shares == ""


def test_ids_of_images_may_be_texts(tmp_path: Path) -> None:
    content = json.loads(json.dumps(coco_content(1)).replace('"image_id": 1', '"image_id": "one"'))
    content["images"][0]["id"] = "one"
    first, second = open_data(str(write_coco(tmp_path, train=content))).splits["train"]
    assert (first.image_id, len(first.boxes), second.image_id) == ("one", 2, 2)


def test_sizes_that_the_file_does_not_tell_come_from_the_images(tmp_path: Path) -> None:
    content = coco_content(1)
    for image, width in zip(content["images"], (0, None), strict=True):
        image["width"] = width
    sizes = [(record.width, record.height) for record in open_data(str(write_coco(tmp_path, train=content))).splits["train"]]
    assert sizes == [(WIDTH, HEIGHT)] * 2


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["annotations"][0].update(bbox=[-2, 5, 20, 30]), "1 of 4 boxes leaves its image and was cut: "),
        (
            lambda c: c["annotations"][0].update(bbox=[60.5, 5, 0.4, 30]),
            "1 of 4 boxes lies outside of its image and was left out",
        ),
        (lambda c: c["annotations"][1].update(bbox=[3, 3, 0, 4]), "1 of 4 boxes has no width or no height and was left out"),
        (lambda c: c["annotations"][1].update(bbox=[3, 3, 4, -2]), "1 of 4 boxes has its corners reversed and was left out"),
        (lambda c: c["annotations"][1].update(bbox=[3, 3, 4]), "1 of 4 boxes is no four numbers and was left out"),
        (lambda c: c["annotations"][1].update(bbox=[3, 3, 4, "wide"]), "1 of 4 boxes is no four numbers"),
        (lambda c: c["annotations"][1].update(bbox=[3, 3, 4, float("nan")]), "1 of 4 boxes is no four numbers"),
        (lambda c: c["annotations"][1].pop("bbox"), "1 of 4 boxes is no four numbers"),
        (lambda c: c["annotations"][1].update(image_id=99), "1 of 4 boxes is of an image that is not listed and was left out"),
        (lambda c: c["images"][1].pop("file_name"), "1 of 4 images has no file and was left out"),
        (lambda c: c["images"][1].update(file_name="gone.png"), "1 of 4 images has no file and was left out"),
    ],
)
def test_what_can_be_mended_is_mended_and_told_with_its_place(tmp_path: Path, change: Change, told: str) -> None:
    root = write_coco(tmp_path)
    content = coco_content(1)
    change(content)
    (root / "annotations/instances_train.json").write_text(json.dumps(content))
    [problem] = open_data(str(root)).problems
    assert str(problem).startswith(told), problem
    place = "image 2" if "file_name" not in content["images"][1] else "gone.png" if "images" in told else "annotation"
    assert place in str(problem)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["annotations"][1].update(category_id=4), ["category_id 4 (1 boxes)", "train file's categories (3, 7)"]),
        (lambda c: c["annotations"][1].pop("category_id"), ["category_id None (1 boxes)"]),
        (lambda c: c["annotations"][1].update(category_id=[1]), ["category_id [1] (1 boxes)"]),
        (lambda c: c["images"][1].update(id=1), ["image 1", "twice"]),
        (lambda c: c["images"][1].update(id=None), ["has id None", "give an integer or a text"]),
        (lambda c: c.pop("images"), ["instances_train.json", "holds no annotations that are known"]),
        (lambda c: c.update(images=[3]), ["instances_train.json", "no lists images, annotations, categories of objects"]),
        (lambda c: c.pop("annotations"), ["instances_train.json", "missing required field `annotations`"]),
        (lambda c: c.update(annotations=[3]), ["instances_train.json", "no lists"]),
        (lambda c: c.update(categories=[]), ["instances_train.json", "no categories"]),
        (lambda c: c["categories"][1].update(id="7"), ["has id '7'", "integer"]),
        (lambda c: c["categories"][1].update(id=7), ["category id 7", "repeated"]),
        (lambda c: c["categories"][1].update(name="cat"), ["category id 3", "'cat'", "repeated"]),
        (lambda c: c["categories"][1].update(name="cow"), ["category 3", "'dog'", "'cow'", "make them agree"]),
        (lambda c: c.update(images=[], annotations=[]), ["split 'train' has no images"]),
        (lambda c: c.update(annotations=[]), ["no image of the split 'train' has a box", "labels"]),
        (lambda c: [a.update(iscrowd=1) for a in c["annotations"]], ["no image of the split 'train' has a box"]),
    ],
)
def test_what_cannot_be_guessed_is_refused_by_name(tmp_path: Path, change: Change, said: list[str]) -> None:
    root = write_coco(tmp_path)
    file = root / "annotations/instances_train.json"
    content = coco_content(1)
    change(content)
    file.write_text(json.dumps(content))
    message = refusal(file if content.get("images", [3]) == [3] else root)
    assert all(word in message for word in said), message


def test_all_unknown_categories_are_told_at_once_with_ten_known_ones(tmp_path: Path) -> None:
    content = coco_content(1)
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, 15)]
    content["annotations"] = [{**content["annotations"][0], "id": i, "category_id": 30 + i % 2} for i in range(5)]
    root = write_coco(tmp_path, train=content | {"categories": categories}, val=coco_content(5) | {"categories": categories})
    message = refusal(root)
    assert "category_id 30 (3 boxes), 31 (2 boxes)" in message and "(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)" in message


def test_a_file_that_only_python_writes_is_read_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    """json.dumps writes NaN, which is no JSON."""
    content = coco_content(1)
    content["annotations"][1]["area"] = float("nan")
    root = write_coco(tmp_path, train=content)
    assert open_data(str(root)).splits["train"][0].areas.tolist() == [600, 32]
    (root / "annotations/instances_val.json").write_text('{"images": [')
    message = refusal(root / "annotations/instances_val.json")
    assert "instances_val.json is not valid JSON" in message and "export it again" in message


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    shutil.copy(root / "annotations/instances_val.json", root / "annotations/instances_val2017.json")
    message = refusal(root)
    assert (
        "two files for the val split, annotations/instances_val.json and annotations/instances_val2017.json; keep one"
        in message
    )


def test_a_val_file_alone_is_no_data_set(tmp_path: Path) -> None:
    assert "the split 'train' has no images" in refusal(write_coco(tmp_path / "{cells}", train=None))


def roboflow(tmp_path: Path, categories: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Path:
    for split, first in (("train", 1), ("valid", 5)):
        content = coco_content(first)
        content["categories"] = categories(content["categories"])
        for key in (first, first + 1):
            write_picture(tmp_path / split / f"{key}.png", picture())
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("project", ["pets", "cat"])
def test_the_project_that_roboflow_lists_is_no_class(tmp_path: Path, project: str) -> None:
    above = {"id": 0, "name": project, "supercategory": "none"}
    data = open_data(str(roboflow(tmp_path, lambda listed: [above, *(c | {"supercategory": project} for c in listed)])))
    assert data.names == ("dog", "cat") and data.category_ids == (3, 7)
    assert [record.path for record in data.splits["val"]] == [tmp_path / "valid/5.png", tmp_path / "valid/6.png"]


def test_a_category_above_all_others_stays_when_it_has_boxes(tmp_path: Path) -> None:
    listed = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog", "supercategory": "cat"}]
    assert open_data(str(roboflow(tmp_path, lambda _: listed))).names == ("dog", "cat")


def test_official_lists_of_images_without_annotations_are_left_alone(tmp_path: Path) -> None:
    """image_info_test2017.json has no list of annotations."""
    root = write_coco(tmp_path)
    content = coco_content(9)
    del content["annotations"]
    (root / "annotations/image_info_test2017.json").write_text(json.dumps(content))
    assert set(open_data(str(root)).splits) == {"train", "val"}


def test_copies_of_the_annotations_in_another_folder_are_left_alone(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    shutil.copytree(root / "annotations", root / "annotations_old")
    assert len(open_data(str(root)).splits["train"]) == 2


def test_a_category_above_all_others_is_a_class_outside_of_roboflow(tmp_path: Path) -> None:
    listed = [{"id": 1, "name": "animal"}, *({**c, "supercategory": "animal"} for c in coco_content(1)["categories"])]
    contents = {split: coco_content(first) | {"categories": listed} for split, first in (("train", 1), ("val", 5))}
    assert open_data(str(write_coco(tmp_path, **contents))).names == ("animal", "dog", "cat")


def test_a_data_yaml_beside_coco_annotations_does_not_hide_them(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    (root / "data.yaml").write_text("train: images\nval: images\nnames: [cat, dog]\n")
    data = open_data(str(root))
    assert data.format == "COCO" and data.notes == ("read as COCO; not read: data.yaml (data.yaml)",)


@pytest.mark.parametrize("number", [10**400, 1e300])
def test_numbers_beyond_all_measure_are_no_boxes_and_no_sizes(tmp_path: Path, number: float) -> None:
    content = coco_content(1)
    content["annotations"][1]["bbox"] = [number, 3, 4, 5]
    content["images"][1]["width"] = number
    [problem] = open_data(str(write_coco(tmp_path, train=content))).problems
    assert problem.count == 1 and problem.kind.name in ("NOT_FINITE", "NO_AREA")


def test_digests_of_runs_before_this_version_still_hold(tmp_path: Path) -> None:
    """Taken from the version of commit 494e0a8: areas are those of boxes before they are rounded to single precision."""
    boxes = [[10.1, 5.3, 20.7, 30.9], [0.2, 0.4, 8.3, 4.6], [33.33, 1.7, 26.9, 38.1]]
    content = coco_content(1)
    content["annotations"] = [{"id": i, "image_id": 1, "category_id": 7, "bbox": box} for i, box in enumerate(boxes)]
    [record, _] = open_data(str(write_coco(tmp_path, train=content))).splits["train"]
    assert record.areas.tolist() == [np.float32(w * h).item() for w, h in ((20.7, 30.9), (8.3, 4.6), (60 - 33.33, 38.1))]
