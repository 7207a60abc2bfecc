"""Ladders: their rungs, who is promoted, and whether a rung tells."""

from __future__ import annotations

import random
import statistics

import pytest

from gpnas.search.ladder import Ladder, baseline_seats, fidelities, quota, tells
from gpnas.search.trial import Fidelity


def test_a_ladder_survives_its_dictionary() -> None:
    ladder = Ladder((Fidelity(2, 64, 0.25), Fidelity(5, 96, 0.5)), wave=7, pending=6, seeds=2)
    assert ladder.to_dict() == {
        "fidelities": [{"epochs": 2, "imgsz": 64, "data_share": 0.25}, {"epochs": 5, "imgsz": 96, "data_share": 0.5}],
        "wave": 7,
        "pending": 6,
        "seeds": 2,
    }
    assert Ladder.from_dict(ladder.to_dict()) == ladder


def test_a_third_is_promoted_rounded_down_below_and_to_the_nearest_above() -> None:
    assert [quota(0, n) for n in range(10)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert [quota(1, n) for n in range(6)] == [0, 0, 1, 1, 1, 2]


def test_rungs_double_their_epochs_and_share_the_data() -> None:
    assert fidelities(5, 320, 32, 0.25) == (Fidelity(5, 160, 0.25), Fidelity(10, 256, 0.25), Fidelity(20, 320, 0.25))


@pytest.mark.parametrize(
    ("top", "sizes"),
    [(32, [32, 32, 32]), (64, [64, 64, 64]), (96, [64, 64, 96]), (160, [64, 128, 160]), (224, [128, 160, 224])],
)
def test_images_are_half_three_quarters_and_all_of_the_top_size(top: int, sizes: list[int]) -> None:
    assert [f.imgsz for f in fidelities(1, top, 32)] == sizes


@pytest.mark.parametrize(
    ("top", "stride", "sizes"),
    [
        *((320, 32, [160, 256, 320]), (416, 32, [192, 320, 416]), (480, 32, [256, 352, 480]), (640, 32, [320, 480, 640])),
        *((1280, 32, [640, 960, 1280]), (64, 32, [64, 64, 64]), (320, 64, [128, 256, 320]), (640, 64, [320, 512, 640])),
        *((192, 64, [128, 128, 192]), (128, 64, [128, 128, 128]), (64, 64, [64, 64, 64])),
    ],
)
def test_sizes_are_multiples_of_the_stride(top: int, stride: int, sizes: list[int]) -> None:
    """Half and three quarters are rounded to the nearest multiple: 208 of 416 is 6.5 strides of 32, rounded to 6."""
    assert [f.imgsz for f in fidelities(1, top, stride)] == sizes


@pytest.mark.parametrize(
    ("wave", "with_start", "seats"), [(9, False, 4), (9, True, 3), (2, True, 0), (1, False, 0), (1, True, 0)]
)
def test_baselines_have_at_most_half_of_the_seats(wave: int, with_start: bool, seats: int) -> None:
    assert baseline_seats(wave, with_start) == seats


def test_the_correlation_of_rungs_worked_out_by_hand() -> None:
    """Low 1, 2, 3 and high 1, 3, 2 correlate by 1/2. Had everyone the same spread, it stays so; with twice the deviation it is
    1/2 * 2 / sqrt(1 + 1/4 * 3) = 0.7559."""
    assert tells([1, 2, 3], [1, 3, 2], [1, 2, 3]) == pytest.approx(0.5)
    assert tells([1, 2, 3], [1, 3, 2], [2, 4, 6]) == pytest.approx(1 / 1.75**0.5)
    assert tells([3, 2, 1], [1, 3, 2], [2, 4, 6]) == pytest.approx(-1 / 1.75**0.5)


def test_a_rung_on_which_all_are_equal_tells_nothing() -> None:
    assert tells([0.0, 0.0, 0.0], [0.1, 0.2, 0.3], [0.0, 0.0, 0.0, 0.0]) == 0.0
    assert tells([0.1, 0.2, 0.3], [0.2, 0.2, 0.2], [0.1, 0.2, 0.3, 0.0]) == 0.0


def test_the_correction_finds_the_correlation_of_all_from_that_of_the_best_third() -> None:
    rng = random.Random(0)
    pairs = sorted((low, 0.6 * low + 0.8 * rng.gauss(0, 1)) for low in (rng.gauss(0, 1) for _ in range(30_000)))
    best = pairs[20_000:]
    found = tells([low for low, _ in best], [high for _, high in best], [low for low, _ in pairs])
    assert statistics.correlation(*zip(*best, strict=True)) < 0.45
    assert found == pytest.approx(0.6, abs=0.03)
