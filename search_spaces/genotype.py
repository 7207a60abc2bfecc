"""The genotype: the choices that make a detector, its YAML and its hash.

A stage belongs to a family and has the choices of that family: FAMILY_FIELDS must be given and nothing else may be, so that
every choice in a YAML has an effect. Ratios are shares in (0, 1]; `families.channels` turns them into channels.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from gpnas.errors import GenotypeError
from search_spaces.strict_yaml import (
    SCHEMA,
    StrictModel,
    canonical_hash,
    canonical_json,
    keys_of,
    parse_yaml,
    shortened,
    validate,
)

Family = Literal["plain", "residual", "masked_residual", "csp", "elan", "gelan", "osa", "dense"]
Unit = Literal[
    "plain",
    "residual",
    "masked_residual",
    "rep_residual",
    "bottleneck",
    "resnext",
    "dense",
    "residual_stop_block",
    "residual_stop_identity",
]
Fusion = Literal["csp", "first", "last", "none"]
Downsample = Literal["strided", "max_pool", "aconv", "adown"]
Ratio = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=32)]
Width = Annotated[int, Field(ge=4, le=4096)]
Levels = Literal["3-5", "2-5", "3-6"]

STRIDES: dict[Levels, tuple[int, ...]] = {"3-5": (8, 16, 32), "2-5": (4, 8, 16, 32), "3-6": (8, 16, 32, 64)}
"""Strides of the levels that predict, in pixels, by their names: level k has stride 2^k (P3 to P5 in the field's words)."""

BACKBONE_STAGES: dict[Levels, int] = {"3-5": 4, "2-5": 4, "3-6": 5}
"""Stages of the backbone. The first one is at stride 4, the last one at the deepest level."""

CHANNEL_STEP = 4
"""Shares of a width are rounded to multiples of this many channels."""

FAMILY_FIELDS: dict[str, tuple[str, ...]] = {
    "plain": ("depth",),
    "residual": ("depth", "hidden_ratio"),
    "masked_residual": ("depth", "hidden_ratio", "mask_ratio"),
    "csp": ("depth", "unit", "split_ratio", "hidden_ratio", "fusion"),
    "elan": ("depth", "repeats", "split_ratio", "hidden_ratio"),
    "gelan": ("depth", "repeats", "unit", "split_ratio", "hidden_ratio"),
    "osa": ("depth", "repeats", "hidden_ratio"),
    "dense": ("depth", "hidden_ratio"),
}
STAGE_FIELDS = ("depth", "repeats", "unit", "split_ratio", "hidden_ratio", "mask_ratio", "groups", "fusion")
UNIT_FIELDS: dict[str, tuple[str, ...]] = {"masked_residual": ("mask_ratio",), "resnext": ("groups",)}


class Stage(StrictModel):
    """One stage at one resolution. Sections and figures are those of the gradient-path paper (arXiv:2211.04800).

    width: output channels. depth: units in a computational block (ELAN's stack in computational block, section 2.4).
    repeats: computational blocks whose outputs are aggregated. unit: what a CSP stage or a GELAN block computes.
    split_ratio: share of the stage's channels that enters the computational path (CSPNet, section 2.3).
    hidden_ratio: width inside a unit or block, as a share of its input. mask_ratio: share of the identity's channels that is
    masked (PRN, section 2.2). groups: those of the 3x3 layer in a ResNeXt unit (its cardinality, arXiv:1611.05431).
    fusion: where a CSP stage has transition layers: on both sides of the concatenation (csp, Figure 5 b), only after it
    (first, c), only before it (last, d), or nowhere (none).
    """

    family: Family
    width: Width
    depth: Count | None = None
    repeats: Count | None = None
    unit: Unit | None = None
    split_ratio: Ratio | None = None
    hidden_ratio: Ratio | None = None
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    groups: Count | None = None
    fusion: Fusion | None = None

    @property
    def channel_step(self) -> int:
        """Shares of the stage's width are rounded to multiples of this many channels."""
        return CHANNEL_STEP

    @model_validator(mode="after")
    def _has_the_fields_of_its_family(self) -> Stage:
        needed, values = stage_fields(self.family, self.unit), self.__dict__
        for name in STAGE_FIELDS:
            given = values[name] is not None
            if given and name not in needed:
                unit = f" with unit {self.unit}" if name in ("mask_ratio", "groups") and self.unit else ""
                raise ValueError(f"{name} has no effect in family {self.family}{unit}; remove it")
            if not given and name in needed:
                raise ValueError(f"family {self.family} needs {name}; add it")
        return self


def stage_fields(family: str, unit: str | None) -> tuple[str, ...]:
    """Names of the choices that a stage of `family` has, when it is made of `unit`s (None for a family without units)."""
    fields = FAMILY_FIELDS[family]
    return fields + UNIT_FIELDS.get(unit or "", ()) if "unit" in fields else fields


def has_ratios(family: str) -> bool:
    """Whether a stage of `family` has layers whose width is a share of another."""
    return any(name.endswith("_ratio") for name in FAMILY_FIELDS[family])


class BackboneStage(Stage):
    """A stage that halves the resolution first."""

    downsample: Downsample


class Neck(StrictModel):
    """Path aggregation (FPN and PAN) over the levels, one stage less each way than there are levels.

    With levels 3-5, top_down is at strides 16, 8 and bottom_up at strides 16, 32; with 2-5 at 16, 8, 4 and 8, 16, 32; with 3-6
    at 32, 16, 8 and 16, 32, 64.
    """

    top_down: list[Stage]
    bottom_up: list[Stage]


class Head(StrictModel):
    """Decoupled anchor-free head on every level, with a distribution of `reg_max` bins for each box side.

    width: channels of both branches. depth: 3x3 convolutions before each prediction.
    """

    classes: Annotated[int, Field(ge=1, le=10000)]
    width: Width
    depth: Annotated[int, Field(ge=0, le=4)]
    reg_max: Annotated[int, Field(ge=4, le=32)] = 16


class Pgi(StrictModel):
    """Programmable gradient information (YOLOv9, arXiv:2402.13616, section 3): a branch that exists only in training.

    kind:
    - none;
    - deep_supervision: a second head reads the levels of the backbone;
    - reversible, as in YOLOv9-C: a second backbone reads the image and the levels of the main one, and carries the second head;
    - composite, as in YOLOv9-E: the main branch has two backbones, and the second reads the levels of the first. The second
      head reads the first backbone through a neck of its own.

    levels: rising strides, out of those of the genotype's levels, at which one backbone reads the other, and on which the
    second head predicts. integration: at each level a
    backbone reads the same level of the other one (own), or that level and all deeper ones (multi). weight: factor of the
    auxiliary loss.
    """

    kind: Literal["none", "deep_supervision", "reversible", "composite"] = "none"
    levels: list[int] | None = None
    integration: Literal["own", "multi"] | None = None
    weight: Annotated[float, Field(gt=0, le=10)] | None = None

    @model_validator(mode="after")
    def _has_the_fields_of_its_kind(self) -> Pgi:
        needed = PGI_FIELDS[self.kind]
        for name in ("levels", "integration", "weight"):
            given = getattr(self, name) is not None
            if given and name not in needed:
                raise ValueError(f"{name} has no effect in kind {self.kind}; remove it")
            if not given and name in needed:
                raise ValueError(f"kind {self.kind} needs {name}; add it")
        return self


PGI_FIELDS: dict[str, tuple[str, ...]] = {
    "none": (),
    "deep_supervision": ("levels", "weight"),
    "reversible": ("levels", "integration", "weight"),
    "composite": ("levels", "integration", "weight"),
}


class Stem(StrictModel):
    """The first convolution: 3x3, stride 2."""

    width: Width


class Genotype(StrictModel):
    """A detector. `found` is what a search writes beside it (run, AP, cost) and no part of the architecture.

    levels: on which it predicts, a key of STRIDES. A YAML of levels 3-5 does not name them.
    """

    schema_version: Annotated[int, Field(alias="schema", ge=SCHEMA, le=SCHEMA)] = SCHEMA
    activation: Literal["silu", "relu", "leaky_relu"] = "silu"
    stem: Stem
    backbone: list[BackboneStage]
    spp: Literal["none", "sppf"]
    levels: Levels = "3-5"
    neck: Neck
    head: Head
    pgi: Pgi = Pgi()
    found: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _has_the_stages_of_its_levels(self) -> Genotype:
        joins = len(self.strides) - 1
        for place, stages, needed in (
            ("backbone", self.backbone, BACKBONE_STAGES[self.levels]),
            ("neck.top_down", self.neck.top_down, joins),
            ("neck.bottom_up", self.neck.bottom_up, joins),
        ):
            if len(stages) != needed:
                raise ValueError(
                    f"{place} must have {needed} stages with levels {self.levels}, got {len(stages)}; add or remove stages, or "
                    f"change levels ({', '.join(STRIDES)})"
                )
        return self

    @model_validator(mode="after")
    def _pgi_reads_its_levels(self) -> Genotype:
        levels, strides = self.pgi.levels, self.strides
        if levels is not None and (not levels or levels != [stride for stride in strides if stride in levels]):
            raise ValueError(f"levels must be rising strides out of {', '.join(map(str, strides))}, got {levels} in pgi.levels")
        return self

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the levels that predict, in pixels, rising."""
        return STRIDES[self.levels]

    @property
    def hash(self) -> str:
        """16 hex digits of the choices alone: comments, `found` and the order of keys do not change it."""
        return canonical_hash(self.to_json())

    def to_json(self) -> str:
        """The choices in one canonical line. `read_genotype` reads it too, and much faster than it reads YAML."""
        return canonical_json(self._choices())

    def _choices(self) -> dict[str, Any]:
        # Levels 3-5 are not named, so that the text and the hash are those from before there were others.
        left_out = {"found", "levels"} if self.levels == "3-5" else {"found"}
        return self.model_dump(exclude_none=True, exclude=left_out, by_alias=True)

    def to_yaml(self, found: dict[str, Any] | None = None) -> str:
        """YAML that `read_genotype` turns into an equal genotype."""
        document = self._choices()
        if found:
            document["found"] = found
        return yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120)


def read_genotype(text: str, where: str = "genotype") -> Genotype:
    """Parse YAML strictly. Raises GenotypeError, one line that begins with `where` and names key, value and place."""
    document = parse_yaml(text, where)
    if not isinstance(document, dict):
        raise GenotypeError(f"{where}: expected a mapping with the keys {keys_of(Genotype)}, got {shortened(document)}")
    if document.get("schema") != SCHEMA:
        version = shortened(document.get("schema"))
        raise GenotypeError(f"{where}: schema must be {SCHEMA}, got {version}; this file is of another gpnas version")
    return validate(Genotype, document, where)
