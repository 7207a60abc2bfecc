"""One description of a network: a list of operations in topological order.

Everything reads this graph (gradient paths, cost, the torch module, export), and nothing else describes a network, so
nothing can disagree with it. A graph knows channels and strides but no image size: sizes belong to whoever asks for a cost.

    b = GraphBuilder(channels=3)
    x = b.conv(b.image, 16, kernel=3, stride=2)
    y = b.conv(x, 16, kernel=3)
    b.output(b.masked_add(y, x, kept=8), name="p1", stride=2)
    graph = b.build()

The operations are those of the gradient-path paper (arXiv:2211.04800): weighted layers, and around them the moves that
decide where gradients go: concatenate, slice, add, masked add (section 2.2, Figure 3), stop gradient (section 3.3, Figure 9).
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from gpnas.errors import GraphError

ACTIVATIONS = ("", "silu", "relu", "leaky_relu")

WEIGHTED = frozenset({"conv", "linear", "conv_transpose"})
"""Kinds that are layers: a weighted operation with its normalisation and activation."""

POOLINGS = frozenset({"max_pool", "avg_pool", "global_avg_pool"})
"""Kinds that summarise pixels: they keep channel runs but are no identity for a gradient."""

_MOVES = frozenset({"upsample", "concat", "slice", "add", "masked_add", "stop_gradient", "zero", "norm"})

KINDS = POOLINGS | _MOVES | {"image", "conv", "linear", "act"}
"""Kinds that `GraphBuilder` makes and `network.py` runs."""

TRACED_KINDS = frozenset({"conv_transpose", "gain", "join", "broadcast", "fit", "shuffle", "stack"})
"""Kinds that only `trace.py` makes, of networks that were written elsewhere."""


class Branch(enum.StrEnum):
    """Which loss an output carries: the detector's own, or one that exists only while training (PGI)."""

    MAIN = "main"
    AUXILIARY = "auxiliary"


class Op(NamedTuple):
    """One operation. A NamedTuple, not a dataclass: the search builds millions, and it is several times faster to build.

    `channels` is the number of output channels. Fields that a kind does not use keep their defaults, so that equal
    operations are equal tuples.
    """

    kind: str
    inputs: tuple[int, ...]
    channels: int
    name: str
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    bias: bool = False
    norm: bool = False
    act: str = ""
    rep: bool = False
    """RepConv: a parallel 1x1 convolution with its own normalisation, merged into the kernel for inference."""
    start: int = 0
    """slice: the first channel taken."""
    kept: int = 0
    """masked_add: channels [0, kept) of the second input are added to those of the first."""
    scale: int = 1
    """upsample: nearest-neighbour factor. shuffle: groups whose channels are interleaved."""
    dilation: int = 1
    window: tuple[int, int, int] = (0, 0, 0)
    """Kernel, stride and padding along the width where they are not those along the height; kernel 0 where they are.
    fit: the last two are the rows and columns that pixels are cut, repeated or padded to."""
    output_padding: tuple[int, int] = (0, 0)
    """conv_transpose: rows and columns added to the output."""
    learned: int = 0
    """gain: learned parameters that multiply or shift features."""
    tied: bool = False
    """A layer whose weights belong to an earlier operation, which counts them."""

    @property
    def weighted(self) -> bool:
        return self.kind in WEIGHTED


class Output(NamedTuple):
    """A tensor that carries a loss."""

    op: int
    name: str
    branch: Branch
    stride: int
    weight: float = 1.0
    """Share of this output's loss in the sum that is minimised."""


