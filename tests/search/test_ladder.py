import pytest

from gpnas.search.budget import Budget
from gpnas.search.ladder import LEAST_STEPS, PROXY_BATCH, Ladder, plan, quota
from gpnas.search.trial import Fidelity


def a_plan(budget, **changes):
    given = {"imgsz": 640, "images": 200, "typical_macs": 1e9, "slots": 2, "device": "cpu"} | changes
    return plan(budget, **given)


def test_epochs_double_and_images_grow_from_rung_to_rung():
    ladder = a_plan(Budget("seconds", 1200))
    low, middle, top = ladder.fidelities
    assert (middle.epochs, top.epochs) == (2 * low.epochs, 4 * low.epochs)
    assert [f.imgsz for f in ladder.fidelities] == [160, 256, 320]


def test_a_longer_budget_trains_longer_and_a_bigger_network_shorter():
    # Between 1200 and 2400 seconds the plan buys another wave instead of longer training.
    epochs = [a_plan(Budget("seconds", s)).fidelities[0].epochs for s in (2400, 4800, 9600)]
    assert epochs == sorted(epochs) and epochs[0] < epochs[-1]
    assert a_plan(Budget("seconds", 9600), typical_macs=4e9).fidelities[0].epochs < epochs[-1]


@pytest.mark.parametrize("seconds", [10, 60, 300, 3600])
@pytest.mark.parametrize("images", [20, 200, 5000])
def test_the_lowest_rung_always_takes_enough_steps_to_learn_something(seconds, images):
    epochs = a_plan(Budget("seconds", seconds), images=images).fidelities[0].epochs
    assert epochs >= 30 or epochs * images / PROXY_BATCH >= LEAST_STEPS


@pytest.mark.parametrize("imgsz", [32, 64, 96, 160, 320, 640, 1280])
def test_image_sizes_never_exceed_that_of_the_final_detector(imgsz):
    sizes = [f.imgsz for f in a_plan(Budget("seconds", 600), imgsz=imgsz).fidelities]
    assert sizes == sorted(sizes) and sizes[-1] <= max(imgsz, 32)


def test_seats_shrink_by_three_but_never_to_none():
    ladder = Ladder((Fidelity(1, 64), Fidelity(3, 64), Fidelity(9, 64)), wave=9)
    assert [ladder.seats(r) for r in range(3)] == [9, 3, 1]
    assert [Ladder(ladder.fidelities, 2).seats(r) for r in range(3)] == [2, 1, 1]
    assert Ladder.from_dict(ladder.to_dict()) == ladder


def test_a_third_climbs_and_higher_up_what_a_third_rounds_to():
    assert [quota(0, n) for n in range(10)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert [quota(1, n) for n in range(6)] == [0, 0, 1, 1, 1, 2]


def test_data_that_are_too_many_for_the_budget_are_used_in_part():
    assert a_plan(Budget("seconds", 1200)).fidelities[0].data_share == 1
    share = a_plan(Budget("seconds", 7200), images=118_000).fidelities[0].data_share
    assert 0 < share < 1
    assert a_plan(Budget("seconds", 1), images=118_000).fidelities[0].data_share >= LEAST_STEPS * PROXY_BATCH / 118_000
    assert a_plan(Budget("seconds", 1200), slots=3).pending == 6


def test_a_budget_of_trials_never_starts_more_than_it_pays_for():
    assert a_plan(Budget("trials", 4)).wave == 4
    assert a_plan(Budget("trials", 100)).wave == 9
