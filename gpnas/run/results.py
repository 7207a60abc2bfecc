"""The results of a run: its measured trials, the Pareto front, the best trial, and the files that hold them.

A trial counts with the AP of the highest rung that it completed. The AP of a low rung understates a candidate, which trained
less and on smaller images, so the rung stands beside every AP. The best trial has the highest AP on the highest rung that any
trial completed.
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
from gpnas.run.settings import RunSettings
from gpnas.search.pareto import Point, front
from gpnas.search.trial import Evaluation, Fidelity, TrialState


@dataclass(frozen=True)
class TrialResult:
    """A trial and its evaluation on the highest rung that it completed."""

    trial: TrialRow
    rung: int
    fidelity: Fidelity
    evaluation: Evaluation

    @property
    def ap(self) -> float:
        return self.evaluation.metrics["ap"]

    @property
    def point(self) -> Point:
        return Point(self.trial.id, self.ap, self.trial.macs)


def trial_results(journal: Journal) -> list[TrialResult]:
    """The result of every trial that completed a rung, by trial id."""
    trials = {trial.id: trial for trial in journal.trials()}
    results: dict[int, TrialResult] = {}
    for row in journal.evaluations():
        if row.state is not TrialState.COMPLETE or row.evaluation is None:
            continue
        if row.trial_id not in results or row.rung > results[row.trial_id].rung:
            results[row.trial_id] = TrialResult(trials[row.trial_id], row.rung, row.fidelity, row.evaluation)
    return [results[i] for i in sorted(results)]


def best_of(results: Sequence[TrialResult]) -> TrialResult | None:
    """The highest AP on the highest rung; of equal ones the fewest MACs, then the lowest id."""
    return max(results, key=lambda r: (r.rung, r.ap, -r.trial.macs, -r.trial.id), default=None)


def front_of(results: Sequence[TrialResult]) -> list[TrialResult]:
    """The results that no other dominates in AP and MACs, by rising MACs."""
    by_id = {result.trial.id: result for result in results}
    return [by_id[point.id] for point in front([result.point for result in results])]


Render = Callable[[str, dict[str, Any]], str]
"""(genotype text, content of the section `found`) -> YAML of the architecture with that section."""


def write_results(run: Path, journal: Journal, render: Render) -> None:
    """Write pareto.csv and best.yaml once a trial is measured. Each file is replaced whole: readers never see half a file."""
    results = trial_results(journal)
    best = best_of(results)
    if best is None:
        return
    write_text(run / "best.yaml", best_yaml(best, RunSettings.from_json(journal.settings), render))
    rows = [_front_row(result) for result in front_of(results)]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(run / "pareto.csv", table.getvalue())


def _front_row(result: TrialResult) -> dict[str, Any]:
    trial, fidelity = result.trial, result.fidelity
    return {
        "id": trial.id,
        "ap": round(result.ap, 5),
        "ap50": round(result.evaluation.metrics.get("ap50", 0.0), 5),
        "flops": trial.flops,
        "params": trial.params,
        "epochs": fidelity.epochs,
        "imgsz": fidelity.imgsz,
        "score": round(trial.score, 4),
        "hash": trial.hash,
        "origin": str(trial.origin),
    }


def best_yaml(best: TrialResult, settings: RunSettings, render: Render) -> str:
    """The YAML of the best architecture, with its metrics, its cost and its origin in the section `found`."""
    metrics = {name: round(value, 4) for name, value in best.evaluation.metrics.items()}
    return render(
        best.trial.genotype,
        {
            "trial": best.trial.id,
            "origin": str(best.trial.origin),
            "hash": best.trial.hash,
            "measured": {**metrics, "epochs": best.fidelity.epochs, "imgsz": best.fidelity.imgsz},
            "cost": {"flops": best.trial.flops, "params": best.trial.params, "imgsz": settings.imgsz},
            "score": round(best.trial.score, 4),
            "data": settings.data.source,
            "names": list(settings.data.names),
            "seed": settings.seed,
            "space": settings.space,
        },
    )


def summary(run: Path, journal: Journal) -> dict[str, Any]:
    """The object that `gpnas show --json` prints."""
    results = trial_results(journal)
    best = best_of(results)
    settings = RunSettings.from_json(journal.settings)
    latest: dict[int, EvaluationRow] = {}
    seconds: dict[int, float] = {}
    for row in journal.evaluations():
        if row.trial_id not in latest or row.rung > latest[row.trial_id].rung:
            latest[row.trial_id] = row
        seconds[row.trial_id] = seconds.get(row.trial_id, 0.0) + (row.evaluation.seconds if row.evaluation else 0.0)
    aps = {result.trial.id: result.ap for result in results}
    return {
        "run": str(run),
        "state": journal.state,
        "budget": {
            "text": settings.budget_text,
            "kind": settings.budget.kind,
            "amount": settings.budget.amount,
            "elapsed_seconds": round(journal.elapsed(), 1),
        },
        "trials": [
            _trial_summary(trial, latest.get(trial.id), aps.get(trial.id), seconds.get(trial.id, 0.0))
            for trial in journal.trials()
        ],
        "front": [result.trial.id for result in front_of(results)],
        "best": best.trial.id if best else None,
    }


def _trial_summary(trial: TrialRow, latest: EvaluationRow | None, ap: float | None, seconds: float) -> dict[str, Any]:
    """latest: the trial's evaluation on its highest rung, finished or not. seconds: of all its evaluations."""
    cause = latest.evaluation.cause if latest and latest.evaluation else None
    return {
        "id": trial.id,
        "hash": trial.hash,
        "rung": latest.rung if latest else None,
        "state": latest.state.value if latest else TrialState.QUEUED.value,
        "cause": cause.value if cause else None,
        "ap": ap,
        "flops": trial.flops,
        "params": trial.params,
        "seconds": round(seconds, 2),
    }
