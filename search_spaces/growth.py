"""The networks of the gradient-path paper's Table 1 and Figures 7 and 8 (arXiv:2211.04800), as blueprints of any depth.

Every unit is one 3x3 layer; a classifier reads the output of the last unit. With sparse aggregation, unit l reads the outputs
of units l-1, l-2, l-4, l-8, ... (Sparsely Aggregated Convolutional Networks, arXiv:1801.05895, section 3). The catalogue holds
each network at depth 8. `gpnas bench growth` prints Table 1 and draws the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpnas.graph.graph import Graph
from search_spaces.blueprint import Blueprint, build_blueprint

WIDTH = 8
"""Channels of every unit."""

TABLE_1 = ("plain", "resnet", "densenet", "sparse-resnet", "sparse-densenet")

DRAWN = {"ResNet": "resnet", "PRN": "prn", "DenseNet": "densenet", "SparseNet": "sparse-densenet"}
"""The networks of Figures 7 and 8, by title."""


def network(name: str, depth: int) -> Graph:
    """The graph of `blueprint`."""
    return build_blueprint(blueprint(name, depth))


def blueprint(name: str, depth: int) -> Blueprint:
    """A stem, `depth` units and a classifier. name: one of TABLE_1, or "prn"."""
    layer = {"block": "conv", "width": WIDTH, "kernel": 3}
    blocks: list[dict[str, Any]] = [{"name": "stem", **layer}]
    features = ["stem"]
    for k in range(1, depth + 1):
        blocks += [*_join(name, features), {"name": f"unit{k}", **layer}]
        features.append(f"unit{k}")
        if name in _RESIDUALS:
            blocks.append({"name": f"sum{k}", "block": "add", "from": [f"unit{k}", features[-2]], **_RESIDUALS[name]})
            features[-1] = f"sum{k}"
    blocks += [*_join(name, features), {"name": "head", "block": "classifier", "classes": 10}]
    return Blueprint.model_validate({"schema": 1, "name": name, "activation": "relu", "blocks": blocks})


def _join(name: str, features: Sequence[str]) -> list[dict[str, Any]]:
    """The block that joins the features which the next unit reads; none where it reads one."""
    if name not in _JOINS:
        return []
    block, distances = _JOINS[name]
    return [{"block": block, "from": [features[-d] for d in distances(len(features))]}]


def _all(n: int) -> list[int]:
    return list(range(n, 0, -1))


def _powers_of_two(n: int) -> list[int]:
    return [1 << k for k in range(n.bit_length()) if 1 << k <= n]


_RESIDUALS: dict[str, dict[str, float]] = {"resnet": {}, "prn": {"mask_ratio": 0.5}}
"""Networks that add the input of a unit to its output, with the options of the addition."""

_JOINS: dict[str, tuple[str, Callable[[int], list[int]]]] = {
    "densenet": ("concat", _all),
    "sparse-resnet": ("add", _powers_of_two),
    "sparse-densenet": ("concat", _powers_of_two),
}
"""Networks whose units read several features: the block that joins them, and how far back they lie, given their number."""
