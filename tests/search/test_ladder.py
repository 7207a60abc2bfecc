"""Ladders and their plans, in seconds and epochs worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from gpnas.errors import InputError
from gpnas.search.budget import Budget
from gpnas.search.ladder import LEAST_STEPS, PROXY_BATCH, Ladder, nominal_flops, plan, quota
from gpnas.search.trial import Fidelity


def a_plan(budget: Budget, **changes: Any) -> Ladder:
    given: dict[str, Any] = {"imgsz": 640, "images": 200, "typical_macs": 1e9, "slots": 2, "device": "cpu"} | changes
    return plan(budget, **{"proxy_imgsz": min(given["imgsz"], 320), **given})


def test_seats_shrink_by_three_but_never_to_none() -> None:
    ladder = Ladder((Fidelity(1, 64), Fidelity(3, 64), Fidelity(9, 64)), wave=9)
    assert [ladder.seats(r) for r in range(3)] == [9, 3, 1]
    assert [Ladder(ladder.fidelities, 2).seats(r) for r in range(3)] == [2, 1, 1]
    assert [Ladder(ladder.fidelities, 14).seats(r) for r in range(3)] == [14, 5, 2]


def test_a_ladder_survives_its_dictionary() -> None:
    ladder = Ladder((Fidelity(2, 64, 0.25), Fidelity(5, 96, 0.5)), wave=7, pending=6)
    assert ladder.to_dict() == {
        "fidelities": [{"epochs": 2, "imgsz": 64, "data_share": 0.25}, {"epochs": 5, "imgsz": 96, "data_share": 0.5}],
        "wave": 7,
        "pending": 6,
    }
    assert Ladder.from_dict(ladder.to_dict()) == ladder


def test_a_third_is_promoted_rounded_down_below_and_to_the_nearest_above() -> None:
    assert [quota(0, n) for n in range(10)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert [quota(1, n) for n in range(6)] == [0, 0, 1, 1, 1, 2]


@pytest.mark.parametrize(("device", "flops"), [("cpu", 1e10), ("cuda", 6e12), ("cuda:0", 6e12), ("cuda:1", 6e12)])
def test_the_nominal_speed_is_that_of_the_kind_of_device(device: str, flops: float) -> None:
    assert nominal_flops(device) == flops


@pytest.mark.parametrize("device", ["mps", "xpu:0", "", "gpu"])
def test_an_unknown_device_is_named(device: str) -> None:
    with pytest.raises(InputError, match=f"^device {device}: must be cpu or cuda"):
        a_plan(Budget("seconds", 600), device=device)


def test_a_gpu_by_number_is_planned_as_a_gpu() -> None:
    plans = {
        device: a_plan(Budget("seconds", 600), device=device, images=20_000) for device in ("cpu", "cuda", "cuda:0", "cuda:1")
    }
    assert plans["cuda"] == plans["cuda:0"] == plans["cuda:1"] != plans["cpu"]


def wave_seconds(ladder: Ladder, macs: float, images: int, imgsz: int) -> float:
    """Seconds of a CPU worker for a wave: 6 FLOPs a MAC and 4 s an evaluation; the epochs that a rung adds."""
    low, middle, top = ladder.fidelities
    seconds = 0.0
    for seats, epochs, size in (
        (ladder.wave, low.epochs, low.imgsz),
        (max(1, round(ladder.wave / 3)), middle.epochs - low.epochs, middle.imgsz),
        (max(1, round(ladder.wave / 9)), top.epochs - middle.epochs, top.imgsz),
    ):
        seconds += seats * (epochs * low.data_share * images * 6 * macs * (size / imgsz) ** 2 / 1e10 + 4)
    return seconds


@pytest.mark.parametrize(
    ("seconds", "epochs"),
    # An epoch at 160 pixels takes 200 * 0.6 s * (160 / 640)^2 = 7.5 s, at 256 pixels 19.2 s, at 320 pixels 30 s. With e epochs
    # on the lowest rung, a wave of nine takes 9 * 7.5 e + 3 * 19.2 e + 30 * 2 e = 185.1 e seconds, and 13 * 4 = 52 s. Two
    # workers share three waves: 3 / 2 * (185.1 e + 52) = 277.65 e + 78 seconds.
    [(2300, 8), (2576, 8), (2577, 9), (2854, 9)],
)
def test_a_time_budget_pays_for_three_waves_of_nine(seconds: int, epochs: int) -> None:
    ladder = a_plan(Budget("seconds", seconds))
    assert ladder == Ladder((Fidelity(epochs, 160), Fidelity(2 * epochs, 256), Fidelity(4 * epochs, 320)), 9, 4)
    assert 3 / 2 * wave_seconds(ladder, 1e9, 200, 640) == pytest.approx(277.65 * epochs + 78)


def test_a_shorter_budget_pays_for_fewer_waves_and_then_for_smaller_ones() -> None:
    """The least epochs are 8: 200 steps of 8 images out of 200. One wave of nine takes 766.4 s on two workers, of six
    8 * (6 * 7.5 + 2 * 19.2 + 60) / 2 + 9 * 4 / 2 = 591.6 s, of four 8 * (4 * 7.5 + 19.2 + 60) / 2 + 6 * 4 / 2 = 448.8 s."""
    waves = {seconds: a_plan(Budget("seconds", seconds)) for seconds in (448, 449, 591, 592, 766, 767, 1533, 2299, 2300)}
    sizes = {seconds: (ladder.wave, ladder.fidelities[0].epochs) for seconds, ladder in waves.items()}
    assert sizes == {
        448: (4, 8),  # the least that is ever planned
        449: (4, 8),
        591: (4, 10),
        592: (6, 8),
        766: (6, 10),
        767: (9, 8),
        1533: (9, 8),
        2299: (9, 12),
        2300: (9, 8),
    }


def test_training_is_at_most_60_epochs_on_the_lowest_rung() -> None:
    assert a_plan(Budget("seconds", 10**7)) == Ladder((Fidelity(60, 160), Fidelity(120, 256), Fidelity(240, 320)), 9, 4)


def test_a_bigger_network_is_trained_for_fewer_epochs() -> None:
    epochs = [a_plan(Budget("seconds", 9600), typical_macs=macs).fidelities[0].epochs for macs in (0.5e9, 1e9, 2e9)]
    assert epochs == [60, 34, 17]


@pytest.mark.parametrize("seconds", [10, 60, 300, 3600])
@pytest.mark.parametrize("images", [20, 200, 5000])
def test_the_lowest_rung_takes_enough_steps_to_learn_something(seconds: int, images: int) -> None:
    epochs = a_plan(Budget("seconds", seconds), images=images).fidelities[0].epochs
    assert epochs >= 30 or epochs * images / PROXY_BATCH >= LEAST_STEPS


@pytest.mark.parametrize(
    ("images", "epochs"),
    [(1, 30), (53, 30), (54, 30), (55, 30), (56, 29), (200, 8), (201, 8), (1599, 2), (1600, 1), (118_000, 1)],
)
def test_the_least_epochs_make_200_steps_of_8_images_or_are_30(images: int, epochs: int) -> None:
    assert a_plan(Budget("trials", 5), images=images).fidelities[0].epochs == epochs


@pytest.mark.parametrize(
    ("imgsz", "sizes"),
    [
        *((32, [32, 32, 32]), (64, [64, 64, 64]), (96, [64, 64, 96]), (160, [64, 128, 160]), (224, [128, 160, 224])),
        *((320, [160, 256, 320]), (640, [160, 256, 320]), (1280, [160, 256, 320])),
    ],
)
def test_images_are_half_three_quarters_and_all_of_at_most_320_pixels(imgsz: int, sizes: list[int]) -> None:
    assert [f.imgsz for f in a_plan(Budget("seconds", 600), imgsz=imgsz).fidelities] == sizes


@pytest.mark.parametrize(
    ("proxy_imgsz", "stride", "sizes"),
    [
        *((320, 32, [160, 256, 320]), (416, 32, [192, 320, 416]), (480, 32, [256, 352, 480]), (640, 32, [320, 480, 640])),
        *((1280, 32, [640, 960, 1280]), (64, 32, [64, 64, 64]), (320, 64, [128, 256, 320]), (640, 64, [320, 512, 640])),
        *((192, 64, [128, 128, 192]), (128, 64, [128, 128, 128]), (64, 64, [64, 64, 64])),
    ],
)
def test_the_highest_rung_has_the_proxies_size_and_all_are_multiples_of_the_stride(
    proxy_imgsz: int, stride: int, sizes: list[int]
) -> None:
    """Half and three quarters are rounded to the nearest multiple: 208 of 416 is 6.5 strides of 32, rounded to 6."""
    ladder = a_plan(Budget("trials", 5), imgsz=1280, proxy_imgsz=proxy_imgsz, stride=stride)
    assert [f.imgsz for f in ladder.fidelities] == sizes


def test_larger_proxies_cost_epochs() -> None:
    """At 320, 480 and 640 pixels an epoch takes 200 * 0.6 s times 1/4, 9/16 and 1: 30, 67.5 and 120 s. A wave of nine with e
    epochs below takes 9 * 30 e + 3 * 67.5 e + 120 * 2 e = 712.5 e, and 52 s; three waves on two workers 1068.75 e + 78 s."""
    sizes = (320, 480, 640)
    for seconds, epochs in ((8628, 8), (9696, 8), (9697, 9)):
        expected = tuple(Fidelity(epochs * 2**rung, size) for rung, size in enumerate(sizes))
        assert a_plan(Budget("seconds", seconds), proxy_imgsz=640) == Ladder(expected, 9, 4)


def test_a_share_of_the_data_is_used_when_an_epoch_of_all_is_more_than_the_budget_pays_for() -> None:
    """An epoch of 118,000 images takes 4425, 11,328 and 17,700 s on the rungs; a wave of four 64,428 + 24 s on one worker. Half
    the data take half the time without the 24 s, a quarter a quarter."""
    wave = 4 * 4425 + 11_328 + 2 * 17_700
    assert wave == 64_428
    for seconds, share in ((wave + 24, 1), (wave + 23, 0.5), (wave // 4 + 24, 0.25), (wave // 4 + 23, 0.125)):
        ladder = a_plan(Budget("seconds", seconds), images=118_000, slots=1)
        assert [(f.epochs, f.data_share) for f in ladder.fidelities] == [(1, share), (2, share), (4, share)]


def test_the_share_of_the_data_leaves_200_steps() -> None:
    """1600 of 118,000 images are needed; 1/64 of them are 1844, 1/128 are 922."""
    ladder = a_plan(Budget("seconds", 1), images=118_000)
    assert ladder == Ladder((Fidelity(1, 160, 1 / 64), Fidelity(2, 256, 1 / 64), Fidelity(4, 320, 1 / 64)), 4, 4)
    assert a_plan(Budget("seconds", 1), images=3199).fidelities[0].data_share == 1
    assert a_plan(Budget("seconds", 1), images=3200).fidelities[0].data_share == 0.5


@pytest.mark.parametrize("budget", [Budget("trials", 100), Budget("epochs", 1000), Budget("seconds", 10**7)])
def test_twice_the_workers_are_pending_and_a_wave_keeps_them_busy(budget: Budget) -> None:
    assert [(a_plan(budget, slots=slots).pending, a_plan(budget, slots=slots).wave) for slots in (1, 3, 7)] == [
        (2, 9),
        (6, 9),
        (14, 14),
    ]


@pytest.mark.parametrize(("trials", "wave"), [(1, 1), (4, 4), (9, 9), (100, 9)])
def test_a_budget_of_trials_starts_no_more_than_it_pays_for(trials: int, wave: int) -> None:
    assert a_plan(Budget("trials", trials)) == Ladder((Fidelity(8, 160), Fidelity(16, 256), Fidelity(32, 320)), wave, 4)


@pytest.mark.parametrize(("epochs", "lowest", "wave"), [(3, 3, 1), (8, 8, 1), (31, 8, 1), (32, 8, 2), (80, 8, 5), (1000, 8, 9)])
def test_a_budget_of_epochs_pays_twice_the_least_epochs_for_each_candidate(epochs: int, lowest: int, wave: int) -> None:
    ladder = a_plan(Budget("epochs", epochs))
    assert (ladder.fidelities[0], ladder.wave) == (Fidelity(lowest, 160), wave)
