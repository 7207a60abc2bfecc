"""Evaluations that share a GPU's memory: what fits beside what, by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gpnas.graph.cost import cost
from gpnas.run.gpu_memory import BASE_BYTES, FIRST_MULTIPLE, USABLE, MemoryTable
from gpnas.run.journal import Journal
from gpnas.run.loop import search
from gpnas.run.workers import Done, Job, Progress
from gpnas.search.budget import Budget
from gpnas.search.trial import MEMORY_BYTES, Evaluation
from tests.grid import GridEvaluator
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


@dataclass
class Counting:
    """Four workers that end a job, with a measured memory, only when no more are given; counts how many run at once."""

    evaluator: GridEvaluator
    folder: Path
    jobs: list[Job] = field(default_factory=list)
    most: int = 0

    @property
    def free(self) -> int:
        return 4 - len(self.jobs)

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self.most = max(self.most, len(self.jobs))

    def poll(self, timeout: float) -> list[Done | Progress]:
        job = self.jobs.pop(0)
        job.trial_dir.mkdir(parents=True, exist_ok=True)
        found = self.evaluator.evaluate(job.candidate, job.fidelity, job.trial_dir, lambda data: None)
        size = job.fidelity.imgsz
        measured = 2.0 * cost(job.candidate.graph, size, size, fused=False).activation_bytes
        return [Done(job.key, Evaluation(found.state, {**found.metrics, MEMORY_BYTES: measured}, found.seconds, found.epochs))]


@pytest.mark.parametrize(("total", "most"), [(BASE_BYTES, 1), (2.5 * BASE_BYTES / USABLE, 2), (100 * BASE_BYTES, 4)])
def test_a_search_runs_as_many_at_once_as_fit(tmp_path: Path, total: float, most: int) -> None:
    table, workers = MemoryTable(int(total)), Counting(GridEvaluator(str(tmp_path / "log")), tmp_path)
    budget = Budget("trials", 8)
    with Journal.create(tmp_path / "run", SETTINGS) as journal:
        search(a_controller(budget), journal, workers, budget, tmp_path / "run", lambda event: None, images=10, memory=table)
        assert sum(row.rung == 0 for row in journal.evaluations()) == 8
    assert workers.most == most
    assert table.multiple == pytest.approx(2.0)
