"""A short training of a small detector, which the tests of this room share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from evaluators.data.augment import Augmentation
from evaluators.data.bank import load_bank
from evaluators.data.records import Record
from evaluators.judge import load_split
from evaluators.training.loop import FitResult, fit, new_network
from evaluators.training.recipe import Recipe
from gpnas.graph.graph import Graph
from gpnas.graph.network import Network
from tests.small_detector import NAMES, rectangles, small_graph

PLAIN = Augmentation(mosaic=0.0, scale=0.0, translate=0.0, flip=0.0, hue=0.0, saturation=0.0, value=0.0)
QUICK = Recipe(3, 64, batch_size=4, device="cpu", precision="fp32")


def ignore(row: dict[str, Any]) -> None:
    """A report that nobody reads."""


def trained(
    recipe: Recipe,
    graph: Graph | None = None,
    records: Sequence[Record] = (),
    val: Sequence[Record] = (),
    **options: Any,
) -> tuple[Network, FitResult]:
    """A small network after `fit` on eight images of rectangles, or on `records`; and the result."""
    network = new_network(graph or small_graph(8), 3, recipe.imgsz, recipe.seed)
    bank = load_bank(records or rectangles(8), recipe.imgsz)
    split = load_split(val, recipe.imgsz) if val else None
    return network, fit(network, bank, split, NAMES, recipe, **{"report": ignore, **options})


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two state dictionaries hold the same numbers, to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
