"""A run as one HTML file without a single external request, and its front as an SVG.

    write_report(run, front=[3, 7], best=7)            # RUN/report.html and RUN/front.svg
    front_svg([FrontPoint(3, flops=2e9, ap=0.31, rung=2), ...], front=[3], best=3, max_flops=4e9)

The drawings are plain SVG with their own style: they follow the reader's light or dark theme, and every mark names itself
under the pointer and to a screen reader.
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
from gpnas.run.results import Measured, measured
from gpnas.search.trial import TrialState
from gpnas.units import brief, clock


@dataclass(frozen=True)
class FrontPoint:
    """A measured trial: FLOPs (2 x MACs of the fused network on one image), AP in [0, 1], the rung of that AP."""

    id: int
    flops: float
    ap: float
    rung: int = 0


def front_svg(
    points: Sequence[FrontPoint],
    *,
    front: Collection[int],
    best: int | None = None,
    max_flops: float | None = None,
    title: str = "AP over FLOPs",
) -> str:
    """A drawing of all measured trials, the front as a step line, the best and the limit marked.

    front, best: trial ids. Opacity and size of a point tell its rung: a low rung's AP understates a candidate.
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
        name = f"trial {p.id}: AP {p.ap:.3f}, {brief(p.flops)} FLOPs, rung {p.rung}"
        radius, opacity = rung_look(p.rung, top)
        style, opacity = ("on-front", max(opacity, 0.75)) if p.id in front else ("dot", opacity)
        parts.append(dot(x(p.flops), y(p.ap), name, style, radius, opacity))
    parts += _front_labels(on_front, best, x, y)
    summary = f"{len(points)} measured trials, {len(on_front)} of them on the Pareto front"
    legend = [("line front", "Pareto front"), *_rung_legend(sorted({p.rung for p in points}))]
    return drawing(title, summary, parts, legend)


def write_report(run: Path, front: Sequence[int], best: int | None, best_graph: Graph | None = None) -> Path:
    """Read the journal of `run`, write `report.html` and `front.svg` there, return the path of the former.

    front, best: trial ids. best_graph: the graph of the best, whose gradient timeline is drawn. The journal is not changed,
    and a search may be writing to it. Raises InputError and JournalError.
    """
    with Journal.open(run, write=False) as journal:
        facts = _Facts(
            run=run.resolve().name,
            state=journal.state,
            elapsed=journal.elapsed(),
            settings=journal.settings,
            trials=journal.trials(),
            evaluations=journal.evaluations(),
            measured={m.trial.id: m for m in measured(journal)},
            front=list(front),
            best=best,
            best_graph=best_graph,
        )
    unknown = [i for i in [*front, *([] if best is None else [best])] if i not in facts.measured]
    if unknown:
        raise ValueError(f"the front and the best must be measured trials of {run}, got {unknown}")
    drawing = _front_drawing(facts)
    write_text(run / "front.svg", drawing)
    write_text(run / "report.html", _page(facts, drawing))
    return run / "report.html"


@dataclass(frozen=True)
class _Facts:
    run: str
    state: str
    elapsed: float
    settings: dict[str, Any]
    trials: list[TrialRow]
    evaluations: list[EvaluationRow]
    measured: dict[int, Measured]
    front: list[int]
    best: int | None
    best_graph: Graph | None


def _front_drawing(facts: _Facts) -> str:
    points = [FrontPoint(i, 2.0 * m.trial.macs, m.ap, m.rung) for i, m in facts.measured.items()]
    return front_svg(points, front=facts.front, best=facts.best, max_flops=facts.settings.get("max_flops"))


def _page(facts: _Facts, drawing: str) -> str:
    sections = [
        f"<h1>{escape(facts.run)} <small>gpnas run, {escape(facts.state)}</small></h1>",
        _headline(facts),
        drawing,
        "<h2>The Pareto front</h2>",
        "<p>An AP is that of the highest rung a trial completed; rungs train for different times and sizes.</p>",
        _front_table(facts),
        "<h2>Progress</h2>",
        _progress_drawing(facts.evaluations),
        "<h2>Was the score right?</h2>",
        "<p>The score ranks candidates before any training. The search does not choose by it: its surrogate reads it among "
        "other figures. At the lowest rung all were trained alike.</p>",
        _score_drawing(facts),
        f"<h2>All trials</h2><details open><summary>{len(facts.trials)} trials</summary>{_trial_table(facts)}</details>",
        "<h2>The best architecture</h2>" + _best_text(facts),
        _timeline(facts),
        f"<h2>Settings</h2>{_settings_table(facts.settings)}",
    ]
    return page(f"gpnas: {facts.run}", sections)


