"""The report of a run: one HTML page that loads nothing from elsewhere, and the Pareto front as an SVG.

write_report(run)                                  # RUN/report.html and RUN/front.svg
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from gpnas.files import write_text
from gpnas.graph.graph import Graph
from gpnas.report.comparison import ap_text, comparison_lines, standing_line
from gpnas.report.drawing import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    axis,
    dot,
    drawing,
    empty,
    frame,
    page,
    rung_legend,
    rung_look,
    steps,
    table,
)
from gpnas.report.front_drawing import FrontPoint, front_svg
from gpnas.report.score_told import score_lines
from gpnas.report.timeline import timeline_svg
from gpnas.run.journal import EvaluationRow, Journal, TrialRow
from gpnas.run.noise import Noise
from gpnas.run.results import (
    TrialResult,
    all_results,
    best_of,
    front_of,
    latest_explored,
    noise_of,
    standing,
    trial_results,
)
from gpnas.run.settings import RunSettings
from gpnas.search.trial import FIRST_FRESH, TrialState
from gpnas.units import brief, clock


def write_report(run: Path, build: Callable[[str], Graph] | None = None) -> Path:
    """Write `report.html` and `front.svg` into `run`; returns the path of the former.

    build: makes the training graph of a genotype's text, so that the report shows the gradient timeline of the best trial;
    None leaves it out. A search may be writing to the journal, which is not changed. Raises InputError and JournalError.
    """
    with Journal.open(run, write=False) as journal:
        results = trial_results(journal)
        facts = _Facts(
            run=run.resolve().name,
            state=journal.state,
            elapsed=journal.elapsed(),
            settings=RunSettings.from_json(journal.settings),
            trials=journal.trials(),
            evaluations=journal.evaluations(),
            results={result.trial.id: result for result in results},
            standing={result.trial.id for result in standing(results)},
            noise=noise_of(results),
            front=front_of(results),
            best=best_of(results),
            ranked=standing_line(results),
            compared=[
                *comparison_lines(all_results(journal), journal.trials(), is_over=journal.state == "done"),
                *score_lines(all_results(journal)),
            ],
        )
    front = _front_drawing(facts)
    best_graph = build(facts.best.trial.genotype) if build and facts.best else None
    write_text(run / "front.svg", front)
    write_text(run / "report.html", _page(facts, front, best_graph))
    return run / "report.html"


@dataclass(frozen=True)
class _Facts:
    """The content of a journal.

    elapsed: seconds. results: by trial id. standing: ids of the trials that are ranked. noise: of the confirmed trials. ranked:
    a line about which trials are ranked. compared: lines about the best beside the baselines.
    """

    run: str
    state: str
    elapsed: float
    settings: RunSettings
    trials: list[TrialRow]
    evaluations: list[EvaluationRow]
    results: dict[int, TrialResult]
    standing: set[int]
    noise: Noise | None
    front: list[TrialResult]
    best: TrialResult | None
    ranked: str
    compared: list[str]


def _front_drawing(facts: _Facts) -> str:
    points = [
        FrontPoint(i, result.trial.flops, result.ap, result.rung, _name(result.trial), _error(result, facts.noise))
        for i, result in facts.results.items()
    ]
    best = facts.best.trial.id if facts.best else None
    front = [result.trial.id for result in facts.front]
    return front_svg(points, front=front, best=best, max_flops=facts.settings.limits.max_flops)


def _error(result: TrialResult, noise: Noise | None) -> float | None:
    """The standard error of the mean of a confirmed trial, by the deviation that is pooled over all of them."""
    return noise.deviation / math.sqrt(result.seeds) if noise and result.confirmed else None


def _name(trial: TrialRow) -> str:
    """The name by which a drawing labels the start or a baseline; "" for other trials."""
    return trial.origin.name or (trial.origin.kind if trial.origin.is_known else "")


def _page(facts: _Facts, front: str, best_graph: Graph | None) -> str:
    sections = [
        f"<h1>{escape(facts.run)} <small>gpnas run, {escape(facts.state)}</small></h1>",
        _headline(facts),
        *(f"<p>{escape(_sentence(text))}</p>" for text in facts.compared),
        front,
        "<h2>The Pareto front</h2>",
        f"<p>{escape(_sentence(facts.ranked))} {_RANKING}</p>",
        _front_table(facts),
        "<h2>Progress</h2>",
        _progress_drawing(facts.evaluations),
        "<h2>Was the score right?</h2>",
        "<p>The score ranks candidates before any training. The search does not choose by it alone: it is one of the features "
        "of the surrogate. On the lowest rung all candidates were trained alike.</p>",
        _score_drawing(facts),
        f"<h2>All trials</h2><details open><summary>{len(facts.trials)} trials</summary>{_trial_table(facts)}</details>",
        "<h2>The best architecture</h2>" + _best_text(facts.best),
        _timeline(best_graph, facts.best),
        f"<h2>Settings</h2>{_settings_table(facts.settings)}",
    ]
    return page(f"gpnas: {facts.run}", sections)


_RANKING = (
    "The front has ranked trials alone. The AP of a confirmed trial is the mean over fresh seeds, which had no part in its "
    "choice, and +- is their standard deviation. The AP of another trial is that of the highest rung that it completed. Rungs "
    "differ in epochs and image size, so their APs cannot be compared."
)


def _sentence(line: str) -> str:
    """A line for a terminal as a sentence. "" for an empty one."""
    return f"{line[0].upper()}{line[1:]}." if line else ""


def _headline(facts: _Facts) -> str:
    settings = facts.settings
    finished = [row.evaluation for row in facts.evaluations if row.evaluation is not None]
    epochs = sum(evaluation.epochs for evaluation in finished)
    failed = sum(evaluation.state is TrialState.FAILED for evaluation in finished)
    tiles = []
    if best := facts.best:
        seeds = "" if best.deviation is None else f"; +- {best.deviation:.3f} between {best.seeds} fresh seeds"
        trained = f"{best.fidelity.epochs} epochs at {best.fidelity.imgsz} px"
        tiles += [
            ("best AP", f"{best.ap:.3f}", f"trial {best.trial.id}, {trained}{seeds}"),
            ("FLOPs", brief(best.trial.flops), f"at {settings.imgsz} px, fused"),
            ("parameters", brief(best.trial.params), "fused"),
        ]
    else:
        tiles.append(("best AP", "none", "no trial was measured"))
    data = settings.data.source
    tiles += [
        ("time", clock(facts.elapsed), f"budget {settings.budget_text}"),
        ("trials", str(len(facts.trials)), f"{len(finished)} evaluations, {failed} failed, {epochs} epochs"),
        ("data", Path(data).name, data if os.sep in data else ""),
    ]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd class=note>{escape(note)}</dd></div>"
        for name, value, note in tiles
    )
    return f"<dl class=tiles>{cells}</dl>"


def _front_table(facts: _Facts) -> str:
    rows = [
        (
            f"{result.trial.id}{' (best)' if result is facts.best else ''}",
            ap_text(result),
            str(result.seeds),
            _metric(result.metrics, "ap50"),
            brief(result.trial.flops),
            brief(result.trial.params),
            f"{result.rung}: {result.fidelity.epochs} epochs, {result.fidelity.imgsz} px",
            str(result.trial.origin),
            result.trial.hash,
        )
        for result in facts.front
    ]
    return table(("trial", "AP", "seeds", "AP50", "FLOPs", "params", "rung", "origin", "hash"), rows, text_from=6)


def _trial_table(facts: _Facts) -> str:
    evaluations: dict[int, list[EvaluationRow]] = {}
    for row in facts.evaluations:
        evaluations.setdefault(row.trial_id, []).append(row)
    latest = latest_explored(facts.evaluations)
    rows = [_trial_row(t, evaluations.get(t.id, []), latest.get(t.id), facts) for t in facts.trials]
    head = ("trial", "AP", "seeds", "FLOPs", "params", "score", "seconds", "rung", "ranked", "state", "cause", "origin")
    return table(head, rows, text_from=8)


def _trial_row(
    trial: TrialRow, evaluations: Sequence[EvaluationRow], latest: EvaluationRow | None, facts: _Facts
) -> tuple[str, ...]:
    """latest: the trial's evaluation on its highest rung, of those with which the search explored."""
    result = facts.results.get(trial.id)
    is_confirmed = result is not None and result.confirmed
    rung = str(result.rung) if result is not None and is_confirmed else str(latest.rung) if latest else ""
    state = TrialState.COMPLETE if is_confirmed else latest.state if latest else TrialState.QUEUED
    fresh = [row for row in evaluations if row.fidelity.seed >= FIRST_FRESH]
    causes = ["" if is_confirmed or latest is None else _cause(latest), *map(_fresh_cause, fresh)]
    return (
        str(trial.id),
        ap_text(result) if result else "",
        str(result.seeds) if result else "",
        brief(trial.flops),
        brief(trial.params),
        f"{trial.score:.3f}",
        f"{sum(row.evaluation.seconds for row in evaluations if row.evaluation):.1f}",
        rung,
        "confirmed" if is_confirmed else "yes" if trial.id in facts.standing else "",
        state.value,
        "; ".join(filter(None, causes)),
        str(trial.origin),
    )


