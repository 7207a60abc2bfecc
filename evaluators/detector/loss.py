"""What training minimises: overlap of boxes, distributions of their sides, and class scores.

CIoU (arXiv:2005.03572, section III-C) and the distribution focal loss (arXiv:2006.04388, equation 6) of the assigned anchors,
weighted by their target scores; binary cross-entropy of all class scores to the target scores (TOOD, arXiv:2108.07755,
section 3.3). Each is divided by the sum of the target scores. All of it is float32, whatever computed the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from evaluators.detector.assign import assign
from evaluators.detector.head import Anchors, anchors, boxes_around, expected_distances, flattened, reg_max
from gpnas.graph.graph import Branch, Output

BOX_GAIN, CLASS_GAIN, DISTRIBUTION_GAIN = 7.5, 1.0, 1.5
"""The field's recipe has 0.5 for classes. In short trainings from scratch classes come last: with 1.5 instead of 0.5 digit
scenes reached AP .33 instead of .22 in 15 epochs, blood cells .30 instead of .21 in 6 but .40 instead of .42 in 12."""


class Parts(NamedTuple):
    """Scalars, each times its gain; `total` is their sum."""

    box: Tensor
    classes: Tensor
    distribution: Tensor

    @property
    def total(self) -> Tensor:
        return self.box + self.classes + self.distribution


def network_loss(outputs: Sequence[Tensor], plan: Sequence[Output], boxes: Tensor, labels: Tensor, classes: int) -> Parts:
    """The loss of a training network's `outputs`, which `plan` (its graph's outputs) describes.

    Outputs of one branch and weight form a detector of their own, with an assignment of their own.
    boxes: (batch, most, 4), xyxy in input pixels; labels: int64 (batch, most), -1 where padded.
    """

    def detector(i: int) -> tuple[Branch, float]:
        return plan[i].branch, plan[i].weight

    losses = []
    for (_, weight), group in groupby(sorted(range(len(plan)), key=detector), key=detector):
        members = list(group)
        parts = detection_loss([outputs[i] for i in members], [plan[i].stride for i in members], boxes, labels, classes)
        losses.append([weight * part for part in parts])
    return Parts(*(torch.stack(column).sum() for column in zip(*losses, strict=True)))


def detection_loss(outputs: Sequence[Tensor], strides: Sequence[int], boxes: Tensor, labels: Tensor, classes: int) -> Parts:
    """The loss of one detector. outputs: (batch, 4 * reg_max + classes, height, width) for each of `strides`."""
    with torch.autocast(outputs[0].device.type, enabled=False):
        cells = anchors(outputs, strides)
        flat = flattened(outputs)  # (batch, anchors, 4 * reg_max + classes)
        bins = reg_max(flat.shape[-1], classes)
        return _loss(torch.unflatten(flat[..., : 4 * bins], -1, (4, bins)), flat[..., 4 * bins :], cells, boxes, labels)


def _loss(sides: Tensor, logits: Tensor, cells: Anchors, boxes: Tensor, labels: Tensor) -> Parts:
    """sides: (batch, anchors, 4, reg_max); logits: (batch, anchors, classes)."""
    with torch.no_grad():
        predicted = boxes_around(cells.points, cells.strides, expected_distances(sides.log_softmax(-1)))
        assignment = assign(logits.sigmoid(), predicted, cells, boxes, labels)
    image, anchor = assignment.foreground.nonzero(as_tuple=True)  # (n,): n anchors learn a box
    box = assignment.box[image, anchor]
    weight = assignment.score[image, anchor]
    total = weight.sum().clamp(min=1)
    # Cross-entropy of logit x to target t is softplus(x) - t * x, and t is zero for nearly all.
    aims = logits[image, anchor, labels[image, box]]
    cross_entropy = functional.softplus(logits).sum() - (weight * aims).sum()

    target, points, strides = boxes[image, box], cells.points[anchor], cells.strides[anchor]
    logs = sides[image, anchor].log_softmax(-1)  # (n, 4, reg_max)
    overlap = ciou(boxes_around(points, strides, expected_distances(logs)), target)
    distances = torch.cat([points - target[:, :2], target[:, 2:] - points], dim=1) / strides[:, None]
    return Parts(
        BOX_GAIN * ((1 - overlap) * weight).sum() / total,
        CLASS_GAIN * cross_entropy / total,
        DISTRIBUTION_GAIN * (distribution_focal_loss(logs, distances).mean(1) * weight).sum() / total,
    )


def ciou(boxes: Tensor, targets: Tensor, eps: float = 1e-7) -> Tensor:
    """Complete IoU of (n, 4) boxes with their targets, xyxy: (n,), at most 1.

    IoU - squared distance of the centres / squared diagonal of the common hull - alpha * v, where v compares aspect ratios.
    """
    w, h = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
    tw, th = (targets[:, 2:] - targets[:, :2]).unbind(1)
    shared = (torch.minimum(boxes[:, 2:], targets[:, 2:]) - torch.maximum(boxes[:, :2], targets[:, :2])).clamp(min=0).prod(1)
    iou = shared / (w * h + tw * th - shared + eps)
    hull = torch.maximum(boxes[:, 2:], targets[:, 2:]) - torch.minimum(boxes[:, :2], targets[:, :2])
    apart = (boxes[:, :2] + boxes[:, 2:] - targets[:, :2] - targets[:, 2:]) / 2
    distance = apart.square().sum(1) / (hull.square().sum(1) + eps)
    # atan2 is atan(w / h), with a finite gradient down to boxes that have shrunk to nothing.
    v = 4 / math.pi**2 * (torch.atan2(tw, th + eps) - torch.atan2(w, h + eps)).square()
    with torch.no_grad():
        alpha = v / (1 - iou + v + eps)
    return iou - distance - alpha * v


def distribution_focal_loss(log_probabilities: Tensor, distances: Tensor) -> Tensor:
    """Cross-entropy of distributions (n, 4, reg_max) to distances (n, 4), in strides, each shared between the two bins
    beside it: (n, 4). A distance that the bins do not reach counts as the nearest that they do."""
    last = log_probabilities.shape[-1] - 1
    distances = distances.clamp(0, last)
    lower = distances.floor().long().clamp(max=max(last - 1, 0))
    upper = (lower + 1).clamp(max=last)
    above = distances - lower  # weight of the upper bin
    at = [log_probabilities.gather(-1, bin_[..., None]).squeeze(-1) for bin_ in (lower, upper)]
    return -((1 - above) * at[0] + above * at[1])
