"""The phases of a search: exploration, confirmation with fresh seeds, the use of what is left, and all of it after a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpnas.run.durations import Durations
from gpnas.run.events import Confirming, Event, Finished, Noted
from gpnas.run.journal import EvaluationRow, Journal
from gpnas.run.loop import search
from gpnas.search.budget import Budget
from gpnas.search.controller import Controller, Policy, Suggestion
from gpnas.search.ladder import Ladder
from gpnas.search.limits import Limits
from gpnas.search.trial import FIRST_FRESH, Candidate, Evaluation, Fidelity, Origin, Report, Trial, TrialState
from tests.grid import GridEvaluator, GridSpace, grid_candidate
from tests.run.inline_workers import FakeClock, InlineWorkers, TimedEvaluator
from tests.search.test_controller import quick_fit
from tests.settings import run_settings

RUNGS = (Fidelity(1, 32), Fidelity(2, 32), Fidelity(4, 32))
SECONDS = {1: 2.0, 2: 3.0, 4: 5.0}
"""Of each evaluation, by the rung's epochs: 10 for a seed on all rungs."""

NEW_EPOCHS = {1: 1, 2: 1, 4: 2}
"""Epochs that each rung adds to the one below, by the rung's epochs."""

BASELINES = (("wide", grid_candidate(60, 8)),)
LIMITS = Limits(max_flops=8e8)
SETTINGS = run_settings().to_json()


