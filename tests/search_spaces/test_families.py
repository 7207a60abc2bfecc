"""Families of stages and units: their layers and connections, worked out by hand."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from gpnas.errors import GraphError
from gpnas.graph.graph import Graph, GraphBuilder
from search_spaces.families import FAMILIES, UNITS, bottleneck, build_stage, channels
from search_spaces.genotype import FAMILY_FIELDS, Family, Stage, Unit

IN, OUT = 20, 32
"""Channels of the stage's input and of its output."""

Row = tuple[str, tuple[str, ...], int, int]
"""(name, inputs, channels, kernel)"""


def stage(**choices: Any) -> Graph:
    b = GraphBuilder(act="silu")
    x = b.conv(b.image, IN, name="x")
    y = build_stage(b, x, Stage(width=OUT, **choices))
    assert b.channels(y) == OUT
    b.output(y, "y", stride=1)
    return b.build()


def rows(graph: Graph) -> list[Row]:
    """What follows the input of the stage."""
    ops = graph.ops
    return [(op.name, tuple(ops[i].name for i in op.inputs), op.channels, op.kernel) for op in ops[2:]]


@pytest.mark.parametrize(
    ("ratio", "width", "expected"),
    [(0.5, 32, 16), (0.25, 20, 4), (0.3, 20, 8), (0.75, 20, 16), (0.1, 20, 4), (1.0, 22, 22), (0.5, 3, 3), (0.28, 50, 16)],
)
def test_a_share_is_the_nearest_multiple_of_4_and_at_most_the_width(ratio: float, width: int, expected: int) -> None:
    assert channels(ratio, width) == expected


def test_every_family_and_unit_of_a_genotype_is_built() -> None:
    assert set(FAMILIES) == set(FAMILY_FIELDS) == set(get_args(Family))
    assert set(UNITS) == set(get_args(Unit))


def test_plain() -> None:
    assert rows(stage(family="plain", depth=2)) == [("conv", ("x",), 32, 3), ("conv1", ("conv",), 32, 3)]


def test_residual() -> None:
    assert rows(stage(family="residual", depth=1, hidden_ratio=0.75)) == [
        ("entry", ("x",), 32, 1),
        ("conv", ("entry",), 24, 1),
        ("conv1", ("conv",), 32, 3),
        ("add", ("conv1", "entry"), 32, 1),
    ]


def test_masked_residual_keeps_the_share_that_is_not_masked() -> None:
    graph = stage(family="masked_residual", depth=2, hidden_ratio=0.25, mask_ratio=0.25)
    masked = [op for op in graph.ops if op.kind == "masked_add"]
    assert [(op.kept, [graph.ops[i].name for i in op.inputs]) for op in masked] == [
        (24, ["conv1", "entry"]),
        (24, ["conv3", "masked_add"]),
    ]


def test_a_stage_of_the_input_s_width_has_no_entry_layer() -> None:
    b = GraphBuilder(act="silu")
    x = b.conv(b.image, OUT, name="x")
    build_stage(b, x, Stage(family="residual", width=OUT, depth=1, hidden_ratio=0.5))
    b.output(b.conv(x, 1), "y", stride=1)
    assert "entry" not in [op.name for op in b.build().ops]


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [
        ("csp", ["enter 8", "conv 4", "conv1 8", "add 8", "transition 8", "cross 8", "concat 16", "transition1 32"]),
        ("first", ["enter 8", "conv 4", "conv1 8", "add 8", "cross 8", "concat 16", "transition 32"]),
        ("last", ["enter 8", "conv 4", "conv1 8", "add 8", "transition 8", "cross 24", "concat 32"]),
        ("none", ["enter 8", "conv 4", "conv1 8", "add 8", "cross 24", "concat 32"]),
    ],
)
def test_csp_and_its_fusions(fusion: str, expected: list[str]) -> None:
    """Figure 5; a quarter of 32 channels enters, and half of these are inside a unit."""
    graph = stage(family="csp", depth=1, unit="residual", split_ratio=0.25, hidden_ratio=0.5, fusion=fusion)
    assert [f"{name} {width}" for name, _, width, _ in rows(graph)] == expected
    inputs = {name: read for name, read, _, _ in rows(graph)}
    assert inputs["enter"] == inputs["cross"] == ("x",)
    assert inputs["concat"] == ("transition" if fusion in ("csp", "last") else "add", "cross")
    assert inputs.get("transition", ("concat",)) == ("add" if fusion in ("csp", "last") else "concat",)
    assert inputs.get("transition1", ("concat",)) == ("concat",)


