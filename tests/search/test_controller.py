"""The controller on chains whose accuracy is known, with results in any order."""

from __future__ import annotations

import functools
import itertools
import json
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from gpnas.graph.cost import deployed_cost
from gpnas.search import choice
from gpnas.search.acquisition import dominated_area
from gpnas.search.controller import BEST_TURN, Controller, Policy, Suggestion
from gpnas.search.gaussian_process import condition
from gpnas.search.ladder import Ladder, quota
from gpnas.search.limits import Limits
from gpnas.search.pareto import Point, ranked
from gpnas.search.pool import SIZE_RANGE, Proposal, large_macs
from gpnas.search.surrogate import Floats, Surrogate, start_kernel
from gpnas.search.trial import Candidate, Cause, Evaluation, Fidelity, Origin, Trial, TrialState, failure
from tests.grid import GridSpace, true_ap

LADDER = Ladder((Fidelity(1, 32), Fidelity(3, 32), Fidelity(9, 32)), wave=6)
LIMIT = 1e8
START = {"width": 20, "depth": 5}


def quick_fit(features: Floats, prior: Floats, scores: Floats, relative_noise: Floats) -> Surrogate:
    """`surrogate.fit` without the optimisation of the kernel's parameters, which takes nearly all of its time."""
    process = condition(start_kernel(features.shape[1]), features, scores, relative_noise)
    return Surrogate(process, 0.0, float(scores.max()), len(scores))


def a_controller(seed: int = 0, ladder: Ladder = LADDER, **changes: Any) -> Controller:
    options: dict[str, Any] = {"limits": Limits(), "imgsz": 32, "seed": seed, "pool": 60, "policy": Policy(fit=quick_fit)}
    return Controller(GridSpace(), ladder, **(options | changes))


def tell(controller: Controller, suggestion: Suggestion, ap: float | None = None) -> None:
    """Start an evaluation and report `ap`, or the truth."""
    controller.start(suggestion)
    ap = true_ap(suggestion.trial.candidate, suggestion.fidelity) if ap is None else ap
    controller.tell(suggestion, Evaluation(TrialState.COMPLETE, {"ap": ap}))


def run(controller: Controller, evaluations: int, order: random.Random | None = None) -> list[tuple[int, int]]:
    """Tell the truth `evaluations` times; returns (trial, rung) of each. `order` picks which open suggestion comes next."""
    evaluated = []
    for _ in range(evaluations):
        suggestions = controller.ask()
        if not suggestions:
            break
        suggestion = suggestions[order.randrange(len(suggestions)) if order else 0]
        evaluated.append((suggestion.trial.id, suggestion.rung))
        tell(controller, suggestion)
    return evaluated


def hashes(controller: Controller) -> list[str]:
    return [trial.candidate.hash for trial in controller.trials]


@functools.cache
def finished() -> tuple[Controller, list[tuple[int, int]]]:
    """A search of 40 evaluations, for tests that only look at it."""
    controller = a_controller()
    return controller, run(controller, 40)


def test_the_same_seed_asks_the_same_candidates_in_the_same_order() -> None:
    again, other = a_controller(), a_controller(4)
    assert run(again, 40) == finished()[1]
    run(other, 10)
    assert hashes(again) == hashes(finished()[0])
    assert hashes(other)[:6] != hashes(again)[:6]


def test_the_candidates_do_not_depend_on_the_order_in_which_results_come() -> None:
    for seed in range(3):
        shuffled = a_controller()
        run(shuffled, 40, random.Random(seed))
        both = min(len(finished()[0].trials), len(shuffled.trials))
        assert both >= 3 * LADDER.wave
        assert hashes(finished()[0])[:both] == hashes(shuffled)[:both]


def test_no_candidate_and_fidelity_is_suggested_twice() -> None:
    controller, evaluated = finished()
    assert len(evaluated) == len(set(evaluated)) == 40
    assert len(set(hashes(controller))) == len(controller.trials)


