"""The space of a tabular benchmark: it proposes only candidates of the table, so that a search needs no training.

    space = TabularSpace([row.candidate for row in detectors], [row.choices for row in detectors])

The distance between two candidates is the number of choices in which they differ. A mutation is one of the NEAREST candidates
to the parent; a crossing is the candidate that is nearest to a random mixture of the choices of two parents.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpnas.errors import GenotypeError
from gpnas.search.trial import Candidate
from search_spaces.architecture import deployed_macs

NEAREST = 5
"""Candidates that a mutation is drawn from."""

Choices = Mapping[str, Any]


class TabularSpace:
    """The candidates of a table (gpnas.search.trial.Space).

    choices: those of each candidate, by label. A label that has no effect in a candidate is absent from its choices.
    """

    def __init__(self, candidates: Sequence[Candidate], choices: Sequence[Choices]) -> None:
        self.candidates = list(candidates)
        self._index = {candidate.hash: i for i, candidate in enumerate(candidates)}
        self._by_text = {candidate.genotype: candidate for candidate in candidates}
        self._codes = choice_codes(choices)
        self._near: dict[int, list[Candidate]] = {}  # the NEAREST candidates to one, by its index

    def __len__(self) -> int:
        return len(self.candidates)

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        """Any candidate without parents, a near one from one parent, one between two parents. It is none of the parents."""
        if not parents:
            return rng.choice(self.candidates)
        indices = [self._index[parent.hash] for parent in parents]
        if len(indices) == 1:
            return rng.choice(self._nearest(indices[0]))
        differs = self._codes != self._codes[indices][:, None]  # (parents, candidates, labels)
        from_first = np.array([rng.random() < 0.5 for _ in range(self._codes.shape[1])])
        differing = np.where(from_first, differs[0], differs[1]).sum(axis=1)
        differing[indices] = self._codes.shape[1] + 1
        return self.candidates[int(differing.argmin())]

    def read(self, text: str) -> Candidate:
        """The candidate whose genotype is `text`. Raises GenotypeError when the table lacks it."""
        if text not in self._by_text:
            raise GenotypeError(f"the table holds no such architecture: {text:.80}")
        return self._by_text[text]

    def smallest(self) -> Candidate:
        """The candidate with the fewest MACs."""
        return min(self.candidates, key=deployed_macs)

    def _nearest(self, index: int) -> list[Candidate]:
        """The NEAREST other candidates to this one, by the number of choices that differ; of equal ones the first."""
        if index not in self._near:
            order = np.argsort((self._codes != self._codes[index]).sum(axis=1), kind="stable")
            self._near[index] = [self.candidates[i] for i in order if i != index][:NEAREST]
        return self._near[index]


def choice_codes(choices: Sequence[Choices]) -> NDArray[np.int64]:
    """(candidates, labels): for each label, a number for each of its values and one for its absence."""
    labels = sorted({label for chosen in choices for label in chosen})
    columns = []
    for label in labels:
        texts = [str(chosen.get(label)) for chosen in choices]
        numbers = {text: i for i, text in enumerate(sorted(set(texts)))}
        columns.append([numbers[text] for text in texts])
    return np.array(columns, dtype=np.int64).reshape(len(labels), len(choices)).T
