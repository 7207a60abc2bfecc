"""The loop of a search: ask the controller, hand out work, journal the results, tell them to the controller.

A search that was stopped, even by kill -9, goes on by the same loop. The controller adopts the candidates of the journal and
decides again, which depends only on the seed and the results. Results that are in the journal are replayed, not trained again.
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
from gpnas.search.ladder import nominal_flops
from gpnas.search.trial import CHECKPOINTS, LENDER, MEMORY_BYTES, Cause, Evaluation, TrialState

POLL_SECONDS = 0.5
"""Seconds between two looks at the clock while workers are busy."""

GRACE = 0.05
"""A job may outlast a time budget by this share of the budget; then it is killed."""

LEAST_GRACE = 20.0
"""Seconds by which a job may outlast a time budget however short the budget is."""

MOST_BROKEN = 6
"""The search gives up after this many evaluations in a row that end in an error or with a lost worker."""


@dataclass(frozen=True)
class Started:
    """An evaluation was handed to a worker."""

    suggestion: Suggestion


@dataclass(frozen=True)
class Progressed:
    """An evaluation goes on. data: what the evaluator reported last: epoch, epochs, loss and more."""

    suggestion: Suggestion
    data: dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """An evaluation ended, well or not, and is in the journal."""

    suggestion: Suggestion
    evaluation: Evaluation


@dataclass(frozen=True)
class Waiting:
    """All messages of the workers were handled; the loop decides next what else may start."""


Event = Started | Progressed | Finished | Waiting


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
    device: str = "cpu",
    memory: MemoryTable | None = None,
    batch: int = 1,
) -> None:
    """Run until the budget is spent or nothing is left to evaluate. `observe` sees every event after it is in the journal.

    images: number in the training split; with `device` it gives the first estimate of how long an evaluation takes.
    memory: the GPU memory that evaluations share, at `batch` images a training step; None limits evaluations by workers alone.
    Raises GpnasError when MOST_BROKEN evaluations in a row broke, JournalError when a candidate does not rebuild to the one in
    the journal.
    """
    controller.adopt([(row.genotype, row.origin) for row in journal.trials()])
    nominal = images / nominal_flops(device)
    session = _Session(controller, journal, workers, budget, run, nominal, memory, batch)
    while True:
        while started := session.affordable():
            for suggestion in started:
                session.start(suggestion)
                observe(Started(suggestion))
        if not session.running:
            return
        for message in workers.poll(POLL_SECONDS):
            observe(session.receive(message))
        session.keep_time()
        observe(Waiting())


def _replay(controller: Controller, journal: Journal, wanted: int) -> list[Suggestion]:
    """Ask the controller until it suggests evaluations whose results are not in the journal, and tell it those that are.

    Returns up to `wanted` suggestions. Every suggestion is looked up, because an earlier session may have decided in another
    order, with a smaller budget perhaps. Raises JournalError when a candidate does not rebuild to the one in the journal.
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
    """Add new trials to the journal, and check that the others have the hashes that the journal holds."""
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
    """Epochs that a budget counts: at least one for each attempt, else immediate failures would never spend a budget."""
    return 0 if evaluation.state is TrialState.PRUNED else max(1, evaluation.epochs)


