"""The detector of a genotype: its levels, its neck, and the four kinds of PGI, read from the graph."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest
import yaml

from gpnas.graph.graph import Branch, Graph
from search_spaces.detector import build_detector
from search_spaces.genotype import read_genotype
from tests.search_spaces.test_genotype import TEXT

NONE = {"kind": "none"}
DEEP = {"kind": "deep_supervision", "levels": [16, 32], "weight": 0.5}
REVERSIBLE = {"kind": "reversible", "levels": [8, 16], "integration": "own", "weight": 0.25}
COMPOSITE = {"kind": "composite", "levels": [8, 16, 32], "integration": "multi", "weight": 0.1}


def graph_of(pgi: dict[str, Any], **changes: Any) -> Graph:
    document = yaml.safe_load(TEXT) | {"pgi": pgi} | changes
    return build_detector(read_genotype(yaml.safe_dump(document)))


def strides(graph: Graph, branch: Branch) -> list[int]:
    return [out.stride for out in graph.outputs if out.branch is branch]


def named(graph: Graph, part: str) -> dict[str, int]:
    """Operations whose name has `part`, by name."""
    return {op.name: i for i, op in enumerate(graph.ops) if part in op.name}


def reads(graph: Graph) -> Any:
    return nx.DiGraph((i, j) for j, op in enumerate(graph.ops) for i in op.inputs)


@pytest.mark.parametrize(
    ("pgi", "auxiliary"),
    [(NONE, []), (DEEP, [16, 32]), (REVERSIBLE, [8, 16]), (COMPOSITE, [8, 16, 32])],
)
def test_outputs_and_their_weights(pgi: dict[str, Any], auxiliary: list[int]) -> None:
    graph = graph_of(pgi)
    assert strides(graph, Branch.MAIN) == [8, 16, 32]
    assert strides(graph, Branch.AUXILIARY) == auxiliary
    weights = {out.branch: out.weight for out in graph.outputs}
    assert weights == {Branch.MAIN: 1.0} | ({Branch.AUXILIARY: pgi["weight"]} if auxiliary else {})
    assert {graph.ops[out.op].channels for out in graph.outputs} == {4 * 16 + 3}


@pytest.mark.parametrize("pgi", [DEEP, REVERSIBLE])
def test_without_its_auxiliary_branch_a_network_is_the_one_without_pgi(pgi: dict[str, Any]) -> None:
    """The composite branch is another network: its main branch reads a first backbone."""
    assert graph_of(pgi).inference().hash == graph_of(NONE).inference().hash
    assert graph_of(COMPOSITE).inference().hash != graph_of(NONE).inference().hash


def test_stages_have_the_widths_and_strides_of_the_genotype() -> None:
    """TEXT: stem 16; backbone 16, 24, 32, 48 at strides 4 to 32; neck 32, 24 downwards, 32, 48 upwards."""
    graph = graph_of(NONE)
    expected = {
        "backbone": {"stem": (16, 2), "stage0": (16, 4), "stage1": (24, 8), "stage2": (32, 16), "stage3": (48, 32)},
        "neck": {"top_down16": (32, 16), "top_down8": (24, 8), "bottom_up16": (32, 16), "bottom_up32": (48, 32)},
    }
    for part, scopes in expected.items():
        for scope, width_and_stride in scopes.items():
            last = max(named(graph, f"{part}.{scope}").values())
            assert (graph.ops[last].channels, _stride(graph, last)) == width_and_stride, scope


def _stride(graph: Graph, op: int) -> int:
    """By the strides and scales on a path from the image."""
    path = nx.shortest_path(reads(graph), 0, op)
    stride = 1
    for i in path[1:]:
        kind = graph.ops[i].kind
        stride = stride // graph.ops[i].scale if kind == "upsample" else stride * graph.ops[i].stride
    return stride


def test_the_neck_joins_what_it_should() -> None:
    """Top-down: the coarser features, upsampled, beside the backbone's level. Bottom-up: the finer ones, by a strided layer,
    beside the top-down features; at stride 32 beside the pyramid of poolings."""
    ops = graph_of(NONE).ops

    def sources(scope: str) -> list[str]:
        join = next(op for op in ops if op.name.startswith(f"neck.{scope}") and op.kind == "concat")
        return [ops[ops[i].inputs[0]].name if ops[i].kind == "upsample" else ops[i].name for i in join.inputs]

    assert sources("top_down16") == ["backbone.spp.transition", "backbone.stage2.concat"]
    assert sources("top_down8")[1] == _last(ops, "backbone.stage1")
    assert sources("top_down8")[0] == _last(ops, "neck.top_down16")
    assert sources("bottom_up16") == ["neck.bottom_up16.down", _last(ops, "neck.top_down16")]
    assert sources("bottom_up32") == ["neck.bottom_up32.down", "backbone.spp.transition"]


def _last(ops: Any, scope: str) -> str:
    return next(op.name for op in reversed(ops) if op.name.startswith(scope))


def test_without_a_pyramid_there_are_no_poolings_of_5() -> None:
    def poolings(graph: Graph) -> int:
        return sum((op.kind, op.kernel) == ("max_pool", 5) for op in graph.ops)

    assert (poolings(graph_of(NONE)), poolings(graph_of(NONE, spp="none"))) == (3, 0)
    assert poolings(graph_of(COMPOSITE)) == 6  # the first backbone's levels pass one too, for the second head
    spp = [op for op in graph_of(NONE).ops if op.name.startswith("backbone.spp") and op.weighted]
    assert [op.channels for op in spp] == [24, 48]


@pytest.mark.parametrize(
    ("integration", "expected"),
    [
        ("own", {8: [8], 16: [16], 32: [32]}),
        ("multi", {8: [8, 16, 32], 16: [16, 32], 32: [32]}),
    ],
)
@pytest.mark.parametrize("kind", ["reversible", "composite"])
def test_routes_between_the_backbones(kind: str, integration: str, expected: dict[int, list[int]]) -> None:
    """At a stride, the backbone that is fed reads these levels of the other one, through 1x1 layers without normalisation."""
    graph = graph_of({"kind": kind, "levels": [8, 16, 32], "integration": integration, "weight": 0.25})
    routes = named(graph, "route")
    other = "first" if kind == "composite" else "backbone"
    for name, i in routes.items():
        op = graph.ops[i]
        assert (op.kernel, op.norm, op.bias, op.act) == (1, False, True, "")
        assert graph.ops[op.inputs[0]].name.startswith(other)
        assert _stride(graph, op.inputs[0]) == int(name.partition("route")[2])
    by_stage = {stride: [n for n in routes if f"stage{k}." in n] for k, stride in ((1, 8), (2, 16), (3, 32))}
    assert {stride: [int(n.partition("route")[2]) for n in names] for stride, names in by_stage.items()} == expected


def test_a_reversible_backbone_ends_at_its_deepest_level() -> None:
    assert named(graph_of(REVERSIBLE), "pgi.stage2") and not named(graph_of(REVERSIBLE), "pgi.stage3")
    assert named(graph_of(REVERSIBLE | {"levels": [32]}), "pgi.stage3")
    assert not named(graph_of(REVERSIBLE | {"levels": [8]}), "pgi.stage2")


def test_the_neck_of_a_composite_branch_ends_at_its_finest_level() -> None:
    assert named(graph_of(COMPOSITE), "pgi.top_down8") and named(graph_of(COMPOSITE), "pgi.top_down16")
    assert not named(graph_of(COMPOSITE | {"levels": [16, 32]}), "pgi.top_down8")
    assert not named(graph_of(COMPOSITE | {"levels": [32]}), "pgi.top_down16")


def test_deep_supervision_reads_the_backbone_s_levels_and_not_the_neck() -> None:
    graph = graph_of(DEEP)
    ways = reads(graph)
    for out in graph.outputs:
        passed = {graph.ops[i].name.split(".")[0] for i in nx.ancestors(ways, out.op)}
        assert ("neck" in passed) == (out.branch is Branch.MAIN)