def best_third(controller: Controller, rung: int, known: list[tuple[int, int]]) -> list[int]:
    aps = {i: controller.results[i, rung, 0].metrics["ap"] for i, r in known if r == rung}
    points = [Point(i, ap, controller.trials[i].cost.macs) for i, ap in aps.items()]
    return [point.id for point in ranked(points)][: max(1, quota(rung, len(points)))]


def test_a_third_of_each_rung_climbs_and_the_best_are_among_them() -> None:
    """A trial climbs that is in the best third when a decision sees it. In the end, the ten seeds promote 4 to 6.5 of 12."""
    climbing = []
    for seed in range(10):
        controller = a_controller(seed, max_trials=12)
        evaluated = run(controller, 100)
        started = [{i for i, rung in evaluated if rung == r} for r in range(3)]
        assert len(started[0]) == 12 and 4 <= len(started[1]) < 12 and 1 <= len(started[2]) < len(started[1])
        aps = {i: controller.results[i, 0, 0].metrics["ap"] for i in range(12)}
        assert max(aps, key=lambda i: aps[i]) in started[1]
        climbing.append(len(started[1]))
        for number, (i, rung) in enumerate(evaluated):
            if rung:  # it was in the best third of the results that some decision may have known
                known = [evaluated[:count] for count in range(max(0, number - LADDER.pending), number + 1)]
                assert any(i in best_third(controller, rung - 1, results) for results in known)
    assert 4 <= sum(climbing) / 10 <= 6.5


def test_promotions_by_hand() -> None:
    """Six trials of equal MACs, none pending: 6 // 3 = 2 are promoted, of those round(2 / 3) = 1. The worse half is dropped."""
    controller = a_controller(ladder=Ladder(LADDER.fidelities, 6, 0), max_trials=6)
    controller.adopt([(json.dumps(START), Origin("sample"))] * 6)
    aps = (0.1, 0.6, 0.3, 0.5, 0.2, 0.4)
    evaluated = []
    while suggestions := controller.ask(1):
        evaluated.append((suggestions[0].trial.id, suggestions[0].rung))
        tell(controller, suggestions[0], aps[suggestions[0].trial.id])
    assert evaluated == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (1, 1), (3, 1), (1, 2)]
    assert controller.on_top() == {1}
    assert controller.promotable() == {3, 5}


def test_a_few_trials_still_climb_to_the_top() -> None:
    controller = a_controller(max_trials=2)
    assert [rung for _, rung in run(controller, 100)] == [0, 0, 1, 2]
    assert controller.ask() == []


def test_workers_need_not_wait_for_the_last_evaluations() -> None:
    """The seventh decision lacks the four results before it: with two results it can be made, with one it cannot."""
    controller = a_controller()
    run(controller, 1)
    suggestions = controller.ask()
    assert len(suggestions) == LADDER.wave - 1 == LADDER.pending + 1
    for suggestion in suggestions:
        controller.start(suggestion)
    assert controller.ask() == []
    ap = true_ap(suggestions[0].trial.candidate, suggestions[0].fidelity)
    controller.tell(suggestions[0], Evaluation(TrialState.COMPLETE, {"ap": ap}))
    assert len(controller.ask()) == 1


@pytest.mark.parametrize("warm_start", [False, True])
def test_a_run_that_is_resumed_adopts_its_candidates_and_decides_as_if_it_had_never_stopped(warm_start: bool) -> None:
    whole, first, second = (a_controller(warm_start=warm_start) for _ in range(3))
    run(whole, 26)
    run(first, 17)
    second.adopt([(trial.candidate.genotype, trial.origin) for trial in first.trials])
    run(second, 26)
    assert second.trials == whole.trials
    assert second.results == whole.results
    assert any(trial.lender is not None for trial in whole.trials) is warm_start


def test_an_adopted_trial_is_described_and_may_exceed_the_limits() -> None:
    controller = a_controller(limits=Limits(max_flops=1e6), describe=lambda candidate: {"length": len(candidate.hash)})
    controller.adopt([(json.dumps({"width": 64, "depth": 12}), Origin("cross", (3, 5)))])
    trial = controller.ask(1)[0].trial
    assert (trial.id, trial.candidate.hash, str(trial.origin), trial.lender) == (0, "w64d12", "cross 3 5", None)
    assert trial.features == {"length": 6}
    assert trial.cost == deployed_cost(trial.candidate.graph, 32)


