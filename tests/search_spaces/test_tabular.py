"""The space of a tabular benchmark: what it proposes is near, in the table, and none of the parents."""

from __future__ import annotations

import random

import pytest

from gpnas.errors import GenotypeError
from search_spaces.tabular import NEAREST, TabularSpace, choice_codes
from tests.grid import grid_candidate

SIZES = [(width, depth) for width in (4, 8, 12, 20) for depth in (1, 2, 3, 5, 8)]


@pytest.fixture
def space() -> TabularSpace:
    """Twenty chains. Two of them differ in one choice when they have the same width or the same depth."""
    choices = [{"width": width, "depth": depth} for width, depth in SIZES]
    return TabularSpace([grid_candidate(width, depth) for width, depth in SIZES], choices)


def test_samples_reach_every_candidate(space: TabularSpace) -> None:
    rng = random.Random(0)
    assert {space.propose([], rng).hash for _ in range(300)} == {candidate.hash for candidate in space.candidates}


def test_mutations_are_the_nearest_candidates(space: TabularSpace) -> None:
    """4 other depths and 3 other widths differ in one choice; the first NEAREST of these in the order of the table."""
    rng = random.Random(1)
    reached = {SIZES[space.candidates.index(space.propose([space.candidates[6]], rng))] for _ in range(200)}
    assert reached == {(4, 2), (8, 1), (8, 3), (8, 5), (8, 8)}
    assert len(reached) == NEAREST


def test_a_crossing_mixes_the_choices_of_its_parents(space: TabularSpace) -> None:
    """Of (4, 1) and (12, 5): (4, 5), (12, 1), or a neighbour of a parent when the mixture is that parent."""
    rng = random.Random(1)
    parents = [space.candidates[SIZES.index(size)] for size in ((4, 1), (12, 5))]
    children = {SIZES[space.candidates.index(space.propose(parents, rng))] for _ in range(100)}
    assert children == {(4, 5), (12, 1), (4, 2)}


def test_reading_and_the_smallest(space: TabularSpace) -> None:
    assert space.read(grid_candidate(12, 3).genotype) == grid_candidate(12, 3)
    assert space.smallest() == grid_candidate(4, 1)
    with pytest.raises(GenotypeError, match="the table holds no such architecture"):
        space.read(grid_candidate(16, 3).genotype)


def test_codes_differ_where_choices_differ() -> None:
    codes = choice_codes([{"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3}])
    assert codes.shape == (3, 3)
    assert [int((codes[0] != other).sum()) for other in codes] == [0, 3, 1]
    assert choice_codes([{}, {}]).shape == (2, 0)
