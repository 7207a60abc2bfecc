"""The anchor-free head: from the outputs of a network to boxes, and from boxes to detections.

An output of shape (batch, 4 * reg_max + classes, height, width) predicts one object for each of its cells, which are called
anchors. The distance from the centre of a cell to a side of its box is the expectation of a distribution over 0, 1, ...
reg_max - 1 strides (Generalized Focal Loss, arXiv:2006.04388, section 3.2). A class score is the sigmoid of its logit.
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
"""Distance in strides from the centre of a cell to each side of its box, in an untrained network.

A uniform distribution would expect 7.5 strides at reg_max 16, far more than most objects. No first box would then overlap an
object well, and task-aligned targets, which are as high as the overlap, would teach little in the first epochs.
"""

_OBJECTS = 5.0  # objects in an image that an untrained network expects (the prior of RetinaNet, arXiv:1708.02002, section 4.1)


class Level(NamedTuple):
    """One output among the anchors of all outputs: its first anchor, its size in cells, and input pixels per cell."""

    first: int
    height: int
    width: int
    stride: int


class Anchors(NamedTuple):
    """The cells of all outputs in one row: output by output, each row by row."""

    points: Tensor  # (anchors, 2), x and y of the centres, in input pixels
    strides: Tensor  # (anchors,)
    levels: tuple[Level, ...]


def anchors(outputs: Sequence[Tensor], strides: Sequence[int]) -> Anchors:
    """The anchors of `outputs`, (batch, channels, height, width) each, whose cells are `strides` input pixels wide."""
    points, steps, levels, first = [], [], [], 0
    for output, stride in zip(outputs, strides, strict=True):
        height, width = output.shape[-2:]
        ys, xs = (stride * (torch.arange(n, device=output.device) + 0.5) for n in (height, width))
        points.append(torch.stack([xs.expand(height, width), ys[:, None].expand(height, width)], dim=-1).view(-1, 2))
        steps.append(torch.full((height * width,), float(stride), device=output.device))
        levels.append(Level(first, height, width, stride))
        first += height * width
    return Anchors(torch.cat(points), torch.cat(steps), tuple(levels))


def flattened(outputs: Sequence[Tensor]) -> Tensor:
    """Outputs (batch, channels, height, width) -> float32 (batch, anchors, channels), in the order of `anchors`.

    Outputs in channels_last format are copied once.
    """
    return torch.cat([output.permute(0, 2, 3, 1).flatten(1, 2) for output in outputs], dim=1).float()


def reg_max(channels: int, classes: int) -> int:
    """Number of bins of a side's distribution in an output of `channels` channels. Raises ValueError where it is no integer."""
    bins, rest = divmod(channels - classes, 4)
    if bins < 1 or rest:
        raise ValueError(f"an output of {channels} channels is not 4 * reg_max + {classes} classes")
    return bins


def expected_distances(log_probabilities: Tensor) -> Tensor:
    """Log-probabilities (..., reg_max) -> the expectation of the distribution, (...), in strides."""
    bins = torch.arange(log_probabilities.shape[-1], device=log_probabilities.device, dtype=log_probabilities.dtype)
    return log_probabilities.exp() @ bins


def boxes_around(
    points: Tensor,  # (anchors, 2), x and y in input pixels
    strides: Tensor,  # (anchors,)
    distances: Tensor,  # (..., anchors, 4), to the left, top, right and bottom side, in strides
) -> Tensor:
    """The boxes at these distances from the points: (..., anchors, 4), xyxy in input pixels."""
    reach = distances * strides[..., None]
    return torch.cat([points - reach[..., :2], points + reach[..., 2:]], dim=-1)


def decode(outputs: Sequence[Tensor], strides: Sequence[int], classes: int) -> tuple[Tensor, Tensor]:
    """The boxes that `outputs` predict, float32 (batch, anchors, 4), xyxy in input pixels, and their scores, float32
    (batch, anchors, classes) in [0, 1]. outputs: (batch, 4 * reg_max + classes, height, width) for each of `strides`."""
    cells = anchors(outputs, strides)
    flat = flattened(outputs)  # (batch, anchors, 4 * reg_max + classes)
    bins = reg_max(flat.shape[-1], classes)
    sides = torch.unflatten(flat[..., : 4 * bins], -1, (4, bins))
    boxes = boxes_around(cells.points, cells.strides, expected_distances(sides.log_softmax(-1)))
    return boxes, flat[..., 4 * bins :].sigmoid()


