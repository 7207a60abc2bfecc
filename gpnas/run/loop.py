"""The loop of a search: ask the controller, hand out work, journal what comes back, tell the controller.

A search that was stopped, even by kill -9, is the same loop: the controller adopts the journal's candidates and decides again
what it decided, which depends on the seed and the results alone, and what the journal knows is told instead of trained.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gpnas.errors import GpnasError, JournalError
from gpnas.graph.cost import cost
from gpnas.run.gpu_memory import MemoryTable
from gpnas.run.journal import Journal, TrialRow
from gpnas.run.workers import Done, Job, Progress
from gpnas.search.budget import Budget
from gpnas.search.controller import Controller, Suggestion
from gpnas.search.ladder import NOMINAL_FLOPS
from gpnas.search.trial import CHECKPOINTS, LENDER, MEMORY_BYTES, Cause, Evaluation, TrialState

POLL_SECONDS = 0.5
GRACE = 0.05
"""A job that outlasts a time budget is ended when this share of the budget has passed beyond it."""


MOST_BROKEN = 6
"""Evaluations in a row that end in an error or a lost worker before the search gives up."""


@dataclass(frozen=True)
class Event:
    """Something happened: started, progress (data: the evaluator's report), finished (with its evaluation) or waiting."""

    kind: str
    suggestion: Suggestion | None = None
    data: dict[str, Any] | None = None
    evaluation: Evaluation | None = None


class Workers(Protocol):
    """Where evaluations run (gpnas.workers.LocalWorkers)."""

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
    device: str = "cpu",
    memory: MemoryTable | None = None,
    batch: int = 1,
) -> None:
    """Run until the budget is spent or nothing is left to evaluate. `observe` sees every event, after it is journaled.

    images: in the training split; with `device` it gives the first guess of how long an evaluation takes. memory: what
    evaluations share, at `batch` images a step; without it every free worker gets one.
    """
    controller.adopt([(row.genotype, row.origin) for row in journal.trials()])
    nominal = images / NOMINAL_FLOPS["cuda" if device.startswith("cuda") else "cpu"]
    session = _Session(controller, journal, workers, budget, run, nominal, memory, batch)
    while True:
        while started := session.affordable():
            for suggestion in started:
                session.start(suggestion)
                observe(Event("started", suggestion))
        if not session.running:
            return
        for message in workers.poll(POLL_SECONDS):
            observe(session.receive(message))
        session.keep_time()
        observe(Event("waiting"))


def told_by_journal(controller: Controller, journal: Journal, wanted: int) -> list[Suggestion]:
    """Tell the controller whatever the journal knows of what it asks for; returns what is left to evaluate, `wanted` of it.

    An earlier session, with a smaller budget perhaps, may have decided in another order: so it is looked up at every decision.
    Raises JournalError when a candidate does not rebuild to what the journal holds.
    """
    while True:
        suggestions = controller.ask(wanted)
        _record_trials(controller, journal)
        known = [(s, result) for s in suggestions if (result := journal.lookup(s.trial.candidate.hash, s.fidelity)) is not None]
        if not known:
            return suggestions
        for suggestion, result in known:
            controller.start(suggestion)
            controller.tell(suggestion.trial, suggestion.rung, result)


def _record_trials(controller: Controller, journal: Journal) -> None:
    """Journal the trials that are new, and check that the others are those that the journal holds."""
    held = journal.trials()
    for trial in controller.trials[: len(held)]:
        if held[trial.id].hash != trial.candidate.hash:
            raise JournalError(
                f"trial {trial.id} was {held[trial.id].hash} and is now {trial.candidate.hash}: this run was made by another "
                "version of gpnas; resume it with that version"
            )
    for trial in controller.trials[len(held) :]:
        journal.add_trial(
            TrialRow(
                id=trial.id,
                hash=trial.candidate.hash,
                genotype=trial.candidate.genotype,
                origin=trial.origin,
                score=trial.features["score"],
                params=trial.cost.params,
                macs=trial.cost.macs,
            )
        )


def _spent(evaluation: Evaluation) -> int:
    """Epochs that a budget counts: one at least for what was tried, or failures at once would be free without end."""
    return 0 if evaluation.state is TrialState.PRUNED else max(1, evaluation.epochs)


