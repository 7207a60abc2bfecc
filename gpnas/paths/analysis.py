"""All that a graph says of itself before training: cost and gradient-path figures, whole, a loss, a stage and a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpnas.graph.cost import cost
from gpnas.graph.graph import Branch, Graph
from gpnas.paths.gradient_paths import FIGURES, GradientPaths, LayerPaths, gradient_paths

STAGE_SHARE = 4
"""A scope that holds more than one in so many layers is shown by its parts."""


def analyse(graph: Graph, name: str, height: int, width: int) -> dict[str, Any]:
    """Cost of the inference form and of the train form (MACs, FLOPs = 2 x MACs, for one image), and every figure.

    `branches` holds the figures of the main and of the auxiliary losses alone, when there are both; `stages` those of the
    layers of each stage, under all losses. Raises GraphError when the image is too small.
    """
    inference = graph.inference()
    deployed, train = cost(inference, height, width), cost(graph, height, width, fused=False)
    paths = gradient_paths(graph)
    figures = paths.figures()
    result: dict[str, Any] = {
        "name": name,
        "input": [graph.ops[0].channels, height, width],
        "params": deployed.params,
        "macs": deployed.macs,
        "flops": deployed.flops,
        "layers": len(inference.layers),
        "train": {"params": train.params, "macs": train.macs, "flops": train.flops},
        "live_params": figures["live_params"],
        "gradient_paths": {key: figures[key] for key in FIGURES if key != "live_params"},
    }
    if any(out.branch == Branch.AUXILIARY for out in graph.outputs):
        result["branches"] = {branch.value: gradient_paths(graph, branch).figures() for branch in Branch}
    result["stages"] = {stage: GradientPaths(layers).figures() for stage, layers in stages(graph, paths).items()}
    return result


def layer_rows(graph: Graph) -> list[dict[str, Any]]:
    """One row a layer, in order, dead layers too: its gradients, and those of each of its channel groups.

    `timestamps` are path lengths; a group's `sources` are (consumer, input channel offset, path lengths).
    """
    arrived = {layer.op: layer for layer in gradient_paths(graph).layers}
    main = {layer.op for layer in gradient_paths(graph, Branch.MAIN).layers}
    return [_layer_row(graph, i, arrived.get(i), i in main) for i in graph.layers]


def stages(graph: Graph, paths: GradientPaths) -> dict[str, tuple[LayerPaths, ...]]:
    """Live layers by stage: the outermost scope of their names, or the next ones where a scope holds over a quarter of all."""
    names = {layer.op: graph.ops[layer.op].name.split(".")[:-1] or [graph.ops[layer.op].name] for layer in paths.layers}
    found: dict[str, list[LayerPaths]] = {}
    for layer in paths.layers:
        found.setdefault(_stage(names[layer.op], list(names.values())), []).append(layer)
    return {stage: tuple(layers) for stage, layers in found.items()}


def _stage(scopes: list[str], everyone: Sequence[list[str]]) -> str:
    depth = 1
    while depth < len(scopes):
        inside = [other for other in everyone if other[:depth] == scopes[:depth]]
        parts = {other[depth] for other in inside if len(other) > depth}
        if STAGE_SHARE * len(inside) <= len(everyone) or len(parts) < 2:
            break
        depth += 1
    return ".".join(scopes[:depth])


def _layer_row(graph: Graph, i: int, paths: LayerPaths | None, in_main: bool) -> dict[str, Any]:
    op = graph.ops[i]
    row: dict[str, Any] = {
        "layer": op.name,
        "kind": op.kind,
        "channels": [graph.ops[op.inputs[0]].channels, op.channels],
        "kernel": op.kernel,
        "stride": op.stride,
        "groups": op.groups,
        "params": graph.parameters[i],
        "loss": "none" if paths is None else "main" if in_main else "auxiliary",
    }
    if paths is None:
        return row | {"timestamps": [], "channel_groups": []}
    return row | {
        "shortest": paths.shortest,
        "longest": paths.longest,
        "timestamps": lengths(paths.timestamps),
        "sources": paths.sources,
        "combinations": paths.combinations,
        "aggregated_features": paths.aggregated_features,
        "poolings_per_path": paths.poolings_per_path,
        "channel_groups": [
            {
                "channels": [group.start, group.stop],
                "sources": [[consumer_name(graph, s.consumer), s.offset, lengths(s.timestamps)] for s in group.sources],
            }
            for group in paths.groups
        ],
    }


def lengths(timestamps: int) -> list[int]:
    """The path lengths of a bit set, rising."""
    return [t for t in range(timestamps.bit_length()) if timestamps >> t & 1]


def consumer_name(graph: Graph, consumer: int) -> str:
    """The name of a layer or, from len(graph.ops) on, of an output that carries a loss."""
    n = len(graph.ops)
    return graph.ops[consumer].name if consumer < n else f"loss {graph.outputs[consumer - n].name}"
