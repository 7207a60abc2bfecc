"""YOLOBench (arXiv:2307.13901): 88 detectors of eight YOLO series as a space; the AP of each is published at 11 image sizes.

A structure is a series at a depth and a width, under the name that the published table gives it: "yolo5d67w25" has two thirds
of YOLOv5's repeated units and a quarter of its widths. n, s, m and l stand for the sizes of that name, and a dash follows the
name of a YOLOv6. A detector is a structure at an image size in pixels, "yolo5d67w25_320".
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from gpnas.errors import GenotypeError
from gpnas.graph.cost import deployed_cost
from gpnas.graph.graph import Graph
from gpnas.search.trial import Candidate
from search_spaces.yolo_series import SERIES, build_yolo

CLASSES = 20
"""Those of Pascal VOC, on which the detectors were trained."""

WIDTHS = (0.25, 0.5, 0.75, 1.0)

_SIZES = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0)}
"""Depth and width of a size."""

_COMPARED_AT = 640
"""Height and width, in pixels, at which the cheapest structure is looked for."""


class Structure(NamedTuple):
    """depth, width: factors of the published repeats and widths. YOLOv7 repeats no unit; its depth says nothing."""

    series: str
    depth: float
    width: float

    @property
    def thirds(self) -> int:
        """The depth in thirds: 1, 2 or 3. The middle depth is 0.6 in YOLOv6 and 0.67 elsewhere."""
        return round(3 * self.depth)

    @property
    def choices(self) -> dict[str, Any]:
        """What has an effect, by label."""
        depth = {} if self.series == "yolo7" else {"depth": self.thirds}
        return {"series": self.series, **depth, "width": self.width}


def _named() -> dict[str, Structure]:
    sizes = {values: size for size, values in _SIZES.items()}
    named = {}
    for series in SERIES:
        six = series.startswith("yolo6")
        for depth in (0.33, 0.6 if six else 0.67, 1.0):
            for width in WIDTHS:
                size = sizes.get((depth, width))
                factors = f"d{_digits(depth)}w{_digits(width)}"
                if series != "yolo7" or size:
                    name = f"{series}-{factors}" if six else series + (size or factors)
                    named[name] = Structure(series, depth, width)
    return named


def _digits(factor: float) -> str:
    """0.33 is "33", 0.5 is "5", 1.0 is "1"."""
    return f"{factor:g}".removeprefix("0.")


STRUCTURES: dict[str, Structure] = _named()
"""The 88 structures by name, series by series, each from shallow to deep and from narrow to wide."""


@functools.cache
def build_structure(name: str, classes: int = CLASSES, merged: bool = False) -> Graph:
    """The training graph of a structure; `merged` as in `build_yolo`. Raises GenotypeError for a name that is none of
    STRUCTURES."""
    return build_yolo(*_structure(name), classes, merged)


def first_half(name: str) -> bool:
    """Whether a structure is in the half on which forms of a score are chosen; the other half judges them.

    The halves are a chequerboard over series, depth and width: each has half of every series and of every depth, and 10 or 12
    of the 22 structures of a width. They do not depend on AP.
    """
    series, _, width = structure = _structure(name)
    thirds = structure.choices.get("depth", 0)
    return bool((list(SERIES).index(series) + thirds + round(4 * width)) % 2 == 0)


def _structure(name: str) -> Structure:
    if name not in STRUCTURES:
        raise GenotypeError(f"{name!r} is none of YOLOBench's {len(STRUCTURES)} structures, such as yolo3n and yolo6s-d33w25")
    return STRUCTURES[name]


class YoloBenchSpace:
    """The structures, with heads for `classes` classes (gpnas.search.trial.Space)."""

    def __init__(self, classes: int = CLASSES) -> None:
        self.classes = classes

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        """A candidate: any structure without parents, a parent with another series, depth or width, or a crossing of two
        parents in these three, which is mutated when it equals one of them."""
        names = [_name(parent.genotype) for parent in parents]
        if not names:
            return self._candidate(rng.choice(list(STRUCTURES)))
        points = [(structure.series, structure.thirds, structure.width) for structure in map(_structure, names)]
        point: list[Any] = [rng.choice(values) for values in zip(*points, strict=True)]
        while (child := _at(*point)) in names:  # another depth of YOLOv7 is the same structure
            k = rng.randrange(3)
            point[k] = rng.choice([value for value in (tuple(SERIES), (1, 2, 3), WIDTHS)[k] if value != point[k]])
        return self._candidate(child)

    def read(self, text: str) -> Candidate:
        """The candidate of `structure: <name>`. Raises GenotypeError."""
        return self._candidate(_name(text))

    def smallest(self) -> Candidate:
        """The structure with the fewest MACs."""
        return min(map(self._candidate, STRUCTURES), key=lambda candidate: deployed_cost(candidate.graph, _COMPARED_AT).macs)

    def _candidate(self, name: str) -> Candidate:
        return Candidate(f"structure: {name}", f"yolobench-{name}", build_structure(name, self.classes))


def _at(series: str, thirds: int, width: float) -> str:
    """The name of the structure with these choices."""
    depth = {} if series == "yolo7" else {"depth": thirds}
    choices = {"series": series, **depth, "width": width}
    return next(name for name, structure in STRUCTURES.items() if structure.choices == choices)


def _name(text: str) -> str:
    key, _, value = text.partition(":")
    if key.strip() != "structure":
        raise GenotypeError(f"a genotype of YOLOBench is `structure: <name>`, got {text!r:.80}")
    return value.strip()
