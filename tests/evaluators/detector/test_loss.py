"""The loss against values worked out by hand from its papers, and against torch's own cross-entropy."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from evaluators.detector.assign import assign
from evaluators.detector.head import anchors, boxes_around, decode, expected_distances, flattened, non_max_suppression
from evaluators.detector.loss import (
    LossParts,
    LossSettings,
    ciou,
    detection_loss,
    distribution_focal_loss,
    network_loss,
    pairwise_ciou,
)
from gpnas.graph.graph import Branch, Output

BINS, CLASSES = 4, 3


def outputs(seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, 4 * BINS + CLASSES, 4, 6), (2, 4 * BINS + CLASSES, 2, 3))  # of an input of 48 x 32 pixels
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def targets(boxes: list[list[list[float]]], labels: list[list[int]]) -> tuple[Tensor, Tensor]:
    return torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels)


def gradient(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad


SOME = targets([[[2, 2, 24, 18], [0, 0, 0, 0]], [[1, 1, 47, 31], [8, 9, 15, 14]]], [[1, -1], [0, 2]])


@pytest.mark.parametrize(
    ("box", "target", "expected"),
    [
        ((0, 0, 4, 2), (0, 0, 4, 2), 1.0),
        # Same shape, apart: IoU 0, centres 6 apart, hull 8 x 2.
        ((0, 0, 2, 2), (6, 0, 8, 2), -36 / 68),
        # Both 6 x 4: overlap 4 x 3 of union 36; centres (2, 1) apart, hull 8 x 5.
        ((0, 0, 6, 4), (2, 1, 8, 5), 12 / 36 - 5 / 89),
    ],
)
def test_ciou_worked_out_by_hand(
    box: tuple[float, float, float, float], target: tuple[float, float, float, float], expected: float
) -> None:
    value = ciou(torch.tensor([box]).float(), torch.tensor([target]).float())
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_ciou_compares_aspect_ratios() -> None:
    # A 6 x 2 box in the middle of a 6 x 4 one: IoU 1/2, same centre; v and alpha as section III-C of the paper defines them.
    v = 4 / math.pi**2 * (math.atan(6 / 4) - math.atan(6 / 2)) ** 2
    expected = 0.5 - v / (0.5 + v) * v
    assert ciou(torch.tensor([[0.0, 1, 6, 3]]), torch.tensor([[0.0, 0, 6, 4]])).item() == pytest.approx(expected, abs=1e-6)


def test_eps_is_added_to_every_denominator() -> None:
    """A box of 6 x 2 and a target of 6 x 4, 1 to its left: overlap 5 x 2 of union 26, hull 7 x 4. With eps 1, the heights of
    the aspect ratios grow to 3 and 5."""
    iou, distance = 10 / 27, 1 / (7**2 + 4**2 + 1)
    v = 4 / math.pi**2 * (math.atan(6 / 5) - math.atan(6 / 3)) ** 2
    expected = iou - distance - v / (1 - iou + v + 1) * v
    value = ciou(torch.tensor([[1.0, 1, 7, 3]]), torch.tensor([[0.0, 0, 6, 4]]), eps=1.0)
    assert value.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("box", [(3.0, 3, 3, 3), (3, 3, 3, 9), (5, 5, 2, 2)])
def test_ciou_has_a_finite_gradient_for_degenerate_boxes(box: tuple[float, float, float, float]) -> None:
    boxes = torch.tensor([box], dtype=torch.float32).requires_grad_()
    ciou(boxes, torch.tensor([[1.0, 1, 8, 8]])).sum().backward()
    assert torch.isfinite(gradient(boxes)).all()


def test_distribution_focal_loss_shares_between_the_two_nearest_bins() -> None:
    logs = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().repeat(5, 4, 1)
    distances = torch.tensor([0.0, 1.25, 3.0, 9.0, -1.0])[:, None].expand(5, 4)
    expected = [-math.log(0.1), -0.75 * math.log(0.2) - 0.25 * math.log(0.3), -math.log(0.4), -math.log(0.4), -math.log(0.1)]
    torch.testing.assert_close(distribution_focal_loss(logs, distances), torch.tensor(expected)[:, None].expand(5, 4))
    single = distribution_focal_loss(torch.zeros(1, 4, 1), torch.tensor([[0.0, 0.3, 1.0, 2.0]]))  # one bin, of probability 1
    assert single.tolist() == [[0, 0, 0, 0]]


def test_without_objects_only_the_class_scores_are_pushed_down() -> None:
    leaves = outputs()
    parts = detection_loss(leaves, [8, 16], *targets([[[0, 0, 0, 0]]] * 2, [[-1]] * 2), CLASSES)
    logits = torch.cat([leaf[:, 4 * BINS :].flatten() for leaf in leaves])
    expected = 1.0 * functional.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="sum")
    torch.testing.assert_close(parts.classes, expected)
    assert parts.box == 0 and parts.distribution == 0
    parts.total.backward()
    assert all(torch.isfinite(gradient(leaf)).all() and gradient(leaf)[:, : 4 * BINS].eq(0).all() for leaf in leaves)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_finite_for_tiny_huge_and_overlapping_boxes(seed: int) -> None:
    leaves = outputs(seed)
    boxes: list[list[list[float]]] = [[[5.9, 5.9, 6.05, 6.0], [0, 0, 48, 32]], [[0, 0, 48, 32], [0, 0, 48, 32]]]
    detection_loss(leaves, [8, 16], *targets(boxes, [[0, 1], [2, 2]]), CLASSES).total.backward()
    assert all(torch.isfinite(gradient(leaf)).all() and gradient(leaf).abs().sum() > 0 for leaf in leaves)


def single_cell(logits: tuple[float, float], images: int) -> Tensor:
    """The output (images, 4 * 4 + 2, 1, 1) of a detector for 8 x 8 pixels whose box distributions are uniform."""
    output = torch.zeros(images, 18, 1, 1)
    output[:, 16:, 0, 0] = torch.tensor(logits)
    return output


@pytest.mark.parametrize("images", [1, 3])
def test_the_loss_of_a_single_cell_worked_out_by_hand(images: int) -> None:
    """One anchor with centre (4, 4) and stride 8; the uniform distributions expect 1.5 strides, so it predicts -8 to 16."""
    target, label = [-12.0, -4.0, 10.0, 20.0], 1  # 2, 1, 0.75 and 2 strides from the centre
    overlap = 18 * 20 / (24 * 24 + 22 * 24 - 18 * 20)
    v = 4 / math.pi**2 * (math.atan(22 / 24) - math.atan(1)) ** 2
    complete = overlap - (5**2 + 4**2) / (28**2 + 28**2) - v / (1 - overlap + v) * v
    weight = overlap  # the only anchor of its box aims at its IoU
    divisor = max(1.0, images * weight)
    entropy = math.log1p(math.exp(0.3)) + math.log1p(math.exp(-0.7)) - weight * -0.7
    parts = detection_loss([single_cell((0.3, -0.7), images)], [8], *targets([[target]] * images, [[label]] * images), 2)
    expected = [
        7.5 * (1 - complete) * images * weight / divisor,
        1.0 * images * entropy / divisor,
        1.5 * math.log(4) * images * weight / divisor,  # each bin has probability 1/4
    ]
    assert [part.item() for part in parts] == pytest.approx(expected, rel=1e-5)
    assert parts.total.item() == pytest.approx(sum(expected), rel=1e-5)


def test_the_sides_of_a_box_are_left_top_right_bottom() -> None:
    """Distributions that are certain of the target's sides have no loss; in another order they have."""

    def parts(order: list[int]) -> LossParts:
        output = torch.zeros(1, 18, 1, 1)
        for side, bin_ in enumerate(order):
            output[0, 4 * side + bin_] = 60.0
        return detection_loss([output], [8], *targets([[[-12.0, -4.0, 28.0, 20.0]]], [[0]]), 2)

    assert parts([2, 1, 3, 2]).box.item() == pytest.approx(0, abs=1e-5)
    assert parts([2, 1, 3, 2]).distribution.item() == pytest.approx(0, abs=1e-5)
    assert parts([1, 2, 2, 3]).distribution.item() > 1


