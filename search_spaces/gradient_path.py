"""The search space: every choice and its values, stated with nni.mutable; sampling, mutation, crossover, constraints.

    space = GradientPathSpace(classes=3)                  # the union space "gradient-path"
    a, b = space.propose([], rng), space.propose([], rng)
    child = space.propose([a, b], rng)

A point is a flat dict {label: value} over all labels of the `MutableDict`; a genotype holds only those that have an effect
in it (a stage's family decides). Constraints: widths do not shrink with depth in the backbone. NNI's own `random()` does
not enforce constraints, so points are drawn here, from the caller's generator, and checked against NNI's statement.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import ValidationError

from gpnas.errors import GenotypeError
from gpnas.graph.cost import deployed_cost
from gpnas.search.trial import Candidate
from search_spaces.architecture import candidate
from search_spaces.genotype import (
    PGI_FIELDS,
    BackboneStage,
    Family,
    Fusion,
    Genotype,
    Head,
    Neck,
    Pgi,
    Stage,
    Stem,
    Unit,
    read_genotype,
    stage_fields,
)

if TYPE_CHECKING:
    from nni.mutable import MutableDict


Point = dict[str, Any]

ATTEMPTS = 1000
"""Draws for one proposal before the space counts as empty."""

MATES = 100
"""Crossings to try before one of the parents is mutated: near twins have no child of their own."""

_FAMILIES: tuple[str, ...] = get_args(Family)
# Stopped gradients are for ablation (gradient-path paper, Figure 9): a YAML may name them, a search does not draw them.
_UNITS: tuple[str, ...] = tuple(unit for unit in get_args(Unit) if "stop" not in unit)

SPACES: dict[str, dict[str, Sequence[Any]]] = {
    # What each ready space narrows of the union space: the values of every label that ends so.
    "gradient-path": {},
    "prn": {"family": ("residual", "masked_residual"), "pgi.kind": ("none",)},
    "csp": {"family": ("csp",), "pgi.kind": ("none",)},
    "elan": {"family": ("osa", "elan"), "pgi.kind": ("none",)},
    "gelan": {"family": ("gelan",), "pgi.kind": ("none",)},
    "pgi": {"family": ("csp", "elan", "gelan"), "pgi.kind": ("deep_supervision", "reversible", "composite")},
}

_BACKBONE_WIDTHS = (
    (16, 24, 32, 48, 64, 96, 128),
    (24, 32, 48, 64, 96, 128, 192, 256),
    (32, 48, 64, 96, 128, 192, 256, 384, 512),
    (48, 64, 96, 128, 192, 256, 384, 512),
)
_NECK_WIDTHS = (
    _BACKBONE_WIDTHS[2],
    _BACKBONE_WIDTHS[1],
    _BACKBONE_WIDTHS[2],
    _BACKBONE_WIDTHS[3],
)  # strides 16 8 16 32

STAGE_VALUES: dict[str, Sequence[Any]] = {
    "family": _FAMILIES,
    "depth": (1, 2, 3, 4),
    "repeats": (1, 2, 3, 4),
    "unit": _UNITS,
    "split_ratio": (0.25, 0.5, 0.75, 1.0),
    "hidden_ratio": (0.25, 0.5, 0.75, 1.0),
    "mask_ratio": (0.25, 0.5, 0.75),
    "groups": (2, 4, 8, 16),
    "fusion": get_args(Fusion),
}


def union_values() -> dict[str, Sequence[Any]]:
    """Every label of the union space and its values, in order."""
    values: dict[str, Sequence[Any]] = {"stem.width": (8, 16, 24, 32, 48, 64), "activation": ("silu",)}
    for i, widths in enumerate(_BACKBONE_WIDTHS):
        stage = {"width": widths, "downsample": ("strided", "max_pool", "aconv", "adown"), **STAGE_VALUES}
        values |= {f"backbone.{i}.{name}": options for name, options in stage.items()}
    values["spp"] = ("none", "sppf")
    for i, widths in enumerate(_NECK_WIDTHS):
        stage = {"width": widths, **STAGE_VALUES}
        values |= {f"neck.{i}.{name}": options for name, options in stage.items()}
    values |= {
        "head.width": (16, 32, 48, 64),
        "head.depth": (1, 2),
        "head.reg_max": (16,),
        "pgi.kind": ("none", "deep_supervision", "reversible", "composite"),
        "pgi.levels": ((8, 16, 32), (16, 32), (32,), (8, 16)),
        "pgi.integration": ("own", "multi"),
        "pgi.weight": (0.1, 0.25, 0.5),
    }
    return values


def open_space(spec: str, classes: int) -> GradientPathSpace:
    """A ready space by name, or one from a YAML file: `base: NAME` and `values: {label: [value, ...]}` that narrow it.

    A label may be given in full (backbone.0.width) or by its end (family). Raises GenotypeError that names the key.
    """
    if spec in SPACES:
        return GradientPathSpace(classes, SPACES[spec])
    path = Path(spec)
    if not path.is_file():
        raise GenotypeError(f"--space {spec}: no such space or file; ready spaces are {', '.join(SPACES)}")
    try:
        document = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise GenotypeError(f"{spec}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict) or set(document) - {"base", "values"}:
        raise GenotypeError(f"{spec}: a space file has the keys base and values, got {document!r:.80}")
    base = document.get("base", "gradient-path")
    if base not in SPACES:
        raise GenotypeError(f"{spec}: base must be one of {', '.join(SPACES)}, got {base!r}")
    narrowed = document.get("values") or {}
    if not isinstance(narrowed, dict):
        raise GenotypeError(f"{spec}: values must map labels to lists, got {narrowed!r:.80}")
    return GradientPathSpace(classes, {**SPACES[base], **narrowed}, where=spec)


class GradientPathSpace:
    """Detectors for `classes` classes over the union space, narrowed by `narrowed`."""

    def __init__(self, classes: int, narrowed: Mapping[str, Sequence[Any]] | None = None, where: str = "space") -> None:
        self.classes = classes
        self.mutable = _declare(_narrow(union_values(), narrowed or {}, where))
        domain = self.mutable.simplify()
        self.values: dict[str, list[Any]] = {
            label: list(choice.values) for label, choice in domain.items() if hasattr(choice, "values")
        }
        self._widths = {label for label in self.values if label.endswith(".width")}

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        """A new candidate: sampled without parents, mutated from one, crossed from two."""
        points = [self._point(read_genotype(parent.genotype), rng) for parent in parents]
        hashes = {parent.hash for parent in parents}
        for attempt in range(ATTEMPTS):
            if not points:
                point = self._sample(rng)
            elif len(points) == 1 or attempt > MATES:
                point = self._mutate(points[0], rng)
            else:
                point = self._cross(points, rng)
            self._order_widths(point)
            if not self.mutable.contains(point):
                continue
            try:
                child = candidate(genotype_of(point, self.classes))
            except GenotypeError:
                continue  # choices that fit no channels, such as a split of too few
            if child.hash not in hashes or attempt > ATTEMPTS // 2:  # a space of one point has no other child
                return child
        raise GenotypeError(f"no valid architecture in {ATTEMPTS} draws: the space is narrowed too far; allow more values")

    def read(self, text: str) -> Candidate:
        return candidate(read_genotype(text))

    def smallest(self) -> Candidate:
        """A candidate with so few MACs that no single choice makes them fewer."""
        point = {label: _least(label, values) for label, values in self.values.items()}
        self._order_widths(point)
        try:
            found = candidate(genotype_of(point, self.classes))
        except GenotypeError:  # the least of everything may leave no channels for a path
            rng = random.Random(0)
            found = self.propose([], rng)
            point = self._point(read_genotype(found.genotype), rng)
        while True:
            before = _macs(found)
            for label, values in self.values.items():
                for value in values:
                    changed = point | {label: value}
                    if value == point[label] or not self.mutable.contains(changed):
                        continue
                    try:
                        smaller = candidate(genotype_of(changed, self.classes))
                    except GenotypeError:
                        continue
                    if _macs(smaller) < _macs(found):
                        point, found = changed, smaller
            if _macs(found) == before:
                return found

    def _order_widths(self, point: Point) -> None:
        """Meet the constraint by widening: a stage is at least as wide as the one before it."""
        for i in range(3):
            before, after = f"backbone.{i}.width", f"backbone.{i + 1}.width"
            if point[after] < point[before]:
                point[after] = min((w for w in self.values[after] if w >= point[before]), default=point[after])

    def _sample(self, rng: random.Random) -> Point:
        # One size for the whole candidate: independent widths would all be middling, and costs would cluster.
        size = rng.random()
        point = {}
        for label, values in self.values.items():
            if label in self._widths:
                values = values[: 1 + round(size * (len(values) - 1))][-3:]
            point[label] = values[int(rng.random() * len(values))]  # `choice` takes three times as long, for 80 labels
        return point

    def _mutate(self, point: Point, rng: random.Random) -> Point:
        """One to three effective choices, drawn again."""
        active = sorted(_active_labels(point) & {label for label, values in self.values.items() if len(values) > 1})
        point = dict(point)
        for label in rng.sample(active, min(len(active), rng.choice((1, 1, 2, 3)))):
            values = self.values[label]
            if label.endswith(".width") and point[label] in values:
                at = values.index(point[label])  # a step, not a jump: cost should change gently
                values = values[max(0, at - 1) : at + 2]
            point[label] = rng.choice([value for value in values if value != point[label]])
        return point

    def _cross(self, points: Sequence[Point], rng: random.Random) -> Point:
        """Whole stages from either parent: what a stage's choices do, they do together."""
        origin: dict[str, Point] = {}
        child = {}
        for label in self.values:
            part = label.rsplit(".", 1)[0]
            parent = origin.setdefault(part, rng.choice(points))
            child[label] = parent[label]
        return child

    def _point(self, genotype: Genotype, rng: random.Random) -> Point:
        """All labels of a genotype; those without effect in it are drawn, to be there when a mutation wakes them."""
        point = {label: rng.choice(values) for label, values in self.values.items()}
        flat = {label: value for label, value in choices_of(genotype).items() if label in point}
        # A start from elsewhere may hold values that this space lacks: their nearest number, or the drawn one, stands in.
        return point | {
            label: value if value in self.values[label] else _nearest(value, self.values[label], point[label])
            for label, value in flat.items()
        }