def test_new_candidates_are_chosen_for_the_front_and_for_the_best_accuracy_in_turn() -> None:
    """Where accuracy grows a little with cost, area is to be gained among the small, the best accuracy among the large."""
    turns: dict[int, list[int]] = {0: [], 1: []}
    for seed in range(2):
        controller = a_controller(seed)
        for _ in range(40):
            suggestion = controller.ask()[0]
            tell(controller, suggestion, 0.3 + 0.01 * math.log2(suggestion.trial.cost.macs))
        for trial in controller.trials[LADDER.wave :]:
            turns[trial.id % BEST_TURN].append(trial.cost.macs)
    assert min(map(len, turns.values())) > 10
    assert statistics.median(turns[BEST_TURN - 1]) > 2 * statistics.median(turns[0])


def test_a_policy_may_choose_all_for_the_best_accuracy_or_none() -> None:
    medians = []
    for best_turn in (1, 10**9):
        controller = a_controller(policy=Policy(best_turn=best_turn, fit=quick_fit))
        for _ in range(24):
            suggestion = controller.ask()[0]
            tell(controller, suggestion, 0.3 + 0.01 * math.log2(suggestion.trial.cost.macs))
        medians.append(statistics.median(trial.cost.macs for trial in controller.trials[LADDER.wave :]))
    assert medians[0] > 2 * medians[1]


def dominated(candidates: list[Candidate]) -> float:
    points = [
        (true_ap(c, LADDER.fidelities[-1]), math.log2(max(deployed_cost(c.graph, 32).macs, LIMIT / 2 / SIZE_RANGE)))
        for c in candidates
    ]
    return dominated_area(points, 0.0, math.log2(LIMIT / 2) + 1)


def test_the_search_dominates_more_than_as_many_random_candidates() -> None:
    reached = []
    for seed in range(3):
        controller = a_controller(seed, max_trials=20, pool=150, limits=Limits(max_flops=LIMIT))
        run(controller, 100)
        reached.append(dominated([trial.candidate for trial in controller.trials]))
    chance = []
    for seed in range(60):
        rng = random.Random(seed)
        drawn = (GridSpace().propose([], rng) for _ in range(1000))
        feasible = (candidate for candidate in drawn if 2 * deployed_cost(candidate.graph, 32).macs <= LIMIT)
        chance.append(dominated(list(itertools.islice(feasible, 20))))
    assert min(reached) > sorted(chance)[54]


def test_the_worse_half_of_a_rung_does_not_climb_any_more() -> None:
    controller = finished()[0]
    kept, top = controller.promotable(), controller.on_top()
    assert top and not kept & top
    out = {trial.id for trial in controller.trials} - kept - top
    aps = {trial.id: controller.results[trial.id, 0, 0].metrics["ap"] for trial in controller.trials[:-5]}
    assert len(out) >= len(controller.trials) // 3
    assert max(aps, key=lambda i: aps[i]) not in out


def test_limits_are_hard_for_everything_that_is_suggested() -> None:
    limits = Limits(max_flops=4e6, max_params=20_000)
    controller = a_controller(limits=limits)
    run(controller, 30)
    assert len(controller.trials) >= 12
    assert all(limits.allows(deployed_cost(trial.candidate.graph, 32)) for trial in controller.trials)


def test_failed_trials_do_not_climb_and_do_not_stop_the_search() -> None:
    controller = a_controller()
    for suggestion in controller.ask():
        controller.start(suggestion)
        controller.tell(suggestion, failure(Cause.NAN, "loss is nan"))
    after = controller.ask()
    assert after and all(s.rung == 0 and s.trial.id >= LADDER.wave for s in after)
    assert controller.promotable() == {trial.id for trial in controller.trials[LADDER.wave :]}


