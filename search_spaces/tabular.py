"""The space of a table: only what the table holds can be proposed, so that any search can run on results that are known.

    rows = read_detectors(Path("benchmarks/gp-bench/detectors.jsonl"))
    space = TableSpace([row.candidate for row in rows], [row.choices for row in rows])

A mutation goes to one of the nearest rows, a crossing to the row that is nearest to a mixture of two: near in the number of
choices that differ.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpnas.cost import cost
from gpnas.errors import GenotypeError, GpnasError
from gpnas.json_lines import read_lines
from gpnas.trial import Candidate
from search_spaces.architecture import candidate, read_architecture
from search_spaces.genotype import Genotype
from search_spaces.space import choices_of

NEAREST = 5
"""Rows that a mutation chooses among."""

Choices = Mapping[str, Any]


class Row(NamedTuple):
    """A detector of a table. choices: by label, those with an effect. origin: the space that it was drawn from, or the name of
    the catalogue's entry that it is, whose choices are empty. features: what was known before training. macs: of its fused
    form on an image of `imgsz` pixels."""

    candidate: Candidate
    choices: Choices
    origin: str
    features: Mapping[str, float]
    macs: int
    imgsz: int


def read_detectors(path: Path) -> list[Row]:
    """Raises InputError that names the line, GenotypeError, and GpnasError for a detector that is not what it was."""
    found = []
    for line in read_lines(path, ("hash", "origin", "features", "cost", "genotype")):
        architecture = read_architecture(json.dumps(line["genotype"]), str(path))
        made = candidate(architecture)
        if made.hash != line["hash"]:
            raise GpnasError(f"{path}: {line['hash']} is now {made.hash}: the table was built by another version of gpnas")
        choices = choices_of(architecture) if isinstance(architecture, Genotype) else {}
        known = line["features"], line["cost"]["macs"], line["cost"]["imgsz"]
        found.append(Row(made, choices, line["origin"], *known))
    return found


class TableSpace:
    """candidates: the rows. choices: what each is made of, by label; a label without effect in one is absent there."""

    def __init__(self, candidates: Sequence[Candidate], choices: Sequence[Choices]) -> None:
        self.candidates, self.choices = list(candidates), list(choices)
        self._rows = {candidate.hash: i for i, candidate in enumerate(candidates)}
        self._by_text = {candidate.genotype: candidate for candidate in candidates}
        self._neighbours: dict[int, list[int]] = {}

    def row(self, candidate: Candidate) -> int:
        return self._rows[candidate.hash]

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        if not parents:
            return rng.choice(self.candidates)
        if len(parents) == 1:
            return self.candidates[rng.choice(self._near(self.row(parents[0])))]
        first, second = (self.choices[self.row(parent)] for parent in parents)
        mixed = {label: rng.choice((first, second)).get(label) for label in sorted({*first, *second})}
        others = [i for i in range(len(self.candidates)) if self.candidates[i] not in parents]
        return self.candidates[min(others, key=lambda i: distance(mixed, self.choices[i]))]

    def read(self, text: str) -> Candidate:
        if text not in self._by_text:
            raise GenotypeError(f"the table holds no such architecture: {text:.80}")
        return self._by_text[text]

    def smallest(self) -> Candidate:
        return min(self.candidates, key=lambda candidate: cost(candidate.graph.inference(), 640, 640).macs)

    def _near(self, row: int) -> list[int]:
        if row not in self._neighbours:
            own = self.choices[row]
            others = [i for i in range(len(self.candidates)) if i != row]
            self._neighbours[row] = sorted(others, key=lambda i: distance(own, self.choices[i]))[:NEAREST]
        return self._neighbours[row]


def distance(one: Choices, other: Choices) -> int:
    """Labels at which two differ."""
    return sum(one.get(label) != other.get(label) for label in one.keys() | other.keys())
