"""The candidates among which the controller chooses: sampled from the space, bred from trials, all within the limits.

Sampled candidates stay in the pool for the whole search, and it grows by GROWTH draws for each new trial. Under limits that few
samples meet, mutants of the space's smallest candidate join them. Children of good trials are bred for one decision. The seed
decides every draw: the same seed, limits and parents give the same pool. A search near its limits wants most candidates to cost
nearly what the limits allow; where few samples do, mutants of those that do, or of any samples, join the pool.
"""

from __future__ import annotations

import contextlib
import gc
import math
import random
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass

from gpnas.graph.cost import Cost
from gpnas.search.limits import Limits
from gpnas.search.trial import DETECTOR_SCORE, Candidate, Origin, Space, Trial

POOL = 10_000
"""Draws from the space in a whole search, at most."""

FIRST_POOL, GROWTH = 1000, 500
"""Draws from the space before the first decision, and for each new trial after the first ones."""

RARE = 4
"""When fewer than 1/RARE of the first draws are new and within the limits, mutants of the smallest candidate join the pool."""

BRED = 500
"""Children that are bred for one decision."""

SIZE_RANGE = 8.0
"""Candidates spread over this factor of MACs. Below the largest MACs / SIZE_RANGE a smaller candidate is not better."""

LIKE_SIZE = 1.25
"""Candidates whose MACs differ by less than this factor count as equal in size."""


@dataclass(frozen=True)
class Proposal:
    """A candidate of the pool. It holds no graph: a pool has thousands, and `Space.read` rebuilds the one that is chosen.

    cost: of its fused inference form on one image of the run's size. features: by name, as of a `Trial`.
    """

    genotype: str
    hash: str
    origin: Origin
    cost: Cost
    features: Mapping[str, float]


Pick = Callable[[Sequence[Proposal], Sequence[Proposal], random.Random], Proposal]
"""Picks one of several proposals of like size: (proposals, those that are chosen already, random numbers)."""


def pick_at_random(proposals: Sequence[Proposal], chosen: Sequence[Proposal], rng: random.Random) -> Proposal:
    """Any of them. docs/search.md compares other ways (`python benchmarks/controller_variants.py`)."""
    return rng.choice(proposals)