def test_csp_with_nothing_left_to_cross_keeps_four_channels_for_it() -> None:
    graph = stage(family="csp", depth=1, unit="plain", split_ratio=1.0, hidden_ratio=1.0, fusion="none")
    assert [(name, width) for name, _, width, _ in rows(graph) if name in ("enter", "cross")] == [("enter", 28), ("cross", 4)]


def test_csp_of_four_channels_cannot_cross() -> None:
    choices: dict[str, Any] = {"depth": 1, "unit": "plain", "split_ratio": 0.5, "hidden_ratio": 1.0, "fusion": "last"}
    b = GraphBuilder(act="silu")
    with pytest.raises(GraphError, match="enter"):
        build_stage(b, b.image, Stage(family="csp", width=4, **choices))


def test_elan_aggregates_both_halves_and_every_block() -> None:
    """Three quarters of 32 are 24, two halves of 12; blocks of half of 24."""
    assert rows(stage(family="elan", depth=2, repeats=2, split_ratio=0.75, hidden_ratio=0.5)) == [
        ("enter", ("x",), 24, 1),
        ("split", ("enter",), 12, 1),
        ("split1", ("enter",), 12, 1),
        ("block0.conv", ("split1",), 12, 3),
        ("block0.conv1", ("block0.conv",), 12, 3),
        ("block1.conv", ("block0.conv1",), 12, 3),
        ("block1.conv1", ("block1.conv",), 12, 3),
        ("concat", ("split", "split1", "block0.conv1", "block1.conv1"), 48, 1),
        ("transition", ("concat",), 32, 1),
    ]


def test_gelan_has_a_csp_and_a_3x3_layer_in_each_block() -> None:
    """The whole width enters, two halves of 16; blocks of half of 32, and a CSP of half of that."""
    graph = stage(family="gelan", depth=1, repeats=1, unit="rep_residual", split_ratio=1.0, hidden_ratio=0.5)
    assert rows(graph) == [
        ("enter", ("x",), 32, 1),
        ("split", ("enter",), 16, 1),
        ("split1", ("enter",), 16, 1),
        ("block0.enter", ("split1",), 8, 1),
        ("block0.conv", ("block0.enter",), 8, 3),
        ("block0.conv1", ("block0.conv",), 8, 3),
        ("block0.add", ("block0.conv1", "block0.enter"), 8, 1),
        ("block0.cross", ("split1",), 8, 1),
        ("block0.concat", ("block0.add", "block0.cross"), 16, 1),
        ("block0.transition", ("block0.concat",), 16, 1),
        ("block0.conv2", ("block0.transition",), 16, 3),
        ("concat", ("split", "split1", "block0.conv2"), 48, 1),
        ("transition", ("concat",), 32, 1),
    ]
    assert [op.name for op in graph.ops if op.rep] == ["block0.conv"]


def test_osa_aggregates_the_input_and_every_layer_of_a_module() -> None:
    assert rows(stage(family="osa", depth=2, repeats=2, hidden_ratio=0.25)) == [
        ("module0.conv", ("x",), 8, 3),
        ("module0.conv1", ("module0.conv",), 8, 3),
        ("module0.concat", ("x", "module0.conv", "module0.conv1"), IN + 16, 1),
        ("module0.transition", ("module0.concat",), 32, 1),
        ("module1.conv", ("module0.transition",), 8, 3),
        ("module1.conv1", ("module1.conv",), 8, 3),
        ("module1.concat", ("module0.transition", "module1.conv", "module1.conv1"), 32 + 16, 1),
        ("module1.transition", ("module1.concat",), 32, 1),
    ]


def test_dense_reads_everything_before_and_grows_by_half_the_hidden_ratio() -> None:
    assert rows(stage(family="dense", depth=2, hidden_ratio=0.75)) == [
        ("conv", ("x",), 24, 1),
        ("conv1", ("conv",), 12, 3),
        ("concat", ("x", "conv1"), IN + 12, 1),
        ("conv2", ("concat",), 24, 1),
        ("conv3", ("conv2",), 12, 3),
        ("concat1", ("x", "conv1", "conv3"), IN + 24, 1),
        ("transition", ("concat1",), 32, 1),
    ]


