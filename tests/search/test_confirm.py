"""The confirmation: who leads, whom the room pays for, and what is trained in which order."""

from __future__ import annotations

import pytest

from gpnas.graph.cost import deployed_cost
from gpnas.search.confirm import Chosen, Confirmation, choose, leaders
from gpnas.search.controller import Suggestion
from gpnas.search.pareto import by_ap, ranked
from gpnas.search.trial import FIRST_FRESH, Cause, Evaluation, Fidelity, Origin, Trial, TrialState, failure
from tests.grid import grid_candidate

RUNGS = (Fidelity(1, 32), Fidelity(3, 32), Fidelity(9, 64, 0.5))


def a_trial(number: int, width: int = 8, origin: str = "sample") -> Trial:
    candidate = grid_candidate(width, 2)
    return Trial(number, candidate, Origin.parse(origin), {"score": 1.0}, deployed_cost(candidate.graph, 32))


def done(ap: float) -> Evaluation:
    return Evaluation(TrialState.COMPLETE, {"ap": ap}, 1.0, 1)


def test_leaders_are_those_on_the_highest_rung_then_the_others_each_by_mean_ap() -> None:
    """Trial 2 has AP .5 on the second rung, trial 0 the mean of .2 and .3, and trial 1 only .9 on the lowest. Trial 3 failed on
    the second rung and stands on the first. Fresh seeds do not count."""
    trials = [a_trial(number) for number in range(4)]
    results = {
        (0, 0, 0): done(0.8),
        (0, 1, 0): done(0.2),
        (0, 1, 1): done(0.3),
        (1, 0, 0): done(0.9),
        (2, 0, 0): done(0.1),
        (2, 1, 0): done(0.5),
        (3, 0, 0): done(0.95),
        (3, 1, 0): failure(Cause.NAN, "loss is nan"),
        (1, 1, FIRST_FRESH): done(0.99),
    }
    assert leaders(trials, results, by_ap) == [2, 0, 3, 1]


def test_leaders_of_a_rung_are_ordered_as_asked() -> None:
    """Trial 1 costs least: the front is trials 0 and 1; trial 2 costs more than trial 0 and has a lower AP, but more than 1."""
    trials = [a_trial(0, 16), a_trial(1, 4), a_trial(2, 20)]
    results = {(0, 0, 0): done(0.5), (1, 0, 0): done(0.1), (2, 0, 0): done(0.4)}
    assert leaders(trials, results, by_ap) == [0, 2, 1]
    assert leaders(trials, results, ranked) == [0, 1, 2]


def test_warm_trials_come_after_those_of_their_rung_that_started_from_scratch() -> None:
    trials = [a_trial(0), a_trial(1, origin="mutate 0 warm 0"), a_trial(2)]
    results = {(0, 0, 0): done(0.1), (1, 0, 0): done(0.9), (2, 0, 0): done(0.2), (0, 1, 0): done(0.1)}
    assert leaders(trials, results, by_ap) == [0, 2, 1]


ORDER = [4, 7, 1, 9, 0, 2, 3, 8]


@pytest.mark.parametrize(
    ("room", "chosen"),
    [
        (1e9, Chosen((4, 7, 1, 9, 0, 2, 3), 3)),  # 4, 1, 9, 0 and 2 were found; 7 and 3 are known
        (210, Chosen((4, 7, 1, 9, 0, 2, 3), 3)),
        (209, Chosen((4, 7, 1, 9, 0, 3), 3)),
        (179, Chosen((4, 7, 1, 9, 3), 3)),
        (120, Chosen((4, 7, 1, 3), 3)),
        (119, Chosen((4, 7, 1), 3)),
        (89, Chosen((4, 7, 1, 9), 2)),
        (79, Chosen((4, 7, 1), 2)),
        (59, Chosen((4, 7), 2)),
        (39, Chosen()),
    ],
)
def test_the_room_decides_how_many_leaders_are_confirmed(room: float, chosen: Chosen) -> None:
    """Each seed of each costs 10."""
    assert choose(ORDER, [3, 7], lambda trial: 10.0, room) == chosen


