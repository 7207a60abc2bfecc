"""A network as ONNX nodes, written from its graph: one node or two for each operation, with the fused weights.

The file is written, not traced: it needs no onnxscript, its tensors have the names of the graph's operations, and an export
takes a fraction of a second. Source: the operators of ONNX (https://onnx.ai/onnx/operators), in the versions that OPSET has;
OPSET is 17 because onnxruntime, OpenVINO, OpenCV and TensorRT have read it for years.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from gpnas.graph.graph import Op
from gpnas.graph.network import NORM_EPS, Convolution, Linear, Network

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

OPSET = 17

IR_VERSION = 8
"""Of the file format; the one that came with OPSET 17."""


class OnnxNodes:
    """Nodes and constants, in the order in which they are computed. Each method returns the name of a tensor."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._taken: set[str] = set()

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """A node with one output, which gets the name of the node."""
        from onnx import helper

        name = self._unique(name)
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, values: NDArray[Any] | Tensor, name: str) -> str:
        from onnx import numpy_helper

        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
        name = self._unique(name)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def integers(self, values: Sequence[int], name: str) -> str:
        return self.constant(np.array(values, dtype=np.int64), name)

    def slice(self, x: str, axis: int, start: int, stop: int, name: str) -> str:
        """The elements [start, stop) of `x` along `axis`."""
        bounds = [self.integers([v], f"{name}.{key}") for key, v in (("start", start), ("stop", stop), ("axis", axis))]
        return self.node("Slice", [x, *bounds], name)

    def reshape(self, x: str, shape: Sequence[int], name: str) -> str:
        """`x` in another shape, in which 0 keeps the size that `x` has at this place, and -1 is what is left."""
        return self.node("Reshape", [x, self.integers(shape, f"{name}.shape")], name)

    def _unique(self, name: str) -> str:
        unique, number = name, 1
        while unique in self._taken:
            unique, number = f"{name}.{number}", number + 1
        self._taken.add(unique)
        return unique


def write_network(nodes: OnnxNodes, network: Network, images: str) -> list[str]:
    """Append the nodes of a fused `network` that reads the tensor `images`; returns the names of its outputs.

    Raises ValueError for a network that is not fused: its file would hold what only training needs.
    """
    if not network.is_fused:
        raise ValueError("the network is in train form; export network.fused()")
    tensors = [images]
    for i, op in enumerate(network.graph.ops[1:], start=1):
        inputs = [tensors[j] for j in op.inputs]
        layer = network.layer(i) if op.weighted or op.kind == "norm" else None
        if isinstance(layer, Convolution):
            tensors.append(_convolution(nodes, op, inputs[0], layer.conv))
        elif isinstance(layer, Linear):
            tensors.append(_linear(nodes, op, inputs[0], layer.linear))
        elif isinstance(layer, nn.BatchNorm2d):
            tensors.append(_norm(nodes, op, inputs[0], layer))
        else:
            tensors.append(_OPERATIONS[op.kind](nodes, op, inputs, network))
    return [tensors[out.op] for out in network.graph.outputs]


def _convolution(nodes: OnnxNodes, op: Op, x: str, conv: nn.Conv2d | nn.ConvTranspose2d) -> str:
    weights = [nodes.constant(conv.weight, f"{op.name}.weight")]
    if conv.bias is not None:
        weights.append(nodes.constant(conv.bias, f"{op.name}.bias"))
    if op.kind == "conv_transpose":
        more = {"output_padding": list(op.output_padding)}
        y = nodes.node("ConvTranspose", [x, *weights], f"{op.name}.conv", **_window(op), group=op.groups, **more)
    else:
        y = nodes.node("Conv", [x, *weights], f"{op.name}.conv", **_window(op), group=op.groups)
    return _activated(nodes, y, op)


