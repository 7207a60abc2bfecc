"""What a network costs: parameters, multiply-accumulates (MACs) and activation bytes, counted on the graph without torch.

Published figures count the fused form at inference. FLOPs are 2 x MACs. Weighted layers have MACs, and products of two tensors
that are summed, as those of attention. As in the papers, additions, normalisations, activations and poolings are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpnas.errors import GraphError
from gpnas.graph.graph import POOLINGS, WEIGHTED, Graph, Op, output_size, parameters

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """params: number of parameters. macs: multiply-accumulates for one image. activation_bytes: bytes of the float32
    outputs of all operations except slices, which are views, for one image: an estimate of what training keeps."""

    params: int
    macs: int
    activation_bytes: int

    @property
    def flops(self) -> int:
        return 2 * self.macs


def cost(graph: Graph, height: int, width: int, *, fused: bool = True) -> Cost:
    """Cost of all operations of `graph` on one image of `height` x `width` pixels. See `deployed_cost` for inference.

    fused: count the inference form of each layer (normalisation folded, RepConv merged), else the train form.
    Raises GraphError when no pixel of a tensor is left, or when tensors of different sizes are joined.
    """
    sizes: list[tuple[int, int]] = [(height, width)]
    macs = elements = 0
    ops = graph.ops
    for op in ops[1:]:
        kind, inputs, channels, _, kernel, stride, padding, groups = op[:8]
        size = read = sizes[inputs[0]]
        if kind in _RESIZING:
            if kind != "conv" or stride != 1 or 2 * padding != kernel - 1 or op.dilation != 1 or op.window:
                size = output_size(op, *size)
                if size[0] < 1 or size[1] < 1:
                    raise GraphError(f"{op.name}: nothing is left of an image of {height}x{width}")
        elif kind in _JOINING_SIZES:
            size = size_after(op, [sizes[j] for j in inputs])
        elif len(inputs) > 1:
            for j in inputs:
                if sizes[j] != size:
                    raise GraphError(
                        f"{op.name}: cannot join {_text(size)} and {_text(sizes[j])} on an image of {height}x{width}"
                    )
        sizes.append(size)
        pixels = size[0] * size[1]
        if kind in WEIGHTED:
            if kind == "linear" and read != (1, 1):
                raise GraphError(f"{op.name}: a linear layer reads one pixel, not {_text(read)}; pool first")
            in_channels = ops[inputs[0]].channels // groups
            weights = kernel * (op.window[0] if op.window else kernel) * in_channels * channels
            if op.rep and not fused:
                weights += in_channels * channels
            # A transposed convolution applies its kernel to each pixel of its input.
            macs += weights * (read[0] * read[1] if kind == "conv_transpose" else pixels)
        elif kind == "product":
            macs += kernel * channels * pixels
        if kind != "slice":
            elements += channels * pixels
    params = sum(graph.parameters)
    if not fused:
        params += sum(_only_in_training(op, ops[op.inputs[0]].channels) for op in ops if op.kind in WEIGHTED)
    return Cost(params, macs, elements * FLOAT_BYTES)


def deployed_cost(graph: Graph, imgsz: int) -> Cost:
    """Cost of the fused inference form, without auxiliary branches, on one image of `imgsz` x `imgsz` pixels."""
    return cost(graph.inference(), imgsz, imgsz)


def convolution_weights(graph: Graph) -> int:
    """Number of weights of convolutions and linear layers, without biases, as in the gradient-path paper's Table 2."""
    return sum(
        count - op.channels * (op.norm or op.bias) for op, count in zip(graph.ops, graph.parameters, strict=True) if op.weighted
    )


def _only_in_training(op: Op, in_channels: int) -> int:
    return parameters(op, in_channels, fused=False) - parameters(op, in_channels)


def size_after(op: Op, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Height and width of the output of `op`, whose inputs have these sizes. stack: all pixels in one column. broadcast: the
    smaller size is repeated to the larger one."""
    if op.kind == "stack":
        return sum(h * w for h, w in sizes), 1
    if op.kind == "broadcast":
        return max(h for h, _ in sizes), max(w for _, w in sizes)
    return op.size if op.kind == "product" else output_size(op, *sizes[0])


_JOINING_SIZES = ("stack", "broadcast", "product")

_RESIZING = WEIGHTED | POOLINGS | {"upsample", "fit"}


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
