"""Strategies for the front, on a table made of chains whose truth is known."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from evaluators.tabular import Curve, TabularEvaluator
from gpnas.bench.detector_strategies import ENOUGH, MEASURES, STRATEGIES, FrontTable, epochs_to, shares
from gpnas.graph.cost import deployed_cost
from gpnas.paths.features import features
from gpnas.report.tables import shares_table
from gpnas.search.trial import Cause, Fidelity, TrialState
from search_spaces.tabular import NEAREST, TableSpace, coded
from tests.grid import grid_candidate, true_ap

EPOCHS = 4


@pytest.fixture(scope="module")
def table() -> FrontTable:
    """Sixty chains; AP grows with depth and falls with width beyond 32, as a search must find out."""
    rng = random.Random(0)
    cells = rng.sample([(width, depth) for width in range(4, 68, 4) for depth in range(1, 13)], 60)
    candidates = [grid_candidate(width, depth) for width, depth in cells]
    choices = [{"width": width, "depth": depth} for width, depth in cells]
    known = [features(candidate.graph, 32, 32) for candidate in candidates]
    macs = [deployed_cost(candidate.graph, 32).macs for candidate in candidates]
    curves = np.array([[true_ap(candidate, Fidelity(epoch, 32)) for epoch in (1, 2, 4, 8)] for candidate in candidates])
    return FrontTable(TableSpace, candidates, choices, known, macs, curves, 32)


def test_the_area_of_all_rows_is_the_most_there_is(table: FrontTable) -> None:
    whole = table.area(range(60))
    assert table.area([]) == 0.0
    assert all(table.area([i]) <= whole for i in range(60))
    best = int(np.argmax(table.curves[:, -1]))
    assert table.area([best]) < table.area([best, int(np.argmin(table.macs))]) <= whole
    assert table.best([best]) == table.best(range(60)) > table.best([int(np.argmin(table.curves[:, -1]))])


@pytest.mark.parametrize("name", STRATEGIES)
def test_shares_rise_repeat_and_never_exceed_one(table: FrontTable, name: str) -> None:
    first, again = (shares(STRATEGIES[name], table, 60, 2) for _ in range(2))
    assert np.array_equal(first, again) and first.shape == (2, 2, 60)
    assert (np.diff(first, axis=2) >= 0).all() and first[:, :, -1].min() > 0 and first.max() <= 1 + 1e-9


def test_random_search_pays_all_epochs_of_every_row(table: FrontTable) -> None:
    found = shares(STRATEGIES["random"], table, 45 * EPOCHS, 2)
    assert (found[..., : EPOCHS - 1] == 0).all() and (found[..., EPOCHS - 1] > 0).all()
    assert found[..., -1] == pytest.approx(1.0)
    assert (np.diff(found)[..., np.arange(1, 45 * EPOCHS) % EPOCHS != EPOCHS - 1] == 0).all()


def test_ours_needs_fewer_epochs_than_chance(table: FrontTable) -> None:
    ours, chance = (shares(STRATEGIES[name], table, 180, 4) for name in ("ours", "random"))
    for k in range(len(MEASURES)):
        assert epochs_to(ENOUGH, ours[:, k]) < 0.7 * epochs_to(ENOUGH, chance[:, k])


def test_shares_are_shown_by_measure_with_the_epochs_that_they_take() -> None:
    ours = np.array([[[0.5, 0.96, 0.96], [0.2, 0.3, 0.4]], [[0.7, 0.96, 0.96], [0.4, 0.5, 0.6]]])
    other = np.array([[[0.1, 0.2, 0.97], [0.1, 0.2, 0.96]], [[0.1, 0.2, 0.97], [0.1, 0.2, 0.96]]])
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(shares_table({"ours": ours, "other": other}, "a table"))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    area, best = (lines.index(f"share of the {measure}, a table after 3 epochs") for measure in MEASURES)
    assert lines[area + 1] == "ours 0.960 +- 0.000" and lines[best + 1] == "ours 0.500 +- 0.196"
    assert lines[area + 4 : area + 6] == ["ours 2 1.00", "other 3 0.67"]
    assert lines[best + 4 : best + 6] == ["ours over 3 -", "other 3 -"]


def test_epochs_to_by_hand() -> None:
    assert epochs_to(0.5, np.array([[0.0, 0.4, 0.6], [0.0, 0.6, 1.0]])) == 2.0
    assert epochs_to(0.9, np.array([[0.0, 0.4]])) == float("inf")


def test_mutations_are_near_and_crossings_are_of_the_table(table: FrontTable) -> None:
    space, rng = TableSpace(table.candidates, table.choices), random.Random(1)
    parent = table.candidates[0]
    reached = {table.candidates.index(space.propose([parent], rng)) for _ in range(200)}
    assert 1 < len(reached) <= NEAREST and 0 not in reached
    child = space.propose([table.candidates[0], table.candidates[1]], rng)
    assert child in table.candidates[2:]
    codes = coded([{"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3}])
    assert [int((codes[0] != other).sum()) for other in codes] == [0, 3, 1]


def test_the_evaluator_looks_up_charges_new_epochs_alone_and_fails_where_the_table_ends(tmp_path: Path) -> None:
    candidate = grid_candidate(8, 2)
    evaluator = TabularEvaluator({candidate.hash: Curve((0.1, 0.2, 0.4, 0.5), 8.0)})
    low, high = (evaluator.evaluate(candidate, Fidelity(n, 32), tmp_path, lambda row: None) for n in (2, 4))
    assert (low.metrics["ap"], low.epochs, low.seconds) == (0.2, 2, 4.0)
    assert (high.metrics["ap"], high.epochs, high.seconds) == (0.5, 2, 4.0)
    beyond = evaluator.evaluate(candidate, Fidelity(5, 32), tmp_path, lambda row: None)
    assert beyond.state is TrialState.FAILED and beyond.cause is Cause.ERROR and "4 epochs of w8d2, not 5" in beyond.message
    unknown = evaluator.evaluate(grid_candidate(4, 1), Fidelity(1, 32), tmp_path, lambda row: None)
    assert "0 epochs of w4d1" in unknown.message


def test_the_shipped_table_reads_and_rebuilds() -> None:
    from gpnas.cli.bench import detector_table
    from search_spaces.tabular import read_detectors

    folder = Path(__file__).parents[2] / "benchmarks" / "gp-bench"
    rows = read_detectors(folder / "detectors.jsonl")
    assert len(rows) == 206 and sum(not row.choices for row in rows) == 6
    for row in rows[::20]:
        assert deployed_cost(row.candidate.graph, row.imgsz).macs == row.macs
        assert features(row.candidate.graph, row.imgsz, row.imgsz) == pytest.approx(dict(row.features), rel=1e-5)
    found = detector_table(folder, "digits")
    assert found.curves.shape[1] == 8 and len(found.candidates) >= 60
    assert json.loads(found.candidates[0].genotype)["head"]["classes"] == 10
