from __future__ import annotations

from pathlib import Path

import pytest

from evaluators.data.annotations import NO_SPLIT, Annotations, ClassNames
from evaluators.data.formats.assigned import assigned


def split_of_images(classes: ClassNames, **images: str) -> Annotations:
    """An image for each keyword, with a box of each class that its value names."""
    split = Annotations()
    for file, names in images.items():
        image = split.add_image(Path(f"{file}.png"))
        for name in names.split():
            split.add_box(image, classes.number(name), (1, 2, 30, 40), file)
    return split


def read_names(names: tuple[str, ...], split: Annotations) -> list[str]:
    return [names[label] for label in split.labels]


@pytest.mark.parametrize("splits", [["train"], ["val", "train"], [NO_SPLIT], ["test", "val", "train"], ["test"]])
def test_names_and_splits_are_sorted(splits: list[str]) -> None:
    classes = ClassNames()
    made = {split: split_of_images(classes, a="dog cat", b="ant") for split in splits}
    notes: list[str] = []
    names, sorted_splits = assigned(classes, made, notes)
    assert names == ("ant", "cat", "dog") and notes == []
    assert list(sorted_splits) == [split for split in ("train", "val", "test", NO_SPLIT) if split in splits]
    assert all(read_names(names, split) == ["dog", "cat", "ant"] for split in sorted_splits.values())


@pytest.mark.parametrize(
    ("images", "note"),
    [
        ({"b": "ant"}, "1 image belongs to no split, unlike the others, and stayed out: b.png"),
        ({"b": "ant", "c": "dog"}, "2 images belong to no split, unlike the others, and stayed out: b.png"),
    ],
)
def test_beside_a_train_split_images_without_one_stay_out_with_their_classes(images: dict[str, str], note: str) -> None:
    classes = ClassNames()
    notes: list[str] = []
    splits = {NO_SPLIT: split_of_images(classes, **images), "train": split_of_images(classes, a="dog cat")}
    names, left = assigned(classes, splits, notes)
    assert names == ("cat", "dog") and list(left) == ["train"] and notes == [note]
    assert read_names(names, left["train"]) == ["dog", "cat"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_without_a_train_split_they_are_for_training(split: str) -> None:
    classes = ClassNames()
    notes: list[str] = []
    splits = {split: split_of_images(classes, a="dog"), NO_SPLIT: split_of_images(classes, b="cat")}
    names, left = assigned(classes, splits, notes)
    assert list(left) == ["train", split] and notes == []
    assert read_names(names, left["train"]) == ["cat"] and read_names(names, left[split]) == ["dog"]


def test_a_split_without_images_is_none() -> None:
    classes = ClassNames()
    splits = {"train": split_of_images(classes, a=""), "val": Annotations()}
    assert assigned(classes, splits, []) == ((), {"train": splits["train"]})


def test_nothing() -> None:
    assert assigned(ClassNames(), {}, []) == ((), {})
