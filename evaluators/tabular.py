"""Evaluation by looking up: a table of trainings that were done, with the AP after each of their epochs.

    curves = read_curves(Path("benchmarks/gp-bench/trainings.jsonl"), "digits", seed=0)
    evaluator = TabularEvaluator(curves)
    evaluator.evaluate(candidate, Fidelity(4, 128), folder, print).metrics["ap"]      # after 4 of the table's 8 epochs

The AP after few epochs is that of a training whose learning rate was planned for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gpnas.files import read_lines
from gpnas.search.trial import Candidate, Cause, Evaluation, Fidelity, Report, TrialState, failure


class Curve(NamedTuple):
    """ap: after each epoch. seconds: of the processor, for all epochs and their evaluations."""

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
    """curves: by the architecture's hash."""

    curves: Mapping[str, Curve]

    def evaluate(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation:
        """The AP after `fidelity.epochs`, whatever its image size; a failure for what the table does not hold."""
        curve = self.curves.get(candidate.hash)
        held = len(curve.ap) if curve else 0
        if curve is None or fidelity.epochs > held:
            return failure(Cause.ERROR, f"the table has {held} epochs of {candidate.hash}, not {fidelity.epochs}")
        lower = (int(mark.suffix[1:]) for mark in trial_dir.glob("looked-up.*"))  # what was paid for already
        paid = max((epochs for epochs in lower if epochs < fidelity.epochs), default=0)
        (trial_dir / f"looked-up.{fidelity.epochs}").touch()
        ap, new = curve.ap[fidelity.epochs - 1], fidelity.epochs - paid
        report({"epoch": fidelity.epochs, "epochs": fidelity.epochs, "ap": ap})
        return Evaluation(TrialState.COMPLETE, {"ap": ap}, curve.seconds * new / held, new)
