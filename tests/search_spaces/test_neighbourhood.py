"""The architectures around a published one: what may change, and what must hold."""

from __future__ import annotations

import functools
import random

import pytest
import torch

from gpnas.errors import GenotypeError
from gpnas.graph.graph import Branch
from gpnas.graph.network import Network
from search_spaces.architecture import build, candidate, deployed_macs, with_classes
from search_spaces.blueprint import Blueprint, catalogue, open_catalogue, read_blueprint
from search_spaces.choice_values import STAGE_VALUES
from search_spaces.families import FAMILIES
from search_spaces.genotype import stage_fields
from search_spaces.narrowing import widest_within
from search_spaces.neighbourhood import Neighbourhood

DETECTORS = [name for name in catalogue() if name.startswith(("gelan", "yolo", "vovnet"))]
QUICK = ("gelan-t", "yolor-csp", "yolor-prn", "yolov9-s")

TINY = """
schema: 1
name: tiny
blocks:
- {block: conv, width: 16, kernel: 3, stride: 2}
- {block: conv, width: 16, kernel: 3, stride: 2}
- {name: p3, block: conv, width: 24, kernel: 3, stride: 2}
- {name: p4, block: aconv, width: 32}
- {name: wide, block: gelan, width: 32, depth: 2, repeats: 3, unit: plain, split_ratio: 1.5, hidden_ratio: 0.75}
- {name: p5, block: adown, width: 40}
- {block: detect, from: [p3, wide, p5], classes: 2, box_width: 16, class_width: 16}
"""


@functools.cache
def blueprint(name: str) -> Blueprint:
    changed = with_classes(open_catalogue(name), 3)
    assert isinstance(changed, Blueprint)
    return changed


@functools.cache
def around(name: str) -> Neighbourhood:
    """Around the entry, narrowed to 100 MFLOPs on 64 x 64 pixels."""
    return Neighbourhood(widest_within(blueprint(name), 100e6, None, 64), 3)


