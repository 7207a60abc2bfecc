"""Limits at and around their bounds."""

from __future__ import annotations

import random
import statistics

import pytest

from gpnas.errors import LimitError
from gpnas.graph.cost import Cost, deployed_cost
from gpnas.search.limits import Limits, check_limits, typical_macs
from tests.grid import GridSpace


def test_limits_are_inclusive() -> None:
    limits = Limits(max_flops=200, max_params=50)  # 100 MACs
    assert limits.allows(Cost(50, 100, 0))
    assert not limits.allows(Cost(51, 100, 0))
    assert not limits.allows(Cost(50, 101, 0))
    assert Limits(max_params=50).allows(Cost(50, 10**12, 0))
    assert Limits(max_flops=200).allows(Cost(10**12, 100, 0))
    assert Limits().allows(Cost(10**12, 10**15, 0))


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (Limits(max_flops=1, max_params=1e9), "^--max-flops 1: nothing"),
        (Limits(max_flops=1e9, max_params=2), "^--max-params 2: nothing"),
        (Limits(max_flops=1, max_params=2), "^--max-flops 1 and --max-params 2: nothing"),
        (Limits(max_params=2), "^--max-params 2: nothing"),
    ],
)
def test_an_impossible_limit_names_the_smallest_architecture(limits: Limits, named: str) -> None:
    """The smallest chain: 3x3 from 3 to 4 channels, 1x1 from 4 to 4; 108 + 4 and 16 + 4 parameters, 124 MACs a pixel."""
    with pytest.raises(LimitError, match=named) as error:
        check_limits(GridSpace(), limits, 320)
    assert r"its smallest architecture (w4d1) has 0.025G FLOPs at 320 pixels and 0.000M parameters" in str(error.value)


def test_a_limit_that_the_smallest_just_meets_is_not_named() -> None:
    cost = deployed_cost(GridSpace().smallest().graph, 64)
    with pytest.raises(LimitError, match=r"^--max-params 2: nothing"):
        check_limits(GridSpace(), Limits(max_flops=cost.flops, max_params=2), 64)
    with pytest.raises(LimitError, match=r"^--max-flops 1: nothing"):
        check_limits(GridSpace(), Limits(max_flops=1, max_params=cost.params), 64)


def test_limits_that_only_the_smallest_meets_are_possible() -> None:
    cost = deployed_cost(GridSpace().smallest().graph, 64)
    check_limits(GridSpace(), Limits(max_flops=cost.flops, max_params=cost.params), 64)
    check_limits(GridSpace(), Limits(), 64)
    with pytest.raises(LimitError):
        check_limits(GridSpace(), Limits(max_flops=cost.flops - 1, max_params=cost.params), 64)


def test_typical_macs_are_the_median_of_samples_within_the_limits() -> None:
    """An odd number of the samples is within the limits, so that the median is one of them."""
    limits, rng = Limits(max_flops=1e8), random.Random("5/typical")
    costs = [deployed_cost(GridSpace().propose([], rng).graph, 64) for _ in range(41)]
    feasible = [cost.macs for cost in costs if cost.flops <= 1e8]
    assert len(feasible) % 2 == 1 and len(feasible) < 41
    assert typical_macs(GridSpace(), limits, 64, seed=5, samples=41) == statistics.median(feasible)


def test_typical_macs_are_those_of_the_smallest_when_no_sample_is_within_the_limits() -> None:
    assert typical_macs(GridSpace(), Limits(max_flops=1), 64, seed=0) == 124 * 64 * 64
