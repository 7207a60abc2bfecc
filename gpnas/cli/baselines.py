"""The baselines of a search: known networks that are trained beside its candidates, to see whether the search helped.

Imports of heavy libraries stand inside functions; app.py says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gpnas.cli.sources import narrowed
from gpnas.errors import LimitError

if TYPE_CHECKING:
    from gpnas.search.limits import Limits
    from gpnas.search.trial import Candidate, Space
    from search_spaces.architecture import Architecture
    from search_spaces.blueprint import Blueprint

BASELINES = ("gelan-t", "yolov9-t")
"""Names in the catalogue. The first come first where a wave has no room for all."""

COSTLY = 4.0
"""Where no limit bounds the FLOPs, a baseline that costs more than this many typical candidates is narrowed to one."""

NoBaselines = Annotated[
    bool, typer.Option("--no-baselines", help=f"leave out {' and '.join(BASELINES)}, which start beside the candidates")
]


def baselines_within(
    limits: Limits,
    classes: int,
    imgsz: int,  # pixels, for the cost that the limits bound
    typical_macs: float,  # of a candidate, on one image of `imgsz` pixels
    seats: int,  # baselines at most
    start: Architecture | None,
) -> dict[str, str]:
    """The JSON of each baseline by name, with heads for `classes` classes, narrowed to the limits.

    Messages say which are narrowed and which are left out.
    """
    from search_spaces.architecture import with_classes
    from search_spaces.blueprint import Blueprint, open_catalogue

    chosen: dict[str, str] = {}
    for name in BASELINES:
        if len(chosen) == seats:
            typer.echo(f"baseline {name} is left out: the first candidates are too few to have room for it")
            continue
        published = with_classes(open_catalogue(name), classes)
        assert isinstance(published, Blueprint)  # with_classes returns the kind that it is given
        try:
            baseline = narrowed(published, f"baseline {name}", _bounds(name, published, limits, imgsz, typical_macs), imgsz)
        except LimitError as error:
            typer.echo(f"baseline {name} is left out: {error}")
            continue
        if start is not None and baseline.hash == start.hash:
            typer.echo(f"baseline {name} is left out: it is the start")
        else:
            chosen[name] = baseline.to_json()
    return chosen


def _bounds(name: str, published: Blueprint, limits: Limits, imgsz: int, typical_macs: float) -> Limits:
    """The limits, with a bound on FLOPs, and a message, where there is none and the baseline would cost as much as several
    candidates."""
    from gpnas.graph.cost import deployed_cost
    from gpnas.search.limits import Limits
    from search_spaces.architecture import build

    ratio = deployed_cost(build(published), imgsz).macs / typical_macs
    if limits.max_flops is not None or ratio <= COSTLY:
        return limits
    typer.echo(f"baseline {name} would cost as much as {ratio:.1f} typical candidates, so it must be as cheap as one of them")
    return Limits(2 * typical_macs, limits.max_params)


def candidates_of(baselines: Mapping[str, str]) -> list[tuple[str, Candidate]]:
    """The baselines as the controller takes them. baselines: JSON by name."""
    from search_spaces.architecture import candidate, read_architecture

    return [(name, candidate(read_architecture(text))) for name, text in baselines.items()]


def joined_by(space: Space, baselines: Mapping[str, str], classes: int) -> Space:
    """`space`, in which children of the baselines are mutated too; the space itself without baselines."""
    from search_spaces.blueprint import read_blueprint
    from search_spaces.joined import Joined
    from search_spaces.neighbourhood import Neighbourhood

    if not baselines:
        return space
    return Joined(space, [Neighbourhood(read_blueprint(text), classes) for text in baselines.values()])


def first_candidates(wave: int, known: Sequence[str], spread: bool) -> str:
    """The first wave in words: "9 candidates: gelan-t, yolov9-t and 7 of all sizes". known: names of the start and others.
    spread: the others are of all sizes, not near the limits."""
    sizes = "of all sizes" if spread else "near the limits"
    if not known:
        return f"{wave} candidates {sizes}"
    rest = wave - len(known)
    return f"{wave} candidates: {', '.join(known)}{f' and {rest} {sizes}' if rest else ''}"
