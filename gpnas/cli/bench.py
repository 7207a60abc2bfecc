"""`gpnas bench`: measure what the analysis is worth, on benchmarks with known accuracies. It also reads the benchmarks."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpnas.bench.yolobench_table import is_yolobench
from gpnas.cli.options import cpu_cores
from gpnas.errors import InputError
from gpnas.files import write_text

if TYPE_CHECKING:
    from gpnas.bench.accuracy_benchmark import AccuracyBenchmark
    from gpnas.bench.detector_benchmark import DetectorBenchmark

FEW = (10, 20, 40, 80)
"""Full trainings after which the shares on YOLOBench are shown."""

FEWEST_DETECTORS = 20
"""A benchmark with fewer trained detectors is refused."""

CellTable = Annotated[Path, typer.Option(help="CSV file of NAS-Bench-201: a column of cells, then columns of accuracies")]

ImageSize = Annotated[int | None, typer.Option(min=32, help="of YOLOBench: detectors of this image size in pixels (320)")]

SkipFirst = Annotated[int, typer.Option(min=0, help="of GP-Bench: leave out the first detectors, this many")]

Merged = Annotated[
    bool, typer.Option("--merged", help="of YOLOBench: count a RepVGG unit as one layer, without its identity in training")
]

bench = typer.Typer(no_args_is_help=True, help="Measure what the analysis is worth, on benchmarks with known accuracies.")


@bench.command()
def correlation(
    table: Annotated[Path, typer.Option(help="CSV file of NAS-Bench-201 cells, or the folder of YOLOBench's two CSV files")],
    out: Annotated[Path | None, typer.Option(help="CSV file to write the features of every cell or structure to")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
    imgsz: ImageSize = None,
    zero_cost: Annotated[
        Path | None, typer.Option(help="of YOLOBench: JSON lines of zero-cost scores (benchmarks/yolobench_scores.py)")
    ] = None,
    merged: Merged = False,
) -> None:
    """Rank correlation of every figure and of the score with accuracy, beside parameters, FLOPs and layers.

    On YOLOBench, also among structures of like MACs and of like latency, with permutation tests that are corrected for the
    number of predictors.
    """
    if is_yolobench(table):
        _correlate_structures(table, imgsz, zero_cost, merged, out, as_json)
        return
    if imgsz is not None or zero_cost is not None or merged:
        raise InputError(f"--imgsz, --zero-cost and --merged are for a folder of YOLOBench, {table} is none; leave them out")
    _correlate_cells(table, out, as_json)


def _correlate_cells(table: Path, out: Path | None, as_json: bool) -> None:
    from dataclasses import asdict

    from gpnas.bench.accuracy_benchmark import read_accuracies
    from gpnas.bench.correlation import correlations
    from gpnas.report.tables import correlation_table, open_console

    cells, accuracies = read_accuracies(table)
    began = time.monotonic()
    features = _features_of_cells(cells)
    print(f"features of {len(cells)} cells in {time.monotonic() - began:.1f} s", file=sys.stderr)
    if out is not None:
        rows = ([cell, *row.values()] for cell, row in zip(cells, features, strict=True))
        _write_csv(out, ["cell", *features[0]], rows)
    by_predictor = correlations(features, accuracies)
    if as_json:
        plain = {name: {column: asdict(row) for column, row in columns.items()} for name, columns in by_predictor.items()}
        typer.echo(json.dumps(plain))
        return
    for column in accuracies:
        open_console().print(correlation_table(by_predictor, column))


def _correlate_structures(
    table: Path, imgsz: int | None, zero_cost: Path | None, merged: bool, out: Path | None, as_json: bool
) -> None:
    from dataclasses import asdict

    from gpnas.cli.yolobench import IMGSZ, SERIES_COMPARISON, read_structures, replicated_correlations
    from gpnas.report.tables import like_cost_tables, open_console

    size = IMGSZ if imgsz is None else imgsz
    structures = read_structures(table, size, zero_cost, merged=merged)
    if out is not None:
        columns = {"ap": structures.ap, **structures.costs, **structures.predictors}
        _write_csv(out, ["structure", *columns], zip(structures.names, *columns.values(), strict=True))
    comparisons = replicated_correlations(structures)
    if as_json:
        plain = {name: {k: asdict(row) for k, row in rows.items()} for name, rows in comparisons.items()}
        typer.echo(json.dumps({"imgsz": size, "structures": len(structures.names), "comparisons": plain}))
        return
    title = f"{len(structures.names)} structures at {size} px"
    console = open_console()
    between = {name: rows for name, rows in comparisons.items() if not name.startswith(SERIES_COMPARISON)}
    within = {name.removeprefix(SERIES_COMPARISON): rows for name, rows in comparisons.items() if name not in between}
    console.print(like_cost_tables(between, title))
    console.print(like_cost_tables(within, f"within each series, {title}"))


@bench.command("search")
def bench_search(
    table: CellTable,
    column: Annotated[str | None, typer.Option(help="accuracy column (default: the first)")] = None,
    evaluations: int = 100,
    seeds: int = 50,
    out: Annotated[
        Path | None,
        typer.Option(help="CSV file for the curves: strategy, evaluations, mean regret, half of its 95 % interval"),
    ] = None,
) -> None:
    """Mean regret, with its 95 % interval, of search strategies on a benchmark of cells."""
    from gpnas.bench.cell_strategies import STRATEGIES, regrets
    from gpnas.report.tables import open_console, regrets_table

    if evaluations < 1 or seeds < 2:
        raise InputError(f"--evaluations {evaluations} --seeds {seeds}: must be at least 1 and 2")
    benchmark, name = read_cell_benchmark(table, column)
    curves = {}
    for strategy, search in STRATEGIES.items():
        began = time.monotonic()
        curves[strategy] = regrets(search, benchmark, min(evaluations, len(benchmark.choices)), seeds)
        print(f"{strategy}: {seeds} searches in {time.monotonic() - began:.0f} s", file=sys.stderr)
    if out is not None:
        _write_csv(out, ["strategy", "evaluations", "regret", "half_interval"], _rows_of_curves(curves))
    open_console().print(regrets_table(curves, name))


@bench.command("surrogate")
def bench_surrogate(
    table: Annotated[Path, typer.Option(help="CSV file of NAS-Bench-201 cells, or a folder as for bench front")],
    column: Annotated[
        str | None,
        typer.Option(help="of a CSV file: the accuracy column (default: the first); of GP-Bench: digits (default) or bccd"),
    ] = None,
    draws: Annotated[int, typer.Option(help="random sets of trained candidates")] = 20,
    skip_first: SkipFirst = 0,
    imgsz: ImageSize = None,
    merged: Merged = False,
) -> None:
    """How well the surrogate, after 20, 50 and 100 trained candidates, ranks the others, by what it reads of them."""
    from gpnas.bench.surrogate_skill import encodings, skill
    from gpnas.report.tables import open_console, skills_table

    if is_yolobench(table):
        from gpnas.cli.yolobench import IMGSZ, surrogate_benchmark

        if column or skip_first:
            raise InputError(f"--column and --skip-first are for other tables than YOLOBench ({table}); leave them out")
        name = f"YOLOBench at {imgsz or IMGSZ} px"
        benchmark = surrogate_benchmark(table, imgsz or IMGSZ, merged=merged)
    elif imgsz is not None or merged:
        raise InputError(f"--imgsz and --merged are for a folder of YOLOBench, {table} is none; leave them out")
    elif table.is_dir():
        name = column or "digits"
        benchmark = read_detector_benchmark(table, name, skip_first).final_ap()
    elif skip_first:
        raise InputError(f"--skip-first {skip_first}: only for a folder of detectors; leave it out")
    else:
        benchmark, name = read_cell_benchmark(table, column)
    sizes = [n for n in (20, 50, 100) if 2 * n <= len(benchmark.choices)]
    if not sizes or draws < 1:
        raise InputError(f"--table {table} --draws {draws}: needs at least 40 candidates and at least one draw")
    skills = {
        kind: [skill(features, prior, benchmark, n, draws) for n in sizes]
        for kind, (features, prior) in encodings(benchmark).items()
    }
    open_console().print(skills_table(skills, sizes, name))


@bench.command("front")
def bench_front(
    table: Annotated[
        Path,
        typer.Option(help="folder with detectors.jsonl and trainings.jsonl (benchmarks/gp_bench.py), or YOLOBench's CSV files"),
    ],
    data: Annotated[str | None, typer.Option(help="data of the trainings: digits (default) or bccd")] = None,
    cost: Annotated[str | None, typer.Option(help="of YOLOBench: macs (default), or a device, whose latency counts")] = None,
    skip_first: SkipFirst = 0,
    epochs: Annotated[int | None, typer.Option(help="to spend (800); of YOLOBench full trainings (100)")] = None,
    searches: Annotated[int, typer.Option(help="of each strategy")] = 200,
    merged: Merged = False,
) -> None:
    """The share of the front, and of the best AP, that search strategies reach on trained detectors, by epochs spent.

    On YOLOBench an epoch is a full training, and the image size is a choice of the search.
    """
    from gpnas.bench.detector_strategies import STRATEGIES, shares
    from gpnas.report.tables import open_console, shares_table

    published = is_yolobench(table)
    spent = epochs if epochs is not None else 100 if published else 800
    if spent < 1 or searches < 2:
        raise InputError(f"--epochs {spent} --searches {searches}: must be at least 1 and 2")
    if published:
        from gpnas.cli.yolobench import MACS, detector_benchmark

        if data or skip_first:
            raise InputError(f"--data and --skip-first are for other tables than YOLOBench ({table}); leave them out")
        judged = f"YOLOBench, AP over {cost or MACS}"
        benchmark = detector_benchmark(table, cost or MACS, merged=merged)
    elif cost or merged:
        raise InputError(f"--cost and --merged are for a folder of YOLOBench, {table} is none; leave them out")
    else:
        judged = data or "digits"
        benchmark = read_detector_benchmark(table, judged, skip_first)
    curves = {}
    for name, strategy in STRATEGIES.items():
        began = time.monotonic()
        curves[name] = shares(strategy, benchmark, spent, searches)
        print(f"{name}: {searches} searches in {time.monotonic() - began:.0f} s", file=sys.stderr)
    title = f"{len(benchmark.candidates)} detectors, {judged}"
    open_console().print(shares_table(curves, title, FEW) if published else shares_table(curves, title))


@bench.command()
def published() -> None:
    """Parameters beside the integers that YOLOv9's code counts, and Kendall of every figure and of the score with the published
    box AP: the paper's ablation, YOLOv9, stopped gradients."""
    from gpnas.paths.features import features
    from gpnas.report.tables import counted_table, open_console, published_table
    from search_spaces.architecture import build
    from search_spaces.blueprint import catalogue, open_catalogue
    from search_spaces.counted import counted_forms

    entries = {name: open_catalogue(name) for name in catalogue()}
    open_console().print(counted_table([form for entry in entries.values() for form in counted_forms(entry)]))
    ablations = dict.fromkeys(name for entry in entries.values() for name in (entry.published or {}).get("ablations", ()))
    for ablation in ablations:
        members = {n: e for n, e in entries.items() if ablation in (e.published or {}).get("ablations", ())}
        rows = {name: features(build(entry), 640, 640) for name, entry in members.items()}
        box_ap = {name: float((entry.published or {})["ap"]) for name, entry in members.items()}
        open_console().print(published_table(ablation, rows, box_ap))


