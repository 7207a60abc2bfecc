"""Evaluations that share a GPU's memory: what fits beside what, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpnas.graph.cost import cost
from gpnas.run.gpu_memory import BASE_BYTES, FIRST_MULTIPLE, USABLE, MemoryTable
from gpnas.run.journal import Journal
from gpnas.run.loop import search
from gpnas.search.budget import Budget
from gpnas.search.trial import MEMORY_BYTES, Candidate, Evaluation, Fidelity, Report
from tests.grid import GridEvaluator
from tests.run.inline_workers import InlineWorkers
from tests.run.test_loop import SETTINGS, a_controller

GIB = 2**30


def test_alone_everything_may_try_and_beside_others_what_fits() -> None:
    table = MemoryTable(10 * GIB)
    assert table.fits(100 * GIB)
    table.take("a", GIB)
    room = int((USABLE * 10 * GIB - 2 * BASE_BYTES - FIRST_MULTIPLE * GIB) / FIRST_MULTIPLE)
    assert table.fits(room - 2**10) and not table.fits(room + 2**10)
    table.release("a", None)
    assert table.fits(100 * GIB)


def test_what_was_measured_replaces_the_cautious_guess_and_the_largest_counts() -> None:
    table = MemoryTable(10 * GIB)
    for key, measured, multiple in (("a", 1.5 * GIB, 1.5), ("b", GIB, 1.5), ("c", 2.5 * GIB, 2.5), ("d", None, 2.5)):
        table.take(key, GIB)
        table.release(key, measured)
        assert table.multiple == pytest.approx(multiple)
    assert table.need(2 * GIB) == BASE_BYTES + 5 * GIB


class Measuring:
    """Reports twice the analytic bytes of a training step as the measured memory."""

    def __init__(self, inner: GridEvaluator) -> None:
        self.inner = inner

    def evaluate(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation:
        result = self.inner.evaluate(candidate, fidelity, trial_dir, report)
        activations = cost(candidate.graph, fidelity.imgsz, fidelity.imgsz, fused=False).activation_bytes
        metrics = {**result.metrics, MEMORY_BYTES: 2.0 * activations * BATCH}
        return Evaluation(result.state, metrics, result.seconds, result.epochs)


BATCH = 3


@pytest.mark.parametrize(("total", "most"), [(BASE_BYTES, 1), (2.5 * BASE_BYTES / USABLE, 2), (100 * BASE_BYTES, 4)])
def test_a_search_runs_as_many_at_once_as_fit(tmp_path: Path, total: float, most: int) -> None:
    table = MemoryTable(int(total))
    workers = InlineWorkers(Measuring(GridEvaluator(str(tmp_path / "log"))), slots=4)
    budget = Budget("trials", 8)
    with Journal.create(tmp_path / "run", SETTINGS) as journal:
        search(
            *(a_controller(budget), journal, workers, budget, tmp_path / "run", lambda event: None),
            images=10,
            seconds_per_flop=1e-10,
            memory=table,
            batch=BATCH,
        )
        assert sum(row.rung == 0 and row.fidelity.seed == 0 for row in journal.evaluations()) == 8
    assert workers.most == most
    assert table.multiple == pytest.approx(2.0)
