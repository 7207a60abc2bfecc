"""Workers and a clock for tests of the loop: evaluations run in this process, and time passes only when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpnas.graph.cost import cost
from gpnas.run.workers import Done, Job, Progress
from gpnas.search.trial import Candidate, Evaluation, Evaluator, Fidelity, Report


@dataclass
class FakeClock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class InlineWorkers:
    """`slots` workers that evaluate one job at each poll: the one that was submitted first, or last. most: jobs at once."""

    evaluator: Evaluator
    slots: int = 2
    last_first: bool = False
    jobs: list[Job] = field(default_factory=list)
    submitted: list[Job] = field(default_factory=list)
    most: int = 0

    @property
    def free(self) -> int:
        return self.slots - len(self.jobs)

    def submit(self, job: Job) -> None:
        assert self.free > 0
        self.jobs.append(job)
        self.submitted.append(job)
        self.most = max(self.most, len(self.jobs))

    def poll(self, timeout: float) -> list[Done | Progress]:
        job = self.jobs.pop(-1 if self.last_first else 0)
        reports: list[dict[str, Any]] = []
        evaluation = self.evaluator.evaluate(job.candidate, job.fidelity, job.trial_dir, reports.append)
        return [*(Progress(job.key, report) for report in reports), Done(job.key, evaluation)]


def training_seconds(
    candidate: Candidate, new_epochs: int, fidelity: Fidelity, images: float, flops_per_second: float
) -> float:
    """Forward and backward passes cost three forward passes of 2 FLOPs a MAC."""
    macs = cost(candidate.graph, fidelity.imgsz, fidelity.imgsz, fused=False).macs
    return 3 * 2 * macs * images * fidelity.data_share * new_epochs / flops_per_second


@dataclass
class TimedEvaluator:
    """Passes everything on; the clock advances by `seconds(candidate, fidelity)`, which the evaluation reports."""

    inner: Evaluator
    clock: FakeClock
    seconds: Callable[[Candidate, Fidelity], float]

    def evaluate(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation:
        evaluation = self.inner.evaluate(candidate, fidelity, trial_dir, report)
        seconds = self.seconds(candidate, fidelity)
        self.clock.now += seconds
        return Evaluation(evaluation.state, evaluation.metrics, seconds, evaluation.epochs)
