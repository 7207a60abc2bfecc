"""A run as one JSON object, for programs: its state, every trial with its AP and seeds, which trials are ranked, the front."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpnas.run.journal import EvaluationRow, Journal, TrialRow
from gpnas.run.results import (
    TrialResult,
    best_of,
    front_of,
    latest_explored,
    named,
    standing,
    standing_name,
    trial_results,
)
from gpnas.run.settings import RunSettings
from gpnas.search.trial import TrialState


def summary(run: Path, journal: Journal) -> dict[str, Any]:
    """The object that `gpnas show --json` prints."""
    results = trial_results(journal)
    best = best_of(results)
    settings = RunSettings.from_json(journal.settings)
    latest = latest_explored(journal.evaluations())
    seconds: dict[int, float] = {}
    for row in journal.evaluations():
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
        "standing": {"name": standing_name(results), "trials": [result.trial.id for result in standing(results)]},
        "front": [result.trial.id for result in front_of(results)],
        "best": best.trial.id if best else None,
        "baselines": [_known_summary(trial, by_trial.get(trial.id)) for trial in journal.trials() if trial.origin.is_known],
    }


def _known_summary(trial: TrialRow, result: TrialResult | None) -> dict[str, Any]:
    """The start or a baseline; `ap` is that on `rung`, the highest that it completed."""
    return {
        **named(trial),
        **_measured(result),
        "flops": trial.flops,
        "params": trial.params,
        "rung": result.rung if result else None,
    }


def _measured(result: TrialResult | None) -> dict[str, Any]:
    return {
        "ap": result.ap if result else None,
        "seeds": result.seeds if result else 0,
        "deviation": result.deviation if result else None,
        "confirmed": result.confirmed if result else False,
    }


def _trial_summary(trial: TrialRow, latest: EvaluationRow | None, result: TrialResult | None, seconds: float) -> dict[str, Any]:
    """latest: the trial's evaluation on its highest rung, finished or not. seconds: of all its evaluations.

    `ap` is that on the rung `ap_rung`. A confirmed trial is complete on the top rung, whatever its exploration came to.
    """
    rung, state, cause = None, TrialState.QUEUED, None
    if result is not None and result.confirmed:
        rung, state = result.rung, TrialState.COMPLETE
    elif latest is not None:
        rung, state, cause = latest.rung, latest.state, latest.evaluation.cause if latest.evaluation else None
    return {
        "id": trial.id,
        "hash": trial.hash,
        "rung": rung,
        "state": state.value,
        "cause": cause.value if cause else None,
        **_measured(result),
        "ap_rung": result.rung if result else None,
        "flops": trial.flops,
        "params": trial.params,
        "seconds": round(seconds, 2),
    }
