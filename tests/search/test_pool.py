"""The pool: what is drawn, bred and left out, and how sizes spread."""

from __future__ import annotations

import gc
import itertools
import json
import random
from collections.abc import Sequence

import pytest

from gpnas.graph.cost import Cost, deployed_cost
from gpnas.search import pool as pool_module
from gpnas.search.limits import Limits
from gpnas.search.pool import POOL, Pool, Proposal, garbage_collection_paused, large_macs, pick_at_random, spread_by_size
from gpnas.search.trial import Candidate, Origin, Space, Trial
from search_spaces.tabular import TabularSpace
from tests.grid import GridSpace, grid_candidate

NO_LIMITS = Limits()
SAMPLED = Origin("sample")


class Recording(GridSpace):
    """Every proposal is a different candidate; the parents of each are kept."""

    def __init__(self) -> None:
        self.parents: list[tuple[str, ...]] = []

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        self.parents.append(tuple(parent.hash for parent in parents))
        drawn = super().propose(parents, rng)
        return Candidate(drawn.genotype, f"{len(self.parents)}-{drawn.hash}", drawn.graph)


def a_pool(space: Space | None = None, *, limits: Limits = NO_LIMITS, seed: int = 0, size: int = 40) -> Pool:
    return Pool(
        space or GridSpace(),
        limits,
        seed=seed,
        size=size,
        describe=lambda c: {"depth": json.loads(c.genotype)["depth"]},
        cost=lambda c: deployed_cost(c.graph, 32),
    )


def a_trial(i: int, candidate: Candidate, origin: Origin = SAMPLED) -> Trial:
    return Trial(i, candidate, origin, {}, deployed_cost(candidate.graph, 32))


def test_the_pool_grows_with_the_trials_up_to_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "FIRST_POOL", 11)
    monkeypatch.setattr(pool_module, "GROWTH", 7)
    pool = a_pool(Recording())
    assert pool.sampled == []
    assert [len(pool.sample(trials)) for trials in (0, 0, 1, 3, 2, 4, 5, 100)] == [11, 11, 18, 32, 32, 39, 40, 40]
    assert len(a_pool(Recording(), size=5).sample(0)) == 5


class Same(GridSpace):
    """Samples one chain over and over."""

    def __init__(self) -> None:
        self.samples = 0

    def propose(self, parents: Sequence[Candidate], rng: random.Random) -> Candidate:
        self.samples += not parents
        return CHAIN


CHAIN = grid_candidate(8, 2)


def test_a_whole_search_samples_ten_thousand_times() -> None:
    """1000 times before the first decision, then 500 times for each of 18 trials."""
    space = Same()
    pool = a_pool(space, size=POOL)
    samples = []
    for trials in (0, 1, 17, 18, 19):
        pool.sample(trials)
        samples.append(space.samples)
    assert samples == [1000, 1500, 9500, 10_000, 10_000]


def test_the_same_seed_draws_the_same_whatever_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "FIRST_POOL", 11)
    monkeypatch.setattr(pool_module, "GROWTH", 7)
    at_once, in_steps, other = a_pool(seed=3), a_pool(seed=3), a_pool(seed=4)
    in_steps.sample(0)
    assert in_steps.sample(2) == at_once.sample(2) != other.sample(2)


def test_a_proposal_says_what_a_decision_needs() -> None:
    proposals = a_pool().sample(0)
    assert len({p.hash for p in proposals}) == len(proposals) > 20
    for proposal in proposals:
        candidate = GridSpace().read(proposal.genotype)
        assert (proposal.hash, proposal.origin) == (candidate.hash, Origin("sample"))
        assert proposal.cost == deployed_cost(candidate.graph, 32)
        assert proposal.features == {"depth": json.loads(candidate.genotype)["depth"]}


def test_what_exceeds_a_limit_is_left_out() -> None:
    limits = Limits(max_flops=1e8, max_params=80_000)
    within = {p.hash for p in a_pool().sample(0) if limits.allows(p.cost)}
    assert {p.hash for p in a_pool(limits=limits).sample(0)} == within
    assert 10 <= len(within) < len(a_pool().sample(0))  # at least a quarter of 40 draws
    large = grid_candidate(64, 12)
    assert a_pool(limits=limits).proposal(large, Origin("start")) is None
    proposal = a_pool().proposal(large, Origin("start"))
    assert proposal is not None and (proposal.hash, proposal.origin) == ("w64d12", Origin("start"))


