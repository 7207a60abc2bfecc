"""Any torch.nn.Module -> Graph, through torch.export: what the gradient-path analysis needs of a network made elsewhere.

    graph = trace(model, (torch.zeros(1, 3, 224, 224),))
    graph = trace(model, (x,), outputs=["boxes"], auxiliary=["early"])

The exported ATen operations are read one by one. A convolution or linear layer with the normalisation and activation that
only it feeds is one layer; RepConv's two branches in training are one; concatenation, slicing, addition and detaching are
what they are in `graph.py`. Moves that leave the pattern (batch, channels, pixels), such as the reshaping of predictions,
make a value *opaque*: it may go on to an output, which then carries the loss of the tensors that it was made from, but a
layer that reads it is an error that names the first such operation and its place. Nothing is skipped.

Not seen: zeros inside weights or learned gates, and gradients through a normalisation's statistics.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from gpnas.errors import TraceError
from gpnas.graph.graph import ACTIVATIONS, Branch, Graph, Op, Output


@dataclass(frozen=True)
class _Features:
    """A tensor whose channels are those of `op` along `axis`; the other axes are batch and pixels.

    flat: the (height, width) that was flattened into the channels, which the next linear layer reads as a kernel.
    groups: the channels stand as (groups, channels / groups) along axis and axis + 1, and in that order when not `turned`.
    """

    op: int
    axis: int = 1
    flat: tuple[int, int] | None = None
    groups: int = 0
    turned: bool = False


@dataclass(frozen=True)
class _Opaque:
    """A value made from `ops` in a way that the graph cannot say; `because` names the first operation and its place."""

    ops: tuple[int, ...]
    because: str


_Value = Any
"""_Features, _Opaque, a list of values, or a constant: whatever does not depend on the image."""


def trace(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    *,
    outputs: Sequence[str] | None = None,
    auxiliary: Sequence[str] = (),
) -> Graph:
    """The graph of `model` called on `inputs`: one image of shape (batch, channels, height, width), or (batch, features).

    The model's own training or evaluation mode counts, and neither its weights nor its buffers change. outputs: names of
    the outputs that carry the main loss (all but the auxiliary ones, unless given); auxiliary: those of an auxiliary loss.
    An output's name is its place in what the model returns: "0", "boxes", "aux.1", or "output" when it returns one tensor.
    An output's stride is image height / output height, and 1 for one without pixels.

    Raises TraceError, one line that names the operation and its place, where a layer reads what the analysis does not know,
    and where names or inputs do not fit.
    """
    if len(inputs) != 1:
        raise TraceError(
            f"{type(model).__name__}: a graph has one image, got {len(inputs)} inputs; wrap the model in one that has one"
        )
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    try:
        program = torch.export.export(model, inputs, strict=False)
    except Exception as error:  # torch.export raises its own, torch's and the model's errors alike
        raise TraceError(f"{type(model).__name__}: torch.export failed: {' '.join(str(error).split())[:300]}") from error
    finally:
        model.load_state_dict(state)
    tracer = _Tracer(inputs[0])
    results = tracer.run(program)
    names = _output_names(program)
    return tracer.graph(list(zip(names, results, strict=True)), outputs, auxiliary)


def _output_names(program: Any) -> list[str]:
    spec = program.call_spec.out_spec
    tree = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    paths = [path for path, _ in pytree.tree_flatten_with_path(tree)[0]]
    return [
        ".".join(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path) or "output"
        for path in paths
    ]


class _Tracer:
    def __init__(self, image: Tensor) -> None:
        self.ops: list[Op] = [Op("image", (), image.shape[1] if image.dim() > 1 else 1, "image")]
        self.height = image.shape[2] if image.dim() > 2 else 1
        self.readers: dict[int, int] = {}
        self.merged: set[int] = set()
        self._weights: dict[Any, int] = {}
        self._names: dict[str, int] = {}

    def run(self, program: Any) -> list[tuple[_Value, Tensor | None]]:
        """The values of the user's outputs, each with its shape."""
        graph: fx.Graph = program.graph
        users = set(program.graph_signature.user_inputs)
        values: dict[fx.Node, _Value] = {}
        for node in graph.nodes:
            if node.op == "placeholder":
                values[node] = _Features(0) if node.name in users else _constant(program, node)
        output = self._walk(program.graph_module, values)
        mine = set(program.graph_signature.user_outputs)
        node = next(node for node in graph.nodes if node.op == "output")
        flat = [arg for arg in node.args[0] if not isinstance(arg, fx.Node) or arg.name in mine]
        kept = [
            value for arg, value in zip(node.args[0], output, strict=True) if not isinstance(arg, fx.Node) or arg.name in mine
        ]
        return [
            (value, arg.meta.get("val") if isinstance(arg, fx.Node) else None) for arg, value in zip(flat, kept, strict=True)
        ]

    def _walk(self, module: fx.GraphModule, values: dict[fx.Node, _Value]) -> list[_Value]:
        for node in module.graph.nodes:
            if node.op == "get_attr":
                values[node] = getattr(module, str(node.target))
            elif node.op == "call_function":
                values[node] = self._call(node, values)
            elif node.op == "output":
                return [values[arg] if isinstance(arg, fx.Node) else arg for arg in node.args[0]]
        raise TraceError("the exported graph has no output")

    def _call(self, node: fx.Node, values: dict[fx.Node, _Value]) -> _Value:
        args = fx.map_arg(node.args, values.__getitem__)
        kwargs = fx.map_arg(node.kwargs, values.__getitem__)
        if node.target is operator.getitem:
            found: Any = args[0]
            index: Any = args[1]
            return found[index] if isinstance(found, list | tuple) else found  # batch_norm's form with statistics
        if str(node.target) == "wrap_with_set_grad_enabled":
            return self._region(args)
        if not _images(args) and not _images(kwargs):
            constants = [value for value in pytree.tree_leaves([args, kwargs]) if isinstance(value, _Constant)]
            return _Constant(node.name, learned=sum(constant.learned for constant in constants))
        name = _operation(node)
        if name in _LAYERS and _opaque(args):
            because = next(value.because for value in _images(args) if isinstance(value, _Opaque))
            raise TraceError(f"{because}: the analysis cannot follow this operation, and the layer at {_place(node)} reads it")
        reader = _READERS.get(name)
        result = None
        if reader is not None and not _opaque(args) and (isinstance(args[0], _Features) or reader in (_elementwise, _cat)):
            result = reader(self, node, *args, **kwargs)
        if result is None and name in _LAYERS:
            raise TraceError(
                f"{name} at {_place(node)}: a layer of a form that a graph does not have (its input's axes, or its kernel)"
            )
        return result if result is not None else self._unknown(node, name, [*args, *kwargs.values()])

    def _region(self, args: Sequence[_Value]) -> list[_Value]:
        """A part of the network under torch.no_grad() or torch.enable_grad()."""
        enabled, module, *inside = args
        holders = [node for node in module.graph.nodes if node.op == "placeholder"]
        results = self._walk(module, dict(zip(holders, inside, strict=True)))
        return results if enabled else [self._stopped(value) for value in results]

    def _stopped(self, value: _Value) -> _Value:
        if not isinstance(value, _Features):
            return value
        return replace(value, op=self.add("stop_gradient", (value.op,), self.ops[value.op].channels, "no_grad"))

    def _unknown(self, node: fx.Node, name: str, args: Sequence[_Value]) -> _Opaque:
        """What cannot be followed: an error later, if a layer reads it; part of the loss if none does."""
        parents = _images(args)
        before = next((value.because for value in parents if isinstance(value, _Opaque)), None)
        ops = dict.fromkeys(op for value in parents for op in (value.ops if isinstance(value, _Opaque) else (value.op,)))
        return _Opaque(tuple(ops), before or f"{name} at {_place(node)}")

    def add(self, kind: str, inputs: tuple[int, ...], channels: int, name: str, **fields: Any) -> int:
        for j in inputs:
            self.readers[j] = self.readers.get(j, 0) + 1
        name = name.replace("/", "_")
        number = self._names.get(name, 0)
        self._names[name] = number + 1
        self.ops.append(Op(kind, inputs, channels, f"{name}.{number}" if number else name, **fields))
        return len(self.ops) - 1

    def layer(
        self, node: fx.Node, kind: str, x: _Value, channels: int, weight: _Value, bias: _Value, **fields: Any
    ) -> _Features:
        """Append a layer; one whose weights an earlier layer has is tied to it."""
        if _images([weight, bias]):
            raise TraceError(
                f"{kind} at {_place(node)}: its weights are computed from the image, which no layer of a graph does"
            )
        tied = weight.name in self._weights
        op = self.add(kind, (x.op,), channels, _module(node) or kind, bias=bias is not None, tied=tied, **fields)
        self._weights.setdefault(weight.name, op)
        return _Features(op)

    def only_reader(self, node: fx.Node, value: _Features) -> bool:
        """Whether `node` alone reads the layer `value`, so that it may become part of it."""
        source = node.args[0]
        return isinstance(source, fx.Node) and len(source.users) == 1 and self.readers.get(value.op, 0) == 0

    def fitted(self, node: fx.Node, op: int) -> int:
        """The pixels of `op` cut, repeated or padded to those of `node`: a move of whole pixels, which keeps channels."""
        rows, columns = _shape(node)[2:]
        return self.add("fit", (op,), self.ops[op].channels, _named(node, "fit"), window=(0, rows, columns))

    def rep_conv(self, node: fx.Node, x: _Features, y: _Features) -> _Features | None:
        """The sum of a normalised 3x3 and a normalised 1x1 convolution of one tensor is one RepConv layer in training."""
        big, small = sorted((x.op, y.op), key=lambda i: -self.ops[i].kernel)
        a, b = self.ops[big], self.ops[small]
        alike = a.kind == b.kind == "conv" and a.inputs == b.inputs and a[5:6] == b[5:6] and a.groups == b.groups
        plain = a.norm and b.norm and not (a.act or b.act or a.window[0] or b.window[0] or a.tied or b.tied)
        if not (alike and plain and (a.kernel, a.padding, b.kernel, b.padding) == (3, 1, 1, 0) and a.dilation == 1):
            return None
        if any(
            self.readers.get(i, 0) or len(arg.users) != 1 for i, arg in zip((x.op, y.op), node.all_input_nodes, strict=True)
        ):
            return None
        self.ops[big] = a._replace(rep=True)
        self.merged.add(small)
        return replace(x, op=big)

    def graph(
        self, results: list[tuple[str, tuple[_Value, Tensor | None]]], outputs: Sequence[str] | None, auxiliary: Sequence[str]
    ) -> Graph:
        known = {name: found for name, found in results if _images([found[0]])}
        for name in [*(outputs or ()), *auxiliary]:
            if name not in known:
                raise TraceError(f"no output is called {name!r} or depends on the image; outputs are {', '.join(known)}")
        main = [name for name in known if name not in auxiliary] if outputs is None else list(outputs)
        if not main:
            raise TraceError(f"no output carries the main loss; name one of {', '.join(known)}")
        chosen = [(name, Branch.MAIN) for name in main] + [(name, Branch.AUXILIARY) for name in auxiliary]
        found: list[Output] = []
        for name, branch in chosen:
            value, shape = known[name]
            tops = value.ops if isinstance(value, _Opaque) else (value.op,)
            for k, op in enumerate(tops):
                found.append(Output(op, f"{name}.{k}" if len(tops) > 1 else name, branch, self._stride(value, shape)))
        kept = [i for i in range(len(self.ops)) if i not in self.merged]
        index = {old: new for new, old in enumerate(kept)}
        ops = [self.ops[i]._replace(inputs=tuple(index[j] for j in self.ops[i].inputs)) for i in kept]
        return Graph(tuple(ops), tuple(out._replace(op=index[out.op]) for out in found))

    def _stride(self, value: _Value, shape: Tensor | None) -> int:
        if isinstance(value, _Features) and value.axis == 1 and shape is not None and shape.dim() == 4:
            return max(1, self.height // int(shape.shape[2]))
        return 1


@dataclass(frozen=True)
class _Constant:
    """A value that does not depend on the image: a parameter, a buffer, or what was computed from them."""

    name: str
    tensor: Tensor | None = None
    learned: int = 0
    """Learned parameters in it."""


def _constant(program: Any, node: fx.Node) -> _Constant:
    if node.name in program.graph_signature.inputs_to_parameters:
        return _Constant(node.name, learned=math.prod(_shape(node)))
    return _Constant(node.name, _constant_tensor(program, node))


def _constant_tensor(program: Any, node: fx.Node) -> Tensor | None:
    """The value of a buffer or lifted constant; a mask among them is part of the architecture. Parameters are not looked at."""
    signature = program.graph_signature
    if node.name in signature.inputs_to_buffers:
        key = signature.inputs_to_buffers[node.name]
        value = program.state_dict.get(key, program.constants.get(key))
    else:
        value = program.constants.get(signature.inputs_to_lifted_tensor_constants.get(node.name))
    return value if isinstance(value, Tensor) else None


def _images(args: Any) -> list[_Features | _Opaque]:
    return [value for value in pytree.tree_leaves(args) if isinstance(value, _Features | _Opaque)]


def _opaque(args: Any) -> bool:
    return any(isinstance(value, _Opaque) for value in pytree.tree_leaves(args))


def _module(node: fx.Node) -> str:
    """Path of the module whose forward has the operation."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


def _operation(node: fx.Node) -> str:
    """The ATen operation's name without overload and in-place mark."""
    return str(node.target).removeprefix("aten.").split(".")[0].rstrip("_")


def _place(node: fx.Node) -> str:
    where = _module(node) or "the model's forward"
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip().startswith("File")]
    return f"{where} ({lines[-1]})" if lines else where