def test_descending_the_loss_finds_the_object() -> None:
    """Logits that are free to move end at the box and its class."""
    leaves = outputs()
    optimizer = torch.optim.Adam(leaves, lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        detection_loss(leaves, [8, 16], *SOME, CLASSES).total.backward()
        optimizer.step()
    first, second = non_max_suppression(*decode([leaf.detach() for leaf in leaves], [8, 16], CLASSES), [(32, 48)] * 2)
    assert first[0] == pytest.approx([2, 2, 24, 18, 1.0, 1], abs=1.0)
    assert sorted(second[:2, 5].tolist()) == [0, 2]


def test_the_loss_is_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = detection_loss(outputs(dtype=torch.bfloat16), [8, 16], *SOME, CLASSES)
    outside = detection_loss([leaf.bfloat16() for leaf in outputs()], [8, 16], *SOME, CLASSES)
    assert all(part.dtype == torch.float32 for part in inside)
    torch.testing.assert_close(inside.total, outside.total)


def test_auxiliary_outputs_are_a_detector_of_their_own_with_a_weight() -> None:
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
    for i, part in enumerate(both):
        of_main, of_auxiliary = (detection_loss(leaves, [8, 16], *SOME, CLASSES)[i] for leaves in (main, auxiliary))
        torch.testing.assert_close(part, of_main + 0.25 * of_auxiliary)


def test_the_class_gain_multiplies_the_loss_of_classes_alone() -> None:
    plain = detection_loss(outputs(), [8, 16], *SOME, CLASSES)
    half = detection_loss(outputs(), [8, 16], *SOME, CLASSES, LossSettings(class_gain=0.5))
    torch.testing.assert_close(torch.stack(half), torch.stack(plain) * torch.tensor([1, 0.5, 1]))


def test_complete_iou_of_pairs_is_that_of_each_pair_and_never_negative() -> None:
    corners = torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(0)) * 6
    boxes = torch.cat([corners, corners + torch.tensor([5.0, 3.0])], dim=-1)
    others = boxes[:, :3] + torch.tensor([1.0, -2.0, 3.0, 0.5])
    pairs = pairwise_ciou(boxes, others)
    assert pairs.shape == (2, 5, 3)
    for b in range(2):
        for i in range(5):
            for j in range(3):
                value = ciou(others[b, j : j + 1], boxes[b, i : i + 1]).item()
                assert pairs[b, i, j].item() == pytest.approx(max(value, 0), abs=1e-6)
    assert (pairs == 0).any() and (pairs > 0.1).any()


