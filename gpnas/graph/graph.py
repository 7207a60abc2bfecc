"""One description of a network: a list of operations in topological order.

Gradient paths, cost, the torch module and the drawings all read this graph. No second description of a network exists, so
nothing can disagree with it. A graph holds channels and strides but no image size: `cost` takes the image size.

    b = GraphBuilder(channels=3)
    x = b.conv(b.image, 16, kernel=3, stride=2)
    y = b.conv(x, 16, kernel=3)
    b.output(b.masked_add(y, x, kept=8), name="p1", stride=2)
    graph = b.build()

The operations are those of the gradient-path paper (arXiv:2211.04800): weighted layers, and between them the operations
that route gradients: concatenate, slice, add, masked add (section 2.2, Figure 3), stop gradient (section 3.3, Figure 9).
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
"""Kinds that summarise pixels: channels stay apart, but a gradient is spread over pixels."""

_UNWEIGHTED = frozenset({"act", "upsample", "concat", "slice", "add", "masked_add", "stop_gradient", "zero", "norm"})

KINDS = POOLINGS | _UNWEIGHTED | WEIGHTED | {"image"}
"""Kinds that `GraphBuilder` makes and `network.py` runs. `trace.py` makes others too, for analysis only."""


class Branch(enum.StrEnum):
    """Which loss an output carries: the detector's main loss, or an auxiliary loss that exists only in training (PGI)."""

    MAIN = "main"
    AUXILIARY = "auxiliary"


class Op(NamedTuple):
    """One operation. It is a NamedTuple because a search builds millions, and a dataclass is several times slower to build.

    `channels` is the number of output channels. Fields that a kind does not use keep their defaults, so equal operations
    are equal tuples.
    """

    kind: str
    inputs: tuple[int, ...]
    channels: int
    name: str
    kernel: int = 1
    """product: how many products each element of the output sums."""
    stride: int = 1
    padding: int = 0
    groups: int = 1
    """conv, conv_transpose: groups of a grouped layer. shuffle: groups whose channels are interleaved. mix: each output channel
    of a group depends on all input channels of that group."""
    bias: bool = False
    norm: bool = False
    act: str = ""
    """Activation of a layer, or of an `act` operation; "" for none."""
    rep: bool = False
    """RepConv: a parallel 1x1 convolution with its own normalisation, merged into the kernel for inference."""
    start: int = 0
    """slice: the first channel of the input that is kept."""
    kept: int = 0
    """masked_add: channels [0, kept) of the second input are added to those of the first."""
    scale: int = 1
    """upsample: nearest-neighbour factor."""
    dilation: int = 1
    window: tuple[int, int, int] | None = None
    """Kernel, stride and padding along the width, when they differ from those along the height; None when they do not."""
    output_padding: tuple[int, int] = (0, 0)
    """conv_transpose: rows and columns added to the output."""
    size: tuple[int, int] = (0, 0)
    """fit, product: rows and columns of the output. A fit cuts, repeats, pads or rearranges pixels."""
    learned: int = 0
    """norm, gain, act, zero: number of learned parameters. Layers: parameters that only training has, besides weights and
    normalisation, as those of a weight normalisation; of a tied layer, all of its own, as a bias."""
    tied: bool = False
    """The weights are those of an earlier layer, whose parameters count them, or they are fixed and no parameters."""

    @property
    def weighted(self) -> bool:
        return self.kind in WEIGHTED

    @property
    def window_along_width(self) -> tuple[int, int, int]:
        """Kernel, stride and padding along the width."""
        return self.window or (self.kernel, self.stride, self.padding)


class Output(NamedTuple):
    """A tensor that a loss is computed from."""

    op: int
    name: str
    branch: Branch
    stride: int
    weight: float = 1.0
    """Factor of this output's loss in the sum that training minimises."""


