"""The results of a run: its measured trials, the front, the best trial beside the baselines, and the files that hold them.

A trial counts with the AP of the highest rung that it completed. The AP of a low rung understates a candidate, which trained
less and on smaller images, so the rung stands beside every AP. The best trial has the highest AP on the highest rung that any
trial completed. The start and the baselines, which were known before the search, count like any other trial; what the search
found is compared with them on a rung that both completed.
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


def all_results(journal: Journal) -> list[TrialResult]:
    """The result of every trial on every rung that it completed, by trial id, then rung."""
    trials = {trial.id: trial for trial in journal.trials()}
    results = [
        TrialResult(trials[row.trial_id], row.rung, row.fidelity, row.evaluation)
        for row in journal.evaluations()
        if row.state is TrialState.COMPLETE and row.evaluation is not None
    ]
    return sorted(results, key=lambda result: (result.trial.id, result.rung))


def trial_results(journal: Journal) -> list[TrialResult]:
    """The result of every trial on the highest rung that it completed, by trial id."""
    return list({result.trial.id: result for result in all_results(journal)}.values())


def best_of(results: Sequence[TrialResult]) -> TrialResult | None:
    """The highest AP on the highest rung; of equal ones the fewest MACs, then the lowest id."""
    return max(results, key=lambda r: (r.rung, r.ap, -r.trial.macs, -r.trial.id), default=None)


def front_of(results: Sequence[TrialResult]) -> list[TrialResult]:
    """The results that no other dominates in AP and MACs, by rising MACs."""
    by_id = {result.trial.id: result for result in results}
    return [by_id[point.id] for point in front([result.point for result in results])]


@dataclass(frozen=True)
class Comparison:
    """The start or a baseline of a search beside another trial, `found`: their results on the highest rung that both completed.

    full: whether neither completed a higher rung.
    """

    known: TrialResult
    found: TrialResult
    full: bool = True


def comparisons(results: Sequence[TrialResult], trial_id: int) -> list[Comparison]:
    """The trial beside each known one that was measured, by the known one's id. results: of `all_results`."""
    by_trial: dict[int, dict[int, TrialResult]] = {}
    for result in results:
        by_trial.setdefault(result.trial.id, {})[result.rung] = result
    found = by_trial.get(trial_id, {})
    known = [rungs for i, rungs in by_trial.items() if i != trial_id and next(iter(rungs.values())).trial.origin.is_known]
    met = [(rungs, max(rungs.keys() & found.keys())) for rungs in known if rungs.keys() & found.keys()]
    return [Comparison(rungs[rung], found[rung], rung == max(rungs) == max(found)) for rungs, rung in met]


Render = Callable[[str, dict[str, Any]], str]
"""(genotype text, content of the section `found`) -> YAML of the architecture with that section."""


def write_results(run: Path, journal: Journal, render: Render) -> None:
    """Write pareto.csv and best.yaml once a trial is measured. Each file is replaced whole: readers never see half a file."""
    results = trial_results(journal)
    best = best_of(results)
    if best is None:
        return
    compared = comparisons(all_results(journal), best.trial.id)
    write_text(run / "best.yaml", best_yaml(best, RunSettings.from_json(journal.settings), render, compared))
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


def best_yaml(best: TrialResult, settings: RunSettings, render: Render, compared: Sequence[Comparison] = ()) -> str:
    """The YAML of the best architecture, with its metrics, its cost, its origin and its comparisons in the section `found`."""
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
            **({"baselines": [_comparison_entry(comparison) for comparison in compared]} if compared else {}),
            "data": settings.data.source,
            "names": list(settings.data.names),
            "seed": settings.seed,
            "space": settings.space,
        },
    )


def _comparison_entry(comparison: Comparison) -> dict[str, Any]:
    """A baseline in the section `found`: its AP and the `found_ap` on the same rung."""
    known, found = comparison.known, comparison.found
    return {
        **_named(known.trial),
        "ap": round(known.ap, 4),
        "found_ap": round(found.ap, 4),
        "difference": round(found.ap - known.ap, 4),
        "flops": known.trial.flops,
        "params": known.trial.params,
        "epochs": known.fidelity.epochs,
        "imgsz": known.fidelity.imgsz,
    }


def _named(trial: TrialRow) -> dict[str, Any]:
    """The name and the id of a known trial; the name of the start is "start"."""
    return {"name": trial.origin.name or trial.origin.kind, "trial": trial.id}


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
    by_trial = {result.trial.id: result for result in results}
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
            _trial_summary(trial, latest.get(trial.id), by_trial.get(trial.id), seconds.get(trial.id, 0.0))
            for trial in journal.trials()
        ],
        "front": [result.trial.id for result in front_of(results)],
        "best": best.trial.id if best else None,
        "baselines": [_known_summary(trial, by_trial.get(trial.id)) for trial in journal.trials() if trial.origin.is_known],
    }


def _known_summary(trial: TrialRow, result: TrialResult | None) -> dict[str, Any]:
    """The start or a baseline; `ap` is that on `rung`, the highest that it completed."""
    return {
        **_named(trial),
        "ap": result.ap if result else None,
        "flops": trial.flops,
        "params": trial.params,
        "rung": result.rung if result else None,
    }


def _trial_summary(trial: TrialRow, latest: EvaluationRow | None, result: TrialResult | None, seconds: float) -> dict[str, Any]:
    """latest: the trial's evaluation on its highest rung, finished or not. seconds: of all its evaluations."""
    cause = latest.evaluation.cause if latest and latest.evaluation else None
    return {
        "id": trial.id,
        "hash": trial.hash,
        "rung": latest.rung if latest else None,
        "state": latest.state.value if latest else TrialState.QUEUED.value,
        "cause": cause.value if cause else None,
        "ap": result.ap if result else None,
        "flops": trial.flops,
        "params": trial.params,
        "seconds": round(seconds, 2),
    }
