"""Limits at and around their bounds."""

from __future__ import annotations

import pytest

from gpnas.errors import LimitError
from gpnas.graph.cost import Cost, deployed_cost
from gpnas.search.limits import Limits, check_limits
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


@pytest.mark.parametrize(
    ("limits", "near"),
    [
        (Limits(), True),
        (Limits(max_flops=280), True),
        (Limits(max_flops=281), False),
        (Limits(max_params=70), True),
        (Limits(max_params=71), False),
        (Limits(max_flops=1000, max_params=60), True),
        (Limits(max_flops=1000, max_params=600), False),
    ],
)
def test_a_cost_is_near_when_a_limit_is_at_most_1_4_times_of_it(limits: Limits, near: bool) -> None:
    """100 MACs are 200 FLOPs: near 280. 50 parameters: near 70."""
    assert limits.nearly_met(Cost(macs=100, params=50, activation_bytes=0)) is near
