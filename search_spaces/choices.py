"""A genotype as flat choices {label: value}, such as {"backbone.0.family": "csp", ...}, and back.

A point holds a value for every label of the union space. A genotype holds only the choices that have an effect in it, which
depends on the families of its stages and on the kind of its PGI. The levels are no choice of a point: they decide which labels
there are. A stage that several sets of levels have bears the same label in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.genotype import (
    BACKBONE_STAGES,
    PGI_FIELDS,
    STRIDES,
    BackboneStage,
    Genotype,
    Head,
    Levels,
    Neck,
    Pgi,
    Stage,
    Stem,
    stage_fields,
)

Point = dict[str, Any]

_NUMBERS = {"top_down16": "0", "top_down8": "1", "bottom_up16": "2", "bottom_up32": "3"}
"""The neck's stages with levels 3-5 are numbered, as they were before there were other levels."""


def backbone_labels(levels: Levels) -> list[str]:
    """What the labels of each stage of the backbone begin with, the finest stage first: backbone.0, backbone.1, ..."""
    return [f"backbone.{i}" for i in range(BACKBONE_STAGES[levels])]


def neck_labels(levels: Levels) -> dict[str, int]:
    """What the labels of each stage of the neck begin with, and its stride in pixels; the top-down path comes first.

    {"neck.0": 16, "neck.1": 8, "neck.2": 16, "neck.3": 32} for levels 3-5. Other levels add neck.top_down4 and neck.bottom_up8,
    or neck.top_down32 and neck.bottom_up64.
    """
    strides = STRIDES[levels]
    stages = [(f"top_down{stride}", stride) for stride in strides[-2::-1]]
    stages += [(f"bottom_up{stride}", stride) for stride in strides[1:]]
    return {f"neck.{_NUMBERS.get(name, name)}": stride for name, stride in stages}


def genotype_of(point: Mapping[str, Any], classes: int, levels: Levels = "3-5") -> Genotype:
    """The genotype of a point, for `classes` classes. Raises pydantic's ValidationError when a value fits no genotype."""
    backbone = [
        BackboneStage(downsample=point[f"{label}.downsample"], **_stage(point, label)) for label in backbone_labels(levels)
    ]
    neck = [Stage(**_stage(point, label)) for label in neck_labels(levels)]
    joins = len(neck) // 2
    kind = point["pgi.kind"]
    pgi = {name: point[f"pgi.{name}"] for name in PGI_FIELDS[kind]}
    if "levels" in pgi:
        pgi["levels"] = list(pgi["levels"])
    return Genotype(
        activation=point["activation"],
        stem=Stem(width=point["stem.width"]),
        backbone=backbone,
        spp=point["spp"],
        levels=levels,
        neck=Neck(top_down=neck[:joins], bottom_up=neck[joins:]),
        head=Head(classes=classes, width=point["head.width"], depth=point["head.depth"], reg_max=point["head.reg_max"]),
        pgi=Pgi(kind=kind, **pgi),
    )


def _stage(point: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    family = point[f"{prefix}.family"]
    fields = stage_fields(family, point[f"{prefix}.unit"])
    return {"family": family, "width": point[f"{prefix}.width"], **{f: point[f"{prefix}.{f}"] for f in fields}}


def choices_of(genotype: Genotype) -> Point:
    """The choices that have an effect in `genotype`, by label."""
    choices: Point = {"stem.width": genotype.stem.width, "activation": genotype.activation, "spp": genotype.spp}
    neck = [*genotype.neck.top_down, *genotype.neck.bottom_up]
    stages: list[Stage] = [*genotype.backbone, *neck]
    for prefix, stage in zip([*backbone_labels(genotype.levels), *neck_labels(genotype.levels)], stages, strict=True):
        choices |= {f"{prefix}.{name}": value for name, value in stage if value is not None}
    choices |= {f"head.{name}": value for name, value in genotype.head if name != "classes"}
    choices |= {f"pgi.{name}": value for name, value in genotype.pgi if value is not None}
    if "pgi.levels" in choices:
        choices["pgi.levels"] = tuple(choices["pgi.levels"])
    return choices


def active_labels(point: Point, levels: Levels = "3-5") -> set[str]:
    """The labels that have an effect at `point`."""
    return set(choices_of(genotype_of(point, 1, levels)))
