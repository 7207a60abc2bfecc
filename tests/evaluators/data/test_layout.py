"""Boxes and pixels move together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evaluators.data.augment import Augmentation
from evaluators.data.bank import GREY, as_images, load_bank
from evaluators.data.batches import augmented
from evaluators.data.layout import Layout, draw_layout, moved_boxes
from evaluators.data.records import Record
from tests.evaluators.data.painted import GEOMETRY, SIZE, painted_bank, seeded


def views(mosaic: float) -> Iterator[tuple[NDArray[np.bool_], list[list[float]], float]]:
    """For outputs that show an image once, and for each of its rectangles: which pixels are more than half white, the
    boxes of the rectangle's class (none or one), and the area that it would cover in full."""
    augmentation = Augmentation(mosaic=mosaic, **GEOMETRY)
    chosen = torch.arange(6)
    for label in range(12):
        bank = painted_bank(painted=label)
        for seed in range(15):
            layout = draw_layout(bank, chosen, augmentation, seeded(seed))
            batch = augmented(bank, chosen, augmentation, seeded(seed))
            shown = ((layout.tiles == label // 2) & (layout.sizes[..., 0] > 0)).sum(1)
            for k in torch.nonzero(shown == 1).flatten().tolist():
                x1, y1, x2, y2 = bank.boxes[label // 2, label % 2].tolist()
                area = float(layout.scales[k]) ** 2 * (x2 - x1) * (y2 - y1)
                white = batch.images[k, 0].numpy() > 0.5  # above GREY, and where a bilinear edge has its middle
                yield white, batch.boxes[k][batch.classes[k] == label].tolist(), area


def bounds(mask: NDArray[np.bool_]) -> list[int]:
    ys, xs = np.nonzero(mask)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_boxes_and_pixels_move_together(mosaic: float) -> None:
    compared = 0
    for white, boxes, _ in views(mosaic):
        assert len(boxes) <= 1
        if boxes:
            assert bounds(white) == pytest.approx(boxes[0], abs=1.0)
            compared += 1
    assert compared > 100


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("mosaic", [0.0, 1.0])
def test_what_is_seen_without_a_box_is_a_sliver(mosaic: float) -> None:
    slivers = 0
    for white, boxes, area in views(mosaic):
        if white.any() and not boxes:
            x1, y1, x2, y2 = bounds(white)
            assert white.sum() < 0.1 * area + max(x2 - x1, y2 - y1) or min(x2 - x1, y2 - y1) <= 2
            slivers += 1
    assert slivers > 0 or not mosaic  # without mosaic a shift of a tenth hides little


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
