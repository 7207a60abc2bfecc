"""The report of a run: one HTML page that loads nothing from elsewhere, and the Pareto front as an SVG.

write_report(run)                                  # RUN/report.html and RUN/front.svg
front_svg([FrontPoint(3, flops=2e9, ap=0.31, rung=2), ...], front=[3], best=3, max_flops=4e9)
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from gpnas.files import write_text
from gpnas.graph.graph import Graph
from gpnas.report.comparison import comparison_lines
from gpnas.report.drawing import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    axis,
    dot,
    drawing,
    empty,
    frame,
    page,
    rung_look,
    short,
    steps,
    table,
)
from gpnas.report.timeline import timeline_svg
from gpnas.run.journal import EvaluationRow, Journal, TrialRow
from gpnas.run.results import TrialResult, all_results, best_of, front_of, trial_results
from gpnas.run.settings import RunSettings
from gpnas.search.trial import TrialState
from gpnas.units import brief, clock


@dataclass(frozen=True)
class FrontPoint:
    """A measured trial. flops: 2 x MACs of the fused network on one image. ap: in [0, 1], of the evaluation on `rung`. name: of
    a baseline, by which the drawing labels it."""

    id: int
    flops: float
    ap: float
    rung: int = 0
    name: str = ""


def front_svg(
    points: Sequence[FrontPoint],
    *,
    front: Collection[int],
    best: int | None = None,
    max_flops: float | None = None,
    title: str = "AP over FLOPs",
) -> str:
    """A drawing of all measured trials, with the front as a step line, marks for the best trial and the limit, and the names of
    baselines.

    front, best: trial ids. Points of higher rungs are larger and more solid, because the AP of a low rung understates a
    candidate.
    """
    if not points:
        return empty(title, "no trial was measured")
    limit = [] if max_flops is None else [max_flops]
    x = axis([p.flops for p in points] + limit, LEFT, WIDTH - RIGHT, "FLOPs of the fused network (2 x MACs)", log=True)
    y = axis([p.ap for p in points], HEIGHT - BOTTOM, TOP, "AP", floor=0.0)
    parts = [frame(x, y)]
    if max_flops is not None:
        parts.append(_limit_line(x(max_flops), f"limit {short(max_flops)}"))
    on_front = sorted((p for p in points if p.id in front), key=lambda p: p.flops)
    top = max(p.rung for p in points)
    parts.append(steps([(x(p.flops), y(p.ap)) for p in on_front], WIDTH - RIGHT, "front"))
    for p in sorted(points, key=lambda p: (p.id in front, p.rung)):
        name = f"trial {p.id}{f' ({p.name})' if p.name else ''}: AP {p.ap:.3f}, {brief(p.flops)} FLOPs, rung {p.rung}"
        radius, opacity = rung_look(p.rung, top)
        style, opacity = ("on-front", max(opacity, 0.75)) if p.id in front else ("dot", opacity)
        parts.append(dot(x(p.flops), y(p.ap), name, style, radius, opacity))
    parts += _labels([*on_front, *(p for p in points if p.name and p.id not in front)], best, x, y)
    summary = f"{len(points)} measured trials, {len(on_front)} of them on the Pareto front"
    legend = [("line front", "Pareto front"), *_rung_legend(sorted({p.rung for p in points}))]
    return drawing(title, summary, parts, legend)


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
            front=front_of(results),
            best=best_of(results),
            compared=comparison_lines(all_results(journal), journal.trials()),
        )
    front = _front_drawing(facts)
    best_graph = build(facts.best.trial.genotype) if build and facts.best else None
    write_text(run / "front.svg", front)
    write_text(run / "report.html", _page(facts, front, best_graph))
    return run / "report.html"


@dataclass(frozen=True)
class _Facts:
    """The content of a journal. elapsed: seconds. results: by trial id. compared: lines about the best beside the baselines."""

    run: str
    state: str
    elapsed: float
    settings: RunSettings
    trials: list[TrialRow]
    evaluations: list[EvaluationRow]
    results: dict[int, TrialResult]
    front: list[TrialResult]
    best: TrialResult | None
    compared: list[str]


def _front_drawing(facts: _Facts) -> str:
    points = [
        FrontPoint(i, result.trial.flops, result.ap, result.rung, _name(result.trial)) for i, result in facts.results.items()
    ]
    best = facts.best.trial.id if facts.best else None
    front = [result.trial.id for result in facts.front]
    return front_svg(points, front=front, best=best, max_flops=facts.settings.limits.max_flops)


def _name(trial: TrialRow) -> str:
    """The name by which a drawing labels the start or a baseline; "" for other trials."""
    return trial.origin.name or (trial.origin.kind if trial.origin.is_known else "")


def _page(facts: _Facts, front: str, best_graph: Graph | None) -> str:
    sections = [
        f"<h1>{escape(facts.run)} <small>gpnas run, {escape(facts.state)}</small></h1>",
        _headline(facts),
        *(f"<p>{escape(text[0].upper() + text[1:])}.</p>" for text in facts.compared),
        front,
        "<h2>The Pareto front</h2>",
        "<p>The AP of a trial is that of the highest rung that it completed. Rungs differ in epochs and image size.</p>",
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


def _headline(facts: _Facts) -> str:
    settings = facts.settings
    finished = [row.evaluation for row in facts.evaluations if row.evaluation is not None]
    epochs = sum(evaluation.epochs for evaluation in finished)
    failed = sum(evaluation.state is TrialState.FAILED for evaluation in finished)
    tiles = []
    if best := facts.best:
        tiles += [
            ("best AP", f"{best.ap:.3f}", f"trial {best.trial.id}, {best.fidelity.epochs} epochs at {best.fidelity.imgsz} px"),
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
            f"{result.ap:.3f}",
            _metric(result.evaluation.metrics, "ap50"),
            brief(result.trial.flops),
            brief(result.trial.params),
            f"{result.rung}: {result.fidelity.epochs} epochs, {result.fidelity.imgsz} px",
            str(result.trial.origin),
            result.trial.hash,
        )
        for result in facts.front
    ]
    return table(("trial", "AP", "AP50", "FLOPs", "params", "rung", "origin", "hash"), rows, text_from=5)


def _trial_table(facts: _Facts) -> str:
    evaluations: dict[int, list[EvaluationRow]] = {}
    for row in facts.evaluations:
        evaluations.setdefault(row.trial_id, []).append(row)
    rows = [_trial_row(trial, evaluations.get(trial.id, []), facts.results.get(trial.id)) for trial in facts.trials]
    head = ("trial", "AP", "FLOPs", "params", "score", "seconds", "rung", "state", "cause", "origin")
    return table(head, rows, text_from=7)


def _trial_row(trial: TrialRow, evaluations: Sequence[EvaluationRow], result: TrialResult | None) -> tuple[str, ...]:
    last = max(evaluations, key=lambda row: row.rung, default=None)
    end = last.evaluation if last else None
    return (
        str(trial.id),
        f"{result.ap:.3f}" if result else "",
        brief(trial.flops),
        brief(trial.params),
        f"{trial.score:.3f}",
        f"{sum(row.evaluation.seconds for row in evaluations if row.evaluation):.1f}",
        str(last.rung) if last else "",
        last.state.value if last else TrialState.QUEUED.value,
        "" if end is None else f"{end.cause.value}: {end.message}" if end.cause else end.message,
        str(trial.origin),
    )


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
    top = max(row.rung for _, row in timed)
    best, line, parts = -math.inf, [], [frame(x, y)]
    for t, row in timed:
        at, ap = x(t / seconds), _ap(row)
        parts.append(dot(at, y(ap), f"trial {row.trial_id}: AP {ap:.3f} at rung {row.rung}", "dot", *rung_look(row.rung, top)))
        if ap > best:
            best = ap
            line.append((at, y(ap)))
    parts.append(steps(line, WIDTH - RIGHT, "front"))
    legend = [("line front", "best so far"), *_rung_legend(sorted({row.rung for _, row in timed}))]
    return drawing(title, f"best AP {best:.3f} after {len(done)} complete evaluations", parts, legend)


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
        if row.evaluation is not None and row.state is TrialState.COMPLETE and row.trial_id not in warm
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


def _limit_line(x: float, name: str) -> str:
    left = x > WIDTH - RIGHT - 90
    return (
        f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text x="{x + (-6 if left else 6):.1f}" y="{HEIGHT - BOTTOM - 8}" text-anchor="{"end" if left else "start"}">'
        f"{escape(name)}</text>"
    )


def _labels(labelled: Sequence[FrontPoint], best: int | None, x: Axis, y: Axis) -> list[str]:
    """Labels: the best trial with its AP, then baselines with their names, the others with their ids where labels do not
    overlap. A name is moved down or up where its place is taken: baselines may be near copies of each other."""
    taken: list[tuple[float, float, float, float]] = []
    parts = []
    for p in sorted(labelled, key=lambda p: (p.id != best, not p.name, -p.ap)):
        text = f"{p.name or f'trial {p.id}'}, AP {p.ap:.3f}" if p.id == best else p.name or str(p.id)
        px, py = x(p.flops), y(p.ap)
        if p.id == best:
            parts.append(f'<circle class="best" cx="{px:.1f}" cy="{py:.1f}" r="10"/>')
        width = 6.6 * len(text)
        right = min(px - 8, WIDTH - RIGHT - 4) if px - 8 - width > LEFT else px + 8 + width
        places = [py - (12 if p.id == best else 8) + move for move in (_MOVES if p.name else (0,))]
        boxes = [(right - width - 4, bottom - 12, right + 4, bottom) for bottom in places if TOP < bottom < HEIGHT - BOTTOM]
        free = [box for box in boxes if not any(_overlap(box, other) for other in taken)]
        if not free:
            continue
        taken.append(free[0])
        bottom = free[0][3]
        style = "label strong" if p.id == best else "label"
        parts.append(f'<text class="{style}" x="{right:.1f}" y="{bottom:.1f}" text-anchor="end">{escape(text)}</text>')
    return parts


_MOVES = (0, 26, 40, -14, -28)
"""Pixels downwards by which the name of a baseline may be moved, in the order in which they are tried."""


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    """Whether two boxes (left, top, right, bottom) share an area."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _rung_legend(rungs: Sequence[int]) -> list[tuple[str, str]]:
    return [(f"mark dot {rung} {rungs[-1]}", f"rung {rung}") for rung in rungs]