def _shape(node: Any) -> list[int]:
    return [int(size) for size in node.meta["val"].shape]


def _named(node: fx.Node, kind: str) -> str:
    module = _module(node)
    return f"{module}.{kind}" if module else kind


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    numbers = [int(v) for v in value]
    return (numbers[0], numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def _windowed(kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> dict[str, Any]:
    fields: dict[str, Any] = {"kernel": kernel[0], "stride": stride[0], "padding": padding[0]}
    if kernel[0] != kernel[1] or stride[0] != stride[1] or padding[0] != padding[1]:
        fields["window"] = (kernel[1], stride[1], padding[1])
    return fields


def _conv(
    t: _Tracer, node: fx.Node, x: _Features, weight: _Value, bias: _Value = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> _Features | None:  # fmt: skip
    shape = _shape(node.args[1])
    kernel = (shape[2], shape[3]) if len(shape) == 4 else (shape[2], 1)
    spread = _pair(dilation)
    if len(shape) not in (3, 4) or x.axis != 1 or x.groups or x.flat or (len(shape) == 4 and spread[0] != spread[1]):
        return None
    strides = _pair(stride)
    if isinstance(padding, str):  # "same" puts an odd pixel on one side; the size is what it would be with half of it each
        pads = (0, 0) if padding == "valid" else (spread[0] * (kernel[0] - 1) // 2, spread[0] * (kernel[1] - 1) // 2)
        if padding == "same" and any(spread[0] * (k - 1) % 2 for k in kernel):
            return None
    else:
        pads = _pair(padding)
    if len(shape) == 3:
        strides, pads = (strides[0], 1), (pads[0], 0)
    return t.layer(
        node, "conv", x, shape[0], weight, bias, groups=groups, dilation=spread[0], **_windowed(kernel, strides, pads)
    )


def _conv_transpose(
    t: _Tracer, node: fx.Node, x: _Features, weight: _Value, bias: _Value = None,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> _Features | None:  # fmt: skip
    shape, spread = _shape(node.args[1]), _pair(dilation)
    if len(shape) != 4 or x.axis != 1 or x.groups or x.flat or spread[0] != spread[1]:
        return None
    fields = _windowed((shape[2], shape[3]), _pair(stride), _pair(padding))
    extra = _pair(output_padding)
    return t.layer(
        node,
        "conv_transpose",
        x,
        shape[1] * groups,
        weight,
        bias,
        groups=groups,
        dilation=spread[0],
        output_padding=extra,
        **fields,
    )


def _linear(t: _Tracer, node: fx.Node, x: _Features, weight: _Value, bias: _Value = None) -> _Features | None:
    """On one pixel a linear layer; on a flattened map a convolution as large as the map; along the last axis a 1x1 one."""
    width, rank = _shape(node.args[1])[0], len(_shape(node.args[0]))
    if x.axis != rank - 1 or x.groups:
        return None
    if x.flat and x.flat != (1, 1):
        return t.layer(node, "conv", x, width, weight, bias, **_windowed(x.flat, (1, 1), (0, 0)))
    made = t.layer(node, "linear" if rank == 2 else "conv", x, width, weight, bias)
    return replace(made, axis=x.axis)


def _norm(t: _Tracer, node: fx.Node, x: _Features, *_: Any, **__: Any) -> _Features:
    """Part of the layer before it; those whose statistics come from each image cannot be folded into its weights."""
    op = t.ops[x.op]
    if (
        "batch_norm" in _operation(node)
        and op.kind in ("conv", "linear", "conv_transpose")
        and not op.norm
        and not op.act
        and t.only_reader(node, x)
    ):
        t.ops[x.op] = op._replace(norm=True)
        return replace(x)
    return replace(x, op=t.add("norm", (x.op,), op.channels, _module(node) or "norm"))


def _activation(t: _Tracer, node: fx.Node, x: _Features, *args: Any, **_: Any) -> _Features:
    name = _operation(node)
    op = t.ops[x.op]
    known = name in ACTIVATIONS and (name != "leaky_relu" or (args[:1] and args[0] == 0.1))
    if known and op.kind in ("conv", "linear") and not op.act and t.only_reader(node, x):
        t.ops[x.op] = op._replace(act=name)
        return replace(x)
    return replace(x, op=t.add("act", (x.op,), op.channels, _named(node, name), act=name))


def _same(t: _Tracer, node: fx.Node, x: _Features, *_: Any, **__: Any) -> _Features:
    return replace(x)


def _detach(t: _Tracer, node: fx.Node, x: _Features) -> _Features:
    return replace(x, op=t.add("stop_gradient", (x.op,), t.ops[x.op].channels, _named(node, "detach")))


def _pool(kind: str) -> Callable[..., _Features | None]:
    def read(
        t: _Tracer, node: fx.Node, x: _Features, kernel: Any, stride: Any = (), padding: Any = 0, *more: Any, **_: Any
    ) -> _Features | None:
        if x.axis != 1 or x.groups or len(_shape(node.args[0])) != 4:
            return None
        strides = _pair(stride) if stride not in ((), []) else _pair(kernel)
        fields = _windowed(_pair(kernel), strides, _pair(padding))
        dilation = more[0] if kind == "max_pool" and more else 1
        ceil = more[1] if kind == "max_pool" and len(more) > 1 else more[0] if kind == "avg_pool" and more else False
        if _pair(dilation) != (1, 1):
            return None
        pooled = t.add(kind, (x.op,), t.ops[x.op].channels, _named(node, kind), **fields)
        return replace(x, op=t.fitted(node, pooled) if ceil else pooled)

    return read


def _adaptive(kind: str) -> Callable[..., _Features | None]:
    def read(t: _Tracer, node: fx.Node, x: _Features, size: Any) -> _Features | None:
        shape = _shape(node.args[0])
        if x.axis != 1 or x.groups or len(shape) != 4:
            return None
        to = tuple(
            shape[2 + i] if wanted is None else int(wanted)
            for i, wanted in enumerate(_pair(size) if not isinstance(size, list) else size)
        )
        return _pooled_to(t, node, x, kind, (shape[2], shape[3]), (to[0], to[1]))

    return read


def _pooled_to(
    t: _Tracer, node: fx.Node, x: _Features, kind: str, size: tuple[int, int], to: tuple[int, int]
) -> _Features | None:
    channels = t.ops[x.op].channels
    if size == to:
        return replace(x)
    if to == (1, 1) and kind == "avg_pool":
        return replace(x, op=t.add("global_avg_pool", (x.op,), channels, _named(node, "global_avg_pool")))
    if any(have % want for have, want in zip(size, to, strict=True)):
        return None
    kernel = (size[0] // to[0], size[1] // to[1])
    return replace(x, op=t.add(kind, (x.op,), channels, _named(node, kind), **_windowed(kernel, kernel, (0, 0))))


def _mean(t: _Tracer, node: fx.Node, x: _Features, dims: Any = None, keepdim: bool = False, **_: Any) -> _Features | None:
    """Over all pixels; a mean over channels mixes them and is not followed."""
    shape = _shape(node.args[0])
    over = {int(d) % len(shape) for d in (dims or [])}
    pixels = set(range(1, len(shape))) - {x.axis}
    if over != pixels or x.groups or not pixels:
        return None
    op = t.add("global_avg_pool", (x.op,), t.ops[x.op].channels, _named(node, "global_avg_pool"))
    return _Features(op, x.axis if keepdim else 1)


def _amax(t: _Tracer, node: fx.Node, x: _Features, dims: Any = (), keepdim: bool = False) -> _Features | None:
    shape = _shape(node.args[0])
    if {int(d) % len(shape) for d in dims} != {2, 3} or x.axis != 1 or len(shape) != 4:
        return None
    return _pooled_to(t, node, x, "max_pool", (shape[2], shape[3]), (1, 1))


def _resize(t: _Tracer, node: fx.Node, x: _Features, *_: Any, **__: Any) -> _Features | None:
    before, after = _shape(node.args[0]), _shape(node)
    if x.axis != 1 or len(before) != 4:
        return None
    channels = t.ops[x.op].channels
    if (
        all(b and a % b == 0 for b, a in zip(before[2:], after[2:], strict=True))
        and after[2] * before[3] == after[3] * before[2]
    ):
        scale = after[2] // before[2]
        return (
            replace(x, op=t.add("upsample", (x.op,), channels, _named(node, "upsample"), scale=scale))
            if scale > 1
            else replace(x)
        )
    return replace(x, op=t.fitted(node, x.op))


def _cat(t: _Tracer, node: fx.Node, xs: Sequence[_Value], dim: int = 0) -> _Features | None:
    if not all(isinstance(x, _Features) and not x.groups and not x.flat for x in xs) or len({x.axis for x in xs}) != 1:
        return None
    axis = xs[0].axis
    channels = [t.ops[x.op].channels for x in xs]
    ops = tuple(x.op for x in xs)
    if int(dim) % len(_shape(node)) == axis:
        return _Features(ops[0] if len(ops) == 1 else t.add("concat", ops, sum(channels), _named(node, "concat")), axis)
    if int(dim) % len(_shape(node)) == 0 or len(set(channels)) != 1:
        return None
    return _Features(t.add("stack", ops, channels[0], _named(node, "stack")), axis)


def _split(t: _Tracer, node: fx.Node, x: _Features, sizes: Any, dim: int = 0) -> list[_Value] | None:
    shape = _shape(node.args[0])
    axis = int(dim) % len(shape)
    if axis != x.axis or x.groups or x.flat:
        return None
    total = shape[axis]
    widths = [min(sizes, total - at) for at in range(0, total, sizes)] if isinstance(sizes, int) else [int(s) for s in sizes]
    return [_cut(t, node, x, sum(widths[:i]), width) for i, width in enumerate(widths)]


def _chunk(t: _Tracer, node: fx.Node, x: _Features, chunks: int, dim: int = 0) -> list[_Value] | None:
    total = _shape(node.args[0])[int(dim)]
    return _split(t, node, x, math.ceil(total / chunks), dim)


def _cut(t: _Tracer, node: fx.Node, x: _Features, start: int, width: int) -> _Features:
    if width == t.ops[x.op].channels:
        return replace(x)
    return replace(x, op=t.add("slice", (x.op,), width, _named(node, "slice"), start=start))


def _slice(
    t: _Tracer, node: fx.Node, x: _Features, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> _Features | None:
    shape = _shape(node.args[0])
    axis = int(dim) % len(shape)
    first, last, step = slice(start, end, step).indices(shape[axis])
    if axis == 0 or (first == 0 and last == shape[axis] and step == 1):
        return replace(x)
    if x.groups or x.flat:
        return None
    if axis == x.axis:
        return _cut(t, node, x, first, last - first) if step == 1 else None
    return replace(x, op=t.fitted(node, x.op)) if x.axis == 1 and len(shape) == 4 else None


def _narrow(t: _Tracer, node: fx.Node, x: _Features, dim: int, start: int, length: int) -> _Features | None:
    return _slice(t, node, x, dim, start, start + length)


def _view(t: _Tracer, node: fx.Node, x: _Features, *_: Any, **__: Any) -> _Features | None:
    """Reshapes that keep the channels whole: to and from (groups, channels / groups), and of the pixels."""
    before, after = _shape(node.args[0]), _shape(node)
    if before == after:
        return replace(x)
    if before[0] != after[0]:
        return None
    channels = t.ops[x.op].channels
    if x.groups:
        if x.axis != 1 or after[1] != channels or math.prod(after[2:]) != math.prod(before[3:]):
            return None
        if not x.turned:
            return _Features(x.op)
        return _Features(t.add("shuffle", (x.op,), channels, _named(node, "shuffle"), scale=x.groups))
    if x.axis != 1 or x.flat:
        return None
    if after[1] == channels and math.prod(after[2:]) == math.prod(before[2:]):
        return replace(x)
    if len(after) == 2 and len(before) == 4:
        return replace(x, flat=(before[2], before[3]))
    if len(after) == len(before) + 1 and after[1] * after[2] == channels and after[3:] == before[2:]:
        return _Features(x.op, 1, groups=after[1])
    return None


def _permute(t: _Tracer, node: fx.Node, x: _Features, dims: Any) -> _Features | None:
    order = [int(d) % len(dims) for d in dims]
    if order[0] != 0:
        return None
    if x.groups:
        turned = [0, 2, 1, *range(3, len(order))]
        return replace(x, turned=not x.turned) if order == turned else None
    return replace(x, axis=order.index(x.axis)) if not x.flat else None


def _transpose(t: _Tracer, node: fx.Node, x: _Features, a: int, b: int) -> _Features | None:
    order = list(range(len(_shape(node.args[0]))))
    order[a], order[b] = order[b], order[a]
    return _permute(t, node, x, order)


def _unsqueeze(t: _Tracer, node: fx.Node, x: _Features, dim: int) -> _Features | None:
    rank = len(_shape(node))
    return replace(x) if int(dim) % rank > x.axis and not x.groups and not x.flat else None


def _squeeze(t: _Tracer, node: fx.Node, x: _Features, dim: Any = None) -> _Features | None:
    return replace(x) if x.axis == 1 and _shape(node)[:2] == _shape(node.args[0])[:2] and not x.groups and not x.flat else None


def _pad(t: _Tracer, node: fx.Node, x: _Features, *_: Any, **__: Any) -> _Features | None:
    before, after = _shape(node.args[0]), _shape(node)
    if x.axis != 1 or len(before) != 4 or before[:2] != after[:2]:
        return None
    return replace(x, op=t.fitted(node, x.op))


def _elementwise(t: _Tracer, node: fx.Node, x: _Value, y: _Value = None, *_: Any, **__: Any) -> _Features | None:
    """Two tensors of the image joined, or one with a constant, whose zeros mask channels."""
    if not isinstance(x, _Features):
        return _with_constant(t, node, y, x, 1) if isinstance(y, _Features) else None
    if not isinstance(y, _Features):
        return _with_constant(t, node, x, y, 0)
    shapes = [_shape(arg) for arg in node.args[:2]]
    if x.groups or y.groups or x.flat or y.flat or len(shapes[0]) != len(shapes[1]) or x.axis != y.axis:
        return None
    name = _operation(node)
    if name == "add" and shapes[0] == shapes[1]:
        return t.rep_conv(node, x, y) or replace(x, op=t.add("add", (x.op, y.op), t.ops[x.op].channels, _named(node, "add")))
    widths = {t.ops[x.op].channels, t.ops[y.op].channels}
    if len(widths) > 1 and 1 not in widths:
        return None
    kind = "join" if shapes[0][2:] == shapes[1][2:] and x.axis == 1 else "broadcast"
    return replace(x, op=t.add(kind, (x.op, y.op), max(widths), _named(node, name), act=name))


def _with_constant(t: _Tracer, node: fx.Node, x: _Features, constant: _Value, position: int) -> _Features | None:
    name = _operation(node)
    if _shape(node) != _shape(node.args[position]):
        return None  # the constant repeats the tensor
    tensor = constant.tensor if isinstance(constant, _Constant) else None
    if isinstance(constant, _Constant) and constant.learned:
        gain = t.add("gain", (x.op,), t.ops[x.op].channels, _named(node, "gain"), learned=constant.learned)
        return replace(x, op=gain)
    if name == "mul" and tensor is not None and x.axis == 1 and not x.groups and not x.flat:
        return _masked(t, node, x, tensor)
    return replace(x)


def _masked(t: _Tracer, node: fx.Node, x: _Features, mask: Tensor) -> _Features | None:
    """Multiplication by a buffer: channels that it sets to zero pass no gradient (PRN written with a mask)."""
    rank, channels = len(_shape(node.args[0])), t.ops[x.op].channels
    if not bool((mask == 0).any()):
        return replace(x)
    full = mask.detach().reshape([1] * (rank - mask.dim()) + list(mask.shape))
    if any(size != 1 for i, size in enumerate(full.shape) if i != 1):
        return None if _zeroed(full, channels) is None else replace(x)
    open_channels = [bool(v != 0) for v in full.expand(1, channels, *[1] * (rank - 2)).flatten()]
    if not any(open_channels):
        return _detach(t, node, x)
    borders = [i for i in range(1, channels) if open_channels[i] != open_channels[i - 1]]
    parts = []
    for low, high in zip([0, *borders], [*borders, channels], strict=True):
        part = _cut(t, node, x, low, high - low)
        parts.append(part.op if open_channels[low] else _detach(t, node, part).op)
    return replace(x, op=t.add("concat", tuple(parts), channels, _named(node, "mask")))


def _zeroed(full: Tensor, channels: int) -> bool | None:
    """None when a mask over pixels shuts whole channels too, which is not followed."""
    shut = (full == 0).flatten(2).all(2).all(0)
    return None if bool(shut.any()) else False


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
_LAYERS = (
    "conv1d",
    "conv2d",
    "conv3d",
    "convolution",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "linear",
    "addmm",
)

_READERS: dict[str, Callable[..., Any]] = {
    "conv2d": _conv,
    "conv1d": _conv,
    "convolution": _conv,
    "conv_transpose2d": _conv_transpose,
    "linear": _linear,
    **dict.fromkeys(_NORMS, _norm),
    **dict.fromkeys(_UNARY, _activation),
    **dict.fromkeys(_IDENTITIES, _same),
    "detach": _detach,
    "max_pool2d": _pool("max_pool"),
    "avg_pool2d": _pool("avg_pool"),
    "adaptive_avg_pool2d": _adaptive("avg_pool"),
    "adaptive_max_pool2d": _adaptive("max_pool"),
    "mean": _mean,
    "amax": _amax,
    "upsample_nearest2d": _resize,
    "upsample_bilinear2d": _resize,
    "upsample_bicubic2d": _resize,
    "_upsample_nearest_exact2d": _resize,
    "cat": _cat,
    "concat": _cat,
    "split": _split,
    "split_with_sizes": _split,
    "chunk": _chunk,
    "slice": _slice,
    "narrow": _narrow,
    "view": _view,
    "reshape": _view,
    "_unsafe_view": _view,
    "flatten": _view,
    "unflatten": _view,
    "permute": _permute,
    "transpose": _transpose,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "add": _elementwise,
    "sub": _elementwise,
    "rsub": _elementwise,
    "mul": _elementwise,
    "div": _elementwise,
    "maximum": _elementwise,
    "minimum": _elementwise,
}
"""What is known of each ATen operation, by its name without overload and in-place mark; anything else is opaque."""
