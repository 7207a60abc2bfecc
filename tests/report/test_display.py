"""What a person sees while a search runs, rendered to text."""

import io
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console, RenderableType

from gpnas.graph.cost import deployed_cost
from gpnas.report.display import LiveDisplay, PlainDisplay, confirming_line, finished_line, front_table, open_display
from gpnas.run.events import Confirming, Finished, Noted, Progressed, Started, Waiting
from gpnas.run.journal import TrialRow
from gpnas.run.results import TrialResult
from gpnas.search.budget import Budget
from gpnas.search.controller import Suggestion
from gpnas.search.trial import FIRST_FRESH, Cause, Evaluation, Fidelity, Origin, Trial, TrialState, failure
from tests.grid import grid_candidate


@pytest.fixture(autouse=True)
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes during a test."""
    monkeypatch.setattr("gpnas.report.display.time", SimpleNamespace(monotonic=lambda: 1000.0))


CANDIDATE = grid_candidate(64, 3)
COST = deployed_cost(CANDIDATE.graph, 640)


def suggestion(trial: int, rung: int = 1) -> Suggestion:
    return Suggestion(Trial(trial, CANDIDATE, Origin("sample"), {"score": 1.0}, COST), rung, Fidelity(6, 64))


def fresh(trial: int, number: int, rung: int = 1) -> Suggestion:
    """The evaluation of fresh seed `number`, counted from 1."""
    explored = suggestion(trial, rung)
    return replace(explored, fidelity=replace(explored.fidelity, seed=FIRST_FRESH + number - 1))


def complete(ap: float) -> Evaluation:
    return Evaluation(TrialState.COMPLETE, {"ap": ap, "ap50": 2 * ap}, 12.0, 3)


def rendered(what: RenderableType) -> list[str]:
    """Lines of text, with runs of spaces as one."""
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(what)
    return [re.sub(r"\s+", " ", line).strip() for line in console.export_text().splitlines()]


def test_a_line_names_trial_rung_cost_and_metrics_or_cause() -> None:
    # 3 -> 64 -> 64 -> 64 channels by 3x3 with biases after fusion, then 4 by 1x1, on 640 x 640 pixels.
    params = 64 * (3 * 9 + 1) + 2 * 64 * (64 * 9 + 1) + 4 * 65
    macs = 640 * 640 * (64 * 3 * 9 + 2 * 64 * 64 * 9 + 4 * 64)
    head = f"trial 3   rung 1 (6 epochs, 64 px)   {2 * macs / 1e9:.2f}G FLOPs  {params / 1e3:.2f}K params  "
    assert finished_line(Finished(suggestion(3), complete(0.25))) == f"{head}AP 0.250  AP50 0.500  12 s"
    assert finished_line(Finished(suggestion(3), failure(Cause.NAN, "loss is nan"))) == f"{head}failed: nan loss is nan"
    pruned = Evaluation(TrialState.PRUNED, message="no time")
    assert finished_line(Finished(suggestion(3), pruned)) == f"{head}pruned:  no time"


@pytest.mark.parametrize("origin", [Origin("baseline", name="gelan-t"), Origin("start")])
def test_the_line_of_a_baseline_or_the_start_says_so(origin: Origin) -> None:
    known = Suggestion(Trial(3, CANDIDATE, origin, {"score": 1.0}, COST), 1, Fidelity(6, 64))
    assert finished_line(Finished(known, complete(0.25))) == (
        f"{finished_line(Finished(suggestion(3), complete(0.25)))}  {origin}"
    )


def test_without_a_terminal_there_is_one_line_for_each_finished_evaluation() -> None:
    out = io.StringIO()
    finished = Finished(suggestion(3), complete(0.25))
    with open_display(Console(file=out, width=60), Budget("seconds", 600), elapsed=65) as display:
        assert isinstance(display, PlainDisplay)
        for event in (Started(suggestion(3)), Progressed(suggestion(3), {"epoch": 1}), finished, Waiting()):
            display.show(event)
    assert out.getvalue() == f"[1:05] {finished_line(finished)}\n"


def test_a_terminal_shows_running_trials_the_spent_budget_and_the_best_so_far() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with open_display(console, Budget("seconds", 600), elapsed=75) as display:
        assert isinstance(display, LiveDisplay)
        assert rendered(display.view()) == [
            "gpnas 1:15 of 10:00 0 evaluations finished",
            "running rung FLOPs params epoch loss",
            "no result yet",
        ]
        display.show(Started(suggestion(3)))
        display.show(Finished(suggestion(3), complete(0.25)))
        display.show(Started(suggestion(4)))
        display.show(Progressed(suggestion(4), {"epoch": 2, "epochs": 8, "loss": 3.25}))
        display.show(Started(suggestion(5, rung=0)))
        display.show(Waiting())
        lines = rendered(display.view())
    cost = lines[2].split()[8:10]
    assert lines[0] == "gpnas 1:15 of 10:00 1 evaluations finished"
    assert lines[2:4] == [
        f"trial 4 1: 6 epochs at 64 px {' '.join(cost)} 2/8 3.250",
        f"trial 5 0: 6 epochs at 64 px {' '.join(cost)} 0/6",
    ]
    assert lines[4].startswith("trial 3 rung 1") and lines[5] == f"best so far: {lines[4]}"


def test_the_best_so_far_is_on_the_highest_rung_and_the_last_lines_are_kept() -> None:
    display = LiveDisplay(Console(file=io.StringIO()), Budget("trials", 40), elapsed=0)
    for i, (rung, ap) in enumerate([(0, 0.5), (1, 0.2), (1, 0.3), (0, 0.6), (1, 0.25), *[(0, 0.1)] * 7]):
        display.show(Finished(suggestion(i, rung), complete(ap)))
    display.show(Finished(suggestion(12, 2), failure(Cause.OOM, "too big")))
    lines = rendered(display.view())
    assert lines[0] == "gpnas 0:00 of 40 trials 13 evaluations finished"
    assert [line.split()[1] for line in lines[2:-1]] == [str(i) for i in range(5, 13)]
    assert lines[-1].startswith("best so far: trial 2 ")


def test_the_line_of_a_fresh_seed_has_its_number() -> None:
    whole = finished_line(Finished(suggestion(3), complete(0.25)))
    for number, seeds, text in [(1, 3, " seed 1/3"), (3, 3, " seed 3/3"), (4, 3, " seed 4"), (2, 0, " seed 2")]:
        assert finished_line(Finished(fresh(3, number), complete(0.25)), seeds) == whole.replace("rung 1", f"rung 1{text}")
    assert finished_line(Finished(suggestion(3), complete(0.25)), 3) == whole


def test_a_confirmation_is_announced_and_its_seeds_are_counted() -> None:
    out = io.StringIO()
    with open_display(Console(file=out, width=60), Budget("seconds", 600), elapsed=65) as display:
        display.show(Finished(fresh(3, 1), complete(0.25)))
        display.show(Confirming((12, 5, 0), 3))
        display.show(Finished(fresh(3, 2), complete(0.25)))
    before, announced, after = out.getvalue().splitlines()
    assert announced == "[1:05] confirming trials 12, 5 and 0: 3 fresh seeds each, on all rungs"
    assert " rung 1 seed 1 (6 epochs" in before and " rung 1 seed 2/3 (6 epochs" in after
    assert confirming_line(Confirming((12,), 2)) == "confirming trial 12: 2 fresh seeds each, on all rungs"


def test_the_live_view_tells_seeds_of_a_trial_apart() -> None:
    display = LiveDisplay(Console(file=io.StringIO()), Budget("trials", 40), elapsed=0)
    display.show(Confirming((3, 4), 2))
    for number in (1, 2, 3):
        display.show(Started(fresh(3, number)))
    display.show(Finished(fresh(3, 2), complete(0.25)))
    lines = rendered(display.view())
    assert [line.split(":")[0] for line in lines[2:4]] == ["trial 3 1 seed 1/2", "trial 3 1 seed 3"]
    assert lines[4] == "confirming trials 3 and 4: 2 fresh seeds each, on all rungs"
    assert lines[5].startswith("trial 3 rung 1 seed 2/2 (6 epochs")


def test_the_best_so_far_is_a_mean_once_two_fresh_seeds_are_on_the_highest_rung() -> None:
    display = LiveDisplay(Console(file=io.StringIO()), Budget("trials", 40), elapsed=0)

    def best(*finished: tuple[Suggestion, float]) -> str:
        for evaluated, ap in finished:
            display.show(Finished(evaluated, complete(ap)))
        return rendered(display.view())[-1]

    assert best((suggestion(3), 0.5), (suggestion(4), 0.25)).startswith("best so far: trial 3 rung 1 (6 epochs")
    assert best((fresh(4, 1), 0.75)).startswith("best so far: trial 3 rung 1 (6 epochs")  # one seed may be lucky
    assert best((fresh(4, 2), 0.25)) == "best so far: trial 4 rung 1 mean AP 0.500 of 2 fresh seeds"
    assert best((fresh(5, 1), 0.125), (fresh(5, 2), 0.25), (fresh(5, 3), 0.25)).startswith("best so far: trial 4 ")
    assert best((fresh(4, 3), 0.125)) == "best so far: trial 4 rung 1 mean AP 0.375 of 3 fresh seeds"  # it may fall
    assert best((fresh(6, 1, rung=0), 0.875), (fresh(6, 2, rung=0), 0.875)).startswith("best so far: trial 4 ")
    assert best((suggestion(7, rung=2), 0.125)).startswith("best so far: trial 7 rung 2 (6 epochs")


def test_the_front_is_a_table_with_a_star_at_the_best() -> None:
    def result(i: int, metrics: dict[str, float], macs: int) -> TrialResult:
        row = TrialRow(i, f"hash{i}", "", Origin("mutate", (9,), 4), 0.5, 1500, macs)
        return TrialResult(row, 1, Fidelity(6, 96), (Evaluation(TrialState.COMPLETE, metrics),))

    front = [result(3, {"ap": 0.25}, 10**9), result(7, {"ap": 0.5, "ap50": 0.75}, 3 * 10**9)]
    evaluations = tuple(Evaluation(TrialState.COMPLETE, {"ap": ap}) for ap in (0.375, 0.5))
    front.append(TrialResult(front[0].trial, 1, Fidelity(6, 96), evaluations, confirmed=True))
    lines = [line.replace("│ ", "").replace(" │", "") for line in rendered(front_table(front, front[1], 192))]
    assert lines[0] == "Pareto front (FLOPs = 2 x MACs at 192 px, fused)"
    assert lines[4:7] == [
        "3 0.250 1 0.000 2.00G 1.50K 6 epochs, 96 px mutate 9 warm 4",
        "7 * 0.500 1 0.750 6.00G 1.50K 6 epochs, 96 px mutate 9 warm 4",
        "3 0.438 +- 0.088 2 0.000 2.00G 1.50K 6 epochs, 96 px mutate 9 warm 4",  # .125 / sqrt(2)
    ]
    assert not any("*" in line for line in rendered(front_table(front, None, 192)))


def test_a_second_seed_of_the_exploration_is_marked() -> None:
    trial = Trial(3, grid_candidate(8, 2), Origin("sample"), {}, deployed_cost(grid_candidate(8, 2).graph, 32))
    done = Evaluation(TrialState.COMPLETE, {"ap": 0.25}, 2.0, 1)
    lines = [finished_line(Finished(Suggestion(trial, 1, Fidelity(4, 32, seed=seed)), done)) for seed in (0, 1)]
    assert lines[0].startswith("trial 3   rung 1 (4 epochs, 32 px)") and lines[1].startswith(
        "trial 3   rung 1 second seed (4 epochs"
    )


def test_a_log_says_what_runs_when_it_was_silent_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("gpnas.report.display.time", SimpleNamespace(monotonic=lambda: now[0]))
    console = Console(file=io.StringIO(), width=200)
    trial = Trial(3, grid_candidate(8, 2), Origin("sample"), {}, deployed_cost(grid_candidate(8, 2).graph, 32))
    with PlainDisplay(console, elapsed=20.0) as display:
        display.show(Started(Suggestion(trial, 1, Fidelity(4, 32))))
        now[0] = 159.0
        display.show(Waiting(75.0))
        display.show(Progressed(Suggestion(trial, 1, Fidelity(4, 32)), {"epoch": 2, "epochs": 4, "loss": 1.0}))
        now[0] = 161.0
        display.show(Waiting(75.0))
        display.show(Waiting(75.0))
        display.show(Noted("something changed"))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "[1:21] running: trial 3 rung 1 epoch 2/4; about 1:15 left",
        "[1:21] something changed",
    ]