def non_max_suppression(
    boxes: Tensor,  # (batch, anchors, 4), xyxy in input pixels
    scores: Tensor,  # (batch, anchors, classes) in [0, 1]
    sizes: Sequence[tuple[int, int]],  # height and width of each image, in input pixels
    *,
    threshold: float = 0.001,
    iou: float = 0.7,
    candidates: int = 2000,
    most: int = 300,
) -> list[NDArray[np.float64]]:
    """The detections of each image after non-maximum suppression within each class: (n, 6), the best score first.

    A row is x1, y1, x2, y2 in input pixels, clipped to the image, score, class. Each pair of an anchor and a class with a score
    above `threshold` is a candidate, at most the `candidates` best of an image. A candidate is suppressed by a better one of
    its class whose IoU with it exceeds `iou`. At most the `most` best rows remain.
    """
    boxes, scores = boxes.float().cpu(), scores.float().cpu()
    per_image = []
    for image_boxes, image_scores, (height, width) in zip(boxes, scores, sizes, strict=True):
        flat = image_scores.flatten()  # (anchors * classes,)
        chosen = (flat > threshold).nonzero().squeeze(1)
        if len(chosen) > candidates:
            chosen = chosen[flat[chosen].topk(candidates).indices]
        limits = torch.tensor([width, height, width, height])
        xyxy = torch.minimum(image_boxes[chosen // scores.shape[2]].clamp(min=0), limits).double().numpy()
        rows = np.column_stack([xyxy, flat[chosen].double().numpy(), (chosen % scores.shape[2]).numpy()])
        rows = rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]
        per_image.append(_suppressed(rows[np.argsort(-rows[:, 4], kind="stable")], iou, most))
    return per_image


def _suppressed(rows: NDArray[np.float64], iou: float, most: int) -> NDArray[np.float64]:
    """The `most` best rows that suppression keeps. The rows come in descending order of their scores."""
    # Only better rows suppress a row: if the first 4 * most yield enough, the others are not needed.
    kept = _kept(rows[: 4 * most], iou)
    if len(kept) < most and len(rows) > 4 * most:
        kept = _kept(rows, iou)
    return rows[kept[:most]]


def _kept(rows: NDArray[np.float64], iou: float) -> NDArray[np.int64]:
    """Indices of the rows that suppression keeps, ascending."""
    if not len(rows):
        return np.zeros(0, dtype=np.int64)
    xywh = np.column_stack([rows[:, :2], rows[:, 2:4] - rows[:, :2]])
    suppress: Any = cv2.dnn.NMSBoxesBatched  # takes arrays, though its stub asks for lists
    kept = suppress(xywh, rows[:, 4].astype(np.float32), rows[:, 5].astype(np.int32), 0.0, iou)
    return np.sort(np.array(kept, dtype=np.int64))


def prediction_layers(graph: Graph) -> list[tuple[Op, Op]]:
    """The two layers that each output of the graph concatenates: box distributions first, class logits second.

    Raises ValueError, with the name of the output, for an output that does not concatenate two convolutions with bias.
    """
    layers = []
    for out in graph.outputs:
        inputs = [graph.ops[i] for i in graph.ops[out.op].inputs]
        if graph.ops[out.op].kind != "concat" or len(inputs) != 2 or not all(op.kind == "conv" and op.bias for op in inputs):
            raise ValueError(f"output {out.name} must concatenate a box and a class convolution, both with bias")
        layers.append((inputs[0], inputs[1]))
    return layers


def check_head(graph: Graph, classes: int, imgsz: int) -> None:
    """Raises ValueError when a network of `graph` cannot be used with `classes` classes at `imgsz` pixels."""
    for out, (box, kinds) in zip(graph.outputs, prediction_layers(graph), strict=True):
        if kinds.channels != classes:
            raise ValueError(f"output {out.name} predicts {kinds.channels} classes, but the data have {classes}")
        reg_max(box.channels + kinds.channels, classes)
        if imgsz % out.stride:
            raise ValueError(f"imgsz {imgsz} is no multiple of {out.stride}, the stride of output {out.name}")


def initialise_head(network: Network, classes: int, imgsz: int) -> None:
    """Set the biases of the prediction layers.

    Class scores expect five objects in an image of `imgsz` pixels. Box distributions are p(k) ~ r^k with the expectation
    EXPECTED_DISTANCE. Raises ValueError as `check_head` does.
    """
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
    assert isinstance(layer, Convolution) and layer.conv.bias is not None  # prediction_layers checks it
    return layer.conv.bias


def _log_geometric(bins: int, mean: float) -> Tensor:
    """Logits k * log(r), k < bins, of the truncated geometric distribution with this mean; uniform if the mean is too large."""
    ks = torch.arange(bins, dtype=torch.float64)
    low, high = -20.0, 0.0  # bounds of log(r); the mean grows with r
    for _ in range(60):
        middle = (low + high) / 2
        if float((middle * ks).softmax(0) @ ks) < mean:
            low = middle
        else:
            high = middle
    return (high * ks).float()
