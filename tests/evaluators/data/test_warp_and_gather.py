"""The two ways of making pixels agree with an independent warp and with each other."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from evaluators.data.augment import Augmentation
from evaluators.data.bank import as_images, load_bank
from evaluators.data.batches import augmented, train_batches
from evaluators.data.colours import draw_colour_matrices
from evaluators.data.gather import gathered_images
from evaluators.data.layout import draw_layout
from evaluators.data.records import Record
from evaluators.data.warp import warped_images
from tests.evaluators.data.painted import GEOMETRY, NONE, SIZE, painted_bank, seeded


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


@pytest.mark.usefixtures("both_ways")
def test_the_pixels_are_those_of_an_independent_warp() -> None:
    """Against OpenCV's bilinear warp, where the output shows the inside of the image."""
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    pixels = cv2.GaussianBlur(noise, (0, 0), 2)
    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    bank = load_bank([Record(0, SIZE, SIZE, *empty, pixels=pixels)], SIZE)
    varied = Augmentation(mosaic=0, flip=0, **GEOMETRY)
    for seed in range(5):
        layout = draw_layout(bank, torch.tensor([0]), varied, seeded(seed))
        output = augmented(bank, torch.tensor([0]), varied, seeded(seed)).images[0].permute(1, 2, 0).numpy() * 255
        scale, (cy, cx) = float(layout.scales[0]), layout.centres[0].tolist()
        # OpenCV counts from pixel centres: x_out + 0.5 = c + s (x_in + 0.5).
        matrix = np.array([[scale, 0, cx + 0.5 * scale - 0.5], [0, scale, cy + 0.5 * scale - 0.5]])
        expected = cv2.warpAffine(pixels.astype(np.float32), matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
        inside = cv2.warpAffine(np.ones((SIZE, SIZE), np.float32), matrix, (SIZE, SIZE)) > 0.999
        assert inside.sum() > 1000
        assert np.abs(output - expected)[inside].max() < 1.5  # OpenCV rounds positions to 1/32 pixel


def test_both_ways_make_the_same_pixels_but_for_rounding() -> None:
    """Smooth images: OpenCV rounds positions to 1/32 of a pixel, and bytes where it blends and where it colours."""
    rng = np.random.default_rng(0)
    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    records = []
    for i, (width, height) in enumerate([(SIZE, SIZE), (SIZE, SIZE * 3 // 4), (SIZE * 2 // 3, SIZE)] * 2):
        noise = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        records.append(Record(i, width, height, *empty, pixels=cv2.GaussianBlur(noise, (0, 0), 3)))
    bank, chosen = load_bank(records, SIZE), torch.arange(6)
    for seed in range(10):
        layout = draw_layout(bank, chosen, Augmentation(), seeded(seed))
        colours = draw_colour_matrices(6, Augmentation(), seeded(seed + 100))
        warped, gathered = (render(bank.pixels, layout, colours) for render in (warped_images, gathered_images))
        assert gathered.is_contiguous(memory_format=torch.channels_last)
        apart = (warped - gathered).abs().amax(1) * 255
        assert (apart > 3).float().mean() < 1e-3  # where rounding decides on which side of an image's edge a pixel lies
        assert apart.mean() < 0.7
