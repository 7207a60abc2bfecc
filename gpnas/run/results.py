"""The results of a run: its measured trials, which of them are ranked, the best beside the baselines, and the files of them.

A trial is *confirmed* when FEWEST_SEEDS fresh seeds or more completed the top rung; then its AP is the mean over those seeds
alone, because the seeds that made it a leader favour it. Otherwise its AP is that of the highest rung that it completed.

APs of different rungs, and of chosen and fresh seeds, cannot be compared. So only the *standing* results are ranked: those of
the confirmed trials, or, when there are none, those on the highest rung that any trial completed. `best_of` and `front_of` look
at no others. The start and the baselines, which were known before the search, count like any other trial; what the search found
is compared with them.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gpnas.files import write_text
from gpnas.run.journal import CONFIRM, EvaluationRow, Journal, TrialRow
from gpnas.run.noise import Noise, pooled
from gpnas.run.settings import RunSettings
from gpnas.search.confirm import FEWEST_SEEDS
from gpnas.search.pareto import Point, front
from gpnas.search.trial import FIRST_FRESH, Evaluation, Fidelity, TrialState

CHEAPER = 0.05
"""Of two trials that tie, the one with the lower mean AP is preferred when it saves this share of the FLOPs or more."""


@dataclass(frozen=True)
class TrialResult:
    """A trial and its complete evaluations on one rung, one for each seed.

    fidelity: of the rung, with seed 0. confirmed: whether the evaluations are those of fresh seeds on the top rung; otherwise
    they are those with which the search explored.
    """

    trial: TrialRow
    rung: int
    fidelity: Fidelity
    evaluations: tuple[Evaluation, ...]
    confirmed: bool = False

    def __post_init__(self) -> None:
        fewest = FEWEST_SEEDS if self.confirmed else 1
        if len(self.evaluations) < fewest:
            raise ValueError(f"the result of trial {self.trial.id} needs {fewest} evaluations, got {len(self.evaluations)}")

    @property
    def seeds(self) -> int:
        return len(self.evaluations)

    @property
    def aps(self) -> list[float]:
        """By seed."""
        return [evaluation.metrics["ap"] for evaluation in self.evaluations]

    @property
    def ap(self) -> float:
        """The mean over the seeds."""
        return self.metrics["ap"]

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """The means over the seeds, of the metrics that every evaluation has."""
        first, *others = (evaluation.metrics for evaluation in self.evaluations)
        shared = [name for name in first if all(name in other for other in others)]
        return {name: statistics.fmean(e.metrics[name] for e in self.evaluations) for name in shared}

    @property
    def deviation(self) -> float | None:
        """The standard deviation of AP between the seeds; None for one seed."""
        return statistics.stdev(self.aps) if self.seeds > 1 else None

    @property
    def point(self) -> Point:
        return Point(self.trial.id, self.ap, self.trial.macs)


def all_results(journal: Journal) -> list[TrialResult]:
    """The result of every trial on every rung that it completed while the search explored, and its confirmed result.

    By trial id, then rung; the confirmed result is the last of a trial.
    """
    trials = {trial.id: trial for trial in journal.trials()}
    confirmations = [event.data["rungs"] for event in journal.events() if event.kind == CONFIRM]
    top = confirmations[-1] - 1 if confirmations else None
    rows: dict[tuple[int, int, bool], list[EvaluationRow]] = {}  # by trial, rung, and whether the seeds are fresh
    for row in journal.evaluations():
        if row.state is TrialState.COMPLETE:
            rows.setdefault((row.trial_id, row.rung, row.fidelity.seed >= FIRST_FRESH), []).append(row)
    return [
        TrialResult(
            trials[i],
            rung,
            replace(of_seeds[0].fidelity, seed=0),
            tuple(row.evaluation for row in sorted(of_seeds, key=lambda row: row.fidelity.seed) if row.evaluation),
            confirmed=fresh,
        )
        for (i, rung, fresh), of_seeds in sorted(rows.items(), key=lambda item: item[0])
        if not fresh or (rung == top and len(of_seeds) >= FEWEST_SEEDS)
    ]


def trial_results(journal: Journal) -> list[TrialResult]:
    """The confirmed result of every trial, or else that on the highest rung that it completed, by trial id."""
    return list({result.trial.id: result for result in all_results(journal)}.values())


def standing(results: Sequence[TrialResult]) -> list[TrialResult]:
    """The results that are ranked: those of confirmed trials; without any, those on the highest rung."""
    confirmed = [result for result in results if result.confirmed]
    highest = max((result.rung for result in results), default=0)
    return confirmed or [result for result in results if result.rung == highest]


def standing_name(results: Sequence[TrialResult]) -> str:
    """What the standing results are: "confirmed" or for example "rung 1"; "" without results."""
    ranked = standing(results)
    return "" if not ranked else "confirmed" if ranked[0].confirmed else f"rung {ranked[0].rung}"


def noise_of(results: Sequence[TrialResult]) -> Noise | None:
    """The noise of the confirmed trials; None without any."""
    return pooled(result.aps for result in results if result.confirmed)


def highest_of(results: Sequence[TrialResult]) -> TrialResult | None:
    """The standing result with the highest AP; of equal ones the fewest MACs, then the lowest id."""
    return max(standing(results), key=lambda r: (r.ap, -r.trial.macs, -r.trial.id), default=None)


def best_of(results: Sequence[TrialResult]) -> TrialResult | None:
    """The standing result with the highest AP, or the cheapest of those that tie with it and save CHEAPER of its FLOPs."""
    return _best(results, noise_of(results))


def best_found(results: Sequence[TrialResult]) -> TrialResult | None:
    """The best, or, when that was known before the search, the best of the others."""
    best = best_of(results)
    if best is None or not best.trial.origin.is_known:
        return best
    return _best([result for result in results if not result.trial.origin.is_known], noise_of(results))


def _best(results: Sequence[TrialResult], noise: Noise | None) -> TrialResult | None:
    top = highest_of(results)
    if top is None or noise is None or not top.confirmed:
        return top
    most = (1 - CHEAPER) * top.trial.macs
    tied = [r for r in standing(results) if r.trial.macs <= most and noise.is_tie(top.ap - r.ap, top.seeds, r.seeds)]
    return min(tied, key=lambda r: (r.trial.macs, -r.ap, r.trial.id), default=top)


def front_of(results: Sequence[TrialResult]) -> list[TrialResult]:
    """The standing results that no other dominates in AP and MACs, by rising MACs."""
    by_id = {result.trial.id: result for result in standing(results)}
    return [by_id[point.id] for point in front([result.point for result in by_id.values()])]


@dataclass(frozen=True)
class Comparison:
    """The start or a baseline of a search beside another trial, `found`: their confirmed results or, when one of them has none,
    their results on the highest rung that both completed.

    full: whether neither completed a higher rung. noise: of all confirmed trials; None when one of the two is not confirmed.
    """

    known: TrialResult
    found: TrialResult
    full: bool = True
    noise: Noise | None = None

    @property
    def difference(self) -> float:
        return self.found.ap - self.known.ap

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the difference (noise.LEVEL)."""
        return self.noise.interval(self.difference, self.found.seeds, self.known.seeds) if self.noise else None

    @property
    def is_tie(self) -> bool:
        return self.noise is not None and self.noise.is_tie(self.difference, self.found.seeds, self.known.seeds)


