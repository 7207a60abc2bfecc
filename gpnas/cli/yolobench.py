"""The table of YOLOBench for `gpnas bench`: its structures with their features, and its detectors as a benchmark of searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpnas.bench.like_cost import Floats, WithinGroups, correlate_within, like_groups, one_group
from gpnas.bench.yolobench_table import DEVICES, TrainedDetector, read_yolobench
from gpnas.errors import GenotypeError, InputError

if TYPE_CHECKING:
    from gpnas.bench.accuracy_benchmark import AccuracyBenchmark
    from gpnas.bench.detector_benchmark import DetectorBenchmark

IMGSZ = 320
"""Pixels. The image size whose detectors `bench correlation` and `bench surrogate` read unless another one is given: the
middle one of the table."""

MACS = "macs"
"""Of the fused form on one image: a cost beside the latencies of DEVICES."""

FEWEST_STRUCTURES = 16
"""Two groups of like cost."""

OVERALL = "all"
"""Name of the comparison of all structures with each other; the others are named after the cost that is alike."""


@dataclass(frozen=True)
class Structures:
    """The structures of the table at one image size: one row each. costs: MACs of one image, or latencies in seconds."""

    names: Sequence[str]
    ap: Floats  # (structures,)
    predictors: Mapping[str, Floats]  # (structures,) each
    costs: Mapping[str, Floats]  # (structures,) each, by MACS and DEVICES
    in_first_half: np.ndarray  # (structures,), bool: forms of a score are chosen on these


@dataclass(frozen=True)
class Replicated:
    """A predictor's correlations: over all structures, over the half on which forms are chosen, and over the other half."""

    whole: WithinGroups
    first: WithinGroups
    other: WithinGroups


def read_structures(folder: Path, imgsz: int = IMGSZ, zero_cost: Path | None = None) -> Structures:
    """The structures in `folder` that were trained at `imgsz`. zero_cost: JSON lines of benchmarks/yolobench_scores.py, whose
    scores become predictors. Raises InputError."""
    from search_spaces.yolobench import first_half

    table = read_yolobench(folder)
    rows = [row for row in table if row.imgsz == imgsz]
    if len(rows) < FEWEST_STRUCTURES:
        sizes = ", ".join(map(str, sorted({row.imgsz for row in table})))
        raise InputError(
            f"--imgsz {imgsz}: {folder} has {len(rows)} structures at this size, {FEWEST_STRUCTURES} are needed; it has {sizes}"
        )
    features = _features_of(rows, folder)
    names = [row.structure for row in rows]
    predictors = {name: np.array([row[name] for row in features]) for name in features[0]}
    predictors |= _zero_cost_scores(zero_cost, names) if zero_cost else {}
    costs = {MACS: predictors[MACS]} | {device: np.array([row.latencies[device] for row in rows]) for device in DEVICES}
    halves = np.array([first_half(name) for name in names])
    return Structures(names, np.array([row.ap for row in rows]), predictors, costs, halves)


def replicated_correlations(structures: Structures) -> dict[str, dict[str, Replicated]]:
    """{comparison: {predictor: Replicated}}: over all structures (OVERALL), and among those of like cost, by each cost.

    The groups of like cost are those of all structures, so that both halves are compared at the same costs.
    """
    count = len(structures.names)
    groups = {OVERALL: one_group(count)} | {name: like_groups(cost) for name, cost in structures.costs.items()}
    parts = (np.ones(count, dtype=bool), structures.in_first_half, ~structures.in_first_half)
    comparisons = {}
    for comparison, numbers in groups.items():
        judged = [
            correlate_within({k: v[part] for k, v in structures.predictors.items()}, structures.ap[part], numbers[part])
            for part in parts
        ]
        comparisons[comparison] = {k: Replicated(*(results[k] for results in judged)) for k in structures.predictors}
    return comparisons


def surrogate_benchmark(folder: Path, imgsz: int = IMGSZ) -> AccuracyBenchmark:
    """The structures at one image size, with their AP as the objective."""
    return detector_benchmark(folder, MACS, imgsz).final_ap()


def detector_benchmark(folder: Path, cost: str = MACS, imgsz: int | None = None) -> DetectorBenchmark:
    """The detectors in `folder` (of one image size if given) with one training each, which counts as one epoch.

    cost: MACS, or one of DEVICES, whose latency in nanoseconds then stands for the MACs. The image size is a choice of a
    detector as its series, depth and width are. Raises InputError.
    """
    from gpnas.bench.detector_benchmark import DetectorBenchmark
    from gpnas.graph.cost import Cost
    from gpnas.search.trial import Candidate
    from search_spaces.tabular import TabularSpace
    from search_spaces.yolobench import STRUCTURES, build_structure

    if cost not in (MACS, *DEVICES):
        raise InputError(f"--data {cost}: a folder of YOLOBench has the costs {', '.join((MACS, *DEVICES))}")
    rows = [row for row in read_yolobench(folder) if imgsz in (None, row.imgsz)]
    features = _features_of(rows, folder)
    costs = [int(feature[MACS]) for feature in features]
    if cost != MACS:
        costs = [round(1e9 * row.latencies[cost]) for row in rows]
    candidates = [
        Candidate(f"detector: {name}", f"yolobench-{name}", build_structure(row.structure))
        for row in rows
        for name in (f"{row.structure}_{row.imgsz}",)
    ]
    choices = [{**STRUCTURES[row.structure].choices, **({} if imgsz else {"imgsz": row.imgsz})} for row in rows]
    known = {
        candidate.hash: Cost(int(feature["parameters"]), number, 0)
        for candidate, feature, number in zip(candidates, features, costs, strict=True)
    }
    curves = np.array([[[row.ap] for row in rows]])
    return DetectorBenchmark(TabularSpace, candidates, choices, features, costs, curves, imgsz or IMGSZ, known)


def _features_of(rows: Sequence[TrainedDetector], folder: Path) -> list[dict[str, float]]:
    """The features of each detector, and its fused MACs. Gradient paths do not depend on the image size and are found once for
    a structure."""
    from gpnas.graph.cost import cost, deployed_cost
    from gpnas.paths.features import features
    from gpnas.paths.score import detector_score
    from search_spaces.yolobench import build_structure

    known: dict[str, dict[str, float]] = {}
    described = []
    for row in rows:
        try:
            graph = build_structure(row.structure)
        except GenotypeError as error:
            raise InputError(f"--table {folder}: {error}") from None
        if row.structure not in known:
            known[row.structure] = features(graph, row.imgsz, row.imgsz)
        paths, fused = known[row.structure], deployed_cost(graph, row.imgsz)
        sizes = {
            "detector_score": detector_score(fused.flops, paths["longest_shortest"]),
            "flops": cost(graph, row.imgsz, row.imgsz, fused=False).flops,
            MACS: fused.macs,
        }
        described.append({**paths, **sizes})
    return described


def _zero_cost_scores(path: Path, names: Sequence[str]) -> dict[str, Floats]:
    """{score: (structures,)}. Raises InputError when a structure has none."""
    from evaluators.zero_cost import COMPARATORS
    from gpnas.files import read_lines

    scores = {row["structure"]: row for row in read_lines(path, ("structure", *COMPARATORS))}
    missing = [name for name in names if name not in scores]
    if missing:
        raise InputError(f"--zero-cost {path}: has no scores of {missing[0]}; run benchmarks/yolobench_scores.py, which adds them")
    return {score: np.array([float(scores[name][score]) for name in names]) for score in COMPARATORS}
