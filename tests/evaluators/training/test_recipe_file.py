"""Recipe files are read strictly: every key and value that is wrong is named."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from evaluators.data.augment import Augmentation
from evaluators.training.recipe import PRESETS, Recipe
from evaluators.training.recipe_file import KEYS, read_recipe, recipe_text
from gpnas.errors import InputError


def recipe_of(tmp_path: Path, text: str) -> Recipe:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    return Recipe(3, 64, **read_recipe(str(path)))


def test_presets_are_known_by_name() -> None:
    assert Recipe(3, 64, **read_recipe("short")) == Recipe(3, 64)
    assert Recipe(3, 64, **read_recipe("full")) == Recipe(3, 64, **PRESETS["full"])


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    text = "lr: 5e-4\nweight_decay: 1\nsummed_loss: true\nplain_epochs: 4\naugmentation: {mixup: 0.25, scale: 0}\n"
    changed: dict[str, Any] = {"lr": 5e-4, "weight_decay": 1.0, "summed_loss": True, "plain_epochs": 4}
    assert recipe_of(tmp_path, text) == Recipe(3, 64, **changed, augmentation=Augmentation(mixup=0.25, scale=0.0))
    full = Recipe(3, 64, **PRESETS["full"])
    expected = replace(full, **changed, augmentation=replace(full.augmentation, mixup=0.25, scale=0.0))
    assert recipe_of(tmp_path, f"preset: full\n{text}") == expected


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    for preset in PRESETS.values():
        recipe = replace(Recipe(3, 64, **preset), lr=0.0123, auxiliary_end=0.25)
        assert recipe_of(tmp_path, recipe_text(recipe)) == recipe


def test_every_setting_but_those_of_one_training_is_a_key() -> None:
    of_one = {"epochs", "imgsz", "batch_size", "eval_every", "patience", "seed", "device", "precision"}
    assert set(KEYS) == asdict(Recipe(1, 1)).keys() - of_one


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr0: 0.01", "unknown key lr0 .did you mean lr..; the keys are preset, optimizer, lr, "),
        ("epochs: 3", "unknown key epochs"),
        ("3: 3", "unknown key 3; the keys are"),
        ("augmentation: {mixup_: 1}", "unknown key augmentation.mixup_ .did you mean mixup..; the keys are mosaic, "),
        ("augmentation: 3", "augmentation must hold keys and values, got 3"),
        ("lr: fast", "lr must be a number, got 'fast'"),
        ("lr: true", "lr must be a number, got True"),
        ("lr:", "lr must be a number, got None"),
        ("lr: .nan", "lr must be positive, got nan"),
        ("plain_epochs: 1.5", "plain_epochs must be a whole number, got 1.5"),
        ("plain_epochs: true", "plain_epochs must be a whole number, got True"),
        ("summed_loss: 1", "summed_loss must be true or false, got 1"),
        ("optimizer: adam", "optimizer must be one of adamw, sgd, got 'adam'"),
        ("augmentation: {mixup: 1.5}", "mixup is a probability, got 1.5"),
        ("augmentation: {scale: [1]}", r"augmentation.scale must be a number, got \[1\]"),
        ("preset: long", "preset must be one of short, full, got 'long'"),
        ("preset: [a]", r"preset must be one of short, full, got \['a'\]"),
        ("", "must hold keys and values, such as"),
        ("- lr", "must hold keys and values, such as"),
        ("lr: [", "is no YAML"),
        ("!!python/object/apply:os.system ['true']", "is no YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_one_line_that_names_it(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as refused:
        recipe_of(tmp_path, text)
    assert str(refused.value).startswith(f"--recipe {tmp_path / 'my.yaml'}: ") and "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give short, full or the path of a YAML file"):
        read_recipe("ful")
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(str(tmp_path))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(str(tmp_path / "bytes.yaml"))
