import math

import pytest
import torch
from torch.nn import functional

from evaluators.detector.loss import ciou, detection_loss, distribution_focal_loss, network_loss
from gpnas.graph.graph import Branch, Output

BINS, CLASSES = 4, 3


def outputs(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, 4 * BINS + CLASSES, 4, 4), (2, 4 * BINS + CLASSES, 2, 2))
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def targets(boxes, labels):
    return torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels)


SOME = targets([[[2, 2, 20, 18], [0, 0, 0, 0]], [[1, 1, 31, 31], [8, 9, 14, 15]]], [[1, -1], [0, 2]])


@pytest.mark.parametrize(
    ("box", "target", "expected"),
    [
        ((0, 0, 4, 2), (0, 0, 4, 2), 1.0),
        # Same shape, apart: IoU 0, centres 6 apart, hull 8 x 2.
        ((0, 0, 2, 2), (6, 0, 8, 2), -36 / 68),
        # Overlap 2 x 4 of union 24; centres 2 apart, hull 6 x 4.
        ((0, 0, 4, 4), (2, 0, 6, 4), 8 / 24 - 4 / 52),
    ],
)
def test_ciou_worked_out_by_hand(box, target, expected):
    value = ciou(torch.tensor([box]).float(), torch.tensor([target]).float())
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_ciou_compares_aspect_ratios():
    # A 4 x 2 box in the middle of a 4 x 4 one: IoU 1/2, same centre; v and alpha by equations 8 and 11 of the paper.
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(2)) ** 2
    expected = 0.5 - v / (0.5 + v) * v
    assert ciou(torch.tensor([[0.0, 1, 4, 3]]), torch.tensor([[0.0, 0, 4, 4]])).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("box", [(3.0, 3, 3, 3), (3, 3, 3, 9), (5, 5, 2, 2)])
def test_ciou_has_a_finite_gradient_for_degenerate_boxes(box):
    boxes = torch.tensor([box], dtype=torch.float32).requires_grad_()
    ciou(boxes, torch.tensor([[1.0, 1, 8, 8]])).sum().backward()
    assert torch.isfinite(boxes.grad).all()


def test_distribution_focal_loss_shares_between_the_two_nearest_bins():
    logs = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().repeat(5, 4, 1)
    distances = torch.tensor([0.0, 1.25, 3.0, 9.0, -1.0])[:, None].expand(5, 4)
    expected = [-math.log(0.1), -0.75 * math.log(0.2) - 0.25 * math.log(0.3), -math.log(0.4), -math.log(0.4), -math.log(0.1)]
    torch.testing.assert_close(distribution_focal_loss(logs, distances)[:, 2], torch.tensor(expected))


def test_without_objects_only_the_class_scores_are_pushed_down():
    leaves = outputs()
    parts = detection_loss(leaves, [8, 16], *targets([[[0, 0, 0, 0]]] * 2, [[-1]] * 2), CLASSES)
    logits = torch.cat([leaf[:, 4 * BINS :].flatten() for leaf in leaves])
    expected = 1.0 * functional.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="sum")
    torch.testing.assert_close(parts.classes, expected)
    assert parts.box == 0 and parts.distribution == 0
    parts.total.backward()
    assert all(torch.isfinite(leaf.grad).all() and leaf.grad[:, : 4 * BINS].eq(0).all() for leaf in leaves)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_finite_for_tiny_huge_and_overlapping_boxes(seed):
    leaves = outputs(seed)
    boxes = [[[5.9, 5.9, 6.0, 6.0], [0, 0, 32, 32]], [[0, 0, 32, 32], [0, 0, 32, 32]]]
    detection_loss(leaves, [8, 16], *targets(boxes, [[0, 1], [2, 2]]), CLASSES).total.backward()
    assert all(torch.isfinite(leaf.grad).all() and leaf.grad.abs().sum() > 0 for leaf in leaves)


def test_descending_the_loss_finds_the_object():
    """Logits that are free to move end at the box and its class."""
    from evaluators.detector.head import decode, detections

    leaves = outputs()
    optimizer = torch.optim.Adam(leaves, lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        detection_loss(leaves, [8, 16], *SOME, CLASSES).total.backward()
        optimizer.step()
    found = detections(*decode([leaf.detach() for leaf in leaves], [8, 16], CLASSES), [(32, 32)] * 2)
    assert found[0][0] == pytest.approx([2, 2, 20, 18, 1.0, 1], abs=1.0)
    assert sorted(found[1][:2, 5].tolist()) == [0, 2]


def test_the_loss_is_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = detection_loss(outputs(dtype=torch.bfloat16), [8, 16], *SOME, CLASSES)
    outside = detection_loss([leaf.bfloat16() for leaf in outputs()], [8, 16], *SOME, CLASSES)
    assert all(part.dtype == torch.float32 for part in inside)
    torch.testing.assert_close(inside.total, outside.total)


def test_auxiliary_outputs_are_a_detector_of_their_own_with_a_weight():
    main, auxiliary = outputs(0), outputs(1)
    plan = [
        Output(0, "m8", Branch.MAIN, 8),
        Output(1, "a8", Branch.AUXILIARY, 8, 0.25),
        Output(2, "m16", Branch.MAIN, 16),
        Output(3, "a16", Branch.AUXILIARY, 16, 0.25),
    ]
    both = network_loss([main[0], auxiliary[0], main[1], auxiliary[1]], plan, *SOME, CLASSES)
    apart = [detection_loss(leaves, [8, 16], *SOME, CLASSES).total for leaves in (main, auxiliary)]
    torch.testing.assert_close(both.total, apart[0] + 0.25 * apart[1])
