"""What a person sees while a search runs: a live view on a terminal; elsewhere, one line for each finished evaluation."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gpnas.run.events import Event, Finished, Progressed, Started, Waiting
from gpnas.run.results import TrialResult
from gpnas.search.budget import Budget
from gpnas.search.controller import Suggestion
from gpnas.search.trial import Evaluation, TrialState
from gpnas.units import brief, clock

LAST_LINES = 8
"""Finished evaluations that the live view shows."""


class Display(Protocol):
    """A context manager that shows the events of a search."""

    def __enter__(self) -> Display: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def show(self, event: Event) -> None: ...


def open_display(console: Console, budget: Budget, elapsed: float) -> Display:
    """The display that suits `console`. elapsed: seconds that earlier sessions of the run have spent."""
    return LiveDisplay(console, budget, elapsed) if console.is_terminal else PlainDisplay(console, elapsed)


class PlainDisplay:
    """Lines for logs and pipes."""

    def __init__(self, console: Console, elapsed: float) -> None:
        self._console = console
        self._began = time.monotonic() - elapsed

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, event: Event) -> None:
        if isinstance(event, Finished):
            elapsed = clock(time.monotonic() - self._began)
            self._console.print(f"[{elapsed}] {finished_line(event)}", highlight=False, soft_wrap=True)


class LiveDisplay:
    """The running trials, the last results, the best result so far and how much of the budget is spent."""

    def __init__(self, console: Console, budget: Budget, elapsed: float) -> None:
        self._budget = budget
        self._began = time.monotonic() - elapsed
        self._running: dict[tuple[int, int], tuple[Suggestion, dict[str, Any]]] = {}  # by trial and rung, with the last report
        self._lines: list[str] = []
        self._finished = 0
        self._best: tuple[int, float, str] | None = None  # rung, AP, line
        self._live = Live(console=console, get_renderable=self.view, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, event: Event) -> None:
        match event:
            case Started(suggestion):
                self._running[_key(suggestion)] = suggestion, {}
            case Progressed(suggestion, data):
                self._running[_key(suggestion)] = suggestion, data
            case Finished(suggestion, evaluation):
                self._running.pop(_key(suggestion), None)
                self._add_finished(suggestion, evaluation, finished_line(event))
            case Waiting():
                pass

    def _add_finished(self, suggestion: Suggestion, evaluation: Evaluation, line: str) -> None:
        self._finished += 1
        self._lines = [*self._lines, line][-LAST_LINES:]
        if evaluation.state is TrialState.COMPLETE:
            result = (suggestion.rung, evaluation.metrics["ap"], line)
            self._best = result if self._best is None else max(self._best, result, key=lambda best: best[:2])

    def view(self) -> Group:
        """What the terminal shows now."""
        elapsed = time.monotonic() - self._began
        goal = clock(self._budget.amount) if self._budget.kind == "seconds" else f"{self._budget.amount} {self._budget.kind}"
        header = Text(f"gpnas  {clock(elapsed)} of {goal}  {self._finished} evaluations finished", style="bold")
        best = Text(f"best so far: {self._best[2]}" if self._best else "no result yet", style="green")
        return Group(header, self._running_table(), *(Text(line, style="dim") for line in self._lines), best)

    def _running_table(self) -> Table:
        table = Table("running", "rung", "FLOPs", "params", "epoch", "loss", box=None, pad_edge=False)
        for suggestion, data in self._running.values():
            trial, fidelity = suggestion.trial, suggestion.fidelity
            loss = data.get("loss")
            table.add_row(
                f"trial {trial.id}",
                f"{suggestion.rung}: {fidelity.epochs} epochs at {fidelity.imgsz} px",
                brief(trial.cost.flops),
                brief(trial.cost.params),
                f"{data.get('epoch', 0)}/{data.get('epochs', fidelity.epochs)}",
                "" if loss is None else f"{loss:.3f}",
            )
        return table


def _key(suggestion: Suggestion) -> tuple[int, int]:
    return suggestion.trial.id, suggestion.rung


def finished_line(event: Finished) -> str:
    """One line about a finished evaluation: its metrics and the name of a baseline, or its state, cause and message."""
    trial, fidelity, evaluation = event.suggestion.trial, event.suggestion.fidelity, event.evaluation
    head = (
        f"trial {trial.id:<3} rung {event.suggestion.rung} ({fidelity.epochs} epochs, {fidelity.imgsz} px)  "
        f"{brief(trial.cost.flops):>7} FLOPs {brief(trial.cost.params):>7} params  "
    )
    if evaluation.state is TrialState.COMPLETE:
        metrics = evaluation.metrics
        known = f"  {trial.origin}" if trial.origin.is_known else ""
        return f"{head}AP {metrics['ap']:.3f}  AP50 {metrics.get('ap50', 0.0):.3f}  {evaluation.seconds:.0f} s{known}"
    return f"{head}{evaluation.state.value}: {evaluation.cause.value if evaluation.cause else ''} {evaluation.message}"


def front_table(front: Iterable[TrialResult], best: TrialResult | None, imgsz: int) -> Table:
    """The Pareto front for a terminal; a star marks the best. imgsz: the run's image size in pixels, at which FLOPs count."""
    table = Table(title=f"Pareto front (FLOPs = 2 x MACs at {imgsz} px, fused)", title_justify="left")
    for column in ("trial", "AP", "AP50", "FLOPs", "params", "trained", "origin"):
        table.add_column(column, justify="left" if column in ("trained", "origin") else "right")
    for result in front:
        trial, fidelity = result.trial, result.fidelity
        is_best = best is not None and trial.id == best.trial.id
        table.add_row(
            f"{trial.id}{' *' if is_best else ''}",
            f"{result.ap:.3f}",
            f"{result.evaluation.metrics.get('ap50', 0.0):.3f}",
            brief(trial.flops),
            brief(trial.params),
            f"{fidelity.epochs} epochs, {fidelity.imgsz} px",
            str(trial.origin),
            style="bold" if is_best else None,
        )
    return table
