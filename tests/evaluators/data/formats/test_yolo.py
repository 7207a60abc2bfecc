"""A data.yaml and its label files become records, and every refusal names the file and the key or line."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluators.data.open import open_data
from tests.evaluators.data.small_data import (
    HEIGHT,
    WIDTH,
    picture,
    refusal,
    write_data_yaml,
    write_picture,
)


def test_a_data_yaml_becomes_records(tmp_path: Path) -> None:
    data = open_data(str(write_data_yaml(tmp_path)))
    assert data.names == ("cat", "dog")
    assert data.category_ids == (0, 1)
    first, second = data.splits["train"]
    assert first.boxes.tolist() == [[16.5, 12, 31.5, 32]]
    assert first.classes.tolist() == [1]
    assert first.areas.tolist() == [300] and first.crowd.tolist() == [False]
    assert (first.width, first.height) == (WIDTH, HEIGHT)
    assert len(second.boxes) == 0
    ids = [record.image_id for split in data.splits.values() for record in split]
    assert ids == [1, 2, 3, 4]


def test_a_data_yaml_may_have_a_path_a_mapping_of_names_lists_of_images_and_keys_of_others(tmp_path: Path) -> None:
    write_data_yaml(tmp_path / "set")
    (tmp_path / "set/train.txt").write_text("./images/train/a.png\nimages/train/b.jpg\n")
    file = tmp_path / "other.yaml"
    file.write_text(
        "path: set\ntrain: train.txt\nval: [images/val, images/train]\ntest:\nnc: 2\ndownload: https://example.org/x.zip\n"
        "names:\n  0: cat\n  1: dog\n"
    )
    data = open_data(str(file))
    assert [len(split) for split in data.splits.values()] == [2, 4]
    assert data.names == ("cat", "dog")
    assert data.splits["train"][0].boxes.tolist() == [[16.5, 12, 31.5, 32]]


def test_a_label_file_lies_beside_its_image_where_no_folder_is_called_images(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_picture(tmp_path / split / "a.png", picture())
        (tmp_path / split / "a.txt").write_text("0 0.5 0.5 1 1")
    (tmp_path / "data.yaml").write_text("train: train\nval: val\nnames: [cat]")
    assert open_data(str(tmp_path / "data.yaml")).splits["val"][0].boxes.tolist() == [[0, 0, 60, 40]]


@pytest.mark.parametrize(
    ("images", "labels"),
    [("images", "labels"), ("images/train", "labels/train"), ("images/old/images/train", "images/old/labels/train")],
)
def test_the_last_folder_called_images_becomes_labels(tmp_path: Path, images: str, labels: str) -> None:
    write_picture(tmp_path / images / "a.png", picture())
    (tmp_path / labels).mkdir(parents=True, exist_ok=True)
    (tmp_path / labels / "a.txt").write_text("0 0.4 0.55 0.25 0.5")
    (tmp_path / "data.yaml").write_text(f"train: {images}\nval: {images}\nnames: [cat]")
    assert open_data(str(tmp_path / "data.yaml")).splits["val"][0].boxes.tolist() == [[16.5, 12, 31.5, 32]]


def test_a_polygon_line_counts_as_its_box(tmp_path: Path) -> None:
    file = write_data_yaml(tmp_path)
    (tmp_path / "labels/val/b.txt").write_text("1 0.5 0.25 0.75 0.5 0.25 0.9\n")
    box = open_data(str(file)).splits["val"][1].boxes
    assert box.tolist() == [[15, 10, 45, 36]]


def test_a_roboflow_data_yaml_with_paths_as_from_a_folder_beside_it(tmp_path: Path) -> None:
    file = write_data_yaml(tmp_path, "train: ../images/train\nval: ../images/val\nnames: [cat, dog]\n")
    assert [len(split) for split in open_data(str(file)).splits.values()] == [2, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: images/train\nnames: [cat, dog]", ["no val split", "'val'"]),
        ("val: images/val\nnames: [cat, dog]", ["no train split"]),
        ("train: images/train\nval: images/vla\nnames: [cat, dog]", ["val is", "images/vla", "correct"]),
        ("train: images/train\nval: images/val/a.png\nnames: [cat, dog]", ["images/val/a.png, no folder and no .txt list"]),
        ("train: images/train\nval: gone.txt\nnames: [cat, dog]", ["gone.txt, no folder and no .txt list"]),
        ("train: images/train\nval: labels\nnames: [cat, dog]", ["split 'val' has no images"]),
        ("path: nowhere\ntrain: images/train\nval: images/val\nnames: [cat, dog]", ["nowhere/images/train", "'path'"]),
        ("train: images/train\nval: images/val", ["names None", "list of class names"]),
        ("train: images/train\nval: images/val\nnames: {1: cat, 2: dog}", ["names {1: 'cat', 2: 'dog'}"]),
        ("train: images/train\nval: images/val\nnames: [cat, cat]", ["'cat' twice"]),
        ("train: images/train\nval: images/val\nnames: [cat, dog]\nnc: 3", ["nc 3 but 2 names"]),
        ("train: images/train\nval: images/val\nnames: [cat]", ["a.txt, line 1,", "class 1", "0 to 0"]),
        ("train: [images/train", ["not valid YAML"]),
        ("- train", ["no keys"]),
    ],
)
def test_a_data_yaml_that_is_wrong_is_refused_by_name(tmp_path: Path, text: str, said: list[str]) -> None:
    message = refusal(write_data_yaml(tmp_path, text))
    assert all(word in message for word in said), message


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2 0.5 0.5 0.1 0.1", ["class 2", "0 to 1"]),
        ("-1 0.5 0.5 0.1 0.1", ["class -1"]),
        ("0.5 0.5 0.5 0.1 0.1", ["class 0.5"]),
        ("0 0.5 0.5 0.1", ["'0 0.5 0.5 0.1'", "class cx cy w h"]),
        ("cat 0.5 0.5 0.1 0.1", ["class cx cy w h"]),
        ("0 0.5 0.5 0.1 0.1 0.2", ["class cx cy w h", "polygon"]),
        ("0 0.5 0.5 0.1 0.1 0.2 0.2 0.3", ["polygon"]),
        ("0 0.5 0.5 nan 0.1 0.2 0.2", ["not finite"]),
        ("0 0.5 0.5 0.9 0.5 0.7 0.5", ["height 0", "remove"]),
        ("0 0.5 0.5 0 0.1", ["width 0", "remove"]),
        ("0 0.5 0.5 0.1 -0.1", ["height -4", "remove"]),
        ("0 0.5 0.5 nan 0.1", ["not finite"]),
        ("0 0.9 0.5 0.3 0.1", ["outside its image of 60x40"]),
        ("0 30 20 15 10", ["outside its image of 60x40"]),
    ],
)
def test_a_label_line_that_is_wrong_is_refused_by_file_and_line(tmp_path: Path, line: str, said: list[str]) -> None:
    file = write_data_yaml(tmp_path)
    (tmp_path / "labels/val/b.txt").write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n")
    message = refusal(file)
    assert all(word in message for word in [f"{tmp_path}/labels/val/b.txt, line 2,", *said]), message


def test_a_label_file_that_is_no_text_and_a_listed_image_that_is_gone_are_refused(tmp_path: Path) -> None:
    file = write_data_yaml(tmp_path)
    (tmp_path / "labels/val/b.txt").write_bytes(b"\xff\xfe\x00")
    assert "labels/val/b.txt as text" in refusal(file)
    (tmp_path / "list.txt").write_text("images/train/a.png\nimages/train/z.png\n")
    file.write_text("train: list.txt\nval: images/val\nnames: [cat, dog]")
    assert "lists the missing image" in refusal(file)
