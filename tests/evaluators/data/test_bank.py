"""The image bank: scaled images in the top left corner, and boxes scaled with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evaluators.data.bank import as_images, load_bank
from evaluators.data.letterbox import GREY
from evaluators.data.open import open_data
from gpnas.errors import DataError
from tests.evaluators.data.small_data import (
    WIDTH,
    coco_content,
    picture,
    record,
    write_coco,
)


def test_a_crowd_is_kept_in_its_record_but_not_in_the_bank(tmp_path: Path) -> None:
    content = coco_content(1)
    content["annotations"][0]["iscrowd"] = 1
    record = open_data(str(write_coco(tmp_path, train=content))).splits["train"][0]
    assert record.crowd.tolist() == [True, False]
    bank = load_bank([record], WIDTH)
    assert bank.classes.tolist() == [[0]]
    assert bank.boxes.tolist() == [[[0, 0, 8, 4]]]


def test_a_bank_holds_images_top_left_scaled_by_their_long_side() -> None:
    wide = record(picture(40, 60), [[30, 20, 60, 40], [0, 0, 6, 6]], image_id=4)
    high = record(np.full((90, 30, 3), 200, np.uint8), [], image_id=9)
    bank = load_bank([wide, high], 30)
    assert bank.pixels.shape == (2, 30, 30, 3)
    assert bank.pixels.dtype == torch.uint8
    assert bank.sizes.tolist() == [[20, 30], [30, 10]]
    assert bank.scales.tolist() == pytest.approx([0.5, 1 / 3])
    assert bank.boxes.tolist() == [[[15, 10, 30, 20], [0, 0, 3, 3]], [[0, 0, 0, 0], [0, 0, 0, 0]]]
    assert bank.classes.tolist() == [[0, 1], [-1, -1]]
    assert (bank.pixels[0, 20:] == GREY).all()
    assert (bank.pixels[1, :, 10:] == GREY).all()
    assert (bank.pixels[1, :, :10] == 200).all()


def test_shrinking_averages_and_an_image_of_the_right_size_is_untouched() -> None:
    # 8x4 at 2 pixels: one row of two 4x4 blocks, whose rims count as much as their middles.
    blocks = np.zeros((4, 8, 3), dtype=np.uint8)
    blocks[0, :4] = 160
    blocks[1:3, 5:7] = 80
    bank = load_bank([record(blocks, [])], 2)
    assert bank.pixels[0, 0, :, 0].tolist() == [160 * 4 / 16, 80 * 4 / 16]
    assert (bank.pixels[0, 1] == GREY).all()
    rgb = picture(40, 60)
    assert np.array_equal(load_bank([record(rgb, [])], 60).pixels[0, :40].numpy(), rgb)


def test_no_scaled_box_stands_out_of_the_rounded_image() -> None:
    # 33x100 at 32 pixels is 10.56 -> 11 and 31x100 is 9.92 -> 10; 45x100 is 14.4 -> 14, below its box.
    records = [record(picture(height, 100), [[0, 0, 100, height]]) for height in (33, 31, 45)]
    bank = load_bank(records, 32)
    assert bank.sizes[:, 0].tolist() == [11, 10, 14]
    assert (bank.boxes[:, 0, 3] <= bank.sizes[:, 0]).all()


def test_images_for_a_network_are_floats_channels_last() -> None:
    pixels = torch.randint(0, 256, (2, 4, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = as_images(pixels)
    assert images.shape == (2, 3, 4, 6)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images[1, 2, 3, 5] == pixels[1, 3, 5, 2].float() / 255


def test_an_empty_split_and_a_size_of_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="no images to load"):
        load_bank([], 32)
    with pytest.raises(ValueError, match="size must be positive, got 0"):
        load_bank([record(picture(), [])], 0)
