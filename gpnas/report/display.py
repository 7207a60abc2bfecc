"""What a person sees while a search runs: a live view on a terminal; elsewhere, one line for each finished evaluation."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gpnas.report.comparison import ap_text
from gpnas.run.events import Confirming, Event, Finished, Noted, Progressed, Started, Waiting
from gpnas.run.results import TrialResult
from gpnas.search.budget import Budget
from gpnas.search.confirm import FEWEST_SEEDS
from gpnas.search.controller import Key, Suggestion
from gpnas.search.trial import FIRST_FRESH, Evaluation, Fidelity, TrialState
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


HEARTBEAT = 60.0
"""Seconds of silence after which a log gets a line about what is running."""


class PlainDisplay:
    """Lines for logs and pipes."""

    def __init__(self, console: Console, elapsed: float) -> None:
        self._console = console
        self._began = time.monotonic() - elapsed
        self._seeds = 0  # fresh seeds of each trial that is confirmed, once that is known
        self._running: dict[Key, tuple[Suggestion, dict[str, Any]]] = {}  # with the last report
        self._printed = time.monotonic()

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, event: Event) -> None:
        match event:
            case Started(suggestion):
                self._running[suggestion.key] = suggestion, {}
            case Progressed(suggestion, data):
                self._running[suggestion.key] = suggestion, data
            case Finished(suggestion):
                self._running.pop(suggestion.key, None)
                self._print(finished_line(event, self._seeds))
            case Confirming(_, seeds):
                self._seeds = seeds
                self._print(confirming_line(event))
            case Noted(text):
                self._print(text)
            case Waiting(left) if time.monotonic() - self._printed >= HEARTBEAT:
                running = (_running_words(suggestion, data) for suggestion, data in self._running.values())
                self._print(f"running: {', '.join(running)}{_left_words(left)}")

    def _print(self, line: str) -> None:
        self._printed = time.monotonic()
        elapsed = clock(time.monotonic() - self._began)
        self._console.print(f"[{elapsed}] {line}", highlight=False, soft_wrap=True)


class LiveDisplay:
    """The running trials, the last results, the best result so far and how much of the budget is spent."""

    def __init__(self, console: Console, budget: Budget, elapsed: float) -> None:
        self._budget = budget
        self._began = time.monotonic() - elapsed
        self._running: dict[Key, tuple[Suggestion, dict[str, Any]]] = {}  # with the last report
        self._lines: list[str] = []
        self._finished = 0
        self._left: float | None = None  # seconds, as they are estimated
        self._seeds = 0  # as in PlainDisplay
        self._best: tuple[int, float, str] | None = None  # rung, AP and line of the best that the search explored
        self._fresh: dict[tuple[int, int], list[float]] = {}  # APs of fresh seeds, by rung and trial
        self._live = Live(console=console, get_renderable=self.view, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, event: Event) -> None:
        match event:
            case Started(suggestion):
                self._running[suggestion.key] = suggestion, {}
            case Progressed(suggestion, data):
                self._running[suggestion.key] = suggestion, data
            case Finished(suggestion, evaluation):
                self._running.pop(suggestion.key, None)
                self._add_finished(suggestion, evaluation, finished_line(event, self._seeds))
            case Confirming(_, seeds):
                self._seeds = seeds
                self._add_line(confirming_line(event))
            case Noted(text):
                self._add_line(text)
            case Waiting(left):
                self._left = left

    def _add_finished(self, suggestion: Suggestion, evaluation: Evaluation, line: str) -> None:
        self._finished += 1
        self._add_line(line)
        if evaluation.state is not TrialState.COMPLETE:
            return
        ap = evaluation.metrics["ap"]
        if suggestion.fidelity.seed >= FIRST_FRESH:
            self._fresh.setdefault((suggestion.rung, suggestion.trial.id), []).append(ap)
        elif self._best is None or (suggestion.rung, ap) > self._best[:2]:
            self._best = suggestion.rung, ap, line

    def _add_line(self, line: str) -> None:
        self._lines = [*self._lines, line][-LAST_LINES:]

    def _best_line(self) -> str:
        """The best on the highest rung. On a rung, means of fresh seeds count before what the search explored."""
        means = [
            (
                rung,
                statistics.fmean(aps),
                f"trial {trial} rung {rung}  mean AP {statistics.fmean(aps):.3f} of {len(aps)} fresh seeds",
            )
            for (rung, trial), aps in self._fresh.items()
            if len(aps) >= FEWEST_SEEDS
        ]
        best = max(means, default=None)
        if best is None or (self._best is not None and self._best[0] > best[0]):
            best = self._best
        return f"best so far: {best[2]}" if best else "no result yet"

    def view(self) -> Group:
        """What the terminal shows now."""
        elapsed = time.monotonic() - self._began
        goal = clock(self._budget.amount) if self._budget.kind == "seconds" else f"{self._budget.amount} {self._budget.kind}"
        words = f"gpnas  {clock(elapsed)} of {goal}{_left_words(self._left)}  {self._finished} evaluations finished"
        header = Text(words, style="bold")
        best = Text(self._best_line(), style="green")
        return Group(header, self._running_table(), *(Text(line, style="dim") for line in self._lines), best)

    def _running_table(self) -> Table:
        table = Table("running", "rung", "FLOPs", "params", "epoch", "loss", box=None, pad_edge=False)
        for suggestion, data in self._running.values():
            trial, fidelity = suggestion.trial, suggestion.fidelity
            loss = data.get("loss")
            table.add_row(
                f"trial {trial.id}",
                f"{suggestion.rung}{_seed_text(fidelity, self._seeds)}: {fidelity.epochs} epochs at {fidelity.imgsz} px",
                brief(trial.cost.flops),
                brief(trial.cost.params),
                f"{data.get('epoch', 0)}/{data.get('epochs', fidelity.epochs)}",
                "" if loss is None else f"{loss:.3f}",
            )
        return table


def _running_words(suggestion: Suggestion, data: Mapping[str, Any]) -> str:
    """ "trial 3 rung 1 seed 2 epoch 5/8"; without a seed for the first, and without the epoch before one ended."""
    epoch = f" epoch {data['epoch']}/{data['epochs']}" if "epoch" in data and "epochs" in data else ""
    return f"trial {suggestion.trial.id} rung {suggestion.rung}{_seed_text(suggestion.fidelity, 0)}{epoch}"


def _left_words(seconds: float | None) -> str:
    """ "; about 12:05 left"; "" where nobody can tell."""
    return "" if seconds is None else f"; about {clock(seconds)} left"


def confirming_line(event: Confirming) -> str:
    """One line about the begin of a confirmation."""
    ids = [str(i) for i in event.trials]
    named = ids[0] if len(ids) == 1 else f"{', '.join(ids[:-1])} and {ids[-1]}"
    return f"confirming trial{'s' if len(ids) > 1 else ''} {named}: {event.seeds} fresh seeds each, on all rungs"


def _seed_text(fidelity: Fidelity, seeds: int) -> str:
    """ " seed 1/3" for the first of three fresh seeds, " seed 4" for one beyond them; "" for what the search explores, or
    " second seed" for a second training of that.

    seeds: fresh seeds of each trial; 0 where that is not known.
    """
    number = fidelity.seed - FIRST_FRESH + 1
    if number < 1:
        return " second seed" if fidelity.seed else ""
    return f" seed {number}/{seeds}" if number <= seeds else f" seed {number}"


def finished_line(event: Finished, seeds: int = 0) -> str:
    """One line about a finished evaluation: its metrics and the name of a baseline, or its state, cause and message. seeds:
    fresh seeds of each trial that is confirmed; 0 where that is not known."""
    trial, fidelity, evaluation = event.suggestion.trial, event.suggestion.fidelity, event.evaluation
    head = (
        f"trial {trial.id:<3} rung {event.suggestion.rung}{_seed_text(fidelity, seeds)} "
        f"({fidelity.epochs} epochs, {fidelity.imgsz} px)  "
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
    for column in ("trial", "AP", "seeds", "AP50", "FLOPs", "params", "trained", "origin"):
        table.add_column(column, justify="left" if column in ("trained", "origin") else "right")
    for result in front:
        trial, fidelity = result.trial, result.fidelity
        is_best = best is not None and trial.id == best.trial.id
        table.add_row(
            f"{trial.id}{' *' if is_best else ''}",
            ap_text(result),
            str(result.seeds),
            f"{result.metrics.get('ap50', 0.0):.3f}",
            brief(trial.flops),
            brief(trial.params),
            f"{fidelity.epochs} epochs, {fidelity.imgsz} px",
            str(trial.origin),
            style="bold" if is_best else None,
        )
    return table
