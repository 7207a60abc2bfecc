"""Gradient-path features -> a score before training.

The score is a prior over candidates of like size, not a predictor of AP. Its form was fixed beforehand from what is known of
the figures' worth (docs and design: on NAS-Bench-201, live parameters and combinations rank accuracy at .88 Spearman, with a
penalty on poolings per path at .91; on the paper's own ablation, distinct combinations order box AP at .94 Kendall):

    score = log(live parameters) + log(distinct combinations) - POOLING_PENALTY * poolings per path

Combinations count what the layers of the *inference* network receive from all losses, so that PGI's auxiliary paths count
for the main branch that they teach, and the branch itself, which is thrown away, does not.
"""

from __future__ import annotations

import math

from gpnas.gradient_paths import distinct_combinations, gradient_paths
from gpnas.graph import Branch, Graph

POOLING_PENALTY = 0.25


def gradient_path_score(graph: Graph) -> float:
    """The score of a training graph (with its auxiliary outputs); higher is better among graphs of like cost."""
    in_inference = graph.reaching(Branch.MAIN)
    layers = [layer for layer in gradient_paths(graph).layers if in_inference[layer.op]]
    if not layers:
        return -math.inf
    live_params = sum(layer.parameters for layer in layers)
    poolings = sum(layer.poolings_per_path for layer in layers) / len(layers)
    return math.log(live_params) + math.log(distinct_combinations(layers)) - POOLING_PENALTY * poolings
