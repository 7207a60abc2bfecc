"""The loop: what is evaluated, what is replayed, which budget is kept, which files stay."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpnas.errors import GpnasError, JournalError
from gpnas.run.events import Event, Finished, Noted, Progressed, Started, Waiting
from gpnas.run.journal import EvaluationRow, Journal
from gpnas.run.loop import Workers, search
from gpnas.run.workers import LocalWorkers
from gpnas.search.budget import Budget
from gpnas.search.confirm import CONFIRM_SHARE
from gpnas.search.controller import Controller
from gpnas.search.ladder import Ladder
from gpnas.search.limits import Limits
from gpnas.search.trial import FIRST_FRESH, LENDER, Candidate, Cause, Evaluation, Fidelity, Report, TrialState, failure
from tests.grid import GridEvaluator, GridSpace
from tests.run.inline_workers import FakeClock, InlineWorkers, TimedEvaluator, training_seconds
from tests.settings import run_settings

LADDER = Ladder((Fidelity(1, 32), Fidelity(3, 32), Fidelity(9, 32, 0.5)), wave=6)
NEW_EPOCHS = {1: 1, 3: 2, 9: 6}
"""Epochs that each rung adds to the one below, by the rung's epochs."""

SETTINGS = run_settings().to_json()
CPU_FLOPS = 1e10
"""Training FLOPs a second, as they were measured before the search."""


def a_controller(budget: Budget, seed: int = 0, warm_start: bool = False) -> Controller:
    trials = budget.amount if budget.kind == "trials" else None
    return Controller(GridSpace(), LADDER, Limits(), imgsz=32, seed=seed, max_trials=trials, pool=60, warm_start=warm_start)


def run_search(
    run: Path, workers: Workers, budget: Budget, *, warm_start: bool = False, images: int = 10
) -> tuple[list[Event], list[EvaluationRow]]:
    """Start or resume a run; returns the events of this session and all evaluations."""
    events: list[Event] = []
    journal = Journal.open(run, write=True) if run.exists() else Journal.create(run, SETTINGS)
    with journal:
        journal.drop_running()
        search(
            a_controller(budget, warm_start=warm_start),
            journal,
            workers,
            budget,
            run,
            events.append,
            images=images,
            seconds_per_flop=1 / CPU_FLOPS,
        )
        return events, journal.evaluations()


@pytest.fixture
def workers(tmp_path: Path) -> InlineWorkers:
    return InlineWorkers(GridEvaluator(str(tmp_path / "log")))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr("gpnas.run.loop.time", SimpleNamespace(monotonic=clock))
    return clock


def finished(rows: list[EvaluationRow]) -> list[Evaluation]:
    return [row.evaluation for row in rows if row.evaluation]


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines()


def test_a_search_measures_every_trial_of_its_budget_once(tmp_path: Path, workers: InlineWorkers) -> None:
    _, rows = run_search(tmp_path / "run", workers, Budget("trials", 12))
    explored = [row for row in rows if row.fidelity.seed < FIRST_FRESH]
    assert [sum(row.rung == rung for row in explored) for rung in range(3)] == [12, 7, 6]
    assert all(row.state is TrialState.COMPLETE for row in rows)
    assert len(lines(tmp_path / "log")) == len(set(lines(tmp_path / "log"))) == len(rows)


def test_events_tell_of_each_evaluation_in_order(tmp_path: Path, workers: InlineWorkers) -> None:
    events, rows = run_search(tmp_path / "run", workers, Budget("trials", 6))
    assert {(e.suggestion.trial.id, e.suggestion.rung): e.evaluation for e in events if isinstance(e, Finished)} == {
        (row.trial_id, row.rung): row.evaluation for row in rows
    }
    own = [e for e in events if not isinstance(e, Waiting | Noted) and (e.suggestion.trial.id, e.suggestion.rung) == (0, 0)]
    assert [type(event) for event in own] == [Started, Progressed, Finished]
    assert isinstance(own[1], Progressed) and own[1].data == {"epoch": 1, "epochs": 1, "loss": 1.0}
    assert sum(isinstance(event, Waiting) for event in events) == len(rows)


def test_a_second_search_on_the_same_run_repeats_nothing_and_goes_on(tmp_path: Path, workers: InlineWorkers) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    _, before = run_search(run, workers, Budget("trials", 6))
    _, after = run_search(run, workers, Budget("trials", 12))
    assert after[: len(before)] == before
    assert len(after) > len(before)
    assert len(lines(log)) == len(set(lines(log))) == len(after)


