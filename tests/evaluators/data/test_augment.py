"""Augmented batches: pixels and boxes move together, a seed repeats them, and no augmentation changes nothing."""

from __future__ import annotations

import colorsys
import threading
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluators.data import augment
from evaluators.data.augment import Augmentation, Batch, ahead, augmented, plain_batches, train_batches
from evaluators.data.bank import GREY, ImageBank, as_images, load_bank
from evaluators.data.records import Record

SIZE = 96
NONE = Augmentation(mosaic=0, scale=0, translate=0, flip=0, hue=0, saturation=0, value=0)
GEOMETRY = {"hue": 0.0, "saturation": 0.0, "value": 0.0}


@pytest.fixture(params=["processor", "gpu"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs with the pixels made as on a processor, and as on a GPU."""
    if request.param == "gpu":
        monkeypatch.setattr(augment, "_on_processor", lambda bank: False)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def painted_bank(images: int = 6, painted: int | None = None) -> ImageBank:
    """Images that are square, wide and high in turn, black but for two white rectangles each: the classes 2 * image and
    2 * image + 1. With `painted` only the rectangle of that class is white."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(images):
        width, height = [(SIZE, SIZE), (SIZE, SIZE * 3 // 4), (SIZE * 2 // 3, SIZE)][i % 3]
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        boxes = []
        for label in (2 * i, 2 * i + 1):
            low = (label % 2) * (width // 2)
            x1, y1 = low + int(rng.integers(2, 6)), int(rng.integers(2, height // 2))
            x2, y2 = x1 + int(rng.integers(12, width // 2 - 8)), y1 + int(rng.integers(12, height // 2))
            boxes.append([x1, y1, x2, y2])
            if painted in (None, label):
                pixels[y1:y2, x1:x2] = 255
        array = np.array(boxes, dtype=np.float32)
        records.append(Record(i, width, height, array, np.array([2 * i, 2 * i + 1], np.int64), pixels=pixels))
    return load_bank(records, SIZE)


def views(mosaic: float) -> Iterator[tuple[NDArray[np.bool_], list[list[float]], float]]:
    """For outputs that show an image once, and for each of its rectangles: which pixels are more than half white, the
    boxes of the rectangle's class (none or one), and the area that it would cover in full."""
    augmentation = Augmentation(mosaic=mosaic, **GEOMETRY)
    chosen = torch.arange(6)
    for label in range(12):
        bank = painted_bank(painted=label)
        for seed in range(15):
            layout = augment._layout(bank, chosen, augmentation, seeded(seed))
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
def test_no_augmentation_changes_nothing() -> None:
    bank = painted_bank()
    for batch in train_batches(bank, 4, NONE, seeded(1)):
        assert len(batch.images) in (2, 4)
        for k in range(len(batch.images)):
            image = int(batch.classes[k, 0]) // 2
            assert torch.equal(batch.images[k], as_images(bank.pixels[image : image + 1])[0])
            assert torch.equal(batch.boxes[k], bank.boxes[image])
            assert torch.equal(batch.classes[k], bank.classes[image])


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    bank = painted_bank()
    generator = seeded(0)
    epochs = [
        [label // 2 for batch in train_batches(bank, 2, NONE, generator) for label in batch.classes[:, 0].tolist()]
        for _ in range(4)
    ]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.usefixtures("both_ways")
def test_a_seed_repeats_an_epoch_exactly_and_another_does_not() -> None:
    bank = painted_bank()
    first, again, other = (list(train_batches(bank, 4, Augmentation(), seeded(seed))) for seed in (5, 5, 6))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.classes, b.classes)
    assert not torch.equal(first[0].images, other[0].images)


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 7), (2, [2, 2, 2]), (3, [3, 3]), (5, [5, 2]), (9, [7])])
def test_a_last_batch_of_one_image_is_left_out(batch_size: int, sizes: list[int]) -> None:
    bank = painted_bank(7)
    assert [len(batch.images) for batch in train_batches(bank, batch_size, NONE, seeded(0))] == sizes


def test_the_only_image_is_kept() -> None:
    assert [len(batch.images) for batch in train_batches(painted_bank(1), 8, Augmentation(), seeded(0))] == [1]


@pytest.mark.usefixtures("both_ways")
def test_a_batch_is_laid_out_as_a_network_and_a_loss_read_it() -> None:
    batch = next(train_batches(painted_bank(), 6, Augmentation(), seeded(2)))
    assert batch.images.shape == (6, 3, SIZE, SIZE)
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    padding = batch.classes < 0
    assert (batch.boxes[padding] == 0).all()
    assert (padding.int().diff(dim=1) >= 0).all()  # to the right of the boxes
    assert not padding.all(dim=0).any()  # and no wider than needed
    assert (batch.boxes >= 0).all()
    assert (batch.boxes <= SIZE).all()


def test_images_without_boxes_make_a_batch_of_padding() -> None:
    pixels = np.full((SIZE, SIZE, 3), 7, dtype=np.uint8)
    empty = Record(1, SIZE, SIZE, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), pixels=pixels)
    batch = next(train_batches(load_bank([empty] * 2, SIZE), 2, Augmentation(), seeded(0)))
    assert batch.classes.tolist() == [[-1], [-1]]
    assert batch.boxes.tolist() == [[[0, 0, 0, 0]]] * 2


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


@pytest.mark.usefixtures("both_ways")
def test_the_pixels_are_those_of_an_independent_warp() -> None:
    """Against OpenCV's bilinear warp, where the output shows the inside of the image."""
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    pixels = cv2.GaussianBlur(noise, (0, 0), 2)
    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    bank = load_bank([Record(0, SIZE, SIZE, *empty, pixels=pixels)], SIZE)
    varied = Augmentation(mosaic=0, flip=0, **GEOMETRY)
    for seed in range(5):
        layout = augment._layout(bank, torch.tensor([0]), varied, seeded(seed))
        output = augmented(bank, torch.tensor([0]), varied, seeded(seed)).images[0].permute(1, 2, 0).numpy() * 255
        scale, (cy, cx) = float(layout.scales[0]), layout.centres[0].tolist()
        # OpenCV counts from pixel centres: x_out + 0.5 = c + s (x_in + 0.5).
        matrix = np.array([[scale, 0, cx + 0.5 * scale - 0.5], [0, scale, cy + 0.5 * scale - 0.5]])
        expected = cv2.warpAffine(pixels.astype(np.float32), matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
        inside = cv2.warpAffine(np.ones((SIZE, SIZE), np.float32), matrix, (SIZE, SIZE)) > 0.999
        assert inside.sum() > 1000
        assert np.abs(output - expected)[inside].max() < 1.5  # OpenCV rounds positions to 1/32 pixel


def test_small_pieces_of_boxes_are_dropped() -> None:
    """A 40x40 box of which 3/40 or 5/40 stays in view (less and more than a tenth), and one whose side becomes 1.5."""
    pixels = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    boxes = np.array([[0, 20, 40, 60], [60, 60, 90, 63]], dtype=np.float32)
    bank = load_bank([Record(0, SIZE, SIZE, boxes, np.array([0, 1]), pixels=pixels)], SIZE)

    def kept(scale: float, shift: float) -> list[int]:
        layout = augment._Layout(
            tiles=torch.zeros(1, 4, dtype=torch.int64),
            sizes=torch.tensor([[[0, 0], [0, 0], [0, 0], [SIZE, SIZE]]]),
            flips=torch.zeros(1, 4, dtype=torch.bool),
            centres=torch.tensor([[0.0, shift]]),
            scales=torch.tensor([scale]),
        )
        return [label for label in augment._moved(bank, layout)[1][0].tolist() if label >= 0]

    assert kept(1, 0) == [0, 1]
    assert kept(1, -35) == [0, 1]
    assert kept(1, -37) == [1]
    assert kept(0.5, 0) == [0]


def test_a_processor_and_a_gpu_make_the_same_pixels_but_for_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smooth images: OpenCV rounds positions to 1/32 of a pixel, and bytes where it blends and where it colours."""
    rng = np.random.default_rng(0)
    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    records = []
    for i, (width, height) in enumerate([(SIZE, SIZE), (SIZE, SIZE * 3 // 4), (SIZE * 2 // 3, SIZE)] * 2):
        noise = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        records.append(Record(i, width, height, *empty, pixels=cv2.GaussianBlur(noise, (0, 0), 3)))
    bank, chosen = load_bank(records, SIZE), torch.arange(6)
    for seed in range(10):
        both = []
        for on_processor in (True, False):
            monkeypatch.setattr(augment, "_on_processor", lambda bank, answer=on_processor: answer)
            both.append(augmented(bank, chosen, Augmentation(), seeded(seed)).images)
        warped, gathered = both
        assert gathered.is_contiguous(memory_format=torch.channels_last)
        apart = (warped - gathered).abs().amax(1) * 255
        assert (apart > 3).float().mean() < 1e-3  # where the middle of a pixel lies on an image's edge but for rounding
        assert apart.mean() < 0.7


def colours(seed: int, **limits: float) -> Tensor:
    matrices = augment._colour_matrices(1, Augmentation(**(GEOMETRY | limits)), seeded(seed))
    assert matrices is not None
    return matrices[0]


def test_grey_stays_grey_under_hue_and_saturation() -> None:
    for seed in range(10):
        assert torch.allclose(torch.ones(3) @ colours(seed, hue=0.5, saturation=0.9), torch.ones(3), atol=1e-5)


def test_value_scales_all_channels_within_its_limits() -> None:
    gains = [colours(seed, value=0.4) for seed in range(40)]
    assert all(torch.allclose(gain, gain[0, 0] * torch.eye(3)) for gain in gains)
    factors = [float(gain[0, 0]) for gain in gains]
    assert 0.6 <= min(factors) < 0.75
    assert 1.25 < max(factors) <= 1.4


def test_saturation_scales_the_distance_from_grey_and_keeps_luma() -> None:
    luma = torch.tensor([0.299, 0.587, 0.114])
    colour = torch.tensor([0.8, 0.3, 0.1])
    for seed in range(10):
        changed = colour @ colours(seed, saturation=0.7)
        assert changed @ luma == pytest.approx(float(colour @ luma), abs=1e-5)
        ratio = (changed - changed @ luma) / (colour - colour @ luma)
        assert torch.allclose(ratio, ratio[0].expand(3), atol=1e-4)
        assert 0.3 <= ratio[0] <= 1.7


def test_hue_turns_colours_in_both_directions_by_at_most_its_share_of_a_turn() -> None:
    red = torch.tensor([0.7, 0.3, 0.3])
    turns = []
    for seed in range(40):
        hue = colorsys.rgb_to_hsv(*(red @ colours(seed, hue=0.1)).tolist())[0]
        turns.append(hue - round(hue))
    assert -0.11 < min(turns) < -0.06  # HSV's hue is the angle about the grey axis but for about a degree
    assert 0.06 < max(turns) < 0.11


def test_colours_change_pixels_but_no_boxes() -> None:
    bank = painted_bank()
    quiet = augmented(bank, torch.arange(6), Augmentation(**GEOMETRY), seeded(4))
    loud = augmented(bank, torch.arange(6), Augmentation(), seeded(4))
    assert torch.equal(quiet.boxes, loud.boxes)
    assert not torch.equal(quiet.images, loud.images)


def test_plain_batches_are_the_images_in_order() -> None:
    bank = painted_bank()
    batches = list(plain_batches(bank, 4))
    assert [part for _, part in batches] == [slice(0, 4), slice(4, 6)]
    assert torch.equal(torch.cat([images for images, _ in batches]), as_images(bank.pixels))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mosaic": 1.5}, "mosaic is a probability, got 1.5"),
        ({"flip": -0.1}, "flip is a probability, got -0.1"),
        ({"scale": 1.0}, r"scale must lie in \[0, 1\), got 1.0"),
        ({"hue": float("nan")}, "hue must lie in"),
    ],
)
def test_an_augmentation_that_cannot_be_is_refused(change: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Augmentation(**change)


def test_a_batch_size_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        next(train_batches(painted_bank(), 0, NONE, seeded(0)))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        next(plain_batches(painted_bank(), 0))


def test_batches_made_ahead_are_the_same_in_the_same_order() -> None:
    bank = painted_bank()
    plain, made = (list(f(train_batches(bank, 2, Augmentation(), torch.Generator().manual_seed(3)))) for f in (iter, ahead))
    assert len(plain) == len(made) > 1
    assert all(torch.equal(a.images, b.images) and torch.equal(a.boxes, b.boxes) for a, b in zip(plain, made, strict=True))


def test_what_making_a_batch_raises_is_raised_where_it_is_used() -> None:
    def broken() -> Iterator[Batch]:
        yield from train_batches(painted_bank(), 2, Augmentation(), torch.Generator())
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        list(ahead(broken()))


def test_a_consumer_that_stops_early_ends_the_thread() -> None:
    made = ahead(train_batches(painted_bank(), 1, Augmentation(), torch.Generator()))
    next(made)
    assert any(thread.name == "augmentation" for thread in threading.enumerate())
    made.close()
    assert not any(thread.name == "augmentation" for thread in threading.enumerate())