def _cause(row: EvaluationRow) -> str:
    end = row.evaluation
    return "" if end is None else f"{end.cause.value}: {end.message}" if end.cause else end.message


def _fresh_cause(row: EvaluationRow) -> str:
    """Why a fresh seed failed; "" for one that did not."""
    failed = row.state is TrialState.FAILED
    return f"fresh seed {row.fidelity.seed - FIRST_FRESH + 1} on rung {row.rung}: {_cause(row)}" if failed else ""


def _best_text(best: TrialResult | None) -> str:
    if best is None:
        return "<p>None yet.</p>"
    trial = best.trial
    return (
        f"<p>Trial {trial.id}, hash {escape(trial.hash)}, {escape(str(trial.origin))}.</p><pre>{escape(trial.genotype)}</pre>"
    )


def _timeline(graph: Graph | None, best: TrialResult | None) -> str:
    if graph is None or best is None:
        return ""
    return (
        "<h2>How gradients reach its layers</h2>"
        "<p>A column for each layer, a row for each path length from a loss (Figure 7 of the gradient-path paper).</p>"
        f'<div class="wide">{timeline_svg(graph, f"Trial {best.trial.id}: gradient timeline")}</div>'
    )


def _settings_table(settings: RunSettings) -> str:
    shown = {**settings.to_json(), "baselines": ", ".join(settings.baselines)}  # by name: their genotypes fill pages
    stored = sorted(shown.items())
    rows = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in stored]
    return table(("setting", "value"), rows, text_from=0)


