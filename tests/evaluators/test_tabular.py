"""Evaluation by looking up: AP by epochs, the cost of what is new, and what the table does not hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluators.tabular import Curve, TabularEvaluator
from gpnas.search.trial import Cause, Fidelity, TrialState
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