@bench.command("growth")
def bench_growth(
    out: Annotated[Path | None, typer.Option(help="folder to draw the networks of the paper's Figures 7 and 8 into")] = None,
) -> None:
    """Table 1 of the gradient-path paper: how figures of five networks grow with depth, and the law that fits them best."""
    from gpnas.bench.growth import growth_lines
    from gpnas.report.timeline import sources_svg, timeline_svg
    from search_spaces.growth import DRAWN, TABLE_1, network

    for line in growth_lines({name: partial(network, name) for name in TABLE_1}):
        typer.echo(line)
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    for title, name in DRAWN.items():
        graph = network(name, 4)
        write_text(out / f"timeline-{title.lower()}.svg", timeline_svg(graph, f"{title}: gradient timeline"))
        # Sources at timestamp 2 are the gradients that the prediction layer passes on.
        write_text(out / f"sources-{title.lower()}.svg", sources_svg(graph, 2, f"{title}: gradient sources"))


def read_detector_benchmark(folder: Path, data: str, skip_first: int = 0, *, catalogue: bool = False) -> DetectorBenchmark:
    """The detectors in `folder` that were trained on `data`, without the first `skip_first`, and without the catalogue's or,
    with `catalogue`, with them.

    They have the trainings of all seeds from 0 on, up to the first seed that no detector has. The detector score is computed
    from other figures where the file lacks it, which was written before there was one. Raises InputError if fewer than
    FEWEST_DETECTORS are left.
    """
    import itertools

    from evaluators.tabular import read_curves
    from gpnas.bench.detector_benchmark import DetectorBenchmark, curves_by_seed
    from gpnas.paths.score import detector_score
    from search_spaces.gp_bench import read_detectors
    from search_spaces.tabular import TabularSpace

    by_seed = (read_curves(folder / "trainings.jsonl", data, seed) for seed in itertools.count())
    seeds = list(itertools.takewhile(bool, by_seed))
    searchable = [row for row in read_detectors(folder / "detectors.jsonl") if catalogue or row.choices]
    rows = [row for row in searchable[skip_first:] if seeds and row.candidate.hash in seeds[0]]
    if len(rows) < FEWEST_DETECTORS:
        left = f"{len(rows)} detectors trained on {data} are left after the first {skip_first}"
        raise InputError(f"--table {folder}: {left}; {FEWEST_DETECTORS} are needed")
    return DetectorBenchmark(
        TabularSpace,
        [row.candidate for row in rows],
        [row.choices for row in rows],
        [{"detector_score": detector_score(2 * row.macs, row.features["longest_shortest"])} | {**row.features} for row in rows],
        [row.macs for row in rows],
        curves_by_seed(
            [{name: curve.ap for name, curve in curves.items()} for curves in seeds], [row.candidate.hash for row in rows]
        ),
        rows[0].imgsz,
    )


