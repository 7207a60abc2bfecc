"""A RepConv in training, the sum of a normalised 3x3 and a normalised 1x1 convolution, is one layer of a traced graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.graph.traced_models import conv, read, traced


def test_a_rep_conv_in_training_is_one_layer() -> None:
    def branches(kernel: int = 3, **options: Any) -> dict[str, Any]:
        layers = {"large": nn.Conv2d(3, 4, kernel, padding=kernel // 2, bias=False, **options)}
        layers |= {"small": nn.Conv2d(3, 4, 1, bias=False, **{k: v for k, v in options.items() if k == "stride"})}
        return layers | {"a": nn.BatchNorm2d(4), "b": nn.BatchNorm2d(4)}

    def added(m: Any, x: Tensor) -> Tensor:
        return F.silu(m.a(m.large(x)) + m.b(m.small(x)))

    rep = {"kernel": 3, "padding": 1, "norm": True, "act": "silu", "rep": True}
    assert read(added, **branches()) == [("conv", (0,), 4, rep)]
    assert read(lambda m, x: F.silu(m.b(m.small(x)) + m.a(m.large(x))), **branches()) == [("conv", (0,), 4, rep)]
    assert read(added, **branches(stride=2)) == [("conv", (0,), 4, rep | {"stride": 2})]
    plain = ["conv", "conv", "add", "act"]
    assert [row[0] for row in read(added, **branches(kernel=5))] == plain
    no_norm = read(lambda m, x: F.silu(m.a(m.large(x)) + m.small(x)), **branches())
    assert [row[0] for row in no_norm] == plain
    two_inputs = read(lambda m, x: F.silu(m.a(m.large(x)) + m.b(m.small(x.abs()))), **branches())
    assert [row[0] for row in two_inputs] == ["conv", "act", "conv", "add", "act"]

    def read_again(m: Any, x: Tensor) -> Tensor:
        y = m.b(m.small(x))
        return torch.cat([m.a(m.large(x)) + y, y], 1)

    assert [row[0] for row in read(read_again, **branches())] == ["conv", "conv", "add", "concat"]


def test_a_layer_after_a_merged_one_reads_the_rep_conv() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.last(m.a(m.large(x)) + m.b(m.small(x)))

    layers: dict[str, Any] = {
        **{"large": nn.Conv2d(3, 4, 3, padding=1, bias=False), "small": nn.Conv2d(3, 4, 1, bias=False)},
        "last": conv(4, 2),
    }
    graph = traced(forward, **layers, a=nn.BatchNorm2d(4), b=nn.BatchNorm2d(4))
    assert [(op.name, op.inputs) for op in graph.ops] == [("image", ()), ("large", (0,)), ("last", (1,))]
    assert graph.outputs[0].op == 2
