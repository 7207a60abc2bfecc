"""Writes in place: `y[:, :4] = z`, `y[:, :4] += z`, `y.narrow(1, 0, 4).copy_(z)`; and what tensors of that memory hold then.

A graph has no memory, only tensors. A write of whole channels makes a new tensor: the channels before, the written ones and
the channels after, concatenated. From then on every tensor of that memory is a part of the new one. Which part, the strides
that torch.export keeps of each tensor tell. A write into some of the pixels of a range of channels keeps what was there for the
others, so these channels have both writers. Any other write makes an opaque value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor, fx

from gpnas.errors import TraceError
from gpnas.graph.axes import Axes, channels_along, holds
from gpnas.graph.traced_values import (
    Constant,
    Features,
    Opaque,
    TracedOps,
    Value,
    images,
    name_in_module,
    opaque,
    operation_name,
    parameters_of,
    place,
    shape_of,
)


class _Layout(NamedTuple):
    """Where the elements of a tensor lie in its memory."""

    storage: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def elements(self) -> int:
        number = 1
        for size in self.shape:
            number *= size
        return number


@dataclass
class _Memory:
    """The tensors that show the same values. `whole` is the first of them, of which the others are views."""

    whole: fx.Node
    value: Value
    """The present value of `whole`."""
    storage: int
    version: int = 0
    lost: str = ""
    """The write that changed the values behind the back of autograd, and its place."""


@dataclass
class _Tensor:
    """A node's value, which holds until its memory has a newer version."""

    memory: _Memory | None
    value: Value
    version: int = 0


class Memories:
    """The value of every node, after the writes so far."""

    def __init__(self, ops: TracedOps, graph: fx.Graph) -> None:
        self._ops = ops
        self._graph = graph
        self._tensors: dict[fx.Node, _Tensor] = {}
        self._by_storage: dict[int, list[_Memory]] = {}

    def __getitem__(self, node: fx.Node) -> Value:
        """The present value of `node`."""
        tensor = self._tensors[node]
        memory = tensor.memory
        if memory is not None and tensor.version != memory.version and not isinstance(tensor.value, list):
            tensor.value, tensor.version = self._part(node, tensor.value, memory), memory.version
        return tensor.value

    def __setitem__(self, node: fx.Node, value: Value) -> None:
        """Remember what `node` computes."""
        memory = self._memory(node, value)
        self._tensors[node] = _Tensor(memory, value, memory.version if memory else 0)
        self._ops.hold(node, value)

    def write(self, node: fx.Node, value: Value) -> Value:
        """`node` writes `value` in place. Returns what its result holds. Raises TraceError when it writes several tensors."""
        target, *others = _written(node)
        if others or not isinstance(target, fx.Node):
            if not images(value):
                return value
            raise TraceError(f"{_operation(node)} at {place(node)}: changes several tensors in place; write them one by one")
        memory, layout, before = self._tensors[target].memory, _layout(target), self[target]
        if memory is None or layout is None or not layout.elements or _copies_itself(node):
            return before
        group = self._by_storage[memory.storage]
        if not images([value, *(other.value for other in group)]):
            memory.value = Constant(node.name, parameters=parameters_of([memory.value, value]))
            memory.version += 1
            return memory.value
        because = f"{_operation(node)} at {place(node)}, a write that autograd does not see"
        if memory.whole.graph is not node.graph or (node.graph is not self._graph and memory.whole.op == "placeholder"):
            because = f"{_operation(node)} at {place(node)}, a write under no_grad or autocast into a tensor from outside of it"
            _lose(group, because)
            return opaque(node, [before, value], because)
        _lose([other for other in group if other is not memory], because)
        memory.value = self._overwritten(node, target, before, value, memory)
        memory.version += 1
        return value

    def _memory(self, node: fx.Node, value: Value) -> _Memory | None:
        layout = _layout(node)
        if layout is None:
            return None
        for source in node.all_input_nodes:
            viewed = self._tensors.get(source)
            if viewed and viewed.memory and _is_view(node, source, layout):
                return viewed.memory
        memory = _Memory(node, value, layout.storage)
        self._by_storage.setdefault(layout.storage, []).append(memory)
        return memory

    def _part(self, node: fx.Node, old: Value, memory: _Memory) -> Value:
        """What `node`, which was `old`, shows of a memory that was written since."""
        if memory.lost:
            return opaque(node, [old, memory.value], memory.lost)
        now = memory.value
        if not isinstance(now, Features):
            return now
        where, whole = _layout(node), _layout(memory.whole)
        if where is None or whole is None:
            return opaque(node, now)
        if isinstance(old, Features):
            layout: Features | None = old
        else:
            found = _along(where, now, whole)
            layout = None if found is None else Features(now.op, channels_along(where.shape, found))
        if _same_elements(where, whole.shape, whole):
            return replace(layout, op=now.op) if layout else opaque(node, now)
        span = None if now.axis is None else _span(where, whole, now.axis)
        if span is None or layout is None:
            return opaque(node, now, f"{place(node)}, a part of a tensor that was written in place")
        return replace(layout, op=self._ops.cut(node, now.op, *span))

    def _overwritten(self, node: fx.Node, target: fx.Node, before: Value, value: Value, memory: _Memory) -> Value:
        """The value of the whole memory after `value` was written into `target`, which was `before`."""
        old = memory.value
        because = f"{_operation(node)} at {place(node)}, which writes a part of a tensor that is no range of channels"
        where, whole = _layout(target), _layout(memory.whole)
        if where is None or whole is None or isinstance(old, Opaque) or isinstance(value, Opaque):
            return opaque(node, [old, value], because)
        everything = _same_elements(where, whole.shape, whole)
        if everything and not isinstance(value, Features):
            return value
        axes = _axis(old, value, where, whole)
        if everything and isinstance(value, Features) and isinstance(before, Features) and value.axes == before.axes:
            return replace(old, op=value.op) if isinstance(old, Features) else opaque(node, [old, value], because)
        if axes is None:
            return opaque(node, [old, value], because)
        span = _span(where, whole, axes)
        if span is None:
            span = _touched(where, whole, axes)
            if span is None or (not isinstance(old, Features) and parameters_of(old)):
                return opaque(node, [old, value], because)
            if not isinstance(value, Features):
                return opaque(node, [old, value], because) if parameters_of(value) else old  # the other pixels stay
            if isinstance(old, Features):
                under = self._ops.cut(node, old.op, *span)
                both = self._ops.append("broadcast", (under, value.op), span[1], name_in_module(node, "written"))
                value = replace(value, op=both)
        return _joined(self._ops, node, old, value, channels_along(whole.shape, axes), span)