def _narrow(values: dict[str, Sequence[Any]], narrowed: Mapping[str, Sequence[Any]], where: str) -> dict[str, Sequence[Any]]:
    result = dict(values)
    for key, kept in narrowed.items():
        labels = [label for label in values if label == key or label.endswith(f".{key}")]
        if not labels:
            raise GenotypeError(f"{where}: no choice is named {key!r}; choices end in {_endings(values)}")
        if not isinstance(kept, list | tuple) or not kept:
            raise GenotypeError(f"{where}: {key} needs a list of at least one value, got {kept!r}")
        kept = [tuple(value) if isinstance(value, list) else value for value in kept]
        if any(value in kept[:i] for i, value in enumerate(kept)):
            raise GenotypeError(f"{where}: {key} names a value twice: {kept}")
        if all(isinstance(value, int | float) for value in kept):
            kept = sorted(kept)  # sampling and mutation step along rising values
        for label in labels:
            unknown = [value for value in kept if value not in values[label]]
            if unknown and not isinstance(unknown[0], int | float):
                raise GenotypeError(f"{where}: {label} must be among {list(values[label])}, got {unknown[0]!r}")
            for value in kept:
                _check_value(label, value, values, where)
            result[label] = kept
    widest = 0
    for i in range(4):
        label = f"backbone.{i}.width"
        if max(result[label]) < widest:
            raise GenotypeError(
                f"{where}: {label} has no value as wide as the stage before it ({widest}); widths may not shrink"
            )
        widest = min(width for width in result[label] if width >= widest)
    return result


