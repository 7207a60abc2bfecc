"""`gpnas search`, `resume`, `show` and `report`: a run directory from its start to its report."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpnas import __version__
from gpnas.cli.options import (
    DEFAULT_SPACE,
    Data,
    Device,
    Out,
    check_imgsz,
    gpu_memory_table,
    new_run_folder,
    parse_limits,
    resolved_device,
    threads_per_worker,
    worker_slots,
)
from gpnas.cli.sources import for_classes, narrowed, read_source, render_yaml, space_around
from gpnas.errors import GpnasError, InputError

if TYPE_CHECKING:
    from gpnas.run.journal import Journal
    from gpnas.run.results import Measured
    from gpnas.search.controller import Suggestion
    from gpnas.search.trial import Evaluation


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
    limits = parse_limits(max_flops, max_params)
    check_imgsz(imgsz)
    if wandb not in ("offline", "online", "off"):
        raise InputError(f"--wandb {wandb}: must be offline, online or off")
    run = out or new_run_folder()
    Journal.check_new(run)
    place = resolved_device(device)
    slots = worker_slots(workers, place)
    images = open_data(data)
    around = narrowed(for_classes(read_source(start), len(images.names)), start, limits, imgsz) if start else None
    choices = space_around(space, around, len(images.names))
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
    from gpnas.report.tables import open_console
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
    console = open_console()
    budget = Budget(settings["budget"]["kind"], settings["budget"]["amount"])
    ladder = Ladder.from_dict(settings["ladder"])
    start = read_architecture(settings["start"]) if settings["start"] else None
    space = space_around(settings["space"], start, len(settings["names"]))
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
        threads=threads_per_worker(settings["slots"]),
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
                    write_results(run, journal, render_yaml)
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
                memory=gpu_memory_table(settings["device"]),
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


def _searched(settings: dict[str, Any]) -> str:
    return f"around {settings['around']}" if settings.get("around") else str(settings["space"])


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