def _headline(facts: _Facts) -> str:
    budget = facts.settings.get("budget")
    asked = budget.get("text") if isinstance(budget, dict) else budget
    finished = [row for row in facts.evaluations if row.evaluation is not None]
    epochs = sum(row.evaluation.epochs for row in finished if row.evaluation)
    failed = sum(row.state is TrialState.FAILED for row in finished)
    data = str(facts.settings.get("data", "unknown"))
    tiles = []
    if facts.best is not None:
        best = facts.measured[facts.best]
        tiles += [
            ("best AP", f"{best.ap:.3f}", f"trial {facts.best}, {best.fidelity.epochs} epochs at {best.fidelity.imgsz} px"),
            ("FLOPs", brief(2 * best.trial.macs), f"at {facts.settings.get('imgsz', '?')} px, fused"),
            ("parameters", brief(best.trial.params), "fused"),
        ]
    else:
        tiles.append(("best AP", "none", "no trial was measured"))
    tiles += [
        ("time", clock(facts.elapsed), f"budget {asked}" if asked else "no budget known"),
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
            f"{i}{' (best)' if i == facts.best else ''}",
            f"{m.ap:.3f}",
            _metric(m.evaluation.metrics, "ap50"),
            brief(2 * m.trial.macs),
            brief(m.trial.params),
            f"{m.rung}: {m.fidelity.epochs} epochs, {m.fidelity.imgsz} px",
            str(m.trial.origin),
            m.trial.hash,
        )
        for i, m in ((i, facts.measured[i]) for i in facts.front)
    ]
    return table(("trial", "AP", "AP50", "FLOPs", "params", "rung", "origin", "hash"), rows, text_from=5)


def _trial_table(facts: _Facts) -> str:
    by_trial: dict[int, list[EvaluationRow]] = {}
    for row in facts.evaluations:
        by_trial.setdefault(row.trial_id, []).append(row)
    rows = []
    for trial in facts.trials:
        own = sorted(by_trial.get(trial.id, []), key=lambda row: row.rung)
        last = own[-1] if own else None
        result = last.evaluation if last else None
        state = last.state.value if last else TrialState.QUEUED.value
        cause = f"{result.cause.value}: {result.message}" if result and result.cause else (result.message if result else "")
        found = facts.measured.get(trial.id)
        rows.append(
            (
                str(trial.id),
                f"{found.ap:.3f}" if found else "",
                brief(2 * trial.macs),
                brief(trial.params),
                f"{trial.score:.3f}",
                f"{sum(row.evaluation.seconds for row in own if row.evaluation):.1f}",
                str(last.rung) if last else "",
                state,
                cause,
                str(trial.origin),
            )
        )
    head = ("trial", "AP", "FLOPs", "params", "score", "seconds", "rung", "state", "cause", "origin")
    return table(head, rows, text_from=7)


def _best_text(facts: _Facts) -> str:
    if facts.best is None:
        return "<p>None yet.</p>"
    trial = facts.measured[facts.best].trial
    return (
        f"<p>Trial {trial.id}, hash {escape(trial.hash)}, {escape(str(trial.origin))}.</p><pre>{escape(trial.genotype)}</pre>"
    )


def _timeline(facts: _Facts) -> str:
    if facts.best_graph is None:
        return ""
    return (
        "<h2>How gradients reach its layers</h2>"
        "<p>A column for each layer, a row for each path length from a loss (Figure 7 of the gradient-path paper).</p>"
        f'<div class="wide">{timeline_svg(facts.best_graph, f"Trial {facts.best}: gradient timeline")}</div>'
    )


def _settings_table(settings: dict[str, Any]) -> str:
    rows = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in sorted(settings.items())]
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
    """Maps a moment to the seconds before it in which anything was evaluated: pauses between sessions do not count."""
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
    warm = {trial.id for trial in facts.trials if trial.origin.lender is not None}  # with the AP of a longer training
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
    parts = [frame(x, y)]
    for i, score, ap in pairs:
        style = "on-front" if i in facts.front else "dot"
        parts.append(dot(x(score), y(ap), f"trial {i}: score {score:.3f}, AP {ap:.3f}", style, 4.5, 0.85))
    rho = _spearman([score for _, score, _ in pairs], [ap for *_, ap in pairs])
    summary = f"{len(pairs)} trials at rung {rung}" + ("" if rho is None else f", Spearman correlation {rho:.2f}")
    title = title if rho is None else f"{title}: Spearman correlation {rho:.2f} over {len(pairs)} trials"
    return drawing(title, summary, parts, [("mark on-front", "on the front"), ("mark dot", "others")])


def _spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """None where it says nothing: fewer than 5 pairs, or all of one side equal."""
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


def _front_labels(front: Sequence[FrontPoint], best: int | None, x: Axis, y: Axis) -> list[str]:
    """The best by name and AP, the others by id where there is room."""
    taken: list[tuple[float, float, float, float]] = []
    parts = []
    for p in sorted(front, key=lambda p: (p.id != best, -p.ap)):
        text = f"trial {p.id}, AP {p.ap:.3f}" if p.id == best else str(p.id)
        px, py = x(p.flops), y(p.ap)
        if p.id == best:
            parts.append(f'<circle class="best" cx="{px:.1f}" cy="{py:.1f}" r="10"/>')
        width = 6.6 * len(text)
        right = min(px - 8, WIDTH - RIGHT - 4) if px - 8 - width > LEFT else px + 8 + width
        bottom = py - (12 if p.id == best else 8)
        box = (right - width - 4, bottom - 12, right + 4, bottom)
        if any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken):
            continue
        taken.append(box)
        style = "label strong" if p.id == best else "label"
        parts.append(f'<text class="{style}" x="{right:.1f}" y="{bottom:.1f}" text-anchor="end">{text}</text>')
    return parts


def _rung_legend(rungs: Sequence[int]) -> list[tuple[str, str]]:
    return [(f"mark dot {rung} {rungs[-1]}", f"rung {rung}") for rung in rungs]