UNIT_ROWS: dict[str, list[Row]] = {
    "plain": [("conv", ("enter",), 8, 1), ("conv1", ("conv",), 16, 3)],
    "residual": [("conv", ("enter",), 8, 1), ("conv1", ("conv",), 16, 3), ("add", ("conv1", "enter"), 16, 1)],
    "masked_residual": [("conv", ("enter",), 8, 1), ("conv1", ("conv",), 16, 3), ("masked_add", ("conv1", "enter"), 16, 1)],
    "rep_residual": [("conv", ("enter",), 8, 3), ("conv1", ("conv",), 16, 3), ("add", ("conv1", "enter"), 16, 1)],
    "bottleneck": [
        ("conv", ("enter",), 8, 1),
        ("conv1", ("conv",), 8, 3),
        ("conv2", ("conv1",), 16, 1),
        ("masked_add", ("conv2", "enter"), 16, 1),
        ("act", ("masked_add",), 16, 1),
    ],
    "dense": [
        ("conv", ("enter",), 8, 1),
        ("conv1", ("conv",), 4, 3),
        ("concat", ("enter", "conv1"), 20, 1),
        ("conv2", ("concat",), 16, 1),
    ],
    "residual_stop_block": [
        ("stop_gradient", ("enter",), 16, 1),
        ("conv", ("stop_gradient",), 8, 1),
        ("conv1", ("conv",), 16, 3),
        ("add", ("conv1", "enter"), 16, 1),
    ],
    "residual_stop_identity": [
        ("conv", ("enter",), 8, 1),
        ("conv1", ("conv",), 16, 3),
        ("stop_gradient", ("enter",), 16, 1),
        ("add", ("conv1", "stop_gradient"), 16, 1),
    ],
}
UNIT_ROWS["resnext"] = UNIT_ROWS["bottleneck"]


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_of_16_channels_with_half_of_them_inside(unit: str) -> None:
    options: dict[str, dict[str, Any]] = {"masked_residual": {"mask_ratio": 0.25}, "resnext": {"groups": 4}}
    extra = options.get(unit, {})
    graph = stage(family="csp", depth=1, unit=unit, split_ratio=0.5, hidden_ratio=0.5, fusion="first", **extra)
    ours = rows(graph)
    assert ours[1 : [name for name, *_ in ours].index("cross")] == UNIT_ROWS[unit]
    layers = {op.name: op for op in graph.ops}
    assert [name for name, op in layers.items() if op.groups > 1] == (["conv1"] if unit == "resnext" else [])
    assert layers["conv1"].groups == (4 if unit == "resnext" else 1)
    assert [name for name, op in layers.items() if op.rep] == (["conv"] if unit == "rep_residual" else [])
    if unit == "masked_residual":
        assert layers["masked_add"].kept == 12
    if unit in ("bottleneck", "resnext"):
        assert (layers["masked_add"].kind, layers["conv2"].act, layers["act"].act) == ("add", "", "silu")


def test_a_bottleneck_of_stride_2_takes_every_second_pixel_of_the_channels_that_both_sides_have() -> None:
    b = GraphBuilder(act="relu")
    x = b.conv(b.image, 24, name="x")
    y = bottleneck(b, x, width=40, hidden=12, groups=3, stride=2)
    b.output(y, "y", stride=2)
    ops = {op.name: op for op in b.build().ops}
    assert (ops["conv1"].stride, ops["conv1"].groups, ops["conv1"].kernel) == (2, 3, 3)
    assert (ops["sampled"].kind, ops["sampled"].kernel, ops["sampled"].stride, ops["sampled"].padding) == ("max_pool", 1, 2, 0)
    assert ops["masked_add"].kept == 24
    narrow = GraphBuilder(act="relu")
    z = bottleneck(narrow, narrow.conv(narrow.image, 24), width=16, hidden=12)
    narrow.output(z, "z", stride=1)
    assert next(op.kept for op in narrow.build().ops if op.kind == "masked_add") == 16
