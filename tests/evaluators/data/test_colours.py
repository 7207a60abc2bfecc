"""Colours change within their limits."""

from __future__ import annotations

import colorsys

import pytest
import torch
from torch import Tensor

from evaluators.data.augment import Augmentation
from evaluators.data.batches import augmented
from evaluators.data.colours import draw_colour_matrices
from tests.evaluators.data.painted import GEOMETRY, painted_bank, seeded


def colours(seed: int, **limits: float) -> Tensor:
    matrices = draw_colour_matrices(1, Augmentation(**(GEOMETRY | limits)), seeded(seed))
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
