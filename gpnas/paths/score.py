"""A score of a network before training, from its gradient paths.

    score = log(capacity) + COMBINATIONS_WEIGHT * log(distinct combinations)
    capacity = sum over layers of sqrt(parameters) * sharpness

The score ranks candidates of similar cost where many layers help, as in NAS-Bench-201. It does not predict AP. Its parts:

- Only live layers count: those that see the image and that a gradient reaches.
- Parameters count by their square root, because many layers learn more than a few large ones.
- A layer counts by its sharpness, the share of its gradient that came through no pooling (`LayerPaths.sharpness`).
- Layers that read the same features and receive the same gradients count once, because their sum is one layer.
- Distinct combinations rank networks of equal capacity, such as PRN and ResNet.

The layers are those of the *inference* network, and the losses are all losses of the training graph: auxiliary losses (PGI)
count for the main branch that they train, and the auxiliary branch, which is not deployed, does not count.

docs/nasbench201.md measures the score on NAS-Bench-201, docs/published.md on the networks of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from gpnas.graph.graph import Graph
from gpnas.paths.gradient_paths import LayerPaths, distinct_combinations

COMBINATIONS_WEIGHT = 0.02


def score_of(graph: Graph, layers: Iterable[LayerPaths]) -> float:
    """The score of a training graph; higher is better among graphs of similar cost. Minus infinity when no layer is live.

    layers: the live layers that are in the inference form, with the gradients of all losses.
    """
    layers = list(layers)
    if not layers:
        return -math.inf
    return math.log(capacity(graph, layers)) + COMBINATIONS_WEIGHT * math.log(distinct_combinations(layers))


def capacity(graph: Graph, layers: Iterable[LayerPaths]) -> float:
    """Sum of sqrt(parameters) * sharpness over layers. Of layers with equal inputs and gradients only the largest counts."""
    largest: dict[object, tuple[int, float]] = {}
    for layer in layers:
        read = graph.ops[layer.op].inputs[0]
        while graph.ops[read].kind == "act":
            read = graph.ops[read].inputs[0]
        key = (read, layer.gradients)
        largest[key] = max(largest.get(key, (0, 0.0)), (layer.parameters, layer.sharpness))
    return sum(math.sqrt(parameters) * sharpness for parameters, sharpness in largest.values())
