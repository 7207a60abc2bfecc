"""The analysis of a network before training: cost and gradient-path figures of the whole, of branches, stages and layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpnas.graph.cost import cost
from gpnas.graph.graph import Branch, Graph
from gpnas.paths.gradient_paths import FIGURES, GradientPaths, LayerPaths, gradient_paths

STAGE_SHARE = 4
"""A scope with more than 1 / STAGE_SHARE of all layers is shown by its parts."""


def analyse(graph: Graph, name: str, height: int, width: int) -> dict[str, Any]:
    """What `gpnas analyze` shows, as JSON values. MACs and FLOPs (2 x MACs) are for one image of `height` x `width` pixels.

    At the top level are the costs of the inference form, in `train` those of the train form. `branches` holds the figures of
    the main losses alone and of the auxiliary losses alone, when there are auxiliary losses. `stages` holds the figures of the
    layers of each stage under all losses. Raises GraphError when the image is too small.
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
    """For each layer, in order, its gradients and those of each of its channel groups. Layers that are not live have none.

    `timestamps` are path lengths. A group's `sources` are (consumer, input channel offset, path lengths).
    """
    live = {layer.op: layer for layer in gradient_paths(graph).layers}
    main = {layer.op for layer in gradient_paths(graph, Branch.MAIN).layers}
    return [_layer_row(graph, i, live.get(i), i in main) for i in graph.layers]


def stages(graph: Graph, paths: GradientPaths) -> dict[str, tuple[LayerPaths, ...]]:
    """Live layers by stage: the outermost scope of their names, or its parts when it holds over a quarter of all layers."""
    scopes = {layer.op: graph.ops[layer.op].name.split(".")[:-1] or [graph.ops[layer.op].name] for layer in paths.layers}
    by_stage: dict[str, list[LayerPaths]] = {}
    for layer in paths.layers:
        by_stage.setdefault(_stage(scopes[layer.op], list(scopes.values())), []).append(layer)
    return {stage: tuple(layers) for stage, layers in by_stage.items()}


def _stage(scopes: list[str], all_scopes: Sequence[list[str]]) -> str:
    """The stage of a layer with these scopes, among the layers with `all_scopes`."""
    depth = 1
    while depth < len(scopes):
        inside = [other for other in all_scopes if other[:depth] == scopes[:depth]]
        parts = {other[depth] for other in inside if len(other) > depth}
        if STAGE_SHARE * len(inside) <= len(all_scopes) or len(parts) < 2:
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
    """The path lengths in a bit set, in rising order."""
    return [t for t in range(timestamps.bit_length()) if timestamps >> t & 1]


def consumer_name(graph: Graph, consumer: int) -> str:
    """The name of a layer; from len(graph.ops) on, that of the loss of an output."""
    first_loss = len(graph.ops)
    return graph.ops[consumer].name if consumer < first_loss else f"loss {graph.outputs[consumer - first_loss].name}"
