"""Journals of runs, written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gpnas.run.journal import Journal, TrialRow
from gpnas.search.trial import Cause, Origin, failure
from tests.confirmed import write_confirmed
from tests.run.rows import FIDELITIES, complete, trial
from tests.settings import run_settings


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Trial 0 climbed to rung 2; 1 to rung 1, which it failed to complete; 2 has the highest AP, but on rung 0; 3 is dominated
    by 2; 4 runs; 5 waits."""
    evaluations = [
        (0, 0, complete(0.125)),
        (1, 0, complete(0.18754321, 2.5)),
        (0, 1, complete(0.25, 3.0)),
        (2, 0, complete(0.5, ap50=0.75)),
        (3, 0, complete(0.4375)),
        (1, 1, failure(Cause.NAN, "loss is nan", 0.5)),
        (0, 2, complete(0.3125, 4.0, ap50=0.123456)),
    ]
    with Journal.create(tmp_path / "run", run_settings().to_json()) as journal:
        for i, macs in enumerate([300, 100, 500, 700, 900, 1100]):
            journal.add_trial(trial(i, macs))
        for trial_id, rung, evaluation in evaluations:
            journal.start_evaluation(trial_id, rung, FIDELITIES[rung])
            journal.finish_evaluation(trial_id, rung, evaluation)
        journal.start_evaluation(4, 0, FIDELITIES[0])
        journal.add_elapsed(12.345)
        yield journal


def known_trial(i: int, origin: Origin) -> TrialRow:
    return TrialRow(i, f"hash{i}", f"width: {i}\n", origin, 0.5, 10 + i, 1000 + i)


@pytest.fixture
def compared(tmp_path: Path) -> Iterator[Journal]:
    """The start, trial 0, failed on rung 1; baselines 1 and 2 climbed to rungs 0 and 2; 3 failed; 4, the best, is on rung 2."""
    origins = [
        Origin("start"),
        *(Origin("baseline", name=name) for name in ("low", "high", "broken")),
        *(Origin("mutate", (2,)), Origin("sample")),
    ]
    aps = {0: (0.21, None), 1: (0.11,), 2: (0.12, 0.22, 0.32), 3: (None,), 4: (0.13, 0.235, 0.34567), 5: (0.4,)}
    with Journal.create(tmp_path / "run", run_settings().to_json()) as journal:
        for i, origin in enumerate(origins):
            journal.add_trial(known_trial(i, origin))
        for i, by_rung in aps.items():
            for rung, ap in enumerate(by_rung):
                journal.start_evaluation(i, rung, FIDELITIES[rung])
                journal.finish_evaluation(i, rung, failure(Cause.OOM, "large") if ap is None else complete(ap))
        yield journal


@pytest.fixture
def confirmed(tmp_path: Path) -> Iterator[Journal]:
    """The search of tests/confirmed.py."""
    with write_confirmed(tmp_path / "run") as journal:
        yield journal
