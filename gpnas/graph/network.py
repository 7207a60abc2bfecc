"""The torch.nn.Module of a graph: a form to train, and a fused form for inference.

    network = Network(graph)              # train form: normalisation, RepConv branches, auxiliary outputs
    deployed = network.fused()            # inference form: one convolution for each layer, main outputs only

Fusing folds each normalisation into its convolution, and the 1x1 branch of a RepConv into its 3x3 kernel
(RepVGG, arXiv:2101.03697, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpnas.errors import GraphError
from gpnas.graph.graph import KINDS, Branch, Graph, Op

# The values of the YOLO family. With torch's defaults (1e-5, 0.1) running statistics follow small batches too closely.
NORM_EPS = 1e-3
NORM_MOMENTUM = 0.03


def _activation(name: str, fused: bool = False) -> nn.Module | None:
    if name == "silu":
        # Only where nothing trains: the gradient of SiLU needs its input, which autograd would have to copy first.
        return nn.SiLU(inplace=fused)
    if name == "relu":
        return nn.ReLU(inplace=True)
    if name == "leaky_relu":
        return nn.LeakyReLU(0.1, inplace=True)
    return None


def _convolution(op: Op, in_channels: int, kernel: int, padding: int, bias: bool) -> nn.Conv2d | nn.ConvTranspose2d:
    if op.kind == "conv_transpose":
        return nn.ConvTranspose2d(in_channels, op.channels, kernel, op.stride, padding, op.output_padding, op.groups, bias)
    return nn.Conv2d(in_channels, op.channels, kernel, op.stride, padding, groups=op.groups, bias=bias)


class Convolution(nn.Module):
    """One layer: convolution, normalisation, activation. `op.rep` adds a normalised 1x1 branch before the activation."""

    def __init__(self, op: Op, in_channels: int, fused: bool) -> None:
        super().__init__()
        normalised = op.norm and not fused
        self.conv = _convolution(op, in_channels, op.kernel, op.padding, bias=op.bias or (op.norm and fused))
        self.norm = nn.BatchNorm2d(op.channels, NORM_EPS, NORM_MOMENTUM) if normalised else None
        self.rep_conv = self.rep_norm = None
        if op.rep and not fused:
            self.rep_conv = _convolution(op, in_channels, 1, 0, bias=False)
            self.rep_norm = nn.BatchNorm2d(op.channels, NORM_EPS, NORM_MOMENTUM)
        self.act = _activation(op.act, fused)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if self.norm is not None:
            y = self.norm(y)
        if self.rep_conv is not None and self.rep_norm is not None:
            y = y + self.rep_norm(self.rep_conv(x))
        if self.act is not None:
            y = self.act(y)
        return y

    def fused_weights(self) -> tuple[Tensor, Tensor | None]:
        """Kernel and bias of the single convolution that computes the same at inference."""
        kernel, bias = _folded(self.conv, self.norm)
        if self.rep_conv is not None:
            rep_kernel, rep_bias = _folded(self.rep_conv, self.rep_norm)
            pad = self.conv.kernel_size[0] // 2
            kernel = kernel + functional.pad(rep_kernel, [pad] * 4)
            assert bias is not None and rep_bias is not None  # both branches are normalised
            bias = bias + rep_bias
        return kernel, bias


def _folded(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    if norm is None:
        return conv.weight, conv.bias
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    mean = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
    return conv.weight * scale[:, None, None, None], norm.bias - mean * scale


class Linear(nn.Module):
    """A fully connected layer from a tensor of shape (batch, in channels, 1, 1) to one of (batch, out channels, 1, 1)."""

    def __init__(self, op: Op, in_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, op.channels, bias=op.bias)
        self.act = _activation(op.act)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.flatten(1))[:, :, None, None]
        if self.act is not None:
            y = self.act(y)
        return y


class Network(nn.Module):
    """The torch module of a graph. Its parameters are named after the graph's operations.

    In training mode it computes all of `graph.outputs`, in evaluation mode the main ones. Raises GraphError for operations
    that only `trace` makes.
    """

    def __init__(self, graph: Graph, *, is_fused: bool = False) -> None:
        super().__init__()
        self.graph = graph
        self.is_fused = is_fused
        self.layers = nn.ModuleDict()
        for op in graph.ops:
            # The kernel of a transposed convolution has its axes in another order, so that `_folded` cannot fold into it.
            if op.kind not in KINDS or op.tied or op.window or op.dilation != 1 or (op.kind == "conv_transpose" and op.norm):
                raise GraphError(
                    f"{op.name}: this {op.kind} comes from a traced network, which can be analysed but not built again; "
                    "build the graph with GraphBuilder"
                )
            if op.kind == "norm":
                self.layers[_key(op)] = nn.BatchNorm2d(op.channels, NORM_EPS, NORM_MOMENTUM)
            if op.weighted:
                in_channels = graph.ops[op.inputs[0]].channels
                layer = Linear(op, in_channels) if op.kind == "linear" else Convolution(op, in_channels, is_fused)
                self.layers[_key(op)] = layer
        # By training mode: evaluation runs no auxiliary operation.
        self._plans = {mode: _plan(graph, mode) for mode in (True, False)}

    def forward(
        self,
        images: Tensor,  # (batch, channels, height, width)
    ) -> list[Tensor]:  # for each output (batch, output channels, height / stride, width / stride)
        values: list[Tensor | None] = [None] * len(self.graph.ops)
        values[0] = images
        steps, results = self._plans[self.training]
        for i, last_used in steps:
            values[i] = self._run(self.graph.ops[i], values)
            for j in last_used:
                values[j] = None
        return [values[i] for i in results]  # type: ignore[misc]  # results are never dropped

    def fused(self) -> Network:
        """A copy in inference form and evaluation mode: fused weights, no auxiliary branch."""
        network = Network(self.graph.inference(), is_fused=True)
        parameter = next(self.parameters(), None)
        if parameter is not None:
            network.to(device=parameter.device, dtype=parameter.dtype)
        with torch.no_grad():
            for key, layer in network.layers.items():
                source = self.layers[key]
                if isinstance(layer, Linear | nn.BatchNorm2d):
                    layer.load_state_dict(source.state_dict())
                    continue
                assert isinstance(source, Convolution) and isinstance(layer, Convolution)
                kernel, bias = source.fused_weights()
                layer.conv.weight.copy_(kernel)
                if layer.conv.bias is not None and bias is not None:
                    layer.conv.bias.copy_(bias)
        return network.eval()

    def layer(self, op: int) -> nn.Module:
        """The torch module of the layer `graph.ops[op]`."""
        return self.layers[_key(self.graph.ops[op])]

    def _run(self, op: Op, values: list[Tensor | None]) -> Tensor:
        xs: list[Tensor] = [values[j] for j in op.inputs]  # type: ignore[misc]  # topological order
        if op.weighted or op.kind == "norm":
            result: Tensor = self.layers[_key(op)](xs[0])
            return result
        return _FUNCTIONS[op.kind](op, xs)


def _masked_add(op: Op, xs: list[Tensor]) -> Tensor:
    block, identity = xs
    if op.kept == block.shape[1]:
        return block + identity[:, : op.kept]
    return torch.cat([block[:, : op.kept] + identity[:, : op.kept], block[:, op.kept :]], dim=1)


_ACTS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "relu": functional.relu,
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.1),
}

_FUNCTIONS: dict[str, Callable[[Op, list[Tensor]], Tensor]] = {
    "act": lambda op, xs: _ACTS[op.act](xs[0]),
    "max_pool": lambda op, xs: functional.max_pool2d(xs[0], op.kernel, op.stride, op.padding),
    "avg_pool": lambda op, xs: functional.avg_pool2d(xs[0], op.kernel, op.stride, op.padding, count_include_pad=False),
    "global_avg_pool": lambda op, xs: xs[0].mean(dim=(2, 3), keepdim=True),
    "upsample": lambda op, xs: functional.interpolate(xs[0], scale_factor=float(op.scale), mode="nearest"),
    "concat": lambda op, xs: torch.cat(xs, dim=1),
    "slice": lambda op, xs: xs[0][:, op.start : op.start + op.channels],
    "add": lambda op, xs: xs[0] + xs[1],
    "masked_add": _masked_add,
    "zero": lambda op, xs: torch.zeros_like(xs[0]),
    "stop_gradient": lambda op, xs: xs[0].detach(),
}


def _key(op: Op) -> str:
    return op.name.replace(".", "/")  # a torch module's name must not contain a dot, an operation's name no slash


def _plan(graph: Graph, with_auxiliary: bool) -> tuple[list[tuple[int, tuple[int, ...]]], list[int]]:
    """Steps, each with the tensors that no later step reads; and the operations whose tensors are returned."""
    branch = None if with_auxiliary else Branch.MAIN
    needed = graph.reaching(branch)
    results = [out.op for out in graph.outputs if with_auxiliary or out.branch == Branch.MAIN]
    last_use = {j: i for i, op in enumerate(graph.ops) if needed[i] for j in op.inputs}
    last_used: dict[int, list[int]] = {}
    for j, i in last_use.items():
        if j not in results:
            last_used.setdefault(i, []).append(j)
    steps = [(i, tuple(last_used.get(i, ()))) for i in range(1, len(graph.ops)) if needed[i]]
    return steps, results
