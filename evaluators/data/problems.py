"""What is wrong with a data set and can be mended: counted by kind, with the first few examples.

    found = Findings()
    found.add(Kind.CUT, "a.xml, object 3")
    problems = found.problems({"box": 3713, "image": 656})
    str(problems[0])    # "1 of 3713 boxes was cut, because it leaves its image by more than a pixel: a.xml, object 3"

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
    """A kind of problem. unit: what is counted, "box", "image" or "line". one, many: what was done about one and about many."""

    CUT = "box", "was cut, because it leaves its image", "were cut, because they leave their image"
    OUTSIDE = "box", "lies outside of its image and was left out", "lie outside of their image and were left out"
    NO_AREA = "box", "has no width or no height and was left out", "have no width or no height and were left out"
    REVERSED = "box", "has its corners reversed and was left out", "have their corners reversed and were left out"
    NOT_FINITE = "box", "is no four numbers and was left out", "are no four numbers and were left out"
    REPEATED = "box", "is a repetition and was left out", "are repetitions and were left out"
    NOT_A_LINE = "line", "is no label and was left out", "are no labels and were left out"
    MISSING = "image", "has no file and was left out", "have no file and were left out"
    UNREADABLE = "image", "cannot be read and was left out", "cannot be read and were left out"
    OTHER_SIZE = (
        "image",
        "has another size than its annotation says and was left out",
        "have another size than their annotations say and were left out",
    )
    TWO_SPLITS = "image", "is in two splits", "are in two splits"

    def __init__(self, unit: str, one: str, many: str) -> None:
        self.unit, self.one, self.many = unit, one, many

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
        noun = self.kind.unit if self.total == 1 else _PLURALS[self.kind.unit]
        what = self.kind.one if self.count == 1 else self.kind.many
        more = "; ..." if self.count > len(self.examples) else ""
        return f"{self.count} of {self.total} {noun} {what}: {'; '.join(self.examples)}{more}"

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
        told = ". ".join(str(problem) for problem in bad)
        why = "with --strict no problem is accepted" if strict else f"more than {MOST_MENDED:.0%}"
        remedy = f"correct the labels, or the images; `gpnas data {source}` shows them"
        raise DataError(f"{source}: {told}: {why}; {remedy}")
