import contextlib
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpnas.errors import GpnasError, JournalError
from gpnas.run.journal import Journal
from gpnas.run.loop import search
from gpnas.run.results import summary, write_results
from gpnas.run.workers import LocalWorkers
from gpnas.search.budget import Budget
from gpnas.search.controller import Controller
from gpnas.search.ladder import Ladder
from gpnas.search.limits import Limits
from gpnas.search.trial import LENDER, Fidelity, TrialState
from tests.grid import GridEvaluator, GridSpace
from tests.settings import run_settings

LADDER = Ladder((Fidelity(1, 32), Fidelity(3, 32), Fidelity(9, 32)), wave=6)
SETTINGS = run_settings().to_json()


def a_controller(budget, seed=0, warm_start=False):
    trials = budget.amount if budget.kind == "trials" else None
    return Controller(GridSpace(), LADDER, Limits(), imgsz=32, seed=seed, max_trials=trials, pool=60, warm_start=warm_start)


def run_search(run: Path, evaluator, budget, slots=2, seed=0, warm_start=False):
    events = []
    journal = Journal.open(run, write=True) if run.exists() else Journal.create(run, SETTINGS)
    with journal, LocalWorkers(evaluator, slots) as workers:
        journal.drop_running()
        search(a_controller(budget, seed, warm_start), journal, workers, budget, run, events.append, images=10)
        write_results(run, journal, lambda genotype, found: f"{genotype}\n")
        rows = journal.evaluations()
    return events, rows


def lines(log: Path):
    return sorted(log.read_text().split("\n")[:-1])


def test_a_search_measures_every_trial_of_its_budget_once(tmp_path):
    log = tmp_path / "log"
    _, rows = run_search(tmp_path / "run", GridEvaluator(str(log)), Budget("trials", 12))
    assert sum(row.rung == 0 for row in rows) == 12
    climbed = [sum(row.rung == r for row in rows) for r in (1, 2)]
    assert 4 <= climbed[0] < 12 and 1 <= climbed[1] < climbed[0]  # how many: test_controller.py
    assert all(row.state is TrialState.COMPLETE for row in rows)
    assert len(lines(log)) == len(set(lines(log))) == len(rows)
    assert (tmp_path / "run" / "best.yaml").exists() and (tmp_path / "run" / "pareto.csv").exists()


def test_a_second_search_on_the_same_run_repeats_nothing_and_goes_on(tmp_path):
    log, run = tmp_path / "log", tmp_path / "run"
    _, before = run_search(run, GridEvaluator(str(log)), Budget("trials", 6))
    _, after = run_search(run, GridEvaluator(str(log)), Budget("trials", 12))
    assert after[: len(before)] == before
    assert len(after) > len(before)
    assert len(lines(log)) == len(set(lines(log))) == len(after)


def test_one_worker_and_three_workers_find_the_same_candidates(tmp_path):
    one = run_search(tmp_path / "one", GridEvaluator(str(tmp_path / "a")), Budget("trials", 12), slots=1)[1]
    three = run_search(tmp_path / "three", GridEvaluator(str(tmp_path / "b")), Budget("trials", 12), slots=3)[1]
    keys = [{(r.trial_id, r.rung, r.evaluation.metrics["ap"]) for r in rows} for rows in (one, three)]
    assert keys[0] == keys[1]
    assert lines(tmp_path / "a") == lines(tmp_path / "b")


def test_failures_are_journaled_with_their_cause_and_the_search_goes_on(tmp_path):
    evaluator = GridEvaluator(str(tmp_path / "log"), broken_depth=12)
    _, rows = run_search(tmp_path / "run", evaluator, Budget("trials", 12))
    failed = [row for row in rows if row.state is TrialState.FAILED]
    assert failed and all(row.evaluation.cause == "nan" for row in failed)
    assert any(row.state is TrialState.COMPLETE for row in rows)


def test_the_worse_half_of_a_rung_loses_its_checkpoints_and_the_top_keeps_them(tmp_path):
    run = tmp_path / "run"
    _, rows = run_search(run, GridEvaluator(str(tmp_path / "log")), Budget("trials", 12))
    top = {row.trial_id for row in rows if row.rung == 2}
    kept = {int(p.parent.name) for p in run.glob("trials/*/checkpoint.pt")}
    assert top and top <= kept and len(kept) <= 7
    aps = {row.trial_id: row.evaluation.metrics["ap"] for row in rows if row.rung == 0}
    macs = {i: cost_of(run, i) for i in aps}
    dominated = {i for i in aps for j in aps if aps[j] > aps[i] and macs[j] < macs[i]}
    assert sum(i in dominated for i in aps if i not in kept) >= 4


@dataclass(frozen=True)
class Borrowing(GridEvaluator):
    """Leaves its trial's number as the weights of a fidelity, and writes down whose it found."""

    def evaluate(self, candidate, fidelity, trial_dir, report):
        lender = trial_dir / LENDER
        found = (lender / "checkpoint-1.pt").read_text() if lender.is_symlink() else ""
        (trial_dir / f"found-{fidelity.epochs}").write_text(found)
        (trial_dir / f"checkpoint-{fidelity.epochs}.pt").write_text(trial_dir.name)
        return super().evaluate(candidate, fidelity, trial_dir, report)


def test_a_warm_start_finds_the_weights_of_its_lender_also_after_an_interruption(tmp_path):
    """Of 30 trials most fall into the worse half of their rung: what they lent must still be there."""
    run, evaluator = tmp_path / "run", Borrowing(str(tmp_path / "log"))
    run_search(run, evaluator, Budget("trials", 15), warm_start=True)
    _, rows = run_search(run, evaluator, Budget("trials", 30), warm_start=True)
    with Journal.open(run, write=False) as journal:
        lenders = {trial.id: trial.origin.lender for trial in journal.trials()}
    assert sum(lender is not None for lender in lenders.values()) >= 5
    assert all(row.state is TrialState.COMPLETE for row in rows)
    for row in rows:
        lender = lenders[row.trial_id]
        borrowed = (run / "trials" / str(row.trial_id) / f"found-{3**row.rung}").read_text()
        assert borrowed == ("" if lender is None else str(lender))


