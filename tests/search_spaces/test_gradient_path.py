"""The search space: what it proposes lies in it, comes from its parents, and is the same for the same seed."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gpnas.errors import GenotypeError
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


def point(of: GradientPathSpace, proposed: Candidate) -> dict[str, Any]:
    """The candidate's value for every label of the space, the first for labels that have no effect in it."""
    choices = json.loads(proposed.genotype)
    labels = {"stem.width": choices["stem"]["width"], "activation": choices["activation"], "spp": choices["spp"]}
    for i, stage in enumerate(stages(proposed)):
        labels |= {f"{'backbone' if i < 4 else 'neck'}.{i % 4}.{key}": value for key, value in stage.items()}
    labels |= {f"head.{key}": choices["head"][key] for key in ("width", "depth")}
    labels |= {f"pgi.{key}": tuple(value) if key == "levels" else value for key, value in choices["pgi"].items()}
    return {label: values[0] for label, values in of.values.items()} | labels


def macs(proposed: Candidate) -> int:
    return cost(proposed.graph.inference(), 640, 640).macs


def narrowed_to_one_value(**others: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """The union space with one value for every label but `others` (double underscores for dots)."""
    only = {label: values[:1] for label, values in union_values().items()}
    return only | {label.replace("__", "."): values for label, values in others.items()}


class Impatient(random.Random):
    """Raises RuntimeError instead of being asked for ever."""

    asked = 0

    def getrandbits(self, k: int) -> int:
        self.asked += 1
        if self.asked > 100_000:
            raise RuntimeError("asked for 100,000 random numbers: the proposal does not end")
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
    # Up to three choices; widths may carry the widths after them along; a family or unit wakes its own knobs.
    woken = tuple(
        label.removesuffix(end)
        for label in ours
        for end in (".family", ".unit", ".kind")
        if label.endswith(end) and ours[label] != theirs[label]
    )
    changed = [
        label
        for label in ours
        if ours[label] != theirs[label] and not label.startswith(woken or ("-",)) and label[-6:] != ".width"
    ]
    assert len(set(woken)) + len(changed) <= 3


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
    def run(of: GradientPathSpace) -> list[str]:
        rng = random.Random(7)
        a, b = of.propose([], rng), of.propose([], rng)
        child = of.propose([a, b], rng)
        return [found.hash for found in (a, b, child, of.propose([child], rng))]

    assert run(GradientPathSpace(3)) == run(GradientPathSpace(3))
    assert len(set(run(GradientPathSpace(3)))) == 4


def test_proposals_differ_from_seed_to_seed() -> None:
    assert len({space(small=False).propose([], random.Random(seed)).hash for seed in range(200)}) == 200


def test_the_union_space_reaches_every_family_unit_fusion_and_downsampling() -> None:
    seen: dict[str, set[str]] = {"family": set(), "unit": set(), "fusion": set(), "downsample": set()}
    for seed in range(100):
        for stage in stages(space(small=False).propose([], random.Random(seed))):
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
    ready = open_space(name, 3)
    samples = [ready.propose([], random.Random(seed)) for seed in range(40)]
    assert {stage["family"] for found in samples for stage in stages(found)} == families
    assert {json.loads(found.genotype)["pgi"]["kind"] for found in samples} == kinds


def test_every_ready_space_is_tested() -> None:
    assert set(SPACES) == {"gradient-path", "prn", "csp", "elan", "gelan", "pgi"}


@pytest.mark.parametrize("name", SPACES)
def test_smallest_has_no_more_macs_than_any_of_300_samples(name: str) -> None:
    ready = open_space(name, 3)
    least = ready.smallest()
    assert ready.mutable.contains(point(ready, least))
    assert macs(least) <= min(macs(ready.propose([], random.Random(seed))) for seed in range(300))


@pytest.mark.parametrize("name", ["gradient-path", "csp"])
def test_no_single_choice_makes_the_smallest_smaller(name: str) -> None:
    ready = open_space(name, 3)
    least = point(ready, ready.smallest())
    changed = [least | {label: value} for label, values in ready.values.items() for value in values]
    inside = []
    for choice in changed:
        with contextlib.suppress(GenotypeError):  # groups that divide no width, a split of too few channels
            if ready.mutable.contains(choice):
                inside.append(candidate(genotype_of(choice, 3)))
    assert len(inside) > 100
    assert min(macs(found) for found in inside) >= macs(ready.smallest())


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


def opened(tmp_path: Path, text: str) -> GradientPathSpace:
    file = tmp_path / "space.yaml"
    file.write_text(text)
    return open_space(str(file), 3)


def test_a_space_file_narrows_its_base(tmp_path: Path) -> None:
    narrow = opened(
        tmp_path, "base: elan\nvalues: {family: [elan], depth: [1], backbone.0.width: [16, 24], pgi.levels: [[8, 16]]}"
    )
    for seed in range(20):
        found = narrow.propose([], random.Random(seed))
        assert all((stage["family"], stage["depth"]) == ("elan", 1) for stage in stages(found))
        assert stages(found)[0]["width"] in (16, 24)
    assert narrow.values["pgi.levels"] == [(8, 16)]
    assert narrow.values["pgi.kind"] == ["none"]


def test_a_space_file_without_a_base_narrows_the_union_space(tmp_path: Path) -> None:
    assert opened(tmp_path, "values: {spp: [none]}").values["spp"] == ["none"]
    assert opened(tmp_path, "base: gradient-path").values == space(small=False).values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("values: [", "not valid YAML"),
        ("- a", "a space file has the keys base and values"),
        ("", "a space file has the keys base and values, got None"),
        ("colour: red", "a space file has the keys base and values"),
        ("base: resnet", "base must be one of gradient-path, prn, csp, elan, gelan, pgi, got 'resnet'"),
        ("values: [1]", r"values must map labels to lists, got \[1\]"),
        ("values: {colour: [1]}", "no choice is named 'colour'; choices end in width, activation"),
        ("values: {depth: 3}", "depth needs a list of at least one value, got 3"),
        ("values: {depth: []}", r"depth needs a list of at least one value, got \[\]"),
        ("values: {fusion: [middle]}", "fusion must be among .*, got 'middle'"),
        ("values: {backbone.0.family: [plain, vgg]}", "backbone.0.family must be among .*, got 'vgg'"),
        ("values: {pgi.levels: [[64]]}", r"pgi.levels must be among .*, got \(64,\)"),
    ],
)
def test_a_bad_space_file_is_an_error_that_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(GenotypeError, match=f"space.yaml: .*{message}"):
        opened(tmp_path, text)


