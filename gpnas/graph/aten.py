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

from gpnas.graph import products, tensor_axes
from gpnas.graph.axes import channels_along, holds
from gpnas.graph.graph import ACTIVATIONS, Op
from gpnas.graph.learned_matrices import addmm, einsum, linear, matmul
from gpnas.graph.moved_channels import along, repeated
from gpnas.graph.tensor_axes import fit, is_map
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


def _conv(
    ops: TracedOps, node: fx.Node, x: Features, weight: Value, bias: Value = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Features | None:  # fmt: skip
    width, _, *kernel = shape_of(node.args[1])
    spread = pair(dilation)
    if len(x.axes) != len(kernel) + 2:
        return None  # an image without an axis for the batch
    x = along(ops, node, x, 1)
    strides = pair(stride)
    if isinstance(padding, str):
        sums = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, spread, strict=False)]
        one_sided = any(total % 2 for total in sums)
        pads = pair([total // 2 for total in sums])
    else:
        one_sided, pads = False, pair(padding)
    if len(kernel) > 2 or one_sided or (len(kernel) == 2 and spread[0] != spread[1]):
        return _unfolded(ops, node, x, math.prod(shape_of(node)[2:]), width, weight, bias, math.prod(kernel), groups)
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
    if len(x.axes) != len(kernel) + 2:
        return None
    x = along(ops, node, x, 1)
    width = width_of_group * groups
    if len(kernel) != 2 or spread[0] != spread[1]:
        before = math.prod(shape_of(node.args[0])[2:])
        return _unfolded(ops, node, x, before, width, weight, bias, math.prod(kernel), groups)
    fields = _window_fields((kernel[0], kernel[1]), pair(stride), pair(padding))
    fields |= {"groups": groups, "dilation": spread[0], "output_padding": pair(output_padding)}
    return ops.layer(node, "conv_transpose", x, width, weight, bias, **fields)


def _unfolded(
    ops: TracedOps, node: fx.Node, x: Features, windows: int, width: int, weight: Value, bias: Value, kernel: int, groups: int
) -> Features:
    """A convolution over windows that `Op` cannot describe, as those of three axes: its windows are laid out in a column."""
    of_image = windows * (x.pixels // math.prod(shape_of(node.args[0])[2:])) // ops.images
    flat = ops.unary(node, "fit", x, size=(of_image * kernel, 1))
    fields: dict[str, Any] = {"groups": groups, "kernel": kernel, "stride": kernel, "window": (1, 1, 0)}
    return ops.layer(node, "conv", flat, width, weight, bias, laid_out=True, **fields)


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
    if foldable and x.axis == 1 and _belongs(ops, op, [args, kwargs]) and ops.absorb(node, x, norm=True):
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
    if in_graphs and x.has_channel_axis and op.kind in ("conv", "linear") and not op.act and ops.absorb(node, x, act=name):
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
    if not is_map(node.args[0], x):
        return _pooled_windows(ops, node, x, kind)
    pooled = ops.resized(node, kind, x, **_window_fields(pair(kernel), pair(stride or kernel), pair(padding)))
    return fit(ops, node, pooled) if ceil_mode else pooled


def _pooled_windows(ops: TracedOps, node: fx.Node, x: Features, kind: str) -> Features | None:
    """A pooling of axes of pixels beside others; the graph is told how many pixels are left where they are read."""
    changed = [i for i, (a, b) in enumerate(zip(shape_of(node.args[0]), shape_of(node), strict=True)) if a != b]
    if any(part.step for i in changed for part in x.axes[i]):
        return None
    pooled = ops.unary(node, kind, x)
    sizes = shape_of(node)
    return replace(pooled, axes=tuple(channels_along([sizes[i]], -1)[0] if i in changed else a for i, a in enumerate(x.axes)))


def _pool_line(ops: TracedOps, node: fx.Node, x: Features, *_: Any) -> Features | None:
    return _pooled_windows(ops, node, x, "avg_pool")


def _adaptive(kind: str) -> Reader:
    def read(ops: TracedOps, node: fx.Node, x: Features, size: Sequence[int]) -> Features | None:
        return _pooled_to(ops, node, x, kind, size) if is_map(node.args[0], x) else None

    return read


def _pooled_to(ops: TracedOps, node: fx.Node, x: Features, kind: str, size: Sequence[int]) -> Features:
    """Pooled to `size`, (height, width), by equal windows, or by windows of different sizes."""
    before = shape_of(node.args[0])[2:]
    if before == list(size):
        return x
    if list(size) == [1, 1] and kind == "avg_pool":
        return ops.resized(node, "global_avg_pool", x)
    if any(b % a for b, a in zip(before, size, strict=True)):
        return ops.fitted(node, ops.resized(node, kind, x))
    kernel = (before[0] // size[0], before[1] // size[1])
    return ops.resized(node, kind, x, **_window_fields(kernel, kernel, (0, 0)))


def _resize(ops: TracedOps, node: fx.Node, x: Features, *_: Any, **__: Any) -> Features | None:
    if not is_map(node.args[0], x):
        return None
    before, after = shape_of(node.args[0])[2:], shape_of(node)[2:]
    if before == after:
        return x
    scale = after[0] // before[0]
    if after == [scale * size for size in before]:
        return ops.resized(node, "upsample", x, scale=scale)
    return fit(ops, node, x)


def _elementwise(ops: TracedOps, node: fx.Node, x: Value, y: Value = None, *_: Any, **__: Any) -> Features | None:
    """Two tensors of the image, or one and a constant."""
    if not isinstance(x, Features):
        return _with_constant(ops, node, y, x, 1) if isinstance(y, Features) else None
    if not isinstance(y, Features):
        return _with_constant(ops, node, x, y, 0)
    before, other = (shape_of(arg) for arg in node.args[:2])
    name = operation_name(node)
    axis = x.axis if y.channels or not x.channels else next(iter(_where(x)), None)
    widths = {ops.channels(x), ops.channels(y)}
    if axis is None or len(before) != len(other) or not holds(x.axes, axis) or not holds(y.axes, axis):
        return products.elementwise(ops, node, x, y)
    if name == "add" and before == other:
        merged = ops.merge_rep_conv(node, x, y)
        if merged:
            return merged
        inputs = ops.of_one_size(node, [x, y])
        return replace(x, op=ops.append("add", tuple(inputs), ops.channels(x), name_in_module(node, "add")))
    if len(widths) > 1 and 1 not in widths:
        return None
    kind = "join" if before[2:] == other[2:] and axis == 1 else "broadcast"
    pair_of_ops = ops.of_one_size(node, [x, y]) if kind == "join" else [x.op, y.op]
    made = ops.append(kind, tuple(pair_of_ops), max(widths), name_in_module(node, name))
    return Features(made, channels_along(shape_of(node), axis))


def _where(x: Features) -> list[int]:
    return [axis for axis, parts in enumerate(x.axes) if any(part.step for part in parts)]


def _with_constant(ops: TracedOps, node: fx.Node, x: Features, constant: Value, position: int) -> Features | None:
    """`x` is the argument at `position`. A factor of zero masks a channel."""
    learned = isinstance(constant, Constant) and bool(constant.parameters)
    wide = repeated(node, x)
    if wide is None or (wide != x and not learned and x.axis == 1 and not x.channels):
        return None
    if learned:
        return ops.unary(node, "gain", wide, learned=ops.count(constant))
    mask = constant.tensor if isinstance(constant, Constant) and operation_name(node) == "mul" else None
    return wide if mask is None or x.axis != 1 or wide != x else _masked(ops, node, x, mask)


def _fused(ops: TracedOps, node: fx.Node, a: Value, b: Value, c: Value, *_: Any, **__: Any) -> Features | None:
    """addcmul, lerp: constants and one tensor, or more, that are multiplied and added."""
    seen = [x for x in (a, b, c) if isinstance(x, Features)]
    if len(seen) != 1:
        return None
    wide = repeated(node, seen[0])
    others = [x for x in (a, b, c) if not isinstance(x, Features)]
    return wide and ops.unary(node, "gain", wide, learned=ops.count(others))


def _filled(ops: TracedOps, node: fx.Node, x: Value, mask: Value, value: Value) -> Features | None:
    """masked_fill by a mask that does not depend on the image: an activation."""
    if not isinstance(x, Features) or not isinstance(mask, Constant) or parameters_of([value, mask]):
        return None
    return ops.unary(node, "act", x, "masked_fill") if shape_of(node) == shape_of(node.args[0]) else None


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
        part = replace(x, op=ops.cut(node, x.op, start, stop - start))
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

_PRODUCTS: dict[str, Reader] = {"matmul": matmul, "mm": matmul, "bmm": matmul, "addmm": addmm, "einsum": einsum}

JOINING = frozenset(
    (
        *_ELEMENTWISE,
        *_CONCATENATIONS,
        *_PRODUCTS,
        *("slice_scatter", "stack", "addcmul", "lerp", "masked_fill", "scaled_dot_product_attention"),
        *("type_as", "expand_as", "view_as", "reshape_as"),
    )
)
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
    "conv3d": _conv,
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv_transpose),
    "convolution": _convolution,
    "linear": linear,
    **_PRODUCTS,
    "scaled_dot_product_attention": products.attention,
    **dict.fromkeys(_NORMS, _norm),
    **dict.fromkeys(_UNARY, _activation),
    **dict.fromkeys(_IDENTITIES, _same),
    "detach": _detach,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "avg_pool1d": _pool_line,
    "adaptive_avg_pool1d": _pool_line,
    "adaptive_avg_pool2d": _adaptive("avg_pool"),
    "adaptive_max_pool2d": _adaptive("max_pool"),
    **dict.fromkeys(("mean", "sum", "logsumexp"), tensor_axes.reduced("avg_pool")),
    **dict.fromkeys(("amax", "amin"), tensor_axes.reduced("max_pool")),
    "linalg_vector_norm": tensor_axes.norm,
    **dict.fromkeys(("var", "std"), tensor_axes.variance),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax"), tensor_axes.softmax),
    **dict.fromkeys(_RESIZES, _resize),
    **dict.fromkeys(_CONCATENATIONS, tensor_axes.cat),
    "stack": tensor_axes.stack,
    **dict.fromkeys(("split", "split_with_sizes"), tensor_axes.split),
    "chunk": tensor_axes.chunk,
    "unbind": tensor_axes.unbind,
    "select": tensor_axes.select,
    "slice": tensor_axes.cut_range,
    "slice_scatter": slice_scatter,
    "narrow": tensor_axes.narrow,
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten", "unsqueeze", "squeeze"), tensor_axes.view),
    **dict.fromkeys(("view_as", "reshape_as"), tensor_axes.view),
    "permute": tensor_axes.permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), tensor_axes.transpose),
    **dict.fromkeys(("t", "numpy_T", "mT", "matrix_T"), tensor_axes.matrix_transpose),
    **dict.fromkeys(("movedim", "moveaxis"), tensor_axes.movedim),
    **dict.fromkeys(("expand", "expand_as"), tensor_axes.expand),
    "repeat": tensor_axes.repeat,
    "roll": tensor_axes.roll,
    "flip": tensor_axes.flip,
    "index": tensor_axes.index,
    "repeat_interleave": tensor_axes.repeat_interleave,
    "index_select": tensor_axes.index_select,
    "unfold": tensor_axes.windows,
    "im2col": tensor_axes.im2col,
    "col2im": tensor_axes.col2im,
    "cumsum": tensor_axes.cumulated,
    **dict.fromkeys(("pad", "constant_pad_nd"), tensor_axes.pad),
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(("addcmul", "lerp"), _fused),
    "masked_fill": _filled,
}
"""By the operation's name, without overload and in-place mark. Any other operation makes an opaque value."""
