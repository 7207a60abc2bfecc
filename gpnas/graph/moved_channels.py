"""Another order of channels, and channels that become pixels or pixels that become channels, as operations of a graph.

An operation reads channels along one axis of a tensor. Where channels lie elsewhere (heads, tokens that are mixed, a gate over
pixels), the graph gets operations that bring them there: a `shuffle`, slices that are concatenated, or a `mix`, which has no
weights, and in which each output channel of a group depends on every input channel of that group.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import fx

from gpnas.graph.axes import Axes, Part, channels_along, flattened, holds, in_order
from gpnas.graph.traced_values import Features, TracedOps, name_in_module, shape_of

FEW = 16
"""A sum of at most so many spans of channels is written out, as slices that are added."""

SPANS = 512
"""Another order, or copies, of at most so many spans of channels is written out, as slices that are concatenated."""


def along(ops: TracedOps, node: fx.Node, x: Features, axis: int) -> Features:
    """`x` with its channels along `axis` alone. Channels that lay elsewhere become pixels, and pixels along `axis` channels."""
    if holds(x.axes, axis):
        return x
    shape = [math.prod(part.size for part in parts) for parts in x.axes]
    return Features(rebuilt(ops, node, x, x.axes[axis]), channels_along(shape, axis))


def rebuilt(ops: TracedOps, node: fx.Node, x: Features, wanted: Sequence[Part]) -> int:
    """An operation whose channels are the parts `wanted`, in that order.

    Parts with a step are channel parts of `x`. Those without are new: each of their channels depends on all channels of `x`
    that agree in the other parts. Channel parts of `x` that are not wanted are summed.
    """
    kept = [part for part in wanted if part.step]
    new = [part for part in wanted if not part.step]
    lost = [part for part in x.channels if part not in kept]
    sums, copies, groups = (math.prod(part.size for part in parts) for parts in (lost, new, kept))
    if sums == copies == 1:
        return reordered(ops, node, x.op, kept)
    rising = sorted(kept, key=lambda part: -part.step)
    if copies == 1 and sums <= FEW and all(a.step > b.step for a in lost for b in kept):
        total = ops.cut(node, x.op, 0, groups)
        for i in range(1, sums):
            span = ops.cut(node, x.op, i * groups, groups)
            total = ops.append("add", (total, span), groups, name_in_module(node, "sum"))
        return reordered(ops, node, total, _renumbered(kept, rising))
    if sums == 1 and groups > 1 and wanted[-1].step:  # copies of spans
        one = reordered(ops, node, x.op, kept)
        numbered = iter(in_order(kept))
        placed = flattened((tuple(next(numbered) if part.step else part for part in wanted),))
        if groups * copies // placed[-1].size <= SPANS:
            return spans(ops, node, one, placed)
    ordered = reordered(ops, node, x.op, [*kept, *lost])
    mixed = ops.append("mix", (ordered,), groups * copies, name_in_module(node, "mix"), groups=groups)
    return reordered(ops, node, mixed, _renumbered(wanted, [*kept, *new]))


def _renumbered(wanted: Sequence[Part], present: Sequence[Part]) -> list[Part]:
    """The parts `wanted`, with their steps in channels that are ordered as `present`."""
    waiting = list(zip(present, in_order(present), strict=True))
    result = []
    for part in wanted:
        at = next(i for i, (old, _) in enumerate(waiting) if old == part)
        result.append(waiting.pop(at)[1])
    return result


def reordered(ops: TracedOps, node: fx.Node, op: int, parts: Sequence[Part]) -> int:
    """An operation with the channels of `op` in the order of `parts`, the last one fastest. `parts` holds all channels."""
    merged = [part for part in flattened((tuple(parts),)) if part.size > 1]
    channels = math.prod(part.size for part in merged)
    if len(merged) < 2:
        return op
    if len(merged) == 2:
        return ops.append("shuffle", (op,), channels, name_in_module(node, "shuffle"), groups=merged[1].size)
    if merged[-1].step == 1 and channels // merged[-1].size <= SPANS:
        return spans(ops, node, op, merged)
    first, others = merged[0], merged[1:]
    if first.step * first.size == channels:  # it is in its place: order the others for each of its elements
        each = (ops.cut(node, op, i * first.step, first.step) for i in range(first.size))
        ordered = tuple(reordered(ops, node, one, others) for one in each)
        return ops.append("concat", ordered, channels, name_in_module(node, "reorder"))
    order = sorted(merged, key=lambda part: (part.step > first.step, -part.step))  # a rotation that brings it to the front
    return reordered(ops, node, reordered(ops, node, op, order), _renumbered(merged, order))


def spans(ops: TracedOps, node: fx.Node, op: int, parts: Sequence[Part]) -> int:
    """The channels of `op` in the order of `parts`, as slices that are concatenated. A part without a step repeats them."""
    width = parts[-1].size
    starts = [[i * part.step for i in range(part.size)] for part in parts[:-1]]
    cuts: dict[int, int] = {}
    inputs = []
    for start in map(sum, itertools.product(*starts)):
        if start not in cuts:
            cuts[start] = ops.cut(node, op, start, width)
        inputs.append(cuts[start])
    return ops.append("concat", tuple(inputs), width * len(inputs), name_in_module(node, "reorder"))


def leading(ops: TracedOps, node: fx.Node, x: Features, part: Part) -> Features:
    """`x` with the channels in such an order that those with equal positions in `part` follow each other."""
    order = sorted(x.channels, key=lambda other: (other != part, -other.step))
    return Features(reordered(ops, node, x.op, order), _with_steps(x.axes, order))


def _with_steps(axes: Axes, order: Sequence[Part]) -> Axes:
    """The same parts, whose channels are now numbered in `order`."""
    steps = dict(zip(order, in_order(order), strict=True))
    return tuple(tuple(steps.get(part, part) for part in axis) for axis in axes)


def selected(ops: TracedOps, node: fx.Node, x: Features, axis: int, start: int, width: int) -> Features | None:
    """The elements [start, start + width) along `axis`, which stays; None when channels and pixels share the axis."""
    parts = x.axes[axis]
    if not any(part.step for part in parts):
        kept = (Part(width),) if width > 1 else ()
        return Features(x.op, (*x.axes[:axis], kept, *x.axes[axis + 1 :]))
    if len(parts) != 1:
        return None
    first = leading(ops, node, x, parts[0])
    step = first.axes[axis][0].step
    kept = (Part(width, step),) if width > 1 else ()
    return Features(ops.cut(node, first.op, start * step, width * step), (*first.axes[:axis], kept, *first.axes[axis + 1 :]))


def repeated(node: fx.Node, x: Features) -> Features | None:
    """`x` broadcast to the shape of `node`: axes of one element, and new ones in front, become pixels."""
    shape = shape_of(node)
    axes = ((),) * (len(shape) - len(x.axes)) + x.axes
    if any(parts and math.prod(part.size for part in parts) != size for parts, size in zip(axes, shape, strict=True)):
        return None
    filled = (parts or ((Part(size),) if size > 1 else ()) for parts, size in zip(axes, shape, strict=True))
    return Features(x.op, tuple(filled))
