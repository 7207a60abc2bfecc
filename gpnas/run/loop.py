"""The loop of a search: it hands out what the scheduler has ready, and journals the results."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from gpnas.errors import GpnasError
from gpnas.graph.cost import cost
from gpnas.run.durations import Durations
from gpnas.run.events import Event, Finished, Progressed, Started, Waiting
from gpnas.run.gpu_memory import MemoryTable
from gpnas.run.journal import PLAN, Journal
from gpnas.run.scheduler import Scheduler
from gpnas.run.workers import Done, Job, Progress
from gpnas.search.budget import Budget
from gpnas.search.controller import Controller, Key, Suggestion
from gpnas.search.trial import CHECKPOINTS, FIRST_FRESH, LENDER, MEMORY_BYTES, Cause, Evaluation, seed_folder

POLL_SECONDS = 0.5
"""Seconds between two looks at the clock while workers are busy."""

GRACE = 0.05
"""A job may outlast a time budget by this share of the budget; then it is killed."""

LEAST_GRACE = 20.0
"""Seconds by which a job may outlast a time budget however short the budget is."""

HALF_WRITTEN = "*.tmp"
"""Files that a killed worker did not finish (`gpnas.files.replacing`)."""

MOST_BROKEN = 6
"""The search gives up after this many evaluations in a row that end in an error or with a lost worker."""


class Workers(Protocol):
    """Where evaluations run (gpnas.run.workers.LocalWorkers)."""

    @property
    def free(self) -> int: ...

    def submit(self, job: Job) -> None: ...

    def poll(self, timeout: float) -> list[Done | Progress]: ...


def search(
    controller: Controller,
    journal: Journal,
    workers: Workers,
    budget: Budget,
    run: Path,
    observe: Callable[[Event], None],
    *,
    images: int,
    seconds_per_flop: float,
    memory: MemoryTable | None = None,
    batch: int = 1,
) -> str:
    """Run until the budget is spent or nothing is left to evaluate; returns the reason in one line. `observe` sees every event
    after it is in the journal.

    images: number in the training split. seconds_per_flop: of training in one worker, before anything ended.
    memory: the GPU memory that evaluations share, at `batch` images a training step; None limits evaluations by workers alone.
    Raises GpnasError when MOST_BROKEN evaluations in a row broke, JournalError when a candidate does not rebuild to the one in
    the journal.
    """
    changes = [(event.data["decision"], event.data["rungs"]) for event in journal.events() if event.kind == PLAN]
    controller.adopt([(row.genotype, row.origin) for row in journal.trials()], changes)
    durations = Durations(controller.ladder.fidelities, images * seconds_per_flop)
    scheduler = Scheduler(controller, journal, budget, durations, workers.free)
    session = _Session(controller, scheduler, journal, workers, budget, run, memory, batch)
    while True:
        while started := session.ready():
            for suggestion in started:
                session.start(suggestion)
                observe(Started(suggestion))
        while scheduler.notes:
            observe(scheduler.notes.pop(0))
        if not session.running:
            return scheduler.why_ended(session.time_left())
        for message in workers.poll(POLL_SECONDS):
            observe(session.receive(message))
        session.keep_time()
        observe(Waiting(session.estimated_left()))


class _Session:
    """The part of a search that one process runs: the running evaluations, their folders, the clock."""

    def __init__(
        self,
        controller: Controller,
        scheduler: Scheduler,
        journal: Journal,
        workers: Workers,
        budget: Budget,
        run: Path,
        memory: MemoryTable | None,
        batch: int,
    ) -> None:
        self.running: dict[Key, Suggestion] = {}
        self._controller, self._scheduler, self._journal, self._workers = controller, scheduler, journal, workers
        self._budget, self._trials = budget, run / "trials"
        self._memory, self._batch = memory, batch
        self._last = time.monotonic()
        self._broken_in_a_row = 0

    def ready(self) -> list[Suggestion]:
        """What can start now, as far as GPU memory allows."""
        self.keep_time()
        ready = self._scheduler.ready(self._workers.free, self.running.values(), self.time_left())
        if self._memory is None:
            return ready
        # One at a time: the table must count each before it judges the next.
        return [suggestion for suggestion in ready[:1] if self._memory.fits(self._activations(suggestion))]

    def start(self, suggestion: Suggestion) -> None:
        """Hand an evaluation to a free worker, in the folder of its trial and seed."""
        trial, seed = suggestion.trial, suggestion.fidelity.seed
        folder = seed_folder(self._trials / str(trial.id), seed)
        folder.mkdir(parents=True, exist_ok=True)
        _remove(folder, HALF_WRITTEN)
        left = self.time_left()
        timeout = None if left is None else left + max(LEAST_GRACE, GRACE * self._budget.amount)
        self._scheduler.start(suggestion)
        self._journal.start_evaluation(trial.id, suggestion.rung, suggestion.fidelity)
        self.running[suggestion.key] = suggestion
        if self._memory is not None:
            self._memory.take(suggestion.key, self._activations(suggestion))
        if trial.lender is not None and seed < FIRST_FRESH and not (folder / LENDER).is_symlink():
            (folder / LENDER).symlink_to(os.path.relpath(self._trials / str(trial.lender), folder))
        self._workers.submit(Job(suggestion.key, trial.candidate, suggestion.fidelity, folder, timeout))

    def receive(self, message: Done | Progress) -> Progressed | Finished:
        """Handle a message of a worker: a finished evaluation goes into the journal and to the scheduler."""
        suggestion = self.running[message.key]
        if isinstance(message, Progress):
            return Progressed(suggestion, message.data)
        del self.running[message.key]
        evaluation = message.evaluation
        if self._memory is not None:
            self._memory.release(message.key, evaluation.metrics.get(MEMORY_BYTES))
        self._journal.finish_evaluation(suggestion.trial.id, suggestion.rung, evaluation, suggestion.fidelity.seed)
        self._scheduler.tell(suggestion, evaluation)
        self._check_that_something_works(evaluation)
        self._remove_checkpoints()
        return Finished(suggestion, evaluation)

    def time_left(self) -> float | None:
        """Seconds that remain of a time budget; None for another kind of budget."""
        return self._budget.amount - self._journal.elapsed() if self._budget.kind == "seconds" else None

    def estimated_left(self) -> float | None:
        """Seconds until the budget is spent: what is left of a time budget; else by the time that its spent part took."""
        if self._budget.kind == "seconds":
            return max(0.0, self._budget.amount - self._journal.elapsed())
        spent = self._scheduler.spent_share()
        return self._journal.elapsed() * (1 - spent) / spent if spent else None  # 0 or not known

    def keep_time(self) -> None:
        """Add the time since the last call to the journal, in steps of at least POLL_SECONDS."""
        now = time.monotonic()
        if now - self._last >= POLL_SECONDS:
            self._journal.add_elapsed(now - self._last)
            self._last = now

    def _check_that_something_works(self, evaluation: Evaluation) -> None:
        """Stop when every candidate breaks, because then the cause is not the candidates. Raises GpnasError."""
        broken = evaluation.cause in (Cause.ERROR, Cause.LOST)
        self._broken_in_a_row = self._broken_in_a_row + 1 if broken else 0
        if self._broken_in_a_row == MOST_BROKEN:
            raise GpnasError(
                f"the last {MOST_BROKEN} evaluations broke, the last one with: {evaluation.message} "
                f"(see {self._trials}/*/error.txt); mend the cause, then start a new search"
            )

    def _activations(self, suggestion: Suggestion) -> int:
        """Bytes of float32 activations of a training step, by the cost model."""
        size = suggestion.fidelity.imgsz
        return self._batch * cost(suggestion.trial.candidate.graph, size, size, fused=False).activation_bytes

    def _remove_checkpoints(self) -> None:
        """Remove the checkpoints of trials that cannot be promoted, and of fresh seeds that reached the top rung; trials on the
        top rung keep theirs."""
        running = {suggestion.trial.id for suggestion in self.running.values()}
        keep = self._controller.promotable() | self._controller.on_top() | self._controller.lenders() | running
        for folder in self._trials.iterdir():
            if folder.name.isdigit() and int(folder.name) not in keep:
                _remove(folder, CHECKPOINTS)
                _remove(seed_folder(folder, 1), CHECKPOINTS)
        if self._scheduler.confirmation is not None:
            for trial_id, seed in self._scheduler.confirmation.on_top():
                _remove(seed_folder(self._trials / str(trial_id), seed), CHECKPOINTS)


def _remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()
