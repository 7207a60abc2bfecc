"""The journal: what was recorded is there, nothing is evaluated twice, one writer, readers change nothing."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpnas.errors import InputError, JournalError
from gpnas.run.journal import EvaluationRow, Journal, RunState, TrialRow
from gpnas.search.trial import Cause, Evaluation, Fidelity, Origin, TrialState, failure

LOW, HIGH = Fidelity(2, 64), Fidelity(8, 128, 0.5)
DONE = Evaluation(TrialState.COMPLETE, {"ap": 0.25, "ap50": 0.5}, seconds=3.5, epochs=2, message="fine")


def trial(i: int, score: float = 0.0) -> TrialRow:
    return TrialRow(i, f"hash{i}", f"family: elan\nwidth: {i}\n", Origin("sample"), score, 1000 + i, 10**12 + i)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "a"


@pytest.fixture
def journal(run: Path) -> Iterator[Journal]:
    ticks = itertools.count(100)
    with Journal.create(run, {"budget": "2h", "limits": [1.5, None]}, clock=lambda: float(next(ticks))) as journal:
        yield journal


def read(run: Path, look: Callable[[Journal], Any]) -> Any:
    """What `look` sees in a snapshot of the run."""
    with Journal.open(run, write=False) as reader:
        return look(reader)


def state(run: Path) -> RunState:
    return read(run, lambda reader: reader.state)


def contents(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir()}


def test_what_was_written_is_read_back(run: Path, journal: Journal) -> None:
    journal.add_trial(trial(1))
    journal.add_trial(trial(0, score=-2.5))
    journal.start_evaluation(1, 0, LOW)  # clock: 101
    journal.start_evaluation(0, 0, LOW)  # 102
    journal.finish_evaluation(0, 0, failure(Cause.OOM, "too big", 1.0))  # 103
    journal.finish_evaluation(1, 0, DONE)  # 104
    journal.start_evaluation(1, 1, HIGH)  # 105
    journal.add_event("note", {"text": "ä\n", "n": [1, 2]})  # 106
    check_what_was_written(journal)
    read(run, check_what_was_written)


def check_what_was_written(reader: Journal) -> None:
    assert reader.settings == {"budget": "2h", "limits": [1.5, None]}
    assert reader.trials() == [trial(0, score=-2.5), trial(1)]
    assert reader.evaluations() == [
        EvaluationRow(1, 0, LOW, TrialState.COMPLETE, DONE, 101.0, 104.0),
        EvaluationRow(0, 0, LOW, TrialState.FAILED, failure(Cause.OOM, "too big", 1.0), 102.0, 103.0),
        EvaluationRow(1, 1, HIGH, TrialState.RUNNING, None, 105.0, None),
    ]
    assert reader.events() == [(106.0, "note", {"text": "ä\n", "n": [1, 2]})]


def test_a_finished_evaluation_is_found_by_hash_and_fidelity(journal: Journal) -> None:
    journal.add_trial(trial(0))
    journal.start_evaluation(0, 0, LOW)
    assert journal.lookup("hash0", LOW) is None  # running
    journal.finish_evaluation(0, 0, DONE)
    assert journal.lookup("hash0", LOW) == DONE
    assert journal.lookup("hash0", HIGH) is None
    assert journal.lookup("hash1", LOW) is None


def test_the_same_hash_is_not_evaluated_twice_at_one_fidelity(journal: Journal) -> None:
    journal.add_trial(trial(0))
    twin = TrialRow(1, "hash0", "family: elan\n", Origin("sample"), 0.0, 1, 1)
    journal.add_trial(twin)
    journal.start_evaluation(0, 0, LOW)
    with pytest.raises(JournalError, match=r"trial 1 \(hash hash0\) was evaluated before"):
        journal.start_evaluation(1, 0, LOW)
    journal.start_evaluation(1, 0, HIGH)


def test_an_evaluation_finishes_once(journal: Journal) -> None:
    journal.add_trial(trial(0))
    with pytest.raises(JournalError, match="trial 0 has no running evaluation at rung 0"):
        journal.finish_evaluation(0, 0, DONE)
    journal.start_evaluation(0, 0, LOW)
    journal.finish_evaluation(0, 0, DONE)
    with pytest.raises(JournalError, match="no running evaluation"):
        journal.finish_evaluation(0, 0, failure(Cause.ERROR, "again"))
    assert journal.lookup("hash0", LOW) == DONE


def test_trials_are_known_and_unique(journal: Journal) -> None:
    journal.add_trial(trial(0))
    with pytest.raises(JournalError, match="trial 0 is in the journal already"):
        journal.add_trial(trial(0))
    with pytest.raises(JournalError, match="trial 7 is not in the journal"):
        journal.start_evaluation(7, 0, LOW)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_bad_number_enters(journal: Journal, bad: float) -> None:
    journal.add_trial(trial(0))
    journal.start_evaluation(0, 0, LOW)
    with pytest.raises(ValueError, match="score of trial 1 must be finite"):
        trial(1, score=bad)
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.finish_evaluation(0, 0, Evaluation(TrialState.COMPLETE, {"ap": 0.5}, seconds=bad))
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.add_event("loss", {"loss": bad})
    with pytest.raises(ValueError, match="elapsed"):
        journal.add_elapsed(bad)
    assert journal.evaluations()[0].state is TrialState.RUNNING
    assert journal.events() == []
    assert journal.elapsed() == 0.0


def test_running_evaluations_are_dropped_and_run_again(journal: Journal) -> None:
    for i in range(3):
        journal.add_trial(trial(i))
        journal.start_evaluation(i, 0, LOW)
    journal.finish_evaluation(1, 0, DONE)
    assert journal.drop_running() == 2
    assert [row.trial_id for row in journal.evaluations()] == [1]
    assert [(event.kind, event.data) for event in journal.events()] == [("dropped", {"evaluations": [[0, 0, 0], [2, 0, 0]]})]
    journal.start_evaluation(0, 0, LOW)
    assert [row.trial_id for row in journal.evaluations()] == [1, 0]  # in order of start


def test_nothing_to_drop_leaves_no_event(journal: Journal) -> None:
    assert journal.drop_running() == 0
    assert journal.events() == []


def test_elapsed_adds_up_over_sessions(run: Path, journal: Journal) -> None:
    journal.add_elapsed(1.5)
    journal.close()
    with Journal.open(run, write=True) as second:
        second.add_elapsed(2.0)
    assert read(run, Journal.elapsed) == 3.5


def test_state_of_a_run(run: Path, journal: Journal) -> None:
    assert journal.state == "running"
    assert state(run) == "running"
    journal.close()  # without a word: as when it dies
    assert state(run) == "interrupted"
    with Journal.open(run, write=True) as second:
        assert second.state == "interrupted"
        second.set_state("running")
        assert state(run) == "running"
        second.set_state("done")
    assert state(run) == "done"


def test_new_settings_leave_a_trace(run: Path, journal: Journal) -> None:
    journal.update_settings({"budget": "3h", "limits": [1.5, None]})
    journal.update_settings(journal.settings)  # the same again
    with Journal.open(run, write=False) as reader:
        assert reader.settings == {"budget": "3h", "limits": [1.5, None]}
        assert reader.events() == [(101.0, "settings", {"budget": ["2h", "3h"]})]


SYNCHRONOUS = {1: "NORMAL", 2: "FULL"}
"""What the numbers mean that SQLite answers to PRAGMA synchronous."""


@pytest.mark.parametrize(
    ("write", "level"),
    [
        (lambda journal: journal.finish_evaluation(0, 0, DONE), "FULL"),
        (lambda journal: journal.set_state("done"), "FULL"),
        (lambda journal: journal.update_settings({"budget": "3h"}), "FULL"),
        (lambda journal: journal.add_trial(trial(1)), "NORMAL"),
        (lambda journal: journal.start_evaluation(0, 1, HIGH), "NORMAL"),
        (lambda journal: journal.add_elapsed(1.0), "NORMAL"),
        (lambda journal: journal.add_event("note", {}), "NORMAL"),
    ],
)
def test_results_and_states_outlive_a_loss_of_power(journal: Journal, write: Callable[[Journal], None], level: str) -> None:
    """In WAL mode SQLite synchronises the disk at a commit with FULL alone (sqlite.org/pragma.html#pragma_synchronous)."""
    journal.add_trial(trial(0))
    journal.start_evaluation(0, 0, LOW)
    write(journal)
    assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert SYNCHRONOUS[journal._connection.execute("PRAGMA synchronous").fetchone()[0]] == level


def test_an_unknown_state_is_refused(journal: Journal) -> None:
    with pytest.raises(ValueError, match="must be one of running, done, interrupted, got 'paused'"):
        journal.set_state("paused")  # type: ignore[arg-type]


def test_create_refuses_what_exists(run: Path, journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"already holds a run; use `gpnas resume .*/runs/a`"):
        Journal.create(run, {})
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="photos exists and is not a gpnas run; choose another folder"):
        Journal.create(tmp_path / "photos", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file exists and is not a gpnas run"):
        Journal.create(tmp_path / "file", {})
    with pytest.raises(InputError, match="cannot be made"):
        Journal.create(tmp_path / "file" / "run", {})


def test_a_failed_create_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Journal.create(tmp_path / "run", {"x": math.nan})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [True, False])
def test_open_refuses_what_is_no_run(tmp_path: Path, write: bool) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        Journal.open(tmp_path / "nowhere", write=write)
    with pytest.raises(InputError, match="is not a gpnas run"):
        Journal.open(tmp_path, write=write)
    (tmp_path / "journal.sqlite").write_text("this is a text file and no database at all, whatever its name")
    with pytest.raises(JournalError, match=r"journal\.sqlite cannot be read: file is not a database"):
        Journal.open(tmp_path, write=write)


