"""`gpnas bench`: what the analysis is worth, measured on accuracies that are known."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpnas.cli.options import cpu_cores
from gpnas.errors import InputError

if TYPE_CHECKING:
    from gpnas.bench.cell_strategies import Table
    from gpnas.bench.detector_strategies import FrontTable

FEWEST_ROWS = 20
"""Trained detectors that a table needs for searches on it to mean something."""


bench = typer.Typer(no_args_is_help=True, help="Measure what the analysis is worth, on accuracies that are known.")


@bench.command()
def correlation(
    table: Annotated[Path, typer.Option(help="CSV of NAS-Bench-201 cells: the cell, then accuracy columns")],
    out: Annotated[Path | None, typer.Option(help="CSV to write every cell's features to")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Rank correlation of every figure and of the score with accuracy, beside parameters, FLOPs and layers."""
    from dataclasses import asdict

    from gpnas.bench.correlation import correlations, read_table
    from gpnas.report.tables import correlation_table, open_console

    cells, accuracies = read_table(table)
    began = time.monotonic()
    rows = _cell_features(cells)
    print(f"features of {len(cells)} cells in {time.monotonic() - began:.1f} s", file=sys.stderr)
    if out is not None:
        _write_features(out, cells, rows)
    found = correlations(rows, accuracies)
    if as_json:
        plain = {name: {column: asdict(row) for column, row in columns.items()} for name, columns in found.items()}
        typer.echo(json.dumps(plain))
        return
    for column in accuracies:
        open_console().print(correlation_table(found, column))


AnyTable = Annotated[Path, typer.Option(help="CSV of NAS-Bench-201 cells: the cell, then accuracy columns")]


@bench.command("search")
def bench_search(
    table: AnyTable,
    column: Annotated[str | None, typer.Option(help="accuracy column (default: the first)")] = None,
    evaluations: int = 100,
    seeds: int = 50,
    out: Annotated[
        Path | None, typer.Option(help="CSV for the curves: strategy, evaluations, mean regret, 95 % interval")
    ] = None,
) -> None:
    """What search strategies find on a table whose truth is known: mean regret and its 95 % interval."""
    from gpnas.bench.cell_strategies import STRATEGIES, regrets
    from gpnas.report.tables import open_console, regrets_table

    if evaluations < 1 or seeds < 2:
        raise InputError(f"--evaluations {evaluations} --seeds {seeds}: must be at least 1 and 2")
    truth, name = cell_table(table, column)
    curves = {}
    for strategy, search in STRATEGIES.items():
        began = time.monotonic()
        curves[strategy] = regrets(search, truth, min(evaluations, len(truth.choices) - 1), seeds)
        print(f"{strategy}: {seeds} searches in {time.monotonic() - began:.0f} s", file=sys.stderr)
    if out is not None:
        _write_curves(out, curves)
    open_console().print(regrets_table(curves, name))


@bench.command("surrogate")
def bench_surrogate(
    table: Annotated[Path, typer.Option(help="CSV of NAS-Bench-201 cells, or a folder as bench front has it")],
    column: Annotated[
        str | None, typer.Option(help="accuracy column (default: the first), or of detectors which trainings (digits)")
    ] = None,
    draws: Annotated[int, typer.Option(help="random sets of trained candidates")] = 20,
    but: Annotated[int, typer.Option(help="of a folder: leave out the first so many detectors")] = 0,
) -> None:
    """How well the surrogate ranks what it has not seen after 20, 50 and 100 trained candidates, by what it reads of them."""
    from gpnas.bench.cell_strategies import encodings, skill
    from gpnas.report.tables import open_console, skills_table

    if table.is_dir():
        name = column or "digits"
        truth = detector_table(table, name, but).flat()
    elif but:
        raise InputError(f"--but {but}: only for a folder of detectors; leave it out")
    else:
        truth, name = cell_table(table, column)
    sizes = [n for n in (20, 50, 100) if 2 * n <= len(truth.choices)]
    if not sizes or draws < 1:
        raise InputError(f"--table {table} --draws {draws}: needs 40 candidates and a draw at least")
    found = {
        kind: [skill(features, prior, truth, n, draws) for n in sizes] for kind, (features, prior) in encodings(truth).items()
    }
    open_console().print(skills_table(found, sizes, name))


