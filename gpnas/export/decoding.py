"""From the outputs of a network to boxes and scores, as part of an exported file.

The formula is that of the detector's head (`evaluators.detector.head`, Generalized Focal Loss, arXiv:2006.04388, section 3.2):
the distance to a side is the expectation over 0, 1, ... reg_max - 1 strides. The form is another one, for other programs:
channels come before anchors, boxes are xywh, and cells are constants, because a file has one image size. The expectation is a
product and a sum: OpenCV 5 refuses a product with a vector.

Shapes: (batch, 4 + classes, anchors), xywh in input pixels, then scores in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpnas.export.onnx_graph import OnnxNodes
from gpnas.graph.graph import Graph
from gpnas.graph.network import Network


class Cells(NamedTuple):
    """The anchors of all outputs in one row: output by output, each row by row. Raises ValueError, as `cells_of` does."""

    points: NDArray[np.float32]  # (2, anchors), x and y of the centres, in input pixels
    strides: NDArray[np.float32]  # (anchors,), input pixels per cell
    counts: tuple[int, ...]  # cells of each output
    bins: int  # reg_max
    classes: int


def cells_of(graph: Graph, classes: int, imgsz: int) -> Cells:
    """The anchors of a detector on square images of `imgsz` pixels.

    Raises ValueError for outputs that are no head of gpnas for `classes` classes, and for an image size that a stride does not
    divide.
    """
    coarse = next((out for out in graph.outputs if imgsz % out.stride), None)
    if coarse is not None:
        raise ValueError(f"imgsz {imgsz} is no multiple of {coarse.stride}, the stride of output {coarse.name}")
    points, strides, counts, all_bins = [], [], [], set()
    for out in graph.outputs:
        height = width = imgsz // out.stride
        bins, rest = divmod(graph.ops[out.op].channels - classes, 4)
        if rest or bins < 1:
            raise ValueError(
                f"output {out.name} has {graph.ops[out.op].channels} channels, not 4 * reg_max + {classes} classes"
            )
        ys, xs = np.mgrid[:height, :width].astype(np.float32)
        points.append(out.stride * (np.stack([xs.ravel(), ys.ravel()]) + 0.5))
        strides.append(np.full(height * width, out.stride))
        counts.append(height * width)
        all_bins.add(bins)
    if len(all_bins) != 1:
        raise ValueError(f"the outputs have different numbers of bins: {sorted(all_bins)}")
    as_floats = [np.concatenate(parts, axis=-1).astype(np.float32) for parts in (points, strides)]
    return Cells(as_floats[0], as_floats[1], tuple(counts), all_bins.pop(), classes)


class DecodedNetwork(nn.Module):
    """A fused network and the decoding of its outputs, for the formats that torch writes."""

    def __init__(self, network: Network, classes: int, imgsz: int) -> None:
        super().__init__()
        cells = cells_of(network.graph, classes, imgsz)
        self.network = network
        self.counts, self.bins_per_side = cells.counts, cells.bins
        self.register_buffer("points", torch.from_numpy(cells.points))
        self.register_buffer("strides", torch.from_numpy(cells.strides))
        self.register_buffer("bins", torch.arange(cells.bins, dtype=torch.float32)[:, None])
        self.eval()

    def forward(
        self,
        images: Tensor,  # (batch, 3, imgsz, imgsz), RGB in [0, 1]
    ) -> Tensor:  # (batch, 4 + classes, anchors)
        flat = torch.cat([output.flatten(2) for output in self.network(images)], dim=2)
        sides = torch.unflatten(flat[:, : 4 * self.bins_per_side], 1, (4, self.bins_per_side))  # (batch, 4, reg_max, anchors)
        distances = (sides.softmax(2) * self.get_buffer("bins")).sum(2) * self.get_buffer("strides")
        before, after = distances[:, :2], distances[:, 2:]
        centres = self.get_buffer("points") + (after - before) / 2
        return torch.cat([centres, before + after, flat[:, 4 * self.bins_per_side :].sigmoid()], dim=1)


class Decoded(NamedTuple):
    """Names of tensors of an ONNX graph."""

    before: str  # (batch, 2, anchors), from the centre of the cell to the left and top side, in input pixels
    after: str  # (batch, 2, anchors), to the right and bottom side
    points: str  # (1, 2, anchors), the centres of the cells
    scores: str  # (batch, classes, anchors)


def write_decoding(nodes: OnnxNodes, outputs: Sequence[str], cells: Cells) -> Decoded:
    """Append the nodes that decode the `outputs` of a network, (batch, 4 * reg_max + classes, height, width) each."""
    channels = 4 * cells.bins + cells.classes
    anchors = sum(cells.counts)
    flat = [
        nodes.reshape(output, [0, channels, count], f"decode.flat{i}")
        for i, (output, count) in enumerate(zip(outputs, cells.counts, strict=True))
    ]
    joined = nodes.node("Concat", flat, "decode.joined", axis=2) if len(flat) > 1 else flat[0]
    logits = nodes.slice(joined, 1, 0, 4 * cells.bins, "decode.distributions")
    sides = nodes.reshape(logits, [0, 4, cells.bins, anchors], "decode.sides")
    bins = nodes.constant(np.arange(cells.bins, dtype=np.float32).reshape(1, 1, -1, 1), "decode.bins")
    weighted = nodes.node("Mul", [nodes.node("Softmax", [sides], "decode.softmax", axis=2), bins], "decode.weighted")
    expected = nodes.node("ReduceSum", [weighted, nodes.integers([2], "decode.axis")], "decode.expected", keepdims=0)
    strides = nodes.constant(cells.strides.reshape(1, 1, -1), "decode.strides")
    reach = nodes.node("Mul", [expected, strides], "decode.reach")
    return Decoded(
        before=nodes.slice(reach, 1, 0, 2, "decode.before"),
        after=nodes.slice(reach, 1, 2, 4, "decode.after"),
        points=nodes.constant(cells.points[None], "decode.points"),
        scores=nodes.node("Sigmoid", [nodes.slice(joined, 1, 4 * cells.bins, channels, "decode.classes")], "decode.scores"),
    )


def write_centres(nodes: OnnxNodes, decoded: Decoded) -> str:
    """Boxes as xywh: (batch, 4, anchors)."""
    half = nodes.constant(np.full((1, 1, 1), 0.5, dtype=np.float32), "boxes.half")
    moved = nodes.node("Mul", [nodes.node("Sub", [decoded.after, decoded.before], "boxes.difference"), half], "boxes.moved")
    centres = nodes.node("Add", [moved, decoded.points], "boxes.centres")
    sizes = nodes.node("Add", [decoded.before, decoded.after], "boxes.sizes")
    return nodes.node("Concat", [centres, sizes], "boxes.xywh", axis=1)


def write_corners(nodes: OnnxNodes, decoded: Decoded) -> str:
    """Boxes as xyxy: (batch, anchors, 4)."""
    first = nodes.node("Sub", [decoded.points, decoded.before], "boxes.first")
    second = nodes.node("Add", [decoded.points, decoded.after], "boxes.second")
    return nodes.node(
        "Transpose", [nodes.node("Concat", [first, second], "boxes.corners", axis=1)], "boxes.xyxy", perm=[0, 2, 1]
    )
