"""The journal of a run: all trials, evaluations and events of a search in one SQLite file that survives kill -9.

    journal = Journal.create(Path("runs/a"), {"budget": "2h"})   # or Journal.open(run, write=True) to go on
    journal.add_trial(row)
    journal.start_evaluation(0, rung=0, fidelity=Fidelity(4, 160))
    journal.finish_evaluation(0, rung=0, evaluation=evaluator.evaluate(...))
    journal.lookup(row.hash, Fidelity(4, 160))                   # so that nothing is evaluated twice
    journal.close()

    Journal.open(run, write=False).evaluations()                 # a snapshot; it changes nothing, even while a writer works

There is one writer, which holds the run's lock (lock.py). The file is in WAL mode (sqlite.org/wal.html): after a crash of the
process a commit is whole or absent. Commits of finished evaluations are synchronised to the disk, so that they also survive a
loss of power. The settings are any JSON object; settings.py gives them their meaning.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, get_args

from gpnas.errors import InputError, JournalError
from gpnas.run.lock import RunLock
from gpnas.run.schema import SCHEMA_VERSION, create, version_after_migration
from gpnas.search.trial import Cause, Evaluation, Fidelity, Origin, TrialState

DATABASE = "journal.sqlite"

PLAN, CONFIRM = "plan", "confirm"
"""Kinds of events: a plan, with the number of rungs from a decision on; and a confirmation that begins, with its trials."""

RunState = Literal["running", "done", "interrupted"]


@dataclass(frozen=True)
class TrialRow:
    """One candidate of the search. params, macs: of the fused network on one image of the run's size."""

    id: int
    hash: str
    genotype: str
    origin: Origin
    score: float
    params: int
    macs: int

    def __post_init__(self) -> None:
        if not math.isfinite(self.score):
            raise ValueError(f"the score of trial {self.id} must be finite, got {self.score}")

    @property
    def flops(self) -> int:
        """2 x MACs."""
        return 2 * self.macs


@dataclass(frozen=True)
class EvaluationRow:
    """One evaluation of one trial. started, finished: seconds since 1970; without `finished` it has no `evaluation` either."""

    trial_id: int
    rung: int
    fidelity: Fidelity
    state: TrialState
    evaluation: Evaluation | None
    started: float
    finished: float | None


class EventRow(NamedTuple):
    """An event in the history of a run. time: seconds since 1970."""

    time: float
    kind: str
    data: dict[str, Any]


