"""Features of a candidate before training: the score, every gradient-path figure, and sizes."""

from __future__ import annotations

from gpnas.graph.cost import cost
from gpnas.graph.graph import Branch, Graph
from gpnas.paths.gradient_paths import FIGURES, gradient_paths
from gpnas.paths.score import capacity, detector_score, score_of

CONTROLS = ("parameters", "flops", "layers")
FEATURES = ("score", "capacity", "detector_score", *FIGURES, *CONTROLS)


def features(graph: Graph, height: int, width: int) -> dict[str, float]:
    """FEATURES of a training graph. flops are 2 x MACs on an image of `height` x `width` pixels.

    Score and capacity are over the layers of the inference form, and so are the FLOPs in the detector score. All other features
    are over the train form.
    """
    train, fused = cost(graph, height, width, fused=False), cost(graph.inference(), height, width)
    paths = gradient_paths(graph)
    figures = paths.figures()
    in_inference = graph.reaching(Branch.MAIN)
    layers = [layer for layer in paths.layers if in_inference[layer.op]]
    scores = {
        "score": score_of(graph, layers),
        "capacity": capacity(graph, layers),
        "detector_score": detector_score(fused.flops, figures["longest_shortest"]),
    }
    return {**scores, **figures, "parameters": train.params, "flops": train.flops, "layers": len(graph.layers)}
