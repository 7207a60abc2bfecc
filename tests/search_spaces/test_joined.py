"""The space that baselines join: where children come from, and who is mutated when parents cannot be crossed."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pytest

from gpnas.errors import GenotypeError
from gpnas.search.trial import Candidate
from search_spaces.architecture import candidate, with_classes
from search_spaces.blueprint import open_catalogue
from search_spaces.joined import Joined
from search_spaces.neighbourhood import Neighbourhood
from tests.grid import GridSpace

NAMES = ("gelan-t", "yolov9-t")


def published(name: str) -> Candidate:
    return candidate(with_classes(open_catalogue(name), 2))


@pytest.fixture
def space() -> Joined:
    """Chains of the grid, which no blueprint can be crossed with, and two networks of the catalogue."""
    return Joined(GridSpace(), [Neighbourhood(open_catalogue(name), 2) for name in NAMES])


def name_of(child: Candidate) -> str:
    return str(json.loads(child.genotype).get("name", "of the grid"))


def names_of_children(space: Joined, parents: Sequence[Candidate], count: int = 8) -> set[str]:
    return {name_of(space.propose(parents, random.Random(seed))) for seed in range(count)}


def test_samples_and_the_smallest_are_those_of_the_space(space: Joined) -> None:
    assert names_of_children(space, []) == {"of the grid"}
    assert space.propose([], random.Random(3)) == GridSpace().propose([], random.Random(3))
    assert space.smallest() == GridSpace().smallest()


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_and_its_descendants_are_mutated_in_its_own_neighbourhood(space: Joined, name: str) -> None:
    child = space.propose([published(name)], random.Random(0))
    assert name_of(child) == f"around-{name}" and child.hash != published(name).hash
    grandchild = space.propose([child], random.Random(0))
    assert name_of(grandchild) == f"around-{name}" and grandchild.hash not in (child.hash, published(name).hash)


def test_a_candidate_of_the_space_is_mutated_there(space: Joined) -> None:
    parent = GridSpace().propose([], random.Random(0))
    assert space.propose([parent], random.Random(1)) == GridSpace().propose([parent], random.Random(1))


def test_of_two_parents_of_different_kinds_the_first_is_mutated(space: Joined) -> None:
    chain, gelan = GridSpace().propose([], random.Random(0)), published("gelan-t")
    assert space.propose([chain, gelan], random.Random(1)) == GridSpace().propose([chain], random.Random(1))
    assert space.propose([gelan, chain], random.Random(1)) == space.propose([gelan], random.Random(1))


def test_parents_of_one_kind_are_crossed(space: Joined) -> None:
    chains = [GridSpace().read(json.dumps({"width": width, "depth": depth})) for width, depth in ((4, 7), (12, 2))]
    assert json.loads(space.propose(chains, random.Random(0)).genotype) == {"width": 4, "depth": 2}
    children = [space.propose([published(name) for name in NAMES], random.Random(seed)) for seed in range(4)]
    assert {name_of(child) for child in children} == {"around-gelan-t"}  # where the first parent is at home


@pytest.mark.parametrize("name", NAMES)
def test_both_kinds_are_read(space: Joined, name: str) -> None:
    for known in (published(name), GridSpace().propose([], random.Random(0))):
        assert space.read(known.genotype).hash == known.hash


def test_a_blueprint_without_a_neighbourhood_is_at_home_in_the_space() -> None:
    """A search around a blueprint has a neighbourhood as its space."""
    space = Joined(Neighbourhood(open_catalogue("yolov9-s"), 2), [Neighbourhood(open_catalogue("gelan-t"), 2)])
    assert names_of_children(space, []) == {"around-yolov9-s"}
    assert names_of_children(space, [published("yolov9-s")], 2) == {"around-yolov9-s"}
    assert names_of_children(space, [published("gelan-t"), published("yolov9-s")], 2) == {"around-gelan-t"}


def test_what_is_no_architecture_is_refused(space: Joined) -> None:
    with pytest.raises(GenotypeError, match="genotype: not valid YAML"):
        space.read("{width: ")