@dataclass(frozen=True)
class Graph:
    """Operations in topological order; `ops[0]` is the image. Built and checked by `GraphBuilder`."""

    ops: tuple[Op, ...]
    outputs: tuple[Output, ...]

    @cached_property
    def hash(self) -> str:
        """16 hex digits that two graphs share only when they compute the same function of weights (names do not count)."""
        rows: list[Any] = [[*op[:3], *op[4:]] for op in self.ops]
        rows.append([[out.op, out.branch.value, out.stride, out.weight] for out in self.outputs])
        return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()[:16]

    @cached_property
    def parameters(self) -> list[int]:
        """For each operation, the parameters of its fused form (kernel and bias). A normalisation that follows no layer, and
        cannot be folded, has two a channel; what is neither has none."""
        ops = self.ops
        counts = []
        for op in ops:
            kind, inputs, channels, _, kernel, _, _, groups, bias, norm = op[:10]
            if kind == "conv" and not (op.tied or op.window[0]):  # `parameters`, without a call for the commonest kind
                weights = kernel * kernel * (ops[inputs[0]][2] // groups) * channels
                counts.append(weights + channels if norm or bias else weights)
            elif kind in WEIGHTED:
                counts.append(parameters(op, ops[inputs[0]].channels))
            else:
                counts.append(2 * channels if kind == "norm" else op.learned)
        return counts

    @property
    def layers(self) -> list[int]:
        """Indices of the weighted operations."""
        return [i for i, op in enumerate(self.ops) if op.weighted]

    def reaching(self, branch: Branch | None = None) -> list[bool]:
        """For each operation, whether an output of `branch` (any branch when None) is computed from it."""
        ops = self.ops
        reach = [False] * len(ops)
        for out in self.outputs:
            if branch is None or out.branch == branch:
                reach[out.op] = True
        for i in range(len(ops) - 1, 0, -1):
            if reach[i]:
                for j in ops[i][1]:
                    reach[j] = True
        return reach

    def inference(self) -> Graph:
        """The graph without its auxiliary outputs and whatever then computes nothing."""
        kept = self.reaching(Branch.MAIN)
        if all(kept) and all(out.branch == Branch.MAIN for out in self.outputs):
            return self
        kept[0] = True
        new_index = {old: new for new, old in enumerate(i for i, keep in enumerate(kept) if keep)}
        ops = tuple(op._replace(inputs=tuple(new_index[j] for j in op.inputs)) for i, op in enumerate(self.ops) if kept[i])
        outputs = tuple(out._replace(op=new_index[out.op]) for out in self.outputs if out.branch == Branch.MAIN)
        return Graph(ops, outputs)


def output_size(op: Op, height: int, width: int) -> tuple[int, int]:
    """Height and width, in pixels, after `op` on an input of `height` x `width`."""
    if op.kind in _WINDOWED:
        reduce, stride = 2 * op.padding - op.kernel, op.stride
        if op.window[0] or op.dilation != 1:
            kernel, across, padding = op.window if op.window[0] else (op.kernel, op.stride, op.padding)
            reduce -= (op.dilation - 1) * (op.kernel - 1)
            return (height + reduce) // stride + 1, (width + 2 * padding - op.dilation * (kernel - 1) - 1) // across + 1
        return (height + reduce) // stride + 1, (width + reduce) // stride + 1
    if op.kind == "upsample":
        return height * op.scale, width * op.scale
    if op.kind in ("global_avg_pool", "linear"):
        return 1, 1
    if op.kind == "conv_transpose":
        kernel, across, padding = op.window if op.window[0] else (op.kernel, op.stride, op.padding)
        rows = (height - 1) * op.stride - 2 * op.padding + op.dilation * (op.kernel - 1) + 1
        columns = (width - 1) * across - 2 * padding + op.dilation * (kernel - 1) + 1
        return rows + op.output_padding[0], columns + op.output_padding[1]
    if op.kind == "fit":
        return op.window[1], op.window[2]
    return height, width


_WINDOWED = frozenset({"conv", "max_pool", "avg_pool"})


class GraphBuilder:
    """Appends operations and checks each as it comes; tensors are the indices it returns.

    Raises GraphError, with the operation's name and the offending numbers, as soon as an operation does not fit.
    """

    image = 0

    def __init__(self, channels: int = 3, *, act: str = "silu") -> None:
        self._act = act
        self._ops: list[Op] = [Op("image", (), channels, "image")]
        self._outputs: list[Output] = []
        self._scope = ""
        self._taken = {"image"}
        self._seen: dict[str, int] = {}

    def scope(self, name: str) -> AbstractContextManager[None]:
        """Prefix the names of the operations built inside with `name.`"""
        return _Scope(self, f"{self._scope}{name}.")

    def channels(self, x: int) -> int:
        return self._ops[x].channels

    def stride(self, x: int) -> int:
        """Input pixels between neighbouring pixels of `x`."""
        reduced = enlarged = 1
        while x:
            op = self._ops[x]
            reduced *= op.stride
            enlarged *= op.scale
            x = op.inputs[0]
        return reduced // enlarged

    def conv(
        self,
        x: int,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        padding: int | None = None,
        groups: int = 1,
        act: str | None = None,
        norm: bool = True,
        bias: bool = False,
        rep: bool = False,
        name: str = "conv",
    ) -> int:
        """Convolution, then normalisation, then activation (the builder's unless given; "" for none).

        Padding keeps the size at stride 1 unless given.
        """
        have = self._ops[x][2]
        if act is None:
            act = self._act
        wrong_rep = rep and (kernel != 3 or not norm)
        if channels < 1 or kernel < 1 or stride < 1 or groups != 1 or act not in ACTIVATIONS or wrong_rep:
            self._check_conv(self._scope + name, have, channels, kernel, stride, groups, act, norm, rep)
        pad = kernel // 2 if padding is None else padding
        unique, taken = self._scope + name, self._taken
        if unique in taken:
            unique = self._numbered(unique)
        taken.add(unique)
        ops = self._ops
        values = ("conv", (x,), channels, unique, kernel, stride, pad, groups, bias, norm, act, rep)
        ops.append(_new(Op, values + _AFTER_REP))
        return len(ops) - 1

    def _check_conv(
        self, where: str, have: int, channels: int, kernel: int, stride: int, groups: int, act: str, norm: bool, rep: bool
    ) -> None:
        if channels < 1:
            raise GraphError(f"{where}: a convolution needs at least 1 output channel, got {channels}")
        if kernel < 1 or stride < 1:
            raise GraphError(f"{where}: kernel and stride must be at least 1, got {kernel} and {stride}")
        if groups < 1 or have % groups or channels % groups:
            raise GraphError(f"{where}: groups must divide {have} input and {channels} output channels, got {groups}")
        if act not in ACTIVATIONS:
            raise GraphError(f"{where}: activation must be one of {', '.join(ACTIVATIONS[1:])}, got {act!r}")
        if rep and (kernel != 3 or not norm):
            raise GraphError(f"{where}: a RepConv is a normalised 3x3 convolution, got kernel {kernel}, norm {norm}")

    def linear(self, x: int, channels: int, *, bias: bool = True, act: str = "", name: str = "linear") -> int:
        """Fully connected layer on a tensor of one pixel."""
        return self._append("linear", (x,), channels, name, bias=bias, act=act)

    def act(self, x: int, act: str | None = None, name: str = "act") -> int:
        """An activation that belongs to no layer (the builder's unless given)."""
        act = self._act if act is None else act
        if act not in ACTIVATIONS[1:]:
            raise GraphError(f"{self._scope}{name}: activation must be one of {', '.join(ACTIVATIONS[1:])}, got {act!r}")
        return self._append("act", (x,), self.channels(x), name, act=act)

    def max_pool(self, x: int, kernel: int, stride: int = 1, padding: int | None = None, name: str = "max_pool") -> int:
        pad = kernel // 2 if padding is None else padding
        return self._append("max_pool", (x,), self.channels(x), name, kernel=kernel, stride=stride, padding=pad)

    def avg_pool(self, x: int, kernel: int, stride: int = 1, padding: int = 0, name: str = "avg_pool") -> int:
        return self._append("avg_pool", (x,), self.channels(x), name, kernel=kernel, stride=stride, padding=padding)

    def global_avg_pool(self, x: int, name: str = "global_avg_pool") -> int:
        return self._append("global_avg_pool", (x,), self.channels(x), name)

    def upsample(self, x: int, scale: int = 2, name: str = "upsample") -> int:
        return self._append("upsample", (x,), self.channels(x), name, scale=scale)

    def concat(self, xs: Sequence[int], name: str = "concat") -> int:
        if not xs:
            raise GraphError(f"{self._scope}{name}: nothing to concatenate")
        if len(xs) == 1:
            return xs[0]
        ops = self._ops
        return self._append("concat", tuple(xs), sum([ops[x][2] for x in xs]), name)

    def slice(self, x: int, start: int, stop: int, name: str = "slice") -> int:
        """Channels [start, stop) of `x`."""
        have = self._ops[x][2]
        if not 0 <= start < stop <= have:
            raise GraphError(f"{self._scope}{name}: cannot take channels [{start}, {stop}) of {have}")
        if stop - start == have:
            return x
        values = ("slice", (x,), stop - start, self._unique(name), *_BEFORE_START, start, *_AFTER_START)
        self._ops.append(_new(Op, values))  # as `conv`: a split is the commonest operation after it
        return len(self._ops) - 1

    def split(self, x: int, first: int, name: str = "split") -> tuple[int, int]:
        """The first `first` channels of `x`, and the rest."""
        return self.slice(x, 0, first, name), self.slice(x, first, self.channels(x), name)

    def add(self, x: int, y: int, name: str = "add") -> int:
        channels, others = self._ops[x][2], self._ops[y][2]
        if channels != others:
            raise GraphError(
                f"{self._scope}{name}: cannot add {channels} and {others} channels; use masked_add for an asymmetric residual"
            )
        return self._append("add", (x, y), channels, name)

    def masked_add(self, block: int, identity: int, kept: int, name: str = "masked_add") -> int:
        """`block`, with the first `kept` channels of `identity` added to its first `kept` channels.

        PRN's masked residual layer (paper, section 2.2, Figure 3); with unequal channels, its asymmetric residual layer.
        """
        most = min(self.channels(block), self.channels(identity))
        if not 0 <= kept <= most:
            raise GraphError(f"{self._scope}{name}: kept must lie in [0, {most}], got {kept}")
        if kept == 0:
            return block
        if kept == self.channels(block) == self.channels(identity):
            return self.add(block, identity, name)
        return self._append("masked_add", (block, identity), self.channels(block), name, kept=kept)

    def stop_gradient(self, x: int, name: str = "stop_gradient") -> int:
        return self._append("stop_gradient", (x,), self.channels(x), name)

    def norm(self, x: int, name: str = "norm") -> int:
        """A normalisation that follows no layer, and so is part of none."""
        return self._append("norm", (x,), self.channels(x), name)

    def zero(self, x: int, name: str = "zero") -> int:
        """Zeros of the shape of `x`: what follows does not see the image."""
        return self._append("zero", (x,), self.channels(x), name)

    def output(self, x: int, name: str, *, stride: int, branch: Branch = Branch.MAIN, weight: float = 1.0) -> None:
        """Attach a loss of `branch` to `x`, whose pixels stand `stride` input pixels apart."""
        self._outputs.append(Output(x, self._scope + name, branch, stride, weight))

    def build(self) -> Graph:
        """Raises GraphError when the network has no main output, or a name has a slash (module keys use it for a dot)."""
        if not any(out.branch == Branch.MAIN for out in self._outputs):
            raise GraphError("a graph needs at least one main output; call output()")
        slashed = next((name for name in self._taken if "/" in name), None)
        if slashed is not None:
            raise GraphError(f"{slashed}: an operation's name may hold no '/'")
        return Graph(tuple(self._ops), tuple(self._outputs))

    def _append(self, kind: str, inputs: tuple[int, ...], channels: int, name: str, **fields: Any) -> int:
        values = (kind, inputs, channels, self._unique(name))
        op = _new(Op, values + _AFTER_NAME)
        self._ops.append(op._replace(**fields) if fields else op)
        return len(self._ops) - 1

    def _unique(self, name: str) -> str:
        """`name` in the scope, with a number when it is taken."""
        unique, taken = self._scope + name, self._taken
        if unique in taken:
            unique = self._numbered(unique)
        taken.add(unique)
        return unique

    def _numbered(self, name: str) -> str:
        number = self._seen.get(name, 0) + 1
        while (unique := f"{name}{number}") in self._taken:
            number += 1
        self._seen[name] = number
        return unique


class _Scope(AbstractContextManager[None]):
    """Written out, as contextlib's decorator takes five times as long, and a detector has dozens of scopes."""

    def __init__(self, builder: GraphBuilder, scope: str) -> None:
        self._builder, self._outer, self._inner = builder, builder._scope, scope

    def __enter__(self) -> None:
        self._builder._scope = self._inner

    def __exit__(self, *exception: object) -> None:
        self._builder._scope = self._outer


_new = tuple.__new__  # of a NamedTuple: half the time of calling its class, for what a search makes a million times

_AFTER_NAME = tuple(Op._field_defaults.values())
_AFTER_REP = _AFTER_NAME[list(Op._field_defaults).index("rep") + 1 :]
_BEFORE_START = _AFTER_NAME[: list(Op._field_defaults).index("start")]
_AFTER_START = _AFTER_NAME[len(_BEFORE_START) + 1 :]


def parameters(op: Op, in_channels: int, *, fused: bool = True) -> int:
    """Parameters of a layer: in the fused form kernel and bias; else those that are trained (RepConv branch, normalisation)."""
    if op.tied:
        return 0
    # A linear layer has kernel 1 and one group.
    weights = op.kernel * (op.window[0] or op.kernel) * (in_channels // op.groups) * op.channels
    if fused:
        return weights + op.channels if op.norm or op.bias else weights
    weights += op.channels * (op.bias + 2 * op.norm)
    if op.rep:
        weights += (in_channels // op.groups) * op.channels + 2 * op.channels
    return weights
