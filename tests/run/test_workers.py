"""Workers: whatever happens to an evaluation or its process comes back as an evaluation with a cause."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpnas.graph.graph import GraphBuilder
from gpnas.run.workers import Done, Job, LocalWorkers, Progress
from gpnas.search.trial import Candidate, Cause, Evaluation, Evaluator, Fidelity, Report, TrialState, failure

ENOUGH = 60.0
"""Seconds after which a test has hung."""


@dataclass(frozen=True)
class Pid:
    """Succeeds; `epochs` is the process that did it."""

    def evaluate(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation:
        for epoch in range(1, fidelity.epochs + 1):
            report({"epoch": epoch, "epochs": fidelity.epochs})
        print("talking to", candidate.genotype)
        return Evaluation(TrialState.COMPLETE, {"ap": 0.5}, epochs=os.getpid())


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


class Unpicklable(dict[str, float]):
    def __reduce__(self) -> Any:
        raise TypeError("these metrics cannot be pickled")


@dataclass(frozen=True)
class Faulty:
    """Does to the process what the genotype says; passes everything else on."""

    inner: Evaluator

    def evaluate(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation:
        match candidate.genotype:
            case "raise":
                report({"epoch": 1})
                raise ValueError("two\nlines")
            case "oom":
                raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            case "memory":
                raise MemoryError
            case "exit":
                os._exit(3)
            case "sys.exit":
                sys.exit("leaving")
            case "kill":
                report({"epoch": 1})
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hang":
                report({"epoch": 1, "pid": os.getpid()})
                time.sleep(10 * ENOUGH)
            case "family":  # a child of its own that keeps the pipe open
                child = os.fork()
                if child == 0:
                    time.sleep(10 * ENOUGH)
                report({"child": child})
                time.sleep(10 * ENOUGH)
            case "none":
                return None  # type: ignore[return-value]
            case "unpicklable":
                return Evaluation(TrialState.COMPLETE, Unpicklable(ap=0.5))
            case "failure":
                return failure(Cause.NAN, "loss is NaN at epoch 1", epochs=os.getpid())
            case "interrupt":
                os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C reaches every process of a terminal
        return self.inner.evaluate(candidate, fidelity, trial_dir, report)


@dataclass(frozen=True)
class Rendezvous:
    """Succeeds when `others` evaluations run at the same moment."""

    others: int

    def evaluate(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation:
        (trial_dir.parent / f"{os.getpid()}.here").touch()
        until = time.monotonic() + ENOUGH
        while len(list(trial_dir.parent.glob("*.here"))) < self.others and time.monotonic() < until:
            time.sleep(0.01)
        return Evaluation(TrialState.COMPLETE, {"ap": len(list(trial_dir.parent.glob("*.here"))) / self.others})


class DiesAtHome:
    """Cannot be rebuilt in a worker."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        os._exit(7)

    def __getstate__(self) -> dict[str, Any]:
        return {"something": 1}

    def evaluate(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation:
        raise NotImplementedError


def candidate(genotype: str) -> Candidate:
    b = GraphBuilder(channels=3)
    b.output(b.conv(b.image, 8), "p", stride=1)
    return Candidate(genotype, genotype, b.build())


def job(tmp_path: Path, genotype: str, *, number: int = 0, epochs: int = 1, timeout: float | None = ENOUGH) -> Job:
    return Job((number, 0, 0), candidate(genotype), Fidelity(epochs, 64), tmp_path / str(number), timeout)


def drain(workers: LocalWorkers, slots: int) -> list[Done | Progress]:
    """Everything until all slots are free."""
    messages: list[Done | Progress] = []
    until = time.monotonic() + 2 * ENOUGH
    while workers.free < slots:
        assert time.monotonic() < until, f"hangs after {messages}"
        messages += workers.poll(5.0)
    return messages


def one(workers: LocalWorkers, job: Job) -> Evaluation:
    workers.submit(job)
    last = drain(workers, 1)[-1]
    assert isinstance(last, Done)
    assert last.key == job.key
    return last.evaluation


def is_running(pid: int) -> bool:
    """A process that waits for its parent to be noticed (a zombie) has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def ends(*pids: int) -> bool:
    until = time.monotonic() + 10.0
    while any(map(is_running, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(is_running, pids))


@pytest.fixture(scope="module")
def faulty() -> Any:
    with LocalWorkers(Faulty(Pid()), slots=1) as workers:
        yield workers


def test_progress_comes_before_the_result(faulty: LocalWorkers, tmp_path: Path) -> None:
    faulty.submit(job(tmp_path, "fine", number=4, epochs=2))
    assert faulty.free == 0
    messages = drain(faulty, 1)
    assert messages[:2] == [Progress((4, 0, 0), {"epoch": e, "epochs": 2}) for e in (1, 2)]
    assert isinstance(messages[2], Done)
    assert messages[2].evaluation.metrics == {"ap": 0.5}
    assert (tmp_path / "4" / "output.txt").read_text() == "talking to fine\n"


def test_a_worker_is_kept_for_the_next_job(faulty: LocalWorkers, tmp_path: Path) -> None:
    first = one(faulty, job(tmp_path, "fine"))
    failed = one(faulty, job(tmp_path, "failure"))  # a failure that the evaluator reports is no reason to distrust it
    assert failed.cause is Cause.NAN
    assert first.epochs == failed.epochs == one(faulty, job(tmp_path, "fine")).epochs != os.getpid()


def test_ctrl_c_is_the_parents_business(faulty: LocalWorkers, tmp_path: Path) -> None:
    assert one(faulty, job(tmp_path, "interrupt")).state is TrialState.COMPLETE


@pytest.mark.parametrize(
    ("genotype", "cause", "message", "epochs"),
    [
        ("raise", Cause.ERROR, "ValueError: two lines", 1),
        ("sys.exit", Cause.ERROR, "SystemExit: leaving", 0),
        ("none", Cause.ERROR, "TypeError: Faulty.evaluate returned None, which is no Evaluation", 0),
        ("unpicklable", Cause.ERROR, "TypeError: these metrics cannot be pickled", 0),
        ("oom", Cause.OOM, "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", 0),
        ("memory", Cause.OOM, "MemoryError", 0),
    ],
)
def test_what_is_raised_becomes_a_failure(
    faulty: LocalWorkers, tmp_path: Path, genotype: str, cause: Cause, message: str, epochs: int
) -> None:
    result = one(faulty, job(tmp_path, genotype))
    assert (result.cause, result.message, result.epochs) == (cause, message, epochs)
    assert (tmp_path / "0" / "error.txt").read_text().startswith("Traceback")


@pytest.mark.parametrize(
    ("genotype", "message", "epochs"),
    [
        ("exit", "worker died with exit code 3", 0),
        ("segfault", "worker died with exit code -11 (SIGSEGV)", 0),
        (
            "kill",
            "worker died with exit code -9 (SIGKILL), perhaps killed by the kernel because memory ran out; try fewer workers",
            1,
        ),
    ],
)
def test_a_dead_worker_is_lost_and_replaced(
    faulty: LocalWorkers, tmp_path: Path, genotype: str, message: str, epochs: int
) -> None:
    result = one(faulty, job(tmp_path, genotype))
    assert (result.cause, result.message, result.epochs) == (Cause.LOST, message, epochs)
    assert one(faulty, job(tmp_path, "fine")).state is TrialState.COMPLETE


def test_a_late_job_is_killed_and_its_slot_serves_again(faulty: LocalWorkers, tmp_path: Path) -> None:
    faulty.submit(job(tmp_path, "hang", timeout=1.0))
    progress, done = drain(faulty, 1)
    assert isinstance(progress, Progress)
    assert isinstance(done, Done)
    assert (done.evaluation.cause, done.evaluation.message) == (Cause.TIMEOUT, "not done after 1 s")
    assert done.evaluation.seconds >= 1.0
    assert not is_running(progress.data["pid"])
    assert one(faulty, job(tmp_path, "fine")).state is TrialState.COMPLETE


def test_what_a_worker_started_ends_with_it(faulty: LocalWorkers, tmp_path: Path) -> None:
    faulty.submit(job(tmp_path, "family", timeout=1.0))
    progress, done = drain(faulty, 1)
    assert isinstance(progress, Progress)
    assert isinstance(done, Done)
    assert done.evaluation.cause is Cause.TIMEOUT
    assert ends(progress.data["child"])


def test_a_worker_that_dies_idle_is_replaced(tmp_path: Path) -> None:
    with LocalWorkers(Pid(), slots=1) as workers:
        pid = one(workers, job(tmp_path, "fine")).epochs
        os.kill(pid, signal.SIGKILL)
        assert ends(pid)
        assert one(workers, job(tmp_path, "fine")).epochs != pid


def test_slots_work_at_the_same_time(tmp_path: Path) -> None:
    with LocalWorkers(Rendezvous(2), slots=2) as workers:
        assert workers.free == 2
        for number in range(2):
            workers.submit(job(tmp_path, "meet", number=number))
        with pytest.raises(ValueError, match=r"all 2 slots are busy; poll before submitting job \(9, 0, 0\)"):
            workers.submit(job(tmp_path, "third", number=9))
        done = drain(workers, 2)
    assert sorted(message.key for message in done) == [(0, 0, 0), (1, 0, 0)]
    assert all(isinstance(message, Done) and message.evaluation.metrics["ap"] == 1.0 for message in done)


def test_an_evaluator_that_cannot_start_is_a_lost_job_not_a_loop(tmp_path: Path) -> None:
    with LocalWorkers(DiesAtHome(), slots=1) as workers:
        result = one(workers, job(tmp_path, "any"))
    assert (result.cause, result.message) == (Cause.LOST, "worker died with exit code 7 before it was ready")


def test_polling_without_jobs_returns_at_once(faulty: LocalWorkers) -> None:
    assert faulty.poll(10 * ENOUGH) == []


def test_no_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="slots must be at least 1, got 0"):
        LocalWorkers(Pid(), slots=0)


def test_close_ends_a_busy_worker(tmp_path: Path) -> None:
    with LocalWorkers(Faulty(Pid()), slots=1) as workers:
        workers.submit(job(tmp_path, "hang"))
        progress = workers.poll(ENOUGH)
        while not progress:
            progress = workers.poll(ENOUGH)
    assert isinstance(progress[0], Progress)
    assert not is_running(progress[0].data["pid"])
    workers.close()


ORPHANS = """
    import os, signal, sys, time
    from pathlib import Path
    from gpnas.run.workers import LocalWorkers, Progress
    from tests.run.test_workers import Faulty, Pid, drain, job

    if __name__ == "__main__":
        workers = LocalWorkers(Faulty(Pid()), slots=2)
        for number in range(2):
            workers.submit(job(Path(sys.argv[1]), "hang", number=number))
        pids = []
        while len(pids) < 2:
            pids += [m.data["pid"] for m in workers.poll(5.0)]
        print(*pids, flush=True)
        if sys.argv[2] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif sys.argv[2] == "raise":
            raise RuntimeError("nobody closes the workers")
"""


@pytest.mark.parametrize(("ending", "code"), [("kill", -signal.SIGKILL), ("raise", 1), ("end", 0)])
def test_workers_do_not_outlive_their_parent(tmp_path: Path, ending: str, code: int) -> None:
    script = tmp_path / "orphans.py"
    script.write_text(textwrap.dedent(ORPHANS))
    root = Path(__file__).parents[2]
    process = subprocess.run(
        [sys.executable, str(script), str(tmp_path), ending],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        timeout=ENOUGH,
    )
    assert process.returncode == code, process.stderr
    pids = [int(pid) for pid in process.stdout.split()]
    assert len(pids) == 2
    assert ends(*pids)
