"""The command line, and the one place that joins the core with the search spaces and the evaluators.

Heavy libraries (torch, nni, wandb, pycocotools) are imported inside the commands that need them, so that `gpnas --help`
answers at once.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpnas import __version__
from gpnas.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, GpnasError, InputError, LimitError

if TYPE_CHECKING:
    from rich.console import Console

    from evaluators.data.records import DetectionData
    from evaluators.training.train_detector import Trained
    from gpnas.bench.cell_strategies import Table
    from gpnas.bench.detector_strategies import FrontTable
    from gpnas.graph.graph import Graph
    from gpnas.graph.network import Network
    from gpnas.run.gpu_memory import MemoryTable
    from gpnas.run.journal import Journal
    from gpnas.run.results import Measured
    from gpnas.search.controller import Suggestion
    from gpnas.search.limits import Limits
    from gpnas.search.trial import Candidate, Evaluation, Space
    from search_spaces.architecture import Architecture


# Newer typers carry their own click, older ones import it: this names the base of all usage errors of either.
UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Neural architecture search for object detectors over the gradient-path design space.",
)

DEFAULT_SPACE = "gradient-path"

FEWEST_ROWS = 20
"""Trained detectors that a table needs for searches on it to mean something."""

GPU_PROCESSES = 4
"""Proxies at once on one GPU, at most."""

SAMPLES, SURE = 12, 0.25
"""Images that a training's report shows, and the least score of a detection on them."""

