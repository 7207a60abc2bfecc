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
import operator
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from gpnas.errors import TraceError
from gpnas.graph.aten import CONSTANTS, JOINING, LAYERS, READERS
from gpnas.graph.axes import channels_along
from gpnas.graph.graph import Branch, Graph, Op, Output
from gpnas.graph.graph import parameters as parameters_of_layer
from gpnas.graph.traced_values import (
    Constant,
    Features,
    Opaque,
    Parameter,
    TracedOps,
    Uncounted,
    Value,
    images,
    named,
    opaque,
    operation_name,
    operations,
    parameters_of,
    place,
    shape_of,
)
from gpnas.graph.written_views import Memories, overwriting, writes


@dataclass(frozen=True)
class Traced:
    """graph: the network. left_out: the parameters that it does not count, because the outputs are not computed from them and
    the image. The graph's training form and `left_out` have all parameters of the module."""

    graph: Graph
    left_out: tuple[Parameter, ...]


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
    """The graph of `trace_module`, without the names of the parameters that it leaves out."""
    return trace_module(model, inputs, outputs=outputs, auxiliary=auxiliary).graph


def trace_module(
    model: nn.Module,
    inputs: tuple[Tensor, ...],  # one image, (batch, channels, height, width), or features, (batch, channels)
    *,
    outputs: Sequence[str] | None = None,
    auxiliary: Sequence[str] = (),
) -> Traced:
    """The graph of `model` as it is called on `inputs`, in its present mode (training or evaluation).

    outputs: names of the outputs with the main loss; None for all that are not auxiliary.
    auxiliary: names of the outputs with an auxiliary loss.
    An output's name is its place in what the model returns: "0", "boxes", "aux.1", or "output" when it returns one tensor.
    An output's stride is image height / output height, and 1 for an output without pixels.

    Neither weights nor buffers of the model change. Raises TraceError, one line that names the operation and its place, when
    a layer reads a value that the analysis cannot follow, when an output needs parameters that a graph cannot count, and when
    names or inputs do not fit.
    """
    if len(inputs) != 1:
        raise TraceError(
            f"{type(model).__name__}: a graph has one image, got {len(inputs)} inputs; wrap the model in one that has one"
        )
    state = {key: value.detach().clone() for key, value in model.state_dict().items() if isinstance(value, Tensor)}
    try:
        with _silence():
            program = torch.export.export(model, inputs, strict=False)
    except Exception as error:  # torch.export raises its own errors, torch's and those of the model
        raise TraceError(f"{type(model).__name__}: {_reason(error)}") from error
    finally:
        _restore(model, state)
    image = inputs[0]
    ops = TracedOps(image)
    parameters = _parameters(model)
    results = _Walk(ops, program.graph, parameters).run(program)
    chosen = _chosen(results, outputs, auxiliary)
    _check_counted([result.value for result, _ in chosen])
    finished, new_index = ops.finished()
    outs = _outputs(ops, chosen, height=image.shape[2] if image.dim() > 2 else 1)
    graph = Graph(finished, tuple(out._replace(op=new_index[out.op]) for out in outs))
    left_out = set(parameters.values()) - ops.counted
    _check_sum(model, graph, sum(p.elements for p in left_out))
    return Traced(graph, tuple(sorted(left_out)))