def read_cell_benchmark(path: Path, column: str | None) -> tuple[AccuracyBenchmark, str]:
    """The cells in a CSV file with one column of accuracies (None: the first), and the name of that column."""
    from gpnas.bench.accuracy_benchmark import accuracy_benchmark, read_accuracies
    from search_spaces.nasbench201 import cell_code

    cells, accuracies = read_accuracies(path)
    name = column or next(iter(accuracies))
    if name not in accuracies:
        raise InputError(f"--column {name}: {path} has {', '.join(accuracies)}")
    choices = [tuple(cell_code(cell)) for cell in cells]
    return accuracy_benchmark(choices, _features_of_cells(cells), accuracies[name]), name


def _features_of_cells(cells: list[str]) -> list[dict[str, float]]:
    import multiprocessing

    from search_spaces.nasbench201 import cell_code

    codes = [cell_code(cell) for cell in cells]
    with multiprocessing.get_context("spawn").Pool(cpu_cores()) as pool:
        return pool.map(_features_of_cell, codes, chunksize=256)


def _features_of_cell(code: str) -> dict[str, float]:
    from gpnas.paths.features import features
    from search_spaces.nasbench201 import IMAGE_SIZE, build_cell_network

    return features(build_cell_network(code), IMAGE_SIZE, IMAGE_SIZE)


def _rows_of_curves(curves: dict[str, Any]) -> Iterable[Sequence[object]]:
    """Strategy, evaluations, mean regret over seeds, half of its 95 % interval. curves: (seeds, evaluations) by strategy."""
    for strategy, rows in curves.items():
        half = 1.96 * rows.std(axis=0, ddof=1) / len(rows) ** 0.5
        for k in range(rows.shape[1]):
            yield strategy, k + 1, f"{rows[:, k].mean():.4f}", f"{half[k]:.4f}"


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
