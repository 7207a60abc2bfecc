"""Pieces of a blueprint: their layers and connections, worked out by hand, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from gpnas.errors import GraphError
from gpnas.graph.graph import Branch, Graph, GraphBuilder
from search_spaces import pieces
from search_spaces.pieces import DOWNSAMPLING, HEADS, PIECES

Row = tuple[str, tuple[str, ...], int, int, int]
"""(name, inputs, channels, kernel, stride)"""


def built(name: str, *widths: int, strides: tuple[int, ...] = (), **options: Any) -> Graph:
    """The piece behind one input of each width, called x, x1, ..., at strides of the image."""
    b = GraphBuilder(act="silu")
    inputs = [b.conv(b.image, w, 1, s, name="x") for w, s in zip(widths, strides or (1,) * len(widths), strict=True)]
    piece = PIECES[name]
    outputs = piece(b, inputs if len(widths) > 1 or name in ("detect", "anchors") else inputs[0], **options)
    if name not in HEADS:
        for out in outputs if isinstance(outputs, list) else [outputs]:
            b.output(out, "y", stride=b.stride(out))
    return b.build()


def rows(graph: Graph) -> list[Row]:
    """What follows the inputs."""
    ops = graph.ops
    return [
        (op.name, tuple(ops[i].name for i in op.inputs), op.channels, op.kernel, op.stride)
        for op in ops
        if not op.name.startswith("x") and op.kind != "image"
    ]


def test_conv_has_the_options_that_it_is_given() -> None:
    op = built("conv", 12, width=24, kernel=6, stride=2, groups=3, padding=1, act="relu").ops[2]
    assert (op.channels, op.kernel, op.stride, op.groups, op.padding, op.act) == (24, 6, 2, 3, 1, "relu")
    op = built("conv", 12, width=24, kernel=5).ops[2]
    assert (op.kernel, op.stride, op.groups, op.padding, op.act) == (5, 1, 1, 2, "silu")
    assert built("conv", 12, width=24).ops[2].kernel == 1


def test_poolings_and_upsampling_have_the_options_that_they_are_given() -> None:
    op = built("pool", 12, kernel=3, stride=2, padding=0).ops[2]
    assert (op.kind, op.kernel, op.stride, op.padding) == ("max_pool", 3, 2, 0)
    assert built("pool", 12, kernel=5, stride=1).ops[2].padding == 2
    assert [built("upsample", 12, strides=(8,), **options).ops[2].scale for options in ({}, {"scale": 4})] == [2, 4]


DOWNSAMPLED: dict[str, list[Row]] = {
    "strided": [("conv", ("x",), 20, 3, 2)],
    "max_pool": [("max_pool", ("x",), 12, 2, 2), ("conv", ("max_pool",), 20, 1, 1)],
    "aconv": [("avg_pool", ("x",), 12, 2, 1), ("conv", ("avg_pool",), 20, 3, 2)],
    "adown": [
        ("avg_pool", ("x",), 12, 2, 1),
        ("split", ("avg_pool",), 6, 1, 1),
        ("split1", ("avg_pool",), 6, 1, 1),
        ("conv", ("split",), 10, 3, 2),
        ("max_pool", ("split1",), 6, 3, 2),
        ("conv1", ("max_pool",), 10, 1, 1),
        ("concat", ("conv", "conv1"), 20, 1, 1),
    ],
    "two_way_down": [
        ("max_pool", ("x",), 12, 2, 2),
        ("conv", ("max_pool",), 10, 1, 1),
        ("conv1", ("x",), 10, 1, 1),
        ("conv2", ("conv1",), 10, 3, 2),
        ("concat", ("conv2", "conv"), 20, 1, 1),
    ],
}


@pytest.mark.parametrize("name", DOWNSAMPLED)
def test_downsampling_from_12_to_20_channels(name: str) -> None:
    graph = built(name, 12, width=20)
    assert rows(graph) == DOWNSAMPLED[name]
    assert graph.outputs[0].stride == 2
    assert [op.padding for op in graph.ops if op.kind == "max_pool"] == {"max_pool": [0], "two_way_down": [0]}.get(
        name, [1] if name == "adown" else []
    )


def test_an_odd_width_is_divided_so_that_nothing_is_lost() -> None:
    for name in ("adown", "two_way_down"):
        strided, pooled = (7, 6)
        graph = built(name, 12, width=13)
        concat = next(op for op in graph.ops if op.kind == "concat")
        assert [graph.ops[i].channels for i in concat.inputs] == [strided, pooled]


def test_a_genotype_s_downsampling_is_a_piece_too() -> None:
    assert all(PIECES[name] is function for name, function in DOWNSAMPLING.items())
    assert set(DOWNSAMPLING) == {"strided", "max_pool", "aconv", "adown"}


def test_sppf_pools_three_times_in_a_row() -> None:
    assert rows(built("sppf", 24, width=20, hidden=12)) == [
        ("enter", ("x",), 12, 1, 1),
        ("max_pool", ("enter",), 12, 5, 1),
        ("max_pool1", ("max_pool",), 12, 5, 1),
        ("max_pool2", ("max_pool1",), 12, 5, 1),
        ("concat", ("enter", "max_pool", "max_pool1", "max_pool2"), 48, 1, 1),
        ("transition", ("concat",), 20, 1, 1),
    ]


def test_spp_pools_side_by_side() -> None:
    assert rows(built("spp", 24, width=20, hidden=12)) == [
        ("enter", ("x",), 12, 1, 1),
        ("max_pool", ("enter",), 12, 5, 1),
        ("max_pool1", ("enter",), 12, 9, 1),
        ("max_pool2", ("enter",), 12, 13, 1),
        ("concat", ("enter", "max_pool", "max_pool1", "max_pool2"), 48, 1, 1),
        ("transition", ("concat",), 20, 1, 1),
    ]


def test_csp_spp() -> None:
    assert rows(built("csp_spp", 24, width=16)) == [
        ("enter", ("x",), 16, 1, 1),
        ("conv", ("enter",), 16, 3, 1),
        ("conv1", ("conv",), 16, 1, 1),
        ("max_pool", ("conv1",), 16, 5, 1),
        ("max_pool1", ("conv1",), 16, 9, 1),
        ("max_pool2", ("conv1",), 16, 13, 1),
        ("concat", ("conv1", "max_pool", "max_pool1", "max_pool2"), 64, 1, 1),
        ("conv2", ("concat",), 16, 1, 1),
        ("conv3", ("conv2",), 16, 3, 1),
        ("cross", ("x",), 16, 1, 1),
        ("concat1", ("conv3", "cross"), 32, 1, 1),
        ("transition", ("concat1",), 16, 1, 1),
    ]


def test_csp_shared() -> None:
    assert rows(built("csp_shared", 24, width=16, depth=2)) == [
        ("enter", ("x",), 16, 1, 1),
        ("conv", ("enter",), 16, 1, 1),
        ("conv1", ("conv",), 16, 3, 1),
        ("conv2", ("conv1",), 16, 1, 1),
        ("conv3", ("conv2",), 16, 3, 1),
        ("cross", ("enter",), 16, 1, 1),
        ("concat", ("conv3", "cross"), 32, 1, 1),
        ("transition", ("concat",), 16, 1, 1),
    ]


def test_an_addition_of_unequal_widths_keeps_what_both_have() -> None:
    masked = [op for op in built("add", 20, 12, 28).ops if op.kind == "masked_add"]
    assert [(op.channels, op.kept) for op in masked] == [(20, 12), (20, 20)]


def test_an_addition_masks_a_share_of_every_later_input() -> None:
    """A quarter of 20 in steps of 4 is 4, of 12 is 4, of 40 is 12."""
    masked = [op for op in built("add", 20, 20, 12, 40, mask_ratio=0.25).ops if op.kind == "masked_add"]
    assert [op.kept for op in masked] == [16, 8, 20]


@pytest.mark.parametrize("mask_ratio", [-0.1, 1.0])
def test_a_share_that_masks_everything_is_an_error(mask_ratio: float) -> None:
    with pytest.raises(GraphError, match=r"add: mask_ratio must lie in \[0, 1\), got "):
        built("add", 20, 20, mask_ratio=mask_ratio)


def test_vov_elan_aggregates_the_input_and_the_last_layer_of_each_module() -> None:
    assert rows(built("vov_elan", 24, width=40, hidden=12, depth=2, repeats=2)) == [
        ("module0.conv", ("x",), 12, 3, 1),
        ("module0.conv1", ("module0.conv",), 12, 3, 1),
        ("module1.conv", ("module0.conv1",), 12, 3, 1),
        ("module1.conv1", ("module1.conv",), 12, 3, 1),
        ("concat", ("x", "module0.conv1", "module1.conv1"), 48, 1, 1),
        ("transition", ("concat",), 40, 1, 1),
    ]


def test_vov_elan_with_a_crossing_path() -> None:
    """A quarter of 24 in steps of 4 is 8 (6 is halfway, and rounds up); a quarter of 40 is 12."""
    graph = built("vov_elan", 24, width=40, hidden=12, depth=1, repeats=1, split_ratio=0.25)
    assert [(row[1], row[2]) for row in rows(graph)] == [
        (("x",), 8),
        (("x",), 16),
        (("split",), 12),
        (("split", "module0.conv"), 20),
        (("concat",), 12),
        (("transition", "split1"), 28),
        (("concat1",), 40),
    ]


def test_bottlenecks_have_their_stride_in_the_first_unit() -> None:
    graph = built("bottlenecks", 24, width=40, hidden=12, depth=3, stride=2, groups=4)
    layers = [op for op in graph.ops[2:] if op.weighted and op.kernel == 3]
    assert [(op.stride, op.groups, op.channels) for op in layers] == [(2, 4, 12), (1, 4, 12), (1, 4, 12)]
    sums = [(op.kind, op.channels) for op in graph.ops if op.kind in ("add", "masked_add")]
    assert sums == [("masked_add", 40), ("add", 40), ("add", 40)]


def test_a_route_divides_its_layer_in_order() -> None:
    ops = built("route", 24, widths=[8, 4, 16]).ops[2:]
    assert (ops[0].channels, ops[0].norm, ops[0].bias, ops[0].act) == (28, False, True, "")
    assert [(op.start, op.channels) for op in ops[1:]] == [(0, 8), (8, 4), (12, 16)]


def test_a_fusion_upsamples_to_the_last_input() -> None:
    graph = built("fuse", 12, 12, 12, strides=(4, 16, 4))
    assert [(op.kind, op.scale) for op in graph.ops[4:]] == [("add", 1), ("upsample", 4), ("add", 1)]
    assert graph.outputs[0].stride == 4


@pytest.mark.parametrize("strides", [(2, 4), (6, 4)])
def test_a_fusion_cannot_upsample_a_finer_level(strides: tuple[int, int]) -> None:
    with pytest.raises(GraphError, match=f"fuse: cannot upsample a level of stride {strides[0]} to stride 4"):
        built("fuse", 12, 12, strides=strides)


def test_a_decoupled_head() -> None:
    options = {"classes": 5, "box_width": 16, "class_width": 24, "depth": 2, "reg_max": 8, "box_groups": 4}
    graph = built("detect", 12, 20, strides=(8, 16), weight=0.25, **options)
    layers = {op.name: op for op in graph.ops}
    for stride in (8, 16):
        head = [op for name, op in layers.items() if name.startswith(f"head{stride}.")]
        assert [(op.channels, op.kernel, op.groups) for op in head] == [
            (16, 3, 1),
            (16, 3, 4),
            (24, 3, 1),
            (24, 3, 1),
            (32, 1, 4),
            (5, 1, 1),
            (37, 1, 1),
        ]
        assert [(op.act, op.norm, op.bias) for op in head[4:6]] == [("", False, True)] * 2
    assert [(out.stride, out.branch, out.weight) for out in graph.outputs] == [
        (8, Branch.MAIN, 0.25),
        (16, Branch.MAIN, 0.25),
    ]


def test_a_decoupled_head_of_the_auxiliary_branch() -> None:
    b = GraphBuilder(act="silu")
    PIECES["detect"](b, [b.image], classes=5, box_width=16, class_width=24)
    PIECES["detect"](b, [b.image], classes=5, box_width=16, class_width=24, branch="auxiliary", weight=0.25)
    assert [(out.branch, out.weight) for out in b.build().outputs] == [(Branch.MAIN, 1), (Branch.AUXILIARY, 0.25)]


def test_a_decoupled_head_by_default() -> None:
    graph = built("detect", 12, classes=3, box_width=16, class_width=24)
    assert graph.outputs[0].branch is Branch.MAIN and graph.outputs[0].weight == 1
    assert [(op.channels, op.groups) for op in graph.ops[2:]] == [(16, 1), (16, 1), (24, 1), (24, 1), (64, 1), (3, 1), (67, 1)]


def test_anchors_predict_boxes_objectness_classes_and_masks() -> None:
    graph = built("anchors", 12, 20, strides=(8, 16), classes=7, masks=10, each=2)
    assert [(op.channels, op.act, op.norm, op.bias) for op in graph.ops[3:]] == [(2 * 22, "", False, True)] * 2
    assert [out.stride for out in graph.outputs] == [8, 16]
    assert built("anchors", 12, classes=7).ops[-1].channels == 3 * 12


def test_prototypes_have_twice_the_resolution() -> None:
    graph = built("prototypes", 12, strides=(8,), width=20, masks=6)
    assert [(row[0], row[2], row[3]) for row in rows(graph)] == [
        ("conv", 20, 3),
        ("upsample", 20, 1),
        ("conv1", 20, 3),
        ("prediction", 6, 1),
    ]
    assert graph.outputs[0].stride == 4


def test_a_classifier_averages_first() -> None:
    graph = built("classifier", 12, classes=9)
    assert [(op.kind, op.channels) for op in graph.ops[2:]] == [("global_avg_pool", 12), ("linear", 9)]
    assert graph.outputs[0].stride == 1


def test_heads_are_the_pieces_with_a_loss() -> None:
    assert set(HEADS) <= set(PIECES)
    assert pieces.HEADS == ("detect", "anchors", "prototypes", "classifier")