def _restore(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give parameters and buffers the values of `state`. `load_state_dict` would run the hooks that some models have for old
    files of weights."""
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if isinstance(value, Tensor):
                value.copy_(state[key])


def _parameters(model: nn.Module) -> dict[str, Parameter]:
    """By each of their qualified names, the parameters; one that has two names is known by the first."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    return {name: Parameter(first[id(parameter)], parameter.numel()) for name, parameter in every}


def _check_counted(values: Sequence[Value]) -> None:
    """Raise TraceError when outputs with these values need parameters that the graph does not count."""
    uncounted = [some for value in values if isinstance(value, Opaque) for some in value.uncounted]
    if uncounted:
        first: Uncounted = uncounted[0]
        raise TraceError(
            f"{first.because}: the analysis cannot follow this operation, and would not count its parameters "
            f"{named(first.parameters)}; choose outputs that do not need it, or analyse the network without it"
        )


def _check_sum(model: nn.Module, graph: Graph, left_out: int) -> None:
    """Raise TraceError when the training form of `graph` and what is left out are not all parameters of `model`."""
    counts = [_learned(op, graph) for op in graph.ops]
    whole = sum(parameter.numel() for parameter in model.parameters())
    if sum(counts) + left_out != whole:
        raise TraceError(
            f"{type(model).__name__}: its graph counts {sum(counts)} parameters and leaves out {left_out}, but it has {whole}; "
            "please report this network"
        )


def _learned(op: Op, graph: Graph) -> int:
    """The parameters of an operation in training."""
    return parameters_of_layer(op, graph.ops[op.inputs[0]].channels, fused=False) if op.weighted else op.learned


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """torch.export logs, warns, and prints the graph so far, when it fails; its exception says enough."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
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

    def __init__(self, ops: TracedOps, graph: fx.Graph, parameters: Mapping[str, Parameter]) -> None:
        self._ops = ops
        self._values = Memories(ops, graph)
        self._parameters = parameters

    def run(self, program: Any) -> list[_Result]:
        """What the program returns to its user; mutated buffers are returned too, and left out."""
        signature = program.graph_signature
        for node in program.graph.nodes:
            if node.op == "placeholder":
                is_image = node.name in signature.user_inputs
                self._values[node] = self._image(node) if is_image else self._constant(program, node)
        returned = self._visit(program.graph_module)
        output = next(node for node in program.graph.nodes if node.op == "output")
        for_user = [
            (value, arg.meta.get("val") if isinstance(arg, fx.Node) else None)
            for arg, value in zip(output.args[0], returned, strict=True)
            if not isinstance(arg, fx.Node) or arg.name in signature.user_outputs
        ]
        return [_Result(name, *pair) for name, pair in zip(_output_names(program), for_user, strict=True)]

    def _image(self, node: fx.Node) -> Features:
        shape = shape_of(node)
        return Features(0, channels_along(shape, 1 if len(shape) > 1 else 0))

    def _constant(self, program: Any, node: fx.Node) -> Constant:
        """A parameter, or a buffer with its values: a mask in a buffer is part of the architecture."""
        signature = program.graph_signature
        parameter = signature.inputs_to_parameters.get(node.name)
        if parameter is not None:
            return Constant(node.name, parameters=frozenset([self._parameters[parameter]]))
        key = signature.inputs_to_buffers.get(node.name, signature.inputs_to_lifted_tensor_constants.get(node.name))
        tensor = program.state_dict.get(key, program.constants.get(key))
        return Constant(node.name, tensor if isinstance(tensor, Tensor) else None)

    def _visit(self, module: fx.GraphModule) -> list[Value]:
        for node in module.graph.nodes:
            if node.op == "get_attr":
                self._values[node] = getattr(module, str(node.target))
            elif node.op == "call_function":
                self._values[node] = self._call(node)
            elif node.op == "output":
                return [self._values[arg] if isinstance(arg, fx.Node) else arg for arg in node.args[0]]
        raise TraceError("the exported graph has no output")

    def _call(self, node: fx.Node) -> Value:
        args = fx.map_arg(node.args, self._values.__getitem__)
        kwargs = fx.map_arg(node.kwargs, self._values.__getitem__)
        if node.target is operator.getitem:
            sequence: Any = args[0]
            index: Any = args[1]
            # Some readers return the first of an operation's several results alone.
            return sequence[index] if isinstance(sequence, list | tuple) else sequence
        if str(node.target) == "wrap_with_set_grad_enabled":
            grad_enabled, module, *inside = args
            results = self._region(module, inside)
            return results if grad_enabled else [self._stopped(value) for value in results]
        if str(node.target) == "wrap_with_autocast":
            return self._region(args[4], args[5:])
        if not writes(node):
            return self._computed(node, args, kwargs)
        new = overwriting(node, args)
        return self._values.write(node, self._computed(node, args, kwargs) if new is None else new)

    def _computed(self, node: fx.Node, args: Sequence[Value], kwargs: Mapping[str, Value]) -> Value:
        """What an operation returns, when it writes nothing."""
        values = [args, kwargs]
        name = operation_name(node)
        if not images(values) or name in CONSTANTS:
            return Constant(node.name, parameters=parameters_of(values))
        blocked = next((value for value in images(values) if isinstance(value, Opaque)), None)
        if blocked and name in LAYERS:
            raise TraceError(
                f"{blocked.because}: the analysis cannot follow this operation, and the layer at {place(node)} reads its result"
            )
        value = None
        one_image = isinstance(args[0], Features) and (name in LAYERS or not images([args[1:], kwargs]))
        if name in READERS and not blocked and (one_image or name in JOINING):
            first = self._ops.number()
            value = READERS[name](self._ops, node, *args, **kwargs)
            every = [*images(values), *images([value])]
            if any(isinstance(one, Features) and one.axis is None for one in every):
                self._ops.go_beyond(first)
        if value is None and name in LAYERS:
            raise TraceError(
                f"{name} at {place(node)}: a layer of a form that a graph does not have (its input's axes, or its kernel)"
            )
        return opaque(node, values) if value is None or self._ops.uncounted(values) else value

    def _region(self, module: Any, inside: Sequence[Value]) -> list[Value]:
        """A part of the network under torch.no_grad(), torch.enable_grad() or torch.autocast()."""
        placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
        for node, value in zip(placeholders, inside, strict=True):
            self._values[node] = value
        return self._visit(module)

    def _stopped(self, value: Value) -> Value:
        if not isinstance(value, Features):
            return value
        return replace(value, op=self._ops.append("stop_gradient", (value.op,), self._ops.channels(value), "no_grad"))


def _output_names(program: Any) -> list[str]:
    spec = program.call_spec.out_spec
    tree = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    paths = [path for path, _ in pytree.tree_flatten_with_path(tree)[0]]
    return [
        ".".join(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path) or "output"
        for path in paths
    ]


def _chosen(
    results: Sequence[_Result], outputs: Sequence[str] | None, auxiliary: Sequence[str]
) -> list[tuple[_Result, Branch]]:
    """The results that carry a loss, and which; main ones first."""
    by_name = {result.name: result for result in results if images([result.value])}
    if not by_name:
        raise TraceError("no output depends on the image, so no layer gets a gradient; return what the layers compute")
    for name in [*(outputs or ()), *auxiliary]:
        if name not in by_name:
            raise TraceError(f"no output is called {name!r} or depends on the image; outputs are {', '.join(by_name)}")
    main = [name for name in by_name if name not in auxiliary] if outputs is None else list(outputs)
    if not main:
        raise TraceError(f"no output carries the main loss; name one of {', '.join(by_name)}")
    return [*((by_name[name], Branch.MAIN) for name in main), *((by_name[name], Branch.AUXILIARY) for name in auxiliary)]


def _outputs(ops: TracedOps, chosen: Sequence[tuple[_Result, Branch]], height: int) -> list[Output]:
    """The graph's outputs. An opaque value has one for each of its operations. height: that of the image."""
    made: list[Output] = []
    for result, branch in chosen:
        of_loss = list(dict.fromkeys(i for op in operations(result.value) for i in ops.loss_of(op)))
        for k, op in enumerate(of_loss):
            name = f"{result.name}.{k}" if len(of_loss) > 1 else result.name
            made.append(Output(op, name, branch, _stride(result, height)))
    return made


def _stride(result: _Result, height: int) -> int:
    is_map = isinstance(result.value, Features) and result.value.axis == 1
    if is_map and result.tensor is not None and result.tensor.dim() == 4:
        return max(1, height // int(result.tensor.shape[2]))
    return 1
