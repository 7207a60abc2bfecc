"""Assignments worked out by hand, on an input of 64 x 32 pixels."""

import pytest
import torch
from torch import Tensor

import evaluators.detector.assign
from evaluators.detector.assign import assign, pairwise_iou
from evaluators.detector.head import anchors

FINE, COARSE = torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 2, 4)
CELLS = anchors([FINE, COARSE], [8, 16])  # 32 fine anchors, number 8 * row + column, and 8 coarse ones from number 32
ANCHORS = 40


def around(points: Tensor, half: float) -> Tensor:
    return torch.cat([points - half, points + half], dim=1)


def everywhere(box: list[float]) -> Tensor:
    """Predictions (1, ANCHORS, 4) that all equal `box`."""
    return torch.tensor(box).repeat(1, ANCHORS, 1)


def one(boxes: list[list[float]], scores: Tensor | float, predicted: Tensor) -> evaluators.detector.assign.Assignment:
    """The assignment of an image with these boxes, all of class 0."""
    if isinstance(scores, float):
        scores = torch.full((1, ANCHORS, 1), scores)
    return assign(scores, predicted, CELLS, torch.tensor([boxes]), torch.zeros(1, len(boxes), dtype=torch.int64))


def test_iou_of_boxes_worked_out_by_hand() -> None:
    boxes = torch.tensor([[[0.0, 0, 4, 3], [1, 1, 1, 1]]])
    others = torch.tensor([[[2.0, 1, 7, 5], [0, 0, 4, 3], [8, 1, 9, 2], [1, 8, 2, 9]]])
    # 2 x 2 of the union 12 + 20 - 4
    torch.testing.assert_close(pairwise_iou(boxes, others), torch.tensor([[[4 / 28, 1, 0, 0], [0, 0, 0, 0]]]))


def test_anchors_inside_a_box_learn_it_and_the_best_aims_at_the_highest_iou() -> None:
    box = [0.0, 0.0, 24.0, 16.0]  # fine centres x in 4, 12, 20 and y in 4, 12; coarse centre (8, 8); (24, 8) is on the edge
    predicted = everywhere(box)  # outside of the box too
    predicted[0, 0] = torch.tensor([0.0, 0, 24, 8])  # the first fine anchor overlaps by one half
    scores = torch.full((1, ANCHORS, 2), 0.25)
    scores[0, 1, 1] = 0.04
    scores[0, 3, 1] = 1.0  # its centre (28, 4) is outside
    result = assign(scores, predicted, CELLS, torch.tensor([[box]]), torch.tensor([[1]]))
    inside = [0, 1, 2, 8, 9, 10, 32]
    assert result.foreground[0].nonzero().flatten().tolist() == inside
    # t = sqrt(score) * IoU^6: 0.5 / 64, 0.2, and 0.5 for the others; divided by the highest, times the highest IoU, 1.
    torch.testing.assert_close(result.score[0, inside], torch.tensor([1 / 64, 0.4, 1, 1, 1, 1, 1]))
    assert result.score.sum() == result.score[0, inside].sum()


def test_the_highest_target_of_a_box_is_its_highest_iou_wherever_that_is() -> None:
    box = [0.0, 0.0, 16.0, 8.0]  # fine centres (4, 4) and (12, 4)
    predicted = everywhere([0.0, 0.0, 16.0, 6.0])  # IoU 3/4
    predicted[0, 1] = torch.tensor(box)
    scores = torch.zeros(1, ANCHORS, 1)
    scores[0, 0], scores[0, 1] = 0.81, 1e-4
    t = 0.9 * 0.75**6, 0.01  # the first is higher, the second has IoU 1
    result = one([box], scores, predicted)
    torch.testing.assert_close(result.score[0, :2], torch.tensor([1.0, t[1] / t[0]]))


def test_targets_are_scaled_for_each_box() -> None:
    boxes = [[0.0, 0.0, 16.0, 8.0], [32.0, 16.0, 40.0, 32.0]]  # fine anchors 0, 1; and 20, 28
    predicted = everywhere([0.0, 0.0, 16.0, 6.0])  # IoU 3/4 with the first
    predicted[0, 16:] = torch.tensor([32.0, 16.0, 36.0, 32.0])  # IoU 1/2 with the second
    result = one(boxes, 0.49, predicted)
    assert result.foreground[0].nonzero().flatten().tolist() == [0, 1, 20, 28]
    assert result.box[0, [0, 1, 20, 28]].tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(result.score[0, [0, 1, 20, 28]], torch.tensor([0.75, 0.75, 0.5, 0.5]))


def test_a_box_takes_its_ten_best_aligned_anchors() -> None:
    box = [0.0, 0.0, 64.0, 32.0]  # holds all centres
    order = torch.randperm(ANCHORS, generator=torch.Generator().manual_seed(0))
    scores = torch.zeros(1, ANCHORS, 1)
    scores[0, order, 0] = torch.linspace(0.9, 0.1, ANCHORS)
    result = one([box], scores, everywhere(box))
    assert sorted(result.foreground[0].nonzero().flatten().tolist()) == sorted(order[:10].tolist())
    by_overlap = everywhere(box)
    by_overlap[0, :, 2] = 64 - torch.arange(ANCHORS)  # overlap falls with the number: its sixth power outweighs the score
    result = one([box], torch.linspace(0.1, 0.2, ANCHORS)[None, :, None], by_overlap)
    assert result.foreground[0].nonzero().flatten().tolist() == list(range(10))


