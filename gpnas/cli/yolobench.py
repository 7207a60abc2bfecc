"""YOLOBench for `gpnas bench`: its structures with their features, and its detectors as a benchmark of searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpnas.bench.like_cost import Floats, Groups, Replicated, less_cost, like_groups, one_group, replicated
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
"""Name of the comparison of all structures with each other."""


def like(cost: str) -> str:
    """Name of the comparison of structures of like cost."""
    return f"like {cost}"


SERIES_COMPARISON = "series, "


def in_series(cost: str) -> str:
    """Name of the comparison of the structures of one series, less what the cost explains."""
    return f"{SERIES_COMPARISON}like {cost}"


@dataclass(frozen=True)
class Structures:
    """The structures of the table at one image size: one row each. costs: MACs of one image, or latencies in seconds."""

    names: Sequence[str]
    ap: Floats  # (structures,)
    predictors: Mapping[str, Floats]  # (structures,) each
    costs: Mapping[str, Floats]  # (structures,) each, by MACS and DEVICES
    series: Groups  # (structures,), the number of the series
    in_first_half: NDArray[np.bool_]  # (structures,): forms of a score are chosen on these


def read_structures(folder: Path, imgsz: int = IMGSZ, zero_cost: Path | None = None, *, merged: bool = False) -> Structures:
    """The structures in `folder` that were trained at `imgsz`. zero_cost: JSON lines of benchmarks/yolobench_scores.py, whose
    scores become predictors. merged: RepVGG units count as one layer (search_spaces.yolo_series). Raises InputError."""
    from search_spaces.yolobench import STRUCTURES, first_half

    table = read_yolobench(folder)
    rows = [row for row in table if row.imgsz == imgsz]
    if len(rows) < FEWEST_STRUCTURES:
        sizes = ", ".join(map(str, sorted({row.imgsz for row in table})))
        raise InputError(
            f"--imgsz {imgsz}: {folder} has {len(rows)} structures at this size, {FEWEST_STRUCTURES} are needed; it has {sizes}"
        )
    features = _features_of(rows, folder, merged)
    names = [row.structure for row in rows]
    predictors = {name: np.array([row[name] for row in features]) for name in features[0]}
    predictors |= _zero_cost_scores(zero_cost, names) if zero_cost else {}
    costs = {MACS: predictors[MACS]} | {device: np.array([row.latencies[device] for row in rows]) for device in DEVICES}
    series = np.unique([STRUCTURES[name].series for name in names], return_inverse=True)[1]
    halves = np.array([first_half(name) for name in names])
    return Structures(names, np.array([row.ap for row in rows]), predictors, costs, series, halves)


def replicated_correlations(structures: Structures) -> dict[str, dict[str, Replicated]]:
    """{comparison: {predictor: Replicated}}. The comparisons are OVERALL, and for each cost `like` and `in_series`.

    The groups of like cost are those of all structures, so that both halves are compared at the same costs. Holm's correction
    is for the predictors of one comparison.
    """
    predictors, ap = structures.predictors, structures.ap
    comparisons = {OVERALL: replicated(predictors, ap, one_group(len(ap)), structures.in_first_half)}
    for name, cost in structures.costs.items():
        comparisons[like(name)] = replicated(predictors, ap, like_groups(cost), structures.in_first_half)
    for name, cost in structures.costs.items():
        rest = {k: less_cost(_logs(values), cost, structures.series) for k, values in predictors.items()}
        residual_ap = less_cost(ap, cost, structures.series)
        comparisons[in_series(name)] = replicated(rest, residual_ap, structures.series, structures.in_first_half)
    return comparisons


def _logs(values: Floats) -> Floats:
    """The logarithms of values that are all positive: sizes and counts grow by factors."""
    return np.log(values) if (values > 0).all() else values


def surrogate_benchmark(folder: Path, imgsz: int = IMGSZ, *, merged: bool = False) -> AccuracyBenchmark:
    """The structures at one image size, with their AP as the objective."""
    return detector_benchmark(folder, MACS, imgsz, merged=merged).final_ap()


def detector_benchmark(folder: Path, cost: str = MACS, imgsz: int | None = None, *, merged: bool = False) -> DetectorBenchmark:
    """The detectors in `folder` (of one image size if given) with one training each, which counts as one epoch.

    cost: MACS, or one of DEVICES, whose latency in nanoseconds then stands for the MACs. The image size is a choice of a
    detector as its series, depth and width are. merged: as for `read_structures`. Raises InputError.
    """
    from gpnas.bench.detector_benchmark import DetectorBenchmark
    from gpnas.graph.cost import Cost
    from gpnas.search.trial import Candidate
    from search_spaces.tabular import TabularSpace
    from search_spaces.yolobench import STRUCTURES, build_structure

    if cost not in (MACS, *DEVICES):
        raise InputError(f"--cost {cost}: a folder of YOLOBench has the costs {', '.join((MACS, *DEVICES))}")
    rows = [row for row in read_yolobench(folder) if imgsz in (None, row.imgsz)]
    features = _features_of(rows, folder, merged)
    costs = [int(feature[MACS]) for feature in features]
    if cost != MACS:
        costs = [round(1e9 * row.latencies[cost]) for row in rows]
    candidates = [
        Candidate(f"detector: {name}", f"yolobench-{name}", build_structure(row.structure, merged=merged))
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


def _features_of(rows: Sequence[TrainedDetector], folder: Path, merged: bool) -> list[dict[str, float]]:
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
            graph = build_structure(row.structure, merged=merged)
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
        raise InputError(f"--zero-cost {path}: has no scores of {missing[0]}; benchmarks/yolobench_scores.py adds them")
    return {score: np.array([float(scores[name][score]) for name in names]) for score in COMPARATORS}
