"""Layouts stay within their limits, and boxes move together with pixels."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.data.augment import Augmentation
from evaluators.data.bank import as_images, load_bank
from evaluators.data.batches import Renderer, augmented
from evaluators.data.gather import gathered_images
from evaluators.data.layout import Layout, draw_layout, moved_boxes
from evaluators.data.letterbox import GREY
from evaluators.data.records import Record
from evaluators.data.warp import warped_images
from tests.evaluators.data.painted import GEOMETRY, SIZE, painted_bank, seeded

View = tuple[NDArray[np.bool_], list[list[float]], float]


@functools.cache
def views(render: Renderer, mosaic: float) -> list[View]:
    """For outputs that show an image once, and for each of its rectangles: which pixels are more than half white, the
    boxes of the rectangle's class (none or one), and the area that it would cover in full."""
    seen = []
    augmentation = Augmentation(mosaic=mosaic, **GEOMETRY)
    chosen = torch.arange(6)
    for label in range(12):
        bank = painted_bank(painted=label)
        for seed in range(15):
            layout = draw_layout(bank, chosen, augmentation, seeded(seed))
            images, (boxes, classes) = render(bank.pixels, layout, None), moved_boxes(bank, layout)
            shown = ((layout.tiles == label // 2) & (layout.sizes[..., 0] > 0)).sum(1)
            for k in torch.nonzero(shown == 1).flatten().tolist():
                x1, y1, x2, y2 = bank.boxes[label // 2, label % 2].tolist()
                area = float(layout.scales[k]) ** 2 * (x2 - x1) * (y2 - y1)
                white = images[k, 0].numpy() > 0.5  # above GREY, and where a bilinear edge has its middle
                seen.append((white, boxes[k][classes[k] == label].tolist(), area))
    return seen


def bounds(mask: NDArray[np.bool_]) -> list[int]:
    ys, xs = np.nonzero(mask)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.parametrize("render", [warped_images, gathered_images])
@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_boxes_and_pixels_move_together(render: Renderer, mosaic: float) -> None:
    compared = 0
    for white, boxes, _ in views(render, mosaic):
        assert len(boxes) <= 1
        if boxes:
            assert bounds(white) == pytest.approx(boxes[0], abs=1.0)
            compared += 1
    assert compared > 100


@pytest.mark.parametrize("render", [warped_images, gathered_images])
@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_what_is_seen_without_a_box_is_a_sliver(render: Renderer, mosaic: float) -> None:
    slivers = 0
    for white, boxes, area in views(render, mosaic):
        if white.any() and not boxes:
            x1, y1, x2, y2 = bounds(white)
            assert white.sum() < 0.1 * area + max(x2 - x1, y2 - y1) or min(x2 - x1, y2 - y1) <= 2
            slivers += 1
    assert slivers > 0 or not mosaic  # without mosaic a shift of a tenth hides little


def test_boxes_of_a_mosaic_worked_out_by_hand() -> None:
    """Two images of 100 x 50 and 60 x 100 pixels, in all four tiles around the point (60, 40), at half their size."""
    wide, high = (np.zeros((height, width, 3), np.uint8) for width, height in ((100, 50), (60, 100)))
    boxes = np.array([[10, 5, 40, 25], [0, 0, 30, 3]], np.float32), np.array([[20, 30, 50, 90]], np.float32)
    records = [
        Record(0, 100, 50, boxes[0], np.array([7, 8]), pixels=wide),  # the second box is too thin at half its size
        Record(1, 60, 100, boxes[1], np.array([9]), pixels=high),
    ]
    layout = Layout(
        tiles=torch.tensor([[0, 1, 1, 0]]),
        sizes=torch.tensor([[[50, 100], [100, 60], [100, 60], [50, 100]]]),
        flips=torch.tensor([[False, True, False, True]]),
        centres=torch.tensor([[40.0, 60.0]]),
        scales=torch.tensor([0.5]),
    )
    moved, classes = moved_boxes(load_bank(records, 100), layout)
    assert classes.tolist() == [[7, 9, 9, 7]]
    above = [[15, 17.5, 30, 27.5], [65, 5, 80, 35]]
    below = [[40, 55, 55, 85], [90, 42.5, 100, 52.5]]  # the last leaves the output at the right
    assert moved[0].tolist() == [*above, *below]


def test_a_layout_is_drawn_within_the_limits_of_its_augmentation() -> None:
    bank, chosen = painted_bank(), torch.arange(6).repeat(200)

    def drawn(**limits: float) -> Layout:
        still = {"mosaic": 0.0, "scale": 0.0, "translate": 0.0, "flip": 0.0}
        return draw_layout(bank, chosen, Augmentation(**(still | limits)), seeded(0))

    def spans(values: Tensor, low: float, high: float) -> bool:
        """Whether the values fill an interval: none lies outside, and some are within 3 % of its ends."""
        near = 0.03 * (high - low)
        return bool(low <= values.min() <= low + near and high - near <= values.max() <= high)

    still = drawn()
    assert (still.scales == 1).all() and (still.centres == 0).all() and not still.flips.any()
    assert still.tiles[:, 3].tolist() == chosen.tolist()
    assert torch.equal(still.sizes[:, 3], bank.sizes[chosen]) and (still.sizes[:, :3] == 0).all()

    scaled = drawn(scale=0.4)
    assert spans(scaled.scales, 0.6, 1.4)
    torch.testing.assert_close(scaled.centres, (SIZE / 2 * (1 - scaled.scales))[:, None].expand(-1, 2))  # middle on middle

    shifted = drawn(translate=0.25)
    assert all(spans(shifted.centres[:, axis], -SIZE / 4, SIZE / 4) for axis in (0, 1))
    assert not torch.equal(shifted.centres[:, 0], shifted.centres[:, 1])

    mosaic = drawn(mosaic=1.0)
    assert all(spans(mosaic.centres[:, axis], 0, SIZE) for axis in (0, 1))
    assert torch.equal(mosaic.sizes, bank.sizes[mosaic.tiles])
    assert mosaic.tiles[:, :3].unique().tolist() == list(range(6))
    assert spans(drawn(mosaic=1.0, translate=0.1).centres, -0.1 * SIZE, 1.1 * SIZE)

    some = drawn(mosaic=0.3, flip=0.2)
    assert (some.sizes[:, 0, 0] > 0).float().mean() == pytest.approx(0.3, abs=0.04)
    assert some.flips.float().mean() == pytest.approx(0.2, abs=0.02)
    assert torch.equal(some.part(slice(3, 5)).tiles, some.tiles[3:5])
    assert torch.equal(some.part(slice(3, 5)).scales, some.scales[3:5])


@pytest.mark.usefixtures("both_ways")
def test_a_flip_mirrors_an_image_in_its_own_width() -> None:
    bank = painted_bank(3)
    flip = Augmentation(mosaic=0, scale=0, translate=0, flip=1, **GEOMETRY)
    batch = augmented(bank, torch.tensor([2]), flip, seeded(0))
    assert torch.equal(batch.images[0, :, :, :64], as_images(bank.pixels[2:3])[0, :, :, :64].flip(-1))
    assert (batch.images[0, :, :, 64:] * 255).round().unique().tolist() == [GREY]
    x1, y1, x2, y2 = bank.boxes[2].unbind(-1)
    assert torch.equal(batch.boxes[0], torch.stack([64 - x2, y1, 64 - x1, y2], dim=-1))


@pytest.mark.usefixtures("both_ways")
def test_a_mosaic_shows_four_images_that_touch_at_its_centre() -> None:
    """Four images of one level each, at scale 1: every pixel has the level of its quadrant, and none is blended."""
    levels = [10, 60, 160, 250]
    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    bank = load_bank(
        [Record(i, SIZE, SIZE, *empty, pixels=np.full((SIZE, SIZE, 3), v, np.uint8)) for i, v in enumerate(levels)], SIZE
    )
    plain = Augmentation(mosaic=1, scale=0, translate=0, flip=0, **GEOMETRY)
    seen: set[int] = set()
    for seed in range(8):
        image = (augmented(bank, torch.tensor([3]), plain, seeded(seed)).images[0, 0] * 255).round().int()
        assert set(image.unique().tolist()) <= set(levels)
        assert image[-1, -1] == 250  # the image that leads the output is the one right below
        cuts = [int((line.diff() != 0).sum()) for line in (*image, *image.T)]
        assert max(cuts) <= 1
        seen |= set(image.unique().tolist())
    assert seen == set(levels)


def test_small_pieces_of_boxes_are_dropped() -> None:
    """A 40x40 box of which 3/40 or 5/40 stays in view (less and more than a tenth), and one whose side becomes 1.5."""
    pixels = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    boxes = np.array([[0, 20, 40, 60], [60, 60, 90, 63]], dtype=np.float32)
    bank = load_bank([Record(0, SIZE, SIZE, boxes, np.array([0, 1]), pixels=pixels)], SIZE)

    def kept(scale: float, shift: float) -> list[int]:
        layout = Layout(
            tiles=torch.zeros(1, 4, dtype=torch.int64),
            sizes=torch.tensor([[[0, 0], [0, 0], [0, 0], [SIZE, SIZE]]]),
            flips=torch.zeros(1, 4, dtype=torch.bool),
            centres=torch.tensor([[0.0, shift]]),
            scales=torch.tensor([scale]),
        )
        return [label for label in moved_boxes(bank, layout)[1][0].tolist() if label >= 0]

    assert kept(1, 0) == [0, 1]
    assert kept(1, -35) == [0, 1]
    assert kept(1, -37) == [1]
    assert kept(0.5, 0) == [0]