def test_costs_differ_between_trials() -> None:
    """1 + 4 + 7 is the cost of a seed of two leaders with the baseline, 1 + 7 that of one."""
    cost = {4: 1.0, 1: 4.0, 7: 7.0}
    assert choose([4, 1, 7], [7], cost.__getitem__, 36) == Chosen((4, 1, 7), 3)
    assert choose([4, 1, 7], [7], cost.__getitem__, 35) == Chosen((4, 1, 7), 2)
    assert choose([4, 1, 7], [7], cost.__getitem__, 23) == Chosen((4, 7), 2)


@pytest.mark.parametrize(
    ("order", "known", "chosen"),
    [
        ([], [], Chosen()),
        ([4], [], Chosen()),
        ([4, 2], [], Chosen((4, 2), 3)),
        ([7, 4], [7], Chosen((7, 4), 3)),
        ([7, 3], [7, 3], Chosen()),
    ],
)
def test_one_trial_alone_is_not_confirmed(order: list[int], known: list[int], chosen: Chosen) -> None:
    """There would be nothing to compare it with. Baselines alone are no discovery."""
    assert choose(order, known, lambda trial: 1.0, 1e9) == chosen


def keys(suggestions: list[Suggestion]) -> list[tuple[int, int, int]]:
    return [(trial, rung, seed - FIRST_FRESH) for trial, rung, seed in (s.key for s in suggestions)]


def test_every_seed_climbs_the_rungs_and_seeds_go_round_the_trials() -> None:
    confirmation = Confirmation([a_trial(5), a_trial(2)], RUNGS, seeds=2)
    assert keys(confirmation.ask()) == [(5, 0, 0), (2, 0, 0), (5, 0, 1), (2, 0, 1)]
    order = []
    while suggestions := confirmation.ask():
        order += keys(suggestions[:1])
        confirmation.start(suggestions[0])
        confirmation.tell(suggestions[0], done(0.5))
    one = [(5, 0), (5, 1), (5, 2), (2, 0), (2, 1), (2, 2)]
    assert order == [(trial, rung, seed) for seed in (0, 1) for trial, rung in one]
    assert sorted(confirmation.on_top()) == [(2, 10), (2, 11), (5, 10), (5, 11)]


def test_a_suggestion_has_the_fidelity_of_its_rung_and_its_fresh_seed() -> None:
    confirmation = Confirmation([a_trial(5)], RUNGS, seeds=1)
    first = confirmation.ask()[0]
    assert first.fidelity == Fidelity(1, 32, 1.0, 10)
    assert [s.fidelity for s in confirmation.rest(first)] == [
        Fidelity(1, 32, 1.0, 10),
        Fidelity(3, 32, 1.0, 10),
        Fidelity(9, 64, 0.5, 10),
    ]
    confirmation.tell(first, done(0.5))
    assert [s.rung for s in confirmation.rest(confirmation.ask()[0])] == [1, 2]


def test_what_runs_is_not_suggested_and_what_failed_is_not_repeated() -> None:
    confirmation = Confirmation([a_trial(5), a_trial(2)], RUNGS, seeds=1)
    first, second = confirmation.ask()
    confirmation.start(first)
    assert keys(confirmation.ask()) == [(2, 0, 0)]
    confirmation.start(second)
    assert confirmation.ask() == []
    confirmation.tell(first, failure(Cause.OOM, "too large"))
    confirmation.tell(second, done(0.5))
    assert keys(confirmation.ask()) == [(2, 1, 0)]
    assert confirmation.on_top() == []


def test_further_seeds_follow_where_they_are_allowed() -> None:
    confirmation = Confirmation([a_trial(5), a_trial(2)], RUNGS[:1], seeds=1, most_seeds=3)
    for suggestion in confirmation.ask()[:2]:
        confirmation.tell(suggestion, done(0.5))
    assert keys(confirmation.ask()) == [(5, 0, 1), (2, 0, 1), (5, 0, 2), (2, 0, 2)]
