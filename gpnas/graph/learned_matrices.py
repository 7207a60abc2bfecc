"""Layers that are written as a product with a learned matrix: `F.linear`, `x @ w`, `w @ x`, `torch.einsum`, `torch.addmm`.

Each reader appends a layer when one factor is computed from parameters and the product sums over the channels alone. It returns
None for any other product, which makes an opaque value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx

from gpnas.graph import products
from gpnas.graph.axes import channels_along
from gpnas.graph.moved_channels import along
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
    """x @ w on the last axis, or w @ x on the axis before; else a product of two tensors of the image."""
    first, second = (shape_of(arg) for arg in node.args[:2])
    if isinstance(a, Features) and isinstance(b, Features):
        return products.matmul(ops, node, a, b)
    if isinstance(a, Features) and _is_matrix(b, second):
        return _along_last_axis(ops, node, a, len(first), second[1], b, None)
    if isinstance(b, Features) and _is_matrix(a, first) and len(second) >= 3:
        axis = len(second) - 2
        return ops.layer(node, "conv", along(ops, node, b, axis), first[0], a, None, axis)
    return None


def einsum(ops: TracedOps, node: fx.Node, equation: str, factors: Sequence[Value], **_: Any) -> Features | None:
    """A product that sums over the channels of one factor, and puts those of the other, a matrix, anywhere after the batch."""
    if all(isinstance(factor, Features) for factor in factors):
        return products.einsum(ops, node, equation, factors)
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    if not arrow:  # without an arrow, the result has the axes that are named once, in alphabetical order
        result = "".join(sorted(letter for letter in inputs if letter != "," and inputs.count(letter) == 1))
    axes = inputs.split(",")
    at = next((i for i, factor in enumerate(factors) if isinstance(factor, Features)), None)
    if len(factors) != 2 or len(axes) != 2 or at is None or "." in equation:
        return None
    x, weight = factors[at], factors[1 - at]
    of_x, of_weight = axes[at], axes[1 - at]
    if not isinstance(weight, Constant) or not weight.parameters or len(of_weight) != 2:
        return None
    summed = next((letter for letter in of_weight if letter in of_x and letter not in result), "")
    made = of_weight.replace(summed, "")
    kept = of_x.replace(summed, "")
    repeats = len(set(of_x)) < len(of_x) or len(set(result)) < len(result)
    if repeats or len(made) != 1 or made in of_x or made not in result or sorted(result.replace(made, "")) != sorted(kept):
        return None
    x = along(ops, node, x, of_x.index(summed))
    width, axis = shape_of(node)[result.index(made)], result.index(made)
    return ops.layer(node, _kind(ops, x, len(of_x)), x, width, weight, None, axis)


def _along_last_axis(
    ops: TracedOps, node: fx.Node, x: Features, rank: int, width: int, weight: Value, bias: Value
) -> Features | None:
    """A layer on one pixel. On a flattened map it is a convolution of the map's size, along a last axis a 1x1 convolution."""
    axis = rank - 1
    window = _flat_window(ops, x)
    if window:
        rows, columns = window
        flat = Features(x.op, channels_along([x.pixels // (rows * columns), ops.channels(x), rows, columns], 1))
        fields: dict[str, Any] = {} if rows == columns else {"window": (columns, 1, 0)}
        return ops.layer(node, "conv", flat, width, weight, bias, axis, kernel=rows, **fields)
    x = along(ops, node, x, axis)
    return ops.layer(node, _kind(ops, x, rank), x, width, weight, bias, axis)


def _flat_window(ops: TracedOps, x: Features) -> tuple[int, int] | None:
    """Rows and columns of a map that was flattened, with its channels, into the last axis; None of any other tensor."""
    parts = x.axes[-1]
    pixels = [part.size for part in parts if not part.step]
    whole = len(parts) == 2 and len(pixels) == 1 and parts[0].step == 1 and parts[0].size == ops.channels(x)
    if not whole:
        return None
    rows, columns = ops.size(x.op)
    return (rows, columns) if rows * columns == pixels[0] else (pixels[0], 1)


def _kind(ops: TracedOps, x: Features, rank: int) -> str:
    """(batch, channels) has one pixel, unless pixels and images share an axis."""
    return "linear" if rank == 2 and ops.rows(x) == (1, 1) else "conv"


def _is_matrix(value: Value, shape: list[int]) -> bool:
    return isinstance(value, Constant) and bool(value.parameters) and len(shape) == 2
