"""The analysis of a whole network, of its stages and of each layer, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from gpnas.errors import GraphError
from gpnas.graph.graph import Branch, Graph, GraphBuilder
from gpnas.paths.analysis import analyse, consumer_name, layer_rows, lengths, stages
from gpnas.paths.gradient_paths import FIGURES, GradientPaths, gradient_paths


def two_heads() -> Graph:
    """A stem, a slice of it through a main head, all of it through an auxiliary head, and a layer that reaches no loss."""
    b = GraphBuilder(3, act="")
    stem = b.conv(b.image, 4, 3, 2, name="stem")  # 108 weights; normalisation: 8 in training, 4 folded
    b.conv(stem, 2, norm=False, name="dead")  # 8
    with b.scope("head"):
        b.output(b.conv(b.slice(stem, 1, 3), 6, groups=2, norm=False, name="main"), "p", stride=2)  # 6
    b.output(b.conv(stem, 5, norm=False, bias=True, name="aux"), "early", stride=2, branch=Branch.AUXILIARY)  # 20, 5 biases
    return b.build()


def test_the_analysis_has_the_cost_of_both_forms_and_the_figures_of_each_branch() -> None:
    graph = two_heads()
    result = analyse(graph, "tiny", 6, 10)  # 3 x 5 pixels after the stem
    figures = gradient_paths(graph).figures()
    assert {key: result[key] for key in ("name", "input", "params", "macs", "flops", "layers", "train", "live_params")} == {
        "name": "tiny",
        "input": [3, 6, 10],
        "params": 108 + 4 + 6,
        "macs": 15 * (108 + 6),
        "flops": 30 * (108 + 6),
        "layers": 2,
        "train": {"params": 108 + 8 + 8 + 6 + 25, "macs": 15 * (108 + 8 + 6 + 20), "flops": 30 * (108 + 8 + 6 + 20)},
        "live_params": 112 + 6 + 25,
    }
    assert tuple(result["gradient_paths"]) == tuple(name for name in FIGURES if name != "live_params")
    assert result["gradient_paths"] == {name: value for name, value in figures.items() if name != "live_params"}
    main, auxiliary = result["branches"]["main"], result["branches"]["auxiliary"]
    assert (main["live_layers"], main["live_params"], main["combinations"]) == (2, 112 + 6, 2)
    assert (auxiliary["live_layers"], auxiliary["live_params"], auxiliary["combinations"]) == (2, 112 + 25, 2)
    assert {name: stage["live_params"] for name, stage in result["stages"].items()} == {"stem": 112, "head": 6, "aux": 25}


def test_a_network_without_auxiliary_losses_has_no_branches() -> None:
    assert "branches" not in analyse(two_heads().inference(), "tiny", 6, 10)


def test_an_image_that_is_too_small_is_an_error() -> None:
    b = GraphBuilder(3)
    b.output(b.max_pool(b.image, 2, 2, padding=0, name="halve"), "p", stride=2)
    with pytest.raises(GraphError, match=r"^halve: nothing is left of an image of 1x9$"):
        analyse(b.build(), "tiny", 1, 9)


def test_one_row_for_each_layer_with_its_channel_groups() -> None:
    stem, dead, main, aux = layer_rows(two_heads())
    sizes: dict[str, Any] = {"kind": "conv", "kernel": 1, "stride": 1, "groups": 1}
    counts = {"shortest": 1, "longest": 1, "timestamps": [1], "sources": 1, "combinations": 1, "poolings_per_path": 0.0}
    from_aux = ["aux", 0, [2]]
    assert stem == sizes | {
        **{"layer": "stem", "channels": [3, 4], "kernel": 3, "stride": 2, "params": 112, "loss": "main"},
        **{"shortest": 2, "longest": 2, "timestamps": [2], "sources": 4, "combinations": 4, "poolings_per_path": 0.0},
        "aggregated_features": 0,
        "channel_groups": [
            {"channels": [0, 1], "sources": [from_aux]},
            {"channels": [1, 3], "sources": [["head.main", 0, [2]], ["aux", 1, [2]]]},
            {"channels": [3, 4], "sources": [["aux", 3, [2]]]},
        ],
    }
    assert dead == sizes | {
        "layer": "dead",
        "channels": [4, 2],
        "params": 8,
        "loss": "none",
        "timestamps": [],
        "channel_groups": [],
    }
    assert main == sizes | counts | {
        **{"layer": "head.main", "channels": [2, 6], "groups": 2, "params": 6, "loss": "main", "aggregated_features": 1},
        "channel_groups": [{"channels": [0, 6], "sources": [["loss head.p", 0, [1]]]}],
    }
    assert aux == sizes | counts | {
        **{"layer": "aux", "channels": [4, 5], "params": 25, "loss": "auxiliary", "aggregated_features": 1},
        "channel_groups": [{"channels": [0, 5], "sources": [["loss early", 0, [1]]]}],
    }


def test_consumers_are_layers_or_losses() -> None:
    graph = two_heads()
    assert [consumer_name(graph, k) for k in (1, len(graph.ops) - 1, len(graph.ops), len(graph.ops) + 1)] == [
        *("stem", "aux", "loss head.p", "loss early"),
    ]


def test_lengths_of_a_bit_set() -> None:
    assert lengths(0) == []
    assert lengths(0b101101) == [0, 2, 3, 5]


def stage_names(*layers: str) -> dict[str, int]:
    """Number of layers by stage, of a chain of layers with these names."""
    b = GraphBuilder(4)
    x = b.image
    for name in layers:
        x = b.conv(x, 4, name=name)
    b.output(x, "p", stride=1)
    graph = b.build()
    return {stage: len(GradientPaths(part).layers) for stage, part in stages(graph, gradient_paths(graph)).items()}


def test_a_scope_with_more_than_a_quarter_of_the_layers_is_shown_by_its_parts() -> None:
    names = [f"backbone.{stage}.{layer}" for stage in ("s0", "s1") for layer in ("a", "b")]
    names += ["neck.in.a", "neck.out.a", "head.a", "head.b"]
    assert stage_names(*names) == {"backbone.s0": 2, "backbone.s1": 2, "neck": 2, "head": 2}


def test_a_large_scope_without_parts_is_one_stage() -> None:
    assert stage_names("body.only.a", "body.only.b", "last") == {"body": 2, "last": 1}
    assert stage_names("body.a", "body.s.b", "body.t.c") == {"body": 1, "body.s": 1, "body.t": 1}
