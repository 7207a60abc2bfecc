"""Any torch.nn.Module -> Graph, through torch.export, so that networks that were written elsewhere can be analysed.

    graph = trace(model, (torch.zeros(1, 3, 224, 224),))
    graph = trace(model, (x,), outputs=["boxes"], auxiliary=["early"])

The exported program is a list of ATen operations, which are read one by one (`aten.py`). A convolution or linear layer is one
layer with the normalisation and activation that only it feeds. The two branches of a RepConv in training are one layer.
Concatenation, slicing, addition and detaching become the operations of `graph.py`.

Some operations leave the axes (batch, channels, pixels), such as the reshaping of predictions. They make a value *opaque*. An
opaque value may go on to an output, which then stands for the tensors that the value was computed from. A layer that reads an
opaque value is an error, which names the first operation that made it opaque and its place.

A trace does not see zeros inside weights or learned gates, nor gradients through the statistics of a normalisation.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from gpnas.errors import TraceError
from gpnas.graph.aten import JOINING, LAYERS, READERS
from gpnas.graph.graph import Branch, Graph, Output
from gpnas.graph.traced_values import (
    Constant,
    Features,
    Opaque,
    TracedOps,
    Value,
    images,
    learned_parameters,
    operation_name,
    place,
    shape_of,
)


@dataclass(frozen=True)
class _Result:
    """One leaf of what the model returns."""

    name: str
    value: Value
    tensor: Tensor | None
    """A tensor of its shape."""


def trace(
    model: nn.Module,
    inputs: tuple[Tensor, ...],  # one image, (batch, channels, height, width), or features, (batch, channels)
    *,
    outputs: Sequence[str] | None = None,
    auxiliary: Sequence[str] = (),
) -> Graph:
    """The graph of `model` as it is called on `inputs`, in its present mode (training or evaluation).

    outputs: names of the outputs with the main loss; None for all that are not auxiliary.
    auxiliary: names of the outputs with an auxiliary loss.
    An output's name is its place in what the model returns: "0", "boxes", "aux.1", or "output" when it returns one tensor.
    An output's stride is image height / output height, and 1 for an output without pixels.

    Neither weights nor buffers of the model change. Raises TraceError, one line that names the operation and its place, when
    a layer reads a value that the analysis cannot follow, and when names or inputs do not fit.
    """
    if len(inputs) != 1:
        raise TraceError(
            f"{type(model).__name__}: a graph has one image, got {len(inputs)} inputs; wrap the model in one that has one"
        )
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    try:
        with _silence():
            program = torch.export.export(model, inputs, strict=False)
    except Exception as error:  # torch.export raises its own errors, torch's and those of the model
        raise TraceError(f"{type(model).__name__}: {_reason(error)}") from error
    finally:
        model.load_state_dict(state)
    image = inputs[0]
    ops = TracedOps(image.shape[1] if image.dim() > 1 else 1)
    results = _Walk(ops).run(program)
    finished, new_index = ops.finished()
    outs = _outputs(results, outputs, auxiliary, height=image.shape[2] if image.dim() > 2 else 1)
    return Graph(finished, tuple(out._replace(op=new_index[out.op]) for out in outs))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """torch.export logs, and prints the graph so far, when it fails; its exception says enough."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)


def _reason(error: Exception) -> str:
    """Why torch.export failed: the first sentence of its message, or what a branch on values means here."""
    text = " ".join(str(error).split())
    if isinstance(error, GuardOnDataDependentSymNode):
        return "the layers that run depend on the values of the image, so there is no one graph to analyse; fix the branch"
    sentence = re.split(r"(?<=[.!?]) ", text, maxsplit=1)[0]
    return f"torch.export failed: {type(error).__name__}: {sentence}"


