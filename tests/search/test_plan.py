"""The plan of a search, in seconds worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gpnas.search.budget import Budget
from gpnas.search.ladder import Ladder, fidelities
from gpnas.search.plan import (
    LEAST_STEPS,
    PATIENCE,
    PROXY_BATCH,
    WANTED,
    WANTED_SEEDS,
    Costs,
    Machine,
    Plan,
    affordable_macs,
    explored_seconds,
    least_epochs,
    plan,
    rounded_down,
)
from gpnas.search.trial import Fidelity


def costs(**changes: Any) -> Costs:
    """A pass over one image of 640 pixels takes 2 * 1e9 / 1e10 = 0.2 s, of 320 pixels 0.05 s."""
    machine = Machine(1e-10, changes.pop("overhead", 2.0), changes.pop("slots", 2))
    given: dict[str, Any] = {"macs": 1e9, "imgsz": 640, "images": 200, "val_images": 60, "machine": machine} | changes
    return Costs(**given)


def a_plan(budget: Budget, *, proxy_imgsz: int = 320, stride: int = 32, **changes: Any) -> Plan:
    made = costs(**changes)
    return plan(budget, proxy_imgsz=proxy_imgsz, stride=stride, costs=made)


def test_an_evaluation_takes_three_passes_of_its_images_and_one_of_val() -> None:
    """3 * 4 epochs * 200 images and 60 of val, at 0.05 s a pass, and 2 s. From epoch 3 on it is one epoch; half of the data is
    half of that. At twice the pixels a side a pass takes four times as long."""
    assert costs().seconds(Fidelity(4, 320)) == pytest.approx(2460 * 0.05 + 2)
    assert costs().seconds(Fidelity(4, 320), trained=3) == pytest.approx(660 * 0.05 + 2)
    assert costs().seconds(Fidelity(4, 320, 0.5), trained=3) == pytest.approx(360 * 0.05 + 2)
    assert costs().seconds(Fidelity(4, 640)) == pytest.approx(2460 * 0.2 + 2)


def test_a_candidate_costs_a_third_of_the_second_rung_and_a_ninth_of_the_third() -> None:
    """At 160, 256 and 320 pixels a pass takes 0.0125, 0.032 and 0.05 s. With 8, 16 and 32 epochs the rungs add 8, 8 and 16
    epochs: 4860 * 0.0125 + 2 = 62.75, 4860 * 0.032 + 2 = 157.52 and 9660 * 0.05 + 2 = 485 s. A ninth of the candidates get a
    second seed on two rungs, a 27th reach the top: 62.75 + 157.52 / 3 + 220.27 / 9 + 485 / 27 = 157.694 s for each. Six tenths
    of a budget of 5256.5 s are explored by two workers: 6307.8 s for 40 candidates. Nine tenths of the rest, 3784.7 s, pay for
    a candidate on all rungs 5.366 times."""
    assert explored_seconds([62.75, 157.52, 485.0]) == pytest.approx(157.694, abs=0.001)
    assert explored_seconds([6.0, 12.0]) == pytest.approx(10.0) and explored_seconds([6.0]) == 6.0
    assert costs().candidates(fidelities(8, 320, 32), 5256.47) == pytest.approx(40, rel=1e-4)
    assert costs(slots=1).candidates(fidelities(8, 320, 32), 5256.47) == pytest.approx(20, rel=1e-4)
    assert costs().fresh_seeds(fidelities(8, 320, 32), 5256.47) == pytest.approx(5.3663, rel=1e-4)


def test_the_longest_trainings_that_still_pay_for_the_wanted_candidates() -> None:
    """8 epochs are the least: 200 steps of 8 images out of 200. Nine fresh seeds cost 9 * 705.27 s, and an epoch more on the
    lowest rung 600 * (0.0125 + 0.032 + 2 * 0.05) = 86.7 s for each. 40 candidates cost less."""
    assert (WANTED, WANTED_SEEDS) == (40, 9)
    for epochs in (8, 9, 12):
        seconds = 9 * (705.27 + 86.7 * (epochs - 8)) / 0.72
        assert a_plan(Budget("seconds", int(seconds) + 2)).ladder.fidelities[0].epochs == epochs
        assert a_plan(Budget("seconds", int(seconds) - 2)).ladder.fidelities[0].epochs == max(8, epochs - 1)
    exact = a_plan(Budget("seconds", 8817))
    assert exact.ladder == Ladder((Fidelity(8, 160), Fidelity(16, 256), Fidelity(32, 320)), 9, 4, seeds=2)
    assert exact.candidates == pytest.approx(1.2 * 8817 / 157.694, rel=1e-4)


def test_trainings_are_at_most_60_epochs_on_the_lowest_rung() -> None:
    assert a_plan(Budget("seconds", 10**7)).ladder.fidelities[0].epochs == 60


@pytest.mark.parametrize(("candidates", "wave"), [(28, 9), (26, 6), (19, 6), (17, 4), (3, 4), (0.1, 4)])
def test_a_short_budget_starts_a_third_of_its_candidates_together(candidates: float, wave: int) -> None:
    made = a_plan(Budget("seconds", round(candidates * 157.694 / 1.2)))
    assert made.ladder.wave == wave and made.ladder.fidelities[0].epochs == 8
    assert made.candidates == pytest.approx(candidates, abs=0.01)


def test_a_share_of_the_data_is_used_when_an_epoch_of_all_is_more_than_the_budget_pays_for() -> None:
    """Of 12,800 images an eighth are 1600, which make 200 steps; half of them would not."""
    made = [a_plan(Budget("seconds", seconds), images=12_800, val_images=0).ladder for seconds in (10**7, 10**4, 1)]
    shares = [(ladder.fidelities[0].epochs, ladder.fidelities[0].data_share) for ladder in made]
    assert shares[0] == (60, 1.0) and shares[2] == (1, 0.125)
    assert shares[1][0] == 1 and shares[1][1] in (0.5, 0.25, 0.125)
    assert a_plan(Budget("seconds", 1), images=3199).ladder.fidelities[0].data_share == 1
    assert a_plan(Budget("seconds", 1), images=3200).ladder.fidelities[0].data_share == 0.5


@pytest.mark.parametrize("seconds", [10, 60, 300, 3600])
@pytest.mark.parametrize("images", [20, 200, 5000])
def test_the_lowest_rung_takes_enough_steps_to_learn_something(seconds: int, images: int) -> None:
    lowest = a_plan(Budget("seconds", seconds), images=images).ladder.fidelities[0]
    assert lowest.epochs >= 30 or lowest.epochs * lowest.data_share * images / PROXY_BATCH >= LEAST_STEPS


@pytest.mark.parametrize(
    ("images", "epochs"),
    [(1, 30), (53, 30), (54, 30), (55, 30), (56, 29), (200, 8), (201, 8), (1599, 2), (1600, 1), (118_000, 1)],
)
def test_the_least_epochs_make_200_steps_of_8_images_or_are_30(images: int, epochs: int) -> None:
    assert least_epochs(images) == epochs


@pytest.mark.parametrize("budget", [Budget("trials", 100), Budget("epochs", 1000), Budget("seconds", 10**7)])
def test_twice_the_workers_are_pending_and_a_wave_keeps_them_busy(budget: Budget) -> None:
    ladders = [a_plan(budget, slots=slots).ladder for slots in (1, 3, 7)]
    assert [(ladder.pending, ladder.wave) for ladder in ladders] == [(2, 9), (6, 9), (14, 14)]


@pytest.mark.parametrize(("trials", "wave"), [(1, 1), (4, 4), (9, 9), (100, 9)])
def test_a_budget_of_trials_starts_no_more_than_it_pays_for(trials: int, wave: int) -> None:
    expected = Ladder((Fidelity(8, 160), Fidelity(16, 256), Fidelity(32, 320)), wave, 4, seeds=2)
    assert a_plan(Budget("trials", trials)) == Plan(expected, None)


@pytest.mark.parametrize(("epochs", "lowest", "wave"), [(3, 3, 1), (8, 8, 1), (31, 8, 1), (32, 8, 2), (80, 8, 5), (1000, 8, 9)])
def test_a_budget_of_epochs_pays_twice_the_least_epochs_for_each_candidate(epochs: int, lowest: int, wave: int) -> None:
    ladder = a_plan(Budget("epochs", epochs)).ladder
    assert (ladder.fidelities[0], ladder.wave) == (Fidelity(lowest, 160), wave)


def test_the_candidates_that_a_budget_pays_for_are_as_large_as_it_allows() -> None:
    """A candidate on all rungs takes 705.27 s, of which 6 s do not depend on its size. Nine tenths of two
    fifths of 2000 s leave 720 * 2 / 9 = 160 s for each of nine: (160 - 6) / 699.27 of 1e9 MACs. With overheads of 30 s the 40
    candidates allow less: 1200 * 2 / 40 = 60 s for each, of which 30 * (1 + 1/3 + 2/9 + 1/27) = 47.78 s are fixed and 154.509 s
    proportional."""
    size: dict[str, Any] = {"proxy_imgsz": 320, "stride": 32}
    found = affordable_macs(Budget("seconds", 2000), **size, costs=costs())
    assert found == pytest.approx(1e9 * 154 / 699.27, rel=1e-3)
    assert a_plan(Budget("seconds", 2001), macs=found).ladder.fidelities[0].epochs == 8
    slow = affordable_macs(Budget("seconds", 2000), **size, costs=costs(overhead=30.0))
    assert slow == pytest.approx(1e9 * 12.222 / 154.509, rel=1e-3)
    assert affordable_macs(Budget("seconds", 10), **size, costs=costs()) == 0


def test_without_a_time_the_first_evaluation_takes_half_a_minute() -> None:
    """60.75 s of the lowest rung's 62.75 s are proportional to the MACs; 28 s of 30 are left for them."""
    found = affordable_macs(Budget("trials", 12), proxy_imgsz=320, stride=32, costs=costs())
    assert found == pytest.approx(1e9 * 28 / 60.75, rel=1e-3)