# A family, unit and kind in which a choice has an effect, so that its values can be checked.
_AWAKE: dict[str, dict[str, Any]] = {
    "fusion": {"family": "csp", "unit": "plain"},
    "mask_ratio": {"family": "masked_residual"},
    "groups": {"family": "csp", "unit": "resnext"},
    "depth": {"family": "plain"},
}


def _check_value(label: str, value: Any, values: Mapping[str, Sequence[Any]], where: str) -> None:
    """Raises GenotypeError when no genotype can have `value` at `label`."""
    prefix, _, name = label.rpartition(".")
    point = {key: options[0] for key, options in values.items()} | {"pgi.kind": "reversible"}
    if f"{prefix}.family" in values and name != "family":
        awake = _AWAKE.get(name, {"family": "gelan", "unit": "plain"})
        point |= {f"{prefix}.{key}": choice for key, choice in awake.items()}
    try:
        genotype_of(point | {label: value}, classes=1)
    except ValidationError as error:
        raise GenotypeError(f"{where}: {label} cannot be {value!r}: {error.errors()[0]['msg']}") from None
    except (KeyError, TypeError):
        raise GenotypeError(f"{where}: {label} must be among {list(values[label])}, got {value!r}") from None


def _endings(values: Mapping[str, Any]) -> str:
    return ", ".join(dict.fromkeys(label.rsplit(".", 1)[-1] for label in values))


