"""Analyses as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table

from gpnas.units import brief, parse_count

if TYPE_CHECKING:
    from gpnas.bench.cell_strategies import Skill
    from gpnas.bench.correlation import Correlation


STAGE_FIGURES = (
    "live_layers",
    "live_params",
    "longest",
    "longest_shortest",
    "timestamps_mean",
    "sources_mean",
    "combinations",
    "distinct_combinations",
    "duplicated_share",
    "poolings_per_path",
)


def open_console() -> Console:
    """As wide as the terminal; files and pipes get every column whole."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def number(value: Any) -> str:
    """A count whole, a mean with three decimals."""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def figures_table(columns: Mapping[str, Mapping[str, float]]) -> Table:
    """Every figure in a row, a column for each of `columns` (all losses, main, auxiliary)."""
    table = Table("gradient paths", *columns, box=None)
    for figure in next(iter(columns.values())):
        table.add_row(figure, *(number(figures.get(figure, "")) for figures in columns.values()))
    return table


def stages_table(stages: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table("stage", *STAGE_FIGURES, box=None)
    for stage, figures in stages.items():
        table.add_row(stage, *(number(figures[figure]) for figure in STAGE_FIGURES))
    return table


def layers_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row a layer; a layer whose channel groups receive different combinations has one more row for each."""
    table = Table(
        "layer", "in, out", "loss", "params", "shortest", "longest", "timestamps", "sources", "combinations", box=None
    )
    for row in rows:
        width = f"{row['channels'][0]}, {row['channels'][1]}"
        known = (row.get("shortest", "-"), row.get("longest", "-"), spans(row["timestamps"]))
        counts = (row.get("sources", 0), row.get("combinations", 0))
        table.add_row(row["layer"], width, row["loss"], str(row["params"]), *map(str, known), *map(str, counts))
        groups = row["channel_groups"]
        for group in groups if len(groups) > 1 else ():
            start, stop = group["channels"]
            times = sorted({t for source in group["sources"] for t in source[2]})
            combinations = sum(len(source[2]) for source in group["sources"])
            counts = (len(group["sources"]), combinations)
            table.add_row(f"  channels {start}-{stop - 1}", "", "", "", "", "", spans(times), *map(str, counts))
    return table


def spans(lengths: Sequence[int]) -> str:
    """Rising numbers, runs of them joined: 1-3 5."""
    runs: list[list[int]] = []
    for t in lengths:
        if runs and t == runs[-1][1] + 1:
            runs[-1][1] = t
        else:
            runs.append([t, t])
    return " ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def catalogue_tables(rows: Sequence[Mapping[str, Any]]) -> Group:
    """Ours against published, by kind: detectors, classifiers, and the networks whose growth is published.

    FLOPs are 2 x MACs on the fused form at the row's input size; a classifier's parameters are those that its paper counts.
    """
    detectors, classifiers, grown = _table("detector", "AP"), _table("classifier", "top-1"), _growth_table()
    notes = []
    for row in rows:
        published = row["published"] or {}
        if "growth" in row:
            laws = ((row["growth"][figure], published["growth"].get(figure, "-")) for figure in row["growth"])
            grown.add_row(row["name"], *(f"{ours} ({theirs})" for ours, theirs in laws))
        elif "convolution_weights" in row:
            _add(classifiers, row, row["convolution_weights"], published.get("top1"))
        else:
            _add(detectors, row, row["params"], published.get("ap"))
        if published.get("reached", "exact") != "exact":
            notes.append(f"{row['name']}: {published['reached']}")
    return Group(detectors, classifiers, grown, *notes)


def _table(kind: str, accuracy: str) -> Table:
    counts = ("params", "published", "off by", "FLOPs", "published", "off by")
    return Table(kind, *counts, accuracy, "distinct", "longest", "longest shortest", box=None)


def _growth_table() -> Table:
    return Table("growth, ours (published)", "params", "shortest path", "aggregated features", box=None)


def _add(table: Table, row: Mapping[str, Any], params: int, accuracy: float | None) -> None:
    published, paths = row["published"] or {}, row["gradient_paths"]
    cells = []
    for figure, ours in (("params", params), ("flops", row["flops"])):
        theirs = published.get(figure)
        off = f"{100 * (ours / parse_count(theirs, row['name']) - 1):+.2f} %" if theirs else "-"
        cells += [brief(ours), theirs or "-", off]
    figures = (str(paths[key]) for key in ("distinct_combinations", "longest", "longest_shortest"))
    table.add_row(row["name"], *cells, str(accuracy or "-"), *figures)


def correlation_table(found: Mapping[str, Mapping[str, Correlation]], column: str) -> Table:
    table = Table(column, "Spearman", "Kendall", "at equal size", "regret of 1 in 1000", box=None)
    for predictor, columns in found.items():
        row = columns[column]
        table.add_row(predictor, *(f"{value:.3f}" for value in (row.spearman, row.kendall, row.equal, row.regret)))
    return table


SHARES_AT = (50, 100, 200, 400, 800)
REGRETS_AT = (10, 20, 50, 100)


def regrets_table(curves: Mapping[str, Any], column: str) -> Group:
    """curves: (seeds, evaluations) by strategy. Mean regret with half its 95 % interval; then the evaluations that each
    strategy needs for the mean regret that the first has after so many."""
    most = min(rows.shape[1] for rows in curves.values())
    at = [n for n in REGRETS_AT if n <= most] or [most]
    means = Table(f"mean regret, {column}", *(f"after {n}" for n in at), box=None)
    for name, rows in curves.items():
        half = 1.96 * rows.std(axis=0, ddof=1) / len(rows) ** 0.5
        means.add_row(name, *(f"{rows[:, n - 1].mean():.2f} +- {half[n - 1]:.2f}" for n in at))
    first = next(iter(curves))
    needed = Table(f"evaluations for the regret of {first}", *(f"after {n}" for n in at), box=None)
    for name, rows in curves.items():
        mean = rows.mean(axis=0)
        goals = [curves[first].mean(axis=0)[n - 1] for n in at]
        reached = [next((k + 1 for k in range(most) if mean[k] <= goal), None) for goal in goals]
        needed.add_row(name, *(f"over {most}" if k is None else str(k) for k in reached))
    return Group(means, needed)


def shares_table(curves: Mapping[str, Any], title: str) -> Group:
    """curves: (seeds, measures, epochs) by strategy. For each measure the mean share with half its 95 % interval; then the
    epochs after which the mean reaches ENOUGH, and what the first strategy needs of them."""
    from gpnas.bench.detector_strategies import ENOUGH, MEASURES, epochs_to

    most = min(rows.shape[2] for rows in curves.values())
    at = [n for n in SHARES_AT if n <= most] or [most]
    tables = []
    for k, measure in enumerate(MEASURES):
        means = Table(f"share of the {measure}, {title}", *(f"after {n} epochs" for n in at), box=None)
        needed = Table(f"epochs to {ENOUGH:.0%} of the {measure}", "epochs", f"{next(iter(curves))} / this", box=None)
        own = epochs_to(ENOUGH, next(iter(curves.values()))[:, k])
        for name, all_measures in curves.items():
            rows = all_measures[:, k]
            half = 1.96 * rows.std(axis=0, ddof=1) / len(rows) ** 0.5
            means.add_row(name, *(f"{rows[:, n - 1].mean():.3f} +- {half[n - 1]:.3f}" for n in at))
            took = epochs_to(ENOUGH, rows)
            reached, ours = took != float("inf"), own != float("inf")
            ratio = f"{own / took:.2f}" if reached and ours else f"under {own / most:.2f}" if ours else "-"
            needed.add_row(name, f"{took:.0f}" if reached else f"over {most}", ratio)
        tables += [means, needed]
    return Group(*tables)


def skills_table(found: Mapping[str, Sequence[Skill]], sizes: Sequence[int], column: str) -> Table:
    table = Table(f"surrogate, {column}", *(f"Spearman, {n} trained" for n in sizes), *(f"80 %, {n}" for n in sizes), box=None)
    for name, skills in found.items():
        spearmans = (f"{skill.spearman:.3f} +- {skill.deviation:.3f}" for skill in skills)
        table.add_row(name, *spearmans, *(f"{skill.coverage:.2f}" for skill in skills))
    return table


PUBLISHED_FIGURES = ("distinct_combinations", "combinations", "score", "parameters", "flops")


def published_table(title: str, rows: Mapping[str, Mapping[str, float]], box_ap: Mapping[str, float]) -> Group:
    """Networks of one recipe by their published box AP, and Kendall (tau-b) of every predictor with it."""
    from scipy.stats import kendalltau

    names = sorted(rows, key=lambda name: box_ap[name])
    networks = Table(title, "box AP", *PUBLISHED_FIGURES, box=None)
    for name in names:
        networks.add_row(name, str(box_ap[name]), *(number(rows[name][figure]) for figure in PUBLISHED_FIGURES))
    taus = Table("Kendall with box AP", "tau", box=None)
    aps = [box_ap[name] for name in names]
    for predictor in rows[names[0]]:
        values = [rows[name][predictor] for name in names]
        taus.add_row(predictor, f"{kendalltau(aps, values).statistic:.2f}" if len(set(values)) > 1 else "constant")
    return Group(networks, taus)
