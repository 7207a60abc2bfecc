"""Which format is opened, how data are divided, and what is refused whatever the format."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluators.data.bank import load_bank
from evaluators.data.open import DataSource, open_data
from evaluators.data.records import splits_table
from gpnas.errors import DataError, InputError
from tests.evaluators.data.formats import layouts_coco_yolo as coco_yolo
from tests.evaluators.data.formats.twin import TwinData, TwinImage, example
from tests.evaluators.data.small_data import (
    coco_content,
    refusal,
    write_coco,
    write_data_yaml,
)

BCCD = Path("/work/shared/data/bccd")


def many(count: int, names: tuple[str, ...] = ("cat", "dog")) -> TwinData:
    """A data set of `count` images without a split; every third has a dog, the others a cat."""
    boxes = [(int(i % 3 == 0), 5.0, 6.0, 25.0 + i % 7, 30.0) for i in range(count)]
    return TwinData(names, {"": [TwinImage(f"{i}.png", 60, 40, [box]) for i, box in enumerate(boxes)]})


def test_what_is_not_there_is_refused_with_what_could_be_given(tmp_path: Path) -> None:
    assert "no data at 'digit' (did you mean 'digits'?)" in refusal("digit")
    message = refusal(tmp_path / "nowhere")
    assert "nowhere" in message
    assert "give digits, a folder, or the path of an annotation file" in message
    (tmp_path / "notes.md").write_text("")
    assert "notes.md holds no annotations that are known (COCO, data.yaml, FiftyOne" in refusal(tmp_path / "notes.md")
    assert "holds neither images nor annotations" in refusal(tmp_path)


def test_a_train_split_without_labels_is_refused(tmp_path: Path) -> None:
    file = write_data_yaml(tmp_path)
    (tmp_path / "labels/train/a.txt").unlink()
    assert "no image of the split 'train' has a box" in refusal(file)


def test_a_test_split_that_cannot_be_judged_is_told_and_not_used(tmp_path: Path) -> None:
    """As of a competition, whose test labels only its server knows."""
    test = coco_content(9) | {"annotations": []}
    data = open_data(str(write_coco(tmp_path / "a", test=test)))
    assert set(data.splits) == {"train", "val"}
    assert data.notes == ("the test split has no box in any of its 2 images, and is not used",)
    data = open_data(str(write_coco(tmp_path / "b", test=test | {"images": []})))
    assert data.notes == ("the test split has no images, and is not used",)


def test_another_format_in_the_folder_is_told(tmp_path: Path) -> None:
    root = coco_yolo.write_coco(tmp_path, example())
    (root / "labels.csv").write_text("filename,width,height,class,xmin,ymin,xmax,ymax\nsky.png,100,60,cat,1,2,30,40\n")
    data = open_data(str(root))
    assert data.format == "COCO" and data.notes == ("read as COCO; not read: labels.csv (CSV)",)
    assert "labels.csv: 1 images are too few to be divided into train and val" in refusal(root / "labels.csv")


def test_data_without_val_are_divided_by_class_and_the_test_split_stays(tmp_path: Path) -> None:
    data = open_data(str(coco_yolo.write_coco_cvat(tmp_path / "all", many(100))))
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 70, "val": 15, "test": 15}
    dogs = {split: sum(int((r.classes == 1).sum()) for r in records) for split, records in data.splits.items()}
    assert dogs == {"train": 24, "val": 5, "test": 5}
    assert data.shares == "70/15/15"
    assert data.notes == ("divided 70/15/15 because the data have no val split: 70 train, 15 val, 15 test images, by class",)
    images = many(100).images
    twin = TwinData(("cat", "dog"), {"train": images[:80], "test": images[80:]})
    data = open_data(str(coco_yolo.write_coco(tmp_path / "some", twin)))
    assert sorted(r.image_id for r in data.splits["test"]) == list(range(1, 21))
    assert {split: len(data.splits[split]) for split in ("train", "val")} == {"train": 66, "val": 14}  # 70 : 15


def test_shares_divide_all_images_anew(tmp_path: Path) -> None:
    root = coco_yolo.write_coco(
        tmp_path, TwinData(("cat", "dog"), {"train": many(20).images[:10], "val": many(20).images[10:]})
    )
    data = open_data(DataSource(str(root), split="60/20/20"))
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 12, "val": 4, "test": 4}
    assert data.shares == "60/20/20"
    with pytest.raises(InputError, match="--split 60: must be the shares"):
        open_data(DataSource(str(root), split="60"))


def test_the_same_data_are_divided_the_same_in_another_folder(tmp_path: Path) -> None:
    first = coco_yolo.write_coco_cvat(tmp_path / "a", many(30))
    other = shutil.copytree(first, tmp_path / "b")
    one, two = (splits_table(open_data(str(root))).replace(str(root), "") for root in (first, other))
    assert one == two


def test_images_that_look_the_same_stay_together(tmp_path: Path) -> None:
    """Five copies of each of twelve pictures."""
    root = coco_yolo.write_coco_cvat(tmp_path, many(60))
    for i in range(60):
        if i % 5:
            shutil.copy(root / f"images/default/{i // 5 * 5}.png", root / f"images/default/{i}.png")
    data = open_data(str(root))
    split_of = {int(r.path.stem): split for split, records in data.splits.items() for r in records if r.path}
    assert all(len({split_of[i] for i in range(start, start + 5)}) == 1 for start in range(0, 60, 5))
    assert data.notes[0].endswith("by class; images that look alike stay together (48 more than one of each)")
    assert data.problems == ()


def test_an_image_in_two_splits_is_told(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    shutil.copy(root / "images/2.png", root / "images/6.png")
    [problem] = open_data(str(root)).problems
    assert str(problem) == f"1 of 4 images is in two splits: {root}/images/2.png = {root}/images/6.png"
    with pytest.raises(DataError, match="--strict accepts none"):
        open_data(DataSource(str(root), strict=True))


def test_another_data_set_may_be_the_val_split(tmp_path: Path) -> None:
    """It has the classes in another order, and another format."""
    root = coco_yolo.write_coco(tmp_path / "a", example())
    other = coco_yolo.write_yolo_labels(tmp_path / "b", many(6, names=("dog", "cat")))
    data = open_data(DataSource(str(root), val=str(other)))
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 3, "val": 6}
    assert [data.names[r.classes[0]] for r in data.splits["val"]] == ["cat", "dog", "dog"] * 2
    assert data.notes == (f"val is {other}, 6 images, in place of the 2 val images of the data",)
    alone = coco_yolo.write_coco_cvat(tmp_path / "c", example().without_split())
    assert {s: len(r) for s, r in open_data(DataSource(str(alone), val=str(other))).splits.items()} == {"train": 5, "val": 6}


def test_a_val_split_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    root = coco_yolo.write_coco(tmp_path / "a", example())
    other = coco_yolo.write_yolo_labels(tmp_path / "b", many(6, names=("cow", "cat")))
    with pytest.raises(DataError, match="has the classes cow, which the data lack; make the names agree"):
        open_data(DataSource(str(root), val=str(other)))
    with pytest.raises(InputError, match="both say what val is"):
        open_data(DataSource(str(root), split="80/20", val=str(other)))
    with pytest.raises(InputError, match="--val digits: must be a folder or an annotation file"):
        open_data(DataSource(str(root), val="digits"))
    with pytest.raises(DataError, match=r"no data at '.*nowhere'"):
        open_data(DataSource(str(root), val=str(tmp_path / "nowhere")))


def test_images_outside_of_all_splits_are_told_or_are_for_training(tmp_path: Path) -> None:
    splits = {"train": many(9).images[:3], "val": many(9).images[3:6], "": many(9).images[6:]}
    root = tmp_path / "a"
    for split, images in splits.items():
        folder = root / split
        coco_yolo.write_images(folder, many(9), images)
        for image in images:
            (folder / f"{Path(image.file).stem}.txt").write_text(coco_yolo.label_text(image))
    (root / "classes.txt").write_text("cat\ndog\n")
    data = open_data(str(root))
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 3, "val": 3}
    assert data.notes == ("3 images are in no split, unlike the others, and were left out",)
    shutil.rmtree(root / "train")
    data = open_data(str(root))
    assert [r.path.name for r in data.splits["train"] if r.path] == ["6.png", "7.png", "8.png"] and data.notes == ()


def test_built_in_data_may_be_divided_anew() -> None:
    data = open_data(DataSource("digits", split="50/50"))
    assert {split: len(records) for split, records in data.splits.items()} == pytest.approx({"train": 360, "val": 360}, abs=5)
    assert data.may_flip is False and data.shares == "50/50"


def test_a_table_says_which_image_is_in_which_split(tmp_path: Path) -> None:
    rows = splits_table(open_data(str(write_coco(tmp_path)))).splitlines()
    assert rows == [
        "split,image",
        *(f"{s},{tmp_path}/images/{i}.png" for s, i in (("train", 1), ("train", 2), ("val", 5), ("val", 6))),
    ]


def test_one_percent_of_broken_boxes_changes_nothing_else(tmp_path: Path) -> None:
    """Two of 200 boxes are broken; the records are those of the set without them."""
    twin = TwinData(("cat",), {"train": [TwinImage("a.png", 60, 40, [])], "val": example().splits["val"][:1]})
    content = coco_yolo.coco_content(twin, twin.splits["train"])
    good = [{"id": i, "image_id": 1, "category_id": 1, "bbox": [i % 20, i // 20, 9 + i % 3, 7]} for i in range(198)]
    bad = [good[0] | {"id": 300, "bbox": [5, 5, 0, 3]}, good[0] | {"id": 301, "bbox": [5, float("nan"), 3, 3]}]
    records = []
    for name, boxes in (("clean", good), ("dirty", [*good[:50], bad[0], *good[50:], bad[1]])):
        root = coco_yolo.write_coco(tmp_path / name, twin)
        (root / "annotations/instances_train2017.json").write_text(json.dumps(content | {"annotations": boxes}))
        data = open_data(str(root))
        records.append(data.splits["train"][0])
    assert [p.fact for p in data.problems] == [
        "1 of 201 boxes has no width or no height",
        "1 of 201 boxes is no four numbers",
    ]
    for name in ("boxes", "classes", "areas", "crowd"):
        assert np.array_equal(getattr(records[0], name), getattr(records[1], name))


@pytest.mark.skipif(not BCCD.is_dir(), reason=f"no blood cell data at {BCCD}")
def test_the_blood_cells_open_as_their_source_counts_them() -> None:
    data = open_data(str(BCCD))
    assert data.names == ("Platelets", "RBC", "WBC")
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 205, "val": 87, "test": 72}
    classes = np.concatenate([r.classes for records in data.splits.values() for r in records])
    assert np.bincount(classes).tolist() == [361, 4153, 372]
    bank = load_bank(data.splits["test"][:4], 160)
    assert bank.sizes.tolist() == [[120, 160]] * 4


def test_images_in_no_annotation_are_told(tmp_path: Path) -> None:
    root = coco_yolo.write_coco(tmp_path, example())
    assert open_data(str(root)).notes == ()
    coco_yolo.write_images(root / "unlabelled", many(2), many(2).images)
    assert open_data(str(root)).notes == (
        "2 images of the folder are in no annotation and not used: unlabelled/0.png and 1 more",
    )
    (root / "unlabelled/0.png").unlink()
    assert open_data(str(root)).notes == ("1 image of the folder is in no annotation and not used: unlabelled/1.png",)


def test_the_package_has_what_users_look_for() -> None:
    import evaluators.data

    assert evaluators.data.open_data is open_data and evaluators.data.DataSource is DataSource
    with pytest.raises(AttributeError, match="has no attribute 'close_data'"):
        _ = evaluators.data.close_data


def test_data_whose_images_are_all_gone_are_refused_with_the_reason(tmp_path: Path) -> None:
    root = coco_yolo.write_coco_cvat(tmp_path, many(2))
    shutil.rmtree(root / "images")
    message = refusal(root)
    assert "0 images are too few to be divided" in message and "2 of 2 images have no file and were left out" in message


def test_an_empty_val_folder_is_not_filled_from_train(tmp_path: Path) -> None:
    file = write_data_yaml(tmp_path)
    for image in (tmp_path / "images/val").iterdir():
        image.unlink()
    (tmp_path / "labels/val/a.txt").unlink()
    assert "the split 'val' has no images" in refusal(file)


def test_a_val_split_without_boxes_is_refused_by_its_own_name(tmp_path: Path) -> None:
    empty = coco_content(5) | {"annotations": []}
    other = write_coco(tmp_path / "other", train=empty, val=None)
    for data in ("digits", str(write_coco(tmp_path / "data"))):
        with pytest.raises(DataError, match=f"--val {other}: no image of the split 'val' has a box"):
            open_data(DataSource(data, val=str(other)))


def test_a_home_that_is_nobodys_is_no_data() -> None:
    assert "no data at '~nosuch/pets'" in refusal("~nosuch/pets")


def test_names_that_are_no_text_can_be_written_down(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    data = open_data(str(root))
    record = data.splits["train"][0]
    odd = replace(record, path=Path(os.fsdecode(b"/data/\xe9t\xe9.jpg")))
    assert "/data/\\xe9t\\xe9.jpg" in splits_table(replace(data, splits={"train": (odd,)}))
