"""What a person sees while a search runs: a live view on a terminal, one line for each finished evaluation elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gpnas.run.loop import Event
from gpnas.run.results import Measured
from gpnas.search.budget import Budget
from gpnas.search.controller import Suggestion
from gpnas.search.trial import TrialState
from gpnas.units import brief, clock


class Display(Protocol):
    """A context manager that is shown every event."""

    def __enter__(self) -> Display: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def show(self, event: Event) -> None: ...


def open_display(console: Console, budget: Budget, elapsed: float) -> Display:
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
        if event.kind == "finished":
            self._console.print(
                f"[{clock(time.monotonic() - self._began)}] {finished_line(event)}", highlight=False, soft_wrap=True
            )


class LiveDisplay:
    """The running trials, the last results, the best so far and what is left of the budget."""

    def __init__(self, console: Console, budget: Budget, elapsed: float) -> None:
        self._budget = budget
        self._began = time.monotonic() - elapsed
        self._running: dict[tuple[int, int], tuple[Suggestion, dict[str, Any]]] = {}
        self._lines: list[str] = []
        self._finished = 0
        self._best: tuple[int, float, str] | None = None
        self._live = Live(console=console, get_renderable=self._view, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, event: Event) -> None:
        if event.suggestion is None:
            return
        key = (event.suggestion.trial.id, event.suggestion.rung)
        if event.kind in ("started", "progress"):
            self._running[key] = (event.suggestion, event.data or {})
            return
        self._running.pop(key, None)
        self._finished += 1
        line = finished_line(event)
        self._lines = [*self._lines[-7:], line]
        if event.evaluation and event.evaluation.state is TrialState.COMPLETE:
            this = (event.suggestion.rung, event.evaluation.metrics["ap"], line)
            self._best = this if self._best is None else max(self._best, this, key=lambda b: b[:2])

    def _view(self) -> Group:
        elapsed = time.monotonic() - self._began
        goal = clock(self._budget.amount) if self._budget.kind == "seconds" else f"{self._budget.amount} {self._budget.kind}"
        table = Table("running", "rung", "FLOPs", "params", "epoch", "loss", box=None, pad_edge=False)
        for suggestion, data in self._running.values():
            cost = suggestion.trial.cost
            loss = data.get("loss")
            table.add_row(
                f"trial {suggestion.trial.id}",
                f"{suggestion.rung}: {suggestion.fidelity.epochs} epochs at {suggestion.fidelity.imgsz} px",
                brief(cost.flops),
                brief(cost.params),
                f"{data.get('epoch', 0)}/{data.get('epochs', suggestion.fidelity.epochs)}",
                "" if loss is None else f"{loss:.3f}",
            )
        header = Text(f"gpnas  {clock(elapsed)} of {goal}  {self._finished} evaluations finished", style="bold")
        best = Text(f"best so far: {self._best[2]}" if self._best else "no result yet", style="green")
        return Group(header, table, *(Text(line, style="dim") for line in self._lines), best)


def finished_line(event: Event) -> str:
    """One line about a finished evaluation."""
    suggestion, evaluation = event.suggestion, event.evaluation
    assert suggestion is not None and evaluation is not None  # a finished event has both
    trial, fidelity = suggestion.trial, suggestion.fidelity
    head = (
        f"trial {trial.id:<3} rung {suggestion.rung} ({fidelity.epochs} epochs, {fidelity.imgsz} px)  "
        f"{brief(trial.cost.flops):>7} FLOPs {brief(trial.cost.params):>7} params  "
    )
    if evaluation.state is TrialState.COMPLETE:
        metrics = evaluation.metrics
        return f"{head}AP {metrics['ap']:.3f}  AP50 {metrics.get('ap50', 0.0):.3f}  {evaluation.seconds:.0f} s"
    return f"{head}{evaluation.state.value}: {evaluation.cause.value if evaluation.cause else ''} {evaluation.message}"


def front_table(front: Iterable[Measured], best: Measured | None, imgsz: int) -> Table:
    """The Pareto front for a terminal."""
    table = Table(title=f"Pareto front (FLOPs = 2 x MACs at {imgsz} px, fused)", title_justify="left")
    for column in ("trial", "AP", "AP50", "FLOPs", "params", "trained", "origin"):
        table.add_column(column, justify="left" if column in ("trained", "origin") else "right")
    for m in front:
        is_best = best is not None and m.trial.id == best.trial.id
        table.add_row(
            f"{m.trial.id}{' *' if is_best else ''}",
            f"{m.ap:.3f}",
            f"{m.evaluation.metrics.get('ap50', 0.0):.3f}",
            brief(2 * m.trial.macs),
            brief(m.trial.params),
            f"{m.fidelity.epochs} epochs, {m.fidelity.imgsz} px",
            str(m.trial.origin),
            style="bold" if is_best else None,
        )
    return table