def test_under_limits_that_few_samples_meet_mutants_of_the_smallest_join() -> None:
    """Mutation changes the depth by one: a family of the smallest reaches every depth of its width that the limit allows."""
    limits = Limits(max_flops=deployed_cost(grid_candidate(4, 6).graph, 32).flops)
    pool = a_pool(limits=limits)
    origins = {p.hash: str(p.origin) for p in pool.sample(0)}
    assert origins["w4d1"] in ("sample", "smallest")
    assert {f"w4d{depth}" for depth in range(1, 7)} <= set(origins)
    assert "mutate smallest" in origins.values()
    assert all(limits.allows(p.cost) for p in pool.sampled)


@pytest.mark.parametrize(("feasible", "grows"), [(9, True), (10, False)])
def test_few_are_fewer_than_a_quarter_of_the_draws(feasible: int, grows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = itertools.chain([True] * feasible, [False] * (40 - feasible), itertools.repeat(True))
    monkeypatch.setattr(Limits, "allows", lambda limits, cost: next(allowed))
    proposals = a_pool(Recording()).sample(0)
    kinds = [p.origin.kind for p in proposals]
    assert kinds == ["sample"] * feasible + grows * (["smallest"] + 40 * ["mutate smallest"])


def test_children_are_one_cross_to_two_mutants() -> None:
    space = Recording()
    parents = [a_trial(i, grid_candidate(width, depth)) for i, (width, depth) in enumerate([(8, 3), (24, 5), (40, 7)])]
    children = a_pool(space, size=13).breed(parents, (), random.Random(1))
    assert [child.origin.kind for child in children] == ["cross", "mutate", "mutate"] * 4 + ["cross"]
    for child, hashes in zip(children, space.parents, strict=True):
        assert tuple(parents[i].candidate.hash for i in child.origin.parents) == hashes
        assert len(set(child.origin.parents)) == len(hashes)
        assert child.origin.lender is None
    assert {child.origin.parents for child in children if child.origin.kind == "mutate"} == {(0,), (1,), (2,)}


def test_a_single_parent_is_only_mutated() -> None:
    children = a_pool(Recording(), size=7).breed([a_trial(5, grid_candidate(8, 3))], (), random.Random(0))
    assert [str(child.origin) for child in children] == 7 * ["mutate 5"]


def test_at_most_bred_children_are_bred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "BRED", 4)
    assert len(a_pool(Recording()).breed([a_trial(5, grid_candidate(8, 3))], (), random.Random(0))) == 4


def test_children_that_are_sampled_already_are_left_out() -> None:
    pool = a_pool(size=300)
    sampled = {p.hash for p in pool.sample(0)}
    parents = [a_trial(0, grid_candidate(8, 3)), a_trial(1, grid_candidate(64, 9))]
    without = {p.hash for p in a_pool(size=300).breed(parents, (), random.Random(0))}
    assert without & sampled
    assert {p.hash for p in pool.breed(parents, (), random.Random(0))} == without - sampled


def test_a_child_starts_from_weights_of_its_first_parent_or_of_that_one_s_lender() -> None:
    parents = [
        a_trial(2, grid_candidate(8, 3)),
        a_trial(3, grid_candidate(24, 5)),
        a_trial(4, grid_candidate(40, 7), Origin("mutate", (1,), 1)),
    ]
    children = a_pool(Recording(), size=40).breed(parents, {2, 4}, random.Random(0))
    lenders = {(child.origin.parents[0], child.origin.lender) for child in children}
    assert lenders == {(2, 2), (3, None), (4, 1)}


@pytest.mark.parametrize(("macs", "large"), [([7], 7), ([7, 9], 7), ([5, *range(10, 19), 99], 18), (range(20, 0, -1), 18)])
def test_large_macs_are_the_90th_percentile(macs: Sequence[int], large: int) -> None:
    assert large_macs(proposals_of(macs)) == large


def proposals_of(macs: Sequence[int]) -> list[Proposal]:
    return [Proposal("{}", f"{value}-{k}", Origin("sample"), Cost(1, value, 1), {}) for k, value in enumerate(macs)]


def sizes(proposals: Sequence[Proposal]) -> list[int]:
    return [proposal.cost.macs for proposal in proposals]


