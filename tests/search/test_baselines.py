"""Baselines in the controller: they start in the first wave, and count like any other trial from then on."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from gpnas.graph.cost import deployed_cost
from gpnas.search import choice
from gpnas.search.controller import Controller, Policy
from gpnas.search.limits import Limits
from gpnas.search.pool import Proposal
from gpnas.search.trial import Candidate
from tests.grid import GridSpace
from tests.search.test_controller import LADDER, START, a_controller, run, tell

BASELINES = [("narrow", {"width": 12, "depth": 7}), ("wide", {"width": 28, "depth": 3})]


def baselines(*chains: tuple[str, dict[str, int]]) -> list[tuple[str, Candidate]]:
    return [(name, GridSpace().read(json.dumps(choices))) for name, choices in chains or BASELINES]


def first_wave(controller: Controller) -> list[tuple[str, str]]:
    """Origin and hash of each trial that starts before there are results."""
    return [(str(s.trial.origin), s.trial.candidate.hash) for s in controller.ask() if s.rung == 0]


def test_baselines_come_first_in_a_wave_that_does_not_grow() -> None:
    wave = first_wave(a_controller(baselines=baselines()))
    assert wave[:2] == [("baseline narrow", "w12d7"), ("baseline wide", "w28d3")]
    assert len(wave) == LADDER.wave and {origin for origin, _ in wave[2:]} == {"sample"}
    start = GridSpace().read(json.dumps(START))
    wave = first_wave(a_controller(baselines=baselines(), start=start))
    assert [origin for origin, _ in wave] == ["start", "baseline narrow", "baseline wide", *["sample"] * (LADDER.wave - 3)]


@pytest.mark.parametrize(("trials", "seats"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_baselines_take_at_most_half_of_a_small_wave(trials: int, seats: int) -> None:
    wave = first_wave(a_controller(baselines=baselines(), max_trials=trials))
    assert len(wave) == trials
    assert [origin for origin, _ in wave if origin != "sample"] == ["baseline narrow", "baseline wide"][:seats]


def test_a_baseline_beyond_the_limits_is_left_out_and_gives_its_seat_to_the_next() -> None:
    (_, narrow), (_, wide) = baselines()
    limits = Limits(max_params=deployed_cost(narrow.graph, 32).params - 1)
    assert limits.allows(deployed_cost(wide.graph, 32)) is False
    small = ("small", {"width": 8, "depth": 4})
    controller = a_controller(baselines=baselines(*BASELINES, small), limits=limits, max_trials=2)
    assert first_wave(controller)[0] == ("baseline small", "w8d4")


def test_a_baseline_that_is_the_start_or_another_baseline_is_trained_once() -> None:
    start = GridSpace().read(json.dumps(START))
    same = [("same", START), BASELINES[0], ("again", BASELINES[0][1])]
    wave = first_wave(a_controller(baselines=baselines(*same), start=start))
    assert [origin for origin, _ in wave if origin != "sample"] == ["start", "baseline narrow"]
    assert len({digest for _, digest in wave}) == LADDER.wave


def parents_of_baselines(ap: float) -> tuple[Controller, set[int], set[int]]:
    """A search in which the baselines, trials 0 and 1 and the largest of all, reach `ap` on every rung; the trials that it
    trained on the second rung, and those that it bred from."""
    large = [("large", {"width": 64, "depth": 11}), ("largest", {"width": 64, "depth": 12})]
    controller = a_controller(1, baselines=baselines(*large))
    for _ in range(40):
        suggestion = controller.ask()[0]
        tell(controller, suggestion, ap if suggestion.trial.id < 2 else None)
    climbed = {i for i, rung, _ in controller.results if rung == 1}
    return controller, climbed, {i for trial in controller.trials for i in trial.origin.parents}


def test_baselines_that_win_are_promoted_and_are_parents_and_those_that_lose_are_neither() -> None:
    _, climbed, parents = parents_of_baselines(0.95)
    assert 0 in climbed & parents  # trial 1 costs more for the same AP
    controller, climbed, parents = parents_of_baselines(0.0)
    assert not {0, 1} & climbed and not {0, 1} & parents and parents
    assert {0, 1}.isdisjoint(controller.promotable())


def test_the_surrogate_learns_from_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[list[str]] = []

    def most_promising(proposals: Any, trained: Any, *_: Any, **__: Any) -> Proposal:
        learned.append([str(trial.origin) for trial, _ in trained])
        assert all(trial.features["score"] > 0 for trial, _ in trained)
        chosen: Proposal = proposals[0]
        return chosen

    monkeypatch.setattr(choice, "most_promising", most_promising)
    run(a_controller(baselines=baselines()), 8)
    assert learned and all(origins[:2] == ["baseline narrow", "baseline wide"] for origins in learned)


def test_a_resumed_run_adopts_its_baselines() -> None:
    """Also when it was stopped before all of its first trials were in the journal."""
    for stopped_after in (1, 17):
        whole, first, second = (a_controller(baselines=baselines()) for _ in range(3))
        run(whole, 26)
        first.ask(1)
        run(first, stopped_after - 1)
        second.adopt([(trial.candidate.genotype, trial.origin) for trial in first.trials])
        run(second, 26)
        assert second.trials == whole.trials and second.results == whole.results


def test_a_policy_that_picks_knows_the_baselines() -> None:
    seen: list[list[str]] = []

    def pick(proposals: Sequence[Proposal], chosen: Sequence[Proposal], rng: random.Random) -> Proposal:
        seen.append([str(proposal.origin) for proposal in chosen])
        return proposals[0]

    a_controller(baselines=baselines(), policy=Policy(pick=pick)).ask()
    assert seen[0] == ["baseline narrow", "baseline wide"]