@bench.command("front")
def bench_front(
    table: Annotated[Path, typer.Option(help="folder of detectors.jsonl and trainings.jsonl (benchmarks/gp_bench.py)")],
    data: Annotated[str, typer.Option(help="which trainings of the table: digits or bccd")] = "digits",
    but: Annotated[int, typer.Option(help="leave out the first so many detectors")] = 0,
    epochs: int = 800,
    seeds: int = 50,
) -> None:
    """What share of the front, and of the best AP, search strategies find on a table of trained detectors, by epochs spent."""
    from gpnas.bench.detector_strategies import STRATEGIES, shares
    from gpnas.report.tables import open_console, shares_table

    if epochs < 1 or seeds < 2:
        raise InputError(f"--epochs {epochs} --seeds {seeds}: must be at least 1 and 2")
    truth = detector_table(table, data, but)
    curves = {}
    for name, strategy in STRATEGIES.items():
        began = time.monotonic()
        curves[name] = shares(strategy, truth, epochs, seeds)
        print(f"{name}: {seeds} searches in {time.monotonic() - began:.0f} s", file=sys.stderr)
    open_console().print(shares_table(curves, f"{len(truth.candidates)} detectors, {data}"))


def detector_table(folder: Path, data: str, but: int = 0) -> FrontTable:
    """The detectors of a table that were trained on `data`, without those of the catalogue and the first `but`."""
    import numpy as np

    from evaluators.tabular import read_curves
    from gpnas.bench.detector_strategies import FrontTable
    from search_spaces.tabular import TableSpace, read_detectors

    curves = read_curves(folder / "trainings.jsonl", data)
    drawn = [row for row in read_detectors(folder / "detectors.jsonl") if row.choices][but:]
    rows = [row for row in drawn if row.candidate.hash in curves]
    if len(rows) < FEWEST_ROWS:
        held = f"{len(rows)} detectors, trained on {data} and not left out"
        raise InputError(f"--table {folder}: it holds {held}; {FEWEST_ROWS} are needed")
    candidates, choices = [row.candidate for row in rows], [row.choices for row in rows]
    return FrontTable(
        TableSpace,
        candidates,
        choices,
        [row.features for row in rows],
        [row.macs for row in rows],
        np.array([curves[candidate.hash].ap for candidate in candidates]),
        rows[0].imgsz,
    )


def cell_table(path: Path, column: str | None) -> tuple[Table, str]:
    """The cells of a CSV of NAS-Bench-201 with what is known of them and one column of accuracies, and its name."""
    from gpnas.bench.cell_strategies import make_table
    from gpnas.bench.correlation import read_table
    from search_spaces.nasbench201 import cell_code

    cells, accuracies = read_table(path)
    name = column or next(iter(accuracies))
    if name not in accuracies:
        raise InputError(f"--column {name}: {path} has {', '.join(accuracies)}")
    choices = [tuple(cell_code(cell)) for cell in cells]
    return make_table(choices, _cell_features(cells), accuracies[name]), name


def _write_curves(path: Path, curves: dict[str, Any]) -> None:
    import csv

    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["strategy", "evaluations", "regret", "half_interval"])
        for strategy, rows in curves.items():
            half = 1.96 * rows.std(axis=0, ddof=1) / len(rows) ** 0.5
            for k in range(rows.shape[1]):
                writer.writerow([strategy, k + 1, f"{rows[:, k].mean():.4f}", f"{half[k]:.4f}"])


def _cell_features(cells: list[str]) -> list[dict[str, float]]:
    import multiprocessing

    from search_spaces.nasbench201 import cell_code

    codes = [cell_code(cell) for cell in cells]
    with multiprocessing.get_context("spawn").Pool(cpu_cores()) as pool:
        return pool.map(_features_of_cell, codes, chunksize=256)


def _features_of_cell(code: str) -> dict[str, float]:
    from gpnas.paths.features import features
    from search_spaces.nasbench201 import IMAGE, build_cell_network

    return features(build_cell_network(code), IMAGE["cifar10"], IMAGE["cifar10"])


def _write_features(path: Path, cells: list[str], rows: list[dict[str, float]]) -> None:
    import csv

    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cell", *rows[0]])
        writer.writerows([cell, *row.values()] for cell, row in zip(cells, rows, strict=True))


@bench.command()
def published() -> None:
    """Kendall of every figure and of the score with the published box AP: the paper's ablation, YOLOv9, stopped gradients."""
    from gpnas.paths.features import features
    from gpnas.report.tables import open_console, published_table
    from search_spaces.architecture import build
    from search_spaces.blueprint import catalogue, open_catalogue

    entries = {name: open_catalogue(name) for name in catalogue()}
    ablations = dict.fromkeys(name for entry in entries.values() for name in (entry.published or {}).get("ablations", ()))
    for ablation in ablations:
        members = {n: e for n, e in entries.items() if ablation in (e.published or {}).get("ablations", ())}
        rows = {name: features(build(entry), 640, 640) for name, entry in members.items()}
        box_ap = {name: float((entry.published or {})["ap"]) for name, entry in members.items()}
        open_console().print(published_table(ablation, rows, box_ap))
