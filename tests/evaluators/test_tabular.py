"""Evaluation by looking up: AP by epochs, the cost of what is new, and what the table does not hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluators.tabular import Curve, TabularEvaluator, read_curves
from gpnas.errors import InputError
from gpnas.search.trial import CHECKPOINTS, Cause, Fidelity, TrialState
from tests.grid import grid_candidate


def test_the_evaluator_looks_up_and_charges_new_epochs_alone(tmp_path: Path) -> None:
    candidate = grid_candidate(8, 2)
    evaluator = TabularEvaluator({candidate.hash: Curve((0.1, 0.2, 0.4, 0.5), 8.0)})
    low, high = (evaluator.evaluate(candidate, Fidelity(n, 32), tmp_path, lambda row: None) for n in (1, 4))
    assert (low.state, low.metrics["ap"], low.epochs, low.seconds) == (TrialState.COMPLETE, 0.1, 1, 2.0)
    assert (high.metrics["ap"], high.epochs, high.seconds) == (0.5, 3, 6.0)


@pytest.mark.parametrize(("width", "epochs", "message"), [(8, 5, "4 epochs of w8d2, not 5"), (4, 1, "0 epochs of w4d2, not 1")])
def test_what_the_table_does_not_hold_fails(tmp_path: Path, width: int, epochs: int, message: str) -> None:
    evaluator = TabularEvaluator({"w8d2": Curve((0.1, 0.2, 0.4, 0.5), 8.0)})
    result = evaluator.evaluate(grid_candidate(width, 2), Fidelity(epochs, 32), tmp_path, lambda row: None)
    assert (result.state, result.cause) == (TrialState.FAILED, Cause.ERROR) and message in result.message


def test_a_lookup_continues_from_the_highest_lower_fidelity_that_left_a_checkpoint(tmp_path: Path) -> None:
    candidate = grid_candidate(8, 2)
    evaluator = TabularEvaluator({candidate.hash: Curve((0.1, 0.2, 0.4, 0.5, 0.3), 10.0)})

    def cost(epochs: int) -> tuple[int, float]:
        result = evaluator.evaluate(candidate, Fidelity(epochs, 32), tmp_path, lambda row: None)
        return result.epochs, result.seconds

    (tmp_path / "checkpoint.pt").touch()  # not of a lookup
    assert [cost(1), cost(2), cost(5), cost(4)] == [(1, 2.0), (1, 2.0), (3, 6.0), (2, 4.0)]
    for path in tmp_path.glob(CHECKPOINTS):
        path.unlink()
    assert cost(5) == (5, 10.0)


def test_it_reports_the_last_epoch(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = []
    TabularEvaluator({"w8d2": Curve((0.1, 0.7), 1.0)}).evaluate(grid_candidate(8, 2), Fidelity(2, 32), tmp_path, rows.append)
    assert rows == [{"epoch": 2, "epochs": 2, "ap": 0.7}]


def test_the_curves_of_a_table_are_those_of_the_data_and_the_seed(tmp_path: Path) -> None:
    table = tmp_path / "trainings.jsonl"
    row = {"hash": "a", "data": "digits", "seed": 0, "ap": [0.1, 0.3], "cpu_seconds": 7.5}
    rows = [
        row,
        row | {"hash": "b", "ap": [0.2, 0.25]},
        row | {"seed": 1, "ap": [0.9, 0.9]},
        row | {"data": "cells", "ap": [0.8, 0.8]},
        row | {"hash": "c", "ap": [], "cause": "epoch 1, step 1: loss nan"},
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_curves(table, "digits") == {"a": Curve((0.1, 0.3), 7.5), "b": Curve((0.2, 0.25), 7.5)}
    assert read_curves(table, "digits", seed=1) == {"a": Curve((0.9, 0.9), 7.5)}
    table.write_text('{"hash": "a"}\n')
    with pytest.raises(InputError, match=r"trainings.jsonl: line 1 must have hash, data, seed, ap, cpu_seconds"):
        read_curves(table, "digits")
