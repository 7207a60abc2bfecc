"""Local processes that evaluate candidates, one in each slot.

    with LocalWorkers(evaluator, slots=2) as workers:
        workers.submit(Job((7, 0, 0), candidate, Fidelity(4, 160), Path("run/trials/7"), timeout=600.0))
        for message in workers.poll(timeout=0.5):     # Progress((7, 0, 0), {"epoch": 1, ...}) ... Done((7, 0, 0), evaluation)
            ...

A worker is a spawned process that serves many jobs, so that imports and decoded data are paid for once. Every end of a job
comes back as an `Evaluation`, with a cause when it failed: an exception is `error` or `oom`, a job beyond its timeout is killed
(`timeout`), a process that dies is `lost`. After any of these the slot gets a new process, because the old one may be damaged
(by a CUDA error, say). The folder of a trial holds what its evaluations print (output.txt) and the last traceback (error.txt).

Workers ignore Ctrl-C, which the parent handles. They die with the parent, even when it is killed: on Linux by prctl(2)
PR_SET_PDEATHSIG, which is bound to the *thread* that starts them, and on all systems because they watch the parent. Therefore
make and use `LocalWorkers` in a thread that lives as long as the search.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import TracebackType
from typing import Any

from gpnas.errors import is_out_of_memory
from gpnas.files import write_text
from gpnas.search.trial import Candidate, Cause, Evaluation, Evaluator, Fidelity, failure

Key = tuple[int, int, int]
"""Trial id, rung and seed."""

START_TIMEOUT = 300.0
"""Seconds that a worker may take to import what the evaluator needs (a cold network disk is slow)."""

CHECK_SECONDS = 1.0
"""How often a waiting parent checks that its workers live: a grandchild may keep the pipe of a dead worker open."""

KILL_SECONDS = 10.0
"""How long the parent waits for a killed process: one that hangs in a driver ends only when the driver lets it."""


@dataclass(frozen=True)
class Job:
    """An evaluation to run. timeout: seconds from the moment at which a worker starts it; None: no limit."""

    key: Key
    candidate: Candidate
    fidelity: Fidelity
    trial_dir: Path
    timeout: float | None = None


@dataclass(frozen=True)
class Done:
    """The end of a job. A failure that the evaluator did not return itself counts the epochs that it reported."""

    key: Key
    evaluation: Evaluation


@dataclass(frozen=True)
class Progress:
    """A report of the evaluator of a running job."""

    key: Key
    data: dict[str, Any]


class LocalWorkers:
    """`slots` processes on this machine, each with a copy of `evaluator`; a context manager. Use it in one thread only."""

    def __init__(self, evaluator: Evaluator, slots: int) -> None:
        if slots < 1:
            raise ValueError(f"slots must be at least 1, got {slots}")
        self._slots = [_Slot(evaluator) for _ in range(slots)]
        atexit.register(self.close)  # runs before the exit handler of multiprocessing, which waits for children that never end
        try:
            for slot in self._slots:  # all at once, so that they import in parallel
                slot.start()
        except BaseException:
            self.close()
            raise

    @property
    def free(self) -> int:
        """How many jobs can be submitted now."""
        return sum(slot.job is None for slot in self._slots)

    def submit(self, job: Job) -> None:
        """Give `job` to a free slot. Raises ValueError when there is none; look at `free` first."""
        slot = next((slot for slot in self._slots if slot.job is None), None)
        if slot is None:
            raise ValueError(f"all {len(self._slots)} slots are busy; poll before submitting job {job.key}")
        slot.assign(job)

    def poll(self, timeout: float) -> list[Done | Progress]:
        """New messages. Waits up to `timeout` seconds for the first one; returns at once when no job is running."""
        until = time.monotonic() + timeout
        while True:
            messages = [message for slot in self._slots for message in slot.messages()]
            busy = [slot for slot in self._slots if slot.job is not None]
            now = time.monotonic()
            if messages or not busy or now >= until:
                return messages
            wait = min([until - now, CHECK_SECONDS, *(slot.deadline - now for slot in busy)])
            connection.wait([slot.pipe for slot in busy], max(wait, 0.0))

    def close(self) -> None:
        """Kill all workers; running evaluations are lost. A second call does nothing."""
        atexit.unregister(self.close)
        for slot in self._slots:
            slot.stop()

    def __enter__(self) -> LocalWorkers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Slot:
    """One worker process and its job. A job is not sent before the process is ready, so that sending never blocks."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._process: SpawnProcess | None = None
        self._ready = False
        self.job: Job | None = None
        self._began = 0.0
        self._epochs = 0
        self.deadline = 0.0

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        process = context.Process(target=_work, args=(self._evaluator, theirs, os.getpid()), name="gpnas-worker")
        with theirs, _sigint_blocked():  # a child inherits the mask, so Ctrl-C cannot end it before it ignores Ctrl-C
            process.start()
        self._process, self._ready = process, False

    def stop(self) -> int | None:
        """Kill the process and all processes that it started; returns its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        if self._ready:  # it leads a process group of its own
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(_pid(process), signal.SIGKILL)
        process.kill()
        process.join(KILL_SECONDS)
        self.pipe.close()
        return process.exitcode

    def assign(self, job: Job) -> None:
        if self._process is not None and self._process.exitcode is not None:
            self.stop()  # it died between two jobs
        if self._process is None:
            self.start()
        self.job, self._epochs = job, 0
        self._began, self.deadline = time.monotonic(), time.monotonic() + START_TIMEOUT
        if self._ready:
            self._send()

    def messages(self) -> Iterator[Done | Progress]:
        """New messages of the process, and a failure when it died or is late."""
        job = self.job
        if job is None or self._process is None:
            return
        exited = self._process.exitcode is not None  # checked before reading, so that its last messages are read too
        try:
            while self.job is not None and self.pipe.poll():
                message = self._receive(job, *self.pipe.recv())
                if message is not None:
                    yield message
        except (EOFError, OSError):
            exited = True
        if self.job is None:
            return
        if exited:
            yield self._fail(job, Cause.LOST, _death_message(self._ended(), self._ready))
        elif time.monotonic() >= self.deadline:
            self.stop()
            if self._ready:
                yield self._fail(job, Cause.TIMEOUT, f"not done after {job.timeout:g} s")
            else:
                yield self._fail(job, Cause.LOST, f"worker was not ready after {START_TIMEOUT:.0f} s")

    def _receive(self, job: Job, kind: str, content: Any) -> Done | Progress | None:
        if kind == "ready":
            self._ready = True
            self._send()
            return None
        if kind == "progress":
            self._epochs += 1
            return Progress(job.key, content)
        self.job = None
        if kind == "raised":
            self.stop()
        return Done(job.key, content)

    def _send(self) -> None:
        assert self.job is not None
        self._began = time.monotonic()
        self.deadline = float("inf") if self.job.timeout is None else self._began + self.job.timeout
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is dead, as messages() will notice
            self.pipe.send(self.job)

    def _ended(self) -> int | None:
        """The exit code of a process that is ending or whose pipe is closed; it is killed when it does not end by itself."""
        if self._process is not None:
            self._process.join(1.0)
        return self.stop()

    def _fail(self, job: Job, cause: Cause, message: str) -> Done:
        self.job = None
        return Done(job.key, failure(cause, message, time.monotonic() - self._began, self._epochs))


def _pid(process: SpawnProcess) -> int:
    assert process.pid is not None  # it was started
    return process.pid


def _death_message(exitcode: int | None, was_ready: bool) -> str:
    text = f"worker died with exit code {exitcode}"
    if exitcode is not None and exitcode < 0:
        with contextlib.suppress(ValueError):
            text += f" ({signal.Signals(-exitcode).name})"
        if -exitcode == signal.SIGKILL:
            text += ", perhaps killed by the kernel because memory ran out; try fewer workers"
    return text if was_ready else f"{text} before it was ready"


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(evaluator: Evaluator, pipe: connection.Connection, parent: int) -> None:
    _end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setsid"):
        os.setsid()  # a process group of its own, so that the parent can kill this process with all its children
    pipe.send(("ready", None))
    with contextlib.suppress(EOFError, OSError):  # the parent has closed the pipe
        while True:
            job: Job = pipe.recv()
            kind, evaluation = _evaluate(evaluator, job, pipe)
            pipe.send((kind, evaluation))
            if kind == "raised":
                return


def _evaluate(evaluator: Evaluator, job: Job, pipe: connection.Connection) -> tuple[str, Evaluation]:
    """Run a job in this worker: ("done", its evaluation) or ("raised", a failure)."""
    began = time.monotonic()
    epochs = 0

    def report(data: dict[str, Any]) -> None:
        nonlocal epochs
        epochs += 1
        pipe.send(("progress", data))

    try:
        job.trial_dir.mkdir(parents=True, exist_ok=True)
        with _output_to(job.trial_dir / "output.txt"):
            evaluation = evaluator.evaluate(job.candidate, job.fidelity, job.trial_dir, report)
        if not isinstance(evaluation, Evaluation):
            raise TypeError(f"{type(evaluator).__name__}.evaluate returned {evaluation!r}, which is no Evaluation")
        ForkingPickler.dumps(evaluation)  # an evaluation that cannot be sent must fail here
        return "done", evaluation
    except BaseException as error:  # SystemExit too: an evaluator must not end its worker
        with contextlib.suppress(OSError):  # a full disk must not hide the error itself
            write_text(job.trial_dir / "error.txt", traceback.format_exc())
        cause = Cause.OOM if is_out_of_memory(error) else Cause.ERROR
        return "raised", failure(cause, _one_line(error), time.monotonic() - began, epochs)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send standard output and error to `path`, those of C libraries and crash reports too; an empty file is removed."""
    with path.open("a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    faulthandler.enable(2)
    yield
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    if path.stat().st_size == 0:
        path.unlink()


def _end_with(parent: int) -> None:
    """Make sure that this process ends when its parent ends."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # <linux/prctl.h>
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call of prctl
        os._exit(1)
    threading.Thread(target=_watch_parent, name="gpnas-parent-watch", daemon=True).start()


def _watch_parent() -> None:
    process = multiprocessing.parent_process()
    assert process is not None  # this is a child
    process.join()
    os._exit(1)
