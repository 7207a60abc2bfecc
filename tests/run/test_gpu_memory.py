"""Evaluations that share a GPU's memory: what fits beside what, by hand."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from gpnas.graph.cost import cost
from gpnas.run.gpu_memory import BASE_BYTES, FIRST_SLOPE, USABLE, MemoryTable, fitted
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
    room = int((USABLE * 10 * GIB - 2 * BASE_BYTES - FIRST_SLOPE * GIB) / FIRST_SLOPE)
    assert table.fits(room - 2**10) and not table.fits(room + 2**10)
    table.release("a", None)
    assert table.fits(100 * GIB)


def test_processes_that_are_idle_keep_their_context_and_their_images() -> None:
    table = MemoryTable(10 * GIB)
    for key in "abc":
        table.take(key, GIB)
    table.release("b", 3 * GIB)  # one measurement: 4 bytes for each of its activations would be more than it had
    table.release("c", 3 * GIB)
    assert table.line == pytest.approx((0, 3))
    room = int((USABLE * 10 * GIB - 3 * BASE_BYTES - 3 * GIB) / 3)  # one of the two idle processes would take it
    assert table.fits(room - 2**10) and not table.fits(room + 2**10)


def test_images_and_workspaces_are_a_base_and_no_multiple() -> None:
    """A small proxy: 155 MB for 1 MB of activations. It says nothing about a network with 1 GB of them."""
    table = MemoryTable(10 * GIB)
    table.take("small", 10**6)
    table.release("small", 155e6)
    assert table.line == pytest.approx((151e6, 4.0))
    assert table.need(10**9) == BASE_BYTES + 4_151_000_000


@pytest.mark.parametrize(
    ("sizes", "base", "slope", "found"),
    [
        # Spread 2, prior 0.1 * 2^2: (2 * 2.5 + 0.4 * 4) / 2.4 = 2.75; the line touches the smaller one: 5.5 - 2.75.
        ([1.0, 3.0], 3.0, 2.5, (2.75, 2.75)),
        # Nearly the same size: spread 0.02, prior 0.1 * 1.1^2 = 0.121; the first slope counts most.
        ([1.0, 1.2], 3.0, 2.5, (5.5 - 0.534 / 0.141, 0.534 / 0.141)),
        # Spread 50, prior 0.1 * 4.25^2 = 1.80625, of eight measurements: slope close to the true one.
        (
            [1.75, 1.75, 1.75, 1.75, 6.75, 6.75, 6.75, 6.75],
            3.0,
            2.5,
            (3 + 1.75 * (2.5 - 132.225 / 51.80625), 132.225 / 51.80625),
        ),
    ],
)
def test_base_and_slope_are_fitted_apart(sizes: list[float], base: float, slope: float, found: tuple[float, float]) -> None:
    measured = [(x, base + slope * x) for x in sizes]
    line = fitted(measured)
    assert line == pytest.approx(found)
    assert all(line.base + line.slope * x >= y - 1e-9 for x, y in measured)


def test_no_measurement_lies_above_the_line_however_they_scatter() -> None:
    rng = random.Random(0)
    for _ in range(50):
        measured = [(rng.uniform(0.1, 8), rng.uniform(0.1, 30)) for _ in range(rng.randint(1, 9))]
        line = fitted(measured)
        assert line.slope >= 0 and line.base >= 0
        assert all(line.base + line.slope * x >= y - 1e-9 for x, y in measured)
    assert fitted([(0.0, 5.0)]) == (5.0, FIRST_SLOPE)  # a network without activations cannot be, but must not break a search


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
    assert table.line == pytest.approx((0, 2))  # each of its measurements is twice the activations