@dataclass(frozen=True)
class Seeded(GridEvaluator):
    """The AP depends on the seed too, a little. An evaluation trains the epochs that the rung below lacks."""

    def evaluate(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation:
        known = super().evaluate(candidate, fidelity, trial_dir, report)
        return Evaluation(known.state, {"ap": known.metrics["ap"] + fidelity.seed / 1e4}, 0.0, NEW_EPOCHS[fidelity.epochs])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr("gpnas.run.loop.time", SimpleNamespace(monotonic=clock))
    return clock


def a_controller(budget: Budget, slots: int) -> Controller:
    trials = budget.amount if budget.kind == "trials" else None
    ladder = Ladder(RUNGS, wave=6, pending=2 * slots, seeds=2)
    known = {"baselines": BASELINES, "near_limits": True, "max_trials": trials, "pool": 300, "policy": Policy(fit=quick_fit)}
    return Controller(GridSpace(), ladder, LIMITS, imgsz=32, seed=0, **known)  # type: ignore[arg-type]


def run_search(
    run: Path,
    clock: FakeClock,
    budget: Budget,
    *,
    seconds: Callable[[Fidelity], float] = lambda fidelity: SECONDS[fidelity.epochs],
    slots: int = 1,
    last_first: bool = False,
    stop: Callable[[Event], bool] = lambda event: False,
) -> tuple[list[EvaluationRow], list[str], str]:
    """Start or resume a run; its evaluations, what the user was told in this session, and why it ended, or "stopped"."""
    workers = InlineWorkers(
        TimedEvaluator(Seeded(str(run) + ".log"), clock, lambda _, fidelity: seconds(fidelity)), slots, last_first
    )
    told: list[str] = []

    def observe(event: Event) -> None:
        if isinstance(event, Noted):
            told.append(event.text)
        if isinstance(event, Confirming):
            told.append(f"confirming {len(event.trials)} trials with {event.seeds} seeds")
        if stop(event):
            raise KeyboardInterrupt

    journal = Journal.open(run, write=True) if run.exists() else Journal.create(run, SETTINGS)
    with journal:
        journal.drop_running()
        controller = a_controller(budget, slots)
        try:
            why = search(controller, journal, workers, budget, run, observe, images=10, seconds_per_flop=1e-9)
        except KeyboardInterrupt:
            why = "stopped"
        return journal.evaluations(), told, why


def is_fresh(row: EvaluationRow) -> bool:
    return row.fidelity.seed >= FIRST_FRESH


def results(rows: list[EvaluationRow]) -> dict[tuple[int, int, int], float]:
    """AP by trial, rung and seed."""
    complete = [row for row in rows if row.evaluation and row.state is TrialState.COMPLETE]
    return {(r.trial_id, r.rung, r.fidelity.seed): r.evaluation.metrics["ap"] for r in complete if r.evaluation}


def confirmed(rows: list[EvaluationRow]) -> dict[int, int]:
    """Fresh seeds on the top rung, by trial."""
    on_top = [row.trial_id for row in rows if is_fresh(row) and row.rung == 2 and row.state is TrialState.COMPLETE]
    return {trial: on_top.count(trial) for trial in on_top}


def test_a_time_budget_is_used_and_its_leaders_and_baselines_are_confirmed(tmp_path: Path, clock: FakeClock) -> None:
    """400 s keep 160 for the confirmation. Five leaders and the baseline with three seeds of 10 s each would take 180."""
    rows, told, why = run_search(tmp_path / "run", clock, Budget("seconds", 400))
    explored = [row for row in rows if not is_fresh(row)]
    seeds = confirmed(rows)
    assert len(seeds) in (4, 5) and 0 in seeds and 3 <= min(seeds.values()) <= 4
    top = {i: ap for (i, rung, seed), ap in results(explored).items() if rung == 2}
    assert set(seeds) - {0} == set(sorted(top.keys() - {0}, key=lambda i: -top[i])[: len(seeds) - 1])
    assert sum(row.evaluation.seconds for row in rows if row.evaluation) >= 0.97 * 400
    assert told[-1] == f"confirming {len(seeds)} trials with 3 seeds"
    assert "of the budget are left, and the shortest evaluation takes about" in why or why == "the budget is spent"


def test_a_seed_is_trained_in_a_folder_of_its_own_and_fresh_ones_keep_no_checkpoint(tmp_path: Path, clock: FakeClock) -> None:
    """Fresh seeds, whose numbers begin with 10, are not trained on after the top rung."""
    rows, _, _ = run_search(tmp_path / "run", clock, Budget("seconds", 400))
    for row in rows:
        folder = f"seed-{row.fidelity.seed}" if row.fidelity.seed else ""
        assert (tmp_path / "run" / "trials" / str(row.trial_id) / folder).is_dir()
    assert not list((tmp_path / "run" / "trials").glob("*/seed-1?/checkpoint*.pt"))


@pytest.mark.parametrize("slots", [1, 3])
def test_a_budget_of_trials_is_confirmed_by_two_thirds_of_what_it_trained(tmp_path: Path, clock: FakeClock, slots: int) -> None:
    """The confirmation is two fifths of all training FLOPs at most."""
    rows, _, why = run_search(tmp_path / "run", clock, Budget("trials", 40), slots=slots)
    assert why == "all 40 candidates were trained"
    assert sum(row.rung == 0 and row.fidelity.seed == 0 for row in rows) == 40
    assert len(confirmed(rows)) >= 2 and set(confirmed(rows).values()) == {3}
    flops = [0.0, 0.0]
    with Journal.open(tmp_path / "run", write=False) as journal:
        macs = {trial.id: trial.macs for trial in journal.trials()}
    for row in rows:
        assert row.evaluation is not None
        flops[is_fresh(row)] += macs[row.trial_id] * row.evaluation.epochs
    assert 0.25 <= flops[1] / sum(flops) <= 0.41


@pytest.mark.parametrize("last_first", [False, True])
@pytest.mark.parametrize(("slots", "epochs"), [(2, 60), (4, 40), (4, 60), (4, 77)])
def test_workers_do_not_exceed_a_budget_of_epochs_together(
    tmp_path: Path, clock: FakeClock, slots: int, epochs: int, last_first: bool
) -> None:
    """And no fresh seed that began stays below the top rung."""
    rows, _, _ = run_search(tmp_path / "run", clock, Budget("epochs", epochs), slots=slots, last_first=last_first)
    assert epochs - 2 <= sum(row.evaluation.epochs for row in rows if row.evaluation) <= epochs
    begun = [(row.trial_id, row.fidelity.seed) for row in rows if is_fresh(row) and row.rung == 0]
    assert sum(confirmed(rows).values()) == len(begun) >= (0 if epochs == 40 else 4)  # 40 epochs pay for three seeds


def test_a_budget_of_epochs_is_not_exceeded(tmp_path: Path, clock: FakeClock) -> None:
    """A seed takes 4 epochs on all rungs. 100 epochs keep 40: 9 seeds, and 4 epochs for exploration."""
    rows, _, why = run_search(tmp_path / "run", clock, Budget("epochs", 100))
    spent = [sum(row.evaluation.epochs for row in rows if row.evaluation and is_fresh(row) is fresh) for fresh in (False, True)]
    assert 98 <= sum(spent) <= 100
    assert sum(confirmed(rows).values()) == 9 and spent[1] == 36
    assert why == "the budget is spent"


def test_a_budget_too_short_for_a_confirmation_says_so(tmp_path: Path, clock: FakeClock) -> None:
    rows, told, _ = run_search(tmp_path / "run", clock, Budget("trials", 4))
    assert confirmed(rows) == {}
    assert told == ["the budget does not pay for a confirmation with fresh seeds"]


@pytest.mark.parametrize("finished", [3, 20, 44, 60, 75, 90])
def test_after_an_interruption_the_search_is_the_same(tmp_path: Path, clock: FakeClock, finished: int) -> None:
    """With a budget of trials, whose end does not depend on the clock. It takes 102 evaluations."""
    whole, _, _ = run_search(tmp_path / "whole", clock, Budget("trials", 40))
    assert len(whole) > 95
    count = 0

    def stop(event: Event) -> bool:
        nonlocal count
        count += isinstance(event, Finished)
        return count == finished

    before, _, why = run_search(tmp_path / "run", clock, Budget("trials", 40), stop=stop)
    assert why == "stopped" and len(before) < len(whole)
    after, _, _ = run_search(tmp_path / "run", clock, Budget("trials", 40))
    assert results(after) == results(whole)
    assert len((tmp_path / "run.log").read_text().splitlines()) <= len(whole) + 1


def test_a_confirmation_that_was_begun_goes_on_with_its_trials_and_with_what_was_running(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Two workers: while the first fresh seed starts, an exploration runs. It is killed, and must run again."""
    run, budget = tmp_path / "run", Budget("seconds", 200)
    rows, _, _ = run_search(run, clock, budget, slots=2, stop=lambda event: isinstance(event, Confirming))
    with Journal.open(run, write=False) as journal:
        event = next(event.data for event in journal.events() if event.kind == "confirm")
    assert not any(is_fresh(row) and row.evaluation for row in rows)
    unfinished = {(r.trial_id, r.rung, r.fidelity.seed) for r in rows if not r.state.is_finished and not is_fresh(r)}
    assert unfinished == {tuple(key) for key in event["late"]} != set()
    after, told, _ = run_search(run, clock, budget, slots=2)
    assert told[0] == f"confirming {len(event['trials'])} trials with {event['seeds']} seeds"
    assert unfinished <= results(after).keys()
    assert set(event["trials"]) <= {row.trial_id for row in after if is_fresh(row)}
    assert all(seeds >= 2 for seeds in confirmed(after).values())


def test_many_workers_are_killed_when_the_confirmation_begins_and_the_search_goes_on(tmp_path: Path, clock: FakeClock) -> None:
    """Trials that were decided after what was running are confirmed."""
    run, budget = tmp_path / "run", Budget("seconds", 60)
    run_search(run, clock, budget, slots=6, last_first=True, stop=lambda event: isinstance(event, Confirming))
    with Journal.open(run, write=False) as journal:
        event = next(event.data for event in journal.events() if event.kind == "confirm")
    assert max(event["trials"]) > min(trial for trial, _, _ in event["late"])
    rows, _, _ = run_search(run, clock, budget, slots=6, last_first=True)
    assert set(event["trials"]) & confirmed(rows).keys()


@pytest.mark.parametrize("finished", [45, 49, 55])
def test_a_kill_after_the_confirmation_does_not_choose_again(tmp_path: Path, clock: FakeClock, finished: int) -> None:
    run, budget, count = tmp_path / "run", Budget("seconds", 160), 0

    def stop(event: Event) -> bool:
        nonlocal count
        count += isinstance(event, Finished)
        return count == finished

    def chosen() -> list[tuple[list[int], int]]:
        with Journal.open(run, write=False) as journal:
            return [(sorted(e.data["trials"]), e.data["seeds"]) for e in journal.events() if e.kind == "confirm"]

    run_search(run, clock, budget, slots=2, stop=stop)
    before = chosen()
    run_search(run, clock, budget, slots=2)
    assert before and chosen()[: len(before)] == before and chosen()[-1] == before[-1]


def test_a_smaller_budget_does_not_discard_a_confirmation(tmp_path: Path, clock: FakeClock) -> None:
    run = tmp_path / "run"
    first, _, _ = run_search(run, clock, Budget("seconds", 200))
    second, told, why = run_search(run, clock, Budget("seconds", 150))
    third, more, _ = run_search(run, clock, Budget("seconds", 200))
    assert confirmed(first) == confirmed(second) == confirmed(third) != {}
    assert why == "the budget is spent" and not any("does not pay" in line for line in told + more)


def test_late_results_do_not_shrink_the_room_of_a_confirmation(tmp_path: Path, clock: FakeClock) -> None:
    """Three workers: explorations end long after the first fresh seeds. The trials that were chosen keep their place."""
    run = tmp_path / "run"
    rows, _, _ = run_search(run, clock, Budget("seconds", 200), slots=3, last_first=True)
    with Journal.open(run, write=False) as journal:
        events = [event.data for event in journal.events() if event.kind == "confirm"]
    assert events[0]["late"] and len({event["room"] for event in events}) == 1
    assert len(events[-1]["trials"]) >= len(events[0]["trials"])
    known = {0} if 0 in events[0]["trials"] else set()
    assert known <= confirmed(rows).keys()


def test_a_larger_budget_explores_again_and_confirms_again(tmp_path: Path, clock: FakeClock) -> None:
    run = tmp_path / "run"
    first, _, _ = run_search(run, clock, Budget("seconds", 250))
    second, told, _ = run_search(run, clock, Budget("seconds", 600))
    explored = [sum(not is_fresh(row) and row.evaluation is not None for row in rows) for rows in (first, second)]
    assert explored[1] > explored[0] + 20
    assert results(first).items() <= results(second).items()
    assert any("confirming" in line for line in told) and len(confirmed(second)) >= 5


def test_a_slow_machine_does_without_the_top_rung_and_keeps_to_that(tmp_path: Path, clock: FakeClock) -> None:
    """By the rate of the lowest rung a candidate takes 3.26 s times 3. 300 s explore for 180 s: 18 candidates, or 22 of
    2 + 2 / 3 s times 3 without the top rung."""
    run, count = tmp_path / "run", 0

    def slow(fidelity: Fidelity) -> float:
        return 3 * SECONDS[fidelity.epochs]

    def stop(event: Event) -> bool:
        nonlocal count
        count += isinstance(event, Finished)
        return count == 15

    _, told, _ = run_search(run, clock, Budget("seconds", 300), seconds=slow, stop=stop)
    assert told[0].startswith("at the speed of the first candidates the budget pays for about ")
    assert "without the top rung, which the search now leaves out, for about 2" in told[0]
    rows, told, _ = run_search(run, clock, Budget("seconds", 300), seconds=slow)
    assert {row.rung for row in rows} == {0, 1}
    with Journal.open(run, write=False) as journal:
        plans = [event.data for event in journal.events() if event.kind == "plan"]
    assert len(plans) == 1 and plans[0]["rungs"] == 2 and plans[0]["decision"] >= 6
    assert plans[0]["candidates"] == pytest.approx(22.5, abs=0.1)


def test_a_fast_enough_machine_keeps_its_rungs_and_says_what_the_budget_pays_for(tmp_path: Path, clock: FakeClock) -> None:
    """400 s explore for 240 s. The higher rungs are not measured yet; by the rate of the lowest one a candidate takes
    2 + 2 / 3 + 4 / 9 + 4 / 27 = 3.26 s, which makes 74."""
    rows, told, _ = run_search(tmp_path / "run", clock, Budget("seconds", 400))
    assert told[0].startswith("at the speed of the first candidates the budget pays for about 74 candidates")
    assert {row.rung for row in rows} == {0, 1, 2}


def a_suggestion(trial: int, rung: int, width: int = 8) -> Suggestion:
    return Suggestion(Trial(trial, grid_candidate(width, 2), Origin("sample"), {}, None), rung, RUNGS[rung])  # type: ignore[arg-type]


def complete(seconds: float, epochs: int) -> Evaluation:
    return Evaluation(TrialState.COMPLETE, {"ap": 0.5}, seconds, epochs)


def test_durations_are_estimated_from_what_is_nearest() -> None:
    """All trials have the same FLOPs an epoch, and the rungs add 1, 1 and 2 epochs."""
    durations = Durations(RUNGS, nominal=1e-9)
    one_epoch = durations.flops(a_suggestion(0, 0))
    assert durations.flops(a_suggestion(0, 2)) == 2 * one_epoch
    assert durations.estimate(a_suggestion(0, 2)) == pytest.approx(2e-9 * one_epoch)
    durations.record(a_suggestion(0, 0), complete(6.0, 1))
    durations.record(a_suggestion(1, 0), complete(12.0, 1))
    durations.record(a_suggestion(2, 0), complete(9.0, 1))
    assert durations.estimate(a_suggestion(3, 0)) == pytest.approx(9.0)
    assert durations.estimate(a_suggestion(1, 1)) == pytest.approx(12.0)  # its own rate, since nobody was on this rung
    durations.record(a_suggestion(0, 1), complete(10.0, 1))
    assert durations.estimate(a_suggestion(3, 1)) == pytest.approx(10.0)
    assert durations.estimate(a_suggestion(1, 1)) == pytest.approx(10.0 * 12 / 9)  # it is 12 / 9 times as slow as usual
    assert durations.estimate(a_suggestion(0, 0)) == pytest.approx(6.0)
    assert durations.flops_so_far == pytest.approx(4 * one_epoch)


def test_an_evaluation_that_ended_early_teaches_no_duration() -> None:
    durations = Durations(RUNGS, nominal=1e-9)
    durations.record(a_suggestion(0, 2), complete(1.0, 1))
    assert durations.estimate(a_suggestion(1, 2)) == pytest.approx(2e-9 * durations.flops(a_suggestion(0, 0)))
    assert durations.flops_so_far == pytest.approx(durations.flops(a_suggestion(0, 0)))
