"""A model YAML of Ultralytics, for architectures that its modules can express with the same number of parameters.

Every operation of the graph without the auxiliary branch becomes one line [from, 1, module, arguments]:

    layer                    Conv, with normalisation and the activation of all layers, or with none
    layer that is cut apart  one Conv for each part: a part of the output channels is a layer of its own
    residual unit            Bottleneck
    pooling, upsampling      nn.MaxPool2d, nn.AvgPool2d, nn.Upsample
    concatenation            Concat
    head                     Detect, whose widths Ultralytics derives from the channels of the finest level

What has no such module is refused by name: masked residuals, RepConv, grouped or other heads, and widths that are no multiples
of 8, which Ultralytics would round. Source: the documentation of model YAML files (https://docs.ultralytics.com/guides/model-yaml-config).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from gpnas.errors import InputError
from gpnas.graph.graph import Graph, Op

WIDTH_STEP = 8
"""Ultralytics rounds the channels of a module up to a multiple of this."""

REG_MAX = 16
"""Bins of a box side's distribution in Ultralytics' head."""

_ACTIVATIONS = {"silu": "torch.nn.SiLU()", "relu": "torch.nn.ReLU()", "leaky_relu": "torch.nn.LeakyReLU(0.1)"}


def ultralytics_yaml(graph: Graph, source: str) -> str:
    """The model YAML of a detector. Raises InputError, which begins with `source`, for the first choice that has no module."""
    graph = graph.inference()
    heads = [_head_layers(graph, out.op, source) for out in graph.outputs]
    in_heads = {i for head in heads for i in head.operations}
    lines = _Lines(graph, source, in_heads)
    for i in range(1, len(graph.ops)):
        if i not in in_heads:
            lines.add(i)
    classes = _check_heads(graph, heads, source)
    levels = ", ".join(str(lines.of[head.source]) for head in heads)
    text = f"# {' '.join(source.split())}, written by gpnas\nnc: {classes}\n"
    if lines.activation != "silu":
        text += f"activation: {_ACTIVATIONS[lines.activation]}\n"
    rows = "".join(f"  - {line}\n" for line in lines.lines)
    return f"{text}backbone:\n{rows}head:\n  - [[{levels}], 1, Detect, [nc]]\n"


def _refuse(source: str, op: Op, why: str) -> InputError:
    return InputError(f"{source}: Ultralytics has no module for {op.name}: {why}; export it with --format onnx")


@dataclass
class _Lines:
    """The lines so far. of: the line, counted from 0, that computes an operation."""

    graph: Graph
    source: str
    in_heads: set[int]
    lines: list[str] = field(default_factory=list)
    of: dict[int, int] = field(default_factory=dict)
    activation: str = ""

    def __post_init__(self) -> None:
        self.consumers: list[list[int]] = [[] for _ in self.graph.ops]
        for i, op in enumerate(self.graph.ops):
            for j in op.inputs:
                self.consumers[j].append(i)
        inside = [unit for i, op in enumerate(self.graph.ops) if op.kind == "add" for unit in self._unit(i)]
        self.in_units = set(inside)
        activations = {op.act for op in self.graph.ops if op.act}
        if len(activations) > 1:
            raise InputError(
                f"{self.source}: Ultralytics has one activation for all layers, not {', '.join(sorted(activations))}"
            )
        self.activation = next(iter(activations), "silu")

    def add(self, i: int) -> None:
        """Write operation `i`, unless it is part of another one."""
        ops, op = self.graph.ops, self.graph.ops[i]
        if i in self.in_units or self._is_cut_apart(i):
            return
        if op.kind == "conv":
            self._write(i, "Conv", self._convolution(op, op.channels), op.inputs)
        elif op.kind == "slice" and self._is_cut_apart(op.inputs[0]):
            layer = ops[op.inputs[0]]
            self._write(i, "Conv", self._convolution(layer, op.channels), layer.inputs)
        elif op.kind == "add" and self._unit(i):
            first, second = (ops[j] for j in self._unit(i))
            self._check_width(op, op.channels)
            kernels = f"[{first.kernel}, {second.kernel}]"
            share = first.channels / op.channels
            self._write(i, "Bottleneck", f"[{op.channels}, True, {second.groups}, {kernels}, {share!r}]", first.inputs)
        elif op.kind == "max_pool":
            self._write(i, "nn.MaxPool2d", f"[{op.kernel}, {op.stride}, {op.padding}]", op.inputs)
        elif op.kind == "avg_pool":
            self._write(i, "nn.AvgPool2d", f"[{op.kernel}, {op.stride}, {op.padding}, False, False]", op.inputs)
        elif op.kind == "upsample":
            self._write(i, "nn.Upsample", f"[None, {op.scale}, nearest]", op.inputs)
        elif op.kind == "concat":
            self._write(i, "Concat", "[1]", op.inputs)
        else:
            raise _refuse(self.source, op, _NAMES.get(op.kind, f"the operation {op.kind}"))

    def _write(self, i: int, module: str, arguments: str, inputs: Sequence[int]) -> None:
        places = []
        for j in inputs:
            if j not in self.of and (j != 0 or self.lines):
                raise _refuse(self.source, self.graph.ops[i], "only its first module can read the image")
            line = self.of.get(j, -1)
            places.append("-1" if line == len(self.lines) - 1 else str(line))
        from_ = places[0] if len(places) == 1 and module != "Concat" else f"[{', '.join(places)}]"
        self.of[i] = len(self.lines)
        self.lines.append(f"[{from_}, 1, {module}, {arguments}]")

    def _convolution(self, op: Op, channels: int) -> str:
        if not op.norm or op.bias:
            raise _refuse(self.source, op, "a layer without normalisation")
        if op.rep:
            raise _refuse(self.source, op, "RepConv (unit rep_residual) stands in its GELAN block only, with other widths")
        self._check_width(op, channels)
        activated = "" if op.act else ", 1, False"  # dilation, activation
        return f"[{channels}, {op.kernel}, {op.stride}, {op.padding}, {op.groups}{activated}]"

    def _check_width(self, op: Op, channels: int) -> None:
        if channels % WIDTH_STEP:
            raise _refuse(self.source, op, f"its width {channels} is no multiple of {WIDTH_STEP}")

    def _is_cut_apart(self, i: int) -> bool:
        """Whether `i` is a layer of one group, all of whose consumers are slices that share its channels out."""
        op = self.graph.ops[i]
        slices = sorted((self.graph.ops[j].start, self.graph.ops[j]) for j in self.consumers[i])
        if op.kind != "conv" or op.groups != 1 or not slices or any(part.kind != "slice" for _, part in slices):
            return False
        ends = [0, *(start + part.channels for start, part in slices)]
        return [start for start, _ in slices] == ends[:-1] and ends[-1] == op.channels

    def _unit(self, i: int) -> tuple[int, ...]:
        """The two layers of the residual unit that the sum `i` ends; () where it ends none that is a Bottleneck."""
        ops = self.graph.ops
        second, identity = ops[i].inputs
        if ops[second].kind != "conv" or ops[ops[second].inputs[0]].kind != "conv":
            return ()
        first = ops[second].inputs[0]
        a, b = ops[first], ops[second]
        plain = all(op.norm and op.act and not op.rep and not op.bias and op.stride == 1 for op in (a, b)) and a.groups == 1
        alone = self.consumers[first] == [second] and self.consumers[second] == [i]
        kept = int(ops[i].channels * (a.channels / ops[i].channels)) == a.channels
        padded = all(op.padding == op.kernel // 2 for op in (a, b))
        return (first, second) if plain and alone and kept and padded and a.inputs == (identity,) else ()


_NAMES = {
    "masked_add": "a masked or asymmetric residual",
    "add": "a sum that is not that of a residual unit of two layers",
    "slice": "a part of the channels of something that is no layer",
    "stop_gradient": "a stop of the gradient",
    "norm": "a normalisation of its own",
    "act": "an activation of its own",
}


@dataclass(frozen=True)
class _Head:
    """The layers of one output: to the box distributions and to the class logits, each from the level's features on."""

    source: int  # the operation that both read
    boxes: tuple[int, ...]
    labels: tuple[int, ...]
    output: int

    @property
    def operations(self) -> tuple[int, ...]:
        return (*self.boxes, *self.labels, self.output)


