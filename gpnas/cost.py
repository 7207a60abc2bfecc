"""What a network costs: parameters, multiply-accumulates, activation bytes; read off the graph, without torch.

Published figures count the fused form at inference; FLOPs are 2 x MACs. Only weighted layers have MACs: additions,
normalisations, activations and poolings are not counted, here as in the papers.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpnas.errors import GraphError
from gpnas.graph import POOLINGS, WEIGHTED, Graph, output_size, parameters

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """params: count. macs: multiply-accumulates for one image. activation_bytes: float32 outputs of all operations that
    make a new tensor, for one image (what training keeps)."""

    params: int
    macs: int
    activation_bytes: int

    @property
    def flops(self) -> int:
        return 2 * self.macs


def cost(graph: Graph, height: int, width: int, *, fused: bool = True) -> Cost:
    """Cost of `graph` as it stands on one image of `height` x `width` pixels.

    fused: count the inference form of each layer (normalisation folded, RepConv merged), else the train form. Call it on
    `graph.inference()` for what a deployed network costs. Raises GraphError when an operation shrinks to nothing or joins
    tensors of different sizes.
    """
    sizes: list[tuple[int, int]] = [(height, width)]
    macs = elements = 0
    ops = graph.ops
    for i in range(1, len(ops)):
        op = ops[i]
        inputs = op.inputs
        size = sizes[inputs[0]]
        if op.kind in _RESIZING:
            size = output_size(op, *size)
            if size[0] < 1 or size[1] < 1:
                raise GraphError(f"{op.name}: nothing is left of an image of {height}x{width}")
        elif len(inputs) > 1:
            for j in inputs:
                if sizes[j] != size:
                    raise GraphError(
                        f"{op.name}: cannot join {_text(size)} and {_text(sizes[j])} on an image of {height}x{width}"
                    )
        sizes.append(size)
        pixels = size[0] * size[1]
        if op.kind in WEIGHTED:
            in_channels = ops[inputs[0]].channels
            if op.kind == "linear" and sizes[inputs[0]] != (1, 1):
                raise GraphError(f"{op.name}: a linear layer reads one pixel, not {_text(sizes[inputs[0]])}; pool first")
            weights = op.kernel * op.kernel * (in_channels // op.groups) * op.channels
            if op.rep and not fused:
                weights += (in_channels // op.groups) * op.channels
            macs += weights * pixels
        if op.kind != "slice":
            elements += op.channels * pixels
    params = sum(graph.parameters) if fused else sum(parameters(ops[i], ops[ops[i].inputs[0]].channels, fused=False) for i in graph.layers)
    return Cost(params, macs, elements * FLOAT_BYTES)


_RESIZING = WEIGHTED | POOLINGS | {"upsample"}


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