@pytest.mark.parametrize("write", [True, False])
def test_another_schema_version_is_one_clear_error(run: Path, journal: Journal, write: bool) -> None:
    journal.close()
    connection = sqlite3.connect(run / "journal.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalError, match="schema version 99 and this gpnas reads version 3"):
        Journal.open(run, write=write)


def test_what_a_smaller_budget_pruned_is_evaluated_with_a_larger_one(journal: Journal) -> None:
    for i in range(2):
        journal.add_trial(trial(i))
        journal.start_evaluation(i, 0, LOW)
    journal.finish_evaluation(0, 0, Evaluation(TrialState.PRUNED, message="no time"))
    journal.finish_evaluation(1, 0, Evaluation(TrialState.COMPLETE, {"ap": 0.5}))
    assert journal.lookup("hash0", LOW) is not None
    assert journal.drop_pruned() == 1
    assert journal.lookup("hash0", LOW) is None and journal.lookup("hash1", LOW) is not None
    journal.start_evaluation(0, 0, LOW)


def test_a_second_writer_is_refused_by_name(run: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpnas.run.lock.LOCK_PATIENCE", 0.0)
    with pytest.raises(JournalError, match=f"in use by pid {os.getpid()} on "):
        Journal.open(run, write=True)
    journal.add_elapsed(1.0)  # the first is not disturbed
    journal.close()
    Journal.open(run, write=True).close()


def test_a_reader_cannot_write(run: Path, journal: Journal) -> None:
    with (
        Journal.open(run, write=False) as reader,
        pytest.raises(JournalError, match=re.escape(f"{run} is open for reading only")),
    ):
        reader.add_trial(trial(0))


def test_a_reader_changes_nothing(run: Path, journal: Journal) -> None:
    journal.add_trial(trial(0))
    before = {name: data for name, data in contents(run).items() if not name.endswith("-shm")}  # shared memory: marks
    reader = Journal.open(run, write=False)
    journal.add_trial(trial(1))  # a writer is not held up, a snapshot stays as it is
    assert reader.trials() == [trial(0)]
    reader.close()
    assert set(before) <= set(contents(run))
    journal.close()
    before = contents(run)
    assert set(before) == {"journal.sqlite", "journal.lock"}
    with Journal.open(run, write=False) as reader:
        assert reader.trials() == [trial(0), trial(1)]
    assert contents(run) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_reader_needs_no_right_to_write(run: Path, journal: Journal) -> None:
    journal.add_trial(trial(0))
    journal.close()
    run.chmod(0o555)
    try:
        assert read(run, Journal.trials) == [trial(0)]
    finally:
        run.chmod(0o755)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from gpnas.run.journal import Journal, TrialRow
    from gpnas.search.trial import Evaluation, Fidelity, Origin, TrialState
    journal = Journal.create(Path(sys.argv[1]), {})
    for i in range(50):
        journal.add_trial(TrialRow(i, f"hash{i}", "x: 1", Origin("sample"), 0.0, 1, 1))
        journal.start_evaluation(i, 0, Fidelity(1, 64))
        if i < 49:
            journal.finish_evaluation(i, 0, Evaluation(TrialState.COMPLETE, {"ap": i / 100}))
    journal._connection.execute("BEGIN IMMEDIATE")                      # in the middle of a transaction
    journal._connection.execute("UPDATE run SET elapsed = 1e9")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_survives_kill_9(run: Path, tmp_path: Path) -> None:
    code = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(run)], timeout=60).returncode
    assert code == -signal.SIGKILL
    before = contents(run)
    assert len(before["journal.sqlite-wal"]) > 0
    copied = shutil.copytree(run, tmp_path / "copied")
    (copied / "journal.lock").unlink()
    for folder in (run, copied):
        with Journal.open(folder, write=False) as reader:
            assert reader.state == "interrupted"
            assert reader.elapsed() == 0.0
            assert len(reader.trials()) == 50
            assert reader.lookup("hash48", Fidelity(1, 64)) == Evaluation(TrialState.COMPLETE, {"ap": 0.48})
            assert reader.evaluations()[49].state is TrialState.RUNNING
    assert contents(run) == before
    for folder in (run, copied):
        with Journal.open(folder, write=True) as writer:  # the dead writer's lock is gone
            assert writer.drop_running() == 1
            assert len(writer.evaluations()) == 49