def cost_of(run, trial):
    with Journal.open(run, write=False) as journal:
        return journal.trials()[trial].macs


def test_a_time_budget_is_kept(tmp_path):
    run = tmp_path / "run"
    run_search(run, GridEvaluator(str(tmp_path / "log"), seconds=0.2), Budget("seconds", 3))
    with Journal.open(run, write=False) as journal:
        assert 1.0 < journal.elapsed() < 10.0  # generous: the machine may be busy
        assert len(journal.evaluations()) >= 2


def test_a_budget_of_epochs_is_never_exceeded(tmp_path):
    _, rows = run_search(tmp_path / "run", GridEvaluator(str(tmp_path / "log")), Budget("epochs", 12))
    new_epochs = {0: 1, 1: 2, 2: 6}  # a promoted trial trains only what the rung below has not
    assert 6 <= sum(new_epochs[row.rung] for row in rows) <= 12


def test_a_budget_of_epochs_is_spent_on_what_still_fits(tmp_path):
    """A promotion of six new epochs that does not fit leaves the rest to candidates of one."""
    _, rows = run_search(tmp_path / "run", GridEvaluator(str(tmp_path / "log")), Budget("epochs", 14))
    spent = sum(row.evaluation.epochs for row in rows)
    assert 12 <= spent <= 14


def test_a_candidate_that_does_not_rebuild_to_what_the_journal_holds_is_refused(tmp_path):
    evaluator = GridEvaluator(str(tmp_path / "log"))
    run_search(tmp_path / "run", evaluator, Budget("trials", 6))
    with contextlib.closing(sqlite3.connect(tmp_path / "run" / "journal.sqlite")) as connection:
        connection.execute("UPDATE trials SET hash = 'w1d1' WHERE id = 3")
        connection.commit()
    with pytest.raises(JournalError, match=r"trial 3 was w1d1 and is now w.*another version"):
        run_search(tmp_path / "run", evaluator, Budget("trials", 12))


def test_a_run_that_goes_on_does_not_search_again_for_the_candidates_it_has(tmp_path, monkeypatch):
    evaluator = GridEvaluator(str(tmp_path / "log"))
    _, before = run_search(tmp_path / "run", evaluator, Budget("trials", 12))
    monkeypatch.setattr(GridSpace, "propose", lambda *_: pytest.fail("the journal holds every candidate of this budget"))
    _, after = run_search(tmp_path / "run", evaluator, Budget("trials", 12))
    assert after == before


def test_when_every_evaluation_breaks_the_search_says_so_instead_of_spending_its_budget(tmp_path):
    evaluator = GridEvaluator(str(tmp_path / "no" / "such" / "folder"))
    with pytest.raises(GpnasError, match=r"the last 6 evaluations broke, the last one with: .*No such file"):
        run_search(tmp_path / "run", evaluator, Budget("trials", 100))


KILLED = """
import sys
from pathlib import Path
from tests.grid import GridEvaluator
from tests.run.test_loop import run_search
from gpnas.search.budget import Budget
if __name__ == "__main__":
    run_search(Path(sys.argv[1]), GridEvaluator(sys.argv[2], seconds=0.1), Budget("trials", 12))
"""


def test_after_kill_9_nothing_finished_is_repeated_and_nothing_is_lost(tmp_path):
    run, log, script = tmp_path / "run", tmp_path / "log", tmp_path / "killed.py"
    script.write_text(KILLED)
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, str(script), str(run), str(log)], cwd=root, env={"PYTHONPATH": str(root)})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and len(lines(log)) >= 5):
        time.sleep(0.05)
    process.kill()
    process.wait()
    with Journal.open(run, write=False) as journal:
        hashes = {trial.id: trial.hash for trial in journal.trials()}
        before = {(r.trial_id, r.rung): r.evaluation for r in journal.evaluations() if r.state.is_finished}
    assert before
    _, rows = run_search(run, GridEvaluator(str(log)), Budget("trials", 12))
    after = {(r.trial_id, r.rung): r.evaluation for r in rows}
    assert before.items() <= after.items()
    trained = log.read_text().split("\n")
    for trial_id, rung in before:
        assert trained.count(f"{hashes[trial_id]} {LADDER.fidelities[rung].epochs}") == 1
    whole = run_search(tmp_path / "whole", GridEvaluator(str(tmp_path / "whole.log")), Budget("trials", 12))[1]
    assert {(r.trial_id, r.rung): r.evaluation.metrics for r in whole} == {key: e.metrics for key, e in after.items()}


def test_a_promotion_that_the_time_left_does_not_pay_for_is_pruned_and_its_rung_goes_on(tmp_path):
    run = tmp_path / "run"
    run_search(run, GridEvaluator(str(tmp_path / "log"), seconds=0.5), Budget("seconds", 5), slots=3)
    with Journal.open(run, write=False) as journal:
        rows = journal.evaluations()
        told = summary(run, journal)
    pruned = [row for row in rows if row.state is TrialState.PRUNED]
    assert pruned and all(row.rung > 0 and row.evaluation.message for row in pruned)
    assert {t["state"] for t in told["trials"] if t["id"] in {row.trial_id for row in pruned}} == {"pruned"}
    assert all(t["ap"] is not None for t in told["trials"] if t["state"] == "pruned")