class _Session:
    """The part of a search that one process runs: the running evaluations, the time left, the speed on this machine."""

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
        self._seconds_per_flop: dict[int, float] = {}  # by trial, in its last evaluation
        self._epochs = sum(_spent(row.evaluation) for row in journal.evaluations() if row.evaluation)
        self._last = time.monotonic()
        self._broken_in_a_row = 0

    def affordable(self) -> list[Suggestion]:
        """Suggestions that the budget still pays for, as many as free workers and free memory allow."""
        self.keep_time()
        left = self.time_left()
        promised = sum(self._new_epochs(s) for s in self.running.values())
        chosen: list[Suggestion] = []
        for suggestion in self._suggestions(left):
            if len(chosen) == self.workers.free:
                break
            if left is not None and self._estimate(suggestion) > left:
                continue
            if self._memory is not None and (chosen or not self._memory.fits(self._activations(suggestion))):
                break  # one at a time: the table must count each before it judges the next
            if self.budget.kind == "epochs":
                if self._epochs + promised + self._new_epochs(suggestion) > self.budget.amount:
                    continue
                promised += self._new_epochs(suggestion)
            chosen.append(suggestion)
        return chosen

    def _suggestions(self, left: float | None) -> list[Suggestion]:
        """Suggestions of the controller. A promotion that takes longer than the time left is pruned, so that the controller
        can decide what comes after it."""
        while True:
            # While all workers are busy, one decision is made ahead.
            suggestions = _replay(self.controller, self.journal, max(1, self.workers.free))
            too_long = [s for s in suggestions if s.rung and left is not None and self._estimate(s) > left]
            if not too_long:
                return suggestions
            for suggestion in too_long:
                self._prune(suggestion)

    def start(self, suggestion: Suggestion) -> None:
        """Hand an evaluation to a free worker, in the folder of its trial."""
        trial = suggestion.trial
        trial_dir = self.run / "trials" / str(trial.id)
        trial_dir.mkdir(parents=True, exist_ok=True)
        left = self.time_left()
        timeout = None if left is None else left + max(LEAST_GRACE, GRACE * self.budget.amount)
        self.controller.start(suggestion)
        self.journal.start_evaluation(trial.id, suggestion.rung, suggestion.fidelity)
        key = (trial.id, suggestion.rung)
        self.running[key] = suggestion
        if self._memory is not None:
            self._memory.take(key, self._activations(suggestion))
        if trial.lender is not None and not (trial_dir / LENDER).is_symlink():
            (trial_dir / LENDER).symlink_to(Path("..") / str(trial.lender))
        self.workers.submit(Job(key, trial.candidate, suggestion.fidelity, trial_dir, timeout))

    def receive(self, message: Done | Progress) -> Progressed | Finished:
        """Handle a message of a worker: a finished evaluation goes into the journal and to the controller."""
        suggestion = self.running[message.key]
        if isinstance(message, Progress):
            return Progressed(suggestion, message.data)
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
        return Finished(suggestion, evaluation)

    def _prune(self, suggestion: Suggestion) -> None:
        trial, rung = suggestion.trial, suggestion.rung
        evaluation = Evaluation(TrialState.PRUNED, message="the budget left no time for it")
        self.controller.start(suggestion)
        self.journal.start_evaluation(trial.id, rung, suggestion.fidelity)
        self.journal.finish_evaluation(trial.id, rung, evaluation)
        self.controller.tell(trial, rung, evaluation)

    def _check_that_something_works(self, evaluation: Evaluation) -> None:
        """Stop when every candidate breaks, because then the cause is not the candidates. Raises GpnasError."""
        broken = evaluation.cause in (Cause.ERROR, Cause.LOST)
        self._broken_in_a_row = self._broken_in_a_row + 1 if broken else 0
        if self._broken_in_a_row == MOST_BROKEN:
            raise GpnasError(
                f"the last {MOST_BROKEN} evaluations broke, the last one with: {evaluation.message} "
                f"(see {self.run}/trials/*/error.txt); mend the cause, then start a new search"
            )

    def time_left(self) -> float | None:
        """Seconds that remain of a time budget; None for another kind of budget."""
        return self.budget.amount - self.journal.elapsed() if self.budget.kind == "seconds" else None

    def keep_time(self) -> None:
        """Add the time since the last call to the journal, in steps of at least POLL_SECONDS."""
        now = time.monotonic()
        if now - self._last >= POLL_SECONDS:
            self.journal.add_elapsed(now - self._last)
            self._last = now

    def _estimate(self, suggestion: Suggestion) -> float:
        """Seconds that an evaluation will take, by the candidate's speed on its lower rungs, else by the median speed of the
        others that finished in this session, else by the nominal speed of the plan."""
        own = self._seconds_per_flop.get(suggestion.trial.id)
        others = self._seconds_per_flop.values()
        rate = own or (statistics.median(others) if others else self._nominal)
        return rate * self._flops(suggestion)

    def _flops(self, suggestion: Suggestion) -> float:
        """Training FLOPs of an evaluation per training image: three passes of the train form, 2 FLOPs a MAC."""
        size = suggestion.fidelity.imgsz
        macs = cost(suggestion.trial.candidate.graph, size, size, fused=False).macs
        return 6.0 * macs * self._new_epochs(suggestion) * suggestion.fidelity.data_share

    def _activations(self, suggestion: Suggestion) -> int:
        """Bytes of float32 activations of a training step, by the cost model."""
        size = suggestion.fidelity.imgsz
        return self._batch * cost(suggestion.trial.candidate.graph, size, size, fused=False).activation_bytes

    def _new_epochs(self, suggestion: Suggestion) -> int:
        """Epochs that the checkpoint of the rung below does not have yet."""
        below = self.controller.fidelity(suggestion.rung - 1).epochs if suggestion.rung else 0
        return suggestion.fidelity.epochs - below

    def _remove_checkpoints(self) -> None:
        """Remove the checkpoints of trials that cannot be promoted; trials on the top rung keep theirs."""
        running = {s.trial.id for s in self.running.values()}
        keep = self.controller.promotable() | self.controller.on_top() | self.controller.lenders() | running
        for folder in (self.run / "trials").iterdir():
            if folder.name.isdigit() and int(folder.name) not in keep:
                for checkpoint in folder.glob(CHECKPOINTS):
                    checkpoint.unlink()
