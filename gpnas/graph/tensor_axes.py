"""Readers of the operations that move, cut, join and sum the axes of a tensor: views, slices, concatenations, means, softmax.

They follow channels through any axes (`axes.py`). A reader returns None where elements of different channels end up in one
place of an axis, as in a view that divides channels and pixels unevenly; that makes an opaque value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import fx

from gpnas.graph.axes import Axes, Part, channels_along, holds, in_order, pixels, reshaped
from gpnas.graph.moved_channels import rebuilt, reordered, repeated, selected
from gpnas.graph.traced_values import (
    Constant,
    Features,
    TracedOps,
    Value,
    name_in_module,
    shape_of,
)


def is_map(node: Any, x: Features) -> bool:
    """Whether the value `x` of `node` has the axes (batch, channels, height, width)."""
    return x.axis == 1 and len(shape_of(node)) == 4


def fit(ops: TracedOps, node: fx.Node, x: Features) -> Features:
    """Cut, repeat or pad pixels to the size of `node`; channels stay as they are."""
    rows, columns = shape_of(node)[2:]
    made = ops.unary(node, "fit", x, size=(rows, columns))
    return replace(made, axes=channels_along(shape_of(node), 1))


def _has_channels(x: Features, axis: int) -> bool:
    return any(part.step for part in x.axes[axis])


def _pixels_as_in(node: fx.Node, x: Features) -> Features:
    """`x` with the sizes that axes of pixels have in `node`, which has as many axes."""
    sizes = zip(x.axes, shape_of(node), strict=True)
    return replace(x, axes=tuple(parts if any(part.step for part in parts) else pixels(size) for parts, size in sizes))


def view(ops: TracedOps, node: fx.Node, x: Features, *_: Any, **__: Any) -> Features | None:
    """Channels of several axes that come together in one are put in their new order."""
    axes = reshaped(x.axes, shape_of(node))
    if axes is None:
        return None
    together = [i for i, parts in enumerate(axes) if any(part.step for part in parts)]
    if len(together) == 1 and len(axes[together[0]]) > 1 and all(part.step for part in axes[together[0]]):
        return Features(reordered(ops, node, x.op, axes[together[0]]), channels_along(shape_of(node), together[0]))
    return Features(x.op, axes)


def permute(_: TracedOps, __: fx.Node, x: Features, dims: Sequence[int]) -> Features:
    return replace(x, axes=tuple(x.axes[d] for d in dims))


def transpose(ops: TracedOps, node: fx.Node, x: Features, a: int, b: int) -> Features:
    order = list(range(len(x.axes)))
    order[a], order[b] = order[b], order[a]
    return permute(ops, node, x, order)


def matrix_transpose(ops: TracedOps, node: fx.Node, x: Features) -> Features:
    return transpose(ops, node, x, -2, -1) if len(x.axes) > 1 else x


def movedim(_: TracedOps, __: fx.Node, x: Features, source: Any, destination: Any) -> Features:
    rank = len(x.axes)
    froms, tos = ([d % rank for d in ([dims] if isinstance(dims, int) else dims)] for dims in (source, destination))
    others = iter(axis for axis in range(rank) if axis not in froms)
    order = [froms[tos.index(axis)] if axis in tos else next(others) for axis in range(rank)]
    return replace(x, axes=tuple(x.axes[d] for d in order))


def split(ops: TracedOps, node: fx.Node, x: Features, sizes: int | Sequence[int], dim: int = 0) -> list[Features] | None:
    axis = dim % len(x.axes)
    total = shape_of(node.args[0])[axis]
    widths = [min(sizes, total - start) for start in range(0, total, sizes)] if isinstance(sizes, int) else sizes
    parts = [selected(ops, node, x, axis, sum(widths[:i]), width) for i, width in enumerate(widths)]
    return None if None in parts else [part for part in parts if part is not None]


def chunk(ops: TracedOps, node: fx.Node, x: Features, chunks: int, dim: int = 0) -> list[Features] | None:
    return split(ops, node, x, math.ceil(shape_of(node.args[0])[dim] / chunks), dim)


def unbind(ops: TracedOps, node: fx.Node, x: Features, dim: int = 0) -> list[Features] | None:
    parts = split(ops, node, x, 1, dim)
    return parts and [_without_axis(part, dim % len(x.axes)) for part in parts]


def select(ops: TracedOps, node: fx.Node, x: Features, dim: int, index: int) -> Features | None:
    axis = dim % len(x.axes)
    part = selected(ops, node, x, axis, index % shape_of(node.args[0])[axis], 1)
    return part and _without_axis(part, axis)


def _without_axis(x: Features, axis: int) -> Features:
    return replace(x, axes=(*x.axes[:axis], *x.axes[axis + 1 :]))


def cut_range(
    ops: TracedOps, node: fx.Node, x: Features, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Features | None:
    shape = shape_of(node.args[0])
    axis = dim % len(shape)
    first, last, step = slice(start, end, step).indices(shape[axis])
    if axis == 0 and not _has_channels(x, 0):
        return _pixels_as_in(node, x)
    if first == 0 and last == shape[axis] and step == 1:
        return x
    if _has_channels(x, axis):
        if step > 1:
            return _every(ops, node, x, axis, first, last, step)
        return selected(ops, node, x, axis, first, last - first) if last > first else None
    return fit(ops, node, x) if is_map(node.args[0], x) else _pixels_as_in(node, x)


def _every(ops: TracedOps, node: fx.Node, x: Features, axis: int, first: int, last: int, step: int) -> Features | None:
    """Each `step`-th channel along an axis whose size is a multiple of `step`."""
    parts = x.axes[axis]
    if len(parts) != 1 or parts[0].size % step or first >= step or last <= parts[0].size - step + first:
        return None
    (size, distance), rest = parts[0], x.axes[axis + 1 :]
    apart = (Part(size // step, distance * step),) if size > step else ()
    divided = Features(x.op, (*x.axes[:axis], apart, (Part(step, distance),), *rest))
    chosen = selected(ops, node, divided, axis + 1, first, 1)
    return chosen and _without_axis(chosen, axis + 1)


def narrow(ops: TracedOps, node: fx.Node, x: Features, dim: int, start: int, length: int) -> Features | None:
    return cut_range(ops, node, x, dim, start, start + length)


def expand(_: TracedOps, node: fx.Node, x: Features, *__: Any, **___: Any) -> Features | None:
    return repeated(node, x)


def repeat(_: TracedOps, node: fx.Node, x: Features, times: Sequence[int], *__: Any, **___: Any) -> Features | None:
    axes: list[tuple[Part, ...]] = [*([()] * (len(times) - len(x.axes))), *x.axes]
    for i, number in enumerate(times):
        if number > 1 and any(part.step for part in axes[i]):
            return None
    return _pixels_as_in(node, replace(x, axes=tuple(axes)))


def roll(_: TracedOps, __: fx.Node, x: Features, shifts: Any, dims: Any = ()) -> Features | None:
    """Pixels that go round. Without `dims`, all elements do, channels too."""
    axes = [dims] if isinstance(dims, int) else dims
    return None if not axes or any(_has_channels(x, axis) for axis in axes) else x


def flip(ops: TracedOps, node: fx.Node, x: Features, dims: Any) -> Features | None:
    return roll(ops, node, x, 0, dims)


def index(_: TracedOps, node: fx.Node, x: Features, indices: Sequence[Value]) -> Features | None:
    """One tensor of indices into an axis of pixels, or several into neighbouring ones."""
    used = [i for i, chosen in enumerate(indices) if chosen is not None]
    if not used or not all(isinstance(indices[i], Constant) for i in used) or any(_has_channels(x, i) for i in used):
        return None
    if used != list(range(used[0], used[-1] + 1)):
        return None
    shape = shape_of(node)
    made = len(shape) - (len(x.axes) - len(used))
    new = tuple(pixels(size) for size in shape[used[0] : used[0] + made])
    return replace(x, axes=(*x.axes[: used[0]], *new, *x.axes[used[-1] + 1 :]))


def repeat_interleave(_: TracedOps, node: fx.Node, x: Features, __: Any, dim: int | None = None, **___: Any) -> Features | None:
    return None if dim is None or _has_channels(x, dim) else _pixels_as_in(node, x)


def index_select(_: TracedOps, node: fx.Node, x: Features, dim: int, chosen: Value) -> Features | None:
    return None if _has_channels(x, dim) or not isinstance(chosen, Constant) else _pixels_as_in(node, x)


def windows(_: TracedOps, node: fx.Node, x: Features, dim: int, size: int, step: int) -> Features | None:
    """Tensor.unfold: windows along an axis of pixels, as a last axis."""
    if _has_channels(x, dim):
        return None
    return _pixels_as_in(node, replace(x, axes=(*x.axes, pixels(size))))


def im2col(_: TracedOps, node: fx.Node, x: Features, *args: Any) -> Features | None:
    """F.unfold: (batch, channels x window, windows)"""
    if not is_map(node.args[0], x):
        return None
    channels, of_windows = shape_of(node.args[0])[1], shape_of(node)[1:]
    along_channels = (*channels_along([channels], 0)[0], *pixels(of_windows[0] // channels))
    return Features(x.op, (x.axes[0], along_channels, pixels(of_windows[1])))


def col2im(ops: TracedOps, node: fx.Node, x: Features, *args: Any) -> Features | None:
    """F.fold: (batch, channels x window, windows) -> (batch, channels, height, width)"""
    shape = shape_of(node)
    window = shape_of(node.args[0])[1] // shape[1]
    axes = reshaped(x.axes, [shape_of(node.args[0])[0], shape[1], window, shape_of(node.args[0])[2]])
    if axes is None or any(part.step for parts in (axes[0], axes[3]) for part in parts):
        return None
    op = rebuilt(ops, node, Features(x.op, axes), axes[1])
    return Features(op, channels_along(shape, 1)) if ops[op].channels == shape[1] else None


def pad(
    ops: TracedOps, node: fx.Node, x: Features, padding: Sequence[int], mode: Any = "constant", *_: Any, **__: Any
) -> Features | None:
    """More pixels, or channels of zeros. Channels that share an axis with pixels are pixels after it."""
    before, after = shape_of(node.args[0]), shape_of(node)
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    of_channels = [i for i in changed if _has_channels(x, i)]
    if not of_channels and not (x.axis == 1 and not x.channels and 1 in changed):
        return fit(ops, node, x) if is_map(node.args[0], x) and before[0] == after[0] else _pixels_as_in(node, x)
    if mode in ("reflect", "replicate", "circular"):
        return None
    axis = changed[0]
    if len(changed) == 1 and holds(x.axes, axis):
        first = padding[2 * (len(before) - 1 - axis)]
        if first < 0 or after[axis] - first < before[axis]:
            return None
        zeros = [Constant(node.name)] * 2
        widths = [first, after[axis] - before[axis] - first]
        parts = [(zeros[0], widths[0]), (x, before[axis]), (zeros[1], widths[1])]
        some = [(part, [*before[:axis], width, *before[axis + 1 :]]) for part, width in parts if width]
        return _joined(ops, node, [part for part, _ in some], [shape for _, shape in some], axis)
    wanted = [part for i, parts in enumerate(x.axes) if i not in of_channels for part in parts if part.step]
    steps = dict(zip(wanted, in_order(wanted), strict=True))
    kept = tuple(
        pixels(after[i]) if i in changed else tuple(steps.get(part, part) for part in parts) for i, parts in enumerate(x.axes)
    )
    return Features(rebuilt(ops, node, x, wanted), kept)


def reduced(kind: str) -> Any:
    """A reader of a sum, mean, maximum or norm over axes. Over pixels it is a pooling; over channels it mixes them."""

    def read(
        ops: TracedOps, node: fx.Node, x: Features, dims: Any = None, keepdim: bool = False, *_: Any, **__: Any
    ) -> Features | None:
        return over_axes(ops, node, x, kind, dims, keepdim)

    return read


def norm(
    ops: TracedOps, node: fx.Node, x: Features, order: Any = 2, dims: Any = None, keepdim: bool = False, **_: Any
) -> Features | None:
    return over_axes(ops, node, x, "avg_pool", dims, keepdim)


def variance(
    ops: TracedOps, node: fx.Node, x: Features, dims: Any = None, *_: Any, keepdim: bool = False, **__: Any
) -> Features | None:
    return over_axes(ops, node, x, "avg_pool", dims, keepdim)


def over_axes(ops: TracedOps, node: fx.Node, x: Features, kind: str, dims: Any, keepdim: bool) -> Features | None:
    """`x` without the axes `dims`, or with one element in each. None for a reduction over images."""
    rank = len(x.axes)
    if dims is None or dims == []:
        return None
    over = {d % rank for d in ([dims] if isinstance(dims, int) else dims)}
    if 0 in over and x.axis == 1 and shape_of(node.args[0])[0] > 1:
        return None
    kept: Axes = tuple(() if axis in over else parts for axis, parts in enumerate(x.axes))
    smaller = Features(0, kept).pixels < x.pixels
    lost = any(part.step for axis in over for part in x.axes[axis])
    if lost:
        wanted = [part for parts in kept for part in parts if part.step]
        steps = dict(zip(wanted, in_order(wanted), strict=True))
        x = Features(rebuilt(ops, node, x, wanted), tuple(tuple(steps.get(part, part) for part in a) for a in x.axes))
        kept = tuple(tuple(steps.get(part, part) for part in parts) for parts in kept)
    if smaller:
        one = ops.rows(Features(0, kept)) == (1, 1)
        if one and kind != "max_pool":
            x = ops.unary(node, "global_avg_pool", x)
        elif one and not lost and is_map(node.args[0], x):
            rows, columns = shape_of(node.args[0])[2:]
            window: dict[str, Any] = {} if rows == columns else {"window": (columns, columns, 0)}
            x = ops.unary(node, kind, ops.fitted(node, x), kernel=rows, stride=rows, **window)
        else:
            x = ops.unary(node, kind, x)
    axes = kept if keepdim else tuple(parts for axis, parts in enumerate(kept) if axis not in over)
    return Features(x.op, axes)


def softmax(ops: TracedOps, node: fx.Node, x: Features, dim: int, *_: Any, **__: Any) -> Features:
    """Over pixels it is an activation. Over channels each result depends on all of them."""
    if not _has_channels(x, dim):
        return ops.unary(node, "act", x, "softmax")
    axis = dim % len(x.axes)
    here = [part for part in x.axes[axis] if part.step]
    order = [*(part for part in x.channels if part not in here), *here]
    wanted = [Part(part.size) if part in here else part for part in order]
    steps = dict(zip(order, in_order(order), strict=True))
    return Features(rebuilt(ops, node, x, wanted), tuple(tuple(steps.get(part, part) for part in a) for a in x.axes))


def cumulated(_: TracedOps, __: fx.Node, x: Features, dim: int, *args: Any, **kwargs: Any) -> Features | None:
    return None if _has_channels(x, dim) else x


def cat(ops: TracedOps, node: fx.Node, xs: Sequence[Value], dim: int = 0) -> Features | None:
    """Concatenated along channels, or stacked along an axis of pixels. Constants among them do not see the image."""
    shapes = [shape_of(arg) for arg in node.args[0]]  # type: ignore[union-attr]
    xs = [x for x, shape in zip(xs, shapes, strict=True) if math.prod(shape)]
    shapes = [shape for shape in shapes if math.prod(shape)]
    return _joined(ops, node, xs, shapes, dim % len(shape_of(node)))


def _joined(ops: TracedOps, node: fx.Node, xs: Sequence[Value], shapes: Sequence[list[int]], at: int) -> Features | None:
    first = next((x for x in xs if isinstance(x, Features)), None)
    if first is None or not all(isinstance(x, Features | Constant) for x in xs):
        return None
    seen = [x for x in xs if isinstance(x, Features)]
    if len(xs) == 1:
        return first
    axis = _common_axis(seen, at)
    if axis == at and axis is not None:
        sized = iter(ops.of_one_size(node, seen))
        inputs = [
            next(sized) if isinstance(x, Features) else _constant(ops, node, x, first, shape[at])
            for x, shape in zip(xs, shapes, strict=True)
        ]
        made = ops.append("concat", tuple(inputs), sum(shape[at] for shape in shapes), name_in_module(node, "concat"))
        return Features(made, channels_along(shape_of(node), at))
    if any(_has_channels(x, at) for x in seen):
        return _along_parted_channels(ops, node, xs, shapes, at)
    if any(_patterns(x, at) != _patterns(first, at) for x in seen):
        return None
    if at == 0 and first.axis == 1:
        return None  # more images
    channels = ops.channels(first)
    inputs = [
        ops.fitted(node, _numbered_as(ops, node, x, first)).op
        if isinstance(x, Features)
        else _constant(ops, node, x, first, channels)
        for x in xs
    ]
    made = ops.append("stack", tuple(inputs), channels, name_in_module(node, "stack"))
    return _pixels_as_in(node, Features(made, first.axes))


def _numbered_as(ops: TracedOps, node: fx.Node, x: Features, like: Features) -> Features:
    """`x` with its channels in the order of those of `like`, which lie along the same axes."""
    places = sorted(range(len(like.channels)), key=lambda i: -like.channels[i].step)
    op = reordered(ops, node, x.op, [x.channels[i] for i in places])
    steps = dict(zip(x.channels, like.channels, strict=True))
    return Features(op, tuple(tuple(steps.get(part, part) for part in parts) for parts in x.axes))


def _common_axis(xs: Sequence[Features], at: int) -> int | None:
    """The axis of the channels of all of them: `at`, if they may lie there."""
    if all(holds(x.axes, at) for x in xs) and (any(x.channels for x in xs) or at == xs[0].axis):
        return at
    axes = {x.axis for x in xs}
    return axes.pop() if len(axes) == 1 else None


def _constant(ops: TracedOps, node: fx.Node, x: Constant, like: Features, channels: int) -> int:
    return ops.append("zero", (like.op,), channels, name_in_module(node, "constant"), learned=ops.count(x))


def _patterns(x: Features, but: int) -> list[list[tuple[int, bool]]]:
    """The sizes of channel parts on every axis but one."""
    return [[(part.size, True) for part in parts if part.step] for axis, parts in enumerate(x.axes) if axis != but]


def _along_parted_channels(
    ops: TracedOps, node: fx.Node, xs: Sequence[Value], shapes: Sequence[list[int]], at: int
) -> Features | None:
    """Along one of several axes of channels, as heads or the channels of a head."""
    first = next(x for x in xs if isinstance(x, Features))
    inputs, total = [], 0
    if any(isinstance(x, Features) and (len(x.axes[at]) > 1 or _patterns(x, at) != _patterns(first, at)) for x in xs):
        return None
    others = [part for axis, parts in enumerate(first.axes) if axis != at for part in parts if part.step]
    width = math.prod(part.size for part in others)
    for x, shape in zip(xs, shapes, strict=True):
        total += shape[at]
        if isinstance(x, Features):
            mine = [part for axis, parts in enumerate(x.axes) if axis != at for part in parts if part.step]
            inputs.append(reordered(ops, node, ops.fitted(node, x).op, [*x.axes[at], *mine]))
        else:
            inputs.append(_constant(ops, node, x, first, shape[at] * width))
    steps = dict(zip(others, in_order(others), strict=True))
    made = ops.append("concat", tuple(inputs), total * width, name_in_module(node, "concat"))
    axes = [tuple(steps.get(part, part) for part in parts) for parts in first.axes]
    axes[at] = (Part(total, width),)
    return Features(made, tuple(axes))


def stack(ops: TracedOps, node: fx.Node, xs: Sequence[Value], dim: int = 0) -> Features | None:
    """Along a new axis, whose elements are kept apart as channels are."""
    at = dim % len(shape_of(node))
    seen = [x for x in xs if isinstance(x, Features)]
    first = next(iter(seen), None)
    if first is None or len(seen) != len(xs) or any(_patterns(x, -1) != _patterns(first, -1) for x in seen):
        return None
    inputs = ops.of_one_size(node, [_numbered_as(ops, node, x, first) for x in seen])
    width = ops.channels(first)
    made = ops.append("concat", tuple(inputs), width * len(xs), name_in_module(node, "concat"))
    new = (Part(len(xs), width),) if len(xs) > 1 else ()
    return Features(made, (*first.axes[:at], new, *first.axes[at:]))
