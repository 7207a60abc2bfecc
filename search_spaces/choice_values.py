"""The values of every choice in the union space, and how ready spaces and space files narrow them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from gpnas.errors import GenotypeError
from search_spaces.choices import backbone_labels, genotype_of, neck_labels
from search_spaces.genotype import STRIDES, Family, Fusion, Levels, Unit

Values = dict[str, Sequence[Any]]
"""Values by label, such as {"backbone.0.depth": (1, 2, 3, 4)}."""

SPACES: dict[str, Values] = {
    "gradient-path": {},
    "prn": {"family": ("residual", "masked_residual"), "pgi.kind": ("none",)},
    "csp": {"family": ("csp",), "pgi.kind": ("none",)},
    "elan": {"family": ("osa", "elan"), "pgi.kind": ("none",)},
    "gelan": {"family": ("gelan",), "pgi.kind": ("none",)},
    "pgi": {"family": ("csp", "elan", "gelan"), "pgi.kind": ("deep_supervision", "reversible", "composite")},
}
"""Ready spaces. Each narrows the union space: an entry holds for all labels that end in its key."""

# Units with stopped gradients serve an ablation (gradient-path paper, Figure 9): a YAML may name them, no space has them.
_UNITS: tuple[str, ...] = tuple(unit for unit in get_args(Unit) if "stop" not in unit)

_WIDTHS = {  # of stages in the backbone and in the neck, by stride
    4: (16, 24, 32, 48, 64, 96, 128),
    8: (24, 32, 48, 64, 96, 128, 192, 256),
    16: (32, 48, 64, 96, 128, 192, 256, 384, 512),
    32: (48, 64, 96, 128, 192, 256, 384, 512),
    64: (64, 96, 128, 192, 256, 384, 512, 768),
}

_PGI_LEVELS: dict[Levels, tuple[tuple[int, ...], ...]] = {
    "3-5": ((8, 16, 32), (16, 32), (32,), (8, 16)),
    "2-5": ((4, 8, 16, 32), (8, 16, 32), (16, 32), (32,), (8, 16), (4, 8)),
    "3-6": ((8, 16, 32, 64), (16, 32, 64), (32, 64), (64,), (8, 16, 32), (16, 32), (32,), (8, 16)),
}

STAGE_VALUES: Values = {
    "family": get_args(Family),
    "depth": (1, 2, 3, 4),
    "repeats": (1, 2, 3, 4),
    "unit": _UNITS,
    "split_ratio": (0.25, 0.5, 0.75, 1.0),
    "hidden_ratio": (0.25, 0.5, 0.75, 1.0),
    "mask_ratio": (0.25, 0.5, 0.75),
    "groups": (2, 4, 8, 16),
    "fusion": get_args(Fusion),
}


def union_values(levels: Levels = "3-5") -> Values:
    """Every label of the union space and its values, in the order in which samples are drawn."""
    values: Values = {"stem.width": (8, 16, 24, 32, 48, 64), "activation": ("silu",)}
    for i, label in enumerate(backbone_labels(levels)):
        stage = {"width": _WIDTHS[4 << i], "downsample": ("strided", "max_pool", "aconv", "adown"), **STAGE_VALUES}
        values |= {f"{label}.{name}": options for name, options in stage.items()}
    values["spp"] = ("none", "sppf")
    for label, stride in neck_labels(levels).items():
        stage = {"width": _WIDTHS[stride], **STAGE_VALUES}
        values |= {f"{label}.{name}": options for name, options in stage.items()}
    values |= {
        "head.width": (16, 32, 48, 64),
        "head.depth": (1, 2),
        "head.reg_max": (16,),
        "pgi.kind": ("none", "deep_supervision", "reversible", "composite"),
        "pgi.levels": _PGI_LEVELS[levels],
        "pgi.integration": ("own", "multi"),
        "pgi.weight": (0.1, 0.25, 0.5),
    }
    return values


def read_space_file(path: Path) -> Values:
    """What a space file narrows: `base: NAME` of a ready space and `values: {label: [value, ...]}`.

    Raises GenotypeError that names the key.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise GenotypeError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict) or set(document) - {"base", "values"}:
        raise GenotypeError(f"{path}: a space file has the keys base and values, got {document!r:.80}")
    base = document.get("base", "gradient-path")
    if base not in SPACES:
        raise GenotypeError(f"{path}: base must be one of {', '.join(SPACES)}, got {base!r}")
    narrowed = document.get("values") or {}
    if not isinstance(narrowed, dict):
        raise GenotypeError(f"{path}: values must map labels to lists, got {narrowed!r:.80}")
    return {**SPACES[base], **narrowed}