def test_an_unknown_space_names_the_ready_ones() -> None:
    with pytest.raises(GenotypeError, match="--space resnet: no such space or file; ready spaces are gradient-path, prn"):
        open_space("resnet", 3)


IMPOSSIBLE: list[Mapping[str, Sequence[Any]]] = [
    {"split_ratio": (1.5,)},
    {"backbone.0.depth": (0,)},
    {"head.depth": (8,)},
    {"stem.width": (16.5,)},
    {"stem.width": (True,)},
    {"stem.width": (17, "wide")},
    {"spp": (1,)},
    {"backbone.0.width": (128,), "backbone.1.width": (24,)},
]


@pytest.mark.parametrize("narrowed", IMPOSSIBLE)
def test_values_that_no_genotype_can_have_are_an_error_when_the_space_is_opened(narrowed: Mapping[str, Sequence[Any]]) -> None:
    with pytest.raises(GenotypeError):
        GradientPathSpace(3, narrowed)


@pytest.mark.parametrize("narrowed", [{"family": (1,)}, {"pgi.kind": (1,)}, {"pgi.levels": (8,)}, {"depth": (2, 2)}])
def test_values_of_a_wrong_kind_or_given_twice_are_an_error_too(narrowed: Mapping[str, Sequence[Any]]) -> None:
    with pytest.raises(GenotypeError):
        GradientPathSpace(3, narrowed)


def test_smallest_exists_wherever_a_sample_does() -> None:
    # 4 channels cannot be split with fusion last: its crossing path takes all of them.
    thin = GradientPathSpace(3, {"width": (4, 16), "head.width": (16,), "family": ("csp",), "fusion": ("last",)})
    assert macs(thin.smallest()) <= macs(thin.propose([], random.Random(0)))
