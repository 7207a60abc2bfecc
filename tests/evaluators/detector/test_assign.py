import pytest
import torch

import evaluators.detector.assign
from evaluators.detector.assign import assign, pairwise_iou
from evaluators.detector.head import anchors

CELLS = anchors([torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4)], [8, 16])  # 64 px: 64 fine anchors, 16 coarse ones


def around(points, half):
    return torch.cat([points - half, points + half], dim=1)


def perfect(boxes, background=(-10.0, -10.0, -9.0, -9.0)):
    """Predictions (1, 80, 4) that equal the first box whose inside holds the anchor."""
    predicted = torch.tensor(background).repeat(1, 80, 1)
    for box in reversed(boxes):
        x, y = CELLS.points.T
        predicted[0, (x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])] = torch.tensor(box)
    return predicted


def test_iou_of_boxes_worked_out_by_hand():
    boxes = torch.tensor([[[0.0, 0, 4, 4], [1, 1, 1, 1]]])
    others = torch.tensor([[[2.0, 2, 6, 6], [0, 0, 4, 4], [8, 8, 9, 9]]])
    torch.testing.assert_close(pairwise_iou(boxes, others), torch.tensor([[[4 / 28, 1, 0], [0, 0, 0]]]))


def test_anchors_inside_a_box_learn_it_and_the_best_aims_at_the_highest_iou():
    box = [0.0, 0.0, 16.0, 16.0]  # fine centres (4, 4) (12, 4) (4, 12) (12, 12), coarse centre (8, 8)
    predicted = perfect([box])
    predicted[0, 0] = torch.tensor([0.0, 0, 16, 8])  # the first fine anchor overlaps by one half
    scores = torch.full((1, 80, 2), 0.25)
    scores[0, 1, 1] = 0.04
    result = assign(scores, predicted, CELLS, torch.tensor([[box]]), torch.tensor([[1]]))
    assert result.foreground[0].nonzero().flatten().tolist() == [0, 1, 8, 9, 64]
    # t = sqrt(score) * IoU^6: 0.5 / 64, 0.2, 0.5, 0.5, 0.5; divided by the highest, times the highest IoU, 1.
    torch.testing.assert_close(result.score[0, [0, 1, 8, 9, 64]], torch.tensor([1 / 64, 0.4, 1.0, 1.0, 1.0]))
    assert result.score.sum() == result.score[0, [0, 1, 8, 9, 64]].sum()


def test_the_highest_target_of_a_box_is_its_highest_iou():
    box = [0.0, 0.0, 16.0, 16.0]
    predicted = perfect([[0.0, 0.0, 16.0, 12.0]])  # IoU 3/4 everywhere inside
    result = assign(torch.full((1, 80, 1), 0.5), predicted, CELLS, torch.tensor([[box]]), torch.tensor([[0]]))
    torch.testing.assert_close(result.score.max(), torch.tensor(0.75))


def test_a_box_takes_ten_anchors_at_most():
    box = [0.0, 0.0, 64.0, 64.0]
    result = assign(torch.rand(1, 80, 1), perfect([box]), CELLS, torch.tensor([[box]]), torch.tensor([[0]]))
    assert result.foreground.sum() == 10


def test_an_anchor_of_two_boxes_learns_the_one_it_overlaps_most():
    boxes = [[0.0, 0.0, 16.0, 16.0], [0.0, 0.0, 16.0, 10.0]]
    predicted = torch.tensor(boxes[1]).repeat(1, 80, 1)
    result = assign(torch.full((1, 80, 1), 0.5), predicted, CELLS, torch.tensor([boxes]), torch.tensor([[0, 0]]))
    inside_both = [0, 1, 64]  # centres (4, 4), (12, 4), (8, 8)
    assert result.box[0, inside_both].tolist() == [1, 1, 1]
    assert result.box[0, [8, 9]].tolist() == [0, 0]  # centres at y = 12 are in the first only


@pytest.mark.parametrize(("centre", "anchor"), [((17.0, 9.0), 8 + 2), ((0.5, 0.5), 0), ((63.5, 63.5), 63)])
def test_a_box_without_a_centre_inside_takes_the_nearest_of_the_finest_level(centre, anchor):
    x, y = centre
    boxes = torch.tensor([[[x - 0.5, y - 0.5, x + 0.5, y + 0.5]]])
    predicted = around(CELLS.points, 8)[None]
    result = assign(torch.full((1, 80, 1), 0.5), predicted, CELLS, boxes, torch.tensor([[0]]))
    assert result.foreground[0].nonzero().flatten().tolist() == [anchor]
    assert 0 < result.score[0, anchor] < 0.01


def test_a_box_with_a_single_anchor_keeps_it_against_a_larger_one():
    large, tiny = [0.0, 0.0, 64.0, 64.0], [5.0, 5.0, 7.0, 7.0]  # the tiny one lies in the first fine cell
    predicted = perfect([large])
    for order in ([large, tiny], [tiny, large]):
        result = assign(torch.full((1, 80, 1), 0.5), predicted, CELLS, torch.tensor([order]), torch.tensor([[0, 0]]))
        assert order[result.box[0, 0]] == tiny
        assert result.foreground[0, 0]


def test_every_box_has_a_target_even_where_no_prediction_overlaps():
    box = [0.0, 0.0, 16.0, 16.0]
    predicted = torch.tensor([40.0, 40, 41, 41]).repeat(1, 80, 1)
    result = assign(torch.full((1, 80, 1), 1e-4), predicted, CELLS, torch.tensor([[box]]), torch.tensor([[0]]))
    assert result.foreground.sum() == 5
    assert (result.score[result.foreground] > 0).all()


def test_padding_and_images_without_boxes_have_no_foreground():
    boxes = torch.zeros(2, 3, 4)
    boxes[0, 0] = torch.tensor([0.0, 0, 16, 16])
    classes = torch.tensor([[0, -1, -1], [-1, -1, -1]])
    result = assign(torch.full((2, 80, 1), 0.5), around(CELLS.points, 8).repeat(2, 1, 1), CELLS, boxes, classes)
    assert result.foreground.sum(1).tolist() == [5, 0]
    assert result.score[1].sum() == 0
    none = assign(torch.full((2, 80, 1), 0.5), torch.zeros(2, 80, 4), CELLS, torch.zeros(2, 0, 4), torch.zeros(2, 0).long())
    assert not none.foreground.any() and none.score.sum() == 0


def test_images_in_parts_are_assigned_as_all_at_once(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(5, 7, 2, generator=generator) * 40
    boxes = torch.cat([corner, corner + 1 + torch.rand(5, 7, 2, generator=generator) * 23], dim=2)
    classes = torch.randint(-1, 3, (5, 7), generator=generator)
    scores = torch.rand(5, 80, 3, generator=generator)
    predicted = around(CELLS.points, 9)[None] + torch.randn(5, 80, 4, generator=generator)
    whole = assign(scores, predicted, CELLS, boxes, classes)
    monkeypatch.setattr(evaluators.detector.assign, "_MOST_PAIRS", 2 * 7 * 80)
    parts = assign(scores, predicted, CELLS, boxes, classes)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    learnt = torch.zeros(5, 7, dtype=torch.bool)
    for i in range(5):
        learnt[i, whole.box[i][whole.foreground[i]]] = True
    assert not (learnt & (classes < 0)).any()