def narrow(values: Values, narrowed: Mapping[str, Sequence[Any]], where: str, levels: Levels = "3-5") -> Values:
    """`values`, those of `levels`, with other values for some labels.

    narrowed: by label (backbone.0.width), or by the end of several labels (family). A number may lie outside of the union
    space, as long as a genotype can have it. Raises GenotypeError that begins with `where` and names the key.
    """
    result = dict(values)
    for key, chosen in narrowed.items():
        labels = [label for label in values if label == key or label.endswith(f".{key}")]
        if not labels:
            raise GenotypeError(
                f"{where}: no choice{_elsewhere(key, levels)} is named {key!r}; choices end in {_endings(values)}"
            )
        chosen = _checked_list(key, chosen, where)
        for label in labels:
            for value in chosen:
                _check_value(label, value, values, where, levels)
            result[label] = chosen
    _check_widths(result, where, levels)
    return result


def _elsewhere(key: str, levels: Levels) -> str:
    """For an error message: that `key` names a choice, but one of other levels."""
    others = [other for other in STRIDES if key in union_values(other)]
    return f" of levels {levels} (but of {' and '.join(others)})" if others else ""


def _checked_list(key: str, chosen: Any, where: str) -> list[Any]:
    """The values of one key: distinct, and numbers in rising order, because sampling and mutation step along them."""
    if not isinstance(chosen, list | tuple) or not chosen:
        raise GenotypeError(f"{where}: {key} needs a list of at least one value, got {chosen!r}")
    chosen = [tuple(value) if isinstance(value, list) else value for value in chosen]
    if any(value in chosen[:i] for i, value in enumerate(chosen)):
        raise GenotypeError(f"{where}: {key} names a value twice: {chosen}")
    return sorted(chosen) if all(isinstance(value, int | float) for value in chosen) else chosen


# Choices of a stage in which another choice has an effect, so that its values can be checked.
_EFFECTIVE_IN: dict[str, dict[str, Any]] = {
    "fusion": {"family": "csp", "unit": "plain"},
    "mask_ratio": {"family": "masked_residual"},
    "groups": {"family": "csp", "unit": "resnext"},
    "depth": {"family": "plain"},
}


def _check_value(label: str, value: Any, values: Values, where: str, levels: Levels) -> None:
    """Raises GenotypeError when no genotype can have `value` at `label`."""
    outside = GenotypeError(f"{where}: {label} must be among {list(values[label])}, got {value!r}")
    if value not in values[label] and not isinstance(value, int | float):
        raise outside
    prefix, _, name = label.rpartition(".")
    point = {key: options[0] for key, options in values.items()} | {"pgi.kind": "reversible"}
    if f"{prefix}.family" in values and name != "family":
        stage = _EFFECTIVE_IN.get(name, {"family": "gelan", "unit": "plain"})
        point |= {f"{prefix}.{key}": choice for key, choice in stage.items()}
    try:
        genotype_of(point | {label: value}, 1, levels)
    except ValidationError as error:
        raise GenotypeError(f"{where}: {label} cannot be {value!r}: {error.errors()[0]['msg']}") from None
    except (KeyError, TypeError):
        raise outside from None


def _check_widths(values: Values, where: str, levels: Levels) -> None:
    """Raises GenotypeError when no widths of the backbone stages rise with depth."""
    narrowest = 0
    for stage in backbone_labels(levels):
        label = f"{stage}.width"
        if max(values[label]) < narrowest:
            raise GenotypeError(
                f"{where}: {label} has no value as wide as the stage before it ({narrowest}); widths may not shrink"
            )
        narrowest = min(width for width in values[label] if width >= narrowest)


def _endings(values: Values) -> str:
    return ", ".join(dict.fromkeys(label.rsplit(".", 1)[-1] for label in values))
