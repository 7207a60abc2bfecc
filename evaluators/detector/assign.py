"""Task-aligned assignment: which anchors learn which box (TOOD, arXiv:2108.07755, section 3.2).

An anchor is aligned with a box as far as it scores the box's class and overlaps the box: t = score^0.5 * IoU^6. A box
takes the TOPK best aligned of the anchors whose centres lie inside it. An anchor that several boxes take learns the one
it overlaps most. The score that it then should reach is t, scaled so that the best anchor of a box aims at the highest IoU.

A box so small that it holds no centre takes the cell of the finest level in which its own centre lies, and keeps it
against boxes that have other anchors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from evaluators.detector.head import Anchors

TOPK = 10

_LEAST_IOU = 1e-3  # what an alignment takes for less: t stays a normal float32, and no box is left without a target
_MOST_PAIRS = 2**24  # of a box and an anchor, in tensors at once: 64 MiB for each of some ten tensors


class Assignment(NamedTuple):
    """foreground: bool (batch, anchors). box: int64 (batch, anchors), index of the box that an anchor learns (0 where
    none). score: float32 (batch, anchors), the target for the score of that box's class, 0 where none."""

    foreground: Tensor
    box: Tensor
    score: Tensor


@torch.no_grad()
def assign(scores: Tensor, predicted: Tensor, cells: Anchors, boxes: Tensor, classes: Tensor) -> Assignment:
    """Assign boxes (batch, most, 4) of classes (batch, most; -1 where padded) to anchors.

    scores: (batch, anchors, classes) in [0, 1]; predicted: (batch, anchors, 4); boxes xyxy, in input pixels.
    """
    # Images by images where all pairs at once would take too much memory: many boxes on large images.
    step = max(1, _MOST_PAIRS // max(1, boxes.shape[1] * predicted.shape[1]))
    if step >= len(boxes):
        return _assigned(scores, predicted, cells, boxes, classes)
    parts = [
        _assigned(scores[i : i + step], predicted[i : i + step], cells, boxes[i : i + step], classes[i : i + step])
        for i in range(0, len(boxes), step)
    ]
    return Assignment(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _assigned(scores: Tensor, predicted: Tensor, cells: Anchors, boxes: Tensor, classes: Tensor) -> Assignment:
    batch, count = predicted.shape[:2]
    if not boxes.shape[1]:
        nothing = torch.zeros((batch, count), dtype=torch.int64, device=boxes.device)
        return Assignment(nothing.bool(), nothing, nothing.float())
    allowed, alone = _allowed(cells, boxes, classes >= 0)
    overlap = pairwise_iou(boxes, predicted)  # (batch, most, anchors)
    of_class = classes.clamp(min=0)[..., None].expand(-1, -1, count)
    alignment = scores.transpose(1, 2).gather(1, of_class).sqrt_()
    alignment *= overlap.clamp(min=_LEAST_IOU).pow_(3).square_()
    best = alignment.masked_fill(~allowed, -1).topk(min(TOPK, count), dim=-1).indices
    taken = torch.zeros_like(allowed).scatter_(2, best, True) & allowed
    # A box with a single choice precedes the others, whatever they overlap.
    claim = torch.where(taken, overlap + alone[..., None], -1)
    strongest, box = claim.max(dim=1)  # (batch, anchors)
    foreground = strongest >= 0
    t = alignment.gather(1, box[:, None]).squeeze(1) * foreground
    iou = overlap.gather(1, box[:, None]).squeeze(1).clamp(min=_LEAST_IOU) * foreground
    most_t, most_iou = (boxes.new_zeros(boxes.shape[:2]).scatter_reduce(1, box, x, "amax") for x in (t, iou))
    score = t / most_t.gather(1, box).clamp(min=torch.finfo(t.dtype).tiny) * most_iou.gather(1, box)
    return Assignment(foreground, box, score)


def _allowed(cells: Anchors, boxes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Which anchors a box may take, bool (batch, most, anchors), and which boxes have a single one for want of a centre
    inside, bool (batch, most)."""
    x1, y1, x2, y2 = boxes[..., None].unbind(2)  # (batch, most, 1)
    x, y = cells.points.unbind(1)  # (anchors,)
    inside = (x > x1) & (x < x2) & (y > y1) & (y < y2) & valid[..., None]
    alone = ~inside.any(-1) & valid
    first, height, width, stride = min(cells.levels, key=lambda level: level[3])
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    column = (centre[..., 0] / stride).long().clamp(0, width - 1)
    row = (centre[..., 1] / stride).long().clamp(0, height - 1)
    own = (first + row * width + column)[..., None]  # (batch, most, 1)
    inside.scatter_(2, own, inside.gather(2, own) | alone[..., None])
    return inside, alone


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of (batch, n, 4) and (batch, m, 4) boxes, xyxy: (batch, n, m). Empty boxes have 0."""
    x1, y1, x2, y2 = boxes[:, :, None].unbind(-1)  # (batch, n, 1)
    u1, v1, u2, v2 = others[:, None].unbind(-1)  # (batch, 1, m)
    shared = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp_(min=0)
    shared *= (torch.minimum(y2, v2) - torch.maximum(y1, v1)).clamp_(min=0)
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared
    return shared / union.clamp_(min=1e-9)