def _joined(ops: TracedOps, node: fx.Node, old: Value, value: Value, axes: Axes, span: tuple[int, int]) -> Features:
    """`old` with `value` in the channels (start, width) of `span`. axes: those of the result, one of which has the channels."""
    channels = math.prod(part.size for parts in axes for part in parts if part.step)
    start, stop = span[0], span[0] + span[1]
    shape_from = next(part.op for part in (value, old) if isinstance(part, Features))
    parts = []
    for first, last, part in ((0, start, old), (start, stop, value), (stop, channels, old)):
        if first == last:
            continue
        if not isinstance(part, Features):
            name = name_in_module(node, "constant")
            parts.append(ops.append("zero", (shape_from,), last - first, name, learned=ops.count(part)))
        elif part is value:
            parts.append(part.op)
        else:
            parts.append(ops.cut(node, part.op, first, last - first))
    if len(parts) == 1:
        return Features(parts[0], axes)
    return Features(ops.append("concat", tuple(parts), channels, name_in_module(node, "written")), axes)


def slice_scatter(
    ops: TracedOps, node: fx.Node, x: Value, part: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Value:
    """A copy of `x` with `part` in a range of its channels."""
    shape = shape_of(node)
    axis = dim % len(shape)
    first, last, step = slice(start, end, step).indices(shape[axis])
    seen = [value for value in (x, part) if isinstance(value, Features)]
    if step != 1 or last <= first or not seen or not all(holds(value.axes, axis) for value in seen):
        return None
    if not isinstance(x, Features | Constant) or not isinstance(part, Features | Constant):
        return None
    return _joined(ops, node, x, part, channels_along(shape, axis), (first, last - first))


def writes(node: fx.Node) -> bool:
    """Whether `node` changes a tensor in place. The statistics of a batch normalisation are not part of a graph."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable and "batch_norm" not in schema.name


def overwriting(node: fx.Node, args: Sequence[Value]) -> Value:
    """What `node` writes in place when it does not depend on the values that were there; else None."""
    name = operation_name(node)
    source = args[1] if len(args) > 1 else None
    if name == "copy" and images([source]):
        return source if shape_of(node.args[0]) == shape_of(node.args[1]) else None
    if name in ("copy", *_FILLS) and not images(args[1:]):
        return Constant(node.name, parameters=parameters_of(args[1:]))
    return None


_FILLS = ("fill", "zero", "normal", "uniform", "random", "bernoulli", "exponential")


def _written(node: fx.Node) -> list[Any]:
    """The arguments that `node` changes: nodes, or lists of nodes."""
    schema: Any = node.target._schema  # type: ignore[union-attr]
    changed = []
    for i, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            changed.append(node.args[i] if i < len(node.args) else node.kwargs.get(argument.name))
    return changed


def _operation(node: fx.Node) -> str:
    """The name of the operation with its in-place mark."""
    return str(node.target).removeprefix("aten.").split(".")[0]


def _layout(node: Any) -> _Layout | None:
    """None for a node whose value is no tensor. That of a list of views is the layout of the first."""
    value = node.meta.get("val")
    if isinstance(value, list | tuple) and value:
        value = value[0]
    if not isinstance(value, Tensor):
        return None
    numbers = (tuple(map(int, some)) for some in (value.shape, value.stride()))
    return _Layout(value.untyped_storage()._cdata, int(value.storage_offset()), *numbers)


def _is_view(node: fx.Node, source: fx.Node, layout: _Layout) -> bool:
    """Whether autograd takes `node`, which has `layout`, for `source` or for a view of it."""
    before, name = _layout(source), operation_name(node)
    if before is None:
        return False
    if before.storage == layout.storage:
        return name not in _NO_VIEWS
    # A dropout that drops nothing returns its input, though torch.export copies it.
    idle = name.endswith("dropout") and not (node.args[1] and node.args[2])
    return idle and before._replace(storage=layout.storage) == layout


_NO_VIEWS = ("detach", "wrap_with_set_grad_enabled", "wrap_with_autocast")


def _copies_itself(node: fx.Node) -> bool:
    """`y[:, :4] += z` adds in place, and then copies the result to where it is."""
    if operation_name(node) != "copy" or not all(isinstance(arg, fx.Node) for arg in node.args[:2]):
        return False
    target, source = node.args[:2]
    return _layout(target) == _layout(source)


def _lose(memories: Iterable[_Memory], because: str) -> None:
    for memory in memories:
        memory.lost = because
        memory.version += 1


def _compact(shape: tuple[int, ...], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """(size, stride) of the fewest axes that run through the same elements, in falling order of strides."""
    axes = sorted(((stride, size) for size, stride in zip(shape, strides, strict=True) if size != 1), reverse=True)
    merged: list[tuple[int, int]] = []
    for stride, size in axes:
        if merged and merged[-1][1] == size * stride:
            merged[-1] = (merged[-1][0] * size, stride)
        else:
            merged.append((size, stride))
    return merged


def _same_elements(view: _Layout, shape: tuple[int, ...], whole: _Layout, shift: int = 0) -> bool:
    """Whether `view` holds the elements of a tensor of `shape` at `shift` elements after the first of `whole`."""
    at = view.offset == whole.offset + shift
    return at and _compact(view.shape, view.strides) == _compact(shape, whole.strides)


def _span(view: _Layout, whole: _Layout, axis: int) -> tuple[int, int] | None:
    """(start, width) of the channels that `view` holds of `whole`, whose channels lie along `axis`; None for other elements."""
    channels, step = whole.shape[axis], whole.strides[axis]
    width = view.elements * channels // whole.elements
    shift = view.offset - whole.offset
    start = shift // step if step else 0
    shape = (*whole.shape[:axis], width, *whole.shape[axis + 1 :])
    inside = width > 0 and start >= 0 and start + width <= channels
    return (start, width) if inside and _same_elements(view, shape, whole, start * step) else None


def _touched(view: _Layout, whole: _Layout, axis: int) -> tuple[int, int] | None:
    """(start, width) of the channels of which `view` holds some pixels, the same ones of each; None for other elements."""
    dims = {stride: i for i, (size, stride) in enumerate(zip(whole.shape, whole.strides, strict=True)) if size > 1}
    widths = {dims.get(stride, -1): size for size, stride in zip(view.shape, view.strides, strict=True) if size > 1}
    left, start = view.offset - whole.offset, 0
    for stride, i in sorted(dims.items(), reverse=True):
        first, left = divmod(left, stride) if stride else (0, left)
        if first < 0 or first + widths.get(i, 1) > whole.shape[i]:
            return None
        start = first if i == axis else start
    return None if left or -1 in widths else (start, widths.get(axis, 1))


def _axis(old: Value, value: Value, view: _Layout, whole: _Layout) -> int | None:
    """The axis of the channels of `whole`, into which `value` is written as `view`; None when the channels of both do not lie
    along the same axis."""
    of_old = old.axis if isinstance(old, Features) else None
    if not isinstance(value, Features):
        return of_old
    if not value.has_channel_axis or (isinstance(old, Features) and of_old is None):
        return None
    found = _along(whole, value, view)
    return None if found is None or (of_old is not None and of_old != found) else found


def _along(where: _Layout, value: Features, known: _Layout) -> int | None:
    """The axis of `where` along which the channels of `value` lie, whose own axes are those of the layout `known`."""
    if value.axis is None:
        return None
    step = known.strides[value.axis]
    same = [axis for axis, (size, stride) in enumerate(zip(where.shape, where.strides, strict=True)) if stride == step and axis]
    wide = [axis for axis in same if where.shape[axis] > 1]
    found = wide if wide else same
    return found[0] if len(found) == 1 else None
