"""The lock of a run directory (flock(2) on RUN/journal.lock): one writer, or any number of readers that copy the journal.

    with RunLock.exclusive(run):                  # JournalError when another process writes to `run`
        ...
    with RunLock.shared(run) as lock:             # never waits
        lock.writer_is_alive                      # then nothing is locked, and the writer may go on meanwhile

The lock belongs to the open file, so the kernel drops it when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path
from types import TracebackType

from gpnas.errors import JournalError

LOCK = "journal.lock"

LOCK_PATIENCE = 2.0
"""Seconds that a writer waits for the lock, because a reader holds it while it copies the journal."""


class RunLock:
    """A lock from its making by `exclusive` or `shared` until `release`, or until the `with` block ends.

    writer_is_alive: another process holds the lock for writing, so this one holds nothing.
    """

    def __init__(self, descriptor: int | None, *, writer_is_alive: bool = False) -> None:
        self._descriptor = descriptor
        self.writer_is_alive = writer_is_alive

    @classmethod
    def exclusive(cls, run: Path) -> RunLock:
        """The lock of the writer. Raises JournalError, which names the owner, when it is not free within LOCK_PATIENCE."""
        deadline = time.monotonic() + LOCK_PATIENCE
        while (descriptor := _try_lock(run / LOCK, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)) is None:
            if time.monotonic() > deadline:
                raise JournalError(f"{run} is in use by {_owner(run)}; wait for it, or stop it, before writing to this run")
            time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        return cls(descriptor)

    @classmethod
    def shared(cls, run: Path) -> RunLock:
        """The lock of a reader, which keeps writers out. It holds nothing when a writer is alive or no lock file exists."""
        try:
            descriptor = _try_lock(run / LOCK, os.O_RDONLY, fcntl.LOCK_SH)
        except FileNotFoundError:
            return cls(None)  # the folder was copied without its lock file, or no process has written to it
        return cls(descriptor, writer_is_alive=descriptor is None)

    def release(self) -> None:
        """A second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def _try_lock(path: Path, flags: int, kind: int) -> int | None:
    """The descriptor of the locked file; None when another process holds the lock."""
    descriptor = os.open(path, flags, 0o644)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _owner(run: Path) -> str:
    with contextlib.suppress(OSError):
        return (run / LOCK).read_text().strip() or "another process"
    return "another process"
