"""The sources of an architecture that commands take: a catalogue name, a YAML, a run (its best trial) or RUN/trials/ID,
which `--trial` names too.

Imports of heavy libraries stand inside functions; app.py says why.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gpnas.cli.options import DEFAULT_SPACE, check_imgsz
from gpnas.errors import InputError, LimitError

if TYPE_CHECKING:
    from gpnas.graph.cost import Cost
    from gpnas.run.journal import TrialRow
    from gpnas.run.settings import RunSettings
    from gpnas.search.limits import Limits
    from gpnas.search.trial import Candidate, Space
    from search_spaces.architecture import Architecture


def read_source(source: str) -> Architecture:
    """The architecture that `source` names. Raises InputError when it names none."""
    from search_spaces.architecture import read_architecture
    from search_spaces.blueprint import catalogue, open_catalogue

    path = Path(source)
    if not path.exists() and source in catalogue():
        return open_catalogue(source)
    if (trial := _trial_of(path)) is not None:
        return read_architecture(trial_yaml(*trial), source)
    if not path.exists():
        raise InputError(f"{source}: no such file, run or architecture; the catalogue has {', '.join(catalogue())}")
    if not path.is_dir():
        return read_architecture(_file_text(path), source)
    best = path / "best.yaml"
    return read_architecture(_file_text(best) if best.is_file() else trial_yaml(path, None), source)


def candidate_of(source: str) -> Candidate:
    """The candidate of the architecture that `source` names. Raises InputError."""
    from search_spaces.architecture import candidate

    return candidate(read_source(source))


def with_trial(source: str, trial: int | None, option: str = "--trial") -> str:
    """The source that `--trial` names: RUN/trials/ID of the run `source`, or `source` itself without a trial.

    Raises InputError when `source` is no run, or has no such trial.
    """
    if trial is None:
        return source
    if not is_run(Path(source)):
        raise InputError(f"{option} {trial}: {source} is no run; give the folder of a run, the --out of `gpnas search`")
    trial_yaml(Path(source), trial)  # a trial that is not there is named before any work
    return str(Path(source) / "trials" / str(trial))


def start_source(start: str | None, trial: int | None) -> str | None:
    """The source that `--start` and `--start-trial` name. Raises InputError as `with_trial` does, and for a trial alone."""
    if start is None and trial is not None:
        raise InputError(f"--start-trial {trial}: name its run with --start")
    return start and with_trial(start, trial, "--start-trial")


def is_run(folder: Path) -> bool:
    """Whether `folder` holds the journal of a search."""
    from gpnas.run.journal import DATABASE

    return (folder / DATABASE).is_file()


def _trial_of(path: Path) -> tuple[Path, int] | None:
    """The run and the id that the path RUN/trials/ID names, whether or not the trial has that folder."""
    run = path.parent.parent
    is_trial = path.parent.name == "trials" and path.name.isdecimal() and is_run(run)
    return (run, int(path.name)) if is_trial else None


def _file_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as an architecture YAML ({error})") from None


def narrowed(architecture: Architecture, source: str, limits: Limits, imgsz: int, *, stderr: bool = False) -> Architecture:
    """`architecture` if it meets the limits at `imgsz` pixels, else a blueprint narrowed until it does, with a message.

    source: its name in messages. stderr: print the message there, because the result goes to standard output. Raises LimitError
    for an architecture that is not a blueprint.
    """
    from gpnas.graph.cost import deployed_cost
    from search_spaces.architecture import candidate
    from search_spaces.blueprint import Blueprint
    from search_spaces.narrowing import widest_within

    graph = candidate(architecture).graph
    check_imgsz(imgsz, stride=max(out.stride for out in graph.outputs))
    cost = deployed_cost(graph, imgsz)
    if limits.allows(cost):
        return architecture
    size = f"{cost.flops / 1e9:.3f}G FLOPs at {imgsz} pixels and {cost.params / 1e6:.3f}M parameters"
    if not isinstance(architecture, Blueprint):
        raise LimitError(f"{source}: has {size}, beyond the limits; raise them or take a smaller one")
    narrow = widest_within(architecture, limits.max_flops, limits.max_params, imgsz)
    flops, params = _of_limits(deployed_cost(candidate(narrow).graph, imgsz), limits)
    typer.echo(f"{source} has {size}; narrowed to {flops} and {params}", err=stderr)
    return narrow


def _of_limits(cost: Cost, limits: Limits) -> tuple[str, str]:
    """FLOPs and parameters as text; the one that is nearer to its limit says how near."""
    flops = cost.flops / limits.max_flops if limits.max_flops else 0.0
    params = cost.params / limits.max_params if limits.max_params else 0.0
    told = f" ({max(flops, params):.1%} of the limit)".replace("%", " %")
    return (
        f"{cost.flops / 1e9:.3f}G{told if flops >= params else ''}",
        f"{cost.params / 1e6:.3f}M{told if params > flops else ''}",
    )


def for_classes(architecture: Architecture, classes: int, *, stderr: bool = False) -> Architecture:
    """The same architecture with a head for `classes` that gpnas can train, with a message when its head changes.

    stderr: print the message there, because the result goes to standard output.
    """
    from search_spaces.architecture import classes_of, has_anchors, with_classes

    old_classes = classes_of(architecture)
    if has_anchors(architecture):
        change = f"the published heads with anchors are replaced by a decoupled head for {classes} classes"
    elif old_classes != classes:
        change = f"the architecture has a head for {old_classes} classes; it gets one for the {classes} classes of the data"
    else:
        return architecture
    changed = with_classes(architecture, classes)
    typer.echo(change, err=stderr)
    return changed


def space_around(name: str, start: Architecture | None, classes: int, levels: str = "3-5") -> Space:
    """The neighbourhood of `start` if it is a blueprint, else the space `name` on `levels`. Raises InputError when both are
    given, and for levels that no space has."""
    from search_spaces.blueprint import Blueprint
    from search_spaces.genotype import STRIDES
    from search_spaces.gradient_path import open_space
    from search_spaces.neighbourhood import Neighbourhood

    if not isinstance(start, Blueprint):
        known = next((known for known in STRIDES if known == levels), None)
        if known is None:
            raise InputError(f"levels {levels}: no space has them; spaces have {', '.join(STRIDES)}")
        return open_space(name, classes, known)
    if name != DEFAULT_SPACE:
        raise InputError(f"--space {name}: a published architecture is searched in its own neighbourhood; leave out --space")
    return Neighbourhood(start, classes)


def searched_imgsz(architecture: Architecture) -> int:
    """The image size, in pixels, of the search that found `architecture`; 640 for one that no search found."""
    imgsz = (architecture.found or {}).get("cost", {}).get("imgsz", 640)
    return imgsz if isinstance(imgsz, int) else 640


def trial_yaml(run: Path, trial_id: int | None) -> str:
    """The YAML of a trial of `run`, or of its best trial without an id. Raises InputError when `run` has none.

    A trial that was not measured has its cost and its origin in the section `found`, and no metrics.
    """
    from gpnas.run.journal import Journal
    from gpnas.run.results import all_results, best_of, best_yaml, comparisons, trial_results
    from gpnas.run.settings import RunSettings

    with Journal.open(run, write=False) as journal:
        trials, results, on_all_rungs = journal.trials(), trial_results(journal), all_results(journal)
        settings = RunSettings.from_json(journal.settings)
    chosen = best_of(results) if trial_id is None else next((r for r in results if r.trial.id == trial_id), None)
    if chosen is not None:
        return best_yaml(chosen, settings, render_yaml, comparisons(on_all_rungs, chosen.trial.id))
    if trial_id is None:
        raise InputError(f"{run}: no trial is measured yet; `gpnas show {run}` tells how far it is")
    row = next((row for row in trials if row.id == trial_id), None)
    if row is None:  # ids are counted from 0 without gaps
        has = f"it has trials 0 to {len(trials) - 1}" if trials else "it has none yet"
        raise InputError(f"{run}: the run has no trial {trial_id}; {has}")
    return _unmeasured_yaml(row, settings)


def _unmeasured_yaml(row: TrialRow, settings: RunSettings) -> str:
    found = {"trial": row.id, "origin": str(row.origin), "hash": row.hash}
    cost = {"flops": row.flops, "params": row.params, "imgsz": settings.imgsz}
    return render_yaml(row.genotype, {**found, "cost": cost, "data": settings.data.source, "names": list(settings.data.names)})


def render_yaml(genotype: str, found: dict[str, Any]) -> str:
    """The YAML of a genotype with the section `found` (gpnas.run.results.Render)."""
    from search_spaces.architecture import read_architecture

    return read_architecture(genotype).to_yaml(found)
