"""Evaluation by a table: trainings that were done before, with the AP after each of their epochs.

    curves = read_curves(Path("benchmarks/gp-bench/trainings.jsonl"), "digits", seed=0)
    evaluator = TabularEvaluator(curves)
    evaluator.evaluate(candidate, Fidelity(4, 128), folder, print).metrics["ap"]      # after 4 of the table's 8 epochs

The AP after a few epochs comes from a training whose learning rate was scheduled for all epochs of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gpnas.files import read_lines
from gpnas.search.trial import (
    CHECKPOINTS,
    Candidate,
    Cause,
    Evaluation,
    Fidelity,
    Report,
    TrialState,
    checkpoint_epochs,
    checkpoint_name,
    failure,
)


class Curve(NamedTuple):
    """One training. ap: after each epoch. seconds: of processor time, for all epochs and their evaluations."""

    ap: tuple[float, ...]
    seconds: float


def read_curves(path: Path, data: str, seed: int = 0) -> dict[str, Curve]:
    """The trainings on `data` with `seed` that did not diverge, by the architecture's hash. Raises InputError."""
    return {
        row["hash"]: Curve(tuple(row["ap"]), row["cpu_seconds"])
        for row in read_lines(path, ("hash", "data", "seed", "ap", "cpu_seconds"))
        if (row["data"], row["seed"]) == (data, seed) and "cause" not in row
    }


@dataclass(frozen=True)
class TabularEvaluator:
    """Looks up candidates in `curves`, by the architecture's hash."""

    curves: Mapping[str, Curve]

    def evaluate(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation:
        """The AP after `fidelity.epochs`, whatever the image size. A failure where the table has no such candidate or epoch.

        Leaves an empty checkpoint, so that a higher fidelity costs only its additional epochs.
        """
        curve = self.curves.get(candidate.hash)
        if fidelity.seed:
            return failure(Cause.ERROR, f"the table has one training of each candidate, not seed {fidelity.seed}")
        epochs_in_table = len(curve.ap) if curve else 0
        if curve is None or fidelity.epochs > epochs_in_table:
            message = f"the table has {epochs_in_table} epochs of {candidate.hash}, not {fidelity.epochs}"
            return failure(Cause.ERROR, message)
        checkpoints = (checkpoint_epochs(path.name) or 0 for path in trial_dir.glob(CHECKPOINTS))
        lower = max((epochs for epochs in checkpoints if epochs < fidelity.epochs), default=0)
        (trial_dir / checkpoint_name(fidelity.epochs)).touch()
        ap, additional = curve.ap[fidelity.epochs - 1], fidelity.epochs - lower
        report({"epoch": fidelity.epochs, "epochs": fidelity.epochs, "ap": ap})
        seconds = curve.seconds * additional / epochs_in_table
        return Evaluation(TrialState.COMPLETE, {"ap": ap}, seconds, additional)
