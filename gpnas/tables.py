"""Analyses as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table

from gpnas.quantities import brief

if TYPE_CHECKING:
    from gpnas.correlation import Correlation

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


def catalogue_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Ours against published; FLOPs are 2 x MACs at 640 x 640 on the fused form."""
    table = Table(
        "name", "params", "published", "FLOPs", "published", "AP", "distinct", "longest", "longest shortest", box=None
    )
    for row in rows:
        published, paths = row["published"] or {}, row["gradient_paths"]
        table.add_row(
            row["name"],
            brief(row["params"]),
            str(published.get("params", "-")),
            brief(row["flops"]),
            str(published.get("flops", "-")),
            str(published.get("ap", "-")),
            *(str(paths[key]) for key in ("distinct_combinations", "longest", "longest_shortest")),
        )
    return table


def correlation_table(found: Mapping[str, Mapping[str, Correlation]], column: str) -> Table:
    table = Table(column, "Spearman", "Kendall", "at equal size", "regret of 1 in 1000", box=None)
    for predictor, columns in found.items():
        row = columns[column]
        table.add_row(predictor, *(f"{value:.3f}" for value in (row.spearman, row.kendall, row.equal, row.regret)))
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
