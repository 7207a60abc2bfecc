"""The decoding that exported files hold: its cells, and its agreement with the detector's head."""

from __future__ import annotations

import pytest
import torch

from evaluators.detector.head import decode
from gpnas.export.decoding import DecodedNetwork, cells_of
from tests.export.detectors import IMGSZ, live_network, random_images
from tests.small_detector import small_graph


def test_cells_lie_row_by_row_and_level_by_level() -> None:
    cells = cells_of(small_graph(bins=5).inference(), 3, 32)
    assert (cells.counts, cells.bins, cells.classes) == ((16, 4), 5, 3)
    assert cells.points[:, :5].T.tolist() == [[4, 4], [12, 4], [20, 4], [28, 4], [4, 12]]
    assert cells.points[:, 16:].T.tolist() == [[8, 8], [24, 8], [8, 24], [24, 24]]
    assert cells.strides.tolist() == [8.0] * 16 + [16.0] * 4


def test_the_decoding_is_that_of_the_head_with_boxes_as_centre_and_size() -> None:
    fused, images = live_network().fused(), random_images(2)
    with torch.no_grad():
        output = DecodedNetwork(fused, 3, IMGSZ)(images)
        boxes, scores = decode(fused(images), [out.stride for out in fused.graph.outputs], 3)
    assert output.shape == (2, 4 + 3, 64 + 16)
    centres, sizes = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    expected = torch.cat([centres, sizes, scores], dim=-1).transpose(1, 2)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-4)
    assert output[:, 4:].std() > 0.01 and output[:, :2].std() > 1  # the network does answer to its images


@pytest.mark.parametrize(
    ("classes", "imgsz", "message"),
    [
        (4, 64, r"output main8\.output has 35 channels, not 4 \* reg_max \+ 4 classes"),
        (35, 64, r"has 35 channels, not 4 \* reg_max \+ 35 classes"),
        (3, 72, r"imgsz 72 is no multiple of 16, the stride of output main16\.output"),
    ],
)
def test_what_is_no_head_of_these_classes_at_this_size_is_named(classes: int, imgsz: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cells_of(small_graph().inference(), classes, imgsz)


def test_the_module_has_no_parameters_of_its_own() -> None:
    fused = live_network().fused()
    counts = [sum(p.numel() for p in module.parameters()) for module in (fused, DecodedNetwork(fused, 3, IMGSZ))]
    assert counts[0] == counts[1] == sum(fused.graph.parameters)