def test_an_anchor_of_two_boxes_learns_the_one_it_overlaps_most() -> None:
    boxes = [[0.0, 0.0, 16.0, 16.0], [0.0, 0.0, 16.0, 10.0]]
    result = one(boxes, 0.5, everywhere(boxes[1]))
    inside_both = [0, 1, 32]  # centres (4, 4), (12, 4), (8, 8)
    assert result.box[0, inside_both].tolist() == [1, 1, 1]
    assert result.box[0, [8, 9]].tolist() == [0, 0]  # centres at y = 12 are in the first only


@pytest.mark.parametrize(
    ("centre", "anchor", "score"),
    [
        ((17.0, 9.0), 8 + 2, 0.6 / 256),
        ((0.5, 0.5), 0, 0.6 / 256),
        ((63.5, 31.5), 31, 0.6 / 256),
        ((66.0, 34.0), 31, 0.6 / 256),  # outside of the input
        ((-20.0, -30.0), 0, 1e-3),  # and without overlap
    ],
)
def test_a_box_without_a_centre_inside_takes_the_fine_cell_around_its_own(
    centre: tuple[float, float], anchor: int, score: float
) -> None:
    x, y = centre
    box = [x - 0.5, y - 0.3, x + 0.5, y + 0.3]
    predicted = around(CELLS.points, 8)[None]  # 16 x 16 pixels
    result = one([box], 0.5, predicted)
    assert result.foreground[0].nonzero().flatten().tolist() == [anchor]
    assert result.score[0, anchor].item() == pytest.approx(score, rel=1e-5)
    coarse_first = anchors([COARSE, FINE], [16, 8])
    boxes, none = torch.tensor([[box]]), torch.zeros(1, 1, dtype=torch.int64)
    swapped = assign(torch.full((1, ANCHORS, 1), 0.5), around(coarse_first.points, 8)[None], coarse_first, boxes, none)
    assert swapped.foreground[0].nonzero().flatten().tolist() == [8 + anchor]


@pytest.mark.parametrize("tiny_first", [True, False])
def test_a_box_with_a_single_cell_keeps_it_against_a_larger_one_that_overlaps_more(tiny_first: bool) -> None:
    """The larger box takes all the anchors inside it, the tiny one's cell among them, and the prediction there fits it."""
    large, tiny = [0.0, 0.0, 20.0, 12.0], [5.0, 5.0, 7.0, 6.0]
    boxes = [tiny, large] if tiny_first else [large, tiny]
    result = one(boxes, 0.5, everywhere(large))
    assert result.foreground[0].nonzero().flatten().tolist() == [0, 1, 32]
    assert [boxes[i] for i in result.box[0, [0, 1, 32]]] == [tiny, large, large]
    torch.testing.assert_close(result.score[0, [0, 1, 32]], torch.tensor([2 / 240, 1.0, 1.0]))


def test_every_box_has_a_target_even_where_no_prediction_overlaps() -> None:
    result = one([[0.0, 0.0, 16.0, 16.0]], 1e-4, everywhere([40.0, 20, 41, 21]))
    assert result.foreground[0].nonzero().flatten().tolist() == [0, 1, 8, 9, 32]
    torch.testing.assert_close(result.score[result.foreground], torch.full((5,), 1e-3))


def test_padding_and_images_without_boxes_have_no_foreground() -> None:
    boxes = torch.zeros(2, 3, 4)
    boxes[0, 0] = torch.tensor([0.0, 0, 16, 16])
    classes = torch.tensor([[0, -1, -1], [-1, -1, -1]])
    predicted = around(CELLS.points, 8).repeat(2, 1, 1)
    result = assign(torch.full((2, ANCHORS, 1), 0.5), predicted, CELLS, boxes, classes)
    assert result.foreground.sum(1).tolist() == [5, 0]
    assert result.score[1].sum() == 0
    no_boxes = torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64)
    none = assign(torch.full((2, ANCHORS, 1), 0.5), torch.zeros(2, ANCHORS, 4), CELLS, *no_boxes)
    assert none.foreground.shape == none.box.shape == none.score.shape == (2, ANCHORS)
    assert not none.foreground.any() and none.box.sum() == 0 and none.score.sum() == 0


def test_images_in_parts_are_assigned_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(5, 7, 2, generator=generator) * 40
    boxes = torch.cat([corner, corner + 1 + torch.rand(5, 7, 2, generator=generator) * 23], dim=2)
    classes = torch.randint(-1, 3, (5, 7), generator=generator)
    scores = torch.rand(5, ANCHORS, 3, generator=generator)
    predicted = around(CELLS.points, 9)[None] + torch.randn(5, ANCHORS, 4, generator=generator)
    whole = assign(scores, predicted, CELLS, boxes, classes)
    images_at_once: list[int] = []
    original = evaluators.detector.assign._assigned

    def watched(scores: Tensor, *rest: Tensor) -> evaluators.detector.assign.Assignment:
        images_at_once.append(len(scores))
        return original(scores, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluators.detector.assign, "_assigned", watched)
    monkeypatch.setattr(evaluators.detector.assign, "_MOST_PAIRS", 2 * 7 * ANCHORS)
    parts = assign(scores, predicted, CELLS, boxes, classes)
    assert images_at_once == [2, 2, 1]
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert not (classes.gather(1, whole.box)[whole.foreground] < 0).any()  # no anchor learns padding