def test_the_number_and_the_speed_of_workers_change_no_result(tmp_path: Path) -> None:
    results = []
    for name, slots, last_first in (("one", 1, False), ("three", 3, False), ("late", 3, True)):
        workers = InlineWorkers(GridEvaluator(str(tmp_path / f"{name}.log")), slots, last_first)
        _, rows = run_search(tmp_path / name, workers, Budget("trials", 12))
        assert workers.most == slots
        results.append(sorted((row.trial_id, row.rung, row.evaluation) for row in rows))
    assert results[0] == results[1] == results[2]
    assert sorted(lines(tmp_path / "one.log")) == sorted(lines(tmp_path / "late.log"))


def test_failures_are_journaled_with_their_cause_and_the_search_goes_on(tmp_path: Path) -> None:
    workers = InlineWorkers(GridEvaluator(str(tmp_path / "log"), broken_depth=12))
    _, rows = run_search(tmp_path / "run", workers, Budget("trials", 12))
    failed = [row for row in rows if row.state is TrialState.FAILED]
    assert failed and all(row.evaluation == failure(Cause.NAN, "loss is nan") for row in failed)
    assert sum(row.rung == 0 and row.fidelity.seed < FIRST_FRESH for row in rows) == 12


def test_only_trials_that_may_climb_and_the_top_keep_their_checkpoints(tmp_path: Path, workers: InlineWorkers) -> None:
    run = tmp_path / "run"
    _, rows = run_search(run, workers, Budget("trials", 12))
    top = {row.trial_id for row in rows if row.rung == 2}
    kept = {int(path.parent.name) for path in run.glob("trials/*/checkpoint.pt")}
    assert top and top <= kept and len(kept) <= 7
    aps = {row.trial_id: row.evaluation.metrics["ap"] for row in rows if row.rung == 0}
    with Journal.open(run, write=False) as journal:
        macs = {trial.id: trial.macs for trial in journal.trials()}
    dominated = {i for i in aps for j in aps if aps[j] > aps[i] and macs[j] < macs[i]}
    assert sum(i in dominated for i in aps if i not in kept) >= 4


def test_what_a_killed_worker_left_half_written_is_removed(tmp_path: Path, workers: InlineWorkers) -> None:
    folder = tmp_path / "run" / "trials" / "2"
    with Journal.create(tmp_path / "run", SETTINGS):
        folder.mkdir(parents=True)
    for name in ("checkpoint-4.pt.77-0a1b2c3d.tmp", "log.csv"):
        (folder / name).write_text("half")
    run_search(tmp_path / "run", workers, Budget("trials", 3))
    assert not list(folder.glob("*.tmp")) and (folder / "log.csv").exists()


