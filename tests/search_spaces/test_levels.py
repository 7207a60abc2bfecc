"""Levels 3-5, 2-5 and 3-6: a genotype, its graph and its space in each of them, and that 3-5 is what it always was."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gpnas.errors import GenotypeError
from gpnas.graph.cost import deployed_cost
from gpnas.graph.graph import Branch, Graph
from gpnas.search.trial import Candidate
from search_spaces.choice_values import SPACES, narrow, union_values
from search_spaces.choices import backbone_labels, choices_of, genotype_of, neck_labels
from search_spaces.detector import build_detector
from search_spaces.genotype import Levels, read_genotype
from search_spaces.gradient_path import GradientPathSpace, open_space
from tests.genotypes import SMALL
from tests.search_spaces.test_detector import _last, _stride, named, reads, strides
from tests.search_spaces.test_genotype import TEXT

ALL: tuple[Levels, ...] = ("3-5", "2-5", "3-6")
OTHERS: tuple[Levels, ...] = ("2-5", "3-6")

sampling = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
seeds = st.integers(0, 2**32 - 1)


def document(levels: Levels = "3-5", **changes: Any) -> dict[str, Any]:
    """TEXT, with a plain stage of its own width for each stage that `levels` add."""
    result: dict[str, Any] = yaml.safe_load(TEXT)
    neck = result["neck"]
    if levels == "2-5":
        neck["top_down"].append({"family": "plain", "width": 20, "depth": 1})
        neck["bottom_up"].insert(0, {"family": "plain", "width": 28, "depth": 1})
    if levels == "3-6":
        result["backbone"].append({"family": "plain", "width": 56, "depth": 1, "downsample": "strided"})
        neck["top_down"].insert(0, {"family": "plain", "width": 40, "depth": 1})
        neck["bottom_up"].append({"family": "plain", "width": 60, "depth": 1})
    return result | ({} if levels == "3-5" else {"levels": levels}) | changes


def graph_of(levels: Levels, pgi: dict[str, Any] | None = None, **changes: Any) -> Graph:
    return build_detector(read_genotype(yaml.safe_dump(document(levels, pgi=pgi or {"kind": "none"}, **changes))))


# Written down before there were other levels.
HASHES = {
    "gradient-path": "9cc45beaccb1cbb3 caa7f620a246469d 695cc1e98ac3f5b3 f6de03e45646325c 9ccab7bc0894583e",
    "prn": "b9b5416bc3cb3631 2e553088a65a03dc 59ff47a46dd14224 506f36d7c3e6430d f730be68b6b713c6",
    "csp": "ec49693fc63fc4b7 80dbeff3b0ca9246 8d173b207c05461b 17a8ef7148d25ae2 1224eb71f05048e0",
    "elan": "50f8b42e61d6247f 08da0a4da43f1e90 9fb2f68bba673618 cd7193657cbcaf36 9668826b15565050",
    "gelan": "e73852d109284518 16b849025f013094 c8914af7d97af779 c862d2671f06c721 5214c96a99de871f",
    "pgi": "daa202d87a95e67c 26af768010bafdc5 e768733c0015f647 194365cd3413719e d0e9e5457ca6f285",
}
GRAPHS = ["ba61a2a011b57394", "30172a67369f7dae", "a2227e3e7c84cacb", "15688ac5925d7671", "12f29381532029a6"]


@pytest.mark.parametrize("name", SPACES)
def test_a_seed_proposes_what_it_proposed_before_there_were_other_levels(name: str) -> None:
    """Two samples, a mutation, a crossing, and the smallest candidate."""
    space, rng = open_space(name, 3), random.Random(0)
    a, b = space.propose([], rng), space.propose([], rng)
    proposals = [a, b, space.propose([a], rng), space.propose([a, b], rng), space.smallest()]
    assert " ".join(candidate.hash for candidate in proposals) == HASHES[name]
    if name == "gradient-path":
        assert [candidate.graph.hash for candidate in proposals] == GRAPHS


def test_the_hash_the_text_and_the_graph_of_levels_3_5_are_those_from_before() -> None:
    genotype = read_genotype(TEXT)
    assert (genotype.hash, build_detector(genotype).hash) == ("62dfaecc3da793fa", "c81910ee0e04fb54")
    assert "levels: 3-5" not in genotype.to_yaml() and '"levels":"3-5"' not in genotype.to_json()
    written_out = read_genotype(TEXT + "levels: 3-5\n")
    assert written_out == genotype and written_out.to_yaml() == genotype.to_yaml()


@pytest.mark.parametrize(
    ("levels", "expected"),
    [("3-5", [8, 16, 32]), ("2-5", [4, 8, 16, 32]), ("3-6", [8, 16, 32, 64])],
)
def test_a_detector_predicts_on_its_levels(levels: Levels, expected: list[int]) -> None:
    graph = graph_of(levels)
    assert strides(graph, Branch.MAIN) == expected
    assert [_stride(graph, out.op) for out in graph.outputs] == expected
    assert {graph.ops[out.op].channels for out in graph.outputs} == {4 * 16 + 3}


STAGES: dict[Levels, dict[str, tuple[int, int]]] = {  # width and stride
    "2-5": {
        "backbone.stage0": (16, 4),
        "backbone.stage3": (48, 32),
        **{"neck.top_down16": (32, 16), "neck.top_down8": (24, 8), "neck.top_down4": (20, 4)},
        **{"neck.bottom_up8": (28, 8), "neck.bottom_up16": (32, 16), "neck.bottom_up32": (48, 32)},
    },
    "3-6": {
        "backbone.stage3": (48, 32),
        "backbone.stage4": (56, 64),
        **{"neck.top_down32": (40, 32), "neck.top_down16": (32, 16), "neck.top_down8": (24, 8)},
        **{"neck.bottom_up16": (32, 16), "neck.bottom_up32": (48, 32), "neck.bottom_up64": (60, 64)},
    },
}


@pytest.mark.parametrize("levels", OTHERS)
def test_stages_have_the_widths_and_strides_of_the_genotype(levels: Levels) -> None:
    graph = graph_of(levels)
    for scope, width_and_stride in STAGES[levels].items():
        last = max(named(graph, scope).values())
        assert (graph.ops[last].channels, _stride(graph, last)) == width_and_stride, scope
    scopes = {op.name.split(".")[1] for op in graph.ops if op.name.startswith("neck.")}
    assert scopes == {scope.split(".")[1] for scope in STAGES[levels] if scope.startswith("neck.")}


def sources(graph: Graph, scope: str) -> list[str]:
    """The names of what the first concatenation of a scope joins, before any upsampling."""
    ops = graph.ops
    join = next(op for op in ops if op.name.startswith(scope) and op.kind == "concat")
    return [ops[ops[i].inputs[0]].name if ops[i].kind == "upsample" else ops[i].name for i in join.inputs]


def test_with_levels_2_5_the_top_down_path_goes_on_to_stride_4_and_the_bottom_up_path_starts_there() -> None:
    graph = graph_of("2-5")
    ops = graph.ops
    assert sources(graph, "neck.top_down16") == ["backbone.spp.transition", _last(ops, "backbone.stage2")]
    assert sources(graph, "neck.top_down4") == [_last(ops, "neck.top_down8"), _last(ops, "backbone.stage0")]
    assert sources(graph, "neck.bottom_up8") == ["neck.bottom_up8.down", _last(ops, "neck.top_down8")]
    down = next(op for op in ops if op.name == "neck.bottom_up8.down")
    assert ops[down.inputs[0]].name == _last(ops, "neck.top_down4")
    assert sources(graph, "neck.bottom_up16") == ["neck.bottom_up16.down", _last(ops, "neck.top_down16")]


def test_with_levels_3_6_the_pyramid_of_poolings_and_both_ends_of_the_neck_are_at_stride_64() -> None:
    graph = graph_of("3-6")
    ops = graph.ops
    pooling = next(i for name, i in named(graph, "backbone.spp").items() if ops[i].kind == "max_pool")
    assert _stride(graph, pooling) == 64
    assert sources(graph, "neck.top_down32") == ["backbone.spp.transition", _last(ops, "backbone.stage3")]
    assert sources(graph, "neck.top_down16") == [_last(ops, "neck.top_down32"), _last(ops, "backbone.stage2")]
    assert sources(graph, "neck.bottom_up64") == ["neck.bottom_up64.down", "backbone.spp.transition"]


PGI: list[tuple[Levels, list[int]]] = [("2-5", [4, 8, 16, 32]), ("2-5", [4, 16]), ("3-6", [8, 16, 32, 64]), ("3-6", [32, 64])]


@pytest.mark.parametrize("kind", ["deep_supervision", "reversible", "composite"])
@pytest.mark.parametrize(("levels", "fed"), PGI)
def test_pgi_may_use_every_level(levels: Levels, fed: list[int], kind: str) -> None:
    routed = {} if kind == "deep_supervision" else {"integration": "multi"}
    graph = graph_of(levels, {"kind": kind, "levels": fed, "weight": 0.25, **routed})
    assert strides(graph, Branch.AUXILIARY) == fed
    assert [_stride(graph, out.op) for out in graph.outputs if out.branch is Branch.AUXILIARY] == fed
    if kind != "deep_supervision":
        routes = {int(name.partition("route")[2]) for name in named(graph, "route")}
        assert routes == set(fed)
    if kind != "composite":
        assert graph.inference().hash == graph_of(levels).inference().hash


def test_the_second_neck_of_a_composite_branch_goes_as_far_as_its_finest_level() -> None:
    pgi = {"kind": "composite", "integration": "own", "weight": 0.25}
    assert named(graph_of("2-5", pgi | {"levels": [4, 8]}), "pgi.top_down4")
    assert not named(graph_of("2-5", pgi | {"levels": [8, 16]}), "pgi.top_down4")
    assert not named(graph_of("3-6", pgi | {"levels": [64]}), "pgi.top_down32")


@pytest.mark.parametrize("levels", ALL)
def test_every_operation_leads_from_the_image_to_an_output(levels: Levels) -> None:
    graph = graph_of(levels)
    ways = reads(graph)
    for i in graph.layers:
        assert nx.has_path(ways, 0, i) and any(nx.has_path(ways, i, out.op) for out in graph.outputs)


WRONG: list[tuple[Levels, Callable[[dict[str, Any]], object], str]] = [
    (
        "3-5",
        lambda d: d.update(levels="2-5"),
        "neck.top_down must have 3 stages with levels 2-5, got 2; add or remove stages, or",
    ),
    ("3-5", lambda d: d.update(levels="3-6"), "backbone must have 5 stages with levels 3-6, got 4; add or remove stages, or"),
    (
        "3-6",
        lambda d: d.pop("levels"),
        "backbone must have 4 stages with levels 3-5, got 5; add or remove stages, or change levels",
    ),
    ("2-5", lambda d: d["neck"]["bottom_up"].pop(), "neck.bottom_up must have 3 stages with levels 2-5, got 2"),
    ("2-5", lambda d: d["pgi"].update(levels=[4, 64]), "levels must be rising strides out of 4, 8, 16, 32, got [4, 64] in pgi"),
    (
        "3-6",
        lambda d: d["pgi"].update(levels=[64, 8]),
        "levels must be rising strides out of 8, 16, 32, 64, got [64, 8] in pgi",
    ),
    ("2-5", lambda d: d.update(levels="2-6"), "levels must be one of '3-5', '2-5' or '3-6', got '2-6'"),
    ("3-5", lambda d: d.update(levels=[8, 16, 32]), "levels must be one of '3-5', '2-5' or '3-6', got [8, 16, 32]"),
    (
        "2-5",
        lambda d: d["neck"]["top_down"].append(d["stem"] | {"family": "plain", "depth": 1}),
        "neck.top_down must have 3 st",
    ),
    ("3-5", lambda d: d["neck"].update(bottom_up=[]), "neck.bottom_up must have 2 stages with levels 3-5, got 0"),
]


@pytest.mark.parametrize(("levels", "spoil", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_impossible_levels_are_one_line(levels: Levels, spoil: Callable[[dict[str, Any]], object], message: str) -> None:
    spoilt = document(levels)
    spoil(spoilt)
    with pytest.raises(GenotypeError) as error:
        read_genotype(yaml.safe_dump(spoilt), "best.yaml")
    assert str(error.value).startswith(f"best.yaml: {message}") and "\n" not in str(error.value)
    assert not str(error.value).endswith(" in ")


def test_other_levels_are_another_genotype_in_yaml_and_json() -> None:
    genotypes = [read_genotype(yaml.safe_dump(document(levels))) for levels in ALL]
    assert len({genotype.hash for genotype in genotypes}) == 3
    for genotype in genotypes:
        assert read_genotype(genotype.to_yaml()) == read_genotype(genotype.to_json()) == genotype
    assert "levels: 2-5\n" in genotypes[1].to_yaml() and "levels: 3-6\n" in genotypes[2].to_yaml()


def test_a_stage_has_the_same_labels_with_all_levels_that_have_it() -> None:
    assert backbone_labels("2-5") == backbone_labels("3-5") == ["backbone.0", "backbone.1", "backbone.2", "backbone.3"]
    assert backbone_labels("3-6")[4:] == ["backbone.4"]
    common = {"neck.0": 16, "neck.1": 8, "neck.2": 16, "neck.3": 32}
    assert neck_labels("3-5") == common
    assert neck_labels("2-5") == common | {"neck.top_down4": 4, "neck.bottom_up8": 8}
    assert neck_labels("3-6") == common | {"neck.top_down32": 32, "neck.bottom_up64": 64}
    assert list(neck_labels("2-5"))[:3] == ["neck.0", "neck.1", "neck.top_down4"]


@pytest.mark.parametrize("levels", ALL)
def test_a_point_and_its_genotype_are_the_same_choices(levels: Levels) -> None:
    genotype = read_genotype(yaml.safe_dump(document(levels)))
    choices = choices_of(genotype)
    point = {label: values[0] for label, values in union_values(levels).items()} | choices
    assert genotype_of(point, genotype.head.classes, levels) == genotype
    assert choices.keys() <= union_values(levels).keys()


def test_the_number_of_labels_of_other_levels() -> None:
    """Two more stages of 10 choices; with a fifth backbone stage 11 more."""
    assert [len(union_values(levels)) for levels in ALL] == [94, 114, 125]


EXTRA: dict[Levels, dict[str, Sequence[int]]] = {
    "3-5": {},
    "2-5": {"neck.top_down4.width": (16, 24), "neck.bottom_up8.width": (24,)},
    "3-6": {"backbone.4.width": (48, 64), "neck.top_down32.width": (48,), "neck.bottom_up64.width": (64,)},
}


@functools.cache
def space(levels: Levels, small: bool = True) -> GradientPathSpace:
    return GradientPathSpace(3, {**SMALL, **EXTRA[levels]} if small else None, levels=levels)


def in_space(levels: Levels, candidate: Candidate) -> bool:
    whole = space(levels)
    genotype = read_genotype(candidate.genotype)
    point = {label: values[0] for label, values in whole.values.items()} | choices_of(genotype)
    return genotype.levels == levels and whole.mutable.contains(point)


@sampling
@given(st.sampled_from(ALL), seeds)
def test_samples_mutations_and_crossings_lie_in_the_space_of_their_levels(levels: Levels, seed: int) -> None:
    rng = random.Random(seed)
    a, b = space(levels).propose([], rng), space(levels).propose([], rng)
    for proposed in (a, b, space(levels).propose([a], rng), space(levels).propose([a, b], rng)):
        assert in_space(levels, proposed)
        widths = [stage["width"] for stage in json.loads(proposed.genotype)["backbone"]]
        assert widths == sorted(widths)
        assert space(levels).read(proposed.genotype) == proposed


@sampling
@given(st.sampled_from(ALL), st.sampled_from(ALL), seeds)
def test_a_parent_of_other_levels_can_be_read_and_has_children_of_the_space_s_levels(
    ours: Levels, theirs: Levels, seed: int
) -> None:
    assume(ours != theirs)
    rng = random.Random(seed)
    parent = space(theirs).propose([], rng)
    assert space(ours).read(parent.genotype) == parent
    child = space(ours).propose([parent], rng)
    assert in_space(ours, child)


def test_the_statement_of_the_space_holds_the_fifth_stage_to_rising_widths() -> None:
    whole = GradientPathSpace(3, levels="3-6")
    inside = {label: values[0] for label, values in whole.values.items()}
    assert whole.mutable.contains(inside | {"backbone.3.width": 64, "backbone.4.width": 64})
    assert not whole.mutable.contains(inside | {"backbone.3.width": 96, "backbone.4.width": 64})
    assert "backbone.4.width" not in GradientPathSpace(3, levels="2-5").values


@pytest.mark.parametrize("levels", OTHERS)
def test_the_smallest_has_no_more_macs_than_samples(levels: Levels) -> None:
    least = deployed_cost(space(levels).smallest().graph, 128).macs
    assert in_space(levels, space(levels).smallest())
    assert least <= min(deployed_cost(space(levels).propose([], random.Random(i)).graph, 128).macs for i in range(40))


@pytest.mark.parametrize("levels", OTHERS)
def test_the_union_space_reaches_every_level_of_pgi(levels: Levels) -> None:
    whole = space(levels, small=False)
    seen = {
        stride
        for i in range(80)
        for stride in json.loads(whole.propose([], random.Random(i)).genotype)["pgi"].get("levels", [])
    }
    assert seen == {out.stride for out in whole.smallest().graph.outputs}


@pytest.mark.parametrize("levels", ALL)
@pytest.mark.parametrize("name", SPACES)
def test_ready_spaces_open_with_all_levels(name: str, levels: Levels) -> None:
    opened = open_space(name, 2, levels)
    assert (
        strides(opened.propose([], random.Random(0)).graph, Branch.MAIN)
        == {
            "3-5": [8, 16, 32],
            "2-5": [4, 8, 16, 32],
            "3-6": [8, 16, 32, 64],
        }[levels]
    )


def test_a_space_file_may_name_what_the_levels_add(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("base: csp\nvalues: {neck.top_down4.width: [16, 20], neck.0.width: [48], pgi.levels: [[4, 8]], depth: [1]}")
    opened = open_space(str(file), 3, "2-5")
    assert opened.values["neck.top_down4.width"] == [16, 20] and opened.values["neck.bottom_up8.depth"] == [1]
    with pytest.raises(GenotypeError, match=r"no choice of levels 3-5 \(but of 2-5\) is named 'neck.top_down4.width'; choices"):
        open_space(str(file), 3)


def test_values_of_the_fifth_stage_are_checked() -> None:
    narrowed = narrow(union_values("3-6"), {"backbone.4.width": (512, 1024)}, "space", "3-6")
    assert narrowed["backbone.4.width"] == [512, 1024]
    with pytest.raises(GenotypeError, match=r"backbone.4.width has no value as wide as the stage before it \(48\)"):
        narrow(union_values("3-6"), {"backbone.4.width": (40,)}, "space", "3-6")
    with pytest.raises(GenotypeError, match=r"space: pgi\.levels must be among"):
        narrow(union_values("3-6"), {"pgi.levels": ((4, 8),)}, "space", "3-6")
