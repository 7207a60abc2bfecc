"""Forms of the score on half of NAS-Bench-201: how well each ranks CIFAR-10 validation accuracy, and also at equal size.

    python benchmarks/score_forms.py nb201.csv

The score is log(capacity) + weight * log(distinct combinations), where capacity is the sum over live layers of parameters **
exponent * sharpness, and sharpness is the mean of discount ** poolings over a layer's paths. Layers that read the same tensor
and receive the same gradients count once. For each exponent, discount and weight it prints Spearman, and the mean Spearman
within groups of equal parameters. For the forms "every layer counts" such layers count each. The half is drawn with seed 0,
so the other half can judge what is chosen here. The script replaces `flows.POOLING_DISCOUNT` and takes about a minute.
"""

import argparse
import functools
import math
import multiprocessing
import os
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpnas.bench.accuracy_benchmark import read_accuracies
from gpnas.bench.correlation import correlate
from gpnas.graph.cost import cost
from gpnas.graph.graph import Graph
from gpnas.paths import flows
from gpnas.paths.gradient_paths import LayerPaths, distinct_combinations, gradient_paths
from search_spaces.nasbench201 import build_cell_network, cell_code

COLUMN, SEED = "c10_val", 0
EXPONENTS = {"parameters": 1.0, "square roots": 1 / 2, "cube roots": 1 / 3, "layers": 0.0}
DISCOUNTS = (1.0, 0.9, 0.8, 0.75, 0.5)
WEIGHTS = (0.0, 0.02, 0.05)


class Form(NamedTuple):
    exponent: str
    weight: float
    once: bool
    """Whether layers that cannot be told apart count once."""


FORMS = [Form(exponent, weight, True) for exponent in EXPONENTS for weight in WEIGHTS]
FORMS += [Form(exponent, 0.0, False) for exponent in EXPONENTS]


def layer_key(graph: Graph, layer: LayerPaths) -> object:
    """Equal for layers that read the same tensor and receive the same gradients."""
    read = graph.ops[layer.op].inputs[0]
    while graph.ops[read].kind == "act":
        read = graph.ops[read].inputs[0]
    return read, layer.gradients


def scores(code: str, discount: float) -> list[float]:
    """The score of a cell by each of FORMS, and last its parameters."""
    flows.POOLING_DISCOUNT = discount
    graph = build_cell_network(code)
    layers = gradient_paths(graph).layers
    largest: dict[object, LayerPaths] = {}
    for layer in layers:
        key = layer_key(graph, layer)
        largest[key] = max(largest.get(key, layer), layer, key=lambda each: (each.parameters, each.sharpness))
    values = []
    for exponent, weight, once in FORMS:
        counted = largest.values() if once else layers
        capacity = sum(layer.parameters ** EXPONENTS[exponent] * layer.sharpness for layer in counted)
        bonus = weight * math.log(distinct_combinations(layers)) if weight and layers else 0.0
        values.append(math.log(capacity) + bonus if layers else -math.inf)
    return [*values, cost(graph, 32, 32, fused=False).params]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="CSV file of cells")
    cells, accuracies = read_accuracies(parser.parse_args().path)
    half = sorted(random.Random(SEED).sample(range(len(cells)), len(cells) // 2))
    codes, accuracy = [cell_code(cells[i]) for i in half], accuracies[COLUMN][half]
    print(f"{len(half)} cells, {COLUMN}: Spearman / at equal size")
    print(f"{'':54}" + "".join(f"{f'discount {discount}':>16}" for discount in DISCOUNTS))
    columns = {}
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for discount in DISCOUNTS:
            columns[discount] = np.array(pool.map(functools.partial(scores, discount=discount), codes, chunksize=256))
    for k, form in enumerate(FORMS):
        name = f"{form.exponent}, " + (f"+ {form.weight} log distinct combinations" if form.once else "every layer counts")
        line = f"{name:54}"
        for discount in DISCOUNTS:
            result = correlate(columns[discount][:, k], accuracy, columns[discount][:, -1])
            line += f"{f'{result.spearman:.3f} / {result.equal:.3f}':>16}"
        print(line)


if __name__ == "__main__":
    main()
