"""A genotype as flat choices {label: value}, such as {"backbone.0.family": "csp", ...}, and back.

A point holds a value for every label of the union space. A genotype holds only the choices that have an effect in it, which
depends on the families of its stages and on the kind of its PGI.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.genotype import PGI_FIELDS, BackboneStage, Genotype, Head, Neck, Pgi, Stage, Stem, stage_fields

Point = dict[str, Any]


def genotype_of(point: Mapping[str, Any], classes: int) -> Genotype:
    """The genotype of a point, for `classes` classes. Raises pydantic's ValidationError when a value fits no genotype."""
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


def _stage(point: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    family = point[f"{prefix}.family"]
    fields = stage_fields(family, point[f"{prefix}.unit"])
    return {"family": family, "width": point[f"{prefix}.width"], **{f: point[f"{prefix}.{f}"] for f in fields}}


def choices_of(genotype: Genotype) -> Point:
    """The choices that have an effect in `genotype`, by label."""
    choices: Point = {"stem.width": genotype.stem.width, "activation": genotype.activation, "spp": genotype.spp}
    neck = [*genotype.neck.top_down, *genotype.neck.bottom_up]
    stages: list[tuple[str, Stage]] = [(f"backbone.{i}", stage) for i, stage in enumerate(genotype.backbone)]
    stages += [(f"neck.{i}", stage) for i, stage in enumerate(neck)]
    for prefix, stage in stages:
        choices |= {f"{prefix}.{name}": value for name, value in stage if value is not None}
    choices |= {f"head.{name}": value for name, value in genotype.head if name != "classes"}
    choices |= {f"pgi.{name}": value for name, value in genotype.pgi if value is not None}
    if "pgi.levels" in choices:
        choices["pgi.levels"] = tuple(choices["pgi.levels"])
    return choices


def active_labels(point: Point) -> set[str]:
    """The labels that have an effect at `point`."""
    return set(choices_of(genotype_of(point, classes=1)))
