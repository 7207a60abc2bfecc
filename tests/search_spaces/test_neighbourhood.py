"""The architectures around a published one: what may change, what must hold, and how one is narrowed to a limit."""

from __future__ import annotations

import random

import pytest
import torch

from gpnas.errors import LimitError
from gpnas.graph.cost import cost
from gpnas.graph.graph import Branch
from gpnas.graph.network import Network
from gpnas.search.trial import Candidate
from search_spaces.architecture import build, candidate, with_classes
from search_spaces.blueprint import Blueprint, catalogue, open_catalogue, read_blueprint, scaled_width
from search_spaces.families import FAMILIES
from search_spaces.neighbourhood import Neighbourhood, widest_within

DETECTORS = [name for name in catalogue() if name.startswith(("gelan", "yolo", "vovnet"))]


def around(name: str) -> Neighbourhood:
    return Neighbourhood(widest_within(blueprint(name), 100e6, None, 64), 3)


def blueprint(name: str) -> Blueprint:
    changed = with_classes(open_catalogue(name), 3)
    assert isinstance(changed, Blueprint)
    return changed


def flops(found: Candidate, imgsz: int) -> int:
    return cost(found.graph.inference(), imgsz, imgsz).flops


@pytest.mark.parametrize("name", DETECTORS)
def test_children_of_every_detector_build_run_and_predict_on_three_levels(name: str) -> None:
    space, rng = around(name), random.Random(0)
    parents = [space.propose([], rng) for _ in range(4)]
    children = [space.propose([parent], rng) for parent in parents] + [space.propose(parents[:2], rng)]
    for found in [*parents, *children]:
        main = [out for out in found.graph.outputs if out.branch is Branch.MAIN]
        assert [out.stride for out in main] == [8, 16, 32]
        with torch.no_grad():
            assert len(Network(found.graph).eval()(torch.zeros(1, 3, 64, 64))) == 3
    assert len({found.hash for found in parents}) > 1


def test_a_mutation_changes_one_to_three_things_and_keeps_what_blocks_read() -> None:
    space, rng = around("gelan-c"), random.Random(1)
    parent = candidate(space.start)
    for _ in range(100):
        before, after = space.start, read_blueprint(space.propose([parent], rng).genotype)
        pairs = list(zip(before.blocks, after.blocks, strict=False))
        different = sum(a != b for a, b in pairs) + (before.width_multiple != after.width_multiple)
        assert 1 <= different + abs(len(before.blocks) - len(after.blocks)) <= 3
        assert all((a.name, a.sources) == (b.name, b.sources) for a, b in pairs)


def test_families_units_downsamplings_and_supervision_are_reached() -> None:
    space, rng = around("yolov9-c"), random.Random(0)
    blocks = [block for _ in range(300) for block in read_blueprint(space.propose([], rng).genotype).blocks]
    assert {block.block for block in blocks} >= {*FAMILIES, "strided", "max_pool", "aconv", "adown"}
    assert {block.options.get("weight") for block in blocks if block.options.get("branch") == "auxiliary"} == {0.1, 0.25, 0.5}
    space = around("yolor-csp")
    names = [block.name for _ in range(200) for block in read_blueprint(space.propose([], rng).genotype).blocks]
    assert "deep_supervision" in names


def test_a_cross_takes_each_block_from_either_parent() -> None:
    space, rng = around("yolov9-s"), random.Random(2)
    for _ in range(30):
        a, b = space.propose([], rng), space.propose([], rng)
        child = read_blueprint(space.propose([a, b], rng).genotype)
        parents = read_blueprint(a.genotype), read_blueprint(b.genotype)
        if child.width_multiple in {parent.width_multiple for parent in parents}:
            kept = sum(any(block in parent.blocks for parent in parents) for block in child.blocks)
            assert kept >= len(child.blocks) - 3  # a child of near twins is a mutation


@pytest.mark.parametrize("limit", [80e6, 300e6, 1e9, 1e12])
def test_fitted_is_the_widest_that_meets_the_limit(limit: float) -> None:
    start = blueprint("yolov9-t")
    small = widest_within(start, limit, None, 320)
    assert flops(candidate(small), 320) <= limit
    wider = small.model_copy(update={"width_multiple": (small.width_multiple or 1) + 1 / 64})
    assert small == start or flops(candidate(wider), 320) > limit or build(wider).hash == build(small).hash
    few = widest_within(start, None, 300e3, 320)
    assert cost(build(few).inference(), 320, 320).params <= 300e3


def test_fitted_refuses_what_no_width_meets() -> None:
    with pytest.raises(LimitError, match="even at its narrowest it has"):
        widest_within(blueprint("yolov9-t"), 1e3, None, 320)


def test_half_the_widths_is_half_of_every_width_by_hand() -> None:
    assert [scaled_width(width, 0.5) for width in (8, 16, 24, 100, 256)] == [8, 8, 16, 48, 128]
    half = build(blueprint("gelan-c").model_copy(update={"width_multiple": 0.5}))
    whole = build(blueprint("gelan-c"))
    pairs = [(a.channels, b.channels) for a, b in zip(whole.ops, half.ops, strict=True) if a.weighted]
    assert all(b == a // 2 for a, b in pairs if a not in (3, 64))  # 64: the distributions of the four sides