def test_a_pruned_trial_may_be_promoted_later() -> None:
    controller = a_controller(max_trials=1)
    suggestion = controller.ask()[0]
    tell(controller, suggestion)
    promoted = controller.ask()[0]
    assert (promoted.trial.id, promoted.rung, promoted.fidelity) == (0, 1, LADDER.fidelities[1])
    controller.start(promoted)
    controller.tell(promoted, Evaluation(TrialState.PRUNED, message="no time"))
    assert controller.ask() == []
    assert controller.promotable() == {0}


def test_a_result_is_told_once() -> None:
    controller = a_controller()
    suggestion = controller.ask()[0]
    tell(controller, suggestion)
    with pytest.raises(ValueError, match="trial 0 was already told at rung 0"):
        controller.tell(suggestion, Evaluation(TrialState.COMPLETE, {"ap": 0.5}))


def test_nothing_is_suggested_beyond_the_budget_of_trials() -> None:
    controller = a_controller(max_trials=8)
    run(controller, 100)
    assert len(controller.trials) == 8
    assert controller.ask() == []


def test_a_search_ends_when_the_space_is_exhausted() -> None:
    """Nine chains meet the limit; those of four channels and 1 to 5 layers are reached by mutation from the smallest."""
    chains = [
        GridSpace().read(json.dumps({"width": width, "depth": depth})) for width in (4, 8, 12, 16, 20) for depth in range(1, 7)
    ]
    limits = Limits(max_flops=deployed_cost(chains[4].graph, 32).flops)
    feasible = {chain.hash for chain in chains if limits.allows(deployed_cost(chain.graph, 32))}
    controller = a_controller(limits=limits)
    run(controller, 100)
    assert controller.ask() == [] and len(controller.trials) == len(set(hashes(controller)))
    assert {f"w4d{depth}" for depth in range(1, 6)} <= set(hashes(controller)) <= feasible


def test_a_start_is_the_first_trial() -> None:
    start = GridSpace().read(json.dumps(START))
    for pool in (60, 2000):  # the larger one holds the start, as a sample
        trial = a_controller(start=start, pool=pool).ask()[0].trial
        assert (trial.candidate.hash, str(trial.origin)) == (start.hash, "start")


def test_a_start_beyond_the_limits_is_left_out() -> None:
    start = GridSpace().read(json.dumps(START))
    controller = a_controller(start=start, limits=Limits(max_flops=deployed_cost(start.graph, 32).flops - 1))
    assert "start" not in {str(suggestion.trial.origin) for suggestion in controller.ask()}


@pytest.mark.parametrize("with_start", [False, True])
def test_only_a_start_stays_a_parent_however_bad_it_is(with_start: bool) -> None:
    """The first trial is the largest of all and reaches nothing; it is adopted, or the start."""
    largest = GridSpace().read(json.dumps({"width": 64, "depth": 12}))
    controller = a_controller(start=largest if with_start else None)
    if not with_start:
        controller.adopt([(largest.genotype, Origin("sample"))])
    parents: list[set[int]] = []
    breed = controller._pool.breed

    def recording(chosen: Sequence[Trial], *rest: Any) -> list[Proposal]:
        parents.append({trial.id for trial in chosen})
        return breed(chosen, *rest)

    controller._pool.breed = recording  # type: ignore[assignment, method-assign]
    for _ in range(14):
        suggestion = controller.ask(1)[0]
        tell(controller, suggestion, 0.0 if suggestion.trial.id == 0 else None)
    assert len(parents) > 3 and {0 in ids for ids in parents[1:]} == {with_start}
    assert max(map(len, parents)) < len(controller.trials)


def test_a_start_among_the_best_is_a_parent_once() -> None:
    controller = a_controller(start=GridSpace().read(json.dumps(START)))
    parents: list[list[int]] = []
    breed = controller._pool.breed

    def recording(chosen: Sequence[Trial], *rest: Any) -> list[Proposal]:
        parents.append([trial.id for trial in chosen])
        return breed(chosen, *rest)

    controller._pool.breed = recording  # type: ignore[assignment, method-assign]
    for _ in range(12):
        suggestion = controller.ask(1)[0]
        tell(controller, suggestion, 0.9 if suggestion.trial.id == 0 else None)
    assert len(parents) > 2 and all(ids.count(0) == 1 for ids in parents)


