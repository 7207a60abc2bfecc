"""The loss of a detector: the overlap of boxes, the distributions of their sides, and the class scores.

- Boxes: 1 - CIoU (arXiv:2005.03572, section III-C) of the assigned anchors, weighted by their target scores.
- Distributions: distribution focal loss (arXiv:2006.04388, equation 6) of the same anchors with the same weights.
- Classes: binary cross-entropy of all class scores with their targets (TOOD, arXiv:2108.07755, section 3.3).

Each is divided by the sum of the target scores and multiplied by its gain. All is computed in float32.
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
"""Recipes for long trainings usually have a class gain of 0.5. It is higher here: short trainings learn classes last."""


class LossSettings(NamedTuple):
    """class_gain: of the class scores. complete: whether anchors are assigned by complete IoU in place of IoU."""

    class_gain: float = CLASS_GAIN
    complete: bool = False


PLAIN_LOSS = LossSettings()


class LossParts(NamedTuple):
    """The parts of a loss, scalars that are multiplied by their gains; `total` is their sum."""

    box: Tensor
    classes: Tensor
    distribution: Tensor

    @property
    def total(self) -> Tensor:
        return self.box + self.classes + self.distribution


def network_loss(
    outputs: Sequence[Tensor],  # (batch, 4 * reg_max + classes, height, width) each
    plan: Sequence[Output],  # the outputs of the network's graph, in the same order
    boxes: Tensor,  # (batch, most, 4), xyxy in input pixels
    labels: Tensor,  # int64 (batch, most), -1 where padded
    classes: int,
    settings: LossSettings = PLAIN_LOSS,
) -> LossParts:
    """The weighted sum of the losses of a network's detectors, main and auxiliary.

    Outputs with the same branch and weight form one detector. Each detector assigns the boxes to its own anchors.
    """

    def detector(i: int) -> tuple[Branch, float]:
        return plan[i].branch, plan[i].weight

    losses = []
    for (_, weight), group in groupby(sorted(range(len(plan)), key=detector), key=detector):
        members = list(group)
        strides = [plan[i].stride for i in members]
        parts = detection_loss([outputs[i] for i in members], strides, boxes, labels, classes, settings)
        losses.append([weight * part for part in parts])
    return LossParts(*(torch.stack(column).sum() for column in zip(*losses, strict=True)))


def detection_loss(
    outputs: Sequence[Tensor],  # (batch, 4 * reg_max + classes, height, width) each
    strides: Sequence[int],  # of the outputs
    boxes: Tensor,  # (batch, most, 4), xyxy in input pixels
    labels: Tensor,  # int64 (batch, most), -1 where padded
    classes: int,
    settings: LossSettings = PLAIN_LOSS,
) -> LossParts:
    """The loss of one detector."""
    with torch.autocast(outputs[0].device.type, enabled=False):
        cells = anchors(outputs, strides)
        flat = flattened(outputs)  # (batch, anchors, 4 * reg_max + classes)
        bins = reg_max(flat.shape[-1], classes)
        sides = torch.unflatten(flat[..., : 4 * bins], -1, (4, bins))
        return _loss(sides, flat[..., 4 * bins :], cells, boxes, labels, settings)


def _loss(
    sides: Tensor,  # (batch, anchors, 4, reg_max), logits of the distributions
    logits: Tensor,  # (batch, anchors, classes)
    cells: Anchors,
    boxes: Tensor,
    labels: Tensor,
    settings: LossSettings,
) -> LossParts:
    """Over all anchors; those that learn no box have weight 0. No shape depends on the assignment: to pick the anchors that
    learn one, a step would have to wait until the GPU tells how many there are."""
    logs = sides.log_softmax(-1)
    predicted = boxes_around(cells.points, cells.strides, expected_distances(logs))
    overlaps = pairwise_ciou if settings.complete else None
    assignment = assign(logits.detach().sigmoid(), predicted.detach(), cells, boxes, labels, overlaps)
    weight = assignment.score  # (batch, anchors)
    total = weight.sum().clamp(min=1)
    # The cross-entropy of logit x with target t is softplus(x) - t * x; t is 0 except for the assigned pairs.
    label = labels.gather(1, assignment.box).clamp(min=0)[..., None]
    cross_entropy = functional.softplus(logits).sum() - (weight * logits.gather(2, label).squeeze(2)).sum()

    target = boxes.gather(1, assignment.box[..., None].expand(-1, -1, 4))  # of the other anchors: any box of the image
    overlap = ciou(predicted, target)  # (batch, anchors)
    beside = torch.cat([cells.points - target[..., :2], target[..., 2:] - cells.points], dim=-1)
    focal = distribution_focal_loss(logs, beside / cells.strides[:, None]).mean(-1)
    return LossParts(
        BOX_GAIN * ((1 - overlap) * weight).sum() / total,
        settings.class_gain * cross_entropy / total,
        DISTRIBUTION_GAIN * (focal * weight).sum() / total,
    )


def ciou(
    boxes: Tensor,  # (..., 4), xyxy
    targets: Tensor,  # (..., 4), xyxy
    eps: float = 1e-7,
) -> Tensor:
    """Complete IoU of each box with its target: (...), at most 1 (arXiv:2005.03572, section III-C).

    IoU - (distance of the centres)^2 / (diagonal of the box around both)^2 - alpha * v, where v compares aspect ratios.
    """
    w, h = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    tw, th = (targets[..., 2:] - targets[..., :2]).unbind(-1)
    reach = (torch.minimum(boxes[..., 2:], targets[..., 2:]) - torch.maximum(boxes[..., :2], targets[..., :2])).clamp(min=0)
    shared = reach[..., 0] * reach[..., 1]  # not prod(-1), whose gradient reads from the GPU whether there is a zero
    iou = shared / (w * h + tw * th - shared + eps)
    hull = torch.maximum(boxes[..., 2:], targets[..., 2:]) - torch.minimum(boxes[..., :2], targets[..., :2])
    apart = (boxes[..., :2] + boxes[..., 2:] - targets[..., :2] - targets[..., 2:]) / 2
    distance = apart.square().sum(-1) / (hull.square().sum(-1) + eps)
    # atan2(w, h) is atan(w / h), but its gradient is finite for empty boxes too.
    v = 4 / math.pi**2 * (torch.atan2(tw, th + eps) - torch.atan2(w, h + eps)).square()
    with torch.no_grad():
        alpha = v / (1 - iou + v + eps)
    return iou - distance - alpha * v


def pairwise_ciou(
    boxes: Tensor,  # (batch, n, 4), xyxy
    others: Tensor,  # (batch, m, 4), xyxy
) -> Tensor:
    """Complete IoU of each pair, (batch, n, m), where it is positive; else 0."""
    return ciou(others[:, None], boxes[:, :, None]).clamp_(min=0)


def distribution_focal_loss(
    log_probabilities: Tensor,  # (..., reg_max)
    distances: Tensor,  # (...), in strides
) -> Tensor:
    """Cross-entropy of each distribution with its distance, whose weight is split between the two bins beside it: (...).

    A distance beyond the bins counts as that of the nearest bin (arXiv:2006.04388, equation 6).
    """
    last = log_probabilities.shape[-1] - 1
    distances = distances.clamp(0, last)
    lower = distances.floor().long().clamp(0, max(last - 1, 0))  # of a NaN too: a GPU would stop at a wrong index
    upper = (lower + 1).clamp(max=last)
    above = distances - lower  # weight of the upper bin
    log_lower, log_upper = log_probabilities.gather(-1, torch.stack([lower, upper], dim=-1)).unbind(-1)
    return -((1 - above) * log_lower + above * log_upper)
