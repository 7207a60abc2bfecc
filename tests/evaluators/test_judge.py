"""Detections on a split: scaled back to the original images, from the fused network, judged like any detections."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluators.data.records import Record
from evaluators.detector.ap import coco_evaluation
from evaluators.judge import check_network, detect, judge, judge_split, load_split
from evaluators.training.loop import new_network
from gpnas.errors import InputError
from gpnas.graph.network import Network
from tests.small_detector import NAMES, rectangle_data, rectangles, small_graph


class Painter(nn.Module):
    """Finds, in every image, one box of 3 x 5 cells of stride 8 around the centre (36, 20), of class 2.

    It stands for a fused network with two levels, strides 8 and 16, eight bins and three classes.
    """

    is_fused = True

    def __init__(self) -> None:
        super().__init__()
        self.graph = small_graph(8).inference()
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> list[Tensor]:
        self.batches.append(len(images))
        size = images.shape[-1]
        fine, coarse = (torch.full((len(images), 35, size // s, size // s), -20.0) for s in (8, 16))
        fine[:, 32 + 2, 2, 4] = 3.0  # the cell with the centre x = 36, y = 20
        for side, distance in enumerate((1, 2, 2, 3)):  # left, top, right, bottom, in strides
            fine[:, 8 * side + distance, 2, 4] = 20.0
        return [fine, coarse]


def blank(width: int, height: int, boxes: list[list[float]] | None = None) -> Record:
    pixels = np.zeros((height, width, 3), np.uint8)
    array = np.array(boxes or [[0, 0, 1, 2]], np.float32)
    return Record(1, width, height, array, np.full(len(array), 2, np.int64), pixels=pixels)


def test_detections_are_in_pixels_of_the_original_image() -> None:
    network: Any = Painter()
    # Images 128 x 96, 64 x 40 and 40 x 64 at 64 pixels: scales 1/2, 1 and 1. Boxes are clipped to the image.
    found = detect(network, load_split([blank(128, 96), blank(64, 40), blank(40, 64)], 64), 3)
    score = 1 / (1 + np.exp(-3.0))
    expected = [[56, 8, 104, 88, score, 2], [28, 4, 52, 40, score, 2], [28, 4, 40, 44, score, 2]]
    assert len(found) == 3
    for rows, row in zip(found, expected, strict=True):
        np.testing.assert_allclose(rows, [row], rtol=1e-5)


def test_images_are_taken_in_batches_of_32() -> None:
    network: Any = Painter()
    assert len(detect(network, load_split([blank(32, 32)] * 70, 64), 3)) == 70
    assert network.batches == [32, 32, 6]


def test_images_that_do_not_fit_into_memory_together_are_judged_in_smaller_batches() -> None:
    class ShortOfMemory(Painter):
        def forward(self, images: Tensor) -> list[Tensor]:
            outputs = super().forward(images)
            if len(images) > 10:
                raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")
            return outputs

    network: Any = ShortOfMemory()
    split = load_split([blank(32, 32)] * 21, 64)
    found = detect(network, split, 3)
    assert network.batches == [21, 10, 10, 1]
    painter: Any = Painter()
    assert all(np.array_equal(a, b) for a, b in zip(found, detect(painter, split, 3), strict=True))
    again: Any = ShortOfMemory()
    detect(again, load_split([blank(32, 32)] * 70, 64), 3)
    assert again.batches == [32, 16, *[8] * 8, 6]  # the batches that follow are as small from the start


def test_at_most_a_hundred_detections_of_an_image() -> None:
    class Eager(Painter):
        def forward(self, images: Tensor) -> list[Tensor]:
            outputs = super().forward(images)
            outputs[0][:, 32:] = torch.linspace(0, 5, 64 * 3).view(3, 8, 8)  # every cell detects every class
            outputs[0][:, 0:32:8] = 10.0  # boxes of no size ...
            outputs[0][:, 2:32:8] = 30.0  # ... but for two strides to each side
            return outputs

    network: Any = Eager()
    [rows] = detect(network, load_split([blank(64, 64)], 64), 3)
    assert len(rows) == 100
    assert (np.diff(rows[:, 4]) <= 0).all() and rows[0, 4] == pytest.approx(1 / (1 + np.exp(-5.0)))


def test_the_evaluation_is_that_of_the_detections() -> None:
    network: Any = Painter()
    records = [blank(64, 60, [[28, 4, 52, 44]]), blank(64, 64, [[28, 4, 52, 44]]), blank(64, 60, [[0, 0, 8, 30]])]
    split = load_split(records, 64)
    evaluation, detections = judge(network, split, NAMES)
    assert evaluation == coco_evaluation(records, NAMES, detect(network, split, 3))
    assert all(map(np.array_equal, detections, detect(network, split, 3)))
    # Two of the three objects are found, and one detection of the same score is wrong, in the last image.
    assert evaluation.metrics["ap50"] == pytest.approx(67 / 101)
    data = replace(rectangle_data(), splits={"test": tuple(records)})
    assert judge_split(network, data, "test", 64, device="cpu")[0] == evaluation


class Unfused(nn.Module):
    """A network that claims to be fused, so that it is used as it stands."""

    is_fused = True

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network, self.graph = network, network.graph.inference()

    def forward(self, images: Tensor) -> Any:
        return self.network(images)


def test_the_fused_network_detects_what_the_network_does() -> None:
    network = new_network(small_graph(8, auxiliary=0.5), 3, 64, 0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.7, 2.0)  # type: ignore[arg-type]
    split, unfused = load_split(rectangles(4), 64), Unfused(network.eval())
    for ours, theirs in zip(detect(network, split, 3), detect(unfused, split, 3), strict=True):  # type: ignore[arg-type]
        assert len(ours) > 0
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(("classes", "imgsz", "message"), [(4, 64, "predicts 3 classes"), (3, 72, "imgsz 72 is no multiple")])
def test_a_network_that_does_not_fit_is_the_users_error(classes: int, imgsz: int, message: str) -> None:
    with pytest.raises(InputError, match=f"this network cannot be used here: .*{message}"):
        check_network(small_graph(8), classes, imgsz)
    data = replace(rectangle_data(), names=("red", "green", "blue", "grey")[:classes])
    with pytest.raises(InputError, match=message):
        judge_split(new_network(small_graph(8), 3, 64, 0), data, "val", imgsz, device="cpu")