def _metric(metrics: Any, name: str) -> str:
    return f"{metrics[name]:.3f}" if name in metrics else ""


def _progress_drawing(evaluations: Sequence[EvaluationRow]) -> str:
    title = "AP over time"
    done = [row for row in evaluations if row.evaluation is not None and row.state is TrialState.COMPLETE]
    if not done:
        return empty(title, "no evaluation is complete")
    busy = _busy_time(evaluations)
    timed = [(busy(row.finished), row) for row in done if row.finished is not None]
    timed.sort(key=lambda pair: pair[0])
    unit, seconds = next(u for u in _TIME_UNITS if timed[-1][0] >= u[1] * 3 or u[1] == 1.0)
    x = axis([0.0, *(t / seconds for t, _ in timed)], LEFT, WIDTH - RIGHT, f"{unit} of search")
    y = axis([_ap(row) for _, row in timed], HEIGHT - BOTTOM, TOP, "AP", floor=0.0)
    explored = [(t, row) for t, row in timed if row.fidelity.seed < FIRST_FRESH]
    top, highest = (max((row.rung for _, row in rows), default=0) for rows in (timed, explored))
    best, line, parts = -math.inf, [], [frame(x, y)]
    for t, row in timed:
        at, ap, seed = x(t / seconds), _ap(row), row.fidelity.seed - FIRST_FRESH + 1
        style, fresh = ("fresh", f", fresh seed {seed}") if seed > 0 else ("dot", "")
        name = f"trial {row.trial_id}: AP {ap:.3f} at rung {row.rung}{fresh}"
        parts.append(dot(at, y(ap), name, style, *rung_look(row.rung, top)))
        if ap > best and seed <= 0 and row.rung == highest:
            best = ap
            line.append((at, y(ap)))
    parts.append(steps(line, WIDTH - RIGHT, "front"))
    legend = [("line front", f"best so far on rung {highest}"), *rung_legend(sorted({row.rung for _, row in timed}), top)]
    legend += [("mark fresh", "fresh seeds")] if len(explored) < len(timed) else []
    return drawing(title, f"best AP {best:.3f} on rung {highest} after {len(done)} complete evaluations", parts, legend)


