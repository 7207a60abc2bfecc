import math

import numpy as np
import pytest
import torch

from evaluators.detector.head import anchors, check_head, decode, detections, initialise_head, reg_max
from gpnas.graph.graph import GraphBuilder
from gpnas.graph.network import Network
from tests.small_detector import small_graph


def test_anchors_are_the_centres_of_the_cells_row_by_row():
    cells = anchors([torch.zeros(1, 9, 2, 3), torch.zeros(1, 9, 1, 1)], [8, 16])
    expected = [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8]]
    assert cells.points.tolist() == expected
    assert cells.strides.tolist() == [8] * 6 + [16]
    assert cells.levels == ((0, 2, 3, 8), (6, 1, 1, 16))


def test_a_distribution_on_one_bin_decodes_to_that_many_strides():
    output = torch.zeros(1, 4 * 4 + 2, 1, 2)
    for side, bin_ in enumerate((0, 1, 3, 2)):  # left, top, right, bottom
        output[:, 4 * side + bin_] = 100.0
    output[0, 16, 0, 1] = math.log(3)  # class 0 of the second cell
    boxes, scores = decode([output], [8], 2)
    assert boxes[0].tolist() == [[4, -4, 28, 20], [12, -4, 36, 20]]
    torch.testing.assert_close(scores[0], torch.tensor([[0.5, 0.5], [0.75, 0.5]]))


def test_a_distribution_on_two_bins_decodes_to_its_mean():
    output = torch.full((1, 17, 1, 1), -100.0)
    for side in range(4):
        output[0, 4 * side + 1] = math.log(0.25)
        output[0, 4 * side + 2] = math.log(0.75)
    boxes, _ = decode([output], [16], 1)
    torch.testing.assert_close(boxes[0, 0], torch.tensor([8 - 28.0, 8 - 28, 8 + 28, 8 + 28]))  # 1.75 strides of 16


def test_decoding_does_not_depend_on_the_memory_format():
    output = torch.randn(2, 4 * 8 + 3, 4, 6, generator=torch.Generator().manual_seed(0))
    plain = decode([output], [8], 3)
    last = decode([output.to(memory_format=torch.channels_last)], [8], 3)
    assert all(torch.equal(a, b) for a, b in zip(plain, last, strict=True))


def brute_force_nms(rows, limit):
    """Greedy, class by class, in plain Python."""
    kept = []
    for row in sorted(rows, key=lambda r: -r[4]):
        if all(other[5] != row[5] or plain_iou(other, row) <= limit for other in kept):
            kept.append(row)
    return kept


def plain_iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@pytest.mark.parametrize("most", [5, 300])
def test_suppression_is_greedy_and_class_wise(most):
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 40, (150, 2)), rng.uniform(10, 24, (150, 2))
    boxes = np.hstack([corner, corner + side]).astype(np.float32)
    scores = rng.uniform(0.01, 1, (150, 2)).astype(np.float32)
    [found] = detections(torch.from_numpy(boxes)[None], torch.from_numpy(scores)[None], [(64, 64)], most=most)
    rows = [
        [*map(float, box), float(score), k] for box, pair in zip(boxes, scores, strict=True) for k, score in enumerate(pair)
    ]
    rows = [[*(min(v, 64.0) for v in row[:4]), *row[4:]] for row in rows]
    np.testing.assert_allclose(found, brute_force_nms(rows, 0.7)[:most], rtol=1e-6)
    assert 5 <= len(found) < 300


def test_detections_are_clipped_to_the_image_and_empty_ones_dropped():
    boxes = torch.tensor([[[-5.0, 2, 50, 70], [40, 40, 60, 60], [5, 5, 5, 9]]])
    scores = torch.tensor([[[0.9], [0.8], [0.7]]])
    [found] = detections(boxes, scores, [(32, 36)])  # height, width
    np.testing.assert_allclose(found, [[0, 2, 36, 32, 0.9, 0]], rtol=1e-6)


def test_scores_at_the_threshold_and_nan_detect_nothing():
    boxes = torch.tensor([[[0.0, 0, 9, 9], [0, 0, 9, 9]]])
    [found] = detections(boxes, torch.tensor([[[0.001], [math.nan]]]), [(32, 32)])
    assert found.shape == (0, 6)


def test_only_the_best_candidates_are_looked_at():
    boxes = torch.tensor([[[0.0, 0, 9, 9], [20, 20, 29, 29], [40, 40, 49, 49]]])
    [found] = detections(boxes, torch.tensor([[[0.2], [0.9], [0.5]]]), [(64, 64)], candidates=2)
    np.testing.assert_allclose(found[:, 4], [0.9, 0.5], rtol=1e-6)


def test_an_untrained_head_expects_five_objects_and_boxes_two_strides_from_their_centres():
    network = Network(small_graph(bins=16))
    initialise_head(network, classes=3, imgsz=64)
    for i, op in enumerate(network.graph.ops):
        if op.name.endswith((".box", ".class")):
            torch.nn.init.zeros_(network.layer(i).conv.weight)
    boxes, scores = decode(network.eval()(torch.zeros(1, 3, 64, 64)), [8, 16], 3)
    fine = slice(0, 64)
    # Five of 64 cells, shared by 3 classes, in odds: sigmoid(log(p)) is p / (1 + p).
    p = 5 / 3 / 64
    torch.testing.assert_close(scores[0, fine], torch.full((64, 3), p / (1 + p)))
    torch.testing.assert_close(boxes[0, 0], torch.tensor([4 - 16.0, 4 - 16, 4 + 16, 4 + 16]))


def test_a_head_that_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match=r"main8\.output predicts 3 classes, but the data have 10"):
        check_head(small_graph(classes=3), 10, 64)
    with pytest.raises(ValueError, match=r"imgsz 72 is no multiple of 16, the stride of output main16\.output"):
        check_head(small_graph(), 3, 72)
    with pytest.raises(ValueError, match=r"21 channels is not 4 \* reg_max \+ 3"):
        reg_max(21, 3)
    b = GraphBuilder()
    b.output(b.conv(b.image, 35, 1, 8, norm=False, bias=True), "p3", stride=8)
    with pytest.raises(ValueError, match="output p3 must concatenate a box and a class convolution"):
        check_head(b.build(), 3, 64)
