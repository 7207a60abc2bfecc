"""A space that blueprints from elsewhere have joined: the baselines of a search may be parents beside its own candidates.

    space = Joined(open_space("gradient-path", classes=3), [Neighbourhood(open_catalogue("gelan-t"), classes=3)])
    a, b = space.propose([], rng), candidate(open_catalogue("gelan-t"))
    child = space.propose([b, a], rng)                    # of different kinds: a mutation of the first, so of gelan-t

Samples come from the space alone. A child comes from where its first parent is at home: from the neighbourhood of a baseline if
the parent is that baseline or descends from it, else from the space. Choices of a genotype cannot be crossed with blocks of a
blueprint, so of two parents of different kinds the first is mutated: the one from whose weights a warm child starts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from gpnas.search.trial import Candidate, Space
from search_spaces.architecture import candidate
from search_spaces.blueprint import is_blueprint, read_blueprint
from search_spaces.neighbourhood import Neighbourhood, descends_from
from search_spaces.strict_yaml import parse_yaml


class Joined:
    """`space`, joined by the starts of `neighbourhoods` and what descends from them (gpnas.search.trial.Space)."""

    def __init__(self, space: Space, neighbourhoods: Sequence[Neighbourhood]) -> None:
        self._space, self._neighbourhoods = space, tuple(neighbourhoods)

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        """A new candidate: sampled from the space, mutated from one parent, or crossed from two where both are blueprints or
        neither is. Raises GenotypeError as the spaces do."""
        if not parents:
            return self._space.propose([], rng)
        first = parents[0]
        alike = [parent for parent in parents if _is_blueprint(parent.genotype) == _is_blueprint(first.genotype)]
        return self._home(first).propose(alike, rng)

    def read(self, text: str) -> Candidate:
        """The candidate of a blueprint's YAML, or of a genotype's as the space reads it. Raises GenotypeError."""
        return candidate(read_blueprint(text)) if _is_blueprint(text) else self._space.read(text)

    def smallest(self) -> Candidate:
        """That of the space."""
        return self._space.smallest()

    def _home(self, parent: Candidate) -> Space:
        if not _is_blueprint(parent.genotype):
            return self._space
        blueprint = read_blueprint(parent.genotype)
        homes = (home for home in self._neighbourhoods if descends_from(blueprint, home.start))
        return next(homes, self._space)


def _is_blueprint(genotype: str) -> bool:
    return is_blueprint(parse_yaml(genotype, "genotype"))