@pytest.mark.parametrize("images", [480, 10_000, 118_000])
def test_without_a_time_the_first_evaluation_takes_half_a_minute_however_many_images_there_are(images: int) -> None:
    typical = costs(images=images, val_images=images // 10)
    found = affordable_macs(Budget("epochs", 100), proxy_imgsz=320, stride=32, costs=typical)
    rungs = a_plan(Budget("epochs", 100), images=images).ladder.fidelities
    assert replace(typical, macs=found).seconds(rungs[0]) == pytest.approx(PATIENCE)


@pytest.mark.parametrize(
    ("value", "rounded"), [(1.0, 1.0), (1.19e9, 1e9), (1.2e9, 1.2e9), (9.9e7, 8e7), (2.6e8, 2.5e8), (5e10, 5e10), (0.7, 0.6)]
)
def test_limits_are_rounded_down_to_few_values(value: float, rounded: float) -> None:
    assert rounded_down(value) == pytest.approx(rounded)


def test_machines_of_nearly_equal_speed_plan_the_same() -> None:
    speeds = [Machine.measured(1e-10 * factor, 2).seconds_per_flop for factor in (1.0, 1.05, 0.96, 1.5)]
    assert speeds[0] == speeds[1] == speeds[2] and speeds[3] / speeds[0] == pytest.approx(2**0.5)
    assert speeds[0] == pytest.approx(1e-10, rel=0.09)
