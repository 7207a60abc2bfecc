"""The space of a table: only what the table holds can be proposed, so that any search can run on results that are known.

    rows = read_detectors(Path("benchmarks/gp-bench/detectors.jsonl"))
    space = TabularSpace([row.candidate for row in rows], [row.choices for row in rows])

A mutation goes to one of the nearest rows, a crossing to the row that is nearest to a mixture of two: near in the number of
choices that differ.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpnas.errors import GenotypeError, GpnasError
from gpnas.files import read_lines
from gpnas.graph.cost import deployed_cost
from gpnas.search.trial import Candidate
from search_spaces.architecture import candidate, read_architecture
from search_spaces.genotype import Genotype
from search_spaces.gradient_path import choices_of

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


class TabularSpace:
    """candidates: the rows. choices: what each is made of, by label; a label without effect in one is absent there."""

    def __init__(self, candidates: Sequence[Candidate], choices: Sequence[Choices]) -> None:
        self.candidates = list(candidates)
        self._rows = {candidate.hash: i for i, candidate in enumerate(candidates)}
        self._by_text = {candidate.genotype: candidate for candidate in candidates}
        self._codes = coded(choices)

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        if not parents:
            return rng.choice(self.candidates)
        rows = [self._rows[parent.hash] for parent in parents]
        if len(rows) == 1:
            return self.candidates[rng.choice(self._nearest(self._codes[rows[0]], rows)[:NEAREST])]
        first, second = self._codes[rows]
        mixed = np.where([rng.random() < 0.5 for _ in first], first, second)
        return self.candidates[self._nearest(mixed, rows)[0]]

    def read(self, text: str) -> Candidate:
        if text not in self._by_text:
            raise GenotypeError(f"the table holds no such architecture: {text:.80}")
        return self._by_text[text]

    def smallest(self) -> Candidate:
        return min(self.candidates, key=lambda candidate: deployed_cost(candidate.graph, 640).macs)

    def _nearest(self, codes: NDArray[np.int64], but: Sequence[int]) -> list[int]:
        """Rows `but` a few, the one with the fewest differing choices first."""
        order = np.argsort((self._codes != codes).sum(axis=1), kind="stable")
        return [int(row) for row in order if row not in but]


def coded(choices: Sequence[Choices]) -> NDArray[np.int64]:
    """(rows, labels): a number for each value of a label, and one for its absence."""
    labels = sorted({label for of in choices for label in of})
    columns = []
    for label in labels:
        texts = [str(of.get(label)) for of in choices]
        numbers = {text: i for i, text in enumerate(sorted(set(texts)))}
        columns.append([numbers[text] for text in texts])
    return np.array(columns, dtype=np.int64).reshape(len(labels), len(choices)).T
