"""The files of a data set: which are listed, which split a path names, and which image an annotation means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evaluators.data import tree as module
from evaluators.data.tree import Tree, split_of
from gpnas.errors import DataError


def touch(root: Path, *names: str) -> list[Path]:
    paths = [root / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("instances_train2017.json", "train"),
        ("val.json", "val"),
        ("valid/_annotations.coco.json", "val"),
        ("images/validation", "val"),
        ("Dev", "val"),
        ("my-TEST-images", "test"),
        ("train/test", "test"),
        ("test/train/images", "train"),
        ("retrained/latest.json", ""),
        ("evaluation", ""),
        (".", ""),
    ],
)
def test_a_path_names_its_split_by_a_whole_word(path: str, split: str) -> None:
    assert split_of(Path(path)) == split


def test_hidden_files_and_those_of_macs_are_not_listed(tmp_path: Path) -> None:
    shown = touch(tmp_path, "b.JSON", "a/c.json", "a/x.JPG")
    touch(tmp_path, ".d.json", ".git/e.json", "__MACOSX/f.json", "a/._x.jpg")
    tree = Tree.of(tmp_path)
    assert tree.files(".json") == [shown[1], shown[0]] and tree.images == [shown[2]]


def test_linked_folders_are_listed_and_circles_end(tmp_path: Path) -> None:
    [image] = touch(tmp_path, "disk/photos/a.jpg")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/images").symlink_to(image.parent)
    (tmp_path / "set/again").symlink_to(tmp_path / "set")
    assert Tree.of(tmp_path / "set").images == [tmp_path / "set/images/a.jpg"]


@pytest.mark.parametrize(
    ("file", "root"), [("set/annotations/a.json", "set"), ("set/labels/a.json", "set"), ("set/a.json", "set")]
)
def test_a_file_alone_belongs_to_the_folder_around_its_annotations(tmp_path: Path, file: str, root: str) -> None:
    touch(tmp_path, file, "set/b.json", "set/images/a.jpg")
    tree = Tree.of(tmp_path / file)
    assert tree.root == tmp_path / "set" and tree.files(".json") == [tmp_path / file] and tree.files(".xml") == []
    assert tree.images == [tmp_path / "set/images/a.jpg"]


def named(root: Path, name: str, near: str, split: str = "") -> str:
    return str(Tree.of(root).image_named(name, root / near, split).relative_to(root))


def test_an_image_is_found_beside_from_the_root_or_by_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "images/train/a.jpg", "train/b.jpg", "train/notes.json", "c.jpg")
    assert named(tmp_path, "b.jpg", "train/notes.json") == "train/b.jpg"
    assert named(tmp_path, "images/train/a.jpg", "train/notes.json") == "images/train/a.jpg"
    assert named(tmp_path, "../images/train/a.jpg", "train/notes.json") == "images/train/a.jpg"
    assert named(tmp_path, r"C:\Users\ann\train\a.jpg", "train/notes.json") == "images/train/a.jpg"
    assert named(tmp_path, "/data/elsewhere/c.jpg", "train/notes.json") == "c.jpg"
    assert named(tmp_path, "d.jpg", "train/notes.json") == "train/d.jpg"  # it has no file, which is found out later


def test_of_several_images_of_a_name_the_likeliest_is_meant(tmp_path: Path) -> None:
    touch(tmp_path, "old/train/a.jpg", "new/train/a.jpg", "new/val/a.jpg", "new/a.json")
    assert named(tmp_path, "old/train/a.jpg", "new/a.json", "train") == "old/train/a.jpg"
    assert named(tmp_path, "photos/old/train/a.jpg", "new/a.json", "train") == "old/train/a.jpg"
    assert named(tmp_path, "a.jpg", "new/a.json", "train") == "new/train/a.jpg"
    assert named(tmp_path, "a.jpg", "new/a.json", "val") == "new/val/a.jpg"
    with pytest.raises(DataError, match=r"names the image a\.jpg, which may be .*new/train/a\.jpg or .*new/val/a\.jpg"):
        named(tmp_path, "a.jpg", "new/a.json")


def test_an_image_of_another_split_is_not_meant(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.jpg", "val.json")
    assert named(tmp_path, "a.jpg", "val.json", "val") == "a.jpg"
    assert named(tmp_path, "a.jpg", "val.json", "train") == "train/a.jpg"


def test_the_image_of_an_annotation_file_has_its_stem_and_lies_nearest(tmp_path: Path) -> None:
    touch(tmp_path, "images/train/a.jpg", "images/val/a.png", "labels/val/a.xml", "labels/train/a.xml", "labels/val/b.xml")
    tree = Tree.of(tmp_path)
    assert tree.image_of_stem(tmp_path / "labels/val/a.xml") == tmp_path / "images/val/a.png"
    assert tree.image_of_stem(tmp_path / "labels/train/a.xml") == tmp_path / "images/train/a.jpg"
    assert tree.image_of_stem(tmp_path / "labels/val/b.xml") is None


def test_the_root_of_a_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a", "b", "c")
    monkeypatch.setattr(module, "MOST_FILES", 2)
    with pytest.raises(DataError, match="holds more than 2 files"):
        _ = Tree.of(tmp_path).images


def test_an_annotation_takes_no_image_of_another_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.jpg", "valid/a.xml", "b.jpg", "valid/b.xml")
    tree = Tree.of(tmp_path)
    assert tree.image_of_stem(tmp_path / "valid/a.xml") is None
    assert tree.image_of_stem(tmp_path / "valid/a.xml", "train") == tmp_path / "train/a.jpg"
    assert tree.image_of_stem(tmp_path / "valid/b.xml") == tmp_path / "b.jpg"


def test_masks_of_the_same_name_are_not_meant(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png", "labels.json")
    assert named(tmp_path, "a.png", "labels.json") == "images/a.png"


def test_the_folder_above_the_data_names_no_split(tmp_path: Path) -> None:
    """The same data in a folder called train, and elsewhere."""
    found = []
    for above in ("train", "other"):
        root = tmp_path / above / "set"
        touch(root, "new/a.jpg", "train/a.jpg", "a.json")
        found.append(named(root, "a.jpg", "a.json", "train"))
    assert found == ["train/a.jpg"] * 2


def test_an_absolute_name_is_that_of_an_image_or_of_none(tmp_path: Path) -> None:
    [image, secret] = touch(tmp_path, "elsewhere/a.jpg", "elsewhere/passwd")
    (tmp_path / "set").mkdir()
    tree = Tree.of(tmp_path / "set")
    near = tmp_path / "set/a.json"
    assert tree.image_named(str(image), near) == image
    assert tree.image_named(str(secret), near) == tmp_path / "set/passwd"
    assert not os.path.isfile(tree.image_named(f"/{'x' * 400}.jpg", near))