class Journal:
    """The journal of a run, open for writing (by one process) or as a snapshot to read. Use `create` or `open` to make one."""

    def __init__(
        self,
        run: Path,
        connection: sqlite3.Connection,
        lock: RunLock | None,
        writer_is_alive: bool,
        clock: Callable[[], float],
    ) -> None:
        self.run = run
        self._connection = connection
        self._lock = lock
        self._writer_is_alive = writer_is_alive
        self._clock = clock

    @staticmethod
    def check_new(run: Path) -> None:
        """Raises InputError when `run` exists. A search asks this before its preparation, which takes time."""
        if (run / DATABASE).exists():
            raise InputError(f"--out {run} already holds a run; use `gpnas resume {run}`")
        if run.exists() or run.is_symlink():
            raise InputError(f"--out {run} exists and is not a gpnas run; choose another folder")

    @classmethod
    def create(cls, run: Path, settings: dict[str, Any], *, clock: Callable[[], float] = time.time) -> Journal:
        """Make the folder `run` and open its journal for writing. Raises InputError when it exists or cannot be made."""
        cls.check_new(run)
        # The folder is made under another name and renamed, so that a kill between two steps leaves no half-made run.
        try:
            run.parent.mkdir(parents=True, exist_ok=True)
            half = run.parent / f".{run.name}.{os.getpid()}.new"
            half.mkdir()
            try:
                _write_schema(half / DATABASE, settings, clock())
                half.rename(run)
            finally:
                shutil.rmtree(half, ignore_errors=True)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"--out {run} cannot be made ({error}); choose another folder") from error
        journal = cls.open(run, write=True, clock=clock)
        journal.set_state("running")
        return journal

    @classmethod
    def open(cls, run: Path, *, write: bool, clock: Callable[[], float] = time.time) -> Journal:
        """Open the journal of an existing run, for writing or as a snapshot of this moment.

        Raises InputError when `run` is no run, and JournalError when the journal is damaged, was made by another version of
        gpnas, or (for writing) is in use by another process.
        """
        if not run.exists():
            raise InputError(f"{run} does not exist; give the folder of a run, the --out of `gpnas search`")
        if not (run / DATABASE).is_file():
            raise InputError(f"{run} is not a gpnas run (it holds no {DATABASE}); give the --out of `gpnas search`")
        with contextlib.ExitStack() as undo:
            try:
                if write:
                    lock, writer_is_alive = undo.enter_context(RunLock.exclusive(run)), False
                    connection = _connect(run / DATABASE)
                else:
                    lock = None
                    connection, writer_is_alive = _snapshot(run)
                undo.callback(connection.close)
                journal = cls(run, connection, lock, writer_is_alive, clock)
                journal._check_version()
                if write:
                    journal._settle()
            except (OSError, sqlite3.Error) as error:
                raise JournalError(f"{run / DATABASE} cannot be read: {error}") from error
            undo.pop_all()
        return journal

    def close(self) -> None:
        """Close the journal; `journal.sqlite` alone then holds everything. A second call does nothing."""
        if self._lock is not None:
            with contextlib.suppress(sqlite3.Error):  # if this fails, the content of the WAL stays valid
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as they were stored."""
        settings: dict[str, Any] = json.loads(self._rows("SELECT settings FROM run")[0][0])
        return settings

    def update_settings(self, settings: dict[str, Any]) -> None:
        """Replace the settings, as for a new budget; an event records the old and the new value of each changed key."""
        old = self.settings
        changed = {k: [old.get(k), settings.get(k)] for k in sorted({*old, *settings}) if old.get(k) != settings.get(k)}
        with self._transaction(durable=True) as connection:
            connection.execute("UPDATE run SET settings = ?", (json.dumps(settings, allow_nan=False),))
            if changed:
                self._insert_event("settings", changed)

    @property
    def state(self) -> RunState:
        """The state that was set last, but "interrupted" for a run that was left running and that no process writes to."""
        state: RunState = self._rows("SELECT state FROM run")[0][0]
        if state == "running" and self._lock is None and not self._writer_is_alive:
            return "interrupted"
        return state

    def set_state(self, state: RunState) -> None:
        if state not in get_args(RunState):
            raise ValueError(f"state must be one of {', '.join(get_args(RunState))}, got {state!r}")
        with self._transaction(durable=True) as connection:
            connection.execute("UPDATE run SET state = ?", (state,))

    def elapsed(self) -> float:
        """Seconds of wall clock that all sessions of this run have spent together."""
        return float(self._rows("SELECT elapsed FROM run")[0][0])

    def add_elapsed(self, seconds: float) -> None:
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"elapsed seconds must be finite and not negative, got {seconds}")
        with self._transaction() as connection:
            connection.execute("UPDATE run SET elapsed = elapsed + ?", (seconds,))

    def add_trial(self, row: TrialRow) -> None:
        """Raises JournalError when the id is taken."""
        values = (row.id, row.hash, row.genotype, str(row.origin), row.score, row.params, row.macs)
        with self._transaction(f"trial {row.id} is in the journal already") as connection:
            connection.execute("INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def trials(self) -> list[TrialRow]:
        """All trials, by id."""
        rows = self._rows("SELECT id, hash, genotype, origin, score, params, macs FROM trials ORDER BY id")
        try:
            return [
                TrialRow(trial_id, digest, genotype, Origin.parse(origin), score, params, macs)
                for trial_id, digest, genotype, origin, score, params, macs in rows
            ]
        except ValueError as error:
            raise JournalError(f"the journal holds a trial that cannot be read: {error}") from None

    def start_evaluation(self, trial_id: int, rung: int, fidelity: Fidelity) -> None:
        """Raises JournalError for an unknown trial, and for a hash that was evaluated before at this fidelity."""
        hashes = self._rows("SELECT hash FROM trials WHERE id = ?", (trial_id,))
        if not hashes:
            raise JournalError(f"trial {trial_id} is not in the journal; add_trial comes before start_evaluation")
        twice = f"trial {trial_id} (hash {hashes[0][0]}) was evaluated before at rung {rung} or at {fidelity}; use lookup"
        with self._transaction(twice) as connection:
            connection.execute(
                "INSERT INTO evaluations (trial, rung, hash, epochs, imgsz, data_share, seed, state, started) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (trial_id, rung, hashes[0][0], *_key(fidelity), TrialState.RUNNING.value, self._clock()),
            )

    def finish_evaluation(self, trial_id: int, rung: int, evaluation: Evaluation, seed: int = 0) -> None:
        """Raises JournalError when this evaluation is not running: it never started, or it is finished."""
        text = _evaluation_to_json(evaluation)
        with self._transaction(durable=True) as connection:
            changed = connection.execute(
                "UPDATE evaluations SET state = ?, evaluation = ?, finished = ? "
                "WHERE trial = ? AND rung = ? AND seed = ? AND finished IS NULL",
                (evaluation.state.value, text, self._clock(), trial_id, rung, seed),
            ).rowcount
            if changed != 1:
                raise JournalError(f"trial {trial_id} has no running evaluation at rung {rung} that could finish")

    def evaluations(self) -> list[EvaluationRow]:
        """All evaluations, in the order in which they started."""
        rows = self._rows(
            "SELECT trial, rung, epochs, imgsz, data_share, seed, state, evaluation, started, finished "
            "FROM evaluations ORDER BY number"
        )
        return [
            EvaluationRow(
                trial_id=trial,
                rung=rung,
                fidelity=Fidelity(epochs, imgsz, data_share, seed),
                state=TrialState(state),
                evaluation=None if text is None else _evaluation_from_json(text),
                started=started,
                finished=finished,
            )
            for trial, rung, epochs, imgsz, data_share, seed, state, text, started, finished in rows
        ]

    def lookup(self, hash: str, fidelity: Fidelity) -> Evaluation | None:  # noqa: A002  # the field's name everywhere
        """The finished evaluation of a genotype's hash at a fidelity, or None."""
        rows = self._rows(
            "SELECT evaluation FROM evaluations WHERE hash = ? AND epochs = ? AND imgsz = ? AND data_share = ? AND seed = ? "
            "AND evaluation IS NOT NULL",
            (hash, *_key(fidelity)),
        )
        return _evaluation_from_json(rows[0][0]) if rows else None

    def drop_running(self) -> int:
        """Remove evaluations that a dead writer left running, so that they run again. Returns their number."""
        with self._transaction() as connection:
            rows = connection.execute("SELECT trial, rung, seed FROM evaluations WHERE finished IS NULL ORDER BY number")
            dropped = [list(row) for row in rows]
            if dropped:
                connection.execute("DELETE FROM evaluations WHERE finished IS NULL")
                self._insert_event("dropped", {"evaluations": dropped})
        return len(dropped)

    def drop_pruned(self) -> int:
        """Remove evaluations that the budget had no time for, so that a larger budget runs them. Returns their number."""
        with self._transaction() as connection:
            return connection.execute("DELETE FROM evaluations WHERE state = ?", (TrialState.PRUNED.value,)).rowcount

    def add_event(self, kind: str, data: dict[str, Any]) -> None:
        """Raises ValueError when `data` is not JSON, or holds NaN or infinity."""
        with self._transaction():
            self._insert_event(kind, data)

    def events(self) -> list[EventRow]:
        rows = self._rows("SELECT time, kind, data FROM events ORDER BY number")
        return [EventRow(moment, kind, json.loads(data)) for moment, kind, data in rows]

    def _insert_event(self, kind: str, data: dict[str, Any]) -> None:
        values = (self._clock(), kind, json.dumps(data, allow_nan=False))
        self._connection.execute("INSERT INTO events (time, kind, data) VALUES (?, ?, ?)", values)

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise JournalError(f"{self.run / DATABASE} cannot be read: {error}") from error

    @contextlib.contextmanager
    def _transaction(self, duplicate: str = "", *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction for the block: committed when it ends, rolled back when it raises.

        duplicate: the message for a violated constraint. durable: synchronise the disk at the commit.
        """
        if self._lock is None:
            raise JournalError(f"{self.run} is open for reading only")
        connection = self._connection
        try:
            # In WAL mode a commit synchronises the disk with FULL, earlier commits included, and does not with NORMAL.
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.IntegrityError as error:
            raise JournalError(f"{self.run}: {duplicate or error}") from error
        except sqlite3.Error as error:
            raise JournalError(f"{self.run / DATABASE} cannot be written: {error}") from error

    def _check_version(self) -> None:
        version = version_after_migration(self._connection)
        if version != SCHEMA_VERSION:
            raise JournalError(
                f"{self.run / DATABASE} has schema version {version} and this gpnas reads version {SCHEMA_VERSION}; "
                "use the gpnas that made the run"
            )

    def _settle(self) -> None:
        """Set the state to interrupted when a dead writer left the run as running."""
        with self._transaction() as connection:
            connection.execute("UPDATE run SET state = 'interrupted' WHERE state = 'running'")


def _write_schema(path: Path, settings: dict[str, Any], now: float) -> None:
    connection = _connect(path)
    with contextlib.closing(connection):
        connection.execute("PRAGMA journal_mode = WAL")
        create(connection)
        text = json.dumps(settings, allow_nan=False)
        connection.execute("INSERT INTO run VALUES (?, 'running', 0.0, ?)", (text, now))


def _connect(path: Path) -> sqlite3.Connection:
    """A connection for writing, with explicit transactions (isolation_level None)."""
    connection = sqlite3.connect(path, timeout=30.0, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _snapshot(run: Path) -> tuple[sqlite3.Connection, bool]:
    """The journal copied into memory, and whether a writer is alive.

    While a writer is alive, SQLite reads the file itself. Without one, even a reader would have to repair the write-ahead log
    that a kill left behind. That would change the folder, and fail where the reader may not write: a copy is repaired instead.
    """
    with RunLock.shared(run) as lock:
        if lock.writer_is_alive:
            return _in_memory(f"{(run / DATABASE).absolute().as_uri()}?mode=ro"), True
        with tempfile.TemporaryDirectory(prefix="gpnas-") as folder:
            for name in (DATABASE, f"{DATABASE}-wal"):
                if (run / name).exists():
                    shutil.copyfile(run / name, Path(folder, name))
            return _in_memory(Path(folder, DATABASE).as_uri()), False


def _in_memory(uri: str) -> sqlite3.Connection:
    memory = sqlite3.connect(":memory:", isolation_level=None)
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=30.0)) as source:
        source.backup(memory)
    return memory


def _key(fidelity: Fidelity) -> tuple[int, int, float, int]:
    return fidelity.epochs, fidelity.imgsz, float(fidelity.data_share), fidelity.seed


def _evaluation_to_json(evaluation: Evaluation) -> str:
    fields = {
        "state": evaluation.state.value,
        "metrics": dict(evaluation.metrics),
        "seconds": evaluation.seconds,
        "epochs": evaluation.epochs,
        "cause": None if evaluation.cause is None else evaluation.cause.value,
        "message": evaluation.message,
    }
    return json.dumps(fields, allow_nan=False)


def _evaluation_from_json(text: str) -> Evaluation:
    fields = json.loads(text)
    return Evaluation(
        state=TrialState(fields["state"]),
        metrics=fields["metrics"],
        seconds=fields["seconds"],
        epochs=fields["epochs"],
        cause=None if fields["cause"] is None else Cause(fields["cause"]),
        message=fields["message"],
    )
