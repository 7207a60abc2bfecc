import itertools
import json
import math
import random
import statistics

import pytest

from gpnas.errors import LimitError
from gpnas.graph.cost import Cost, deployed_cost
from gpnas.search.acquisition import dominated_area
from gpnas.search.controller import Controller
from gpnas.search.ladder import Ladder, quota
from gpnas.search.limits import Limits, check_limits, typical_macs
from gpnas.search.pareto import Point, ranked
from gpnas.search.pool import SIZE_RANGE, Proposal, spread_by_size
from gpnas.search.trial import Cause, Evaluation, Fidelity, Origin, TrialState, failure
from tests.grid import GridSpace, true_ap

LADDER = Ladder((Fidelity(1, 32), Fidelity(3, 32), Fidelity(9, 32)), wave=6)
LIMIT = 1e8


def a_controller(seed=0, **changes):
    options = {"limits": Limits(), "imgsz": 32, "seed": seed, "pool": 60} | changes
    limits = options.pop("limits")
    return Controller(GridSpace(), LADDER, limits, **options)


def run(controller, evaluations, order=None):
    """Tell the truth `evaluations` times; `order` picks which open suggestion is done next."""
    asked = []
    for _ in range(evaluations):
        suggestions = controller.ask()
        if not suggestions:
            break
        suggestion = suggestions[order.randrange(len(suggestions)) if order else 0]
        controller.start(suggestion)
        asked.append((suggestion.trial.id, suggestion.rung))
        ap = true_ap(suggestion.trial.candidate, suggestion.fidelity)
        controller.tell(suggestion.trial, suggestion.rung, Evaluation(TrialState.COMPLETE, {"ap": ap}))
    return asked


