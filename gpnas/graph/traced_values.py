"""The values that flow through a trace, and the list of operations that a trace appends to.

Each node of an exported program has one value. `Features` is a tensor whose channels are those of one operation of the graph.
`Opaque` is a tensor that depends on the image in a way that a graph cannot describe. `Constant` does not depend on the image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor, fx
from torch.utils import _pytree as pytree

from gpnas.errors import TraceError
from gpnas.graph.axes import Axes, Part, channel_axis, channel_parts, channels_along
from gpnas.graph.cost import size_after
from gpnas.graph.graph import Op, parameters


class Parameter(NamedTuple):
    """A parameter of the traced module: its qualified name, and its number of elements."""

    name: str
    elements: int


class Uncounted(NamedTuple):
    """Parameters that an operation uses in a way that a graph cannot describe, and so does not count."""

    because: str
    """The operation and its place."""
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Features:
    """A tensor whose elements belong to the output channels of operation `op`, by its `axes`."""

    op: int
    axes: Axes

    @property
    def axis(self) -> int | None:
        """The axis that holds the channels, all of them in order, and nothing else; None when there is none."""
        return channel_axis(self.axes)

    @property
    def has_channel_axis(self) -> bool:
        return self.axis is not None

    @property
    def channels(self) -> list[Part]:
        """The parts that count channels, in the order of the axes."""
        return channel_parts(part for axis in self.axes for part in axis)

    @property
    def pixels(self) -> int:
        """The number of elements of each channel, over all images."""
        return math.prod(part.size for axis in self.axes for part in axis if not part.step)


@dataclass(frozen=True)
class Opaque:
    """A value computed from the operations `ops` in a way that a graph cannot describe."""

    ops: tuple[int, ...]
    because: str
    """The first operation that cannot be described, and its place."""
    uncounted: tuple[Uncounted, ...] = ()
    """The parameters that were used on the way and that no operation of the graph counts."""


@dataclass(frozen=True)
class Constant:
    """A value that does not depend on the image: a parameter, a buffer, or a value computed from them."""

    name: str
    tensor: Tensor | None = None
    """The values of a buffer; None for parameters and computed constants."""
    parameters: frozenset[Parameter] = frozenset()
    """The parameters that it is, or is computed from."""


Value = Any
"""Features, Opaque, Constant, a plain number, or a list of values."""


def images(values: Any) -> list[Features | Opaque]:
    """The values, however nested, that depend on the image."""
    return [value for value in pytree.tree_leaves(values) if isinstance(value, Features | Opaque)]


def opaque(node: fx.Node, values: Any, because: str = "") -> Opaque:
    """What `node` computes from `values` when a graph cannot describe it. because: by default, the operation and its place."""
    because = because or f"{operation_name(node)} at {place(node)}"
    parents = images(values)
    ops = dict.fromkeys(op for value in parents for op in operations(value))
    before = [value for value in parents if isinstance(value, Opaque)]
    uncounted = dict.fromkeys(some for value in before for some in value.uncounted)
    used = parameters_of(values)
    if used:
        uncounted[Uncounted(because, tuple(sorted(used)))] = None
    return Opaque(tuple(ops), before[0].because if before else because, tuple(uncounted))


def operations(value: Features | Opaque) -> tuple[int, ...]:
    """The operations that a value is computed from."""
    return value.ops if isinstance(value, Opaque) else (value.op,)


def parameters_of(values: Any) -> frozenset[Parameter]:
    """The parameters in the constants among the values, however nested."""
    constants = [value for value in pytree.tree_leaves(values) if isinstance(value, Constant)]
    return frozenset().union(*(constant.parameters for constant in constants))


def named(parameters: Iterable[Parameter], most: int = 4) -> str:
    """Names and counts of parameters, for messages."""
    listed = sorted(parameters)
    names = ", ".join(f"{name} ({elements})" for name, elements in listed[:most])
    return names if len(listed) <= most else f"{names} and {len(listed) - most} more"


class TracedOps:
    """The operations of the traced graph so far. Readers append operations, or merge one into the layer before it."""

    def __init__(self, image: Tensor) -> None:
        """image: (batch, channels, height, width), or fewer axes"""
        shape = [*image.shape, 1, 1, 1]
        self._ops = [Op("image", (), shape[1], "image")]
        self._sizes: list[tuple[int, int]] = [(shape[2], shape[3])]
        self.images = shape[0]
        self._beyond: set[int] = set()
        self._uses: dict[int, int] = {}
        self._merged: set[int] = set()
        self._counted: set[Parameter] = set()
        self._names: dict[str, int] = {}
        self._holders: dict[int, list[fx.Node]] = {}

    def __getitem__(self, op: int) -> Op:
        return self._ops[op]

    def channels(self, x: Features) -> int:
        return self._ops[x.op].channels

    def append(self, kind: str, inputs: tuple[int, ...], channels: int, name: str, **fields: Any) -> int:
        """The index of a new operation. Its name gets a number when another operation has it."""
        for j in inputs:
            self._uses[j] = self._uses.get(j, 0) + 1
        name = name.replace("/", "_")
        number = self._names.get(name, 0)
        self._names[name] = number + 1
        self._ops.append(Op(kind, inputs, channels, f"{name}.{number}" if number else name, **fields))
        self._sizes.append(size_after(self._ops[-1], [self._sizes[j] for j in inputs]))
        return len(self._ops) - 1

    def unary(self, node: fx.Node, kind: str, x: Features, name: str = "", **fields: Any) -> Features:
        """Append an operation of one input that keeps its channels and axes."""
        return replace(x, op=self.append(kind, (x.op,), self.channels(x), name_in_module(node, name or kind), **fields))

    def resized(self, node: fx.Node, kind: str, x: Features, **fields: Any) -> Features:
        """Append an operation of one input, whose channels lie along one axis, that changes the number of pixels."""
        made = self.unary(node, kind, self.fitted(node, x), **fields)
        return replace(made, axes=channels_along(shape_of(node), x.axis if x.axis is not None else 1))

    def cut(self, node: fx.Node, op: int, start: int, width: int) -> int:
        """Channels [start, start + width) of an operation."""
        if width == self._ops[op].channels:
            return op
        return self.append("slice", (op,), width, name_in_module(node, "slice"), start=start)

    def rows(self, x: Features) -> tuple[int, int]:
        """Rows and columns of the pixels of one image: those of a map, else one column."""
        pixels = x.pixels // self.images if x.pixels % self.images == 0 else x.pixels
        if x.axis == 1 and len(x.axes) == 4:
            columns = math.prod(part.size for part in x.axes[3])
            return pixels // columns, columns
        return pixels, 1

    def fitted(self, node: fx.Node, x: Features) -> Features:
        """`x`, of which the graph knows how many pixels it has. Operations that select or repeat pixels do not tell it."""
        rows, columns = self.rows(x)
        known = self._sizes[x.op]
        is_map = x.axis == 1 and len(x.axes) == 4
        if known == (rows, columns) or (not is_map and math.prod(known) == rows * columns):
            return x
        return self.unary(node, "fit", x, size=(rows, columns))

    def of_one_size(self, node: fx.Node, xs: Sequence[Features]) -> list[int]:
        """The operations of tensors that are joined pixel by pixel; the graph knows rows and columns of all by the first."""
        fitted = [self.fitted(node, x) for x in xs]
        size = self._sizes[fitted[0].op]
        return [x.op if self._sizes[x.op] == size else self.unary(node, "fit", x, size=size).op for x in fitted]

    def size(self, op: int) -> tuple[int, int]:
        """Rows and columns of an operation's output."""
        return self._sizes[op]

    def number(self) -> int:
        return len(self._ops)

    def go_beyond(self, first: int) -> None:
        """The operations from `first` on follow channels where they do not lie along one axis. See `loss_of`."""
        self._beyond.update(i for i in range(first, len(self._ops)) if not self._ops[i].weighted)

    def loss_of(self, op: int) -> list[int]:
        """The operations from which the loss of the tensor `op` is computed. What comes after the last layer and mixes or
        reorders channels, as a softmax or the decoding of boxes, is a part of the loss."""
        beyond: list[bool] = []
        for i, done in enumerate(self._ops[: op + 1]):
            beyond.append(
                not done.weighted and (done.kind in _MIXING or i in self._beyond or any(beyond[j] for j in done.inputs))
            )
        found: dict[int, None] = {}
        waiting, seen = [op], {op}
        while waiting:
            i = waiting.pop()
            if beyond[i]:
                new = [j for j in self._ops[i].inputs if j not in seen]
                waiting += reversed(new)
                seen.update(new)
            else:
                found[i] = None
        return list(found)

    def uncounted(self, values: Any) -> frozenset[Parameter]:
        """The parameters among the values that no operation counts yet."""
        return parameters_of(values) - self._counted

    def count(self, values: Any) -> int:
        """The number of elements of the parameters among the values that no operation counts yet; from now on one does."""
        new = self.uncounted(values)
        self._counted |= new
        return sum(parameter.elements for parameter in new)

    @property
    def counted(self) -> frozenset[Parameter]:
        """The parameters that the operations count."""
        return frozenset(self._counted)

    def layer(
        self, node: fx.Node, kind: str, x: Features, channels: int, weight: Value, bias: Value, axis: int = 1,
        laid_out: bool = False, **fields: Any,
    ) -> Features:  # fmt: skip
        """Append a layer, whose output channels lie along `axis` of `node`. laid_out: the graph knows the pixels of `x`.

        It is tied when its weights are those of an earlier layer, or no parameters. Parameters beyond its weights and its bias,
        as the magnitudes of a weight normalisation, become its `learned`. Raises TraceError when its weights are computed from
        the image, or from fewer parameters.
        """
        if images([weight, bias]):
            raise TraceError(f"{kind} at {place(node)}: its weights are computed from the image, which a graph cannot describe")
        x = x if self._ops[x.op].kind == "fit" else self.fitted(node, x)
        sources = named(parameters_of(weight))
        new, new_bias = self.count(weight), self.count(bias)
        op = Op(kind, (x.op,), channels, "", tied=not new, **fields)
        weights = parameters(op, self.channels(x))
        if new < weights:
            raise TraceError(
                f"{kind} at {place(node)}: its {weights} weights are computed from {sources}, which are fewer or belong to "
                "an earlier layer too; a graph counts layers that have weights of their own"
            )
        own_bias = new_bias >= channels and not op.tied
        learned = new - weights + new_bias - (channels if own_bias else 0)
        made = self.append(kind, (x.op,), channels, module_path(node) or kind, **fields)
        has_bias = own_bias or (bias is not None and op.tied)
        self._ops[made] = self._ops[made]._replace(bias=has_bias, tied=op.tied, learned=learned)
        return Features(made, channels_along(shape_of(node), axis))

    def absorb(self, node: fx.Node, x: Features, **fields: Any) -> bool:
        """Make `node` a part of the operation that computes `x`, by setting its `fields`, when only `node` reads it."""
        alone = self._only_reader(node.args[0], x)
        if alone:
            self._ops[x.op] = self._ops[x.op]._replace(**fields)
        return alone

    def merge_rep_conv(self, node: fx.Node, x: Features, y: Features) -> Features | None:
        """A RepConv in training, the sum of a normalised 3x3 and a normalised 1x1 convolution, as one layer; else None."""
        large, small = sorted((x.op, y.op), key=lambda i: -self._ops[i].kernel)
        a, b = self._ops[large], self._ops[small]
        alike = a.kind == b.kind == "conv" and a.inputs == b.inputs and a.stride == b.stride and a.groups == b.groups
        plain = a.norm and b.norm and not (a.act or b.act or a.window or b.window or a.tied or b.tied)
        if not (alike and plain and (a.kernel, a.padding, b.kernel, b.padding) == (3, 1, 1, 0) and a.dilation == 1):
            return None
        if not all(self._only_reader(arg, value) for value, arg in zip((x, y), node.all_input_nodes, strict=True)):
            return None
        more = b.learned + (b.channels if b.bias else 0)  # of the 1x1 branch, which rep does not count
        self._ops[large] = a._replace(rep=True, learned=a.learned + more)
        self._merged.add(small)
        return replace(x, op=large)

    def hold(self, node: fx.Node, value: Value) -> None:
        """Remember that `node` holds the output of an operation, or several outputs."""
        for held in pytree.tree_leaves(value):
            if isinstance(held, Features):
                self._holders.setdefault(held.op, []).append(node)

    def finished(self) -> tuple[tuple[Op, ...], dict[int, int]]:
        """The operations without the merged ones, and their new indices by the old ones."""
        kept = [i for i in range(len(self._ops)) if i not in self._merged]
        new_index = {old: new for new, old in enumerate(kept)}
        ops = tuple(self._ops[i]._replace(inputs=tuple(new_index[j] for j in self._ops[i].inputs)) for i in kept)
        return ops, new_index

    def _only_reader(self, source: object, x: Features) -> bool:
        """Whether the node `source`, and every other that holds `x`, has one user, and no operation reads `x` yet."""
        holders = self._holders.get(x.op, ())
        alone = isinstance(source, fx.Node) and all(len(holder.users) == 1 for holder in (source, *holders))
        return alone and not self._uses.get(x.op, 0)


_MIXING = ("mix", "product")


def operation_name(node: fx.Node) -> str:
    """The name of a node's ATen operation, without overload and in-place mark."""
    return str(node.target).removeprefix("aten.").split(".")[0].rstrip("_")


def module_path(node: fx.Node) -> str:
    """Path of the module in whose forward the operation is called; "" in that of the model."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


def name_in_module(node: fx.Node, name: str) -> str:
    path = module_path(node)
    return f"{path}.{name}" if path else name


def place(node: fx.Node) -> str:
    """Module and source line of a node, for messages."""
    module = module_path(node) or "the model's forward"
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip().startswith("File")]
    return f"{module} ({lines[-1]})" if lines else module


def shape_of(node: Any) -> list[int]:
    """The shape of a node's tensor, or of the first of its tensors."""
    value = node.meta["val"]
    return [int(size) for size in (value[0] if isinstance(value, list | tuple) else value).shape]


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Along height and width; one number stands for both."""
    numbers = [value] if isinstance(value, int) else [int(v) for v in value]
    return numbers[0], numbers[-1]
