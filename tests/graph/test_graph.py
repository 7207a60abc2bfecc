"""The graph: what its builder refuses, what its hash distinguishes, what is left of it at inference."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gpnas.errors import GraphError
from gpnas.graph.graph import Branch, Graph, GraphBuilder, Op, output_size, parameters


def three_levels() -> Graph:
    """Main and auxiliary heads on one stem, and a layer that nothing reads."""
    b = GraphBuilder(3)
    with b.scope("stem"):
        x = b.conv(b.image, 8, 3, 2)
    b.conv(x, 8, name="unread")
    auxiliary = b.conv(x, 8, name="auxiliary")
    with b.scope("head"):
        b.output(b.conv(auxiliary, 2, name="early"), "early", stride=2, branch=Branch.AUXILIARY, weight=0.25)
        b.output(b.conv(x, 2, name="late"), "late", stride=2)
    return b.build()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda b: b.conv(b.image, 0), "conv: a convolution needs at least 1 output channel, got 0"),
        (lambda b: b.conv(b.image, 4, groups=2), "groups must divide 3 input and 4 output channels, got 2"),
        (lambda b: b.conv(b.image, 4, groups=3), "groups must divide 3 input and 4 output channels, got 3"),
        (lambda b: b.conv(b.image, 3, groups=0), "groups must divide 3 input and 3 output channels, got 0"),
        (lambda b: b.conv(b.image, 4, act="gelu"), "activation must be one of silu, relu, leaky_relu, got 'gelu'"),
        (lambda b: b.act(b.image, ""), "act: activation must be one of silu, relu, leaky_relu, got ''"),
        (lambda b: b.conv(b.image, 4, 1, rep=True), "a RepConv is a normalised 3x3 convolution, got kernel 1, norm True"),
        (lambda b: b.conv(b.image, 4, 3, rep=True, norm=False), "got kernel 3, norm False"),
        (lambda b: b.slice(b.image, 1, 4), r"cannot take channels \[1, 4\) of 3"),
        (lambda b: b.slice(b.image, 2, 2), r"cannot take channels \[2, 2\) of 3"),
        (lambda b: b.slice(b.image, -1, 2), r"cannot take channels \[-1, 2\) of 3"),
        (lambda b: b.add(b.image, b.conv(b.image, 4)), "cannot add 3 and 4 channels; use masked_add"),
        (lambda b: b.masked_add(b.image, b.conv(b.image, 2), 3), r"kept must lie in \[0, 2\], got 3"),
        (lambda b: b.masked_add(b.image, b.image, -1), r"kept must lie in \[0, 3\], got -1"),
        (lambda b: b.conv_transpose(b.image, 0), "conv_transpose: channels and kernel must be at least 1, got 0 and 2"),
        (lambda b: b.build(), "at least one main output"),
    ],
)
def test_builder_names_the_operation_and_the_numbers_that_do_not_fit(
    wrong: Callable[[GraphBuilder], object], message: str
) -> None:
    with pytest.raises(GraphError, match=message):
        wrong(GraphBuilder(3))


def test_a_transposed_convolution_halves_the_stride() -> None:
    b = GraphBuilder(3)
    x = b.conv(b.conv(b.image, 4, 3, 2), 4, 3, 3)
    y = b.conv_transpose(x, 5)
    assert (b.stride(x), b.stride(y), b.stride(b.conv_transpose(y, 5, 3))) == (6, 3, 1)


def test_an_error_inside_a_scope_names_the_scope() -> None:
    b = GraphBuilder(3)
    with b.scope("backbone"), b.scope("stage0"), pytest.raises(GraphError, match=r"^backbone\.stage0\.enter: "):
        b.conv(b.image, 0, name="enter")


def test_auxiliary_outputs_alone_are_no_network() -> None:
    b = GraphBuilder(3)
    b.output(b.image, "early", stride=1, branch=Branch.AUXILIARY)
    with pytest.raises(GraphError, match="at least one main output"):
        b.build()


def test_operations_that_change_nothing_are_not_appended() -> None:
    b = GraphBuilder(4)
    x, y = b.conv(b.image, 4), b.conv(b.image, 4)
    assert b.concat([x]) == x
    assert b.slice(x, 0, 4) == x
    assert b.masked_add(x, y, 0) == x
    b.output(b.masked_add(x, y, 4), "p", stride=1)
    assert [op.kind for op in b.build().ops] == ["image", "conv", "conv", "add"]


def test_a_split_is_two_slices_that_make_up_the_whole() -> None:
    b = GraphBuilder(8)
    first, second = b.split(b.image, 3)
    b.output(b.concat([first, second]), "p", stride=1)
    ops = b.build().ops
    assert [(ops[i].start, ops[i].channels) for i in (first, second)] == [(0, 3), (3, 5)]
    assert ops[-1].channels == 8


def test_an_asymmetric_masked_add_has_the_channels_of_its_block() -> None:
    b = GraphBuilder(3)
    wide, narrow = b.conv(b.image, 6), b.conv(b.image, 4)
    assert b.channels(b.masked_add(wide, narrow, 4)) == 6
    assert b.channels(b.masked_add(narrow, wide, 4)) == 4


def test_names_are_prefixed_by_their_scopes_and_numbered_when_they_repeat() -> None:
    b = GraphBuilder(3)
    with b.scope("backbone"):
        with b.scope("stage0"):
            b.conv(b.conv(b.image, 4), 4)
        x = b.conv(b.image, 4)
    b.output(x, "p", stride=1)
    names = [op.name for op in b.build().ops[1:]]
    assert names == ["backbone.stage0.conv", "backbone.stage0.conv1", "backbone.conv"]


def test_names_are_unique() -> None:
    b = GraphBuilder(3)
    b.output(b.conv(b.conv(b.conv(b.image, 4, name="conv1"), 4), 4), "p", stride=1)
    names = [op.name for op in b.build().ops]
    assert len(set(names)) == len(names)


def test_hash_ignores_names_and_nothing_else() -> None:
    def network(
        act: str = "silu", name: str = "a", stride: int = 2, weight: float = 1.0, out_stride: int = 2, rep: bool = False
    ) -> Graph:
        b = GraphBuilder(3, act=act)
        x = b.conv(b.image, 4, 3, stride, name=name, rep=rep)
        b.output(b.conv(x, 4), name, stride=out_stride)
        b.output(x, "early", stride=out_stride, branch=Branch.AUXILIARY, weight=weight)
        return b.build()

    same = network()
    assert network(name="b").hash == same.hash
    assert len(same.hash) == 16
    int(same.hash, 16)
    others = [network("relu"), network(stride=1), network(weight=0.5), network(out_stride=4), network(rep=True)]
    assert len({graph.hash for graph in (same, *others)}) == 6


def test_reaching_is_per_branch() -> None:
    graph = three_levels()
    by_name = {op.name: i for i, op in enumerate(graph.ops)}
    anything, main, auxiliary = graph.reaching(), graph.reaching(Branch.MAIN), graph.reaching(Branch.AUXILIARY)
    stem, unread, early = by_name["stem.conv"], by_name["unread"], by_name["auxiliary"]
    assert (anything[stem], main[stem], auxiliary[stem]) == (True, True, True)
    assert (anything[unread], main[unread], auxiliary[unread]) == (False, False, False)
    assert (anything[early], main[early], auxiliary[early]) == (True, False, True)


def test_inference_keeps_what_the_main_outputs_need() -> None:
    graph = three_levels().inference()
    assert [op.name for op in graph.ops] == ["image", "stem.conv", "head.late"]
    assert [op.inputs for op in graph.ops] == [(), (0,), (1,)]
    assert [(out.op, out.name, out.branch) for out in graph.outputs] == [(2, "head.late", Branch.MAIN)]
    assert graph.inference() is graph


def test_inference_drops_unread_operations_of_a_graph_without_auxiliary_outputs() -> None:
    b = GraphBuilder(3)
    x = b.conv(b.image, 4, name="read")
    b.conv(x, 4, name="unread")
    b.output(x, "p", stride=1)
    assert [op.name for op in b.build().inference().ops] == ["image", "read"]


@pytest.mark.parametrize(
    ("op", "size"),
    [
        (Op("conv", (0,), 1, "", kernel=3, stride=2, padding=1), (4, 5)),
        (Op("conv", (0,), 1, "", kernel=1), (7, 10)),
        (Op("conv", (0,), 1, "", kernel=6, stride=2, padding=2), (3, 5)),
        (Op("max_pool", (0,), 1, "", kernel=2, stride=2), (3, 5)),
        (Op("max_pool", (0,), 1, "", kernel=5, stride=1, padding=2), (7, 10)),
        (Op("avg_pool", (0,), 1, "", kernel=2, stride=1), (6, 9)),
        (Op("global_avg_pool", (0,), 1, ""), (1, 1)),
        (Op("upsample", (0,), 1, "", scale=2), (14, 20)),
        (Op("concat", (0,), 1, ""), (7, 10)),
    ],
)
def test_output_size_of_a_7x10_image(op: Op, size: tuple[int, int]) -> None:
    assert output_size(op, 7, 10) == size


@pytest.mark.parametrize(
    ("op", "fused", "trained"),
    [
        # 3x3, 4 -> 6 channels: 216 weights; a normalisation trains 2 numbers a channel and folds to 1.
        (Op("conv", (0,), 6, "", kernel=3, norm=True), 216 + 6, 216 + 12),
        (Op("conv", (0,), 6, "", kernel=3, bias=True), 216 + 6, 216 + 6),
        (Op("conv", (0,), 6, "", kernel=3), 216, 216),
        (Op("conv", (0,), 6, "", kernel=3, groups=2, norm=True), 108 + 6, 108 + 12),
        # RepConv: beside it 1x1 (24 weights) with its own normalisation.
        (Op("conv", (0,), 6, "", kernel=3, norm=True, rep=True), 216 + 6, 216 + 12 + 24 + 12),
        (Op("linear", (0,), 6, "", bias=True), 30, 30),
        (Op("linear", (0,), 6, ""), 24, 24),
    ],
)
def test_parameters_of_a_layer_on_4_channels(op: Op, fused: int, trained: int) -> None:
    assert (parameters(op, 4), parameters(op, 4, fused=False)) == (fused, trained)