class Pool:
    """Proposals within the limits. `size` is POOL or, for small spaces and tests, less. near: make sure that enough of them
    come near the limits (`Limits.nearly_met`)."""

    def __init__(
        self,
        space: Space,
        limits: Limits,
        *,
        seed: int,
        size: int,
        describe: Callable[[Candidate], Mapping[str, float]],
        cost: Callable[[Candidate], Cost],  # of the fused inference form on one image of the run's size
        near: bool = False,
    ) -> None:
        self._space, self._limits, self._seed, self._size, self._near = space, limits, seed, size, near
        self._describe, self._cost = describe, cost
        self._sampled: dict[str, Proposal] = {}
        self._draws = 0

    @property
    def exhausted(self) -> bool:
        """Whether every candidate of the space has been sampled. Only a space with a length, a table, can be exhausted."""
        return isinstance(self._space, Sized) and len(self._sampled) == len(self._space)

    @property
    def sampled(self) -> list[Proposal]:
        """What has been sampled so far, without bred children."""
        return list(self._sampled.values())

    def sample(self, trials: int) -> list[Proposal]:
        """`sampled` after FIRST_POOL draws and GROWTH more for each of so many `trials`."""
        draws = min(self._size, FIRST_POOL + GROWTH * trials)
        while self._draws < draws:
            rng = random.Random(f"{self._seed}/sample/{self._draws}")
            self._add(self._sampled, self._space.propose([], rng), Origin("sample"))
            self._draws += 1
            few = len(self._sampled) < self._draws // RARE and not self.exhausted
            if self._draws == min(self._size, FIRST_POOL) and few:
                self._grow_from_smallest()
            if self._draws == min(self._size, FIRST_POOL) and self._near and not self.exhausted:
                self._grow_near_limits()
        return self.sampled

    def near(self, proposals: Iterable[Proposal]) -> list[Proposal]:
        """Those that come near the limits."""
        return [proposal for proposal in proposals if self._limits.nearly_met(proposal.cost)]

    def breed(self, parents: Sequence[Trial], lending: Container[int], rng: random.Random) -> list[Proposal]:
        """New children of `parents`: two mutants to one cross of two parents.

        A child whose first parent is one of the trials `lending` (ids) starts from that parent's weights; where the parent did
        not start from scratch itself, from those of the parent's lender.
        """
        children: dict[str, Proposal] = {}
        for k in range(min(BRED, self._size)):
            chosen = rng.sample(parents, 2) if k % 3 == 0 and len(parents) > 1 else [rng.choice(parents)]
            first = chosen[0]
            lender = (first.id if first.lender is None else first.lender) if first.id in lending else None
            origin = Origin("cross" if len(chosen) == 2 else "mutate", tuple(parent.id for parent in chosen), lender)
            self._add(children, self._space.propose([parent.candidate for parent in chosen], rng), origin)
        return list(children.values())

    def proposal(self, candidate: Candidate, origin: Origin) -> Proposal | None:
        """The candidate as a proposal; None when it exceeds a limit."""
        cost = self._cost(candidate)
        if not self._limits.allows(cost):
            return None
        return Proposal(candidate.genotype, candidate.hash, origin, cost, self._describe(candidate))

    def _grow_from_smallest(self) -> None:
        """Reach small candidates by mutation where limits are so tight that sampling rarely meets them."""
        rng = random.Random(f"{self._seed}/smallest")
        smallest = self._space.smallest()
        self._add(self._sampled, smallest, Origin("smallest"))
        family = [smallest, *(self._space.read(proposal.genotype) for proposal in self.sampled)]
        for _ in range(min(self._size, FIRST_POOL)):
            child = self._space.propose([rng.choice(family)], rng)
            if self._add(self._sampled, child, Origin("mutate smallest")):
                family.append(child)

    def _grow_near_limits(self) -> None:
        """Reach candidates near the limits by mutation, until as many of them are there as 1/RARE of the first draws.

        Of two possible parents the one with the higher detector score has a child.
        """
        rng = random.Random(f"{self._seed}/near")
        far, near = self.sampled, self.near(self.sampled)
        for _ in range(min(self._size, FIRST_POOL)):
            family = near or far
            if not family or len(near) >= min(self._size, FIRST_POOL) // RARE:
                break
            pair = rng.choice(family), rng.choice(family)
            parent = max(pair, key=lambda p: p.features.get(DETECTOR_SCORE, 0.0))
            child = self._space.propose([self._space.read(parent.genotype)], rng)
            if self._add(self._sampled, child, Origin("mutate sample")):
                near += self.near([self._sampled[child.hash]])

    def _add(self, proposals: dict[str, Proposal], candidate: Candidate, origin: Origin) -> bool:
        """Add a candidate to `proposals` (by hash) if it is new and within the limits; returns whether it was added."""
        if candidate.hash in proposals or candidate.hash in self._sampled:
            return False
        proposal = self.proposal(candidate, origin)
        if proposal is None:
            return False
        proposals[candidate.hash] = proposal
        return True


def large_macs(proposals: Iterable[Proposal]) -> int:
    """The 90th percentile of their MACs on one image. The largest tenth are outliers where no limit bounds the FLOPs."""
    macs = sorted(proposal.cost.macs for proposal in proposals)
    return macs[int(0.9 * (len(macs) - 1))]


def spread_by_size(
    proposals: Sequence[Proposal], count: int, given: Sequence[Proposal], rng: random.Random, pick: Pick = pick_at_random
) -> list[Proposal]:
    """`count` proposals: those that are `given`, then proposals whose MACs spread evenly on a logarithmic scale, largest first.

    The sizes reach from `large_macs` down to the smallest proposal, over a factor of SIZE_RANGE at most.
    """
    by_macs = sorted(proposals, key=lambda p: (p.cost.macs, p.hash))
    chosen = list(given[:count])
    if not by_macs:
        return chosen
    large = large_macs(by_macs)
    spread = min(SIZE_RANGE, max(LIKE_SIZE, large / by_macs[0].cost.macs))
    steps = count - len(chosen)
    for i in range(steps):
        target = large / spread ** (i / max(1, steps - 1)) / math.sqrt(LIKE_SIZE)
        taken = {p.hash for p in chosen}
        rest = [p for p in by_macs if p.hash not in taken]
        like = [p for p in rest if 1 / LIKE_SIZE < p.cost.macs / target < LIKE_SIZE]
        if like:
            chosen.append(pick(like, chosen, rng))
        elif rest:
            chosen.append(min(rest, key=lambda p: abs(math.log(p.cost.macs / target))))
    return chosen


@contextlib.contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Thousands of candidates hold no reference cycles. The collector would scan them over and over while they are made."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