Data = Annotated[str, typer.Option(help="COCO folder, Ultralytics-style data.yaml, or digits (built in)")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Out = Annotated[Path | None, typer.Option(help="folder for the results (default: runs/ and the time)")]


def main() -> None:
    """Entry point: one line on stderr and an exit code instead of a traceback for what a user can mend."""
    try:
        code = app(standalone_mode=False)
    except GpnasError as error:
        _complain(str(error), error.exit_code)
    except UsageProblem as error:
        _complain(error.format_message(), EXIT_BAD_INPUT)  # type: ignore[attr-defined]
    except (typer.Abort, KeyboardInterrupt):
        _complain("stopped", EXIT_FAILED)
    sys.exit(code if isinstance(code, int) else EXIT_DONE)


def _complain(message: str, code: int) -> None:
    print("gpnas: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


@app.command()
def search(
    budget: Annotated[str, typer.Option(help="90s, 30m, 2h, 1d, 50trials or 400epochs")],
    data: Data = "digits",
    space: Annotated[str, typer.Option(help="a ready space or a YAML that narrows one")] = DEFAULT_SPACE,
    start: Annotated[str | None, typer.Option(help="catalogue name, architecture YAML or run to search around")] = None,
    imgsz: Annotated[int, typer.Option(help="image size, in pixels, of the final detector: limits hold at it")] = 640,
    max_flops: Annotated[str | None, typer.Option(help="hard limit, 2 x MACs at --imgsz: 10G")] = None,
    max_params: Annotated[str | None, typer.Option(help="hard limit on the fused network: 3M")] = None,
    out: Out = None,
    seed: int = 0,
    device: Device = "auto",
    workers: Annotated[str, typer.Option(help="auto or local:N (processes)")] = "auto",
    wandb: Annotated[str, typer.Option(help="offline, online or off")] = "offline",
    warm_start: Annotated[bool, typer.Option("--warm-start", help="children start from their parents' weights")] = False,
) -> None:
    """Search for architectures within limits; ends with a Pareto front and best.yaml."""
    from evaluators.data.open import open_data
    from evaluators.data.records import digest
    from gpnas.run.journal import Journal
    from gpnas.search.budget import parse_budget
    from gpnas.search.ladder import plan
    from gpnas.search.limits import check_limits, typical_macs

    wanted = parse_budget(budget)
    limits = _limits(max_flops, max_params)
    _check_imgsz(imgsz)
    if wandb not in ("offline", "online", "off"):
        raise InputError(f"--wandb {wandb}: must be offline, online or off")
    run = out or _new_run_folder()
    Journal.check_new(run)
    place = _resolved_device(device)
    slots = _slots(workers, place)
    images = open_data(data)
    around = _narrowed(_for_classes(_read(start), len(images.names)), start, limits, imgsz) if start else None
    choices = _space(space, around, len(images.names))
    check_limits(choices, limits, imgsz)
    typical = typical_macs(choices, limits, imgsz, seed)
    ladder = plan(wanted, imgsz=imgsz, images=len(images.splits["train"]), typical_macs=typical, slots=slots, device=place)
    settings = {
        "version": __version__,
        "budget": {"text": budget, "kind": wanted.kind, "amount": wanted.amount},
        "data": data if data == "digits" else str(Path(data).resolve()),
        "data_digest": digest(images),
        "names": list(images.names),
        "images": {split: len(records) for split, records in images.splits.items()},
        "space": space if not Path(space).is_file() else str(Path(space).resolve()),
        "start": around.to_json() if around else None,
        "around": start,
        "imgsz": imgsz,
        "max_flops": limits.max_flops,
        "max_params": limits.max_params,
        "ladder": ladder.to_dict(),
        "seed": seed,
        "warm_start": warm_start,
        "device": place,
        "slots": slots,
        "wandb": wandb,
        "wandb_id": f"gpnas-{int(time.time() * 1000):x}",
    }
    with Journal.create(run, settings) as journal:
        _search(run, journal)


@app.command()
def resume(
    run: Path,
    budget: Annotated[str | None, typer.Option(help="a new total budget, counted from the start of the run")] = None,
) -> None:
    """Go on with a search that was stopped; what is finished is not repeated."""
    from evaluators.data.open import open_data
    from evaluators.data.records import digest
    from gpnas.run.journal import Journal
    from gpnas.search.budget import parse_budget

    with Journal.open(run, write=True) as journal:
        settings = journal.settings
        if digest(open_data(settings["data"])) != settings["data_digest"]:
            raise InputError(f"{settings['data']}: the data changed since {run} began; start a new search on them")
        if budget is not None:
            wanted = parse_budget(budget)
            if wanted.kind != settings["budget"]["kind"]:
                raise InputError(f"--budget {budget}: this run counts {settings['budget']['kind']}; give a budget in them")
            if wanted.amount > settings["budget"]["amount"]:
                journal.drop_pruned()
            settings["budget"] = {"text": budget, "kind": wanted.kind, "amount": wanted.amount}
            journal.update_settings(settings)
        dropped = journal.drop_running()
        done = sum(1 for row in journal.evaluations() if row.state.is_finished)
        typer.echo(f"resuming {run}: {done} evaluations are finished, {dropped} were under way and start again")
        _search(run, journal)


def _search(run: Path, journal: Journal) -> None:
    """Join space, evaluator, workers, tracker and display, and run the loop on a journal."""
    from evaluators.proxy import ProxyEvaluator
    from gpnas.report.display import front_table, open_display
    from gpnas.report.search_report import write_report
    from gpnas.report.tracking import Tracker
    from gpnas.run.loop import Event
    from gpnas.run.loop import search as run_search
    from gpnas.run.results import best_of, front_of, measured, write_results
    from gpnas.run.workers import LocalWorkers
    from gpnas.search.budget import Budget
    from gpnas.search.controller import Controller
    from gpnas.search.ladder import PROXY_BATCH, Ladder
    from gpnas.search.limits import Limits
    from search_spaces.architecture import candidate, read_architecture

    settings = journal.settings
    console = _console()
    budget = Budget(settings["budget"]["kind"], settings["budget"]["amount"])
    ladder = Ladder.from_dict(settings["ladder"])
    start = read_architecture(settings["start"]) if settings["start"] else None
    space = _space(settings["space"], start, len(settings["names"]))
    controller = Controller(
        space,
        ladder,
        Limits(settings["max_flops"], settings["max_params"]),
        imgsz=settings["imgsz"],
        seed=settings["seed"],
        max_trials=budget.amount if budget.kind == "trials" else None,
        start=candidate(start) if start else None,
        warm_start=settings.get("warm_start", False),  # runs of earlier versions know no such setting
    )
    evaluator = ProxyEvaluator(
        data=settings["data"],
        device=settings["device"],
        threads=_threads(settings["slots"]),
        batch_size=PROXY_BATCH,
        seed=settings["seed"],
    )
    share = ladder.fidelities[0].data_share
    rungs = ", ".join(f"{f.epochs} epochs at {f.imgsz} px" for f in ladder.fidelities)
    rungs += "" if share == 1 else f", on {share:.1%} of the images"
    console.print(
        f"gpnas {__version__}: searching {_searched(settings)} on {settings['data']} ({settings['images']['train']} images) "
        f"for {settings['budget']['text']} with {settings['slots']} workers on {settings['device']}\n"
        f"rungs: {rungs}; {ladder.wave} candidates of all sizes, then one at a time by what was learnt, out of thousands",
        highlight=False,
        soft_wrap=True,
    )
    journal.set_state("running")
    tracker = Tracker(settings["wandb"], run, settings, run_id=settings["wandb_id"])
    try:
        with (
            LocalWorkers(evaluator, settings["slots"]) as workers,
            open_display(console, budget, journal.elapsed()) as display,
        ):

            def observe(event: Event) -> None:
                display.show(event)
                if event.suggestion and event.evaluation:
                    write_results(run, journal, _render)
                    tracker.trial(_tracked(event.suggestion, event.evaluation, journal))

            run_search(
                controller,
                journal,
                workers,
                budget,
                run,
                observe,
                images=settings["images"]["train"],
                device=settings["device"],
                memory=_memory(settings["device"]),
                batch=PROXY_BATCH,
            )
        journal.set_state("done")
    except BaseException:
        journal.set_state("interrupted")
        typer.echo(f"interrupted; go on with: gpnas resume {run}", err=True)
        raise
    finally:
        found = measured(journal)
        best, on_front = best_of(found), front_of(found)
        tracker.front([_front_row(m) for m in on_front])
        tracker.finish({"best_ap": best.ap if best else None, "trials": len(found)})
        graph = space.read(best.trial.genotype).graph if best else None
        report = write_report(run, [m.trial.id for m in on_front], best.trial.id if best else None, graph)
    if best is None:
        raise GpnasError(f"no candidate could be trained within the budget; see {report} and {run}/trials/*/error.txt")
    console.print(front_table(on_front, best, settings["imgsz"]))
    console.print(
        f"{len(found)} candidates trained, {len(on_front)} on the front. Results:\n"
        f"  {run}/best.yaml       the best architecture (trial {best.trial.id}, AP {best.ap:.3f})\n"
        f"  {run}/pareto.csv      the front\n"
        f"  {run}/report.html     pictures and every trial\n"
        f"next: gpnas train {run}/best.yaml --data {settings['data']}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def show(run: Path, as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False) -> None:
    """Print what a run has found so far; never starts work."""
    from gpnas.run.journal import Journal
    from gpnas.run.results import best_of, front_of, measured, summary

    with Journal.open(run, write=False) as journal:
        if as_json:
            typer.echo(json.dumps(summary(run, journal)))
            return
        from rich.console import Console

        from gpnas.report.display import front_table
        from gpnas.units import clock

        found = measured(journal)
        budget = journal.settings["budget"]["text"]
        typer.echo(
            f"{run}: {journal.state}, {clock(journal.elapsed())} spent of {budget}, {len(found)} of "
            f"{len(journal.trials())} candidates measured"
        )
        if found:
            Console().print(front_table(front_of(found), best_of(found), journal.settings["imgsz"]))


@app.command()
def report(run: Path) -> None:
    """Write RUN/report.html."""
    from gpnas.report.search_report import write_report
    from gpnas.run.journal import Journal
    from gpnas.run.results import best_of, front_of, measured
    from search_spaces.architecture import candidate, read_architecture

    with Journal.open(run, write=False) as journal:
        found = measured(journal)
    best = best_of(found)
    graph = candidate(read_architecture(best.trial.genotype)).graph if best else None
    typer.echo(write_report(run, [m.trial.id for m in front_of(found)], best.trial.id if best else None, graph))


@app.command()
def export(
    source: Annotated[str, typer.Argument(help="a run, an architecture YAML or a catalogue name")],
    trial: Annotated[int | None, typer.Option(help="trial of the run (default: the best)")] = None,
    to: Annotated[Path | None, typer.Option("--out", help="file to write (default: standard output)")] = None,
    max_flops: Annotated[str | None, typer.Option(help="narrow it to 2 x MACs at --imgsz: 10G")] = None,
    max_params: Annotated[str | None, typer.Option(help="narrow it to this many parameters: 3M")] = None,
    imgsz: Annotated[int, typer.Option(help="image size, in pixels, of --max-flops")] = 640,
    classes: Annotated[int | None, typer.Option(help="give it a head for this many classes")] = None,
) -> None:
    """Write an architecture as YAML that rebuilds exactly; a published one, on request, as wide as limits allow."""
    if Path(source).is_dir() and (trial is not None or not (max_flops or max_params or classes)):
        document = _trial_yaml(Path(source), trial)
    else:
        architecture = _read(source)
        if classes is not None:
            architecture = _for_classes(architecture, classes, aside=True)
        if max_flops or max_params:
            architecture = _narrowed(architecture, source, _limits(max_flops, max_params), imgsz, aside=True)
        document = architecture.to_yaml(architecture.found)
    if to is None:
        typer.echo(document, nl=False)
    else:
        to.write_text(document)


@app.command()
def analyze(
    source: Annotated[
        str,
        typer.Argument(
            help="a catalogue name, a YAML, a run (its best), RUN/trials/ID, or module:callable that makes a torch module"
        ),
    ],
    size: Annotated[str, typer.Option("--input", help="channels x height x width")] = "3x640x640",
    outputs: Annotated[
        str | None, typer.Option(help="module:callable: outputs with the main loss, by commas (default: all)")
    ] = None,
    auxiliary: Annotated[str | None, typer.Option(help="module:callable: outputs with an auxiliary loss, by commas")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="a row a layer, too")] = False,
    timeline: Annotated[
        Path | None, typer.Option(help="SVG to draw: which layers gradients reach when, and from where")
    ] = None,
) -> None:
    """Print what a network costs and how gradients travel through it."""
    from gpnas.paths.analysis import analyse, layer_rows

    channels, height, width = _input_size(size)
    if ":" in source and not Path(source).exists():
        graph = _traced(source, (channels, height, width), outputs, auxiliary)
    elif outputs or auxiliary:
        raise InputError(f"--outputs, --auxiliary: {source} says itself which of its outputs carry a loss; leave them out")
    else:
        graph = _architecture(source).graph
    if channels != graph.ops[0].channels:
        raise InputError(f"--input {size}: {source} reads {graph.ops[0].channels} channels, not {channels}")
    result = analyse(graph, source, height, width)
    if layers:
        result["layer_rows"] = layer_rows(graph)
    if timeline is not None:
        from gpnas.report.timeline import timeline_svg

        timeline.write_text(timeline_svg(graph, f"{source}: gradient timeline"))
    if as_json:
        typer.echo(json.dumps(result))
    else:
        _print_analysis(result)


def _traced(source: str, size: tuple[int, int, int], outputs: str | None, auxiliary: str | None) -> Graph:
    """The graph of the torch module that `module:callable` returns; modules of the current folder are found."""
    import importlib

    import torch

    from gpnas.graph.trace import trace

    module, _, name = source.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{source}: cannot be imported ({error}); give module:callable, found from this folder") from None
    model = found if isinstance(found, torch.nn.Module) else found()
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"{source}: returned {type(model).__name__}; it must return a torch.nn.Module")
    chosen = outputs.split(",") if outputs else None
    return trace(model, (torch.zeros(1, *size),), outputs=chosen, auxiliary=auxiliary.split(",") if auxiliary else ())


def _input_size(text: str) -> tuple[int, int, int]:
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--input {text}: must be channels x height x width, such as 3x640x640")
    channels, height, width = map(int, parts)
    return channels, height, width


def _console() -> Console:
    """As wide as the terminal; files and pipes get every column whole."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=200)


def _print_analysis(result: dict[str, Any]) -> None:
    from gpnas.report.tables import figures_table, layers_table, stages_table

    plain = {key: value for key, value in result.items() if not isinstance(value, dict | list)}
    for name, value in (plain | {f"train {key}": value for key, value in result["train"].items()}).items():
        typer.echo(f"{name:26} {value}")
    console = _console()
    columns = {"all losses": {"live_params": result["live_params"], **result["gradient_paths"]}, **result.get("branches", {})}
    console.print(figures_table(columns))
    console.print(stages_table(result["stages"]))
    if "layer_rows" in result:
        console.print(layers_table(result["layer_rows"]))


bench = typer.Typer(no_args_is_help=True, help="Measure what the analysis is worth, on accuracies that are known.")
app.add_typer(bench, name="bench")


@bench.command()
def correlation(
    table: Annotated[Path, typer.Option(help="CSV of NAS-Bench-201 cells: the cell, then accuracy columns")],
    out: Annotated[Path | None, typer.Option(help="CSV to write every cell's features to")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Rank correlation of every figure and of the score with accuracy, beside parameters, FLOPs and layers."""
    from dataclasses import asdict

    from gpnas.bench.correlation import correlations, read_table
    from gpnas.report.tables import correlation_table

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
        _console().print(correlation_table(found, column))


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
    from gpnas.report.tables import regrets_table

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
    _console().print(regrets_table(curves, name))


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
    from gpnas.report.tables import skills_table

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
    _console().print(skills_table(found, sizes, name))


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
    from gpnas.report.tables import shares_table

    if epochs < 1 or seeds < 2:
        raise InputError(f"--epochs {epochs} --seeds {seeds}: must be at least 1 and 2")
    truth = detector_table(table, data, but)
    curves = {}
    for name, strategy in STRATEGIES.items():
        began = time.monotonic()
        curves[name] = shares(strategy, truth, epochs, seeds)
        print(f"{name}: {seeds} searches in {time.monotonic() - began:.0f} s", file=sys.stderr)
    _console().print(shares_table(curves, f"{len(truth.candidates)} detectors, {data}"))


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
    with multiprocessing.get_context("spawn").Pool(_cores()) as pool:
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
    from gpnas.report.tables import published_table
    from search_spaces.architecture import build
    from search_spaces.blueprint import catalogue, open_catalogue

    entries = {name: open_catalogue(name) for name in catalogue()}
    ablations = dict.fromkeys(name for entry in entries.values() for name in (entry.published or {}).get("ablations", ()))
    for ablation in ablations:
        members = {n: e for n, e in entries.items() if ablation in (e.published or {}).get("ablations", ())}
        rows = {name: features(build(entry), 640, 640) for name, entry in members.items()}
        box_ap = {name: float((entry.published or {})["ap"]) for name, entry in members.items()}
        _console().print(published_table(ablation, rows, box_ap))


@app.command()
def catalogue(as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False) -> None:
    """List the published architectures: cost and gradient-path figures beside the published figures."""
    from gpnas.graph.cost import convolution_weights
    from gpnas.paths.analysis import analyse
    from gpnas.report.tables import catalogue_tables
    from search_spaces.architecture import build
    from search_spaces.blueprint import catalogue as names
    from search_spaces.blueprint import open_catalogue
    from search_spaces.growth import laws

    rows = []
    for name in names():
        entry = open_catalogue(name)
        graph, published = build(entry), entry.published or {}
        _, height, width = _input_size(published.get("input", "3x640x640"))
        row = {**analyse(graph, name, height, width), "source": entry.source, "published": entry.published}
        if "counts" in published:
            row["convolution_weights"] = convolution_weights(graph)
        if "growth" in published:
            row["growth"] = laws(name)
        rows.append(row)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
    else:
        _console().print(catalogue_tables(rows))


@app.command()
def train(
    source: Annotated[str, typer.Argument(help="a catalogue name, an architecture YAML, or a run (its best)")],
    data: Data = "digits",
    epochs: int = 300,
    imgsz: Annotated[int | None, typer.Option(help="pixels (default: the size that the search was for)")] = None,
    batch: Annotated[str, typer.Option(help="images a step, over all processes, or auto: by the GPU's memory")] = "16",
    out: Out = None,
    seed: int = 0,
    device: Device = "auto",
    patience: Annotated[int, typer.Option(help="stop after so many epochs without a better AP; 0 never does")] = 0,
    weights: Annotated[Path | None, typer.Option(help="checkpoint to start from, where names and shapes match")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from OUT/last.pt")] = False,
) -> None:
    """Train an architecture in full; under torchrun on several devices."""
    from evaluators.data.open import open_data
    from evaluators.training.batch_size import automatic_batch
    from evaluators.training.recipe import Recipe, pick_device
    from evaluators.training.train_detector import train_detector
    from gpnas.units import clock
    from search_spaces.architecture import candidate

    architecture = _read(source)
    images = open_data(data)
    size = imgsz or _found_imgsz(architecture)
    trained = candidate(_for_classes(architecture, len(images.names)))
    _check_imgsz(size)
    if epochs < 1 or patience < 0:
        raise InputError(f"--epochs {epochs} --patience {patience}: must be at least 1 and 0")
    if batch != "auto" and (not batch.isdecimal() or int(batch) < 1):
        raise InputError(f"--batch {batch}: must be auto or a number of at least 1")
    place = _resolved_device(device)
    images_a_step = (
        int(batch) if batch != "auto" else automatic_batch(trained.graph, len(images.names), size, pick_device(place))
    )
    if resume and out is None:
        raise InputError("--resume: name the folder to go on in with --out")
    if out is None and "LOCAL_RANK" in os.environ:
        raise InputError("--out is needed under torchrun: all processes must write into one folder")
    folder = out or _new_run_folder("train")
    recipe = Recipe(
        epochs=epochs,
        imgsz=size,
        batch_size=images_a_step,
        eval_every=max(1, epochs // 40),
        patience=patience,
        seed=seed,
        device=place,
    )
    typer.echo(f"training {source} on {data} for {epochs} epochs at {size} px into {folder}")
    done = train_detector(
        trained.graph, trained.genotype, images, recipe, folder, resume=resume, report=_epoch_line(), weights=weights
    )
    if done is None:  # a process of a group that is not its first
        return
    if done.loaded:
        typer.echo(done.loaded)
    _write_training_report(folder, source, images, done)
    typer.echo(f"best epoch {done.result.best_epoch} of {done.result.epochs}, after {clock(done.result.seconds)}")
    typer.echo(f"{done.split}: {_metrics_text(done.result.metrics)}")
    typer.echo(f"results: {folder}/best.pt, {folder}/results.csv, {folder}/report.html")


def _write_training_report(folder: Path, source: str, images: DetectionData, done: Trained) -> None:
    from evaluators.data.images import image_of
    from evaluators.predict import drawn, jpeg
    from gpnas.report.training_report import Judged, write_training_report

    records, found = images.splits[done.split], done.found
    step = max(1, len(records) // SAMPLES)
    pictures = [
        (record.path.name if record.path else str(record.image_id), jpeg(drawn(image_of(record), sure, images.names)))
        for record, rows in list(zip(records, found, strict=True))[::step][:SAMPLES]
        for sure in [rows[rows[:, 4] >= SURE]]
    ]
    judged = Judged(done.split, done.judgement.metrics, done.judgement.classes, done.judgement.precision, pictures)
    write_training_report(folder, f"{source} on {Path(images.source).name}", done.history, judged)


@app.command()
def val(
    checkpoint: Annotated[Path, typer.Argument(help="best.pt or last.pt of gpnas train")],
    data: Data = "digits",
    split: str = "val",
    imgsz: Annotated[int | None, typer.Option(help="pixels (default: the size that it was trained at)")] = None,
    device: Device = "auto",
    save: Annotated[Path | None, typer.Option(help="file for the detections, in COCO's results format")] = None,
) -> None:
    """Measure a trained detector: COCO metrics by pycocotools, over all and by class."""
    from evaluators.data.open import open_data
    from evaluators.detector.ap import coco_results
    from evaluators.judge import validate

    network, detector = _detector(checkpoint)
    images = open_data(data)
    if split not in images.splits:
        raise InputError(f"--split {split}: {data} has {', '.join(images.splits)}")
    if tuple(detector["names"]) != images.names:
        raise InputError(f"{checkpoint} detects {', '.join(detector['names'])}; {data} has {', '.join(images.names)}")
    size = imgsz or detector["imgsz"]
    _check_imgsz(size)
    judgement, found = validate(network, images, split, size, device=_resolved_device(device))
    for name, (ap, ap50) in judgement.classes.items():
        typer.echo(f"  {name:20} AP {ap:.3f}  AP50 {ap50:.3f}")
    typer.echo(f"{split}: {_metrics_text(judgement.metrics)}")
    if save is not None:
        save.write_text(json.dumps(coco_results(images.splits[split], images.category_ids, found)))
        typer.echo(f"detections: {save}")


@app.command()
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="best.pt or last.pt of gpnas train")],
    source: Annotated[Path, typer.Argument(help="an image, or a folder of images")],
    out: Annotated[Path | None, typer.Option(help="folder for the drawn images and predictions.json")] = None,
    score: Annotated[float, typer.Option(help="least score of a detection")] = 0.25,
    imgsz: Annotated[int | None, typer.Option(help="pixels (default: the size that it was trained at)")] = None,
    device: Device = "auto",
) -> None:
    """Detect objects in images: boxes drawn, and as JSON."""
    from evaluators.data.images import image_of
    from evaluators.predict import as_json, drawn, image_records, jpeg
    from evaluators.predict import predict as run_predict

    if not 0 <= score <= 1:
        raise InputError(f"--score {score}: must lie in [0, 1]")
    network, detector = _detector(checkpoint)
    size = imgsz or detector["imgsz"]
    _check_imgsz(size)
    names, records = detector["names"], image_records(source)
    folder = out or _new_run_folder("predict")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for record, found in run_predict(
        network, records, imgsz=size, names=names, least_score=score, device=_resolved_device(device)
    ):
        path = record.path or source
        below = path.relative_to(source) if source.is_dir() else Path(path.name)
        to = folder / below.with_name(f"{below.name}.jpg")  # two files of one stem stay two
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(jpeg(drawn(image_of(record), found, names)))
        rows.append(as_json(record, found, names))
        typer.echo(f"{below}: {len(found)} objects")
    (folder / "predictions.json").write_text(json.dumps(rows, indent=1))
    typer.echo(f"{len(rows)} images, {sum(len(row['boxes']) for row in rows)} objects: {folder}, {folder}/predictions.json")


def _detector(checkpoint: Path) -> tuple[Network, dict[str, Any]]:
    """The network of a checkpoint with its weights, and the rest of what the checkpoint holds."""
    from evaluators.training.checkpoint import load_detector, load_weights
    from gpnas.graph.network import Network
    from search_spaces.architecture import candidate, read_architecture

    detector = load_detector(checkpoint)
    network = Network(candidate(read_architecture(detector["genotype"], str(checkpoint))).graph)
    load_weights(network, detector, checkpoint)
    return network, detector


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        typer.echo(f"gpnas {__version__}")
        raise typer.Exit


def _check_imgsz(imgsz: int) -> None:
    if imgsz < 32 or imgsz % 32:
        raise InputError(f"--imgsz {imgsz}: must be a positive multiple of 32; try {max(32, round(imgsz / 32) * 32)}")


def _new_run_folder(kind: str = "search") -> Path:
    return Path("runs") / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"


def _resolved_device(device: str) -> str:
    if device == "cpu":
        return "cpu"
    import torch

    available = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if available else "cpu"
    if not device.startswith("cuda"):
        raise InputError(f"--device {device}: must be auto, cpu or cuda")
    if not available:
        raise InputError(f"--device {device}: no CUDA device is here; use --device cpu")
    return device


def _slots(workers: str, device: str) -> int:
    if workers == "auto":
        # On a GPU as many as its memory holds at a time; processes that wait for room cost little.
        return min(GPU_PROCESSES, _cores()) if device.startswith("cuda") else _cores()
    kind, _, number = workers.partition(":")
    if kind != "local" or not number.isdigit() or int(number) < 1:
        raise InputError(f"--workers {workers}: must be auto or local:N with N at least 1")
    return int(number)


def _memory(device: str) -> MemoryTable | None:
    """What proxies on one GPU share; None on the CPU, whose memory the system shares out."""
    if not device.startswith("cuda"):
        return None
    import torch

    from gpnas.run.gpu_memory import MemoryTable

    return MemoryTable(torch.cuda.mem_get_info(device)[0])


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads(slots: int) -> int:
    return max(1, _cores() // slots)


def _limits(max_flops: str | None, max_params: str | None) -> Limits:
    from gpnas.search.limits import Limits
    from gpnas.units import parse_count

    return Limits(
        parse_count(max_flops, "--max-flops") if max_flops else None,
        parse_count(max_params, "--max-params") if max_params else None,
    )


def _narrowed(architecture: Architecture, source: str, limits: Limits, imgsz: int, aside: bool = False) -> Architecture:
    """`architecture` if it meets the limits, else, when it is a blueprint, narrowed until it does; says so (on stderr when
    `aside`, as standard output is the result then)."""
    from gpnas.search.limits import inference_cost
    from search_spaces.architecture import candidate
    from search_spaces.blueprint import Blueprint
    from search_spaces.neighbourhood import fitted

    _check_imgsz(imgsz)
    costs = inference_cost(candidate(architecture), imgsz)
    if limits.allows(costs):
        return architecture
    told = f"{costs.flops / 1e9:.3f}G FLOPs at {imgsz} pixels and {costs.params / 1e6:.3f}M parameters"
    if not isinstance(architecture, Blueprint):
        raise LimitError(f"{source}: has {told}, beyond the limits; raise them or take a smaller one")
    narrowed = fitted(architecture, limits.max_flops, limits.max_params, imgsz)
    now = inference_cost(candidate(narrowed), imgsz)
    typer.echo(
        f"{source} has {told}; at width_multiple {narrowed.width_multiple} it has {now.flops / 1e9:.3f}G and "
        f"{now.params / 1e6:.3f}M",
        err=aside,
    )
    return narrowed


def _space(name: str, start: Architecture | None, classes: int) -> Space:
    """The neighbourhood of a blueprint to start from, else the space `name`. Raises InputError when both are asked for."""
    from search_spaces.blueprint import Blueprint
    from search_spaces.gradient_path import open_space
    from search_spaces.neighbourhood import Neighbourhood

    if not isinstance(start, Blueprint):
        return open_space(name, classes)
    if name != DEFAULT_SPACE:
        raise InputError(f"--space {name}: a published architecture is searched in its own neighbourhood; leave out --space")
    return Neighbourhood(start, classes)


def _searched(settings: dict[str, Any]) -> str:
    return f"around {settings['around']}" if settings.get("around") else str(settings["space"])


def _architecture_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as an architecture YAML ({error})") from None


def _read(source: str) -> Architecture:
    """The architecture that a catalogue name, a YAML file, a run (its best) or RUN/trials/ID names."""
    from search_spaces.architecture import read_architecture
    from search_spaces.blueprint import catalogue, open_catalogue

    path = Path(source)
    if not path.exists() and source in catalogue():
        return open_catalogue(source)
    if path.is_dir() and path.parent.name == "trials":
        return read_architecture(_trial_text(path), source)
    if not path.exists():
        raise InputError(f"{source}: no such file, run or architecture; the catalogue has {', '.join(catalogue())}")
    return read_architecture(_architecture_text(path / "best.yaml" if path.is_dir() else path), source)


def _architecture(source: str) -> Candidate:
    from search_spaces.architecture import candidate

    return candidate(_read(source))


def _trial_text(folder: Path) -> str:
    from gpnas.run.journal import Journal

    with Journal.open(folder.parent.parent, write=False) as journal:
        trial = next((trial for trial in journal.trials() if str(trial.id) == folder.name), None)
    if trial is None:
        raise InputError(f"{folder}: the run has no trial {folder.name}")
    return trial.genotype


def _for_classes(architecture: Architecture, classes: int, aside: bool = False) -> Architecture:
    """The same architecture with a head for `classes` that gpnas trains; says so (`aside`: on stderr) when that changes it."""
    from search_spaces.architecture import classes_of, has_anchors, with_classes

    had = classes_of(architecture)
    if has_anchors(architecture):
        told = f"the architecture's published heads (by anchors) give way to a decoupled one for {classes} classes"
    elif had != classes:
        told = f"the data have {classes} classes, the architecture was made for {had}: its head changes"
    else:
        return architecture
    typer.echo(told, err=aside)
    return with_classes(architecture, classes)


def _found_imgsz(architecture: Architecture) -> int:
    size = (architecture.found or {}).get("cost", {}).get("imgsz", 640)
    return size if isinstance(size, int) else 640


def _trial_yaml(run: Path, trial: int | None) -> str:
    from gpnas.run.journal import Journal
    from gpnas.run.results import best_of, best_yaml, measured

    with Journal.open(run, write=False) as journal:
        found = measured(journal)
        chosen = best_of(found) if trial is None else next((m for m in found if m.trial.id == trial), None)
        if chosen is None:
            have = ", ".join(str(m.trial.id) for m in found) or "none"
            raise InputError(f"{run}: no measured trial {'' if trial is None else trial}; measured trials: {have}")
        return best_yaml(chosen, journal.settings, _render)


def _render(genotype: str, found: dict[str, Any]) -> str:
    from search_spaces.architecture import read_architecture

    return read_architecture(genotype).to_yaml(found)


def _tracked(suggestion: Suggestion, evaluation: Evaluation, journal: Journal) -> dict[str, Any]:
    """A finished evaluation as W&B gets it."""
    from gpnas.run.results import best_of, measured
    from gpnas.search.pareto import Point, hypervolume

    trial = suggestion.trial
    found = measured(journal)
    best = best_of(found)
    largest = (journal.settings["max_flops"] or 2 * max(row.macs for row in journal.trials())) / 2
    return {
        "trial": trial.id,
        "rung": suggestion.rung,
        "state": evaluation.state.value,
        **evaluation.metrics,
        "flops": trial.cost.flops,
        "params": trial.cost.params,
        "seconds": evaluation.seconds,
        "score": trial.features["score"],
        "best_ap": best.ap if best else 0.0,
        "hypervolume": hypervolume([Point(m.trial.id, m.ap, m.trial.macs) for m in found], largest),
    }


def _front_row(m: Measured) -> dict[str, Any]:
    return {
        "trial": m.trial.id,
        "ap": m.ap,
        "ap50": m.evaluation.metrics.get("ap50"),
        "flops": 2 * m.trial.macs,
        "params": m.trial.params,
        "epochs": m.fidelity.epochs,
        "imgsz": m.fidelity.imgsz,
        "hash": m.trial.hash,
    }


def _epoch_line() -> Callable[[dict[str, Any]], None]:
    began = time.monotonic()

    def line(data: dict[str, Any]) -> None:
        from gpnas.units import clock

        parts = [f"[{clock(time.monotonic() - began)}] epoch {data['epoch']}/{data['epochs']}"]
        if "loss" in data:
            parts.append(f"loss {data['loss']:.3f}")
        parts += [f"{name.upper()} {data[name]:.3f}" for name in ("ap", "ap50") if name in data]
        typer.echo("  ".join(parts))

    return line


def _metrics_text(metrics: Any) -> str:
    return "  ".join(f"{name.replace('_', ' ').replace('ap', 'AP')} {value:.3f}" for name, value in metrics.items())


if __name__ == "__main__":
    main()