def _linear(nodes: OnnxNodes, op: Op, x: str, linear: nn.Linear) -> str:
    flat = nodes.node("Flatten", [x], f"{op.name}.flat", axis=1)
    weights = [nodes.constant(linear.weight, f"{op.name}.weight")]
    if linear.bias is not None:
        weights.append(nodes.constant(linear.bias, f"{op.name}.bias"))
    y = nodes.node("Gemm", [flat, *weights], f"{op.name}.linear", transB=1)
    return _activated(nodes, nodes.reshape(y, [0, op.channels, 1, 1], f"{op.name}.pixel"), op)


def _norm(nodes: OnnxNodes, op: Op, x: str, norm: nn.BatchNorm2d) -> str:
    values = {"weight": norm.weight, "bias": norm.bias, "mean": norm.running_mean, "variance": norm.running_var}
    statistics = [nodes.constant(value, f"{op.name}.{key}") for key, value in values.items() if value is not None]
    return nodes.node("BatchNormalization", [x, *statistics], op.name, epsilon=NORM_EPS)


def _activated(nodes: OnnxNodes, x: str, op: Op) -> str:
    if op.act == "silu":  # ONNX has an operator for it from opset 24 on, which few runtimes read
        return nodes.node("Mul", [x, nodes.node("Sigmoid", [x], f"{op.name}.sigmoid")], op.name)
    if op.act == "relu":
        return nodes.node("Relu", [x], op.name)
    if op.act == "leaky_relu":
        return nodes.node("LeakyRelu", [x], op.name, alpha=0.1)
    return x


def _window(op: Op) -> dict[str, Any]:
    return {"kernel_shape": [op.kernel] * 2, "strides": [op.stride] * 2, "pads": [op.padding] * 4}


def _upsample(nodes: OnnxNodes, op: Op, x: str) -> str:
    scales = nodes.constant(np.array([1, 1, op.scale, op.scale], dtype=np.float32), f"{op.name}.scales")
    nearest = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return nodes.node("Resize", [x, "", scales], op.name, **nearest)


def _masked_add(nodes: OnnxNodes, op: Op, xs: Sequence[str], network: Network) -> str:
    block, identity = (network.graph.ops[i].channels for i in op.inputs)
    added = xs[1] if identity == op.kept else nodes.slice(xs[1], 1, 0, op.kept, f"{op.name}.identity")
    if block == op.kept:
        return nodes.node("Add", [xs[0], added], op.name)
    total = nodes.node("Add", [nodes.slice(xs[0], 1, 0, op.kept, f"{op.name}.kept"), added], f"{op.name}.sum")
    rest = nodes.slice(xs[0], 1, op.kept, block, f"{op.name}.masked")
    return nodes.node("Concat", [total, rest], op.name, axis=1)


def _zero(nodes: OnnxNodes, op: Op, x: str) -> str:
    return nodes.node("Mul", [x, nodes.constant(np.zeros((1, 1, 1, 1), dtype=np.float32), f"{op.name}.factor")], op.name)


_OPERATIONS: dict[str, Callable[[OnnxNodes, Op, list[str], Network], str]] = {
    "act": lambda nodes, op, xs, _: _activated(nodes, xs[0], op),
    "max_pool": lambda nodes, op, xs, _: nodes.node("MaxPool", xs, op.name, **_window(op)),
    "avg_pool": lambda nodes, op, xs, _: nodes.node("AveragePool", xs, op.name, **_window(op), count_include_pad=0),
    "global_avg_pool": lambda nodes, op, xs, _: nodes.node("GlobalAveragePool", xs, op.name),
    "upsample": lambda nodes, op, xs, _: _upsample(nodes, op, xs[0]),
    "concat": lambda nodes, op, xs, _: nodes.node("Concat", xs, op.name, axis=1),
    "slice": lambda nodes, op, xs, _: nodes.slice(xs[0], 1, op.start, op.start + op.channels, op.name),
    "add": lambda nodes, op, xs, _: nodes.node("Add", xs, op.name),
    "masked_add": _masked_add,
    "zero": lambda nodes, op, xs, _: _zero(nodes, op, xs[0]),
    "stop_gradient": lambda _, __, xs, ___: xs[0],
}
"""Beside the layers, the kinds of `gpnas.graph.graph.KINDS`."""
