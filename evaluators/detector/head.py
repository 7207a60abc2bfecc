"""The anchor-free head: from the outputs of a network to boxes, and from boxes to detections.

An output of shape (batch, 4 * reg_max + classes, height, width) predicts one object for each of its cells. A box side is
the expectation of a distribution over `reg_max` distances, 0 to reg_max - 1 strides from the cell's centre (Generalized
Focal Loss, arXiv:2006.04388, section 3.2); a class score is the sigmoid of its logit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpnas.graph.graph import Graph, Op
from gpnas.graph.network import Convolution, Network

EXPECTED_DISTANCE = 2.0
"""Strides from a cell's centre to each side of its box in an untrained network.

A uniform distribution expects 7.5 strides at reg_max 16, far more than most objects: the first boxes then overlap nothing
well, and task-aligned targets, which are as high as the overlap, teach little for the first epochs.
"""

_OBJECTS = 5.0  # in an image, as an untrained network expects: the class scores' prior (RetinaNet, arXiv:1708.02002, 4.1)


class Anchors(NamedTuple):
    """The cells of all levels in one row. points: (anchors, 2), x and y of the centres in input pixels.
    strides: (anchors,). levels: first anchor, height, width and stride of each level."""

    points: Tensor
    strides: Tensor
    levels: tuple[tuple[int, int, int, int], ...]


def anchors(outputs: Sequence[Tensor], strides: Sequence[int]) -> Anchors:
    """The cells of `outputs`, whose cells stand `strides` input pixels apart."""
    points, steps, levels, first = [], [], [], 0
    for output, stride in zip(outputs, strides, strict=True):
        height, width = output.shape[-2:]
        ys, xs = (stride * (torch.arange(n, device=output.device) + 0.5) for n in (height, width))
        points.append(torch.stack([xs.expand(height, width), ys[:, None].expand(height, width)], dim=-1).view(-1, 2))
        steps.append(torch.full((height * width,), float(stride), device=output.device))
        levels.append((first, height, width, stride))
        first += height * width
    return Anchors(torch.cat(points), torch.cat(steps), tuple(levels))


def flattened(outputs: Sequence[Tensor]) -> Tensor:
    """Outputs of all levels -> float32 (batch, anchors, channels). Of channels_last outputs only the joined copy is made."""
    return torch.cat([output.permute(0, 2, 3, 1).flatten(1, 2) for output in outputs], dim=1).float()


def reg_max(channels: int, classes: int) -> int:
    """Bins of a side's distribution, in an output of `channels` channels."""
    bins, rest = divmod(channels - classes, 4)
    if bins < 1 or rest:
        raise ValueError(f"an output of {channels} channels is not 4 * reg_max + {classes} classes")
    return bins


def expected_distances(log_probabilities: Tensor) -> Tensor:
    """(..., reg_max) logarithms of a distribution -> (...) its expectation, in strides."""
    bins = torch.arange(log_probabilities.shape[-1], device=log_probabilities.device, dtype=log_probabilities.dtype)
    return log_probabilities.exp() @ bins


def boxes_around(points: Tensor, strides: Tensor, distances: Tensor) -> Tensor:
    """Boxes (..., 4), xyxy in pixels, whose left, top, right and bottom sides stand `distances` (..., 4) strides away from
    `points` (..., 2)."""
    reach = distances * strides[..., None]
    return torch.cat([points - reach[..., :2], points + reach[..., 2:]], dim=-1)


def decode(outputs: Sequence[Tensor], strides: Sequence[int], classes: int) -> tuple[Tensor, Tensor]:
    """boxes: (batch, anchors, 4), xyxy in input pixels; scores: (batch, anchors, classes) in [0, 1]; both float32."""
    cells = anchors(outputs, strides)
    flat = flattened(outputs)  # (batch, anchors, 4 * reg_max + classes)
    bins = reg_max(flat.shape[-1], classes)
    sides = torch.unflatten(flat[..., : 4 * bins], -1, (4, bins))
    boxes = boxes_around(cells.points, cells.strides, expected_distances(sides.log_softmax(-1)))
    return boxes, flat[..., 4 * bins :].sigmoid()


