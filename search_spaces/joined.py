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
from search_spaces.neighbourhood import Neighbourhood
from search_spaces.strict_yaml import parse_yaml


class Joined:
    """`space`, joined by the starts of `neighbourhoods` and what descends from them (gpnas.search.trial.Space)."""

    def __init__(self, space: Space, neighbourhoods: Sequence[Neighbourhood]) -> None:
        self._space = space
        self._homes: dict[str, Space] = {name: home for home in neighbourhoods for name in home.names}

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        """A new candidate: sampled from the space, mutated from one parent, or crossed from two where both are blueprints or
        neither is. Raises GenotypeError as the spaces do."""
        if not parents:
            return self._space.propose([], rng)
        names = [_name(parent.genotype) for parent in parents]
        alike = [parent for parent, name in zip(parents, names, strict=True) if (name is None) == (names[0] is None)]
        return self._homes.get(names[0] or "", self._space).propose(alike, rng)

    def read(self, text: str) -> Candidate:
        """The candidate of a blueprint's YAML, or of a genotype's as the space reads it. Raises GenotypeError."""
        return self._space.read(text) if _name(text) is None else candidate(read_blueprint(text))

    def smallest(self) -> Candidate:
        """That of the space."""
        return self._space.smallest()


def _name(genotype: str) -> str | None:
    """The name of a blueprint, "" where it has none; None for what is no blueprint."""
    document = parse_yaml(genotype, "genotype")
    return str(document.get("name", "")) if is_blueprint(document) else None