def test_the_first_candidates_spread_over_sizes_and_are_drawn_by_the_seed() -> None:
    """Five chains at each of 2, 4, 8 and 16 million MACs."""
    pool = proposals_of([size * 1_000_000 + k for size in (2, 4, 8, 16) for k in range(5)])
    drawn = [spread_by_size(pool, 4, (), random.Random(seed)) for seed in (0, 0, 1, 2)]
    assert all([macs // 1_000_000 for macs in sizes(chosen)] == [16, 8, 4, 2] for chosen in drawn)
    assert drawn[0] == drawn[1] and len({tuple(sizes(chosen)) for chosen in drawn}) == 3


def test_the_start_comes_first_and_takes_the_place_of_one() -> None:
    pool = proposals_of([2, 4, 8, 16])
    start = Proposal("{}", "start", Origin("start"), Cost(1, 5, 1), {})
    assert sizes(spread_by_size(pool, 3, [start], random.Random(0))) == [5, 8, 2]
    assert spread_by_size(pool, 1, [start], random.Random(0)) == [start]
    assert spread_by_size(pool, 0, [start], random.Random(0)) == []
    assert spread_by_size([], 3, [start], random.Random(0)) == [start]
    assert spread_by_size([], 3, (), random.Random(0)) == []


def test_the_nearest_size_is_taken_where_none_is_like_the_target() -> None:
    """The large MACs are 900; the targets 900, 900 / sqrt(8) and 900 / 8, each over sqrt(1.25): 805, 285 and 101."""
    pool = proposals_of([100, 160, *([900] * 20), 9000])
    assert sizes(spread_by_size(pool, 3, (), random.Random(0))) == [900, 160, 100]


def test_a_candidate_is_chosen_once_and_all_are_chosen_when_there_are_too_few() -> None:
    assert sorted(sizes(spread_by_size(proposals_of([10, 11, 12]), 5, (), random.Random(0)))) == [10, 11, 12]


def test_sizes_that_are_all_alike_are_drawn_without_repetition() -> None:
    chosen = spread_by_size(proposals_of(range(100, 110)), 6, (), random.Random(0))
    assert len({p.hash for p in chosen}) == 6


def test_sizes_reach_down_by_a_factor_of_eight_at_most() -> None:
    """The smallest of a hundred sizes from 1 to 2^14 that is chosen is near 1/8 of the largest, not near 1."""
    pool = proposals_of([round(2 ** (k / 7)) for k in range(99)])
    large = large_macs(pool)
    chosen = sizes(spread_by_size(pool, 4, (), random.Random(0)))
    for macs, target in zip(chosen, (large, large / 2, large / 4, large / 8), strict=True):
        assert target / 1.25**1.5 < macs < target * 1.25**0.5


def test_another_rule_may_pick_among_candidates_of_like_size() -> None:
    seen: list[tuple[list[int], list[int]]] = []

    def pick_last(proposals: Sequence[Proposal], chosen: Sequence[Proposal], rng: random.Random) -> Proposal:
        seen.append((sizes(proposals), sizes(chosen)))
        return proposals[-1]

    chosen = spread_by_size(proposals_of([20, 21, 22, 40, 41, 42]), 2, (), random.Random(0), pick_last)
    assert sizes(chosen) == [42, 22]
    assert seen == [([40, 41, 42], []), ([20, 21, 22], [42])]
    assert pick_at_random([chosen[0]], [], random.Random(0)) == chosen[0]


@pytest.mark.parametrize("was_on", [True, False])
def test_garbage_collection_is_paused_and_then_as_before(was_on: bool) -> None:
    def fail() -> None:
        with garbage_collection_paused():
            assert not gc.isenabled()
            raise RuntimeError("in the middle")

    try:
        if not was_on:
            gc.disable()
        with garbage_collection_paused():
            assert not gc.isenabled()
        assert gc.isenabled() is was_on
        with pytest.raises(RuntimeError, match="in the middle"):
            fail()
        assert gc.isenabled() is was_on
    finally:
        gc.enable()


def a_table(count: int) -> TabularSpace:
    sizes = list(itertools.product((4, 8, 12), (1, 2, 3)))[:count]
    return TabularSpace(
        [grid_candidate(width, depth) for width, depth in sizes], [{"width": width, "depth": depth} for width, depth in sizes]
    )


def test_a_table_is_exhausted_when_all_of_it_is_sampled_and_then_breeds_nothing() -> None:
    space = a_table(9)
    assert len(space) == 9
    pool = a_pool(space, size=200)
    pool.sample(0)
    assert pool.exhausted and len(pool.sampled) == 9
    parents = [a_trial(i, candidate) for i, candidate in enumerate(space.candidates[:4])]
    assert pool.breed(parents, (), random.Random(0)) == []
    few = a_pool(space, size=3)
    few.sample(0)
    assert not few.exhausted and few.breed(parents, (), random.Random(0)) != []


def test_what_the_limits_leave_out_and_a_space_without_a_length_never_exhaust() -> None:
    macs = sorted(deployed_cost(candidate.graph, 32).macs for candidate in a_table(9).candidates)
    pool = a_pool(a_table(9), limits=Limits(max_flops=2 * macs[4]), size=200)
    pool.sample(0)
    assert len(pool.sampled) == 5 and not pool.exhausted
    assert not a_pool(size=200).exhausted


def test_an_exhausted_table_does_not_grow_from_its_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TabularSpace, "smallest", None)  # a call would fail
    assert len(a_pool(a_table(9), size=200).sample(0)) == 9
