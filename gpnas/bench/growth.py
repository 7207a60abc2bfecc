"""How figures of a network grow with its depth: Table 1 of the gradient-path paper (arXiv:2211.04800), from graphs.

    laws(lambda depth: network("resnet", depth))    # {"parameters": "N", "shortest_path": "1", "aggregated_features": "N"}

A network is handed in as a function from depth to graph. Its units are the layers whose names begin with "unit".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from gpnas.graph.graph import Graph
from gpnas.paths.gradient_paths import gradient_paths

Network = Callable[[int], Graph]

DEPTHS = (8, 16, 32, 64, 128, 256)
"""Units of the networks to which a law is fitted."""

LAWS: dict[str, Callable[[float], float]] = {
    "1": lambda n: 1.0,
    "log N": math.log2,
    "N": lambda n: n,
    "N log N": lambda n: n * math.log2(n),
    "N^2": lambda n: n * n,
}


def figures(graph: Graph) -> dict[str, int]:
    """What Table 1 counts.

    parameters: those of the units. shortest_path: the longest of the shortest gradient paths of the units. aggregated_features:
    those that the last unit reads.
    """
    units = [layer for layer in gradient_paths(graph).layers if graph.ops[layer.op].name.startswith("unit")]
    return {
        "parameters": sum(layer.parameters for layer in units),
        "shortest_path": max(layer.shortest for layer in units),
        "aggregated_features": units[-1].aggregated_features,
    }


def law(values: Sequence[float]) -> str:
    """The law a + b * f(N) that fits `values` at DEPTHS best by least squares; "1" when they hardly vary."""
    if max(values) <= 2 * min(values) and max(values) - min(values) <= 1:
        return "1"
    return min((name for name in LAWS if name != "1"), key=lambda name: _squared_error(values, [LAWS[name](n) for n in DEPTHS]))


def laws(network: Network) -> dict[str, str]:
    """The law of each figure of Table 1."""
    return {figure: law(values) for figure, values in _by_figure(network).items()}


def growth_lines(networks: Mapping[str, Network]) -> Iterator[str]:
    """Table 1 as text: a heading, then a line for each network and figure with its values at DEPTHS and its law."""
    yield f"{'network':16}{'figure':22}" + "".join(f"{depth:>9}" for depth in DEPTHS) + "   law"
    for name, network in networks.items():
        for figure, values in _by_figure(network).items():
            yield f"{name:16}{figure:22}" + "".join(f"{value:9.0f}" for value in values) + f"   {law(values)}"


def _by_figure(network: Network) -> dict[str, list[int]]:
    """The values of each figure at DEPTHS."""
    rows = [figures(network(depth)) for depth in DEPTHS]
    return {figure: [row[figure] for row in rows] for figure in rows[0]}


def _squared_error(values: Sequence[float], shape: Sequence[float]) -> float:
    """Sum of squared residuals of the least-squares fit of values = a + b * shape."""
    n = len(values)
    mean_value, mean_shape = sum(values) / n, sum(shape) / n
    slope = sum((s - mean_shape) * (v - mean_value) for s, v in zip(shape, values, strict=True)) / sum(
        (s - mean_shape) ** 2 for s in shape
    )
    return sum((v - mean_value - slope * (s - mean_shape)) ** 2 for s, v in zip(shape, values, strict=True))
