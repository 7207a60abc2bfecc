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

`detector_score` is another figure, for detectors alone. It was fitted to trained detectors; it is the
surrogate's prior among them.

docs/nasbench201.md measures the score on NAS-Bench-201, docs/published.md on the networks of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from gpnas.graph.graph import Graph
from gpnas.paths.gradient_paths import LayerPaths, distinct_combinations

COMBINATIONS_WEIGHT = 0.02

SHORTEST_PATH_WEIGHT = 2.0
"""Of the log of the longest shortest path in `detector_score`."""


def score_of(graph: Graph, layers: Iterable[LayerPaths]) -> float:
    """The score of a training graph; higher is better among graphs of similar cost. Minus infinity when no layer is live.

    layers: the live layers that are in the inference form, with the gradients of all losses.
    """
    layers = list(layers)
    if not layers:
        return -math.inf
    return math.log(capacity(graph, layers)) + COMBINATIONS_WEIGHT * math.log(distinct_combinations(layers))


def detector_score(flops: float, longest_shortest: float) -> float:
    """log FLOPs - SHORTEST_PATH_WEIGHT * log(longest shortest gradient path); higher is better among detectors.

    flops: of the fused inference form (2 x MACs). Their unit does not matter, because only the order of scores does.
    longest_shortest: the figure of `GradientPaths.figures`, in layers; it is 0 when no layer is live. The score is then minus
    infinity.

    The weight was chosen on the first 100 detectors of GP-Bench (digits), and so was the fused form: Spearman with AP is .62
    there, .59 with the FLOPs of the train form, and .39 for the FLOPs alone. The trainings behind it have 480 steps. A short
    shortest path is not good everywhere: on NAS-Bench-201 accuracy rises with `longest_shortest` (docs/nasbench201.md).
    """
    if longest_shortest <= 0 or flops <= 0:
        return -math.inf
    return math.log(flops) - SHORTEST_PATH_WEIGHT * math.log(longest_shortest)


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
