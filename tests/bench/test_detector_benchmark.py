"""A benchmark of trained detectors: what its rows are worth, worked out by hand, and the one that is shipped."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from gpnas.bench import detector_benchmark
from gpnas.bench.accuracy_benchmark import SURROGATE_FEATURES
from gpnas.bench.detector_benchmark import DetectorBenchmark, curves_by_seed
from gpnas.cli.bench import read_detector_benchmark
from gpnas.errors import InputError
from gpnas.graph.cost import deployed_cost
from gpnas.paths.features import features
from gpnas.search.trial import Candidate
from search_spaces.gp_bench import read_detectors
from tests.grid import grid_candidate

SHIPPED = Path(__file__).parents[2] / "benchmarks" / "gp-bench"

CHOICES = [{"family": "csp", "depth": 2}, {"family": "elan", "depth": 2, "split": 0.5}, {"family": "csp", "depth": 3}]


class ListedSpace:
    """Proposes the first candidate, and keeps what it was made of."""

    def __init__(self, candidates: Sequence[Candidate], choices: Sequence[Mapping[str, object]]) -> None:
        self.candidates, self.choices = candidates, choices

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        return self.candidates[0]

    def read(self, text: str) -> Candidate:
        raise NotImplementedError

    def smallest(self) -> Candidate:
        raise NotImplementedError


NAN = float("nan")


@pytest.fixture
def benchmark() -> DetectorBenchmark:
    """The mean AP of the rows is 0.1, 0.3 and 0.2. With seed 0 rows 1 and 2 change places; row 0 has that seed alone."""
    candidates = [grid_candidate(4 * k, k) for k in (1, 2, 3)]
    known = [dict.fromkeys(SURROGATE_FEATURES, float(value)) for value in (5, 1, 3)]
    first = [[0.05, 0.02, 0.1], [0.4, 0.6, 0.25], [0.1, 0.5, 0.28]]
    second = [[NAN, NAN, NAN], [0.3, 0.5, 0.35], [0.2, 0.6, 0.12]]
    curves = np.array([first, second])
    return DetectorBenchmark(ListedSpace, candidates, CHOICES, known, [2**20, 2**22, 2**24], curves, 64)


@pytest.mark.parametrize(
    ("rows", "area"),
    [
        ([], 0.0),
        ([0], 0.1 * 4),  # 2**20 MACs count as 2**24 / 8, and the area ends at 2**25
        ([1], 0.3 * 3),
        ([2], 0.2 * 1),
        ([1, 2], 0.3 * 3),  # row 2 has lower AP at more MACs
        ([2, 0], 0.1 * 4 + (0.2 - 0.1) * 1),
        ([0, 1, 2], 0.1 * 4 + (0.3 - 0.1) * 3),
    ],
)
def test_dominated_area_by_hand(benchmark: DetectorBenchmark, rows: list[int], area: float) -> None:
    assert benchmark.dominated_area(rows) == pytest.approx(area)


def test_the_best_ap_is_that_of_full_training_as_the_mean_of_the_seeds_of_a_row(benchmark: DetectorBenchmark) -> None:
    assert benchmark.mean_ap == pytest.approx([0.1, 0.3, 0.2])
    assert [benchmark.best_ap(rows) for rows in ([0, 2], [2, 1], [0])] == pytest.approx([0.2, 0.3, 0.1])
    assert benchmark.epochs == 3


def test_curves_by_seed_have_no_number_where_a_row_was_not_trained() -> None:
    seeds = [{"a": (0.1, 0.2), "b": (0.3, 0.4), "c": (0.5, 0.6)}, {"c": (0.7, 0.8), "d": (0.0, 0.0)}]
    curves = curves_by_seed(seeds, ["c", "a"])
    assert curves.tolist()[0] == [[0.5, 0.6], [0.1, 0.2]] and curves[1, 0].tolist() == [0.7, 0.8]
    assert np.isnan(curves[1, 1]).tolist() == [True, True] and curves.shape == (2, 2, 2)


def test_a_subset_keeps_the_columns_of_its_rows(benchmark: DetectorBenchmark) -> None:
    subset = benchmark.subset([2, 0])
    assert subset.candidates == [benchmark.candidates[2], benchmark.candidates[0]]
    assert subset.choices == [CHOICES[2], CHOICES[0]] and subset.macs == [2**24, 2**20]
    assert [row["score"] for row in subset.features] == [3.0, 5.0]
    assert subset.curves[0].tolist() == [[0.1, 0.5, 0.28], [0.05, 0.02, 0.1]] and subset.imgsz == 64
    assert subset.curves[1, 0].tolist() == [0.2, 0.6, 0.12] and np.isnan(subset.curves[1, 1]).all()
    space = subset.space
    assert isinstance(space, ListedSpace) and space is subset.space
    assert (space.candidates, space.choices) == (subset.candidates, subset.choices)


def test_encoding_by_hand(benchmark: DetectorBenchmark) -> None:
    assert benchmark.encoding() == [
        {"depth=2": 1.0, "depth=3": 0.0, "family=csp": 1.0, "family=elan": 0.0, "split=0.5": 0.0},
        {"depth=2": 1.0, "depth=3": 0.0, "family=csp": 0.0, "family=elan": 1.0, "split=0.5": 1.0},
        {"depth=2": 0.0, "depth=3": 1.0, "family=csp": 1.0, "family=elan": 0.0, "split=0.5": 0.0},
    ]


def test_operation_counts_by_hand(benchmark: DetectorBenchmark) -> None:
    """Chains of one, two and three 3x3 layers, and a prediction layer."""
    assert benchmark.operation_counts() == [{"conv 1 1": 1.0, "conv 3 1": float(depth), "image": 1.0} for depth in (1, 2, 3)]


def test_the_final_ap_of_seed_0_is_the_only_objective(benchmark: DetectorBenchmark) -> None:
    final = benchmark.final_ap()
    assert final.choices == [("2", "csp", "None"), ("2", "elan", "0.5"), ("3", "csp", "None")]
    assert final.accuracy.tolist() == [0.1, 0.25, 0.28]
    assert final.score.argsort().tolist() == [1, 2, 0]


def test_the_shipped_benchmark_reads_and_rebuilds() -> None:
    rows = read_detectors(SHIPPED / "detectors.jsonl")
    assert len(rows) == 206 and sum(not row.choices for row in rows) == 6
    for row in rows[::40]:
        assert deployed_cost(row.candidate.graph, row.imgsz).macs == row.macs
        known = features(row.candidate.graph, row.imgsz, row.imgsz)
        assert {name: known[name] for name in row.features} == pytest.approx(dict(row.features), rel=1e-5)
        assert set(known) - set(row.features) <= {"detector_score"}


def test_the_shipped_benchmark_is_read_without_the_catalogue_and_without_the_first_detectors() -> None:
    digits, cells = read_detector_benchmark(SHIPPED, "digits", 150), read_detector_benchmark(SHIPPED, "bccd", 7)
    assert (digits.curves.shape[1:], cells.curves.shape, digits.imgsz) == ((50, 8), (1, 53, 18), 128)
    assert json.loads(digits.candidates[0].genotype)["head"]["classes"] == 10
    lines = [json.loads(line) for line in (SHIPPED / "detectors.jsonl").read_text().splitlines()]
    assert [candidate.hash for candidate in digits.candidates] == [line["hash"] for line in lines[150:200]]
    known = features(digits.candidates[3].graph, 128, 128)
    assert digits.features[3] == pytest.approx(known, rel=1e-5) and known["detector_score"] > 10
    assert digits.macs == [line["cost"]["macs"] for line in lines[150:200]]
    ap = {}
    for line in (SHIPPED / "trainings.jsonl").read_text().splitlines():
        row = json.loads(line)
        ap[row["hash"], row["data"], row["seed"]] = row["ap"]
    assert digits.curves[0].tolist() == [ap[line["hash"], "digits", 0] for line in lines[150:200]]
    assert cells.curves.tolist() == [[ap[line["hash"], "bccd", 0] for line in lines[7:60]]]
    twice = read_detector_benchmark(SHIPPED, "digits", 60)  # detectors 61 to 70 had two seeds first
    assert twice.curves[:, :10].tolist() == [[ap[line["hash"], "digits", seed] for line in lines[60:70]] for seed in (0, 1)]


def test_too_few_detectors_are_refused() -> None:
    with pytest.raises(InputError, match=r"19 detectors trained on bccd are left after the first 41; 20 are needed"):
        read_detector_benchmark(SHIPPED, "bccd", 41)


def test_the_cost_of_a_detector_is_computed_once_for_all_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = [grid_candidate(4 * k, k) for k in (1, 2, 3)]
    benchmark = DetectorBenchmark(ListedSpace, candidates, [{}] * 3, [{}] * 3, [1.0] * 3, np.zeros((1, 3, 1)), 64)
    costs = [benchmark.subset([1, 2]).cost(candidate) for candidate in candidates]
    assert costs == [deployed_cost(candidate.graph, 64) for candidate in candidates]
    monkeypatch.setattr(detector_benchmark, "deployed_cost", None)  # a call would fail
    assert [benchmark.subset([0, 2]).cost(candidate) for candidate in candidates] == costs
