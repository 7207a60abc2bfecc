"""The lock: one writer, several readers, and the kernel frees it when its owner dies."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gpnas.errors import JournalError
from gpnas.run import lock
from gpnas.run.lock import RunLock


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOCK_PATIENCE", 0.0)


def test_a_second_writer_is_refused_until_the_first_releases(tmp_path: Path) -> None:
    owner = f"pid {os.getpid()} on {socket.gethostname()}"
    first = RunLock.exclusive(tmp_path)
    assert (tmp_path / "journal.lock").read_text() == f"{owner}\n"
    with pytest.raises(JournalError, match=f"{re.escape(str(tmp_path))} is in use by {re.escape(owner)}; wait for it"):
        RunLock.exclusive(tmp_path)
    first.release()
    first.release()
    RunLock.exclusive(tmp_path).release()


def test_the_owner_s_name_replaces_a_longer_one(tmp_path: Path) -> None:
    (tmp_path / "journal.lock").write_text("pid 123456789 on a-machine-with-a-very-long-name-that-wrote-here-before\n")
    with RunLock.exclusive(tmp_path):
        assert (tmp_path / "journal.lock").read_text() == f"pid {os.getpid()} on {socket.gethostname()}\n"


def test_a_reader_sees_a_living_writer_and_holds_nothing(tmp_path: Path) -> None:
    with RunLock.exclusive(tmp_path), RunLock.shared(tmp_path) as reader:
        assert reader.writer_is_alive
    RunLock.exclusive(tmp_path).release()  # both have released


def test_readers_share_the_lock_and_keep_writers_out(tmp_path: Path) -> None:
    RunLock.exclusive(tmp_path).release()
    with RunLock.shared(tmp_path) as one, RunLock.shared(tmp_path) as two:
        assert not one.writer_is_alive and not two.writer_is_alive
        with pytest.raises(JournalError, match="in use by"):
            RunLock.exclusive(tmp_path)


def test_a_writer_waits_for_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunLock.exclusive(tmp_path).release()
    reader = RunLock.shared(tmp_path)
    monkeypatch.setattr(lock, "LOCK_PATIENCE", 60.0)
    monkeypatch.setattr("gpnas.run.lock.time.sleep", lambda seconds: reader.release())
    RunLock.exclusive(tmp_path).release()


def test_a_folder_without_a_lock_file_is_read_as_it_is(tmp_path: Path) -> None:
    with RunLock.shared(tmp_path) as reader:
        assert not reader.writer_is_alive
    assert list(tmp_path.iterdir()) == []


def test_an_empty_lock_file_is_another_process_s(tmp_path: Path) -> None:
    with RunLock.exclusive(tmp_path):
        (tmp_path / "journal.lock").write_text("")
        with pytest.raises(JournalError, match="is in use by another process; wait for it"):
            RunLock.exclusive(tmp_path)


def test_a_killed_writer_leaves_no_lock(tmp_path: Path) -> None:
    script = (
        "import os, sys, signal; from pathlib import Path; from gpnas.run.lock import RunLock\n"
        "lock = RunLock.exclusive(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, tmp_path], check=False).returncode == -signal.SIGKILL
    assert (tmp_path / "journal.lock").read_text().startswith("pid ")
    with RunLock.shared(tmp_path) as reader:
        assert not reader.writer_is_alive
    RunLock.exclusive(tmp_path).release()
