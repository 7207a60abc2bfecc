"""TODO."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path

from gpnas.errors import JournalError

LOCK = "journal.lock"

LOCK_PATIENCE = 2.0
"""Seconds that a writer waits for the lock: a reader holds it for the moment of a copy."""


# flock(2) belongs to the open file, so the kernel drops the lock with the process.

_HELD = -1


def _try_lock(run: Path, kind: int) -> int | None:
    """The descriptor that holds the lock; _HELD when another has it; None when there is no lock file to read."""
    writing = kind == fcntl.LOCK_EX
    try:
        descriptor = os.open(run / LOCK, os.O_RDWR | os.O_CREAT if writing else os.O_RDONLY, 0o644)
    except FileNotFoundError:
        return None  # no writer ever was, or the folder was copied without it
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return _HELD
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _take_lock(run: Path) -> int:
    deadline = time.monotonic() + LOCK_PATIENCE
    while (descriptor := _try_lock(run, fcntl.LOCK_EX)) in (None, _HELD):
        if time.monotonic() > deadline:
            raise JournalError(f"{run} is in use by {_owner(run)}; wait for it, or stop it, before writing to this run")
        time.sleep(0.05)
    assert descriptor is not None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return descriptor


def _owner(run: Path) -> str:
    with contextlib.suppress(OSError):
        return (run / LOCK).read_text().strip() or "another process"
    return "another process"


def _release(descriptor: int | None) -> None:
    if descriptor is not None and descriptor != _HELD:
        os.close(descriptor)
