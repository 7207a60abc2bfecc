"""The space of a tabular benchmark: what is proposed is near, and in the table."""

from __future__ import annotations

import random

import pytest

from search_spaces.tabular import NEAREST, TabularSpace, choice_codes
from tests.grid import grid_candidate


@pytest.fixture
def space() -> TabularSpace:
    """Sixty chains."""
    cells = random.Random(0).sample([(width, depth) for width in range(4, 68, 4) for depth in range(1, 13)], 60)
    choices = [{"width": width, "depth": depth} for width, depth in cells]
    return TabularSpace([grid_candidate(width, depth) for width, depth in cells], choices)


def test_mutations_go_to_the_nearest_rows(space: TabularSpace) -> None:
    rng = random.Random(1)
    reached = {space.candidates.index(space.propose([space.candidates[0]], rng)) for _ in range(200)}
    assert len(reached) == NEAREST and 0 not in reached


def test_a_crossing_is_another_row(space: TabularSpace) -> None:
    child = space.propose(space.candidates[:2], random.Random(1))
    assert child in space.candidates[2:]


def test_codes_differ_where_choices_differ() -> None:
    codes = choice_codes([{"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3}])
    assert [int((codes[0] != other).sum()) for other in codes] == [0, 3, 1]
