"""A tabular benchmark with two objectives: trained detectors, with their MACs and the AP after each epoch.

benchmark = DetectorBenchmark(TabularSpace, candidates, choices, features, macs, curves, imgsz=128)
benchmark.dominated_area([3, 8]), benchmark.best_ap([3, 8])

A detector may have been trained from several seeds. A search sees the training of one seed at a time; how good its rows are is
judged by the mean of all seeds, because one training says little: with another seed AP differs by up to .05.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gpnas.bench.accuracy_benchmark import AccuracyBenchmark, accuracy_benchmark
from gpnas.graph.cost import Cost, deployed_cost
from gpnas.search.acquisition import dominated_area
from gpnas.search.pool import SIZE_RANGE
from gpnas.search.surrogate import Floats
from gpnas.search.trial import Candidate, Space

Choices = Mapping[str, object]
"""What a detector is made of, by label; labels that have no effect on it are absent."""


@dataclass(frozen=True)
class DetectorBenchmark:
    """One row for each detector. make_space: from candidates and their choices to the space that proposes these alone.

    Where latency is the cost, `macs` and the MACs of `known_costs` are latencies in nanoseconds.
    """

    make_space: Callable[[Sequence[Candidate], Sequence[Choices]], Space]
    candidates: Sequence[Candidate]
    choices: Sequence[Choices]
    features: Sequence[Mapping[str, float]]  # by name
    macs: Sequence[float]  # of one image of imgsz x imgsz pixels
    curves: Floats  # (seeds, rows, epochs), AP after each epoch; NaN where a row was not trained with a seed, never for seed 0
    imgsz: int  # pixels
    known_costs: dict[str, Cost] = field(default_factory=dict, compare=False, repr=False)  # by hash; subsets share it

    @functools.cached_property
    def space(self) -> Space:
        return self.make_space(self.candidates, self.choices)

    @property
    def epochs(self) -> int:
        """Epochs of a full training."""
        return int(self.curves.shape[2])

    @functools.cached_property
    def mean_ap(self) -> Floats:
        """(rows,): AP after full training, the mean of the seeds that each row has."""
        return np.asarray(np.nanmean(self.curves[:, :, -1], axis=0), dtype=np.float64)

    def subset(self, rows: Sequence[int]) -> DetectorBenchmark:
        """A benchmark of these rows alone."""
        candidates, choices = [self.candidates[i] for i in rows], [self.choices[i] for i in rows]
        features, macs = [self.features[i] for i in rows], [self.macs[i] for i in rows]
        curves = self.curves[:, list(rows)]
        return DetectorBenchmark(self.make_space, candidates, choices, features, macs, curves, self.imgsz, self.known_costs)

    def cost(self, candidate: Candidate) -> Cost:
        """Of the fused inference form, on one image. It is computed once for all searches."""
        if candidate.hash not in self.known_costs:
            self.known_costs[candidate.hash] = deployed_cost(candidate.graph, self.imgsz)
        return self.known_costs[candidate.hash]

    def encoding(self) -> list[dict[str, float]]:
        """One-hot encoding of the choices, row by row: {"label=value": 0.0 or 1.0}."""
        values = sorted({(label, str(value)) for choices in self.choices for label, value in choices.items()})
        return [
            {f"{label}={value}": float(str(choices.get(label)) == value) for label, value in values} for choices in self.choices
        ]

    def operation_counts(self) -> list[dict[str, float]]:
        """How many operations of each kind, and layers of each kernel and stride, the graph of each row has."""
        counts = [
            Counter(f"{op.kind} {op.kernel} {op.stride}" if op.weighted else op.kind for op in candidate.graph.ops)
            for candidate in self.candidates
        ]
        kinds = sorted({kind for row in counts for kind in row})
        return [{kind: float(row[kind]) for kind in kinds} for row in counts]

    def final_ap(self) -> AccuracyBenchmark:
        """The AP after full training with seed 0 as the only objective. Where a label has no effect, "None" is its value."""
        labels = sorted({label for choices in self.choices for label in choices})
        choices = [tuple(str(choices.get(label)) for label in labels) for choices in self.choices]
        return accuracy_benchmark(choices, self.features, self.curves[0, :, -1])

    def dominated_area(self, rows: Sequence[int]) -> float:
        """The area between AP and log2 MACs that `rows` dominate when they are fully trained, by the mean AP of their seeds.

        It ends at an AP of 0 and at twice the largest MACs of the benchmark. MACs below 1 / SIZE_RANGE of the largest count as
        that much.
        """
        costs = np.maximum(np.log2(self.macs), np.log2(max(self.macs) / SIZE_RANGE))
        points = [(float(self.mean_ap[i]), float(costs[i])) for i in rows]
        return dominated_area(points, 0.0, float(costs.max()) + 1)

    def best_ap(self, rows: Sequence[int]) -> float:
        """The highest AP of `rows` when they are fully trained, each the mean of its seeds, whatever their MACs."""
        return float(self.mean_ap[list(rows)].max())


def curves_by_seed(
    seeds: Sequence[Mapping[str, Sequence[float]]],  # AP after each epoch, by hash, for each seed
    hashes: Sequence[str],  # of the rows; each is among the trainings of seed 0
) -> Floats:
    """(seeds, rows, epochs): AP after each epoch; NaN where a row was not trained with a seed."""
    missing = np.full(len(seeds[0][hashes[0]]), np.nan)
    return np.array([[curves.get(name, missing) for name in hashes] for curves in seeds], dtype=np.float64)