class _Session:
    """One process's part of a search: what runs now, what time is left, how long an evaluation takes here."""

    def __init__(
        self,
        controller: Controller,
        journal: Journal,
        workers: Workers,
        budget: Budget,
        run: Path,
        nominal_seconds_per_flop: float,
        memory: MemoryTable | None,
        batch: int,
    ) -> None:
        self.controller, self.journal, self.workers, self.budget, self.run = controller, journal, workers, budget, run
        self.running: dict[tuple[int, int], Suggestion] = {}
        self._nominal = nominal_seconds_per_flop
        self._memory, self._batch = memory, batch
        self._seconds_per_flop: dict[int, float] = {}  # by trial, of its last evaluation
        self._epochs = sum(_spent(row.evaluation) for row in journal.evaluations() if row.evaluation)
        self._last = time.monotonic()
        self._broken_in_a_row = 0

    def affordable(self) -> list[Suggestion]:
        """As many suggestions as there are free workers and room in memory, out of those that the budget still pays for.

        A promotion that the time left does not pay for is pruned, so that what comes after it can be decided on.
        """
        self.keep_time()
        left = self.time_left()
        while True:
            # One is decided on ahead, while all workers are busy.
            suggestions = told_by_journal(self.controller, self.journal, max(1, self.workers.free))
            too_long = [s for s in suggestions if s.rung and left is not None and self._estimate(s) > left]
            if not too_long:
                break
            for suggestion in too_long:
                self._prune(suggestion)
        promised = sum(self._new_epochs(s) for s in self.running.values())
        chosen: list[Suggestion] = []
        for suggestion in suggestions:
            if len(chosen) == self.workers.free:
                break
            if left is not None and self._estimate(suggestion) > left:
                continue
            if self._memory is not None and (chosen or not self._memory.fits(self._activations(suggestion))):
                break  # one at a time, so that each is counted before the next
            if self.budget.kind == "epochs":
                if self._epochs + promised + self._new_epochs(suggestion) > self.budget.amount:
                    continue
                promised += self._new_epochs(suggestion)
            chosen.append(suggestion)
        return chosen

    def start(self, suggestion: Suggestion) -> None:
        trial = suggestion.trial
        trial_dir = self.run / "trials" / str(trial.id)
        trial_dir.mkdir(parents=True, exist_ok=True)
        left = self.time_left()
        timeout = None if left is None else left + max(20.0, GRACE * self.budget.amount)
        self.controller.start(suggestion)
        self.journal.start_evaluation(trial.id, suggestion.rung, suggestion.fidelity)
        key = (trial.id, suggestion.rung)
        self.running[key] = suggestion
        if self._memory is not None:
            self._memory.take(key, self._activations(suggestion))
        if trial.lender is not None and not (trial_dir / LENDER).is_symlink():
            (trial_dir / LENDER).symlink_to(Path("..") / str(trial.lender))
        self.workers.submit(Job(key, trial.candidate, suggestion.fidelity, trial_dir, timeout))

    def receive(self, message: Done | Progress) -> Event:
        suggestion = self.running[message.key]
        if isinstance(message, Progress):
            return Event("progress", suggestion, data=message.data)
        del self.running[message.key]
        evaluation = message.evaluation
        if self._memory is not None:
            self._memory.release(message.key, evaluation.metrics.get(MEMORY_BYTES))
        self.journal.finish_evaluation(suggestion.trial.id, suggestion.rung, evaluation)
        self.controller.tell(suggestion.trial, suggestion.rung, evaluation)
        self._epochs += _spent(evaluation)
        self._check_that_something_works(evaluation)
        if evaluation.epochs:
            self._seconds_per_flop[suggestion.trial.id] = evaluation.seconds / self._flops(suggestion)
        self._remove_checkpoints()
        return Event("finished", suggestion, evaluation=evaluation)

    def _prune(self, suggestion: Suggestion) -> None:
        trial, rung = suggestion.trial, suggestion.rung
        evaluation = Evaluation(TrialState.PRUNED, message="the budget left no time for it")
        self.controller.start(suggestion)
        self.journal.start_evaluation(trial.id, rung, suggestion.fidelity)
        self.journal.finish_evaluation(trial.id, rung, evaluation)
        self.controller.tell(trial, rung, evaluation)

    def _check_that_something_works(self, evaluation: Evaluation) -> None:
        """A candidate may break; when every one does, it is not the candidates: stop instead of spending the budget."""
        broken = evaluation.cause in (Cause.ERROR, Cause.LOST)
        self._broken_in_a_row = self._broken_in_a_row + 1 if broken else 0
        if self._broken_in_a_row == MOST_BROKEN:
            raise GpnasError(
                f"the last {MOST_BROKEN} evaluations broke, the last one with: {evaluation.message} "
                f"(see {self.run}/trials/*/error.txt); mend the cause, then start a new search"
            )

    def time_left(self) -> float | None:
        """Seconds of a time budget that are not spent; None for another kind of budget."""
        return self.budget.amount - self.journal.elapsed() if self.budget.kind == "seconds" else None

    def keep_time(self) -> None:
        now = time.monotonic()
        if now - self._last >= POLL_SECONDS:
            self.journal.add_elapsed(now - self._last)
            self._last = now

    def _estimate(self, suggestion: Suggestion) -> float:
        """Seconds that an evaluation will take: by the candidate's own speed on its lower rungs, else by that of the others
        that finished here, else by the plan's nominal speed."""
        own = self._seconds_per_flop.get(suggestion.trial.id)
        others = self._seconds_per_flop.values()
        rate = own or (statistics.median(others) if others else self._nominal)
        return rate * self._flops(suggestion)

    def _flops(self, suggestion: Suggestion) -> float:
        """Training FLOPs per training image of an evaluation: three passes of the train form, 2 FLOPs a MAC."""
        size = suggestion.fidelity.imgsz
        macs = cost(suggestion.trial.candidate.graph, size, size, fused=False).macs
        return 6.0 * macs * self._new_epochs(suggestion) * suggestion.fidelity.data_share

    def _activations(self, suggestion: Suggestion) -> int:
        """Bytes of float32 activations of a training step, by the cost model."""
        size = suggestion.fidelity.imgsz
        return self._batch * cost(suggestion.trial.candidate.graph, size, size, fused=False).activation_bytes

    def _new_epochs(self, suggestion: Suggestion) -> int:
        """Epochs beyond those of the rung below, whose checkpoint is continued."""
        below = self.controller.fidelity(suggestion.rung - 1).epochs if suggestion.rung else 0
        return suggestion.fidelity.epochs - below

    def _remove_checkpoints(self) -> None:
        """Free the disk of trials that will not climb; those that reached the top rung keep theirs."""
        running = {s.trial.id for s in self.running.values()}
        keep = self.controller.promotable() | self.controller.on_top() | self.controller.lenders() | running
        for folder in (self.run / "trials").iterdir():
            if folder.name.isdigit() and int(folder.name) not in keep:
                for checkpoint in folder.glob(CHECKPOINTS):
                    checkpoint.unlink()
