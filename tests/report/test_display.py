"""What a person sees while a search runs, rendered to text."""

import io
import random

from rich.console import Console

from gpnas.graph.cost import deployed_cost
from gpnas.report.display import LiveDisplay, PlainDisplay, finished_line, open_display
from gpnas.run.loop import Event
from gpnas.search.budget import Budget
from gpnas.search.controller import Suggestion, Trial
from gpnas.search.trial import Cause, Evaluation, Fidelity, Origin, TrialState, failure
from tests.grid import GridSpace


def suggestion(i: int = 3) -> Suggestion:
    candidate = GridSpace().propose([], random.Random(i))
    return Suggestion(
        Trial(i, candidate, Origin("sample"), {"score": 1.0}, deployed_cost(candidate.graph, 32)), 1, Fidelity(6, 64)
    )


COMPLETE = Evaluation(TrialState.COMPLETE, {"ap": 0.25, "ap50": 0.5}, 12.0, 3)


def test_a_line_says_what_was_measured_or_why_it_was_not() -> None:
    line = finished_line(Event("finished", suggestion(), evaluation=COMPLETE))
    assert "trial 3" in line and "rung 1 (6 epochs, 64 px)" in line and "AP 0.250  AP50 0.500  12 s" in line
    line = finished_line(Event("finished", suggestion(), evaluation=failure(Cause.NAN, "loss is nan")))
    assert line.endswith("failed: nan loss is nan")


def test_without_a_terminal_there_is_one_line_for_each_finished_evaluation() -> None:
    out = io.StringIO()
    with open_display(Console(file=out, width=60), Budget("seconds", 600), elapsed=65) as display:
        assert isinstance(display, PlainDisplay)
        for event in (Event("started", suggestion()), Event("finished", suggestion(), evaluation=COMPLETE), Event("waiting")):
            display.show(event)
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().startswith("[1:05] trial 3")


def test_a_terminal_shows_what_runs_what_is_left_and_the_best_so_far() -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True)
    with open_display(console, Budget("seconds", 600), elapsed=0) as display:
        assert isinstance(display, LiveDisplay)
        display.show(Event("started", suggestion(3)))
        display.show(Event("finished", suggestion(3), evaluation=COMPLETE))
        display.show(Event("started", suggestion(4)))
        display.show(Event("progress", suggestion(4), data={"epoch": 2, "epochs": 6, "loss": 3.25}))
        text = Console(width=120, file=io.StringIO(), record=True)
        text.print(display._view())
        seen = text.export_text()
    assert "of 10:00" in seen and "1 evaluations finished" in seen
    assert "trial 4" in seen and "2/6" in seen and "3.250" in seen
    assert "best so far: trial 3" in seen
