"""What is wrong with a data set and can be mended: counted by kind, with the first few examples.

    found = Findings()
    found.add(Kind.CUT, "a.xml, object 3")
    problems = found.problems({"box": 3713, "image": 656})
    str(problems[0])    # "1 of 3713 boxes leaves its image and was cut: a.xml, object 3 [60, 5, 103, 40]"

What cannot be mended without guessing (an unknown class, no boxes at all) is a DataError where it is found.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gpnas.errors import DataError

EXAMPLES = 3
"""Examples that a problem names."""

MOST_MENDED = 0.05
"""A data set of which a larger share has one kind of problem is refused. Up to EXAMPLES cases are mended in any data set."""


class Kind(enum.Enum):
    """A kind of problem. unit: what is counted, "box", "image" or "line". one, many: what is wrong with one, and with many.
    mended: what was done about it."""

    CUT = "box", "leaves its image", "leave their image", "cut"
    OUTSIDE = "box", "lies outside of its image", "lie outside of their image", "left out"
    NO_AREA = "box", "has no width or no height", "have no width or no height", "left out"
    REVERSED = "box", "has its corners reversed", "have their corners reversed", "left out"
    NOT_FINITE = "box", "is no four numbers", "are no four numbers", "left out"
    REPEATED = "box", "stands there twice", "stand there twice", "left out once"
    NO_IMAGE = "box", "is of an image that is not listed", "are of images that are not listed", "left out"
    NOT_A_LINE = "line", "is no label", "are no labels", "left out"
    MISSING = "image", "has no file", "have no file", "left out"
    UNREADABLE = "image", "cannot be read", "cannot be read", "left out"
    OTHER_SIZE = "image", "has another size than its annotation says", "have other sizes than their annotations say", "left out"
    TWO_SPLITS = "image", "is in two splits", "are in two splits", ""

    def __init__(self, unit: str, one: str, many: str, mended: str) -> None:
        self.unit, self.one, self.many, self.mended = unit, one, many, mended

    @property
    def has_limit(self) -> bool:
        """Whether too many of this kind make a data set unusable. The same image in two splits is said, and no more."""
        return self is not Kind.TWO_SPLITS


_PLURALS = {"box": "boxes", "image": "images", "line": "lines"}


@dataclass(frozen=True)
class Problem:
    """`count` of `total` boxes (or images, or lines) have the problem `kind`; `examples` says where the first ones are."""

    kind: Kind
    count: int
    total: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        mended = f" and {'was' if self.count == 1 else 'were'} {self.kind.mended}" if self.kind.mended else ""
        return f"{self.fact}{mended}: {self.shown}"

    @property
    def fact(self) -> str:
        """How many have the problem, such as "2 of 8 boxes leave their image"."""
        noun = self.kind.unit if self.total == 1 else _PLURALS[self.kind.unit]
        return f"{self.count} of {self.total} {noun} {self.kind.one if self.count == 1 else self.kind.many}"

    @property
    def shown(self) -> str:
        """The examples as a text."""
        return "; ".join(self.examples) + ("; ..." if self.count > len(self.examples) else "")

    @property
    def is_too_much(self) -> bool:
        return self.kind.has_limit and self.count > max(EXAMPLES, MOST_MENDED * self.total)


@dataclass
class Findings:
    """Collects problems while a data set is read."""

    counts: dict[Kind, int] = field(default_factory=dict)
    examples: dict[Kind, list[str]] = field(default_factory=dict)

    def add(self, kind: Kind, example: str) -> None:
        self.add_all(kind, 1, [example])

    def add_all(self, kind: Kind, count: int, examples: Iterable[str]) -> None:
        """`count` cases, with their first examples; nothing happens when `count` is 0."""
        if count:
            self.counts[kind] = self.counts.get(kind, 0) + count
            known = self.examples.setdefault(kind, [])
            known += list(examples)[: EXAMPLES - len(known)]

    def problems(self, totals: Mapping[str, int]) -> tuple[Problem, ...]:
        """All problems, in the order of `Kind`. totals: number of boxes, images and lines ("box", "image", "line") of the data
        set, those with problems included."""
        return tuple(
            Problem(kind, self.counts[kind], totals.get(kind.unit, self.counts[kind]), tuple(self.examples[kind]))
            for kind in Kind
            if kind in self.counts
        )


def check_problems(source: str, problems: Sequence[Problem], strict: bool) -> None:
    """Raises DataError, in one line, when a problem is too frequent to be mended, or with `strict` when there is any."""
    bad = [problem for problem in problems if strict or problem.is_too_much]
    if bad:
        told = ". ".join(f"{problem.fact}: {problem.shown}" for problem in bad)
        why = "--strict accepts none" if strict else f"up to {MOST_MENDED:.0%} would be mended"
        raise DataError(f"{source}: {told} ({why}; see `gpnas data`): correct the annotations or the images")
