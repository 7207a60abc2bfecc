"""From outputs to boxes and detections, against values worked out by hand and a plain non-maximum suppression."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from evaluators.detector.head import (
    anchors,
    check_head,
    decode,
    initialise_head,
    non_max_suppression,
    prediction_layers,
    reg_max,
)
from gpnas.graph.graph import GraphBuilder
from gpnas.graph.network import Convolution, Network
from tests.small_detector import small_graph


def test_anchors_are_the_centres_of_the_cells_row_by_row() -> None:
    cells = anchors([torch.zeros(1, 9, 2, 3), torch.zeros(1, 9, 1, 1)], [8, 16])
    expected = [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8]]
    assert cells.points.tolist() == expected
    assert cells.strides.tolist() == [8] * 6 + [16]
    assert cells.levels == ((0, 2, 3, 8), (6, 1, 1, 16))


def test_a_distribution_on_one_bin_decodes_to_that_many_strides() -> None:
    output = torch.zeros(1, 4 * 4 + 2, 1, 2)
    for side, bin_ in enumerate((0, 1, 3, 2)):  # left, top, right, bottom
        output[:, 4 * side + bin_] = 100.0
    output[0, 16, 0, 1] = math.log(3)  # class 0 of the second cell
    boxes, scores = decode([output], [8], 2)
    assert boxes[0].tolist() == [[4, -4, 28, 20], [12, -4, 36, 20]]
    torch.testing.assert_close(scores[0], torch.tensor([[0.5, 0.5], [0.75, 0.5]]))


def test_a_distribution_on_two_bins_decodes_to_its_mean() -> None:
    output = torch.full((1, 17, 1, 1), -100.0)
    for side in range(4):
        output[0, 4 * side + 1] = math.log(0.25)
        output[0, 4 * side + 2] = math.log(0.75)
    boxes, _ = decode([output], [16], 1)
    torch.testing.assert_close(boxes[0, 0], torch.tensor([8 - 28.0, 8 - 28, 8 + 28, 8 + 28]))  # 1.75 strides of 16


def test_decoding_does_not_depend_on_the_memory_format() -> None:
    output = torch.randn(2, 4 * 8 + 3, 4, 6, generator=torch.Generator().manual_seed(0))
    plain = decode([output], [8], 3)
    last = decode([output.to(memory_format=torch.channels_last)], [8], 3)
    assert all(torch.equal(a, b) for a, b in zip(plain, last, strict=True))


def brute_force_nms(rows: list[list[float]], limit: float) -> list[list[float]]:
    """Greedy, class by class, in plain Python."""
    kept: list[list[float]] = []
    for row in sorted(rows, key=lambda r: -r[4]):
        if all(other[5] != row[5] or plain_iou(other, row) <= limit for other in kept):
            kept.append(row)
    return kept


def plain_iou(a: Sequence[float], b: Sequence[float]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@pytest.mark.parametrize("limit", [0.7, 0.45])
@pytest.mark.parametrize("most", [5, 20, 300])
def test_suppression_is_greedy_and_class_wise(most: int, limit: float) -> None:
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, [40, 30], (150, 2)), rng.uniform(10, [24, 22], (150, 2))
    boxes = np.hstack([corner, corner + side]).astype(np.float32)
    scores = rng.uniform(0.01, 1, (150, 2)).astype(np.float32)
    given = torch.from_numpy(boxes)[None], torch.from_numpy(scores)[None]
    [rows] = non_max_suppression(*given, [(50, 64)], iou=limit, most=most)  # height, width
    assert 5 <= len(rows) <= min(most, 299)
    candidates = [
        [x1, y1, min(x2, 64.0), min(y2, 50.0), score, k]
        for (x1, y1, x2, y2), pair in zip(boxes.tolist(), scores.tolist(), strict=True)
        for k, score in enumerate(pair)
    ]
    np.testing.assert_allclose(rows, brute_force_nms(candidates, limit)[:most], rtol=1e-6)


def test_detections_are_clipped_to_the_image_and_empty_ones_dropped() -> None:
    outside, flat, thin = [40, 40, 60, 60], [5, 9, 12, 9], [5, 5, 5, 9]
    boxes = torch.tensor([[[-5.0, 2, 50, 70], outside, flat, thin]])
    scores = torch.tensor([[[0.9], [0.8], [0.7], [0.6]]])
    [rows] = non_max_suppression(boxes, scores, [(32, 36)])  # height, width
    np.testing.assert_allclose(rows, [[0, 2, 36, 32, 0.9, 0]], rtol=1e-6)


def test_scores_at_the_threshold_and_nan_detect_nothing() -> None:
    boxes = torch.tensor([[[0.0, 0, 9, 7], [20, 0, 29, 7], [0, 20, 9, 27]]])
    [rows] = non_max_suppression(boxes, torch.tensor([[[0.001], [math.nan], [0.0011]]]), [(32, 30)])
    np.testing.assert_allclose(rows, [[0, 20, 9, 27, 0.0011, 0]], rtol=1e-6)
    [nothing] = non_max_suppression(boxes[:, :2], torch.tensor([[[0.001], [math.nan]]]), [(32, 30)])
    assert nothing.shape == (0, 6)


def test_only_the_best_candidates_are_looked_at() -> None:
    boxes = torch.tensor([[[0.0, 0, 9, 7], [20, 20, 29, 27], [40, 40, 49, 47]]])
    scores = torch.tensor([[[0.2, 0.8], [0.9, 0.1], [0.5, 0.3]]])
    [rows] = non_max_suppression(boxes, scores, [(64, 60)], candidates=2)
    np.testing.assert_allclose(rows, [[20, 20, 29, 27, 0.9, 0], [0, 0, 9, 7, 0.8, 1]], rtol=1e-6)


def test_equal_scores_stay_in_the_order_of_the_anchors_when_all_are_candidates() -> None:
    """Selecting the best of more than `candidates` would not keep that order, so it is not done for as many as that."""
    lefts = [10.0 * k for k in range(12)]
    boxes = torch.tensor([[[x, 3, x + 7, 12] for x in lefts]])
    [rows] = non_max_suppression(boxes, torch.full((1, 12, 1), 0.5), [(32, 128)], candidates=12)
    assert rows[:, 0].tolist() == lefts


@pytest.mark.parametrize(("bins", "distance"), [(16, 2.0), (6, 2.0), (4, 1.5)])  # of 4 bins the mean is at most 1.5
def test_an_untrained_head_expects_five_objects_and_boxes_two_strides_from_their_centres(bins: int, distance: float) -> None:
    network = Network(small_graph(bins=bins))
    initialise_head(network, classes=3, imgsz=64)
    for i, op in enumerate(network.graph.ops):
        layer = network.layer(i) if op.name.endswith((".box", ".class")) else None
        if isinstance(layer, Convolution):
            torch.nn.init.zeros_(layer.conv.weight)
    boxes, scores = decode(network.eval()(torch.zeros(1, 3, 64, 64)), [8, 16], 3)
    # Five of 64 fine or 16 coarse cells, shared by 3 classes, in odds: sigmoid(log(p)) is p / (1 + p).
    for part, cells in ((slice(0, 64), 64), (slice(64, 80), 16)):
        p = 5 / 3 / cells
        torch.testing.assert_close(scores[0, part], torch.full((cells, 3), p / (1 + p)))
    reach = 8 * distance
    torch.testing.assert_close(boxes[0, 1], torch.tensor([12 - reach, 4 - reach, 12 + reach, 4 + reach]))
    torch.testing.assert_close(boxes[0, 64], torch.tensor([8 - 2 * reach] * 2 + [8 + 2 * reach] * 2))


def test_an_untrained_box_distribution_is_geometric() -> None:
    network = Network(small_graph(bins=6))
    initialise_head(network, classes=3, imgsz=64)
    for box, _ in prediction_layers(network.graph):
        layer = network.layer(network.graph.ops.index(box))
        assert isinstance(layer, Convolution) and layer.conv.bias is not None
        logits = layer.conv.bias.detach().view(4, 6)
        torch.testing.assert_close(logits.diff(dim=1), logits[0, 1].expand(4, 5))  # the same ratio from each bin to the next
        assert logits[0, 1] < 0  # short distances are the likeliest


def test_a_head_that_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"main8\.output predicts 3 classes, but the data have 10"):
        check_head(small_graph(classes=3), 10, 64)
    with pytest.raises(ValueError, match=r"imgsz 72 is no multiple of 16, the stride of output main16\.output"):
        check_head(small_graph(), 3, 72)
    with pytest.raises(ValueError, match=r"21 channels is not 4 \* reg_max \+ 3"):
        reg_max(21, 3)
    with pytest.raises(ValueError, match=r"3 channels is not 4 \* reg_max \+ 3"):
        reg_max(3, 3)
    assert reg_max(7, 3) == 1
    for parts, bias in ((1, True), (3, True), (2, False)):
        b = GraphBuilder()
        layers = [b.conv(b.image, 32, 1, 8, norm=False, bias=bias) for _ in range(parts)]
        b.output(b.concat(layers) if parts > 1 else layers[0], "p3", stride=8)
        with pytest.raises(ValueError, match="output p3 must concatenate a box and a class convolution, both with bias"):
            check_head(b.build(), 3, 64)