def test_the_choice_is_given_what_the_decision_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six first trials, one failed, four reached an AP and one is running when the next is chosen."""
    calls: list[tuple[Any, ...]] = []

    def most_promising(
        proposals: Any, trained: Any, noise: Any, running: Any, *, large_macs: float, for_best: bool, fit: Any
    ) -> Proposal:
        assert noise == [1.0] * len(trained)
        calls.append(([(t.id, ap) for t, ap in trained], [t.id for t in running], large_macs, for_best, fit))
        chosen: Proposal = proposals[0]
        return chosen

    monkeypatch.setattr(choice, "most_promising", most_promising)
    controller = a_controller(ladder=Ladder(LADDER.fidelities, 6, 2))
    suggestions = controller.ask()
    for suggestion, ap in zip(suggestions[:4], (0.1, 0.5, 0.3, 0.2), strict=True):
        tell(controller, suggestion, ap)
    controller.start(suggestions[4])
    controller.tell(suggestions[4], failure(Cause.OOM, "too large"))
    controller.start(suggestions[5])
    assert [(s.trial.id, s.rung) for s in controller.ask()] == [(1, 1), (6, 0)]
    trained, running, large, for_best, fit = calls[0]
    assert trained == [(0, 0.1), (1, 0.5), (2, 0.3), (3, 0.2)]
    assert running == [5]
    assert large == large_macs(controller._pool.sampled)
    assert for_best is (6 % BEST_TURN == BEST_TURN - 1)
    assert fit is quick_fit


def test_the_pool_grows_with_each_new_trial_after_the_first() -> None:
    controller = a_controller()
    grown: list[int] = []
    sample = controller._pool.sample
    controller._pool.sample = lambda trials: (grown.append(trials), sample(trials))[1]  # type: ignore[func-returns-value, method-assign]
    run(controller, 16)
    new = len(controller.trials) - LADDER.wave
    assert new >= 3 and grown == [0, *range(1, new + 1)]


def test_a_decision_that_suggests_nothing_is_not_made_again_without_news(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = a_controller(max_trials=6)
    suggestions = controller.ask()
    for suggestion in suggestions:
        controller.start(suggestion)
    for suggestion in suggestions[:2]:
        controller.tell(suggestion, Evaluation(TrialState.COMPLETE, {"ap": 0.25}))
    assert controller.ask() == []
    monkeypatch.setattr(controller, "_decide", None)  # a call would fail
    assert controller.ask() == []


@pytest.mark.parametrize("with_start", [False, True])
def test_warm_children_start_from_weights_of_trials_that_started_from_scratch(with_start: bool) -> None:
    start = GridSpace().read(json.dumps(START)) if with_start else None
    controller, told = a_controller(1, warm_start=True, start=start), set()
    for _ in range(45):
        suggestion = controller.ask()[0]
        trial = suggestion.trial
        if trial.lender is not None:
            lender = controller.trials[trial.lender]
            assert lender.lender is None and (lender.id, 0) in told
            assert trial.origin.kind in ("mutate", "cross")
        # A warm start is worth more than any difference between candidates.
        tell(controller, suggestion, true_ap(trial.candidate, suggestion.fidelity) / 2 + 0.4 * (trial.lender is not None))
        told.add((trial.id, suggestion.rung))
    scratch = {trial.id for trial in controller.trials if trial.lender is None}
    warm = {trial.id for trial in controller.trials} - scratch
    assert len(warm) >= 3 and controller.lenders() == scratch
    climbed = {i for i, rung in told if rung == 1}
    assert climbed & scratch and climbed & warm  # each group by its own order
    assert not warm <= climbed


def test_without_a_warm_start_everyone_starts_from_scratch() -> None:
    controller = finished()[0]
    assert {trial.lender for trial in controller.trials} == {None} and controller.lenders() == set()


def test_no_more_is_decided_than_is_wanted() -> None:
    controller = a_controller()
    assert len(controller.ask(2)) == 2 == len(controller.trials)
    assert len(controller.ask(1)) == 2
    assert len(controller.ask()) == LADDER.wave


def test_a_higher_rung_permutes_the_accuracies_of_the_lowest() -> None:
    """On rung 0 trials 0, 1 and 2 reach .1, .5 and .3, on rung 1 trial 1 reaches less than trial 2: they change places."""
    controller = a_controller(max_trials=3)
    suggestions = controller.ask()
    for suggestion, ap in zip(suggestions, (0.1, 0.5, 0.3), strict=True):
        tell(controller, suggestion, ap)
    known = list(suggestions)
    for i, ap in ((1, 0.6), (2, 0.7)):
        suggestion = Suggestion(controller.trials[i], 1, LADDER.fidelities[1])
        tell(controller, suggestion, ap)
        known.append(suggestion)
    assert controller._comparable_aps(known) == {0: 0.1, 1: 0.3, 2: 0.5}


def test_an_outlier_does_not_make_every_other_size_count_as_smallest() -> None:
    """Without a limit the largest drawn chain has 25 times the median's MACs; the surrogate still tells sizes apart."""
    controller = a_controller(pool=150)
    run(controller, 40)
    sizes = sorted(trial.cost.macs for trial in controller.trials[LADDER.wave :])
    assert sizes[-1] > 8 * sizes[0]


