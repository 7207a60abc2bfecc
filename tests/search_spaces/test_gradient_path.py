"""The gradient-path space: proposals lie in it, descend from their parents, and are the same for the same seed."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gpnas.errors import GenotypeError, InputError
from gpnas.graph.cost import cost
from gpnas.graph.graph import Branch
from gpnas.search.trial import Candidate
from search_spaces.architecture import candidate
from search_spaces.choice_values import SPACES, union_values
from search_spaces.choices import genotype_of
from search_spaces.genotype import read_genotype
from search_spaces.gradient_path import GradientPathSpace, open_space
from tests.genotypes import SMALL, genotypes, space

sampling = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
seeds = st.integers(0, 2**32 - 1).map(random.Random)

FAMILIES = {"plain", "residual", "masked_residual", "csp", "elan", "gelan", "osa", "dense"}


def stages(proposed: Candidate) -> list[dict[str, Any]]:
    """Four of the backbone, then four of the neck."""
    choices = json.loads(proposed.genotype)
    result: list[dict[str, Any]] = choices["backbone"] + choices["neck"]["top_down"] + choices["neck"]["bottom_up"]
    return result


def point(whole: GradientPathSpace, proposed: Candidate) -> dict[str, Any]:
    """The candidate's value for every label of a space; the first value for labels that have no effect in it."""
    choices = json.loads(proposed.genotype)
    labels = {"stem.width": choices["stem"]["width"], "activation": choices["activation"], "spp": choices["spp"]}
    for i, stage in enumerate(stages(proposed)):
        labels |= {f"{'backbone' if i < 4 else 'neck'}.{i % 4}.{key}": value for key, value in stage.items()}
    labels |= {f"head.{key}": choices["head"][key] for key in ("width", "depth")}
    labels |= {f"pgi.{key}": tuple(value) if key == "levels" else value for key, value in choices["pgi"].items()}
    return {label: values[0] for label, values in whole.values.items()} | labels


def macs(proposed: Candidate) -> int:
    """On an image of 640 x 640 pixels."""
    return cost(proposed.graph.inference(), 640, 640).macs


@functools.cache
def ready_space(name: str) -> GradientPathSpace:
    return open_space(name, 3)


@functools.cache
def sample(name: str, seed: int) -> Candidate:
    return ready_space(name).propose([], random.Random(seed))


@functools.cache
def smallest(name: str) -> Candidate:
    return ready_space(name).smallest()


