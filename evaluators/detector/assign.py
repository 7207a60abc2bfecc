"""Task-aligned assignment: which anchors learn which box (TOOD, arXiv:2108.07755, section 3.2).

The alignment of an anchor with a box is t = s^0.5 * u^6, where s is the anchor's score for the class of the box and u the IoU
of its predicted box with the box. (TOOD writes s^alpha * u^beta; YOLO detectors use these exponents.) Each box takes the TOPK
best aligned anchors among those whose centre lies inside it. An anchor that several boxes take learns the one that it overlaps
most. The target for its score is t, scaled for each box so that its highest target equals its highest IoU.

A box so small that no centre lies inside it takes the one cell of the finest level in which its own centre lies. It keeps this
cell against boxes that have other anchors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from evaluators.detector.head import Anchors

TOPK = 10
"""The most anchors that one box takes."""

_LEAST_IOU = 1e-3  # a lower IoU counts as this: t stays a normal float32, and every box gets a target above 0
_MOST_PAIRS = 2**24  # of a box and an anchor, in memory at once: about ten tensors of 64 MiB


Overlaps = Callable[[Tensor, Tensor], Tensor]
"""A function like `pairwise_iou`: how far each pair of boxes overlaps, from 0 to 1."""


class Assignment(NamedTuple):
    """What each anchor learns."""

    foreground: Tensor  # bool (batch, anchors): whether it learns a box
    box: Tensor  # int64 (batch, anchors): the index of that box, 0 for none
    score: Tensor  # float32 (batch, anchors): the target for its score for the class of that box, 0 for none


@torch.no_grad()
def assign(
    scores: Tensor,  # (batch, anchors, classes) in [0, 1]
    predicted: Tensor,  # (batch, anchors, 4), xyxy in input pixels
    cells: Anchors,
    boxes: Tensor,  # (batch, most, 4), xyxy in input pixels
    classes: Tensor,  # int64 (batch, most), -1 where padded
    overlaps: Overlaps | None = None,  # `pairwise_iou` where it is left out
) -> Assignment:
    """Assign each anchor a box or none."""
    overlaps = overlaps or pairwise_iou
    # All pairs of a box and an anchor may not fit into memory (many boxes, large images): a few images at a time.
    step = max(1, _MOST_PAIRS // max(1, boxes.shape[1] * predicted.shape[1]))
    if step >= len(boxes):
        return _assigned(scores, predicted, cells, boxes, classes, overlaps)
    parts = [
        _assigned(scores[i : i + step], predicted[i : i + step], cells, boxes[i : i + step], classes[i : i + step], overlaps)
        for i in range(0, len(boxes), step)
    ]
    return Assignment(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _assigned(
    scores: Tensor, predicted: Tensor, cells: Anchors, boxes: Tensor, classes: Tensor, overlaps: Overlaps
) -> Assignment:
    batch, count = predicted.shape[:2]
    if not boxes.shape[1]:
        nothing = torch.zeros((batch, count), dtype=torch.int64, device=boxes.device)
        return Assignment(nothing.bool(), nothing, nothing.float())
    allowed, alone = _allowed(cells, boxes, classes >= 0)
    overlap = overlaps(boxes, predicted)  # (batch, most, anchors)
    of_class = classes.clamp(min=0)[..., None].expand(-1, -1, count)
    alignment = scores.transpose(1, 2).gather(1, of_class).sqrt_()
    alignment *= overlap.clamp(min=_LEAST_IOU).pow_(3).square_()
    best = alignment.masked_fill(~allowed, -1).topk(min(TOPK, count), dim=-1).indices
    taken = torch.zeros_like(allowed).scatter_(2, best, True) & allowed
    # A box with a single cell claims it by more than any IoU.
    claim = torch.where(taken, overlap + alone[..., None], -1)
    strongest, box = claim.max(dim=1)  # (batch, anchors)
    foreground = strongest >= 0
    t = alignment.gather(1, box[:, None]).squeeze(1) * foreground
    iou = overlap.gather(1, box[:, None]).squeeze(1).clamp(min=_LEAST_IOU) * foreground
    most_t, most_iou = (boxes.new_zeros(boxes.shape[:2]).scatter_reduce(1, box, x, "amax") for x in (t, iou))
    score = t / most_t.gather(1, box).clamp(min=torch.finfo(t.dtype).tiny) * most_iou.gather(1, box)
    return Assignment(foreground, box, score)


def _allowed(cells: Anchors, boxes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Which anchors each box may take, bool (batch, most, anchors), and which boxes may take only the cell around their own
    centre, because no anchor's centre lies inside them, bool (batch, most)."""
    x1, y1, x2, y2 = boxes[..., None].unbind(2)  # (batch, most, 1)
    x, y = cells.points.unbind(1)  # (anchors,)
    inside = (x > x1) & (x < x2) & (y > y1) & (y < y2) & valid[..., None]
    alone = ~inside.any(-1) & valid
    finest = min(cells.levels, key=lambda level: level.stride)
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    column = (centre[..., 0] / finest.stride).long().clamp(0, finest.width - 1)
    row = (centre[..., 1] / finest.stride).long().clamp(0, finest.height - 1)
    own = (finest.first + row * finest.width + column)[..., None]  # (batch, most, 1)
    inside.scatter_(2, own, inside.gather(2, own) | alone[..., None])
    return inside, alone


def pairwise_iou(
    boxes: Tensor,  # (batch, n, 4), xyxy
    others: Tensor,  # (batch, m, 4), xyxy
) -> Tensor:
    """Intersection over union of each pair, (batch, n, m); 0 for empty boxes."""
    x1, y1, x2, y2 = boxes[:, :, None].unbind(-1)  # (batch, n, 1)
    u1, v1, u2, v2 = others[:, None].unbind(-1)  # (batch, 1, m)
    shared = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp_(min=0)
    shared *= (torch.minimum(y2, v2) - torch.maximum(y1, v1)).clamp_(min=0)
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared
    return shared / union.clamp_(min=1e-9)