VERSION_2 = """
BEGIN;
CREATE TABLE run (settings TEXT NOT NULL, state TEXT NOT NULL, elapsed REAL NOT NULL, created REAL NOT NULL);
CREATE TABLE trials (
    id INTEGER PRIMARY KEY, hash TEXT NOT NULL, genotype TEXT NOT NULL, origin TEXT NOT NULL,
    score REAL NOT NULL, params INTEGER NOT NULL, macs INTEGER NOT NULL
);
CREATE TABLE evaluations (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    trial INTEGER NOT NULL REFERENCES trials (id), rung INTEGER NOT NULL,
    hash TEXT NOT NULL, epochs INTEGER NOT NULL, imgsz INTEGER NOT NULL, data_share REAL NOT NULL,
    state TEXT NOT NULL, evaluation TEXT, started REAL NOT NULL, finished REAL,
    UNIQUE (trial, rung), UNIQUE (hash, epochs, imgsz, data_share)
);
CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL);
INSERT INTO run VALUES ('{"budget": "2h"}', 'done', 7.5, 1.0);
INSERT INTO trials VALUES (3, 'h3', '{}', 'sample', 1.5, 10, 20);
INSERT INTO evaluations (trial, rung, hash, epochs, imgsz, data_share, state, evaluation, started, finished) VALUES
    (3, 1, 'h3', 4, 64, 0.5, 'complete',
     '{"state": "complete", "metrics": {"ap": 0.25}, "seconds": 2.0, "epochs": 4, "cause": null, "message": ""}', 2.0, 4.0);
PRAGMA user_version = 2;
COMMIT;
"""


