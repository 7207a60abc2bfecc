"""Layers that are written as a product with a learned matrix: `F.linear`, `x @ w`, `w @ x`, `torch.einsum`, `torch.addmm`.

Each reader appends a layer when one factor is computed from parameters and the product sums over the channels alone. It returns
None for any other product, which makes an opaque value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import fx

from gpnas.graph.traced_values import Constant, Features, TracedOps, Value, shape_of


def linear(ops: TracedOps, node: fx.Node, x: Features, weight: Value, bias: Value = None) -> Features | None:
    """`weight`: (outputs, inputs)"""
    if len(shape_of(node.args[1])) != 2:
        return None
    return _along_last_axis(ops, node, x, len(shape_of(node.args[0])), shape_of(node.args[1])[0], weight, bias)


def addmm(
    ops: TracedOps, node: fx.Node, bias: Value, x: Value, weight: Value, *, beta: Any = 1, alpha: Any = 1
) -> Features | None:
    """bias + x @ weight, with `weight`: (inputs, outputs)"""
    if not isinstance(x, Features):
        return None
    return _along_last_axis(ops, node, x, 2, shape_of(node.args[2])[1], weight, bias)


def matmul(ops: TracedOps, node: fx.Node, a: Value, b: Value) -> Features | None:
    """x @ w on the last axis, or w @ x on the axis before."""
    first, second = (shape_of(arg) for arg in node.args[:2])
    if isinstance(a, Features) and _is_matrix(b, second):
        return _along_last_axis(ops, node, a, len(first), second[1], b, None)
    if isinstance(b, Features) and _is_matrix(a, first) and b.has_channel_axis and len(second) == 3 and b.axis == 1:
        return ops.layer(node, "conv", b, first[0], a, None)
    return None


def einsum(ops: TracedOps, node: fx.Node, equation: str, factors: Sequence[Value], **_: Any) -> Features | None:
    """A product that sums over the channels of one factor, and puts those of the other, a matrix, anywhere after the batch."""
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    if not arrow:  # without an arrow, the result has the axes that are named once, in alphabetical order
        result = "".join(sorted(letter for letter in inputs if letter != "," and inputs.count(letter) == 1))
    axes = inputs.split(",")
    at = next((i for i, factor in enumerate(factors) if isinstance(factor, Features)), None)
    if len(factors) != 2 or len(axes) != 2 or at is None or "." in equation:
        return None
    x, weight = factors[at], factors[1 - at]
    of_x, of_weight = axes[at], axes[1 - at]
    if not isinstance(weight, Constant) or not weight.parameters or not x.has_channel_axis or len(of_weight) != 2:
        return None
    summed = of_x[x.axis]
    kept = of_x.replace(summed, "")
    made = of_weight.replace(summed, "")
    repeats = len(set(of_x)) < len(of_x) or len(set(result)) < len(result)
    if repeats or len(made) != 1 or made in of_x or result.replace(made, "") != kept or result[:1] != of_x[:1]:
        return None
    if made not in result:
        return None
    layer = ops.layer(node, _kind(len(of_x)), x, shape_of(node)[result.index(made)], weight, None)
    return replace(layer, axis=result.index(made))


def _along_last_axis(
    ops: TracedOps, node: fx.Node, x: Features, rank: int, width: int, weight: Value, bias: Value
) -> Features | None:
    """A layer on one pixel. On a flattened map it is a convolution of the map's size, along a last axis a 1x1 convolution."""
    if x.axis != rank - 1 or x.groups:
        return None
    if x.flat and x.flat != (1, 1):
        rows, columns = x.flat
        return ops.layer(node, "conv", x, width, weight, bias, kernel=rows, window=None if rows == columns else (columns, 1, 0))
    return replace(ops.layer(node, _kind(rank), x, width, weight, bias), axis=x.axis)


def _kind(rank: int) -> str:
    """(batch, channels) has one pixel."""
    return "linear" if rank == 2 else "conv"


def _is_matrix(value: Value, shape: list[int]) -> bool:
    return isinstance(value, Constant) and bool(value.parameters) and len(shape) == 2