def test_the_same_seed_asks_the_same_candidates_in_the_same_order():
    first, second, other = a_controller(3), a_controller(3), a_controller(4)
    assert run(first, 30) == run(second, 30)
    run(other, 30)
    hashes = [[t.candidate.hash for t in c.trials] for c in (first, second, other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_candidates_do_not_depend_on_the_order_in_which_results_come():
    straight = a_controller()
    run(straight, 40)
    for seed in range(5):
        shuffled = a_controller()
        run(shuffled, 40, random.Random(seed))
        both = min(len(straight.trials), len(shuffled.trials))
        assert both >= 3 * LADDER.wave
        assert [t.candidate.hash for t in straight.trials[:both]] == [t.candidate.hash for t in shuffled.trials[:both]]


def test_no_candidate_and_fidelity_is_suggested_twice():
    controller = a_controller()
    asked = run(controller, 80)
    assert len(asked) == len(set(asked)) == 80
    hashes = [t.candidate.hash for t in controller.trials]
    assert len(hashes) == len(set(hashes))


def test_a_third_of_each_rung_climbs_and_the_best_are_among_them():
    """A third, and those that were in the best third when a decision saw it: with ten seeds half more, not twice as many."""
    climbing = []
    for seed in range(10):
        controller = a_controller(seed, max_trials=12)
        asked = run(controller, 100)
        started = [{i for i, rung in asked if rung == r} for r in range(3)]
        assert len(started[0]) == 12 and 4 <= len(started[1]) < 12 and 1 <= len(started[2]) < len(started[1])
        aps = {i: controller.results[i, 0].metrics["ap"] for i in range(12)}
        assert max(aps, key=aps.get) in started[1]
        climbing.append(len(started[1]))
        for number, (i, rung) in enumerate(asked):
            if rung:  # it was among the best third of what some decision here may know, or the best when nothing new is left
                seen = [asked[:known] for known in range(max(0, number - LADDER.pending), number + 1)]
                assert any(i in best_third(controller, rung - 1, known) for known in seen)
    assert 4 <= sum(climbing) / 10 <= 6.5


def best_third(controller, rung, known):
    points = [Point(i, controller.results[i, r].metrics["ap"], controller.trials[i].cost.macs) for i, r in known if r == rung]
    return [point.id for point in ranked(points)][: max(1, quota(rung, len(points)))]


def test_a_few_trials_still_climb_to_the_top():
    controller = a_controller(max_trials=2)
    assert [rung for _, rung in run(controller, 100)] == [0, 0, 1, 2]
    assert controller.ask() == []


def test_workers_need_not_wait_for_the_last_evaluations():
    """Of seven the last knows all but the four before it: with two results it can be asked, with one it cannot."""
    controller = a_controller()
    run(controller, 1)
    open_now = controller.ask()
    assert len(open_now) == LADDER.wave - 1 == LADDER.pending + 1
    for suggestion in open_now:
        controller.start(suggestion)
    assert controller.ask() == []
    first = open_now[0]
    ap = true_ap(first.trial.candidate, first.fidelity)
    controller.tell(first.trial, 0, Evaluation(TrialState.COMPLETE, {"ap": ap}))
    assert len(controller.ask()) == 1


def test_a_run_that_goes_on_adopts_its_candidates_and_decides_as_if_it_had_never_stopped():
    whole, first = a_controller(), a_controller()
    run(whole, 30)
    run(first, 17)
    second = a_controller()
    second.adopt([(trial.candidate.genotype, trial.origin) for trial in first.trials])
    run(second, 30)
    assert [(t.candidate.hash, t.origin) for t in second.trials] == [(t.candidate.hash, t.origin) for t in whole.trials]
    assert second.results == whole.results


def test_new_candidates_are_chosen_for_the_front_and_for_the_best_accuracy_in_turn():
    """Where accuracy grows a little with cost, the area is to be had among the small, the best among the large."""
    turns = {0: [], 1: []}
    for seed in range(4):
        controller = a_controller(seed)
        for _ in range(40):
            suggestion = controller.ask()[0]
            controller.start(suggestion)
            ap = 0.3 + 0.01 * math.log2(suggestion.trial.cost.macs)
            controller.tell(suggestion.trial, suggestion.rung, Evaluation(TrialState.COMPLETE, {"ap": ap}))
        for trial in controller.trials[LADDER.wave :]:
            turns[trial.id % 2].append(trial.cost.macs)
    assert min(len(of) for of in turns.values()) > 20
    assert statistics.median(turns[1]) > 2 * statistics.median(turns[0])


def dominated(candidates):
    points = [
        (true_ap(c, LADDER.fidelities[-1]), math.log2(max(deployed_cost(c.graph, 32).macs, LIMIT / 2 / SIZE_RANGE)))
        for c in candidates
    ]
    return dominated_area(points, 0.0, math.log2(LIMIT / 2) + 1)


def test_the_search_dominates_more_than_as_many_random_candidates():
    found = []
    for seed in range(5):
        controller = a_controller(seed, max_trials=20, pool=150, limits=Limits(max_flops=LIMIT))
        run(controller, 100)
        found.append(dominated([trial.candidate for trial in controller.trials]))
    chance = []
    for seed in range(100):
        rng = random.Random(seed)
        drawn = (GridSpace().propose([], rng) for _ in range(1000))
        feasible = (candidate for candidate in drawn if 2 * deployed_cost(candidate.graph, 32).macs <= LIMIT)
        chance.append(dominated(list(itertools.islice(feasible, 20))))
    assert min(found) > sorted(chance)[90]


def test_the_worse_half_of_a_rung_does_not_climb_any_more_and_loses_its_checkpoints():
    controller = a_controller()
    run(controller, 40)
    kept = controller.promotable()
    top = controller.on_top()
    assert top and not kept & top
    out = {trial.id for trial in controller.trials} - kept - top
    aps = {trial.id: controller.results[trial.id, 0].metrics["ap"] for trial in controller.trials[:-5]}
    assert len(out) >= len(controller.trials) // 3
    assert max(aps, key=aps.get) not in out


def test_limits_are_hard_for_everything_that_is_suggested():
    limits = Limits(max_flops=4e6, max_params=20_000)
    controller = a_controller(limits=limits)
    run(controller, 40)
    assert len(controller.trials) >= 12
    for trial in controller.trials:
        cost = deployed_cost(trial.candidate.graph, 32)
        assert cost.flops <= 4e6 and cost.params <= 20_000


def test_failed_trials_do_not_climb_and_do_not_stop_the_search():
    controller = a_controller()
    for suggestion in controller.ask():
        controller.start(suggestion)
        controller.tell(suggestion.trial, 0, failure(Cause.NAN, "loss is nan"))
    after = controller.ask()
    assert after and all(s.rung == 0 and s.trial.id >= LADDER.wave for s in after)


def test_nothing_is_suggested_beyond_the_budget_of_trials():
    controller = a_controller(max_trials=8)
    run(controller, 100)
    assert len(controller.trials) == 8
    assert controller.ask() == []


def test_a_start_is_the_first_trial():
    start = GridSpace().read(json.dumps({"width": 20, "depth": 5}))
    for pool in (60, 2000):  # the larger one holds the start, as a sample
        assert a_controller(start=start, pool=pool).ask()[0].trial.candidate.hash == start.hash


@pytest.mark.parametrize("with_start", [False, True])
def test_children_start_from_the_weights_of_one_that_started_from_scratch_where_that_is_wished(with_start):
    start = GridSpace().read(json.dumps({"width": 20, "depth": 5})) if with_start else None
    for seed in range(3):
        controller, told = a_controller(seed, warm_start=True, start=start), set()
        for _ in range(60):
            suggestion = controller.ask()[0]
            trial = suggestion.trial
            if trial.lender is not None:
                lender = controller.trials[trial.lender]
                assert lender.lender is None and (lender.id, 0) in told
                assert trial.origin.kind in ("mutate", "cross")
            controller.start(suggestion)
            # A warm start is worth more than any difference between candidates.
            ap = true_ap(trial.candidate, suggestion.fidelity) / 2 + 0.4 * (trial.lender is not None)
            controller.tell(trial, suggestion.rung, Evaluation(TrialState.COMPLETE, {"ap": ap}))
            told.add((trial.id, suggestion.rung))
        scratch, warm = ({t.id for t in controller.trials if (t.lender is None) is of} for of in (True, False))
        assert len(warm) >= 3 and controller.lenders() == scratch
        climbed = {i for i, rung in told if rung == 1}
        assert climbed & scratch and climbed & warm  # each kind by its own order
        assert not warm <= climbed


def test_without_a_warm_start_everyone_starts_from_scratch():
    controller = a_controller()
    run(controller, 60)
    assert {trial.lender for trial in controller.trials} == {None} and controller.lenders() == set()


def test_a_warm_search_that_goes_on_decides_as_if_it_had_never_stopped():
    whole, first = a_controller(warm_start=True), a_controller(warm_start=True)
    run(whole, 40)
    run(first, 23)
    second = a_controller(warm_start=True)
    second.adopt([(trial.candidate.genotype, trial.origin) for trial in first.trials])
    run(second, 40)
    assert [(t.candidate.hash, t.lender) for t in second.trials] == [(t.candidate.hash, t.lender) for t in whole.trials]


def test_no_more_is_decided_than_is_wanted():
    controller = a_controller()
    assert len(controller.ask(2)) == 2 == len(controller.trials)
    assert len(controller.ask(1)) == 2
    assert len(controller.ask()) == LADDER.wave


def test_an_outlier_does_not_make_every_other_size_count_as_smallest():
    """Without a limit the largest drawn chain has 25 times the median's MACs; the surrogate still tells sizes apart."""
    controller = a_controller(pool=150)
    run(controller, 40)
    sizes = sorted(trial.cost.macs for trial in controller.trials[LADDER.wave :])
    assert sizes[-1] > 8 * sizes[0]


def test_the_first_candidates_spread_over_sizes_and_are_drawn_by_the_seed():
    """Five chains of one depth at each of 2, 4, 8 and 16 units of MACs, all of them in the pool of every seed."""
    pool = [
        Proposal("{}", f"{size}-{k}", Origin("sample"), Cost(1, size * 1_000_000 + k, 1), {})
        for size in (2, 4, 8, 16)
        for k in range(5)
    ]
    drawn = [[p.hash for p in spread_by_size(pool, 4, None, random.Random(seed))] for seed in (0, 0, 1, 2)]
    assert all([name.split("-")[0] for name in names] == ["16", "8", "4", "2"] for names in drawn)
    assert drawn[0] == drawn[1] and len(set(map(tuple, drawn))) == 3
    start = Proposal("{}", "start", Origin("start"), Cost(1, 5_000_000, 1), {})
    assert [p.hash.split("-")[0] for p in spread_by_size(pool, 3, start, random.Random(0))] == ["start", "16", "2"]


def test_a_limit_that_few_samples_meet_is_reached_from_the_smallest():
    smallest = deployed_cost(GridSpace().smallest().graph, 32)
    controller = a_controller(limits=Limits(max_flops=1.5 * smallest.flops), pool=5)
    assert controller.ask()[0].trial.candidate.hash == "w4d1"


def test_an_impossible_limit_names_the_smallest_architecture():
    with pytest.raises(LimitError, match=r"--max-flops 1: nothing in the space is that small; .*\(w4d1\)"):
        check_limits(GridSpace(), Limits(max_flops=1), 32)
    check_limits(GridSpace(), Limits(max_flops=1e9), 32)


def test_typical_macs_lie_within_the_limits():
    limits = Limits(max_flops=1e7)
    assert 0 < 2 * typical_macs(GridSpace(), limits, 32, seed=0) <= 1e7