@pytest.mark.parametrize("write", [False, True])
def test_a_journal_of_the_version_before_seeds_opens_with_all_that_it_holds(tmp_path: Path, write: bool) -> None:
    (tmp_path / "old").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "old" / "journal.sqlite")) as connection:
        connection.executescript(VERSION_2)
    before = (tmp_path / "old" / "journal.sqlite").read_bytes()
    with Journal.open(tmp_path / "old", write=write) as journal:
        assert journal.settings == {"budget": "2h"} and journal.elapsed() == 7.5
        evaluations = journal.evaluations()
        assert [(e.trial_id, e.rung, e.fidelity, e.started, e.finished) for e in evaluations] == [
            (3, 1, Fidelity(4, 64, 0.5, seed=0), 2.0, 4.0)
        ]
        assert evaluations[0].evaluation is not None and evaluations[0].evaluation.metrics == {"ap": 0.25}
        assert journal.lookup("h3", Fidelity(4, 64, 0.5)) == evaluations[0].evaluation
        if write:
            journal.start_evaluation(3, 1, Fidelity(4, 64, 0.5, seed=10))
            assert [e.fidelity.seed for e in journal.evaluations()] == [0, 10]
    if not write:
        assert (tmp_path / "old" / "journal.sqlite").read_bytes() == before
