"""Recipes by name or from a YAML file, whose keys are fields of `Recipe` and of `Augmentation`.

    preset: full                  # whose values the other keys replace; short where it is left out
    lr: 0.02
    augmentation:
      mixup: 0.3

A file is read as data, and strictly: an unknown key, or a value of another type, is an error that names it. What belongs to one
training (epochs, imgsz, batch_size, seed ...) is no key.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import yaml

from evaluators.data.augment import Augmentation
from evaluators.training.recipe import PRESETS, Recipe
from gpnas.errors import InputError

_OF_ONE_TRAINING = ("epochs", "imgsz", "batch_size", "eval_every", "patience", "seed", "device", "precision")
_PRESET = "preset"
_EXAMPLE = Recipe(1, 1)  # its values tell the types
_KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a word"}

KEYS = tuple(field.name for field in fields(Recipe) if field.name not in _OF_ONE_TRAINING)
"""What a recipe file may say."""


def read_recipe(spec: str) -> dict[str, Any]:
    """Values for fields of `Recipe`: those of a preset, or of the YAML file at a path. Raises InputError."""
    if spec in PRESETS:
        return dict(PRESETS[spec])
    path = Path(spec)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"--recipe {spec}: give {', '.join(PRESETS)} or the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--recipe {spec}: cannot be read ({error}); give a text file") from None
    except yaml.YAMLError as error:
        raise InputError(f"--recipe {spec}: is no YAML ({' '.join(str(error).split())}); correct it") from None
    return _values(content, spec)


def _values(content: Any, spec: str) -> dict[str, Any]:
    if not isinstance(content, dict) or not content:
        raise InputError(f"--recipe {spec}: must hold keys and values, such as 'lr: 0.01'; the keys are {_listed(KEYS)}")
    content = dict(content)
    preset = content.pop(_PRESET, "short")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise InputError(f"--recipe {spec}: preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    given = content.pop("augmentation", {})
    if not isinstance(given, dict):
        raise InputError(f"--recipe {spec}: augmentation must hold keys and values, got {given!r}")
    examples = {key: getattr(_EXAMPLE, key) for key in KEYS if key != "augmentation"}
    values = {**PRESETS[preset], **_checked(content, examples, (_PRESET, *KEYS), spec, "")}
    examples = asdict(Augmentation())
    varied = _checked(given, examples, tuple(examples), spec, "augmentation.")
    try:
        values["augmentation"] = replace(values.get("augmentation", Augmentation()), **varied)
        Recipe(1, 1, **values)
    except ValueError as error:
        raise InputError(f"--recipe {spec}: {error}") from None
    return values


def _checked(
    given: Mapping[Any, Any], examples: Mapping[str, Any], keys: tuple[str, ...], spec: str, where: str
) -> dict[str, Any]:
    """The given values. Raises InputError for a key that is not in `examples`, or a value of another type than its example."""
    for key in given:
        if key not in examples:
            near = difflib.get_close_matches(str(key), keys, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise InputError(f"--recipe {spec}: unknown key {where}{key}{hint}; the keys are {_listed(keys)}")
    return {key: _of_type(type(examples[key]), value, f"--recipe {spec}: {where}{key}") for key, value in given.items()}


def _of_type(kind: type, value: Any, what: str) -> Any:
    if kind is float and type(value) in (int, str):  # YAML 1.1 reads 5e-4, without a point, as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if type(value) is not kind:
        raise InputError(f"{what} must be {_KINDS[kind]}, got {value!r}")
    return value


def _listed(keys: tuple[str, ...]) -> str:
    return ", ".join(keys)


def recipe_text(recipe: Recipe) -> str:
    """The recipe as a file that `read_recipe` reads."""
    return yaml.safe_dump({key: value for key, value in asdict(recipe).items() if key in KEYS}, sort_keys=False)
