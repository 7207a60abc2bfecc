"""Parameters as the code of YOLOv9's authors counts them, beside ours: integers, which a wrong width anywhere would change.

That code holds the numbers 0 to reg_max - 1 of each head, with which a distribution becomes a distance (Generalized Focal Loss,
arXiv:2006.04388, section 3.2), as parameters that are never trained. Here they are constants and cost no parameter.
"""

from __future__ import annotations

from typing import NamedTuple

from gpnas.graph.cost import cost, deployed_cost
from search_spaces.blueprint import Blueprint, build_blueprint, options_of

IMGSZ = 640
"""Pixels. Parameters do not depend on it."""


class CountedForm(NamedTuple):
    """One form of a published network. ours: its parameters. constants: the numbers that the authors' code counts as well."""

    name: str
    form: str
    ours: int
    constants: int
    published: int


def counted_forms(blueprint: Blueprint) -> list[CountedForm]:
    """The forms whose integer the blueprint quotes under `counted_params`: `train`, with every branch and before layers are
    fused, and `fused`, which is the main branch alone. None for a blueprint without."""
    published: dict[str, int] = (blueprint.published or {}).get("counted_params", {})
    if not published:
        return []
    graph = build_blueprint(blueprint)
    ours = {
        "train": (cost(graph, IMGSZ, IMGSZ, fused=False).params, _constants(blueprint, ("main", "auxiliary"))),
        "fused": (deployed_cost(graph, IMGSZ).params, _constants(blueprint, ("main",))),
    }
    return [CountedForm(blueprint.name, form, *ours[form], integer) for form, integer in published.items()]


def _constants(blueprint: Blueprint, branches: tuple[str, ...]) -> int:
    """reg_max of every decoupled head on `branches`, summed."""
    heads = [options_of(block, blueprint.name) for block in blueprint.blocks if block.block == "detect"]
    return sum(head["reg_max"] for head in heads if isinstance(head, dict) and head["branch"] in branches)
