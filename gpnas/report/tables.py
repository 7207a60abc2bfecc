"""Analyses and benchmarks as tables for a terminal, rendered by rich."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table

from gpnas.units import brief, parse_count

if TYPE_CHECKING:
    from gpnas.bench.correlation import Correlation
    from gpnas.bench.like_cost import Replicated
    from gpnas.bench.surrogate_skill import Skill


_STAGE_FIGURES = (
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
    """A console as wide as the terminal, or 200 columns wide for files and pipes, so that no column is cut."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def _number(value: Any) -> str:
    """An integer as it is, a float with three decimals."""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def figures_table(columns: Mapping[str, Mapping[str, float]]) -> Table:
    """One row for each figure, one column for each set of losses (all, main, auxiliary)."""
    table = Table("gradient paths", *columns, box=None)
    for figure in next(iter(columns.values())):
        table.add_row(figure, *(_number(figures.get(figure, "")) for figures in columns.values()))
    return table


def stages_table(stages: Mapping[str, Mapping[str, float]]) -> Table:
    """One row for each stage, one column for each of _STAGE_FIGURES."""
    table = Table("stage", *_STAGE_FIGURES, box=None)
    for stage, figures in stages.items():
        table.add_row(stage, *(_number(figures[figure]) for figure in _STAGE_FIGURES))
    return table


def layers_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row for each layer, and one for each of its channel groups where these receive different combinations."""
    table = Table(
        "layer", "in, out", "loss", "params", "shortest", "longest", "timestamps", "sources", "combinations", box=None
    )
    for row in rows:
        width = f"{row['channels'][0]}, {row['channels'][1]}"
        lengths = (row.get("shortest", "-"), row.get("longest", "-"), _spans(row["timestamps"]))
        counts = (row.get("sources", 0), row.get("combinations", 0))
        table.add_row(row["layer"], width, row["loss"], str(row["params"]), *map(str, lengths), *map(str, counts))
        groups = row["channel_groups"]
        for group in groups if len(groups) > 1 else ():
            start, stop = group["channels"]
            times = sorted({t for source in group["sources"] for t in source[2]})
            combinations = sum(len(source[2]) for source in group["sources"])
            counts = (len(group["sources"]), combinations)
            table.add_row(f"  channels {start}-{stop - 1}", "", "", "", "", "", _spans(times), *map(str, counts))
    return table


def _spans(lengths: Sequence[int]) -> str:
    """Rising numbers with their runs joined: [1, 2, 3, 5] is "1-3 5"."""
    runs: list[list[int]] = []
    for t in lengths:
        if runs and t == runs[-1][1] + 1:
            runs[-1][1] = t
        else:
            runs.append([t, t])
    return " ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def catalogue_tables(rows: Sequence[Mapping[str, Any]]) -> Group:
    """Our figures beside the published ones, in three tables: detectors, classifiers, and growth with depth.

    FLOPs are 2 x MACs of the fused form at the row's input size. A classifier's parameters are the weights of its
    convolutions, as its paper counts them.
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


def correlation_table(correlations: Mapping[str, Mapping[str, Correlation]], column: str) -> Table:
    """One row for each predictor: its correlation with one accuracy column."""
    table = Table(column, "Spearman", "Kendall", "at equal size", "regret of 1 in 1000", box=None)
    for predictor, columns in correlations.items():
        row = columns[column]
        table.add_row(predictor, *(f"{value:.3f}" for value in (row.spearman, row.kendall, row.equal, row.regret)))
    return table


SIGNIFICANT = 0.05


def like_cost_tables(comparisons: Mapping[str, Mapping[str, Replicated]], title: str) -> Group:
    """{comparison: {predictor: correlations}} as three tables: Spearman, Kendall, and Kendall in the first and the other half.

    A star marks a p-value below SIGNIFICANT after Holm's correction; in the third table that of the other half.
    """
    tables = [Table(kind, *comparisons, box=None, title=title) for kind in ("Spearman", "Kendall", "Kendall in the halves")]
    for name in next(iter(comparisons.values())):
        rows = [columns[name] for columns in comparisons.values()]
        tables[0].add_row(name, *(_starred(f"{row.whole.spearman:.2f}", row.whole.holm) for row in rows))
        tables[1].add_row(name, *(_starred(f"{row.whole.kendall:.2f}", row.whole.holm) for row in rows))
        halves = ((f"{row.first.kendall:.2f} {row.other.kendall:5.2f}", row.other.holm) for row in rows)
        tables[2].add_row(name, *(_starred(text, holm) for text, holm in halves))
    return Group(*tables)


def _starred(text: str, holm: float) -> str:
    return "-" if math.isnan(holm) else text + ("*" if holm < SIGNIFICANT else " ")


_SHARES_AT = (50, 100, 200, 400, 800)
_REGRETS_AT = (10, 20, 50, 100)


def regrets_table(curves: Mapping[str, Any], column: str) -> Group:
    """curves: (seeds, evaluations) by strategy.

    The first table shows mean regret and half of its 95 % interval. The second shows the evaluations after which each strategy
    has the mean regret of the first strategy.
    """
    most = min(rows.shape[1] for rows in curves.values())
    at = [n for n in _REGRETS_AT if n <= most] or [most]
    means = Table(f"mean regret, {column}", *(f"after {n}" for n in at), box=None)
    for name, rows in curves.items():
        means.add_row(name, *_means(rows, at, decimals=2))
    first = next(iter(curves))
    needed = Table(f"evaluations for the regret of {first}", *(f"after {n}" for n in at), box=None)
    for name, rows in curves.items():
        mean = rows.mean(axis=0)
        goals = [curves[first].mean(axis=0)[n - 1] for n in at]
        reached = [next((k + 1 for k in range(most) if mean[k] <= goal), None) for goal in goals]
        needed.add_row(name, *(f"over {most}" if k is None else str(k) for k in reached))
    return Group(means, needed)


