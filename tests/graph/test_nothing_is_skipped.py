"""Every parameter of a traced module is counted by an operation, named as left out, or named in an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from gpnas.errors import TraceError
from gpnas.graph.cost import cost
from gpnas.graph.trace import Traced, trace_module
from gpnas.paths.analysis import layer_rows
from tests.graph.traced_models import Joined, conv, small

Forward = Callable[[Any, Tensor], object]

FEATURES = torch.zeros(2, 3)


def learned(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.ones(*shape))


def middle(forward: Callable[[Any, Tensor], Tensor], **layers: Any) -> Joined:
    """stem (3 -> 8 channels), `forward`, mix (8 -> 2 channels): 32 and 18 parameters."""
    return Joined(lambda m, x: m.mix(forward(m, m.stem(x))), stem=conv(3, 8), mix=conv(8, 2), **layers)


def ending(forward: Forward, **layers: Any) -> Joined:
    """stem (3 -> 8 channels), `forward`: 32 parameters and those of `layers`."""
    return Joined(lambda m, x: forward(m, m.stem(x)), stem=conv(3, 8), **layers)


def in_training(traced: Traced, height: int = 6, width: int = 10) -> int:
    """Parameters of the training form."""
    return cost(traced.graph, height, width, fused=False).params


def tokens(y: Tensor) -> Tensor:
    """(batch, channels, height, width) -> (batch, pixels, channels)"""
    return y.flatten(2).transpose(1, 2)


def pooled(y: Tensor) -> Tensor:
    return y.mean((2, 3))


MATRICES: dict[str, tuple[Joined, Tensor, int]] = {
    "x @ w": (ending(lambda m, y: pooled(y) @ m.w, w=learned(8, 5)), small(), 8 * 5),
    "x @ w on the image": (Joined(lambda m, x: x @ m.w, w=learned(3, 5)), FEATURES, 3 * 5),
    "x @ w.t()": (Joined(lambda m, x: x @ m.w.t(), w=learned(5, 3)), FEATURES, 3 * 5),
    "torch.mm": (Joined(lambda m, x: torch.mm(x, m.w), w=learned(3, 5)), FEATURES, 3 * 5),
    "torch.addmm": (Joined(lambda m, x: torch.addmm(m.b, x, m.w), w=learned(3, 5), b=learned(5)), FEATURES, 3 * 5),
    "F.linear": (Joined(lambda m, x: F.linear(x, m.w), w=learned(5, 3)), FEATURES, 3 * 5),
    "bc,co": (Joined(lambda m, x: torch.einsum("bc,co", x, m.w), w=learned(3, 5)), FEATURES, 3 * 5),
    "co,bc->bo": (Joined(lambda m, x: torch.einsum("co,bc->bo", m.w, x), w=learned(3, 5)), FEATURES, 3 * 5),
    "oc,bchw->bohw": (ending(lambda m, y: torch.einsum("oc,bchw->bohw", m.w, y), w=learned(5, 8)), small(), 60 * 8 * 5),
    "oc, bchw -> bhwo": (ending(lambda m, y: torch.einsum("oc, bchw -> bhwo", m.w, y), w=learned(5, 8)), small(), 60 * 8 * 5),
    "tokens @ w": (ending(lambda m, y: tokens(y) @ m.w, w=learned(8, 5)), small(), 60 * 8 * 5),
    "a product along the width": (ending(lambda m, y: y @ m.w, w=learned(10, 5)), small(), 6 * 8 * 10 * 5),
    "bchw,wo->bcho": (ending(lambda m, y: torch.einsum("bchw,wo->bcho", y, m.w), w=learned(10, 5)), small(), 48 * 10 * 5),
    "w @ pixels": (ending(lambda m, y: m.w @ y.flatten(2), w=learned(5, 8)), small(), 60 * 8 * 5),
    "a flattened map @ w": (ending(lambda m, y: y.flatten(1) @ m.w, w=learned(480, 5)), small(), 480 * 5),
}


@pytest.mark.parametrize(("model", "image", "macs"), MATRICES.values(), ids=MATRICES)
def test_a_product_with_a_learned_matrix_is_a_layer(model: Joined, image: Tensor, macs: int) -> None:
    """macs: of the product alone; the stem has 60 * 3 * 8."""
    traced = trace_module(model, (image,))
    size = (6, 10) if image.dim() > 2 else (1, 1)
    last = layer_rows(traced.graph)[-1]
    assert (last["loss"], last["timestamps"], last["channels"][1]) == ("main", [1], 5)
    assert cost(traced.graph, *size).macs == macs + (60 * 3 * 8 if hasattr(model, "stem") else 0)
    assert cost(traced.graph, *size).params == sum(p.numel() for p in model.parameters())
    assert traced.left_out == ()


def test_a_product_with_a_learned_matrix_may_stand_before_a_layer() -> None:
    traced = trace_module(middle(lambda m, y: torch.einsum("bchw,co->bohw", y, m.w), w=learned(8, 8)), (small(),))
    assert [row["timestamps"] for row in layer_rows(traced.graph)] == [[3], [2], [1]]
    first = Joined(lambda m, x: m.last(torch.relu(x @ m.w + m.b)), w=learned(3, 5), b=learned(5), last=nn.Linear(5, 2))
    traced = trace_module(first, (FEATURES,))
    assert [op.kind for op in traced.graph.ops] == ["image", "linear", "gain", "act", "linear"]
    assert in_training(traced, 1, 1) == 15 + 5 + (5 * 2 + 2)


COUNTED: dict[str, tuple[Joined, int]] = {
    "a layer scale": (middle(lambda m, y: m.gamma * y, gamma=learned(8, 1, 1)), 8),
    "a learned position": (middle(lambda m, y: y + m.p, p=learned(1, 8, 6, 10)), 480),
    "a position through a layer": (middle(lambda m, y: y + m.c(m.p), p=learned(1, 8, 1, 1), c=conv(8, 8)), 8 + 72),
    "an embedding": (middle(lambda m, y: y + m.e.weight.sum(0)[:, None, None], e=nn.Embedding(5, 8)), 40),
    "a scale of the last tensor": (ending(lambda m, y: y * m.scale, scale=learned(1)), 1),
    "PReLU": (middle(lambda m, y: m.p(y), p=nn.PReLU(8)), 8),
    "PReLU called twice": (middle(lambda m, y: m.p(m.p(y)), p=nn.PReLU(8)), 8),
    "GroupNorm": (middle(lambda m, y: m.n(y), n=nn.GroupNorm(2, 8)), 16),
    "LayerNorm": (middle(lambda m, y: m.n(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), n=nn.LayerNorm(8)), 16),
    "RMSNorm": (middle(lambda m, y: m.n(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), n=nn.RMSNorm(8)), 8),
    "BatchNorm": (middle(lambda m, y: m.n(y), n=nn.BatchNorm2d(8)), 16),
    "BatchNorm without parameters": (middle(lambda m, y: m.n(y), n=nn.BatchNorm2d(8, affine=False)), 0),
    "BatchNorm called twice": (middle(lambda m, y: m.n(m.c(m.n(y))), n=nn.BatchNorm2d(8), c=conv(8, 8)), 16 + 72),
    "a layer with two BatchNorms": (
        middle(lambda m, y: m.b(m.c(m.a(m.c(y)))), c=conv(8, 8), a=nn.BatchNorm2d(8), b=nn.BatchNorm2d(8)),
        72 + 2 * 16,
    ),
    "a block called twice": (middle(lambda m, y: m.b(m.b(y)), b=nn.Sequential(conv(8, 8), nn.BatchNorm2d(8))), 72 + 16),
    "one bias for two layers": (
        middle(
            lambda m, y: F.conv2d(F.conv2d(y, m.v, m.b), m.w, m.b), v=learned(8, 8, 1, 1), w=learned(8, 8, 1, 1), b=learned(8)
        ),
        64 + 64 + 8,
    ),
    "one weight and two biases": (
        middle(lambda m, y: F.conv2d(F.conv2d(y, m.w, m.a), m.w, m.b), w=learned(8, 8, 1, 1), a=learned(8), b=learned(8)),
        64 + 8 + 8,
    ),
    "a fixed kernel": (middle(lambda m, y: F.conv2d(y, m.k, padding=1, groups=8), k=torch.ones(8, 1, 3, 3)), 0),
    "a fixed kernel with a bias": (
        middle(lambda m, y: F.conv2d(y, m.k, m.b, groups=8), k=torch.ones(8, 1, 1, 1), b=learned(8)),
        8,
    ),
    "a bias of two parameters": (
        middle(lambda m, y: F.conv2d(y, m.w, m.a + m.b), w=learned(8, 8, 1, 1), a=learned(8), b=learned(8)),
        64 + 16,
    ),
    "weight norm": (middle(lambda m, y: m.c(y), c=parametrizations.weight_norm(conv(8, 8))), 72 + 8),
    "spectral norm": (middle(lambda m, y: m.c(y), c=parametrizations.spectral_norm(conv(8, 8))), 72),
    "a weight and a low-rank change of it": (
        middle(
            lambda m, y: F.conv2d(y, (m.w + m.u @ m.v)[:, :, None, None]), w=learned(8, 8), u=learned(8, 2), v=learned(2, 8)
        ),
        64 + 32,
    ),
    "a pooling with a learned power": (
        middle(lambda m, y: y.clamp(min=1e-3).pow(m.p).mean((2, 3), keepdim=True).pow(1 / m.p), p=learned(1)),
        1,
    ),
    "the branches of a RepConv with biases": (
        middle(
            lambda m, y: m.a(m.large(y)) + m.b(m.small(y)),
            **{"large": conv(8, 8, 3), "small": conv(8, 8), "a": nn.BatchNorm2d(8), "b": nn.BatchNorm2d(8)},
        ),
        (576 + 8) + (64 + 8) + 2 * 16,
    ),
    "a class token": (ending(lambda m, y: torch.cat([m.t.expand(2, 1, 8), tokens(y)], 1), t=learned(1, 1, 8)), 8),
    "a scale of reshaped predictions": (
        ending(lambda m, y: y.permute(0, 2, 3, 1).reshape(2, -1, 4) * m.s, s=learned(4)),
        4,
    ),
    "a scale that is repeated over pixels": (
        middle(lambda m, y: torch.addcmul(m.b, m.s, y), s=learned(8, 1, 1), b=learned(8, 6, 10)),
        8 + 480,
    ),
    "MultiheadAttention": (
        ending(lambda m, y: m.a(*[tokens(y)] * 3)[0], a=nn.MultiheadAttention(8, 2, batch_first=True)),
        3 * (64 + 8) + (64 + 8),
    ),
    "frozen weights": (middle(lambda m, y: m.c(y), c=conv(8, 8).requires_grad_(False)), 72),
    "a layer under autocast": (middle(lambda m, y: autocast(m.c, y), c=conv(8, 8)), 72),
    "a layer whose result is thrown away": (middle(lambda m, y: (m.c(y), y)[1], c=conv(8, 8)), 72),
}
"""By what the parameters are: a model of stem (32), mix (18) and more parameters, and the number of the others."""


def autocast(layer: nn.Module, y: Tensor) -> Tensor:
    with torch.autocast("cpu"):
        result: Tensor = layer(y)
    return result.float()


# The export of torch 2.8 refuses the normalisation of the vectors; 2.13, which is pinned, does not.
NOT_IN_OLD_TORCH = pytest.mark.skipif(torch.__version__.startswith("2.8"), reason="torch 2.8 cannot export it")


@pytest.mark.parametrize(
    ("model", "others"),
    [pytest.param(*case, marks=NOT_IN_OLD_TORCH if name == "spectral norm" else ()) for name, case in COUNTED.items()],
    ids=COUNTED,
)
def test_parameters_that_are_counted(model: Joined, others: int) -> None:
    traced = trace_module(model, (small(),))
    assert in_training(traced) == 32 + others + (18 if hasattr(model, "mix") else 0)
    assert in_training(traced) == sum(p.numel() for p in model.parameters())
    assert traced.left_out == ()


def test_a_layer_with_a_fixed_kernel_has_macs_and_no_parameters() -> None:
    model, _ = COUNTED["a fixed kernel"]
    graph = trace_module(model, (small(),)).graph
    assert cost(graph, 6, 10).macs == 60 * (3 * 8 + 9 * 8 + 8 * 2)
    assert [row["params"] for row in layer_rows(graph)] == [32, 0, 18]


def test_what_only_training_has_is_not_in_the_form_that_infers() -> None:
    graph = trace_module(COUNTED["weight norm"][0], (small(),)).graph
    assert cost(graph, 6, 10).params == 32 + 72 + 18
    graph = trace_module(COUNTED["the branches of a RepConv with biases"][0], (small(),)).graph
    assert cost(graph, 6, 10).params == 32 + (576 + 8) + 18


def test_one_parameter_of_two_names_is_counted_once() -> None:
    a, b = conv(8, 8), conv(8, 8)
    b.weight = a.weight
    traced = trace_module(middle(lambda m, y: m.b(m.a(y)), a=a, b=b), (small(),))
    assert in_training(traced) == 32 + (64 + 8 + 8) + 18
    traced = trace_module(middle(lambda m, y: m.b(m.a(y)), a=a, b=a), (small(),))
    assert in_training(traced) == 32 + 72 + 18


def test_parameters_that_no_output_uses_are_left_out_by_name() -> None:
    unused = middle(lambda m, y: y, head=nn.Linear(8, 7), mask=learned(5))
    traced = trace_module(unused, (small(),))
    assert traced.left_out == (("head.bias", 7), ("head.weight", 56), ("mask", 5))
    assert in_training(traced) + 7 + 56 + 5 == sum(p.numel() for p in unused.parameters())
    constant = ending(lambda m, y: {"y": y, "queries": m.q * 2}, q=learned(4, 8))
    assert trace_module(constant, (small(),)).left_out == (("q", 32),)


def test_parameters_of_an_output_that_is_not_chosen_may_be_left_out() -> None:
    model = ending(lambda m, y: {"boxes": m.boxes(y), "text": m.rnn(tokens(y))[0]}, boxes=conv(8, 4), rnn=nn.GRU(8, 2))
    traced = trace_module(model, (small(),), outputs=["boxes"])
    assert [name for name, _ in traced.left_out] == ["rnn.bias_hh_l0", "rnn.bias_ih_l0", "rnn.weight_hh_l0", "rnn.weight_ih_l0"]
    for chosen in ({}, {"outputs": ["text"]}, {"outputs": ["boxes"], "auxiliary": ["text"]}):
        with pytest.raises(TraceError, match=r"^gru at rnn .*rnn.bias_hh_l0 \(6\)"):
            trace_module(model, (small(),), **chosen)


NOT_COUNTED: dict[str, tuple[Joined, str, str]] = {
    "LSTM": (ending(lambda m, y: m.r(tokens(y))[0], r=nn.LSTM(8, 4)), "lstm at r ", r"r\.bias_ih_l0 \(16\)"),
    "GRU": (ending(lambda m, y: m.r(tokens(y))[0], r=nn.GRU(8, 4)), "gru at r ", r"r\.weight_ih_l0 \(96\)"),
    "x @ vector": (ending(lambda m, y: pooled(y) @ m.w, w=learned(8)), "matmul at ", r"w \(8\)"),
    "einsum over pixels too": (
        ending(lambda m, y: torch.einsum("bchw,co->bo", y, m.w), w=learned(8, 5)), "einsum at ", r"w \(40\)"
    ),
    "a product for each group": (
        ending(lambda m, y: torch.einsum("bgc,gco->bgo", pooled(y).view(2, 2, 4), m.w), w=learned(2, 4, 5)),
        "einsum",
        r"w \(40\)",
    ),
    "a scale of half of the pixels": (
        ending(lambda m, y: torch.addcmul(y, y, m.s), s=learned(8, 1, 1)), "addcmul at ", r"s \(8\)"
    ),
    "tensordot": (ending(lambda m, y: torch.tensordot(pooled(y), m.w, 1), w=learned(8, 5)), "tensordot", r"w \(40\)"),
    "Bilinear": (ending(lambda m, y: m.f(pooled(y), pooled(y)), f=nn.Bilinear(8, 8, 3)), "bilinear", r"f\.weight \(192\)"),
}  # fmt: skip
"""Models whose last operation uses parameters in a way that a graph does not have, that operation, and the parameters."""


@pytest.mark.parametrize(("model", "operation", "parameters"), NOT_COUNTED.values(), ids=NOT_COUNTED)
def test_parameters_that_cannot_be_counted_are_named(model: Joined, operation: str, parameters: str) -> None:
    words = "the analysis cannot follow this operation, and would not count its parameters"
    with pytest.raises(TraceError, match=rf"^{operation}.*: {words} .*{parameters}.*; choose outputs that do not need it"):
        trace_module(model, (small(),))


@pytest.mark.parametrize(
    ("model", "operation", "layer"),
    [
        (ending(lambda m, y: m.head(m.r(tokens(y))[0]), r=nn.LSTM(8, 4), head=nn.Linear(4, 2)), "lstm at r ", "head"),
        (middle(lambda m, y: torch.where(y > 0, y, y * m.s), s=learned(1)), "gt at ", "mix"),
        (middle(lambda m, y: torch.pow(y.abs(), m.c(y)), c=conv(8, 8)), "pow at ", "mix"),
    ],
    ids=["LSTM", "a learned slope in where", "a power that a layer computes"],
)
def test_a_layer_cannot_read_them_either(model: Joined, operation: str, layer: str) -> None:
    with pytest.raises(TraceError, match=rf"^{operation}.*: the analysis cannot follow .*, and the layer at {layer} "):
        trace_module(model, (small(),))


@pytest.mark.parametrize(
    ("weight", "sources", "layers"),
    [
        (lambda m: (m.u @ m.v)[:, :, None, None], r"u \(16\), v \(16\)", {"u": learned(8, 2), "v": learned(2, 8)}),
        (lambda m: m.u.expand(8, 8, 1, 1), r"u \(1\)", {"u": learned(1)}),
        (lambda m: m.mix.weight.mean(0)[None, :].expand(8, 8, 1, 1) * m.u, r"mix\.weight \(16\), u \(1\)", {"u": learned(1)}),
    ],
    ids=["low rank", "repeated", "of another layer"],
)
def test_weights_that_are_computed_from_fewer_parameters_are_named(
    weight: Callable[[Any], Tensor], sources: str, layers: dict[str, Any]
) -> None:
    with pytest.raises(
        TraceError, match=rf"^conv at .*: its 64 weights are computed from {sources}, which are fewer or belong"
    ):
        trace_module(middle(lambda m, y: F.conv2d(y, weight(m)), **layers), (small(),))


def test_a_network_whose_outputs_do_not_depend_on_the_image_is_refused() -> None:
    with pytest.raises(TraceError, match=r"^no output depends on the image"):
        trace_module(Joined(lambda m, x: m.p * 2, p=learned(3)), (small(),))


def test_an_activation_that_another_reads_too_is_not_part_of_the_layer() -> None:
    def forward(m: Any, y: Tensor) -> Tensor:
        z = m.c(y)
        normed: Tensor = m.n(z.contiguous())  # the same tensor under a second name
        return normed + z

    traced = trace_module(middle(forward, c=conv(8, 8), n=nn.BatchNorm2d(8)), (small(),))
    assert [op.kind for op in traced.graph.ops] == ["image", "conv", "conv", "norm", "add", "conv"]
