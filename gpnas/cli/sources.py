"""What a command may be given as an architecture: a catalogue name, a YAML, a run (its best trial) or RUN/trials/ID."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gpnas.cli.options import DEFAULT_SPACE, check_imgsz
from gpnas.errors import InputError, LimitError

if TYPE_CHECKING:
    from gpnas.search.limits import Limits
    from gpnas.search.trial import Candidate, Space
    from search_spaces.architecture import Architecture


def narrowed(architecture: Architecture, source: str, limits: Limits, imgsz: int, aside: bool = False) -> Architecture:
    """`architecture` if it meets the limits, else, when it is a blueprint, narrowed until it does; says so (on stderr when
    `aside`, as standard output is the result then)."""
    from gpnas.graph.cost import deployed_cost
    from search_spaces.architecture import candidate
    from search_spaces.blueprint import Blueprint
    from search_spaces.neighbourhood import fitted

    check_imgsz(imgsz)
    costs = deployed_cost(candidate(architecture).graph, imgsz)
    if limits.allows(costs):
        return architecture
    told = f"{costs.flops / 1e9:.3f}G FLOPs at {imgsz} pixels and {costs.params / 1e6:.3f}M parameters"
    if not isinstance(architecture, Blueprint):
        raise LimitError(f"{source}: has {told}, beyond the limits; raise them or take a smaller one")
    narrowed = fitted(architecture, limits.max_flops, limits.max_params, imgsz)
    now = deployed_cost(candidate(narrowed).graph, imgsz)
    typer.echo(
        f"{source} has {told}; at width_multiple {narrowed.width_multiple} it has {now.flops / 1e9:.3f}G and "
        f"{now.params / 1e6:.3f}M",
        err=aside,
    )
    return narrowed


def space_around(name: str, start: Architecture | None, classes: int) -> Space:
    """The neighbourhood of a blueprint to start from, else the space `name`. Raises InputError when both are asked for."""
    from search_spaces.blueprint import Blueprint
    from search_spaces.gradient_path import open_space
    from search_spaces.neighbourhood import Neighbourhood

    if not isinstance(start, Blueprint):
        return open_space(name, classes)
    if name != DEFAULT_SPACE:
        raise InputError(f"--space {name}: a published architecture is searched in its own neighbourhood; leave out --space")
    return Neighbourhood(start, classes)


def _architecture_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as an architecture YAML ({error})") from None


def read_source(source: str) -> Architecture:
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


def candidate_of(source: str) -> Candidate:
    from search_spaces.architecture import candidate

    return candidate(read_source(source))


def _trial_text(folder: Path) -> str:
    from gpnas.run.journal import Journal

    with Journal.open(folder.parent.parent, write=False) as journal:
        trial = next((trial for trial in journal.trials() if str(trial.id) == folder.name), None)
    if trial is None:
        raise InputError(f"{folder}: the run has no trial {folder.name}")
    return trial.genotype


def for_classes(architecture: Architecture, classes: int, aside: bool = False) -> Architecture:
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


def searched_imgsz(architecture: Architecture) -> int:
    size = (architecture.found or {}).get("cost", {}).get("imgsz", 640)
    return size if isinstance(size, int) else 640


def trial_yaml(run: Path, trial: int | None) -> str:
    from gpnas.run.journal import Journal
    from gpnas.run.results import best_of, best_yaml, measured

    with Journal.open(run, write=False) as journal:
        found = measured(journal)
        chosen = best_of(found) if trial is None else next((m for m in found if m.trial.id == trial), None)
        if chosen is None:
            have = ", ".join(str(m.trial.id) for m in found) or "none"
            raise InputError(f"{run}: no measured trial {'' if trial is None else trial}; measured trials: {have}")
        return best_yaml(chosen, journal.settings, render_yaml)


def render_yaml(genotype: str, found: dict[str, Any]) -> str:
    from search_spaces.architecture import read_architecture

    return read_architecture(genotype).to_yaml(found)