def detections(
    boxes: Tensor,
    scores: Tensor,
    sizes: Sequence[tuple[int, int]],
    *,
    threshold: float = 0.001,
    iou: float = 0.7,
    candidates: int = 2000,
    most: int = 300,
) -> list[NDArray[np.float64]]:
    """What remains of decoded boxes after class-wise non-maximum suppression: one (n, 6) array for each image, with rows
    x1, y1, x2, y2 (input pixels, clipped to the image's height and width in `sizes`), score, class; best score first.

    An anchor stands for each class whose score exceeds `threshold`. Only the `candidates` best scores of an image are
    looked at, and only the `most` best remain.
    """
    boxes, scores = boxes.float().cpu(), scores.float().cpu()
    found = []
    for image_boxes, image_scores, (height, width) in zip(boxes, scores, sizes, strict=True):
        flat = image_scores.flatten()  # (anchors * classes,)
        chosen = (flat > threshold).nonzero().squeeze(1)
        if len(chosen) > candidates:
            chosen = chosen[flat[chosen].topk(candidates).indices]
        limits = torch.tensor([width, height, width, height])
        xyxy = torch.minimum(image_boxes[chosen // scores.shape[2]].clamp(min=0), limits).double().numpy()
        rows = np.column_stack([xyxy, flat[chosen].double().numpy(), (chosen % scores.shape[2]).numpy()])
        rows = rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]
        found.append(_suppressed(rows[np.argsort(-rows[:, 4], kind="stable")], iou, most))
    return found


def _suppressed(rows: NDArray[np.float64], iou: float, most: int) -> NDArray[np.float64]:
    """The `most` best rows that class-wise non-maximum suppression keeps of rows in order of their scores."""
    # A row is only suppressed by better ones: where the first few yield enough, the others need not be looked at.
    kept = _kept(rows[: 4 * most], iou)
    if len(kept) < most and len(rows) > 4 * most:
        kept = _kept(rows, iou)
    return rows[kept[:most]]


def _kept(rows: NDArray[np.float64], iou: float) -> NDArray[np.int64]:
    if not len(rows):
        return np.zeros(0, dtype=np.int64)
    xywh = np.column_stack([rows[:, :2], rows[:, 2:4] - rows[:, :2]])
    suppress: Any = cv2.dnn.NMSBoxesBatched  # takes arrays, though its stub asks for lists
    kept = suppress(xywh, rows[:, 4].astype(np.float32), rows[:, 5].astype(np.int32), 0.0, iou)
    return np.sort(np.array(kept, dtype=np.int64))


def prediction_layers(graph: Graph) -> list[tuple[Op, Op]]:
    """The two layers that make each of the graph's outputs: the box distributions', then the class logits'.

    Raises ValueError, with the output's name, for one that is not the concatenation of two layers.
    """
    layers = []
    for out in graph.outputs:
        inputs = [graph.ops[i] for i in graph.ops[out.op].inputs]
        if graph.ops[out.op].kind != "concat" or len(inputs) != 2 or not all(op.kind == "conv" and op.bias for op in inputs):
            raise ValueError(f"output {out.name} must concatenate a box and a class convolution, both with bias")
        layers.append((inputs[0], inputs[1]))
    return layers


def check_head(graph: Graph, classes: int, imgsz: int) -> None:
    """Raises ValueError when a network of `graph` cannot be trained on `classes` classes at `imgsz` pixels."""
    for out, (box, kinds) in zip(graph.outputs, prediction_layers(graph), strict=True):
        if kinds.channels != classes:
            raise ValueError(f"output {out.name} predicts {kinds.channels} classes, but the data have {classes}")
        reg_max(box.channels + kinds.channels, classes)
        if imgsz % out.stride:
            raise ValueError(f"imgsz {imgsz} is no multiple of {out.stride}, the stride of output {out.name}")


def initialise_head(network: Network, classes: int, imgsz: int) -> None:
    """Set the biases of the prediction layers: class scores that expect five objects in an image of `imgsz` pixels, and box
    distributions p(k) ~ r^k whose expectation is EXPECTED_DISTANCE."""
    check_head(network.graph, classes, imgsz)
    index = {op.name: i for i, op in enumerate(network.graph.ops)}
    for out, (box, kinds) in zip(network.graph.outputs, prediction_layers(network.graph), strict=True):
        bins = box.channels // 4
        prior = math.log(_OBJECTS / classes / (imgsz / out.stride) ** 2)
        nn.init.constant_(_bias(network, index[kinds.name]), prior)
        with torch.no_grad():
            _bias(network, index[box.name]).copy_(_log_geometric(bins, EXPECTED_DISTANCE).repeat(4))


def _bias(network: Network, op: int) -> Tensor:
    layer = network.layer(op)
    assert isinstance(layer, Convolution) and layer.conv.bias is not None  # prediction_layers checked it
    return layer.conv.bias


def _log_geometric(bins: int, mean: float) -> Tensor:
    """Logits k * log(r), k < bins, of the truncated geometric distribution with this mean (the uniform one's at most)."""
    ks = torch.arange(bins, dtype=torch.float64)
    low, high = -20.0, 0.0  # log(r), in which the mean grows
    for _ in range(60):
        middle = (low + high) / 2
        if float((middle * ks).softmax(0) @ ks) < mean:
            low = middle
        else:
            high = middle
    return (high * ks).float()