def shares_table(curves: Mapping[str, Any], title: str, after: Sequence[int] = _SHARES_AT) -> Group:
    """curves: (seeds, measures, epochs) by strategy. after: the epochs at which shares are shown.

    For each measure one table shows the mean share and half of its 95 % interval. Another shows the epochs after which the mean
    reaches ENOUGH, and the first strategy's epochs divided by them, with a 90 % interval.
    """
    from gpnas.bench.detector_strategies import ENOUGH, MEASURES, epochs_to, ratio_interval

    first = next(iter(curves))
    most = min(rows.shape[2] for rows in curves.values())
    at = [n for n in after if n <= most] or [most]
    tables = []
    for k, measure in enumerate(MEASURES):
        means = Table(f"share of the {measure}, {title}", *(f"after {n} epochs" for n in at), box=None)
        needed = Table(f"epochs to {ENOUGH:.0%} of the {measure}", "epochs", f"{first} / this", "90 % interval", box=None)
        first_needs = epochs_to(ENOUGH, curves[first][:, k])
        for name, rows in curves.items():
            means.add_row(name, *_means(rows[:, k], at, decimals=3))
            interval = "" if name == first else _interval(*ratio_interval(ENOUGH, curves[first][:, k], rows[:, k]))
            needed.add_row(name, *_epochs_and_ratio(epochs_to(ENOUGH, rows[:, k]), first_needs, most), interval)
        tables += [means, needed]
    return Group(*tables)


def _means(rows: Any, at: Sequence[int], decimals: int) -> list[str]:
    """Mean of `rows` (seeds, steps) over seeds and half of its 95 % interval, after each number of steps in `at`."""
    half = 1.96 * rows.std(axis=0, ddof=1) / len(rows) ** 0.5
    return [f"{rows[:, n - 1].mean():.{decimals}f} +- {half[n - 1]:.{decimals}f}" for n in at]


def _interval(low: float, high: float) -> str:
    """Such as "0.35 to 0.50"; "over 0.35" where the upper end is not known, "-" where nothing is."""
    if (low, high) == (0.0, math.inf):
        return "-"
    return f"over {low:.2f}" if high == math.inf else f"{low:.2f} to {high:.2f}"


def _epochs_and_ratio(needs: float, first_needs: float, most: int) -> tuple[str, str]:
    """The epochs that a strategy needs and those of the first strategy divided by them; infinity is more than `most`."""
    if first_needs == math.inf:
        return f"over {most}" if needs == math.inf else f"{needs:.0f}", "-"
    if needs == math.inf:
        return f"over {most}", f"under {first_needs / most:.2f}"
    return f"{needs:.0f}", f"{first_needs / needs:.2f}"


def skills_table(by_encoding: Mapping[str, Sequence[Skill]], sizes: Sequence[int], column: str) -> Table:
    """One row for each encoding. sizes: how many trained candidates each of its skills was measured with."""
    table = Table(f"surrogate, {column}", *(f"Spearman, {n} trained" for n in sizes), *(f"80 %, {n}" for n in sizes), box=None)
    for name, skills in by_encoding.items():
        spearmans = (f"{skill.spearman:.3f} +- {skill.deviation:.3f}" for skill in skills)
        table.add_row(name, *spearmans, *(f"{skill.coverage:.2f}" for skill in skills))
    return table


def counted_table(rows: Sequence[tuple[str, str, int, int, int]]) -> Table:
    """rows: network, form, our parameters, the constants that its authors' code counts as well, and the integer that it counts.

    One row for each form of a network. An exact one is off by 0.
    """
    table = Table("parameters", "form", "ours", "DFL constants", "together", "published", "off by", box=None)
    for name, form, ours, constants, published in rows:
        counts = (f"{count:,}" for count in (ours, constants, ours + constants, published))
        table.add_row(name, form, *counts, f"{ours + constants - published:,}")
    return table


_PUBLISHED_FIGURES = ("distinct_combinations", "combinations", "score", "parameters", "flops")


def published_table(title: str, rows: Mapping[str, Mapping[str, float]], box_ap: Mapping[str, float]) -> Group:
    """Networks of one recipe in the order of their published box AP, and Kendall (tau-b) of every predictor with it."""
    from scipy.stats import kendalltau

    names = sorted(rows, key=lambda name: box_ap[name])
    networks = Table(title, "box AP", *_PUBLISHED_FIGURES, box=None)
    for name in names:
        networks.add_row(name, str(box_ap[name]), *(_number(rows[name][figure]) for figure in _PUBLISHED_FIGURES))
    taus = Table("Kendall with box AP", "tau", box=None)
    aps = [box_ap[name] for name in names]
    for predictor in rows[names[0]]:
        values = [rows[name][predictor] for name in names]
        taus.add_row(predictor, f"{kendalltau(aps, values).statistic:.2f}" if len(set(values)) > 1 else "constant")
    return Group(networks, taus)
