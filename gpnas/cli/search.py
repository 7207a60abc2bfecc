"""`gpnas search`, `resume`, `show` and `report`: a run from its start to its report.

Imports of heavy libraries stand inside functions; app.py says why.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpnas import __version__
from gpnas.cli.baselines import NoBaselines, baselines_within, candidates_of, first_candidates, joined_by
from gpnas.cli.options import (
    DEFAULT_SPACE,
    Data,
    Device,
    Out,
    Shares,
    StartTrial,
    Strict,
    Val,
    absolute,
    check_imgsz,
    gpu_memory_table,
    new_run_folder,
    parse_limits,
    parse_pixels,
    resolved_device,
    tell_problems,
    threads_per_worker,
    worker_slots,
)
from gpnas.cli.planning import Spread, plan_search
from gpnas.cli.run_data import data_facts, data_source, load_images
from gpnas.cli.sizes import LevelsOption, ProxySize, check_sizes, room_within, sizes_for
from gpnas.cli.sources import for_classes, narrowed, read_source, render_yaml, space_around, start_source
from gpnas.cli.then_train import (
    ThenTrain,
    check_then_train,
    only_training_is_left,
    train_best,
    trained_lines,
    trained_summary,
)
from gpnas.errors import GpnasError, InputError

if TYPE_CHECKING:
    from rich.console import Console

    from evaluators.proxy import ProxyEvaluator
    from gpnas.graph.graph import Graph
    from gpnas.report.tracking import Tracker
    from gpnas.run.events import Event
    from gpnas.run.journal import Journal
    from gpnas.run.results import TrialResult
    from gpnas.run.settings import DataFacts, RunSettings
    from gpnas.search.controller import Controller


def search(
    budget: Annotated[str, typer.Option(help="90s, 30m, 2h, 1d, 50trials or 400epochs")],
    data: Data = "digits",
    space: Annotated[str, typer.Option(help="a ready space, or a YAML that narrows one")] = DEFAULT_SPACE,
    start: Annotated[str | None, typer.Option(help="catalogue name, architecture YAML or run to search around")] = None,
    start_trial: StartTrial = None,
    imgsz: Annotated[
        int,
        typer.Option(
            help="image size of the final detector, in pixels; the limits hold at this size",
            parser=parse_pixels,
            metavar="PIXELS",
        ),
    ] = 640,
    levels: LevelsOption = "auto",
    proxy_imgsz: ProxySize = None,
    max_flops: Annotated[str | None, typer.Option(help="hard limit on FLOPs (2 x MACs) at --imgsz: 10G")] = None,
    max_params: Annotated[str | None, typer.Option(help="hard limit on the parameters of the fused network: 3M")] = None,
    out: Out = None,
    seed: Annotated[int, typer.Option(help="the same seed, limits and budget in trials give the same search")] = 0,
    device: Device = "auto",
    workers: Annotated[str, typer.Option(help="auto, or local:N for N processes")] = "auto",
    wandb: Annotated[str, typer.Option(help="log to Weights & Biases: offline, online or off")] = "offline",
    warm_start: Annotated[bool, typer.Option("--warm-start", help="children start from their parents' weights")] = False,
    no_baselines: NoBaselines = False,
    spread: Spread = False,
    split: Shares = "",
    val: Val = "",
    strict: Strict = False,
    then_train: ThenTrain = None,
) -> None:
    """Search for architectures within limits; write a Pareto front and best.yaml."""
    from evaluators.data.open import DataSource, open_data
    from evaluators.data.records import splits_table
    from gpnas.files import write_text
    from gpnas.report.tracking import check_mode
    from gpnas.run.journal import PLAN, Journal
    from gpnas.run.settings import RunSettings
    from gpnas.search.budget import parse_budget
    from gpnas.search.ladder import baseline_seats
    from gpnas.search.limits import Limits, check_limits

    wanted = parse_budget(budget)
    start = start_source(start, start_trial)
    limits = parse_limits(max_flops, max_params)
    check_imgsz(imgsz)
    check_sizes(levels, proxy_imgsz, imgsz)
    check_mode(wandb)
    run = out or new_run_folder()
    Journal.check_new(run)
    place = resolved_device(device)
    slots = worker_slots(workers, place)
    source = DataSource(data, split, val, strict)
    images = open_data(source)
    tell_problems(images)
    check_then_train(then_train, images, imgsz, place)
    classes = len(images.names)
    architecture = narrowed(for_classes(read_source(start), classes), start, limits, imgsz) if start else None
    sizes = sizes_for(levels, proxy_imgsz, images, imgsz, architecture, room_within(space, classes, limits, imgsz))
    candidates = space_around(space, architecture, classes, sizes.levels)
    check_limits(candidates, limits, imgsz)
    planned = plan_search(
        candidates,
        limits,
        wanted,
        images,
        sizes,
        imgsz=imgsz,
        slots=slots,
        device=place,
        seed=seed,
        spread=spread,
        bounded=architecture is None,
    )
    limits, ladder = planned.limits, planned.ladder
    for line in (*sizes.told, *planned.told):
        typer.echo(line)
    seats = 0 if no_baselines else baseline_seats(ladder.wave, architecture is not None)
    baselines = {} if no_baselines else baselines_within(limits, classes, imgsz, planned.typical_macs, seats, architecture)
    settings = RunSettings(
        version=__version__,
        budget=wanted,
        budget_text=budget,
        data=data_facts(source, images),
        space=str(Path(space).resolve()) if Path(space).is_file() else space,
        start=architecture.to_json() if architecture else None,
        start_source=start,
        baselines=baselines,
        imgsz=imgsz,
        levels=sizes.levels,
        limits=limits,
        spread=spread or limits == Limits(),
        ladder=ladder,
        seconds_per_flop=planned.seconds_per_flop,
        seed=seed,
        warm_start=warm_start,
        then_train=then_train,
        device=place,
        slots=slots,
        wandb=wandb,
        wandb_id=f"gpnas-{int(time.time() * 1000):x}",
    )
    load_images(settings, images)
    with Journal.create(run, settings.to_json()) as journal:
        write_text(run / "splits.csv", splits_table(images))
        journal.add_event(PLAN, {"decision": 0, "rungs": len(ladder.fidelities), "candidates": planned.candidates})
        _run(run, journal, settings)
        train_best(run, journal, settings, data_source(settings.data))


def resume(
    run: Path,
    budget: Annotated[str | None, typer.Option(help="a new total budget, counted from the start of the run")] = None,
    data: Annotated[str | None, typer.Option(help="where the data of the run are now, if they were moved")] = None,
) -> None:
    """Go on with a search that was stopped; finished evaluations are not repeated."""
    from evaluators.data.open import open_data
    from evaluators.data.records import digest
    from gpnas.run.journal import Journal
    from gpnas.run.settings import RunSettings

    with Journal.open(run, write=True) as journal:
        settings = RunSettings.from_json(journal.settings)
        if data is not None:
            settings = replace(settings, data=replace(settings.data, source=absolute(data)))
        source = settings.data.source
        if digest(open_data(data_source(settings.data))) != settings.data.digest:
            raise InputError(f"{source}: the data changed since {run} began; start a new search on them")
        if data is not None:
            journal.update_settings(settings.to_json())
        if budget is not None:
            settings = _with_new_budget(journal, settings, budget)
        if budget is None and only_training_is_left(journal, settings):
            typer.echo(f"resuming {run}: its search is done")
            report(run)
        else:
            dropped = journal.drop_running()
            finished = sum(row.state.is_finished for row in journal.evaluations())
            typer.echo(f"resuming {run}: {finished} evaluations are finished, {dropped} were interrupted and start again")
            _run(run, journal, settings)
        train_best(run, journal, settings, data_source(settings.data))


def _with_new_budget(journal: Journal, settings: RunSettings, text: str) -> RunSettings:
    """The settings with the budget `text`, in the journal too. A larger budget drops evaluations that were pruned for time."""
    from gpnas.search.budget import parse_budget

    budget = parse_budget(text)
    if budget.kind != settings.budget.kind:
        raise InputError(f"--budget {text}: this run counts {settings.budget.kind}; give a budget in them")
    if budget.amount > settings.budget.amount:
        journal.drop_pruned()
    settings = replace(settings, budget=budget, budget_text=text)
    journal.update_settings(settings.to_json())
    return settings


def _run(run: Path, journal: Journal, settings: RunSettings) -> None:
    """Run the loop of a search on its journal. The report is written however the loop ends."""
    from gpnas.report.comparison import comparison_lines
    from gpnas.report.score_told import score_lines
    from gpnas.report.search_report import write_report
    from gpnas.report.tables import open_console
    from gpnas.report.tracking import Tracker, front_row
    from gpnas.run.results import all_results, best_of, front_of, standing_name, trial_results, write_results

    console = open_console()
    controller, build = _controller(settings)
    _announce(console, settings)
    journal.set_state("running")
    tracker = Tracker(settings.wandb, run, settings.to_json(), run_id=settings.wandb_id)
    try:
        why = _evaluate(run, journal, settings, controller, console, tracker)
        journal.add_event("end", {"why": why})
        journal.set_state("done")
    except BaseException:
        journal.set_state("interrupted")
        typer.echo(f"interrupted; go on with: gpnas resume {shlex.quote(str(run))}", err=True)
        raise
    finally:
        results = trial_results(journal)
        best = best_of(results)
        tracker.front([front_row(result) for result in front_of(results)])
        compared = comparison_lines(all_results(journal), journal.trials(), is_over=journal.state == "done")
        tracker.finish(
            {
                "best_ap": best.ap if best else None,
                "standing": standing_name(results) or None,
                "trials": len(results),
                "baselines": " | ".join(compared) or None,
            }
        )
        write_results(run, journal, render_yaml)  # an earlier process may have died between the journal and these files
        report_path = write_report(run, build)
    if best is None:
        raise GpnasError(f"no candidate could be trained within the budget; see {report_path} and {run}/trials/*/error.txt")
    typer.echo(f"the search ended: {why}")
    _print_results(console, run, settings, results, best, [*compared, *score_lines(all_results(journal))])


def _controller(settings: RunSettings) -> tuple[Controller, Callable[[str], Graph]]:
    """The controller of a search, and the function that makes the graph of a genotype of its space."""
    from gpnas.search.controller import Controller
    from search_spaces.architecture import candidate, read_architecture

    start, classes = read_architecture(settings.start) if settings.start else None, len(settings.data.names)
    space = joined_by(space_around(settings.space, start, classes, settings.levels), settings.baselines, classes)
    controller = Controller(
        space,
        settings.ladder,
        settings.limits,
        imgsz=settings.imgsz,
        seed=settings.seed,
        max_trials=settings.budget.amount if settings.budget.kind == "trials" else None,
        start=candidate(start) if start else None,
        baselines=candidates_of(settings.baselines),
        warm_start=settings.warm_start,
        near_limits=not settings.spread,
    )
    return controller, lambda genotype: space.read(genotype).graph


def _evaluate(
    run: Path, journal: Journal, settings: RunSettings, controller: Controller, console: Console, tracker: Tracker
) -> str:
    """Evaluate candidates until the budget is spent, with a display; returns why it ended.

    Results are written and tracked after each evaluation."""
    from gpnas.report.display import open_display
    from gpnas.report.tracking import evaluation_row
    from gpnas.run.events import Finished
    from gpnas.run.loop import search as run_search
    from gpnas.run.results import trial_results, write_results
    from gpnas.run.workers import LocalWorkers
    from gpnas.search.plan import PROXY_BATCH

    with (
        LocalWorkers(_evaluator(settings), settings.slots) as workers,
        open_display(console, settings.budget, journal.elapsed()) as display,
    ):

        def observe(event: Event) -> None:
            display.show(event)
            if isinstance(event, Finished):
                write_results(run, journal, render_yaml)
                max_macs = (settings.limits.max_flops or max(trial.flops for trial in journal.trials())) / 2
                tracker.trial(evaluation_row(event, trial_results(journal), max_macs))

        return run_search(
            controller,
            journal,
            workers,
            settings.budget,
            run,
            observe,
            images=settings.data.images["train"],
            seconds_per_flop=settings.seconds_per_flop,
            memory=gpu_memory_table(settings.device),
            batch=PROXY_BATCH,
        )


def _evaluator(settings: RunSettings) -> ProxyEvaluator:
    from evaluators.proxy import ProxyEvaluator
    from gpnas.search.plan import PROXY_BATCH

    return ProxyEvaluator(
        data=data_source(settings.data),
        device=settings.device,
        threads=threads_per_worker(settings.slots),
        batch_size=PROXY_BATCH,
        seed=settings.seed,
    )


def _announce(console: Console, settings: RunSettings) -> None:
    ladder, data = settings.ladder, settings.data
    rungs = ", ".join(f"{fidelity.epochs} epochs at {fidelity.imgsz} px" for fidelity in ladder.fidelities)
    share = ladder.fidelities[0].data_share
    rungs += "" if share == 1 else f", on {share:.1%} of the images"
    target = f"around {settings.start_source}" if settings.start_source else settings.space
    known = [*(["the start"] if settings.start else []), *settings.baselines]
    warm = "; children start from weights of their parents (--warm-start)" if settings.warm_start else ""
    console.print(
        f"gpnas {__version__}: searching {target} on {data.source} ({data.images['train']} images) "
        f"for {settings.budget_text} with {settings.slots} workers on {settings.device}\n"
        f"rungs: {rungs}; first {first_candidates(ladder.wave, known, settings.spread)}, then one at a time, "
        f"chosen out of thousands; then the best are trained again with fresh seeds{warm}",
        highlight=False,
        soft_wrap=True,
    )


def _print_results(
    console: Console, run: Path, settings: RunSettings, results: list[TrialResult], best: TrialResult, compared: list[str]
) -> None:
    from gpnas.report.comparison import ap_text, standing_line
    from gpnas.report.display import front_table
    from gpnas.run.results import front_of

    front = front_of(results)
    console.print(front_table(front, best, settings.imgsz))
    for line in (standing_line(results), *compared):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(
        f"{len(results)} candidates trained, {len(front)} on the front. Results:\n"
        f"  {run}/best.yaml       the best architecture (trial {best.trial.id}, AP {ap_text(best)})\n"
        f"  {run}/pareto.csv      the front\n"
        f"  {run}/trials.csv      every trial, ranked or not\n"
        f"  {run}/report.html     pictures and every trial",
        highlight=False,
        soft_wrap=True,
    )
    if settings.then_train is None:
        typer.echo(f"next: gpnas train {shlex.quote(f'{run}/best.yaml')} {_data_options(settings.data)}")


def _data_options(data: DataFacts) -> str:
    """The options that name the same data again, ready to be pasted."""
    options = {"--data": data.source, "--split": data.split, "--val": data.val}
    return " ".join(f"{name} {shlex.quote(value)}" for name, value in options.items() if value)


def show(run: Path, as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False) -> None:
    """Print the results of a run so far; works while the search goes on."""
    from gpnas.report.comparison import comparison_lines, standing_line
    from gpnas.report.display import front_table
    from gpnas.report.score_told import score_lines
    from gpnas.report.tables import open_console
    from gpnas.run.journal import Journal
    from gpnas.run.results import all_results, best_of, front_of, trial_results
    from gpnas.run.settings import RunSettings
    from gpnas.run.summary import summary
    from gpnas.units import clock

    with Journal.open(run, write=False) as journal:
        if as_json:
            typer.echo(json.dumps(summary(run, journal) | {"trained": trained_summary(run)}))
            return
        results = trial_results(journal)
        settings = RunSettings.from_json(journal.settings)
        typer.echo(
            f"{run}: {journal.state}, {clock(journal.elapsed())} spent of {settings.budget_text}, {len(results)} of "
            f"{len(journal.trials())} candidates measured"
        )
        if results:
            open_console().print(front_table(front_of(results), best_of(results), settings.imgsz))
            typer.echo(standing_line(results))
        compared = comparison_lines(all_results(journal), journal.trials(), is_over=journal.state == "done")
        for line in [*compared, *score_lines(all_results(journal)), *trained_lines(run, journal, settings)]:
            typer.echo(line)


def report(run: Path) -> None:
    """Write RUN/report.html."""
    from gpnas.report.search_report import write_report
    from search_spaces.architecture import build, read_architecture

    typer.echo(write_report(run, lambda genotype: build(read_architecture(genotype))))