class _Walk:
    """Visits the nodes of an exported program in order, and computes the value of each."""

    def __init__(self, ops: TracedOps) -> None:
        self._ops = ops

    def run(self, program: Any) -> list[_Result]:
        """What the program returns to its user; mutated buffers are returned too, and left out."""
        signature = program.graph_signature
        values: dict[fx.Node, Value] = {}
        for node in program.graph.nodes:
            if node.op == "placeholder":
                values[node] = Features(0) if node.name in signature.user_inputs else _constant(program, node)
        returned = self._visit(program.graph_module, values)
        output = next(node for node in program.graph.nodes if node.op == "output")
        for_user = [
            (value, arg.meta.get("val") if isinstance(arg, fx.Node) else None)
            for arg, value in zip(output.args[0], returned, strict=True)
            if not isinstance(arg, fx.Node) or arg.name in signature.user_outputs
        ]
        return [_Result(name, *pair) for name, pair in zip(_output_names(program), for_user, strict=True)]

    def _visit(self, module: fx.GraphModule, values: dict[fx.Node, Value]) -> list[Value]:
        for node in module.graph.nodes:
            if node.op == "get_attr":
                values[node] = getattr(module, str(node.target))
            elif node.op == "call_function":
                values[node] = self._call(node, values)
            elif node.op == "output":
                return [values[arg] if isinstance(arg, fx.Node) else arg for arg in node.args[0]]
        raise TraceError("the exported graph has no output")

    def _call(self, node: fx.Node, values: dict[fx.Node, Value]) -> Value:
        args = fx.map_arg(node.args, values.__getitem__)
        kwargs = fx.map_arg(node.kwargs, values.__getitem__)
        if node.target is operator.getitem:
            sequence: Any = args[0]
            index: Any = args[1]
            # Some readers return the first of an operation's several results alone.
            return sequence[index] if isinstance(sequence, list | tuple) else sequence
        if str(node.target) == "wrap_with_set_grad_enabled":
            return self._region(args)
        if not images([args, kwargs]):
            return Constant(node.name, learned=learned_parameters([args, kwargs]))
        name = operation_name(node)
        opaque = next((value for value in images(args) if isinstance(value, Opaque)), None)
        if opaque and name in LAYERS:
            raise TraceError(
                f"{opaque.because}: the analysis cannot follow this operation, and the layer at {place(node)} reads its result"
            )
        value = None
        if name in READERS and not opaque and (isinstance(args[0], Features) or name in JOINING):
            value = READERS[name](self._ops, node, *args, **kwargs)
        if value is None and name in LAYERS:
            raise TraceError(
                f"{name} at {place(node)}: a layer of a form that a graph does not have (its input's axes, or its kernel)"
            )
        return _opaque(node, [args, kwargs]) if value is None else value

    def _region(self, args: Sequence[Value]) -> list[Value]:
        """A part of the network under torch.no_grad() or torch.enable_grad()."""
        grad_enabled, module, *inside = args
        placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
        results = self._visit(module, dict(zip(placeholders, inside, strict=True)))
        return results if grad_enabled else [self._stopped(value) for value in results]

    def _stopped(self, value: Value) -> Value:
        if not isinstance(value, Features):
            return value
        return replace(value, op=self._ops.append("stop_gradient", (value.op,), self._ops.channels(value), "no_grad"))


def _opaque(node: fx.Node, args: Any) -> Opaque:
    parents = images(args)
    ops = dict.fromkeys(op for value in parents for op in _operations(value))
    first = next((value.because for value in parents if isinstance(value, Opaque)), None)
    return Opaque(tuple(ops), first or f"{operation_name(node)} at {place(node)}")


def _operations(value: Features | Opaque) -> tuple[int, ...]:
    """The operations that a value is computed from."""
    return value.ops if isinstance(value, Opaque) else (value.op,)


def _constant(program: Any, node: fx.Node) -> Constant:
    """A parameter, or a buffer with its values: a mask in a buffer is part of the architecture."""
    signature = program.graph_signature
    if node.name in signature.inputs_to_parameters:
        return Constant(node.name, learned=math.prod(shape_of(node)))
    key = signature.inputs_to_buffers.get(node.name, signature.inputs_to_lifted_tensor_constants.get(node.name))
    tensor = program.state_dict.get(key, program.constants.get(key))
    return Constant(node.name, tensor if isinstance(tensor, Tensor) else None)


def _output_names(program: Any) -> list[str]:
    spec = program.call_spec.out_spec
    tree = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    paths = [path for path, _ in pytree.tree_flatten_with_path(tree)[0]]
    return [
        ".".join(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path) or "output"
        for path in paths
    ]


def _outputs(results: Sequence[_Result], outputs: Sequence[str] | None, auxiliary: Sequence[str], height: int) -> list[Output]:
    """The graph's outputs, main ones first. An opaque value has one for each of its operations. height: that of the image."""
    by_name = {result.name: result for result in results if images([result.value])}
    for name in [*(outputs or ()), *auxiliary]:
        if name not in by_name:
            raise TraceError(f"no output is called {name!r} or depends on the image; outputs are {', '.join(by_name)}")
    main = [name for name in by_name if name not in auxiliary] if outputs is None else list(outputs)
    if not main:
        raise TraceError(f"no output carries the main loss; name one of {', '.join(by_name)}")
    made: list[Output] = []
    for name, branch in [*((name, Branch.MAIN) for name in main), *((name, Branch.AUXILIARY) for name in auxiliary)]:
        result = by_name[name]
        ops = _operations(result.value)
        for k, op in enumerate(ops):
            made.append(Output(op, f"{name}.{k}" if len(ops) > 1 else name, branch, _stride(result, height)))
    return made


def _stride(result: _Result, height: int) -> int:
    is_map = isinstance(result.value, Features) and result.value.axis == 1
    if is_map and result.tensor is not None and result.tensor.dim() == 4:
        return max(1, height // int(result.tensor.shape[2]))
    return 1