def narrowed_to_one_value(**others: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """The union space with one value for every label but `others` (double underscores for dots)."""
    only = {label: values[:1] for label, values in union_values().items()}
    return only | {label.replace("__", "."): values for label, values in others.items()}


class Impatient(random.Random):
    """Raises RuntimeError after 100,000 random numbers, so that a proposal that does not end fails its test."""

    drawn = 0

    def getrandbits(self, k: int) -> int:
        self.drawn += 1
        if self.drawn > 100_000:
            raise RuntimeError("100,000 random numbers were drawn: the proposal does not end")
        return super().getrandbits(k)


@sampling
@given(genotypes(small=False))
def test_samples_lie_in_the_space_and_build_three_levels(proposed: Candidate) -> None:
    assert space(small=False).mutable.contains(point(space(small=False), proposed))
    assert [out.stride for out in proposed.graph.outputs if out.branch is Branch.MAIN] == [8, 16, 32]


@sampling
@given(genotypes(small=False))
def test_widths_do_not_shrink_with_depth_in_the_backbone(proposed: Candidate) -> None:
    widths = [stage["width"] for stage in stages(proposed)[:4]]
    assert widths == sorted(widths)


def test_the_statement_of_the_space_refuses_what_lies_outside() -> None:
    whole = space(small=False)
    inside = point(whole, whole.smallest())
    assert whole.mutable.contains(inside)
    assert not whole.mutable.contains(inside | {"backbone.0.width": 128, "backbone.1.width": 24})
    assert not whole.mutable.contains(inside | {"backbone.0.width": 17})
    assert not whole.mutable.contains(inside | {"neck.2.family": "transformer"})


@sampling
@given(genotypes(small=False), seeds)
def test_a_mutation_lies_in_the_space(parent: Candidate, rng: random.Random) -> None:
    whole = space(small=False)
    child = whole.propose([parent], rng)
    assert whole.mutable.contains(point(whole, child))


@sampling
@given(genotypes(), seeds)
def test_a_mutation_leaves_most_of_its_parent_as_it_was(parent: Candidate, rng: random.Random) -> None:
    child = space().propose([parent], rng)
    ours, theirs = point(space(), child), point(space(), parent)
    # Up to three choices. A wider stage may widen the stages after it; another family, unit or kind has choices of its own.
    replaced = tuple(
        label.removesuffix(end)
        for label in ours
        for end in (".family", ".unit", ".kind")
        if label.endswith(end) and ours[label] != theirs[label]
    )
    changed = [
        label
        for label in ours
        if ours[label] != theirs[label] and not label.startswith(replaced) and not label.endswith(".width")
    ]
    assert len(set(replaced)) + len(changed) <= 3


def test_a_mutation_is_never_its_parent() -> None:
    # Of three widths of stage 1 the smallest is forbidden by stage 0, so a mutation there is to the largest.
    tight = GradientPathSpace(
        3, narrowed_to_one_value(backbone__0__width=(32,), backbone__1__width=(24, 32, 48), backbone__2__width=(32, 48))
    )
    widths = {"backbone.1.width": 32, "backbone.2.width": 32, "backbone.3.width": 48}
    choices = {label: values[0] for label, values in tight.values.items()} | widths
    parent = candidate(genotype_of(choices, 3))
    assert all(tight.propose([parent], random.Random(seed)).hash != parent.hash for seed in range(20))


@sampling
@given(genotypes(small=False), genotypes(small=False), seeds)
def test_a_crossing_takes_whole_stages_from_its_parents(a: Candidate, b: Candidate, rng: random.Random) -> None:
    assume(a.hash != b.hash)  # twins have no crossing of their own: one of them is mutated
    whole = space(small=False)
    child = whole.propose([a, b], rng)
    assert whole.mutable.contains(point(whole, child))
    for i, (mine, first, second) in enumerate(zip(stages(child), stages(a), stages(b), strict=True)):
        matches = [theirs for theirs in (first, second) if {**theirs, "width": 0} == {**mine, "width": 0}]
        assert matches
        # Only a backbone stage may be widened, to the width of the stage before it.
        widths = {theirs["width"] for theirs in matches}
        assert mine["width"] in widths or (0 < i < 4 and mine["width"] == stages(child)[i - 1]["width"])
    ours, parents = json.loads(child.genotype), [json.loads(parent.genotype) for parent in (a, b)]
    for part in ("stem", "spp", "head", "pgi", "activation"):
        assert ours[part] in [parent[part] for parent in parents]


def test_crossings_mix_both_parents() -> None:
    whole = space(small=False)
    a, b = (whole.propose([], random.Random(seed)) for seed in (1, 2))
    children = [whole.propose([a, b], random.Random(seed)) for seed in range(20)]
    assert len({child.hash for child in children} - {a.hash, b.hash}) > 15


def test_the_same_seed_gives_the_same_proposals() -> None:
    def run(fresh: GradientPathSpace) -> list[str]:
        rng = random.Random(7)
        a, b = fresh.propose([], rng), fresh.propose([], rng)
        child = fresh.propose([a, b], rng)
        return [proposed.hash for proposed in (a, b, child, fresh.propose([child], rng))]

    assert run(GradientPathSpace(3)) == run(GradientPathSpace(3))
    assert len(set(run(GradientPathSpace(3)))) == 4


def test_proposals_differ_from_seed_to_seed() -> None:
    assert len({sample("gradient-path", seed).hash for seed in range(200)}) == 200


def test_the_union_space_reaches_every_family_unit_fusion_and_downsampling() -> None:
    seen: dict[str, set[str]] = {"family": set(), "unit": set(), "fusion": set(), "downsample": set()}
    for seed in range(100):
        for stage in stages(sample("gradient-path", seed)):
            for key, values in seen.items():
                values |= {stage[key]} if key in stage else set()
    assert seen == {
        "family": FAMILIES,
        "unit": {"plain", "residual", "masked_residual", "rep_residual", "bottleneck", "resnext", "dense"},
        "fusion": {"csp", "first", "last", "none"},
        "downsample": {"strided", "max_pool", "aconv", "adown"},
    }


@pytest.mark.parametrize(
    ("name", "families", "kinds"),
    [
        ("prn", {"residual", "masked_residual"}, {"none"}),
        ("csp", {"csp"}, {"none"}),
        ("elan", {"osa", "elan"}, {"none"}),
        ("gelan", {"gelan"}, {"none"}),
        ("pgi", {"csp", "elan", "gelan"}, {"deep_supervision", "reversible", "composite"}),
        ("gradient-path", FAMILIES, {"none", "deep_supervision", "reversible", "composite"}),
    ],
)
def test_a_ready_space_holds_its_families_and_no_other(name: str, families: set[str], kinds: set[str]) -> None:
    samples = [sample(name, seed) for seed in range(40)]
    assert {stage["family"] for drawn in samples for stage in stages(drawn)} == families
    assert {json.loads(drawn.genotype)["pgi"]["kind"] for drawn in samples} == kinds


def test_every_ready_space_is_tested() -> None:
    assert set(SPACES) == {"gradient-path", "prn", "csp", "elan", "gelan", "pgi"}


@pytest.mark.parametrize("name", SPACES)
def test_smallest_has_no_more_macs_than_any_of_100_samples(name: str) -> None:
    ready = ready_space(name)
    assert ready.mutable.contains(point(ready, smallest(name)))
    assert macs(smallest(name)) <= min(macs(sample(name, seed)) for seed in range(100))


@pytest.mark.parametrize("name", ["gradient-path", "csp"])
def test_no_single_choice_makes_the_smallest_smaller(name: str) -> None:
    ready = ready_space(name)
    least = point(ready, smallest(name))
    changed = [least | {label: value} for label, values in ready.values.items() for value in values]
    neighbours = []
    for choices in changed:
        with contextlib.suppress(GenotypeError):  # groups that divide no width, a split of too few channels
            if ready.mutable.contains(choices):
                neighbours.append(candidate(genotype_of(choices, 3)))
    assert len(neighbours) > 100
    assert min(macs(neighbour) for neighbour in neighbours) >= macs(smallest(name))


def test_read_rebuilds_a_candidate_with_its_own_classes() -> None:
    proposed = GradientPathSpace(7, SMALL).propose([], random.Random(0))
    again = space().read(read_genotype(proposed.genotype).to_yaml())
    assert again == proposed
    assert proposed.graph.ops[proposed.graph.outputs[0].op].channels == 4 * 16 + 7


def test_children_have_the_classes_of_their_space() -> None:
    parent = GradientPathSpace(7, SMALL).propose([], random.Random(0))
    child = space().propose([parent], random.Random(0))
    assert json.loads(child.genotype)["head"]["classes"] == 3


def test_a_parent_from_outside_the_space_has_children_inside() -> None:
    choices = json.loads(space().propose([], random.Random(0)).genotype)
    parent = space().read(json.dumps(choices | {"activation": "relu"}))  # the space has silu alone
    child = space().propose([parent], Impatient(0))
    assert space().mutable.contains(point(space(), child))


def test_smallest_exists_wherever_a_sample_does() -> None:
    # 4 channels cannot be split with fusion last: its crossing path takes all of them.
    thin = GradientPathSpace(3, {"width": (4, 16), "head.width": (16,), "family": ("csp",), "fusion": ("last",)})
    assert macs(thin.smallest()) <= macs(thin.propose([], random.Random(0)))


def test_a_space_without_nni_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("nni", "nni.mutable"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"^a search needs nni, which is not installed; run `pip install 'gpnas\[nni\]'`$"):
        open_space("gradient-path", classes=2)
