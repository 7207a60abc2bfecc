"""The networks of the gradient-path paper's Table 1 and Figures 7 and 8, as blueprints of any depth.

Every unit is one 3x3 layer; a classifier reads what the last one made. Sparse aggregation reads the outputs of units l-1, l-2,
l-4, l-8, ... (Sparsely Aggregated Convolutional Networks, arXiv:1801.05895, section 3). The catalogue holds each at depth 8.

    python -m search_spaces.growth              # Table 1 from these graphs
    python -m search_spaces.growth docs         # and the pictures of Figures 7 and 8 into docs/
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpnas.graph.graph import Graph
from gpnas.paths.gradient_paths import gradient_paths
from gpnas.report.timeline import sources_svg, timeline_svg
from search_spaces.blueprint import Blueprint, build_blueprint

WIDTH = 8
DEPTHS = (8, 16, 32, 64, 128, 256)


def network(name: str, depth: int) -> Graph:
    return build_blueprint(blueprint(name, depth))


def blueprint(name: str, depth: int) -> Blueprint:
    """A stem, `depth` units, and a classifier; `name` is one of CONNECTIONS."""
    layer = {"block": "conv", "width": WIDTH, "kernel": 3}
    blocks: list[dict[str, Any]] = [{"name": "stem", **layer}]
    features = ["stem"]
    for k in range(1, depth + 1):
        join = _joined(name, features)
        blocks += [*join, {"name": f"unit{k}", **layer}]
        features.append(f"unit{k}")
        if name in RESIDUALS:  # y(l) = x(l) + f(x(l)): unrolled, every unit reads the sum of all before it
            blocks.append({"name": f"sum{k}", "block": "add", "from": [f"unit{k}", features[-2]], **RESIDUALS[name]})
            features[-1] = f"sum{k}"
    blocks += [*_joined(name, features), {"name": "head", "block": "classifier", "classes": 10}]
    return Blueprint.model_validate({"schema": 1, "name": name, "activation": "relu", "blocks": blocks})


def _joined(name: str, features: Sequence[str]) -> list[dict[str, Any]]:
    """The block that joins what the next unit reads, where it reads several."""
    if name not in JOINS:
        return []
    block, distances = JOINS[name]
    read = [features[-d] for d in distances(len(features))]
    return [{"block": block, "from": read}]


def _all(n: int) -> list[int]:
    return list(range(n, 0, -1))


def _sparse(n: int) -> list[int]:
    """1, 2, 4, 8, ... before the next."""
    return [1 << k for k in range(n.bit_length()) if 1 << k <= n]


RESIDUALS: dict[str, dict[str, float]] = {"resnet": {}, "prn": {"mask_ratio": 0.5}}
JOINS: dict[str, tuple[str, Callable[[int], list[int]]]] = {
    "densenet": ("concat", _all),
    "sparse-resnet": ("add", _sparse),
    "sparse-densenet": ("concat", _sparse),
}

SHOWN = {"ResNet": "resnet", "PRN": "prn", "DenseNet": "densenet", "SparseNet": "sparse-densenet"}
"""The networks of Figures 7 and 8."""

TABLE_1 = ("plain", "resnet", "densenet", "sparse-resnet", "sparse-densenet")

LAWS: dict[str, Callable[[float], float]] = {
    "1": lambda n: 1.0,
    "log N": math.log2,
    "N": lambda n: n,
    "N log N": lambda n: n * math.log2(n),
    "N^2": lambda n: n * n,
}


def measured(name: str, depth: int) -> dict[str, float]:
    """What Table 1 counts: parameters of the units, longest shortest gradient path, aggregated features of the last unit."""
    graph = network(name, depth)
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


def laws(name: str) -> dict[str, str]:
    """The law of each figure of Table 1, for one of its networks."""
    rows = [measured(name, depth) for depth in DEPTHS]
    return {figure: law([row[figure] for row in rows]) for figure in rows[0]}


def _misfit(values: Sequence[float], shape: Sequence[float]) -> float:
    """Sum of squared residuals of values = a + b * shape."""
    n = len(values)
    mean_v, mean_s = sum(values) / n, sum(shape) / n
    slope = sum((s - mean_s) * (v - mean_v) for s, v in zip(shape, values, strict=True)) / sum((s - mean_s) ** 2 for s in shape)
    return sum((v - mean_v - slope * (s - mean_s)) ** 2 for s, v in zip(shape, values, strict=True))


def main() -> None:
    print(f"{'network':16}{'figure':22}" + "".join(f"{depth:>9}" for depth in DEPTHS) + "   law")
    for name in TABLE_1:
        rows = [measured(name, depth) for depth in DEPTHS]
        for figure in rows[0]:
            values = [row[figure] for row in rows]
            print(f"{name:16}{figure:22}" + "".join(f"{value:9.0f}" for value in values) + f"   {law(values)}")


def draw(folder: Path, depth: int = 4) -> None:
    """Figures 7 (timelines) and 8 (sources at timestamp 2: those that a prediction layer passes on) as SVG files."""
    for title, name in SHOWN.items():
        graph = network(name, depth)
        (folder / f"timeline-{title.lower()}.svg").write_text(timeline_svg(graph, f"{title}: gradient timeline"))
        (folder / f"sources-{title.lower()}.svg").write_text(sources_svg(graph, 2, f"{title}: gradient sources"))


if __name__ == "__main__":
    main()
    if len(sys.argv) > 1:
        draw(Path(sys.argv[1]))
