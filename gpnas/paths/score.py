"""Gradient-path features -> a score before training.

    score = log(capacity) + COMBINATIONS_WEIGHT * log(distinct combinations)
    capacity = sum over layers of sqrt(parameters) * sharpness

The score orders candidates of like cost where many layers help, as in NAS-Bench-201; it does not predict AP. A layer counts
when it sees the image and a gradient reaches it (live). Its parameters count by their square root, as many layers learn more
than few large ones; by the share of its gradient that did not come through poolings (`LayerPaths.sharpness`), which are no
identities; and once for all layers that read the same features and receive the same gradients, as their sum is one layer.
Distinct combinations, which order the ablation of the gradient-path paper's exact networks, part what capacity holds equal,
such as PRN and ResNet.

How the form was chosen, what else was tried, and what it reaches: docs/nasbench201.md. What it says of the paper's own rows:
docs/published.md.

Combinations count what the layers of the *inference* network receive from all losses, so that PGI's auxiliary paths count
for the main branch that they teach, and the branch itself, which is thrown away, does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from gpnas.graph.graph import Graph
from gpnas.paths.gradient_paths import LayerPaths, distinct_combinations

COMBINATIONS_WEIGHT = 0.02


def score_of(graph: Graph, layers: Iterable[LayerPaths]) -> float:
    """The score of a training graph (with its auxiliary outputs) by the live `layers` of its inference form; minus infinity
    when there are none. Higher is better among graphs of like cost."""
    layers = list(layers)
    if not layers:
        return -math.inf
    return math.log(capacity(graph, layers)) + COMBINATIONS_WEIGHT * math.log(distinct_combinations(layers))


def capacity(graph: Graph, layers: Iterable[LayerPaths]) -> float:
    """Sum of sqrt(parameters) * sharpness, over the largest layer of each set that cannot be told apart."""
    largest: dict[object, tuple[int, float]] = {}
    for layer in layers:
        read = graph.ops[layer.op].inputs[0]
        while graph.ops[read].kind == "act":
            read = graph.ops[read].inputs[0]
        alike = (read, layer.gradients)
        largest[alike] = max(largest.get(alike, (0, 0.0)), (layer.parameters, layer.sharpness))
    return sum(math.sqrt(parameters) * sharpness for parameters, sharpness in largest.values())
