"""`--levels` and `--proxy-imgsz` of `gpnas search`: what the user gave, or else what the sizes of the objects ask for.

Imports of heavy libraries stand inside functions; app.py says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from gpnas.cli.options import check_imgsz, parse_pixels
from gpnas.errors import InputError, LimitError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from evaluators.data.records import DetectionData
    from gpnas.search.limits import Limits
    from search_spaces.architecture import Architecture


ROOM = 2.0
"""How many times their smallest architecture the limits must allow, for levels other than 3-5 to be taken by themselves. Under
1.6 times the smallest one on levels 2-5, a search on 3-5 found the better detector (docs/search.md, "Tiny objects")."""


def parse_proxy_pixels(text: str | int) -> int:
    """The parser of `--proxy-imgsz`. Raises InputError."""
    return parse_pixels(text, "--proxy-imgsz")


LevelsOption = Annotated[
    str, typer.Option("--levels", help="auto (by the sizes of the objects), 3-5, 2-5 (stride 4 too) or 3-6 (stride 64 too)")
]
ProxySize = Annotated[
    int | None,
    typer.Option(
        "--proxy-imgsz",
        help="largest images of the short trainings, in pixels (default: what small objects need, at most --imgsz)",
        parser=parse_proxy_pixels,
        metavar="PIXELS",
    ),
]


class Sizes(NamedTuple):
    """levels: on which candidates predict. stride: of the deepest of them. proxy_imgsz: of the images on the highest rung.
    told: lines for the user about what is not as usual; stride and size in pixels."""

    levels: str
    stride: int
    proxy_imgsz: int
    told: tuple[str, ...]


def check_sizes(levels: str, proxy_imgsz: int | None, imgsz: int) -> None:
    """What can be checked before the data are read. Raises InputError."""
    from search_spaces.genotype import STRIDES

    if levels not in ("auto", *STRIDES):
        raise InputError(f"--levels {levels}: must be one of auto, {', '.join(STRIDES)}")
    if proxy_imgsz is not None:
        check_imgsz(proxy_imgsz, option="--proxy-imgsz")
        if proxy_imgsz > imgsz:
            raise InputError(f"--proxy-imgsz {proxy_imgsz}: must be at most --imgsz, which is {imgsz}")


def sizes_for(
    levels: str,  # of --levels
    proxy_imgsz: int | None,  # of --proxy-imgsz
    images: DetectionData,
    imgsz: int,
    start: Architecture | None,
    fits: Callable[[str], bool],  # whether the limits have room for the space on such levels
) -> Sizes:
    """The levels and the largest proxies of a search. A search around an architecture keeps its levels. Raises InputError."""
    from evaluators.data.sizes import USUAL_PROXY_SIZE, best_levels, object_sides, proxy_size
    from search_spaces.genotype import STRIDES

    sides = object_sides(images.splits["train"], imgsz)
    if start is not None:
        levels, strides, line = _levels_of_start(start, levels)
    else:
        levels, line = _levels_by_objects(sides, imgsz, fits) if levels == "auto" else (levels, f"{_named(levels)}, as given")
        strides = next(strides for known, strides in STRIDES.items() if known == levels)
    told = [f"levels: {line}"] if line else []
    check_imgsz(imgsz, stride=max(strides))
    if proxy_imgsz is not None:
        check_imgsz(proxy_imgsz, option="--proxy-imgsz", stride=max(strides))
        told.append(f"proxies: images of up to {proxy_imgsz} px, as given")
    else:
        # Where the limits forbid a finer level, larger proxies would not show more than they do on it.
        finest = min(*strides, *STRIDES[best_levels(sides, imgsz)])
        proxy_imgsz = proxy_size(sides, imgsz, (finest, *strides))
        if proxy_imgsz != min(imgsz, USUAL_PROXY_SIZE):
            told.append(f"proxies: images of up to {proxy_imgsz} px, {_seen(sides, proxy_imgsz / imgsz)}")
    return Sizes(levels, max(strides), proxy_imgsz, tuple(told))


def _levels_of_start(start: Architecture, wanted: str) -> tuple[str, tuple[int, ...], str]:
    """The levels of `start`, their strides, and a line about them, or ""."""
    from search_spaces.architecture import strides_of

    strides = strides_of(start)
    levels = f"{min(strides).bit_length() - 1}-{max(strides).bit_length() - 1}"
    if wanted not in ("auto", levels):
        raise InputError(f"--levels {wanted}: a search around an architecture keeps its levels, {levels}; leave out --levels")
    return levels, strides, "" if levels == "3-5" else f"{_named(levels)}, those of --start"


def _levels_by_objects(sides: NDArray[np.float64], imgsz: int, fits: Callable[[str], bool]) -> tuple[str, str]:
    """The levels that the objects need, and a line about them, or "". They are 3-5 where others cannot be had."""
    from evaluators.data.sizes import LARGE_SIDE, best_levels, median_small

    levels = best_levels(sides, imgsz)
    if levels == "3-5":
        return levels, ""
    small = levels == "2-5"
    why = f"half of the smaller objects have under {math.ceil(median_small(sides))} px at {imgsz}"
    why = why if small else f"a tenth of the objects have over {LARGE_SIDE} px at {imgsz}"
    if not small and imgsz % 64:
        return "3-5", f"3-5, although {why}: {levels} needs an --imgsz that is a multiple of 64"
    if not fits(levels):
        return "3-5", f"3-5, although {why}: the limits are under {ROOM:g} times the smallest architecture on levels {levels}"
    return levels, f"{_named(levels)}, because {why}"


def _named(levels: str) -> str:
    added = {"2-5": " (stride 4 too)", "3-6": " (stride 64 too)"}
    return levels + added.get(levels, "")


def _seen(sides: NDArray[np.float64], scale: float) -> str:
    from evaluators.data.sizes import median_small

    return f"where half of the smaller objects have at least {math.floor(median_small(sides) * scale)} px"


def room_within(space: str, classes: int, limits: Limits, imgsz: int) -> Callable[[str], bool]:
    """A function that tells whether the limits are at least ROOM times the smallest architecture of the space of that name, on
    the levels that it is given."""
    from gpnas.cli.sources import space_around
    from gpnas.search.limits import Limits, check_limits

    flops, params = (None if limit is None else limit / ROOM for limit in (limits.max_flops, limits.max_params))
    tight = Limits(flops, params)

    def fits(levels: str) -> bool:
        try:
            check_limits(space_around(space, None, classes, levels), tight, imgsz)
        except LimitError:
            return False
        return True

    return fits
