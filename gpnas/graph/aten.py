"""What is known of each ATen operation: for its name, a reader that appends to the graph what the operation does to channels.

A reader is called as `reader(ops, node, *args, **kwargs)` with the values of the node's arguments. It returns the value of the
node, or None when a graph cannot describe this use of the operation. Readers of operations that join several tensors
(`JOINING`) check their arguments themselves; all others are called with `Features` as first argument, and, but for layers, with
no other tensor of the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, fx

from gpnas.graph.graph import ACTIVATIONS, Op
from gpnas.graph.learned_matrices import addmm, einsum, linear, matmul
from gpnas.graph.traced_values import (
    Constant,
    Features,
    TracedOps,
    Value,
    module_path,
    name_in_module,
    operation_name,
    pair,
    parameters_of,
    shape_of,
)
from gpnas.graph.written_views import slice_scatter

Reader = Callable[..., Value]


def _window_fields(kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> dict[str, Any]:
    """Fields of `Op` for a window whose (height, width) are given."""
    fields: dict[str, Any] = {"kernel": kernel[0], "stride": stride[0], "padding": padding[0]}
    along_width = (kernel[1], stride[1], padding[1])
    return fields if along_width == (kernel[0], stride[0], padding[0]) else fields | {"window": along_width}


def _fit(ops: TracedOps, node: fx.Node, x: Features) -> Features:
    """Cut, repeat or pad pixels to the size of `node`; channels stay as they are."""
    rows, columns = shape_of(node)[2:]
    return ops.unary(node, "fit", x, size=(rows, columns))


def _is_map(node: Any, x: Features) -> bool:
    """Whether the value `x` of `node` has the axes (batch, channels, height, width)."""
    return x.axis == 1 and x.has_channel_axis and len(shape_of(node)) == 4


def _conv(
    ops: TracedOps, node: fx.Node, x: Features, weight: Value, bias: Value = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Features | None:  # fmt: skip
    width, _, *kernel = shape_of(node.args[1])
    spread = pair(dilation)
    if x.axis != 1 or not x.has_channel_axis or len(kernel) > 2 or (len(kernel) == 2 and spread[0] != spread[1]):
        return None
    strides = pair(stride)
    if isinstance(padding, str):
        sums = [spread[0] * (k - 1) if padding == "same" else 0 for k in kernel]
        if any(total % 2 for total in sums):
            return None  # one side gets a pixel more than the other
        pads = pair([total // 2 for total in sums])
    else:
        pads = pair(padding)
    if len(kernel) == 1:
        kernel, strides, pads = [kernel[0], 1], (strides[0], 1), (pads[0], 0)
    fields = _window_fields((kernel[0], kernel[1]), strides, pads)
    return ops.layer(node, "conv", x, width, weight, bias, groups=groups, dilation=spread[0], **fields)


def _conv_transpose(
    ops: TracedOps, node: fx.Node, x: Features, weight: Value, bias: Value = None,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Features | None:  # fmt: skip
    _, width_of_group, *kernel = shape_of(node.args[1])
    spread = pair(dilation)
    if x.axis != 1 or not x.has_channel_axis or len(kernel) != 2 or spread[0] != spread[1]:
        return None
    fields = _window_fields((kernel[0], kernel[1]), pair(stride), pair(padding))
    fields |= {"groups": groups, "dilation": spread[0], "output_padding": pair(output_padding)}
    return ops.layer(node, "conv_transpose", x, width_of_group * groups, weight, bias, **fields)


def _convolution(
    ops: TracedOps, node: fx.Node, x: Features, weight: Value, bias: Value, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Features | None:  # fmt: skip
    if transposed:
        return _conv_transpose(ops, node, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return _conv(ops, node, x, weight, bias, stride, padding, dilation, groups)


def _norm(ops: TracedOps, node: fx.Node, x: Features, *args: Value, **kwargs: Value) -> Features:
    """A batch normalisation is part of the layer before it. Others use statistics of the image and cannot be folded."""
    op = ops[x.op]
    foldable = "batch_norm" in operation_name(node) and op.weighted and not op.norm and not op.act
    if foldable and x.axis == 1 and x.has_channel_axis and _belongs(ops, op, [args, kwargs]) and ops.absorb(node, x, norm=True):
        ops.count([args, kwargs])
        return x
    name = module_path(node) or "norm"
    return replace(x, op=ops.append("norm", (x.op,), op.channels, name, learned=ops.count([args, kwargs])))


def _belongs(ops: TracedOps, op: Op, values: Value) -> bool:
    """Whether a normalisation with these values has a factor and a shift of its own, or shares them as `op` its weights."""
    learned, new = (sum(p.elements for p in some) for some in (parameters_of(values), ops.uncounted(values)))
    return learned == 2 * op.channels and new == (0 if op.tied else learned)


def _activation(ops: TracedOps, node: fx.Node, x: Features, *args: Any, **kwargs: Any) -> Features:
    name = operation_name(node)
    op = ops[x.op]
    in_graphs = name in ACTIVATIONS and (name != "leaky_relu" or (args[:1] and args[0] == 0.1))
    if in_graphs and op.kind in ("conv", "linear") and not op.act and ops.absorb(node, x, act=name):
        return x
    return ops.unary(node, "act", x, name, act=name, learned=ops.count([args, kwargs]))


def _same(_: TracedOps, __: fx.Node, x: Value, *args: Any, **kwargs: Any) -> Features | None:
    return x if isinstance(x, Features) else None


def _detach(ops: TracedOps, node: fx.Node, x: Features) -> Features:
    return ops.unary(node, "stop_gradient", x, "detach")


def _max_pool(
    ops: TracedOps, node: fx.Node, x: Features, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False,
) -> Features | None:  # fmt: skip
    return _pool(ops, node, x, "max_pool", kernel, stride, padding, ceil_mode) if pair(dilation) == (1, 1) else None


def _avg_pool(
    ops: TracedOps, node: fx.Node, x: Features, kernel: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False,
    *_: Any,
) -> Features | None:  # fmt: skip
    return _pool(ops, node, x, "avg_pool", kernel, stride, padding, ceil_mode)


def _pool(
    ops: TracedOps, node: fx.Node, x: Features, kind: str, kernel: Any, stride: Any, padding: Any, ceil_mode: bool
) -> Features | None:
    if not _is_map(node.args[0], x):
        return None
    pooled = ops.unary(node, kind, x, **_window_fields(pair(kernel), pair(stride or kernel), pair(padding)))
    return _fit(ops, node, pooled) if ceil_mode else pooled


def _adaptive(kind: str) -> Reader:
    def read(ops: TracedOps, node: fx.Node, x: Features, size: Sequence[int]) -> Features | None:
        return _pooled_to(ops, node, x, kind, size) if _is_map(node.args[0], x) else None

    return read


def _pooled_to(ops: TracedOps, node: fx.Node, x: Features, kind: str, size: Sequence[int]) -> Features | None:
    """Pooled to `size`, (height, width), by equal windows; None when it does not divide the size of the input."""
    before = shape_of(node.args[0])[2:]
    if before == list(size):
        return x
    if list(size) == [1, 1] and kind == "avg_pool":
        return ops.unary(node, "global_avg_pool", x)
    if any(b % a for b, a in zip(before, size, strict=True)):
        return None
    kernel = (before[0] // size[0], before[1] // size[1])
    return ops.unary(node, kind, x, **_window_fields(kernel, kernel, (0, 0)))


def _mean(
    ops: TracedOps, node: fx.Node, x: Features, dims: Sequence[int] | None = None, keepdim: bool = False, **_: Any
) -> Features | None:
    """A mean over all pixels. A mean over channels mixes them, which a graph cannot describe."""
    rank = len(shape_of(node.args[0]))
    pixels = set(range(1, rank)) - {x.axis}
    if {d % rank for d in dims or ()} != pixels or x.groups or not pixels:
        return None
    pooled = ops.unary(node, "global_avg_pool", x)
    return pooled if keepdim else replace(pooled, axis=1)


def _amax(ops: TracedOps, node: fx.Node, x: Features, dims: Sequence[int] = (), *_: Any) -> Features | None:
    """A maximum over all pixels."""
    if not _is_map(node.args[0], x) or {d % 4 for d in dims} != {2, 3}:
        return None
    return _pooled_to(ops, node, x, "max_pool", (1, 1))


def _resize(ops: TracedOps, node: fx.Node, x: Features, *_: Any, **__: Any) -> Features | None:
    if not _is_map(node.args[0], x):
        return None
    before, after = shape_of(node.args[0])[2:], shape_of(node)[2:]
    if before == after:
        return x
    scale = after[0] // before[0]
    if after == [scale * size for size in before]:
        return ops.unary(node, "upsample", x, scale=scale)
    return _fit(ops, node, x)


def _cat(ops: TracedOps, node: fx.Node, xs: Sequence[Value], dim: int = 0) -> Features | None:
    """Concatenated along channels, or stacked along an axis of pixels."""
    parts = [x for x in xs if isinstance(x, Features) and x.has_channel_axis]
    if len(parts) != len(xs) or len({x.axis for x in parts}) != 1:
        return None
    first, widths, inputs = parts[0], [ops.channels(x) for x in parts], tuple(x.op for x in parts)
    along = dim % len(shape_of(node))
    if along == first.axis:
        if len(parts) == 1:
            return first
        return replace(first, op=ops.append("concat", inputs, sum(widths), name_in_module(node, "concat")))
    if along == 0 or len(set(widths)) != 1:
        return None
    return replace(first, op=ops.append("stack", inputs, widths[0], name_in_module(node, "stack")))


def _split(ops: TracedOps, node: fx.Node, x: Features, sizes: int | Sequence[int], dim: int = 0) -> list[Features] | None:
    shape = shape_of(node.args[0])
    axis = dim % len(shape)
    if axis != x.axis or not x.has_channel_axis:
        return None
    total = shape[axis]
    widths = [min(sizes, total - start) for start in range(0, total, sizes)] if isinstance(sizes, int) else sizes
    return [ops.cut(node, x, sum(widths[:i]), width) for i, width in enumerate(widths)]


def _chunk(ops: TracedOps, node: fx.Node, x: Features, chunks: int, dim: int = 0) -> list[Features] | None:
    return _split(ops, node, x, math.ceil(shape_of(node.args[0])[dim] / chunks), dim)


def _slice(
    ops: TracedOps, node: fx.Node, x: Features, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Features | None:
    shape = shape_of(node.args[0])
    axis = dim % len(shape)
    first, last, step = slice(start, end, step).indices(shape[axis])
    if axis == 0 or (first == 0 and last == shape[axis] and step == 1):
        return x
    if axis == x.axis and x.has_channel_axis:
        return ops.cut(node, x, first, last - first) if step == 1 else None
    return _fit(ops, node, x) if _is_map(node.args[0], x) else None


def _narrow(ops: TracedOps, node: fx.Node, x: Features, dim: int, start: int, length: int) -> Features | None:
    return _slice(ops, node, x, dim, start, start + length)


def _view(ops: TracedOps, node: fx.Node, x: Features, *_: Any, **__: Any) -> Features | None:
    """A reshape of the pixels, or between channels and (groups, channels / groups)."""
    before, after = shape_of(node.args[0]), shape_of(node)
    if before == after:
        return x
    if before[0] != after[0] or x.axis != 1 or x.flat:
        return None
    channels = ops.channels(x)
    if x.groups:
        if after[1] != channels or math.prod(after[2:]) != math.prod(before[3:]):
            return None
        return ops.unary(node, "shuffle", Features(x.op), groups=x.groups) if x.turned else Features(x.op)
    if after[1] == channels and math.prod(after[2:]) == math.prod(before[2:]):
        return x
    if len(after) == 2 and len(before) == 4:
        return replace(x, flat=(before[2], before[3]))
    if len(after) == len(before) + 1 and after[1] * after[2] == channels and after[3:] == before[2:]:
        return Features(x.op, groups=after[1])
    return None


def _permute(_: TracedOps, __: fx.Node, x: Features, dims: Sequence[int]) -> Features | None:
    order = [d % len(dims) for d in dims]
    if order[0] != 0:
        return None
    if x.groups:
        return replace(x, turned=not x.turned) if order == [0, 2, 1, *range(3, len(order))] else None
    return replace(x, axis=order.index(x.axis)) if not x.flat else None


def _transpose(ops: TracedOps, node: fx.Node, x: Features, a: int, b: int) -> Features | None:
    order = list(range(len(shape_of(node))))
    order[a], order[b] = order[b], order[a]
    return _permute(ops, node, x, order)


def _unsqueeze(_: TracedOps, node: fx.Node, x: Features, dim: int) -> Features | None:
    return x if dim % len(shape_of(node)) > x.axis and x.has_channel_axis else None


def _squeeze(_: TracedOps, node: fx.Node, x: Features, *__: Any) -> Features | None:
    return x if x.axis == 1 and shape_of(node)[:2] == shape_of(node.args[0])[:2] and x.has_channel_axis else None


def _pad(ops: TracedOps, node: fx.Node, x: Features, *_: Any, **__: Any) -> Features | None:
    if not _is_map(node.args[0], x) or shape_of(node.args[0])[:2] != shape_of(node)[:2]:
        return None
    return _fit(ops, node, x)


def _elementwise(ops: TracedOps, node: fx.Node, x: Value, y: Value = None, *_: Any, **__: Any) -> Features | None:
    """Two tensors of the image, or one and a constant."""
    if not isinstance(x, Features):
        return _with_constant(ops, node, y, x, 1) if isinstance(y, Features) else None
    if not isinstance(y, Features):
        return _with_constant(ops, node, x, y, 0)
    before, other = (shape_of(arg) for arg in node.args[:2])
    if not x.has_channel_axis or not y.has_channel_axis or len(before) != len(other) or x.axis != y.axis:
        return None
    name = operation_name(node)
    inputs, widths = (x.op, y.op), {ops.channels(x), ops.channels(y)}
    if name == "add" and before == other:
        sum_of_branches = ops.merge_rep_conv(node, x, y)
        return sum_of_branches or replace(x, op=ops.append("add", inputs, ops.channels(x), name_in_module(node, "add")))
    if len(widths) > 1 and 1 not in widths:
        return None
    kind = "join" if before[2:] == other[2:] and x.axis == 1 else "broadcast"
    return replace(x, op=ops.append(kind, inputs, max(widths), name_in_module(node, name)))


def _with_constant(ops: TracedOps, node: fx.Node, x: Features, constant: Value, position: int) -> Features | None:
    """`x` is the argument at `position`. A factor of zero masks a channel."""
    if shape_of(node) != shape_of(node.args[position]):
        return None  # the constant repeats the tensor
    if isinstance(constant, Constant) and constant.parameters:
        return ops.unary(node, "gain", x, learned=ops.count(constant))
    mask = constant.tensor if isinstance(constant, Constant) and operation_name(node) == "mul" else None
    return x if mask is None or x.axis != 1 or not x.has_channel_axis else _masked(ops, node, x, mask)


def _masked(ops: TracedOps, node: fx.Node, x: Features, mask: Tensor) -> Features | None:
    """The product with a buffer: no gradient passes channels that it sets to zero (PRN, written with a mask)."""
    channels, rank = ops.channels(x), len(shape_of(node))
    zero = (mask.detach() == 0).reshape([1] * (rank - mask.dim()) + list(mask.shape))
    if zero.numel() != zero.shape[1]:  # the mask differs between images or pixels
        whole_channels = zero.transpose(0, 1).flatten(1).all(1)
        return None if whole_channels.any() else x
    closed = zero.flatten().expand(channels).tolist()
    if not any(closed):
        return x
    if all(closed):
        return _detach(ops, node, x)
    borders = [i for i in range(1, channels) if closed[i] != closed[i - 1]]
    parts = []
    for start, stop in zip([0, *borders], [*borders, channels], strict=True):
        part = ops.cut(node, x, start, stop - start)
        parts.append(_detach(ops, node, part).op if closed[start] else part.op)
    return replace(x, op=ops.append("concat", tuple(parts), channels, name_in_module(node, "mask")))


_UNARY = (
    *("relu", "silu", "leaky_relu", "gelu", "elu", "selu", "celu", "prelu", "rrelu", "relu6", "mish", "softplus", "softsign"),
    *("hardswish", "hardsigmoid", "hardtanh", "sigmoid", "logsigmoid", "tanh", "threshold", "clamp", "clamp_min", "clamp_max"),
    *("abs", "exp", "log", "log1p", "neg", "sqrt", "rsqrt", "square", "pow", "sin", "cos", "erf", "reciprocal"),
)
_IDENTITIES = (
    *("dropout", "feature_dropout", "alpha_dropout", "clone", "contiguous", "alias", "_to_copy", "to", "type_as"),
    *("lift_fresh", "positive", "float"),
)
_NORMS = ("batch_norm", "_native_batch_norm_legit", "instance_norm", "group_norm", "layer_norm", "rms_norm")
_RESIZES = ("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_nearest_exact2d")
_ELEMENTWISE = ("add", "sub", "rsub", "mul", "div", "maximum", "minimum")
_CONCATENATIONS = ("cat", "concat")

LAYERS = frozenset(
    ("conv1d", "conv2d", "conv3d", "convolution", "linear", "addmm", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
)
"""Operations with weights. A trace stops with an error when one of them cannot be read."""

_PRODUCTS: dict[str, Reader] = {"matmul": matmul, "mm": matmul, "addmm": addmm, "einsum": einsum}

JOINING = frozenset((*_ELEMENTWISE, *_CONCATENATIONS, *_PRODUCTS, "slice_scatter", "type_as"))
"""Operations of several tensors, of which the first may be a constant or a list."""

CONSTANTS = frozenset(
    (
        *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"),
        "new_zeros",
        "new_ones",
        "new_full",
        "new_empty",
    )
)
"""Operations that take the shape of a tensor, and not its values."""

READERS: dict[str, Reader] = {
    "conv1d": _conv,
    "conv2d": _conv,
    "conv_transpose2d": _conv_transpose,
    "convolution": _convolution,
    "linear": linear,
    **_PRODUCTS,
    **dict.fromkeys(_NORMS, _norm),
    **dict.fromkeys(_UNARY, _activation),
    **dict.fromkeys(_IDENTITIES, _same),
    "detach": _detach,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive("avg_pool"),
    "adaptive_max_pool2d": _adaptive("max_pool"),
    "mean": _mean,
    "amax": _amax,
    **dict.fromkeys(_RESIZES, _resize),
    **dict.fromkeys(_CONCATENATIONS, _cat),
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    "chunk": _chunk,
    "slice": _slice,
    "slice_scatter": slice_scatter,
    "narrow": _narrow,
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten"), _view),
    "permute": _permute,
    "transpose": _transpose,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
}
"""By the operation's name, without overload and in-place mark. Any other operation makes an opaque value."""