@dataclass(frozen=True)
class Graph:
    """Operations in topological order; `ops[0]` is the image. Built and checked by `GraphBuilder`."""

    ops: tuple[Op, ...]
    outputs: tuple[Output, ...]

    @cached_property
    def hash(self) -> str:
        """16 hex digits: graphs with equal operations and outputs share them. Names do not count.

        Graphs made by `GraphBuilder` that share a hash compute the same function of image and weights. A traced graph does
        not hold all that its operations compute.
        """
        rows: list[Any] = [[*op[:3], *op[4:]] for op in self.ops]
        rows.append([[out.op, out.branch.value, out.stride, out.weight] for out in self.outputs])
        return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()[:16]

    @cached_property
    def parameters(self) -> list[int]:
        """For each operation, the number of parameters of its fused form: kernel and bias of a layer, `learned` of others."""
        ops = self.ops
        counts = []
        for op in ops:
            kind, inputs, channels, _, kernel, _, _, groups, bias, norm = op[:10]
            if kind == "conv" and not (op.tied or op.window):  # as `parameters` below, without a call for the commonest kind
                weights = kernel * kernel * (ops[inputs[0]][2] // groups) * channels
                counts.append(weights + channels if norm or bias else weights)
            elif kind in WEIGHTED:
                counts.append(parameters(op, ops[inputs[0]].channels))
            else:
                counts.append(op.learned)
        return counts

    @property
    def layers(self) -> list[int]:
        """Indices of the weighted operations."""
        return [i for i, op in enumerate(self.ops) if op.weighted]

    def reaching(self, branch: Branch | None = None) -> list[bool]:
        """For each operation, whether an output of `branch` (of any branch when None) is computed from it."""
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
        """The graph that is deployed: without auxiliary outputs and without operations that no main output needs."""
        kept = self.reaching(Branch.MAIN)
        if all(kept) and all(out.branch == Branch.MAIN for out in self.outputs):
            return self
        kept[0] = True
        new_index = {old: new for new, old in enumerate(i for i, keep in enumerate(kept) if keep)}
        ops = tuple(op._replace(inputs=tuple(new_index[j] for j in op.inputs)) for i, op in enumerate(self.ops) if kept[i])
        outputs = tuple(out._replace(op=new_index[out.op]) for out in self.outputs if out.branch == Branch.MAIN)
        return Graph(ops, outputs)


def output_size(op: Op, height: int, width: int) -> tuple[int, int]:
    """Height and width, in pixels, of the output of `op` when its input has `height` x `width` pixels."""
    kind = op.kind
    if kind in _WINDOWED:
        kernel, stride, padding = op.window_along_width
        rows = (height + 2 * op.padding - op.dilation * (op.kernel - 1) - 1) // op.stride + 1
        return rows, (width + 2 * padding - op.dilation * (kernel - 1) - 1) // stride + 1
    if kind == "upsample":
        return height * op.scale, width * op.scale
    if kind in ("global_avg_pool", "linear"):
        return 1, 1
    if kind == "conv_transpose":
        kernel, stride, padding = op.window_along_width
        rows = (height - 1) * op.stride - 2 * op.padding + op.dilation * (op.kernel - 1) + 1
        columns = (width - 1) * stride - 2 * padding + op.dilation * (kernel - 1) + 1
        return rows + op.output_padding[0], columns + op.output_padding[1]
    return op.size if kind == "fit" else (height, width)


_WINDOWED = frozenset({"conv", "max_pool", "avg_pool"})


class GraphBuilder:
    """Builds a graph operation by operation. Each method returns the index of its operation, which stands for its output.

    Every method checks its arguments and raises GraphError with the operation's name and the numbers that do not fit.
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
        """A context manager: the names of operations that are built inside it start with `name.`"""
        return _Scope(self, f"{self._scope}{name}.")

    def channels(self, x: int) -> int:
        return self._ops[x].channels

    def stride(self, x: int) -> int:
        """The distance, in pixels of the image, between neighbouring pixels of `x`."""
        reduced = enlarged = 1
        while x:
            op = self._ops[x]
            if op.kind == "conv_transpose":
                enlarged *= op.stride
            else:
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
        """A layer: convolution, normalisation, activation.

        act: "" for none; None for the builder's activation. padding: None keeps the size at stride 1.
        rep: RepConv, a 3x3 convolution that trains with a parallel 1x1 convolution.
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
        """A fully connected layer. Its input has one pixel."""
        return self._append("linear", (x,), channels, name, bias=bias, act=act)

    def conv_transpose(self, x: int, channels: int, kernel: int = 2, name: str = "conv_transpose") -> int:
        """A transposed convolution with a bias. It makes `kernel` x `kernel` pixels of each pixel, its stride is its kernel."""
        if channels < 1 or kernel < 1:
            raise GraphError(f"{self._scope}{name}: channels and kernel must be at least 1, got {channels} and {kernel}")
        return self._append("conv_transpose", (x,), channels, name, kernel=kernel, stride=kernel, bias=True)

    def act(self, x: int, act: str | None = None, name: str = "act") -> int:
        """An activation that belongs to no layer; None for the builder's activation."""
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
        self._ops.append(_new(Op, values))  # fast, as in `conv`: slices are the next most frequent operation
        return len(self._ops) - 1

    def split(self, x: int, first: int, name: str = "split") -> tuple[int, int]:
        """Two slices: the first `first` channels of `x`, and the rest."""
        return self.slice(x, 0, first, name), self.slice(x, first, self.channels(x), name)

    def add(self, x: int, y: int, name: str = "add") -> int:
        channels, others = self._ops[x][2], self._ops[y][2]
        if channels != others:
            raise GraphError(
                f"{self._scope}{name}: cannot add {channels} and {others} channels; use masked_add for an asymmetric residual"
            )
        return self._append("add", (x, y), channels, name)

    def masked_add(self, block: int, identity: int, kept: int, name: str = "masked_add") -> int:
        """Add the first `kept` channels of `identity` to the first `kept` channels of `block`.

        This is PRN's masked residual layer (gradient-path paper, section 2.2, Figure 3). When the channels differ, it is
        PRN's asymmetric residual layer.
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
        """A normalisation that belongs to no layer."""
        return self._append("norm", (x,), self.channels(x), name, learned=2 * self.channels(x))

    def zero(self, x: int, name: str = "zero") -> int:
        """Zeros in the shape of `x`, which do not depend on the image."""
        return self._append("zero", (x,), self.channels(x), name)

    def output(self, x: int, name: str, *, stride: int, branch: Branch = Branch.MAIN, weight: float = 1.0) -> None:
        """Attach a loss of `branch` to `x`. stride: distance of neighbouring pixels of `x`, in pixels of the image."""
        self._outputs.append(Output(x, self._scope + name, branch, stride, weight))

    def build(self) -> Graph:
        """The finished graph.

        Raises GraphError when the network has no main output, or a name contains a slash (torch module names use it in
        place of a dot).
        """
        if not any(out.branch == Branch.MAIN for out in self._outputs):
            raise GraphError("a graph needs at least one main output; call output()")
        slashed = next((name for name in self._taken if "/" in name), None)
        if slashed is not None:
            raise GraphError(f"{slashed}: an operation's name must not contain '/'")
        return Graph(tuple(self._ops), tuple(self._outputs))

    def _append(self, kind: str, inputs: tuple[int, ...], channels: int, name: str, **fields: Any) -> int:
        values = (kind, inputs, channels, self._unique(name))
        op = _new(Op, values + _AFTER_NAME)
        self._ops.append(op._replace(**fields) if fields else op)
        return len(self._ops) - 1

    def _unique(self, name: str) -> str:
        """`name` with its scope, and with a number when another operation has that name."""
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
    """A class, because contextlib's decorator takes five times as long and a detector has dozens of scopes."""

    def __init__(self, builder: GraphBuilder, scope: str) -> None:
        self._builder, self._outer, self._inner = builder, builder._scope, scope

    def __enter__(self) -> None:
        self._builder._scope = self._inner

    def __exit__(self, *exception: object) -> None:
        self._builder._scope = self._outer


_new = tuple.__new__  # builds a NamedTuple in half the time that its class takes

_AFTER_NAME = tuple(Op._field_defaults.values())
_AFTER_REP = _AFTER_NAME[list(Op._field_defaults).index("rep") + 1 :]
_BEFORE_START = _AFTER_NAME[: list(Op._field_defaults).index("start")]
_AFTER_START = _AFTER_NAME[len(_BEFORE_START) + 1 :]


def parameters(op: Op, in_channels: int, *, fused: bool = True) -> int:
    """Number of parameters of a layer.

    fused: kernel and bias of the form that infers; else all that training learns, with normalisation and RepConv branch.
    """
    if op.tied:
        return op.learned
    # A linear layer has kernel 1 and one group.
    weights = op.kernel * op.window_along_width[0] * (in_channels // op.groups) * op.channels
    if fused:
        return weights + op.channels if op.norm or op.bias else weights
    weights += op.channels * (op.bias + 2 * op.norm)
    if op.rep:
        weights += (in_channels // op.groups) * op.channels + 2 * op.channels
    return weights + op.learned