def tiny() -> Neighbourhood:
    return Neighbourhood(read_blueprint(TINY), 2)


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in DETECTORS])
def test_children_of_every_detector_build_run_and_predict_on_three_levels(name: str) -> None:
    space, rng = around(name), random.Random(0)
    parents = [space.propose([], rng) for _ in range(2)]
    children = [space.propose([parent], rng) for parent in parents] + [space.propose(parents, rng)]
    for proposed in [*parents, *children]:
        main = [out for out in proposed.graph.outputs if out.branch is Branch.MAIN]
        assert [out.stride for out in main] == [8, 16, 32]
        with torch.no_grad():
            outputs = Network(proposed.graph).eval()(torch.zeros(1, 3, 64, 32))
        assert [tuple(out.shape) for out in outputs] == [(1, 67, 64 // s, 32 // s) for s in (8, 16, 32)]
    assert len({parent.hash for parent in parents}) == 2


def test_a_mutation_changes_one_to_three_things_and_keeps_what_blocks_read() -> None:
    space, rng = around("gelan-c"), random.Random(1)
    parent = candidate(space.start)
    counts = set()
    for _ in range(100):
        before, after = space.start, read_blueprint(space.propose([parent], rng).genotype)
        pairs = list(zip(before.blocks, after.blocks, strict=False))
        different = sum(a != b for a, b in pairs) + (before.width_multiple != after.width_multiple)
        counts.add(different + abs(len(before.blocks) - len(after.blocks)))
        assert all((a.name, a.sources) == (b.name, b.sources) for a, b in pairs)
    assert counts == {1, 2, 3}


def test_families_units_downsampling_and_supervision_are_reached() -> None:
    space, rng = around("yolov9-c"), random.Random(0)
    blocks = [block for _ in range(300) for block in read_blueprint(space.propose([], rng).genotype).blocks]
    assert {block.block for block in blocks} >= {*FAMILIES, "strided", "max_pool", "aconv", "adown"}
    assert {block.options.get("unit") for block in blocks} >= set(STAGE_VALUES["unit"])
    assert {block.options.get("weight") for block in blocks if block.options.get("branch") == "auxiliary"} == {0.1, 0.25, 0.5}


def test_deep_supervision_reads_the_levels_with_the_options_of_the_main_head() -> None:
    space, rng = around("yolor-csp"), random.Random(0)
    while True:
        child = read_blueprint(space.propose([], rng).genotype)
        if child.blocks[-1].name == "deep_supervision":
            break
    head = next(block for block in child.blocks if block.block == "detect")
    options = child.blocks[-1].options
    assert child.blocks[-1].sources == ["p3", "p4", "p5"]
    assert options.pop("weight") in (0.1, 0.25, 0.5) and options.pop("branch") == "auxiliary"
    assert options == head.options


def test_deep_supervision_may_be_removed_and_its_weight_changed_but_no_other_branch_is_removed() -> None:
    rng = random.Random(0)
    supervised = TINY + (
        "- {name: deep_supervision, block: detect, from: [p3, p4, p5], classes: 2, box_width: 16, class_width: 16, "
        "branch: auxiliary, weight: 0.25}\n"
    )
    for name, may_go in (("deep_supervision", True), ("another", False)):
        space = Neighbourhood(read_blueprint(supervised.replace("name: deep_supervision", f"name: {name}")), 2)
        parent = candidate(space.start)
        children = [read_blueprint(space.propose([parent], rng).genotype) for _ in range(300)]
        weights = [child.blocks[-1].options.get("weight") for child in children if child.blocks[-1].name == name]
        assert set(weights) == {0.1, 0.25, 0.5}
        assert (len(weights) < len(children)) == may_go


def test_choices_that_another_family_has_too_keep_their_values() -> None:
    """A split ratio above 1, which only a blueprint may have, becomes 1 in another family or with another unit."""
    space, rng = tiny(), random.Random(0)
    parent = candidate(space.start)
    kept: list[bool] = []
    families = set()
    for _ in range(800):
        stage = read_blueprint(space.propose([parent], rng).genotype).blocks[4]
        assert set(stage.options) == {"width", *stage_fields(stage.block, stage.options.get("unit"))}
        if stage.block != "gelan" or stage.options["unit"] != "plain":
            assert stage.options.get("split_ratio", 1.0) <= 1
            families.add(stage.block)
            kept.append((stage.options["width"], stage.options["depth"]) == (32, 2))
    assert families == set(FAMILIES)
    assert sum(kept) > 0.8 * len(kept)  # the others had a second change


def test_a_stage_keeps_its_own_rounding_wherever_it_rounds() -> None:
    rounded = TINY.replace("hidden_ratio: 0.75}", "hidden_ratio: 0.75, channel_step: 2}")
    space, rng = Neighbourhood(read_blueprint(rounded), 2), random.Random(0)
    parent = candidate(space.start)
    stages = [read_blueprint(space.propose([parent], rng).genotype).blocks[4] for _ in range(800)]
    assert {stage.block for stage in stages} == set(FAMILIES)
    for stage in stages:
        assert stage.options.get("channel_step") == (None if stage.block == "plain" else 2)


@pytest.mark.parametrize(("width", "others"), [(8, {16}), (16, {8, 24}), (32, {24, 40}), (20, {16, 24})])
def test_a_step_of_a_width_is_one_of_8_channels_at_least(width: int, others: set[int]) -> None:
    text = TINY.replace("block: gelan, width: 32", f"block: gelan, width: {width}")
    space, rng = Neighbourhood(read_blueprint(text), 2), random.Random(0)
    parent = candidate(space.start)
    stages = [read_blueprint(space.propose([parent], rng).genotype).blocks[4] for _ in range(300)]
    assert {stage.options["width"] for stage in stages} >= others


def test_a_downsampling_block_becomes_any_other_with_the_same_width() -> None:
    space, rng = tiny(), random.Random(0)
    parent = candidate(space.start)
    seen: dict[int, set[str]] = {2: set(), 3: set(), 5: set()}
    for _ in range(400):
        child = read_blueprint(space.propose([parent], rng).genotype)
        for i, kinds in seen.items():
            before, after = space.start.blocks[i], child.blocks[i]
            if after != before:
                kinds.add(after.block)
                assert (after.name, after.options) == (before.name, {"width": before.options["width"]})
    assert seen[2] >= {"max_pool", "aconv", "adown"}
    assert seen[3] >= {"strided", "max_pool", "adown"}
    assert seen[5] >= {"strided", "max_pool", "aconv"}


def test_a_cross_takes_each_block_from_either_parent() -> None:
    space, rng = around("yolov9-s"), random.Random(2)
    mixed = 0
    for _ in range(10):
        a, b = space.propose([], rng), space.propose([], rng)
        child = read_blueprint(space.propose([a, b], rng).genotype)
        parents = read_blueprint(a.genotype), read_blueprint(b.genotype)
        if child.width_multiple in {parent.width_multiple for parent in parents}:
            kept = sum(any(block in parent.blocks for parent in parents) for block in child.blocks)
            assert kept >= len(child.blocks) - 3  # a child of parents that hardly differ is a mutation
            mixed += all(any(block not in parent.blocks for block in child.blocks) for parent in parents)
    assert mixed >= 3


def test_the_smallest_has_fewer_macs_than_any_sample_and_the_cheapest_choices() -> None:
    space, rng = tiny(), random.Random(0)
    smallest = space.smallest()
    assert deployed_macs(smallest) < min(deployed_macs(space.propose([], rng)) for _ in range(50))
    narrowest = read_blueprint(smallest.genotype)
    assert narrowest.width_multiple == 1 / 64
    stage = {"width": 32, "depth": 1, "repeats": 1, "unit": "plain", "split_ratio": 0.25, "hidden_ratio": 0.25}
    assert narrowest.blocks[4].options == stage
    assert [narrowest.blocks[i].block for i in (0, 1, 2, 3, 5)] == ["max_pool"] * 5


def test_half_the_widths_is_half_of_every_width() -> None:
    half = build(blueprint("gelan-c").model_copy(update={"width_multiple": 0.5}))
    whole = build(blueprint("gelan-c"))
    pairs = [(a.channels, b.channels) for a, b in zip(whole.ops, half.ops, strict=True) if a.weighted]
    assert all(b == a // 2 for a, b in pairs if a not in (3, 64))  # 64: the distributions of the four sides
    assert {b for a, b in pairs if a in (3, 64)} == {3, 32, 64}


def test_a_blueprint_without_anything_to_change_is_an_error() -> None:
    class AlwaysSupervision(random.Random):
        def random(self) -> float:
            return 0.12  # `_changed` then changes the supervision, which needs levels p3, p4 and p5

    bare = Neighbourhood(read_blueprint(TINY.replace("name: p5", "name: last").replace(", p5]", ", last]")), 2)
    parent = candidate(bare.start)
    with pytest.raises(GenotypeError, match="tiny: no other architecture around it in 1000 draws"):
        bare.propose([parent, parent], AlwaysSupervision(0))
