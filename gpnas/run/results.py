"""What a run has found so far: the measured trials, the front, the best; and the files that say so.

A trial counts with the AP of the highest rung that it completed. A low rung's AP understates a candidate (it trained less, on
smaller images), so the rung stands beside every number. The best is the highest AP on the highest rung that anyone completed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpnas.files import write_text
from gpnas.run.journal import EvaluationRow, Journal, TrialRow
from gpnas.search.pareto import Point, front
from gpnas.search.trial import Evaluation, Fidelity, TrialState


@dataclass(frozen=True)
class Measured:
    """A trial with its evaluation on the highest rung it completed."""

    trial: TrialRow
    rung: int
    fidelity: Fidelity
    evaluation: Evaluation

    @property
    def ap(self) -> float:
        return self.evaluation.metrics["ap"]


def measured(journal: Journal) -> list[Measured]:
    """Every trial that completed a rung, by id."""
    trials = {trial.id: trial for trial in journal.trials()}
    best: dict[int, Measured] = {}
    for row in journal.evaluations():
        if row.state is not TrialState.COMPLETE or row.evaluation is None:
            continue
        if row.trial_id not in best or row.rung > best[row.trial_id].rung:
            best[row.trial_id] = Measured(trials[row.trial_id], row.rung, row.fidelity, row.evaluation)
    return [best[i] for i in sorted(best)]


def best_of(found: Sequence[Measured]) -> Measured | None:
    return max(found, key=lambda m: (m.rung, m.ap, -m.trial.macs, -m.trial.id), default=None)


def front_of(found: Sequence[Measured]) -> list[Measured]:
    """Measured trials that no other beats in AP and MACs, by rising MACs."""
    by_id = {m.trial.id: m for m in found}
    return [by_id[point.id] for point in front([Point(m.trial.id, m.ap, m.trial.macs) for m in found])]


Render = Callable[[str, dict[str, Any]], str]
"""(genotype text, what was found) -> YAML of the architecture with a `found` section."""


def write_results(run: Path, journal: Journal, render: Render) -> None:
    """pareto.csv and best.yaml, each replaced at once so that a reader never sees half a file."""
    found = measured(journal)
    best = best_of(found)
    if best is None:
        return
    write_text(run / "best.yaml", best_yaml(best, journal.settings, render))
    rows = [
        {
            "id": m.trial.id,
            "ap": round(m.ap, 5),
            "ap50": round(m.evaluation.metrics.get("ap50", 0.0), 5),
            "flops": 2 * m.trial.macs,
            "params": m.trial.params,
            "epochs": m.fidelity.epochs,
            "imgsz": m.fidelity.imgsz,
            "score": round(m.trial.score, 4),
            "hash": m.trial.hash,
            "origin": m.trial.origin,
        }
        for m in front_of(found)
    ]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(run / "pareto.csv", table.getvalue())


def best_yaml(best: Measured, settings: dict[str, Any], render: Render) -> str:
    """The best architecture with what was measured, what it costs and how it was found."""
    metrics = {name: round(value, 4) for name, value in best.evaluation.metrics.items()}
    return render(
        best.trial.genotype,
        {
            "trial": best.trial.id,
            "origin": best.trial.origin,
            "hash": best.trial.hash,
            "measured": {**metrics, "epochs": best.fidelity.epochs, "imgsz": best.fidelity.imgsz},
            "cost": {"flops": 2 * best.trial.macs, "params": best.trial.params, "imgsz": settings["imgsz"]},
            "score": round(best.trial.score, 4),
            "data": settings["data"],
            "names": settings["names"],
            "seed": settings["seed"],
            "space": settings["space"],
        },
    )


def summary(run: Path, journal: Journal) -> dict[str, Any]:
    """What `gpnas show --json` prints."""
    found = measured(journal)
    best = best_of(found)
    latest: dict[int, EvaluationRow] = {}
    seconds: dict[int, float] = {}
    for row in journal.evaluations():
        if row.trial_id not in latest or row.rung >= latest[row.trial_id].rung:
            latest[row.trial_id] = row
        seconds[row.trial_id] = seconds.get(row.trial_id, 0.0) + (row.evaluation.seconds if row.evaluation else 0.0)
    aps = {m.trial.id: m.ap for m in found}
    return {
        "run": str(run),
        "state": journal.state,
        "budget": {**journal.settings["budget"], "elapsed_seconds": round(journal.elapsed(), 1)},
        "trials": [_trial_summary(trial, latest.get(trial.id), aps, seconds) for trial in journal.trials()],
        "front": [m.trial.id for m in front_of(found)],
        "best": best.trial.id if best else None,
    }


def _trial_summary(
    trial: TrialRow, row: EvaluationRow | None, aps: dict[int, float], seconds: dict[int, float]
) -> dict[str, Any]:
    cause = row.evaluation.cause if row and row.evaluation else None
    return {
        "id": trial.id,
        "hash": trial.hash,
        "rung": row.rung if row else None,
        "state": row.state.value if row else TrialState.QUEUED.value,
        "cause": cause.value if cause else None,
        "ap": aps.get(trial.id),
        "flops": 2 * trial.macs,
        "params": trial.params,
        "seconds": round(seconds.get(trial.id, 0.0), 2),
    }
