"""The networks of the gradient-path paper's Table 1 and Figures 7 and 8, of any depth.

Every unit is one 3x3 layer, followed by a prediction layer. Sparse aggregation reads the outputs of units l-1, l-2, l-4,
l-8, ... (Sparsely Aggregated Convolutional Networks, arXiv:1801.05895, section 3).

    python -m search_spaces.growth              # Table 1 from these graphs
    python -m search_spaces.growth docs         # and the pictures of Figures 7 and 8 into docs/
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gpnas.gradient_paths import gradient_paths
from gpnas.graph import Graph, GraphBuilder
from gpnas.timeline import sources_svg, timeline_svg

WIDTH = 8
DEPTHS = (8, 16, 32, 64, 128, 256)


def plain(depth: int) -> Graph:
    def unit(b: GraphBuilder, features: list[int]) -> int:
        return b.conv(features[-1], WIDTH, 3)

    return _network(depth, unit, lambda b, features: features[-1])


def resnet(depth: int) -> Graph:
    """y(l) = x(l) + f(x(l)): by unrolling, every unit reads the sum of all before it."""

    def unit(b: GraphBuilder, features: list[int]) -> int:
        return b.add(b.conv(features[-1], WIDTH, 3), features[-1])

    return _network(depth, unit, lambda b, features: features[-1])


def prn(depth: int) -> Graph:
    """ResNet with half of the channels of every identity masked (section 2.2)."""

    def unit(b: GraphBuilder, features: list[int]) -> int:
        return b.masked_add(b.conv(features[-1], WIDTH, 3), features[-1], WIDTH // 2)

    return _network(depth, unit, lambda b, features: features[-1])


def densenet(depth: int) -> Graph:
    def unit(b: GraphBuilder, features: list[int]) -> int:
        return b.conv(b.concat(features), WIDTH, 3)

    return _network(depth, unit, lambda b, features: b.concat(features))


def sparse_resnet(depth: int) -> Graph:
    def unit(b: GraphBuilder, features: list[int]) -> int:
        return b.conv(_sum(b, _sparse(features)), WIDTH, 3)

    return _network(depth, unit, lambda b, features: _sum(b, _sparse(features)))


def sparse_densenet(depth: int) -> Graph:
    def unit(b: GraphBuilder, features: list[int]) -> int:
        return b.conv(b.concat(_sparse(features)), WIDTH, 3)

    return _network(depth, unit, lambda b, features: b.concat(_sparse(features)))


def _network(
    depth: int, unit: Callable[[GraphBuilder, list[int]], int], last: Callable[[GraphBuilder, list[int]], int]
) -> Graph:
    """A stem, `depth` units, and a prediction layer on what `last` makes of the features of all."""
    b = GraphBuilder(act="relu")
    features = [b.conv(b.image, WIDTH, 3, name="stem")]
    for k in range(depth):
        with b.scope(f"unit{k + 1}"):
            features.append(unit(b, features))
    b.output(b.conv(last(b, features), WIDTH, act="", norm=False, name="prediction"), "classes", stride=1)
    return b.build()


def _sparse(features: Sequence[int]) -> list[int]:
    """The features 1, 2, 4, 8, ... before the next."""
    return [features[-(1 << k)] for k in range(len(features).bit_length()) if 1 << k <= len(features)]


def _sum(b: GraphBuilder, xs: Sequence[int]) -> int:
    return functools.reduce(b.add, xs)


SHOWN: dict[str, Callable[[int], Graph]] = {"ResNet": resnet, "PRN": prn, "DenseNet": densenet, "SparseNet": sparse_densenet}
"""The networks of Figures 7 and 8."""

GROWTH: dict[str, Callable[[int], Graph]] = {
    "plain": plain,
    "resnet": resnet,
    "densenet": densenet,
    "sparse-resnet": sparse_resnet,
    "sparse-densenet": sparse_densenet,
}
"""The rows of Table 1."""

LAWS: dict[str, Callable[[float], float]] = {
    "1": lambda n: 1.0,
    "log N": math.log2,
    "N": lambda n: n,
    "N log N": lambda n: n * math.log2(n),
    "N^2": lambda n: n * n,
}


def measured(network: Callable[[int], Graph], depth: int) -> dict[str, float]:
    """What Table 1 counts: parameters of the units, longest shortest gradient path, aggregated features of the last unit."""
    graph = network(depth)
    layers = [layer for layer in gradient_paths(graph).layers if graph.ops[layer.op].name.startswith("unit")]
    return {
        "parameters": sum(layer.parameters for layer in layers),
        "shortest_path": max(layer.shortest for layer in layers),
        "aggregated_features": layers[-1].aggregated_features,
    }


def law(values: Sequence[float], depths: Sequence[int] = DEPTHS) -> str:
    """The law a + b * f(N) that fits best by least squares, relative to the values' spread; "1" when they hardly vary."""
    if max(values) <= 2 * min(values) and max(values) - min(values) <= 1:
        return "1"
    return min((name for name in LAWS if name != "1"), key=lambda name: _misfit(values, [LAWS[name](n) for n in depths]))


def _misfit(values: Sequence[float], shape: Sequence[float]) -> float:
    """Sum of squared residuals of values = a + b * shape."""
    n = len(values)
    mean_v, mean_s = sum(values) / n, sum(shape) / n
    slope = sum((s - mean_s) * (v - mean_v) for s, v in zip(shape, values, strict=True)) / sum((s - mean_s) ** 2 for s in shape)
    return sum((v - mean_v - slope * (s - mean_s)) ** 2 for s, v in zip(shape, values, strict=True))


def main() -> None:
    print(f"{'network':16}{'figure':22}" + "".join(f"{depth:>9}" for depth in DEPTHS) + "   law")
    for name, network in GROWTH.items():
        rows = [measured(network, depth) for depth in DEPTHS]
        for figure in rows[0]:
            values = [row[figure] for row in rows]
            print(f"{name:16}{figure:22}" + "".join(f"{value:9.0f}" for value in values) + f"   {law(values)}")


def draw(folder: Path, depth: int = 4) -> None:
    """Figures 7 (timelines) and 8 (sources at timestamp 2: those that a prediction layer passes on) as SVG files."""
    for name, network in SHOWN.items():
        graph = network(depth)
        (folder / f"timeline-{name.lower()}.svg").write_text(timeline_svg(graph, f"{name}: gradient timeline"))
        (folder / f"sources-{name.lower()}.svg").write_text(sources_svg(graph, 2, f"{name}: gradient sources"))


if __name__ == "__main__":
    main()
    if len(sys.argv) > 1:
        draw(Path(sys.argv[1]))
