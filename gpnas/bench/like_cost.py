"""Rank correlation of predictors with accuracy among candidates of like cost, with permutation tests and Holm's correction.

    groups = like_groups(macs)                                  # LIKE candidates of neighbouring cost in each
    results = correlate_within({"score": score, "longest": longest}, ap, groups)
    results["score"].spearman, results["score"].holm

A predictor that only measures size tells nothing here: within a group, all candidates cost about the same. With one group that
holds all candidates, these are the usual correlations. Where a family of candidates is a group, and its members differ in cost,
`less_cost` takes away what cost explains.

The test permutes the accuracies of the candidates of each group (`PERMUTATIONS` times) and asks how often chance reaches the
Spearman that was measured, with either sign. Each row must be one independent candidate: an architecture that was trained at
several image sizes is one row. Holm's correction (Holm 1979) is for the number of predictors that are asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Groups = NDArray[np.int64]
"""(candidates,): the number of the group of each candidate."""

LIKE = 8
"""Candidates of neighbouring cost that are compared with each other."""

FEWEST_FITTED = 6
"""A parabola has three parameters; so many candidates leave as many degrees of freedom."""

PERMUTATIONS, BATCH = 20_000, 1000
"""All, and those that are made at a time."""

ROUNDING = 1e-9
"""Two sums of the same products in another order may differ by this share."""


@dataclass(frozen=True)
class WithinGroups:
    """Of one predictor, over all pairs of candidates of one group; NaN where the predictor or the accuracy is constant in every
    group.

    spearman: correlation of the ranks within the groups. kendall: tau-b over the pairs. p: two-sided, by permutation. holm: the
    same, corrected.
    """

    spearman: float
    kendall: float
    p: float
    holm: float


@dataclass(frozen=True)
class Replicated:
    """Of one predictor: over all candidates, over the half on which forms of a score are chosen, and over the other half."""

    whole: WithinGroups
    first: WithinGroups
    other: WithinGroups


def one_group(count: int) -> Groups:
    """All candidates are compared with each other."""
    return np.zeros(count, dtype=np.int64)


def like_groups(costs: Sequence[float] | Floats) -> Groups:
    """Groups of LIKE candidates with neighbouring costs, from the cheapest on. The last group takes up to LIKE - 1 more."""
    order = np.argsort(np.asarray(costs, dtype=np.float64), kind="stable")
    last = max(1, len(order) // LIKE) - 1
    groups = np.empty(len(order), dtype=np.int64)
    groups[order] = np.minimum(np.arange(len(order)) // LIKE, last)
    return groups


def less_cost(
    values: Floats,  # (candidates,)
    costs: Floats,  # (candidates,), positive
    groups: Groups,
) -> Floats:
    """(candidates,): the residuals of a parabola in log cost that is fitted to each group.

    The values of a group with fewer than FEWEST_FITTED members become 0, which makes them ties.
    """
    residuals = np.zeros(len(values))
    for group in np.unique(groups):
        own = groups == group
        if own.sum() < FEWEST_FITTED:
            continue
        logs = np.log(costs[own])
        powers = np.column_stack([(logs - logs.mean()) ** k for k in range(3)])
        fitted = powers @ np.linalg.lstsq(powers, values[own], rcond=None)[0]
        # What the parabola explains in full must become ties, not the noise of rounding.
        tie = ROUNDING * max(1.0, float(np.abs(values[own]).max()))
        residuals[own] = np.round((values[own] - fitted) / tie) * tie
    return residuals


def correlate_within(
    predictors: Mapping[str, Floats],  # (candidates,) each
    accuracy: Floats,  # (candidates,)
    groups: Groups,
    seed: int = 0,
) -> dict[str, WithinGroups]:
    """The correlations of each predictor. Predictors that are constant in every group are not counted by Holm's correction."""
    aps = _centred_ranks(accuracy, groups)
    columns = np.column_stack([_centred_ranks(values, groups) for values in predictors.values()])
    norms = np.sqrt((columns**2).sum(axis=0) * (aps**2).sum())  # (predictors,)
    asked = norms > 0
    spearman = np.full(len(norms), np.nan)
    spearman[asked] = (aps @ columns)[asked] / norms[asked]
    reached = np.zeros(len(norms))
    rng = np.random.default_rng(seed)
    least = np.abs(aps @ columns) * (1 - ROUNDING)
    for _ in range(PERMUTATIONS // BATCH):
        reached += (np.abs(_permuted(aps, groups, rng) @ columns) >= least).sum(axis=0)
    p = np.where(asked, (1 + reached) / (1 + PERMUTATIONS), np.nan)
    corrected = np.full(len(norms), np.nan)
    corrected[asked] = holm(p[asked])
    return {
        name: WithinGroups(float(spearman[k]), kendall_within(values, accuracy, groups), float(p[k]), float(corrected[k]))
        for k, (name, values) in enumerate(predictors.items())
    }


def replicated(
    predictors: Mapping[str, Floats],  # (candidates,) each
    accuracy: Floats,  # (candidates,)
    groups: Groups,
    in_first_half: NDArray[np.bool_],  # (candidates,)
) -> dict[str, Replicated]:
    """`correlate_within` over all candidates and over each half, with the same groups."""
    judged = [
        correlate_within({name: values[part] for name, values in predictors.items()}, accuracy[part], groups[part])
        for part in (np.ones(len(accuracy), dtype=bool), in_first_half, ~in_first_half)
    ]
    return {name: Replicated(*(results[name] for results in judged)) for name in predictors}


def kendall_within(values: Floats, accuracy: Floats, groups: Groups) -> float:
    """Kendall's tau-b over all pairs of candidates of one group; NaN where all pairs are tied in one of the two."""
    first, second = np.triu_indices(len(values), k=1)
    same = groups[first] == groups[second]
    first, second = first[same], second[same]
    ranks, aps = rankdata(values), rankdata(accuracy)  # minus infinity is a valid value, and its differences are not
    by_value, by_ap = np.sign(ranks[first] - ranks[second]), np.sign(aps[first] - aps[second])
    scale = np.sqrt((by_value**2).sum() * (by_ap**2).sum())
    return float((by_value * by_ap).sum() / scale) if scale else float("nan")


def holm(p_values: Floats) -> Floats:
    """(n,): p-values corrected for n questions (Holm 1979): the k-th smallest of them times n - k + 1, none below a smaller
    one's, at most 1."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(p_values[order] * factors))
    return corrected


def _centred_ranks(values: Floats, groups: Groups) -> Floats:
    """(candidates,): the rank of each value within its group, less the mean of the group."""
    ranks = np.empty(len(values))
    for group in np.unique(groups):
        own = groups == group
        ranks[own] = rankdata(values[own]) - (own.sum() + 1) / 2
    return ranks


def _permuted(values: Floats, groups: Groups, rng: np.random.Generator) -> Floats:
    """(BATCH, candidates): `values`, permuted within each group."""
    positions = np.argsort(groups, kind="stable")  # group by group
    drawn = np.argsort(groups + rng.random((BATCH, len(values))), axis=1)  # group by group, each in random order
    permuted = np.empty(drawn.shape)
    permuted[:, positions] = values[drawn]
    return permuted
