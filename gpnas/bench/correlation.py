"""How well features that need no training rank trained candidates: rank correlation, also at equal size, and regret.

Spearman's rho and Kendall's tau-b of every gradient-path figure, of the score, and of the controls (parameters, FLOPs, layers)
with each accuracy column of a benchmark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gpnas.paths.features import FEATURES

Floats = NDArray[np.float64]

SMALLEST_GROUP = 30
"""A group of candidates with equal parameters counts from this many members on."""

POOL, DRAWS = 1000, 200
"""Candidates in a draw, and draws, over which regret is averaged."""


@dataclass(frozen=True)
class Correlation:
    """Of one predictor with one accuracy column; NaN where either is constant.

    equal: see `at_equal_size`. regret: see `regret`.
    """

    spearman: float
    kendall: float
    equal: float
    regret: float


def correlate(
    values: Floats,  # (candidates,), of the predictor
    accuracy: Floats,  # (candidates,)
    parameters: Floats,  # (candidates,)
    seed: int = 0,
) -> Correlation:
    if np.ptp(values) == 0 or np.ptp(accuracy) == 0 or not np.isfinite(values).any():
        return Correlation(np.nan, np.nan, np.nan, np.nan)
    ranks = stats.rankdata(values)  # the score of a network without live layers is minus infinity, and ranks lowest
    spearman = float(stats.spearmanr(ranks, accuracy).statistic)
    kendall = float(stats.kendalltau(ranks, accuracy).statistic)
    return Correlation(spearman, kendall, at_equal_size(ranks, accuracy, parameters), regret(ranks, accuracy, seed))


def at_equal_size(values: Floats, accuracy: Floats, parameters: Floats) -> float:
    """Mean Spearman within groups of equal parameters, weighted by the sizes of the groups; NaN without groups.

    Groups with fewer than SMALLEST_GROUP members, and those in which `values` or `accuracy` is constant, are left out.
    """
    total = members = 0.0
    for size in np.unique(parameters):
        group = parameters == size
        count = int(group.sum())
        if count >= SMALLEST_GROUP and np.ptp(values[group]) > 0 and np.ptp(accuracy[group]) > 0:
            total += count * float(stats.spearmanr(values[group], accuracy[group]).statistic)
            members += count
    return total / members if members else float("nan")


def regret(values: Floats, accuracy: Floats, seed: int) -> float:
    """The accuracy lost by taking the candidate with the highest value among POOL drawn ones instead of the most accurate one.

    Mean over DRAWS draws, in the units of `accuracy`. Candidates that share the highest value count by their mean.
    """
    rng = np.random.default_rng(seed)
    size = min(POOL, len(values))
    losses = []
    for _ in range(DRAWS):
        drawn = rng.choice(len(values), size, replace=False)
        top = drawn[values[drawn] == values[drawn].max()]
        losses.append(accuracy[drawn].max() - accuracy[top].mean())
    return float(np.mean(losses))


def correlations(
    rows: Sequence[Mapping[str, float]], accuracies: Mapping[str, Floats], predictors: Iterable[str] = FEATURES
) -> dict[str, dict[str, Correlation]]:
    """{predictor: {accuracy column: Correlation}}. rows: the features of each candidate, by name."""
    parameters = np.array([row["parameters"] for row in rows])
    return {
        name: {
            column: correlate(np.array([row[name] for row in rows]), accuracy, parameters)
            for column, accuracy in accuracies.items()
        }
        for name in predictors
    }