def test_anchors_are_assigned_by_complete_iou_where_the_recipe_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def watched(boxes: Tensor, predicted: Tensor) -> Tensor:
        calls.append(1)
        return pairwise_ciou(boxes, predicted)

    monkeypatch.setattr("evaluators.detector.loss.pairwise_ciou", watched)
    plain = detection_loss(outputs(), [8, 16], *SOME, CLASSES)
    assert not calls
    complete = detection_loss(outputs(), [8, 16], *SOME, CLASSES, LossSettings(complete=True))
    assert calls and float(complete.total.detach()) != float(plain.total.detach())


def picked_loss(leaves: list[Tensor], strides: list[int], boxes: Tensor, labels: Tensor) -> list[Tensor]:
    """The three parts over the anchors that learn a box alone, one anchor after the other."""
    cells, flat = anchors(leaves, strides), flattened(leaves)
    sides, logits = flat[..., : 4 * BINS].unflatten(-1, (4, BINS)), flat[..., 4 * BINS :]
    with torch.no_grad():
        predicted = boxes_around(cells.points, cells.strides, expected_distances(sides.log_softmax(-1)))
        learns, box, score = assign(logits.sigmoid(), predicted, cells, boxes, labels)
    rows = [(int(image), int(anchor)) for image, anchor in learns.nonzero()]
    total = score[learns].sum().clamp(min=1)
    overlap, focal, entropy = logits.new_zeros(()), logits.new_zeros(()), functional.softplus(logits).sum()
    for image, anchor in rows:
        weight, target = score[image, anchor], boxes[image, box[image, anchor]]
        point, stride = cells.points[anchor], cells.strides[anchor]
        logs = sides[image, anchor].log_softmax(-1)
        distances = torch.cat([point - target[:2], target[2:] - point]) / stride
        mine = boxes_around(point[None], stride[None], expected_distances(logs)[None])
        overlap = overlap + weight * (1 - ciou(mine, target[None])[0])
        focal = focal + weight * distribution_focal_loss(logs[None], distances[None]).mean()
        entropy = entropy - weight * logits[image, anchor, labels[image, box[image, anchor]]]
    return [7.5 * overlap / total, 1.0 * entropy / total, 1.5 * focal / total]


CROWDED = targets(
    [[[1, 1, 47, 31], [8, 9, 15, 14], [9, 9, 10, 10], [20, 3, 44, 29]], [[0, 0, 0, 0]] * 4],
    [[0, 2, 1, 1], [-1] * 4],
)


@pytest.mark.parametrize("some", [SOME, CROWDED, targets([[[0, 0, 0, 0]]] * 2, [[-1]] * 2)])
@pytest.mark.parametrize("seed", range(3))
def test_the_masked_loss_and_its_gradient_are_those_of_the_picked_anchors(some: tuple[Tensor, Tensor], seed: int) -> None:
    ours, theirs = outputs(seed), outputs(seed)
    parts, expected = detection_loss(ours, [8, 16], *some, CLASSES), picked_loss(theirs, [8, 16], *some)
    torch.testing.assert_close(torch.stack(list(parts)), torch.stack(expected), rtol=1e-5, atol=1e-6)
    parts.total.backward()
    torch.stack(expected).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient(mine), gradient(other), rtol=1e-4, atol=1e-6)


def test_predictions_that_are_no_numbers_give_a_loss_that_is_none_and_no_wrong_index() -> None:
    leaves = [torch.full_like(leaf, math.nan).requires_grad_() for leaf in outputs()]
    parts = detection_loss(leaves, [8, 16], *CROWDED, CLASSES)
    assert torch.stack(list(parts)).isnan().all()
