"""The plan of a search on a machine of known speed: the limit that it chooses, the candidates that it promises, its words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpnas.cli.planning import Planned, plan_search
from gpnas.cli.sizes import Sizes
from gpnas.graph.cost import deployed_cost
from gpnas.search.budget import parse_budget
from gpnas.search.limits import NEAR, Limits
from gpnas.search.plan import FEWEST
from search_spaces.gradient_path import open_space
from tests.cli.conftest import Gpnas
from tests.cli.pictures import write_coco
from tests.cli.untrained import Untrained, scripted_evaluators, search

SPACE = open_space("gradient-path", classes=10)
SIZES = Sizes("3-5", 32, 160, ())


@pytest.fixture
def evaluators(monkeypatch: pytest.MonkeyPatch) -> list[Untrained]:
    return scripted_evaluators(monkeypatch)


def planned(
    monkeypatch: pytest.MonkeyPatch,
    budget: str,
    limits: Limits = Limits(),  # noqa: B008  # it is frozen
    *,
    flops_a_second: float = 1e10,
    spread: bool = False,
    bounded: bool = True,
) -> Planned:
    """On the built-in digits, for detectors of 320 pixels, with two workers."""
    from evaluators.data.open import open_data

    monkeypatch.setattr("evaluators.training.speed.seconds_per_flop", lambda *_, **__: 1 / flops_a_second)
    monkeypatch.setattr("gpnas.cli.planning.SAMPLES", 60)
    return plan_search(
        SPACE,
        limits,
        parse_budget(budget),
        open_data("digits"),
        SIZES,
        imgsz=320,
        slots=2,
        device="cpu",
        seed=0,
        spread=spread,
        bounded=bounded,
    )


@pytest.mark.parametrize("budget", ["2h", "12trials", "500epochs"])
def test_without_limits_one_on_flops_is_chosen_that_the_machine_can_pay_for(
    monkeypatch: pytest.MonkeyPatch, budget: str
) -> None:
    slow, fast = (planned(monkeypatch, budget, flops_a_second=speed) for speed in (1e10, 4e10))
    assert slow.limits.max_flops is not None and fast.limits.max_flops is not None
    assert slow.limits.max_flops < fast.limits.max_flops and slow.limits.max_params is None
    assert slow.told[0].startswith("no limit was given: candidates may have ") and "--max-flops" in slow.told[0]
    smallest = deployed_cost(SPACE.smallest().graph, 320).flops
    assert slow.limits.max_flops >= smallest
    if parse_budget(budget).kind == "seconds":
        assert fast.candidates is not None and fast.candidates >= FEWEST


def test_a_fast_machine_needs_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(monkeypatch, "1d", flops_a_second=1e15).limits == Limits()


@pytest.mark.parametrize("limits", [Limits(max_flops=1e9), Limits(max_params=1e6)])
def test_limits_that_were_given_and_those_of_a_start_stay(monkeypatch: pytest.MonkeyPatch, limits: Limits) -> None:
    assert planned(monkeypatch, "2h", limits).limits == limits
    assert planned(monkeypatch, "2h", bounded=False).limits == Limits()
    assert not any("no limit" in line for line in planned(monkeypatch, "2h", limits).told)


def test_typical_candidates_are_near_the_limits_unless_sizes_are_to_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(max_flops=4e9)
    near, spread = (planned(monkeypatch, "2h", limits, spread=spread).typical_macs for spread in (False, True))
    assert 2e9 / NEAR <= near <= 2e9 and spread < 2e9 / NEAR


def test_a_short_budget_says_how_long_a_good_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(max_flops=1e9)
    made = planned(monkeypatch, "5m", limits)
    assert made.candidates is not None and made.candidates < FEWEST
    assert f"so the budget pays for about {made.candidates:.0f} candidates" in made.told[-2]
    found = re.fullmatch(
        r"with fewer than 30 candidates the best is a matter of luck; a --budget of (\d+):(\d\d):?(\d\d)? would .*",
        made.told[-1],
    )
    assert found is not None
    parts = [int(part) for part in found.groups() if part]
    seconds = sum(part * 60**k for k, part in enumerate(reversed(parts)))
    assert seconds == pytest.approx(300 * FEWEST / made.candidates, abs=1)
    enough = planned(monkeypatch, f"{seconds + 5}s", limits)
    assert enough.candidates is not None and enough.candidates >= FEWEST - 0.1 and len(enough.told) == 1


def test_other_budgets_tell_the_speed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = planned(monkeypatch, "12trials", Limits(max_flops=1e9))
    assert made.candidates is None and made.told == ("a worker does 10.22G training FLOPs a second here",)
    assert made.seconds_per_flop == pytest.approx(1 / 10.22e9, rel=1e-3)


def test_a_gpu_is_shared_by_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trainings are assumed to overlap; of four workers each is half as fast as one alone."""
    from gpnas.cli.planning import _machine

    monkeypatch.setattr("evaluators.training.speed.seconds_per_flop", lambda *_, **__: 1e-12)
    speeds = [_machine(SPACE.smallest(), None, 64, slots, "cuda").seconds_per_flop for slots in (1, 2, 4)]  # type: ignore[arg-type]
    assert speeds[0] == speeds[1] and speeds[2] == pytest.approx(2 * speeds[0])


def test_a_search_tells_its_plan_keeps_it_and_says_why_it_ended(
    gpnas: Gpnas, evaluators: list[Untrained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpnas.run.journal import PLAN, Journal

    monkeypatch.setattr("evaluators.training.speed.seconds_per_flop", lambda *_, **__: 1e-8)

    code, out, err = search(
        gpnas, tmp_path / "run", "--budget", "2trials", "--data", write_coco(tmp_path / "data"), "--no-baselines", "--spread"
    )
    assert code == 0, err
    assert out.startswith("no limit was given: candidates may have ") and "2 candidates of all sizes" in out
    assert "the search ended: all 2 candidates were trained\n" in out
    with Journal.open(tmp_path / "run", write=False) as journal:
        events = {event.kind: event.data for event in journal.events()}
        assert journal.settings["spread"] is True and journal.settings["max_flops"] > 0
    assert events[PLAN] == {"decision": 0, "rungs": 3, "candidates": None}
    assert events["end"] == {"why": "all 2 candidates were trained"}
