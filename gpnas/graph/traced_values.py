"""The values that flow through a trace, and the list of operations that a trace appends to.

Each node of an exported program has one value. `Features` is a tensor whose channels are those of one operation of the graph.
`Opaque` is a tensor that depends on the image in a way that a graph cannot describe. `Constant` does not depend on the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, fx
from torch.utils import _pytree as pytree

from gpnas.errors import TraceError
from gpnas.graph.graph import Op


@dataclass(frozen=True)
class Features:
    """A tensor whose channels along `axis` are the output channels of operation `op`; its other axes are batch and pixels."""

    op: int
    axis: int = 1
    flat: tuple[int, int] | None = None
    """The height and width that were flattened into the channels. The next linear layer reads them as a kernel."""
    groups: int = 0
    """When not 0, the channels are spread over two axes: (groups, channels / groups) from `axis` on."""
    turned: bool = False
    """The two axes of `groups` are transposed."""

    @property
    def has_channel_axis(self) -> bool:
        """Whether `axis` holds the channels, all of them, and nothing else."""
        return not self.groups and not self.flat


@dataclass(frozen=True)
class Opaque:
    """A value computed from the operations `ops` in a way that a graph cannot describe."""

    ops: tuple[int, ...]
    because: str
    """The first operation that cannot be described, and its place."""


@dataclass(frozen=True)
class Constant:
    """A value that does not depend on the image: a parameter, a buffer, or a value computed from them."""

    name: str
    tensor: Tensor | None = None
    """The values of a buffer; None for parameters and computed constants."""
    learned: int = 0
    """Number of learned parameters in it."""


Value = Any
"""Features, Opaque, Constant, a plain number, or a list of values."""


def images(values: Any) -> list[Features | Opaque]:
    """The values, however nested, that depend on the image."""
    return [value for value in pytree.tree_leaves(values) if isinstance(value, Features | Opaque)]


def learned_parameters(values: Any) -> int:
    """Number of learned parameters in the constants among the values, however nested."""
    return sum(value.learned for value in pytree.tree_leaves(values) if isinstance(value, Constant))


class TracedOps:
    """The operations of the traced graph so far. Readers append operations, or merge one into the layer before it."""

    def __init__(self, image_channels: int) -> None:
        self._ops = [Op("image", (), image_channels, "image")]
        self._uses: dict[int, int] = {}
        self._merged: set[int] = set()
        self._weights: set[str] = set()
        self._names: dict[str, int] = {}

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
        return len(self._ops) - 1

    def unary(self, node: fx.Node, kind: str, x: Features, name: str = "", **fields: Any) -> Features:
        """Append an operation of one input that keeps its channels."""
        return replace(x, op=self.append(kind, (x.op,), self.channels(x), name_in_module(node, name or kind), **fields))

    def layer(
        self, node: fx.Node, kind: str, x: Features, channels: int, weight: Value, bias: Value, **fields: Any
    ) -> Features:
        """Append a layer. It is tied to an earlier layer when it has the weights of that layer."""
        if images([weight, bias]):
            raise TraceError(f"{kind} at {place(node)}: its weights are computed from the image, which a graph cannot describe")
        tied = weight.name in self._weights
        self._weights.add(weight.name)
        op = self.append(kind, (x.op,), channels, module_path(node) or kind, bias=bias is not None, tied=tied, **fields)
        return Features(op)

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
        self._ops[large] = a._replace(rep=True)
        self._merged.add(small)
        return replace(x, op=large)

    def finished(self) -> tuple[tuple[Op, ...], dict[int, int]]:
        """The operations without the merged ones, and their new indices by the old ones."""
        kept = [i for i in range(len(self._ops)) if i not in self._merged]
        new_index = {old: new for new, old in enumerate(kept)}
        ops = tuple(self._ops[i]._replace(inputs=tuple(new_index[j] for j in self._ops[i].inputs)) for i in kept)
        return ops, new_index

    def _only_reader(self, source: object, x: Features) -> bool:
        """Whether the node `source`, whose value is `x`, has one user, and no operation reads that of `x` yet."""
        return isinstance(source, fx.Node) and len(source.users) == 1 and not self._uses.get(x.op, 0)


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
    return [int(size) for size in node.meta["val"].shape]


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Along height and width; one number stands for both."""
    numbers = [value] if isinstance(value, int) else [int(v) for v in value]
    return numbers[0], numbers[-1]