_TIME_UNITS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


def _busy_time(evaluations: Sequence[EvaluationRow]) -> Callable[[float], float]:
    """A function from a moment to the seconds before it in which something was evaluated, without pauses between sessions."""
    spans: list[list[float]] = []
    for row in sorted(evaluations, key=lambda row: row.started):
        end = row.started if row.finished is None else max(row.started, row.finished)
        if spans and row.started <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], end)
        else:
            spans.append([row.started, end])
    return lambda moment: sum(min(end, moment) - start for start, end in spans if start < moment)


def _score_drawing(facts: _Facts) -> str:
    title = "Score against AP"
    # A warm start has the AP of a longer training, so it is not compared.
    warm = {trial.id for trial in facts.trials if trial.origin.lender is not None}
    done = [
        row
        for row in facts.evaluations
        if row.evaluation is not None
        and row.state is TrialState.COMPLETE
        and row.trial_id not in warm
        and row.fidelity.seed < FIRST_FRESH
    ]
    if not done:
        return empty(title, "no evaluation is complete")
    rung = min(row.rung for row in done)
    scores = {trial.id: trial.score for trial in facts.trials}
    pairs = [(row.trial_id, scores[row.trial_id], _ap(row)) for row in done if row.rung == rung]
    x = axis([score for _, score, _ in pairs], LEFT, WIDTH - RIGHT, "score before training")
    y = axis([ap for *_, ap in pairs], HEIGHT - BOTTOM, TOP, f"AP at rung {rung}", floor=0.0)
    front = {result.trial.id for result in facts.front}
    parts = [frame(x, y)]
    for i, score, ap in pairs:
        style = "on-front" if i in front else "dot"
        parts.append(dot(x(score), y(ap), f"trial {i}: score {score:.3f}, AP {ap:.3f}", style, 4.5, 0.85))
    rho = _spearman([score for _, score, _ in pairs], [ap for *_, ap in pairs])
    summary = f"{len(pairs)} trials at rung {rung}" + ("" if rho is None else f", Spearman correlation {rho:.2f}")
    title = title if rho is None else f"{title}: Spearman correlation {rho:.2f} over {len(pairs)} trials"
    return drawing(title, summary, parts, [("mark on-front", "on the front"), ("mark dot", "others")])


def _spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None for fewer than 5 pairs and where all values of one side are equal."""
    if len(a) < 5 or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    from scipy.stats import spearmanr  # late: it takes a second

    return float(spearmanr(a, b).statistic)


def _ap(row: EvaluationRow) -> float:
    assert row.evaluation is not None  # only complete evaluations are drawn
    return row.evaluation.metrics["ap"]