def _declare(values: dict[str, Sequence[Any]]) -> MutableDict:
    # nni.mutable takes seconds to import; `gpnas show` and `gpnas --help` do without it.
    from nni.mutable import Categorical, ExpressionConstraint, MutableDict

    choices: dict[str, Any] = {label: Categorical(list(options), label=label) for label, options in values.items()}
    for i in range(3):
        narrow, wide = choices[f"backbone.{i}.width"], choices[f"backbone.{i + 1}.width"]
        choices[f"widths.{i}"] = ExpressionConstraint(narrow <= wide, label=f"widths.{i}")
    return MutableDict(choices)


def _nearest(value: Any, values: Sequence[Any], otherwise: Any) -> Any:
    if isinstance(value, int | float) and all(isinstance(v, int | float) for v in values):
        return min(values, key=lambda v: (abs(v - value), v))
    return otherwise


def _least(label: str, values: Sequence[Any]) -> Any:
    if label.endswith(".downsample"):
        return "max_pool" if "max_pool" in values else values[0]
    if all(isinstance(value, int | float) for value in values):
        return max(values) if label.endswith(".mask_ratio") else min(values)
    return values[0]


def _macs(found: Candidate) -> int:
    return deployed_cost(found.graph, 640).macs


def _stage(point: Point, prefix: str) -> dict[str, Any]:
    family = point[f"{prefix}.family"]
    fields = stage_fields(family, point[f"{prefix}.unit"])
    return {"family": family, "width": point[f"{prefix}.width"], **{f: point[f"{prefix}.{f}"] for f in fields}}


def genotype_of(point: Mapping[str, Any], classes: int) -> Genotype:
    """The genotype of a point: only the choices that have an effect."""
    point = dict(point)
    backbone = [BackboneStage(downsample=point[f"backbone.{i}.downsample"], **_stage(point, f"backbone.{i}")) for i in range(4)]
    neck = [Stage(**_stage(point, f"neck.{i}")) for i in range(4)]
    kind = point["pgi.kind"]
    pgi = {name: point[f"pgi.{name}"] for name in PGI_FIELDS[kind]}
    if "levels" in pgi:
        pgi["levels"] = list(pgi["levels"])
    return Genotype(
        activation=point["activation"],
        stem=Stem(width=point["stem.width"]),
        backbone=backbone,
        spp=point["spp"],
        neck=Neck(top_down=neck[:2], bottom_up=neck[2:]),
        head=Head(classes=classes, width=point["head.width"], depth=point["head.depth"], reg_max=point["head.reg_max"]),
        pgi=Pgi(kind=kind, **pgi),
    )


def choices_of(genotype: Genotype) -> Point:
    """The choices that have an effect in `genotype`, by label."""
    point: Point = {"stem.width": genotype.stem.width, "activation": genotype.activation, "spp": genotype.spp}
    stages: list[tuple[str, Stage]] = [(f"backbone.{i}", stage) for i, stage in enumerate(genotype.backbone)]
    neck = [*genotype.neck.top_down, *genotype.neck.bottom_up]
    stages += [(f"neck.{i}", stage) for i, stage in enumerate(neck)]
    for prefix, stage in stages:
        point |= {f"{prefix}.{name}": value for name, value in stage if value is not None}
    point |= {f"head.{name}": value for name, value in genotype.head if name != "classes"}
    point |= {f"pgi.{name}": value for name, value in genotype.pgi if value is not None}
    if "pgi.levels" in point:
        point["pgi.levels"] = tuple(point["pgi.levels"])
    return point


def _active_labels(point: Point) -> set[str]:
    """The labels that have an effect at `point`."""
    return set(choices_of(genotype_of(point, classes=1)))