def _head_layers(graph: Graph, output: int, source: str) -> _Head:
    """Raises InputError for an output that is no decoupled head of three layers for boxes and three for classes."""
    ops = graph.ops
    readers = Counter(j for op in ops for j in op.inputs)
    if ops[output].kind != "concat" or len(ops[output].inputs) != 2:
        raise _refuse(source, ops[output], "a head that does not predict boxes and classes apart")
    chains = []
    for last in ops[output].inputs:
        chain = [last]
        while len(chain) < 3:
            before = ops[chain[-1]].inputs[0]
            if ops[before].kind != "conv" or readers[before] > 1:  # the level's features, which both chains read
                break
            chain.append(before)
        chains.append(tuple(reversed(chain)))
    starts = {ops[chain[0]].inputs[0] for chain in chains}
    if len(starts) != 1 or any(len(chain) != 3 for chain in chains):
        raise _refuse(source, ops[output], "a head with another depth than 2")
    return _Head(starts.pop(), chains[0], chains[1], output)


def _check_heads(graph: Graph, heads: Sequence[_Head], source: str) -> int:
    """The number of classes. Raises InputError for widths and groups that Ultralytics' Detect does not have."""
    ops = graph.ops
    classes = ops[heads[0].labels[-1]].channels
    finest = ops[heads[0].source].channels
    box_width, class_width = max(16, finest // 4, 4 * REG_MAX), max(finest, min(classes, 100))
    for head in heads:
        wanted = (
            [(i, box_width, 3) for i in head.boxes[:2]]
            + [(head.boxes[2], 4 * REG_MAX, 1)]
            + [(i, class_width, 3) for i in head.labels[:2]]
            + [(head.labels[2], classes, 1)]
        )
        for i, width, kernel in wanted:
            if ops[i].groups != 1:
                raise _refuse(source, ops[i], f"its head has one group, not {ops[i].groups} (box_groups)")
            if (ops[i].channels, ops[i].kernel) != (width, kernel):
                has = f"{ops[i].channels} channels and kernel {ops[i].kernel}"
                raise _refuse(source, ops[i], f"its head has {width} channels and kernel {kernel} here, not {has}")
    return classes
