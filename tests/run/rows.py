"""Rows of journals that are written by hand."""

from __future__ import annotations

from gpnas.run.journal import TrialRow
from gpnas.search.trial import Evaluation, Fidelity, Origin, TrialState

FIDELITIES = Fidelity(2, 64), Fidelity(4, 96), Fidelity(8, 128, 0.5)


def trial(i: int, macs: int) -> TrialRow:
    return TrialRow(i, f"hash{i}", f"width: {i}\n", Origin("mutate", (i - 1,)) if i else Origin("sample"), i / 7, 10 + i, macs)


def complete(ap: float, seconds: float = 1.25, **metrics: float) -> Evaluation:
    return Evaluation(TrialState.COMPLETE, {"ap": ap, **metrics}, seconds, 2)