def comparisons(results: Sequence[TrialResult], trial_id: int) -> list[Comparison]:
    """The trial beside each known one that was measured, by the known one's id. results: of `all_results`."""
    confirmed = {result.trial.id: result for result in results if result.confirmed}
    by_trial: dict[int, dict[int, TrialResult]] = {}
    for result in results:
        if not result.confirmed:
            by_trial.setdefault(result.trial.id, {})[result.rung] = result
    found, noise = by_trial.get(trial_id, {}), noise_of(results)
    compared = []
    for i, rungs in by_trial.items():
        shared = rungs.keys() & found.keys()
        if i == trial_id or not next(iter(rungs.values())).trial.origin.is_known:
            continue
        if i in confirmed and trial_id in confirmed:
            compared.append(Comparison(confirmed[i], confirmed[trial_id], noise=noise))
        elif shared:
            rung = max(shared)
            compared.append(Comparison(rungs[rung], found[rung], rung == max(rungs) == max(found)))
    return compared


Render = Callable[[str, dict[str, Any]], str]
"""(genotype text, content of the section `found`) -> YAML of the architecture with that section."""


def write_results(run: Path, journal: Journal, render: Render) -> None:
    """Write best.yaml, pareto.csv and trials.csv once a trial is measured. Each file is replaced whole: readers never see half
    a file."""
    results = trial_results(journal)
    best = best_of(results)
    if best is None:
        return
    compared = comparisons(all_results(journal), best.trial.id)
    write_text(run / "best.yaml", best_yaml(best, RunSettings.from_json(journal.settings), render, compared))
    write_text(run / "pareto.csv", _csv([_csv_row(result) for result in front_of(results)]))
    ranked = {result.trial.id for result in standing(results)}
    write_text(
        run / "trials.csv", _csv([_csv_row(r, standing=str(r.trial.id in ranked).lower(), rung=r.rung) for r in results])
    )


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def _csv_row(result: TrialResult, **more: Any) -> dict[str, Any]:
    """The row of a result; `more` stands after the id."""
    trial, fidelity = result.trial, result.fidelity
    return {
        "id": trial.id,
        **more,
        "ap": round(result.ap, 5),
        "deviation": _rounded(result.deviation, 5),
        "seeds": result.seeds,
        "ap50": round(result.metrics.get("ap50", 0.0), 5),
        "flops": trial.flops,
        "params": trial.params,
        "epochs": fidelity.epochs,
        "imgsz": fidelity.imgsz,
        "score": round(trial.score, 4),
        "hash": trial.hash,
        "origin": str(trial.origin),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def best_yaml(best: TrialResult, settings: RunSettings, render: Render, compared: Sequence[Comparison] = ()) -> str:
    """The YAML of the best architecture, with its metrics, its cost, its origin and its comparisons in the section `found`."""
    metrics = {name: round(value, 4) for name, value in best.metrics.items()}
    seeds = {"fresh_seeds": best.seeds, "deviation": _rounded(best.deviation, 4)} if best.confirmed else {}
    return render(
        best.trial.genotype,
        {
            "trial": best.trial.id,
            "origin": str(best.trial.origin),
            "hash": best.trial.hash,
            "measured": {**metrics, **seeds, "epochs": best.fidelity.epochs, "imgsz": best.fidelity.imgsz},
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
    """A baseline in the section `found`: its AP and the `found_ap` on the same rung, and what noise says of the difference."""
    known, found = comparison.known, comparison.found
    noise: dict[str, Any] = {}
    if comparison.interval is not None:
        noise = {
            "interval": [round(end, 4) for end in comparison.interval],
            "tie": comparison.is_tie,
            "deviation": _rounded(known.deviation, 4),
            "found_deviation": _rounded(found.deviation, 4),
            "fresh_seeds": known.seeds,
            "found_fresh_seeds": found.seeds,
        }
    return {
        **named(known.trial),
        "ap": round(known.ap, 4),
        "found_ap": round(found.ap, 4),
        "difference": round(comparison.difference, 4),
        **noise,
        "flops": known.trial.flops,
        "params": known.trial.params,
        "epochs": known.fidelity.epochs,
        "imgsz": known.fidelity.imgsz,
    }


def named(trial: TrialRow) -> dict[str, Any]:
    """The name and the id of a known trial; the name of the start is "start"."""
    return {"name": trial.origin.name or trial.origin.kind, "trial": trial.id}


def latest_explored(evaluations: Iterable[EvaluationRow]) -> dict[int, EvaluationRow]:
    """By trial id, the evaluation on its highest rung, finished or not, of those with which the search explored."""
    latest: dict[int, EvaluationRow] = {}
    for row in evaluations:
        if row.fidelity.seed < FIRST_FRESH and (row.trial_id not in latest or row.rung > latest[row.trial_id].rung):
            latest[row.trial_id] = row
    return latest