def test_what_is_known_of_a_candidate_can_be_given() -> None:
    def describe(candidate: Candidate) -> Mapping[str, float]:
        return {"depth": json.loads(candidate.genotype)["depth"]}

    controller = a_controller(describe=describe)
    run(controller, 12)
    assert [trial.features for trial in controller.trials] == [describe(trial.candidate) for trial in controller.trials]


def test_the_fitted_kernel_is_used_by_default() -> None:
    controller = a_controller(policy=Policy())
    run(controller, 10)
    assert len(controller.trials) > LADDER.wave


def test_a_limit_that_few_samples_meet_is_reached_from_the_smallest() -> None:
    smallest = deployed_cost(GridSpace().smallest().graph, 32)
    controller = a_controller(limits=Limits(max_flops=1.5 * smallest.flops), pool=5)
    assert controller.ask()[0].trial.candidate.hash == "w4d1"


def test_fidelities_are_those_of_the_ladder() -> None:
    assert a_controller().fidelities == LADDER.fidelities


TWICE = Ladder((Fidelity(1, 32), Fidelity(2, 64), Fidelity(4, 96)), wave=6, seeds=2)


def test_second_seeds_climb_to_the_second_rung_and_then_the_best_of_them_go_on() -> None:
    """No second seed stays on the lowest rung, unless its trial is dropped, and none reaches the top. Who is on the top has two
    seeds on the second rung."""
    controller = a_controller(ladder=TWICE, max_trials=30)
    order = []
    while suggestions := controller.ask():
        order.append(suggestions[0].key)
        tell(controller, suggestions[0])
    second = {(i, rung) for i, rung, seed in order if seed == 1}
    assert {rung for _, rung in second} == {0, 1}
    low, middle = ({i for i, rung in second if rung == k} for k in (0, 1))
    assert middle and low - middle == low & controller._dropped - middle
    top = {i for i, rung, _ in order if rung == 2}
    assert top and top < {i for i, _ in second}
    for i in top:
        assert order.index((i, 1, 0)) < order.index((i, 0, 1)) < order.index((i, 1, 1)) < order.index((i, 2, 0))
    on_second = {i for i, rung, seed in order if (rung, seed) == (1, 0)}
    assert len(on_second) / 4 <= len(second) / 2 < len(on_second)


def test_a_second_seed_that_fails_or_runs_holds_nobody_up() -> None:
    controller = a_controller(ladder=TWICE, max_trials=20)
    failed: set[int] = set()
    while suggestions := controller.ask():
        suggestion = suggestions[0]
        if suggestion.fidelity.seed and not failed:
            controller.start(suggestion)
            failed.add(suggestion.trial.id)
            controller.tell(suggestion, failure(Cause.NAN, "loss is nan"))
        else:
            tell(controller, suggestion)
    assert failed and not any((i, 1, 1) in controller.results for i in failed)
    assert len(controller.trials) == 20 and controller.on_top()