@dataclass(frozen=True)
class Borrowing(GridEvaluator):
    """Leaves its trial's number as the weights of a fidelity, and writes down whose weights it was lent."""

    def evaluate(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation:
        lender = trial_dir / LENDER
        lent = (lender / "checkpoint-1.pt").read_text() if lender.is_symlink() else ""
        (trial_dir / f"lent-{fidelity.epochs}").write_text(lent)
        (trial_dir / f"checkpoint-{fidelity.epochs}.pt").write_text(trial_dir.name)
        return super().evaluate(candidate, fidelity, trial_dir, report)


def test_a_warm_start_finds_the_weights_of_its_lender_also_after_an_interruption(tmp_path: Path) -> None:
    """Of 24 trials most fall into the worse half of their rung, but what they lent must still be there."""
    run, workers = tmp_path / "run", InlineWorkers(Borrowing(str(tmp_path / "log")))
    run_search(run, workers, Budget("trials", 14), warm_start=True)
    _, rows = run_search(run, workers, Budget("trials", 24), warm_start=True)
    with Journal.open(run, write=False) as journal:
        lenders = {trial.id: trial.origin.lender for trial in journal.trials()}
    assert sum(lender is not None for lender in lenders.values()) >= 5
    assert all(row.state is TrialState.COMPLETE for row in rows)
    for row in rows:
        lender = lenders[row.trial_id]
        lent = (run / "trials" / str(row.trial_id) / f"lent-{row.fidelity.epochs}").read_text()
        assert lent == ("" if lender is None else str(lender))


def predictable(
    tmp_path: Path, clock: FakeClock, images: int, flops_per_second: float = CPU_FLOPS
) -> tuple[InlineWorkers, Callable[[Candidate, Fidelity], float]]:
    """A worker whose evaluations take as long as their training FLOPs at that speed, and the function that says so."""

    def seconds(candidate: Candidate, fidelity: Fidelity) -> float:
        return training_seconds(candidate, NEW_EPOCHS[fidelity.epochs], fidelity, images, flops_per_second)

    return InlineWorkers(TimedEvaluator(GridEvaluator(str(tmp_path / "log")), clock, seconds), slots=1), seconds


def test_the_first_evaluation_is_estimated_by_the_measured_speed(tmp_path: Path, clock: FakeClock) -> None:
    first = a_controller(Budget("seconds", 1)).ask(1)[0]
    one_image = training_seconds(first.trial.candidate, 1, first.fidelity, 1, CPU_FLOPS)
    images = round(20 / one_image)  # the first evaluation takes 20 seconds; three fifths of the budget are for exploration
    workers, _ = predictable(tmp_path, clock, images)
    assert 0 not in {row.trial_id for row in run_search(tmp_path / "short", workers, Budget("seconds", 19), images=images)[1]}
    assert 0 in {row.trial_id for row in run_search(tmp_path / "enough", workers, Budget("seconds", 34), images=images)[1]}


def test_a_time_budget_is_spent_and_not_exceeded_where_estimates_are_right(tmp_path: Path, clock: FakeClock) -> None:
    """While the search explores, promotions for which there is no time beside the confirmation are pruned."""
    images, budget, run = 300, Budget("seconds", 600), tmp_path / "run"
    workers, seconds = predictable(tmp_path, clock, images)
    _, rows = run_search(run, workers, budget, images=images)
    space = GridSpace()
    with Journal.open(run, write=False) as journal:
        candidates = {trial.id: space.read(trial.genotype) for trial in journal.trials()}
        elapsed = journal.elapsed()
    left = float(budget.amount)
    for row in rows:
        needed = seconds(candidates[row.trial_id], row.fidelity)
        if row.state is TrialState.PRUNED:
            assert needed > left - CONFIRM_SHARE * budget.amount and row.rung > 0
            assert row.evaluation == Evaluation(TrialState.PRUNED, message="the budget left no time for it")
        else:
            assert needed <= left
            left -= needed
    assert elapsed == pytest.approx(budget.amount - left, abs=0.5)
    states = {state: sum(row.state is state for row in rows) for state in (TrialState.COMPLETE, TrialState.PRUNED)}
    assert states[TrialState.PRUNED] >= 1 and states[TrialState.COMPLETE] >= 6


def test_estimates_follow_the_measured_speed_and_a_trial_s_own_first(tmp_path: Path, clock: FakeClock) -> None:
    """A machine of half the nominal speed: after the first evaluation no estimate is wrong."""
    images, budget = 150, Budget("seconds", 600)
    workers, _ = predictable(tmp_path, clock, images, CPU_FLOPS / 2)
    _, rows = run_search(tmp_path / "run", workers, budget, images=images)
    spent = sum(evaluation.seconds for evaluation in finished(rows))
    assert len(rows) >= 6 and spent <= budget.amount


@pytest.mark.parametrize(("budget", "timeout"), [(Budget("seconds", 100), 120.0), (Budget("seconds", 1000), 1050.0)])
def test_a_job_may_outlast_a_time_budget_by_a_grace(
    tmp_path: Path, workers: InlineWorkers, budget: Budget, timeout: float
) -> None:
    def stop(event: Event) -> None:
        raise KeyboardInterrupt

    run = tmp_path / "run"
    with Journal.create(run, SETTINGS) as journal, pytest.raises(KeyboardInterrupt):
        search(a_controller(budget), journal, workers, budget, run, stop, images=1, seconds_per_flop=1 / CPU_FLOPS)
    assert workers.submitted[0].timeout == pytest.approx(timeout)


def test_other_budgets_set_no_timeout(tmp_path: Path, workers: InlineWorkers) -> None:
    run_search(tmp_path / "run", workers, Budget("trials", 6))
    assert {job.timeout for job in workers.submitted} == {None}


def test_elapsed_time_goes_into_the_journal_over_sessions(tmp_path: Path, clock: FakeClock) -> None:
    run = tmp_path / "run"
    workers = InlineWorkers(TimedEvaluator(GridEvaluator(str(tmp_path / "log")), clock, lambda *_: 2.0))
    _, rows = run_search(run, workers, Budget("trials", 4))
    clock.now += 1e6  # a pause between sessions
    _, more = run_search(run, workers, Budget("trials", 8))
    with Journal.open(run, write=False) as journal:
        assert len(more) > len(rows)
        assert journal.elapsed() == pytest.approx(2.0 * len(more))


@pytest.mark.parametrize("epochs", [12, 14])
def test_a_budget_of_epochs_is_spent_on_what_still_fits(tmp_path: Path, workers: InlineWorkers, epochs: int) -> None:
    """A promotion of six new epochs that does not fit leaves the rest to candidates of one."""
    _, rows = run_search(tmp_path / "run", workers, Budget("epochs", epochs))
    assert sum(NEW_EPOCHS[row.fidelity.epochs] for row in rows if row.state is TrialState.COMPLETE) == epochs
    assert any(row.state is TrialState.PRUNED and row.rung for row in rows)


def test_a_failure_at_once_counts_as_an_epoch(tmp_path: Path) -> None:
    evaluator = SimpleNamespace(evaluate=lambda *_: failure(Cause.NAN, "at once"))
    _, rows = run_search(tmp_path / "run", InlineWorkers(evaluator), Budget("epochs", 7))
    assert [row.state for row in rows] == [TrialState.FAILED] * 7


def test_epochs_of_earlier_sessions_count(tmp_path: Path, workers: InlineWorkers) -> None:
    run_search(tmp_path / "run", workers, Budget("epochs", 8))
    _, rows = run_search(tmp_path / "run", workers, Budget("epochs", 13))
    assert sum(evaluation.epochs for evaluation in finished(rows)) == 13


def test_a_candidate_that_does_not_rebuild_to_the_one_in_the_journal_is_refused(tmp_path: Path, workers: InlineWorkers) -> None:
    run_search(tmp_path / "run", workers, Budget("trials", 6))
    with contextlib.closing(sqlite3.connect(tmp_path / "run" / "journal.sqlite")) as connection:
        connection.execute("UPDATE trials SET hash = 'w1d1' WHERE id = 3")
        connection.commit()
    with pytest.raises(JournalError, match=r"trial 3 was w1d1 and is now w.*another version"):
        run_search(tmp_path / "run", workers, Budget("trials", 12))


def test_the_candidates_of_a_resumed_run_are_adopted_and_not_searched_again(
    tmp_path: Path, workers: InlineWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, before = run_search(tmp_path / "run", workers, Budget("trials", 12))
    monkeypatch.setattr(GridSpace, "propose", lambda *_: pytest.fail("the journal holds every candidate of this budget"))
    _, after = run_search(tmp_path / "run", workers, Budget("trials", 12))
    assert after == before


@pytest.mark.parametrize("cause", [Cause.ERROR, Cause.LOST])
def test_when_every_evaluation_breaks_the_search_stops(tmp_path: Path, cause: Cause) -> None:
    evaluator = SimpleNamespace(evaluate=lambda *_: failure(cause, "no such file"))
    with pytest.raises(GpnasError, match=r"the last 6 evaluations broke, the last one with: no such file .see .*error.txt"):
        run_search(tmp_path / "run", InlineWorkers(evaluator), Budget("trials", 100))
    with Journal.open(tmp_path / "run", write=False) as journal:
        assert sum(row.state.is_finished for row in journal.evaluations()) == 6


def test_a_result_in_between_keeps_the_search_going(tmp_path: Path, workers: InlineWorkers) -> None:
    """Five evaluations of six break."""
    calls: list[Candidate] = []

    def evaluate(candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation:
        calls.append(candidate)
        if len(calls) % 6:
            return failure(Cause.ERROR, "often")
        return workers.evaluator.evaluate(candidate, fidelity, trial_dir, report)

    _, rows = run_search(tmp_path / "run", InlineWorkers(SimpleNamespace(evaluate=evaluate)), Budget("trials", 14))
    assert sum(row.rung == 0 and row.fidelity.seed < FIRST_FRESH for row in rows) == 14
    assert [row.state for row in rows].count(TrialState.COMPLETE) == 2


KILLED = """
import sys
from pathlib import Path
from gpnas.run.workers import LocalWorkers
from gpnas.search.budget import Budget
from tests.grid import GridEvaluator
from tests.run.test_loop import run_search
if __name__ == "__main__":
    with LocalWorkers(GridEvaluator(sys.argv[2], seconds=0.1), slots=2) as workers:
        run_search(Path(sys.argv[1]), workers, Budget("trials", 12))
"""


def test_after_kill_9_nothing_finished_is_repeated_and_nothing_is_lost(tmp_path: Path) -> None:
    run, log, script = tmp_path / "run", tmp_path / "log", tmp_path / "killed.py"
    script.write_text(KILLED)
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, str(script), str(run), str(log)], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and len(lines(log)) >= 5):
        time.sleep(0.05)
    process.kill()
    process.wait()
    with Journal.open(run, write=False) as journal:
        hashes = {trial.id: trial.hash for trial in journal.trials()}
        before = {(r.trial_id, r.rung): r.evaluation for r in journal.evaluations() if r.state.is_finished}
    assert before
    with LocalWorkers(GridEvaluator(str(log)), slots=2) as workers:
        _, rows = run_search(run, workers, Budget("trials", 12))
    after = {(r.trial_id, r.rung): r.evaluation for r in rows}
    assert before.items() <= after.items()
    for trial_id, rung in before:
        assert lines(log).count(f"{hashes[trial_id]} {LADDER.fidelities[rung].epochs}") == 1
    _, whole = run_search(tmp_path / "whole", InlineWorkers(GridEvaluator(str(tmp_path / "whole.log"))), Budget("trials", 12))
    assert {(r.trial_id, r.rung): r.evaluation.metrics for r in whole} == {key: e.metrics for key, e in after.items()}