def test_the_mean_of_two_seeds_ranks() -> None:
    """Trial 0 is best with its first seed, and worst with both."""
    controller = a_controller(ladder=TWICE, max_trials=6)
    while suggestions := controller.ask():
        suggestion = suggestions[0]
        i, _, seed = suggestion.key
        tell(controller, suggestion, (0.05 if seed else 0.9) if i == 0 else 0.5 + 0.01 * i)
    assert (0, 1, 1) in controller.results and (0, 2, 0) not in controller.results
    assert controller.on_top()


def test_the_mean_of_two_seeds_counts_as_half_as_noisy() -> None:
    """Trial 1 has two seeds on its highest rung, trial 2 two on a lower one, trial 0 one everywhere."""
    controller = a_controller(ladder=TWICE)
    trials = {s.trial.id: s.trial for s in controller.ask()}
    known = []
    for i, rung, seed in [(1, 0, 0), (2, 0, 0), (0, 0, 0), (1, 1, 0), (2, 0, 1), (1, 0, 1), (2, 1, 0), (1, 1, 1)]:
        known.append(Suggestion(trials[i], rung, replace(TWICE.fidelities[rung], seed=seed)))
        controller.tell(known[-1], Evaluation(TrialState.COMPLETE, {"ap": 0.1 * (i + 1)}))
    assert controller._relative_noise(known) == {0: 1.0, 1: 0.5, 2: 1.0}


def blind_search(low: str) -> Controller:
    """A search of 24 trials whose AP on the second rung is that of their number; on the lowest it is "alike" or "opposite"."""
    controller = a_controller(max_trials=24)
    while suggestions := controller.ask():
        i, rung, _ = suggestions[0].key
        worth = 0.3 + 0.01 * (7 * i % 24)
        tell(controller, suggestions[0], worth if rung or low == "alike" else 0.9 - worth)
    return controller


def test_a_lowest_rung_that_tells_nothing_promotes_everybody() -> None:
    """From the eighth promotion on. Until then a third is promoted, and the worse half is dropped."""
    told, blind = ({i for i in range(24) if (i, 1, 0) in blind_search(low).results} for low in ("alike", "opposite"))
    assert not set(range(18, 24)) <= told
    assert set(range(18, 24)) <= blind


def test_fewer_rungs_are_used_from_a_decision_on_and_a_resumed_search_knows_it() -> None:
    controller = a_controller(max_trials=18)
    evaluated = run(controller, 9)
    decision = controller.use_rungs(2)
    assert controller.fidelities == LADDER.fidelities[:2]
    evaluated += run(controller, 100)
    assert {rung for _, rung in evaluated[9:]} == {0, 1}
    again = a_controller(max_trials=18)
    again.adopt([(t.candidate.genotype, t.origin) for t in controller.trials], [(decision, 2)])
    assert again.fidelities == LADDER.fidelities
    assert sorted(run(again, 200)) == sorted(evaluated)


def test_near_its_limits_a_search_chooses_and_promotes_by_ap_alone() -> None:
    """Every fifth new trial may be of any size, the others cost at least the limit divided by 1.4."""
    limits = Limits(max_flops=2e8)
    controller = a_controller(limits=limits, pool=300, near_limits=True, max_trials=14)
    while suggestions := controller.ask():
        tell(controller, suggestions[0])
    near = [limits.nearly_met(trial.cost) for trial in controller.trials]
    assert all(near[:6]) and all(near[i] for i in range(6, 14) if i % 5 != 4)
    points = [Point(0, 0.2, 5.0), Point(1, 0.4, 9.0), Point(2, 0.3, 10.0)]
    assert [p.id for p in controller.best_first(points)] == [1, 2, 0]
    assert [p.id for p in a_controller().best_first(points)] == [1, 0, 2]
