"""The choice of a new candidate: the one whose training is expected to gain most.

A surrogate (surrogate.py) learns from the finished trials and predicts the accuracy of every proposal of the pool. Its prior is
the detector score (gpnas/paths/score.py), where the candidates have one. The choice
is the proposal with the largest expected growth of the area that measured trials dominate between accuracy and log MACs or,
when it is `for_best`, with the largest expected improvement of the best accuracy (acquisition.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import itemgetter

import numpy as np

from gpnas.search.acquisition import log_expected_hypervolume_improvement, log_expected_improvement
from gpnas.search.pool import SIZE_RANGE, Proposal
from gpnas.search.surrogate import PRIOR_SLOPE, Floats, Surrogate, head_start, normal_scores, ranks
from gpnas.search.surrogate import fit as fit_surrogate
from gpnas.search.trial import DETECTOR_SCORE, Trial

EQUAL = 1e-9
"""Expected gains that differ by less than this share are equal: candidates with the same features differ by rounding alone."""

SLOPE = 0.6
"""Slope of normal scores of AP over the ranks of the prior, the detector score, that is assumed before there are trials. It is
near their Spearman on the first 100 detectors of GP-Bench (digits). There searches with .9 were as good, and those with .3 a
little worse. Candidates without a detector score, such as cells, have no prior."""

Fit = Callable[[Floats, Floats, Floats, Floats], Surrogate]
"""Learns a surrogate from features, prior, scores and relative noise, as `surrogate.fit` does."""


def most_promising(
    proposals: Sequence[Proposal],
    trained: Sequence[tuple[Trial, float]],  # with the AP that each reached, comparable among those with and without a lender
    relative_noise: Sequence[float],  # noise variance of each AP, in any unit
    running: Sequence[Trial],  # no AP yet: each counts as if it will reach the AP that is predicted for it
    *,
    large_macs: float,  # on one image; costs count from large_macs / SIZE_RANGE up
    for_best: bool,
    fit: Fit = fit_surrogate,
) -> Proposal:
    """The proposal with the largest expected gain; of equal ones that with the first hash."""
    trials = [trial for trial, _ in trained]
    rows: list[Trial | Proposal] = [*trials, *running, *proposals]
    n, m = len(trials), len(trials) + len(running)
    read = itemgetter(*rows[0].features)
    features = ranks(np.array([read(row.features) for row in rows], dtype=np.float64).reshape(len(rows), -1))
    names = list(rows[0].features)
    # The surrogate assumes PRIOR_SLOPE for each unit of a prior.
    prior = features[:, names.index(DETECTOR_SCORE)] * (SLOPE / PRIOR_SLOPE) if DETECTOR_SCORE in names else np.zeros(len(rows))
    costs = np.array([math.log2(row.cost.macs) for row in rows])
    costs = np.maximum(costs, math.log2(large_macs) - math.log2(SIZE_RANGE))

    scores = normal_scores(np.array([ap for _, ap in trained]))
    warm = np.array([trial.lender is not None for trial in trials])
    if warm.any():
        scores[warm] -= head_start(features[:n], warm, scores)
    model = fit(features[:n], prior[:n], scores, np.array(relative_noise))
    if running:
        expected, _ = model.predict(features[n:m], prior[n:m])
        model = model.believing(features[n:m])
        scores = np.concatenate([scores, expected])
    mean, deviation = model.predict(features[m:], prior[m:])
    if for_best:
        log_gain = log_expected_improvement(mean, deviation, float(scores.max()))
    else:
        measured = list(zip(scores.tolist(), costs[:m].tolist(), strict=True))
        reference = max(math.log2(large_macs), float(costs.max())) + 1  # twice the MACs: the largest still gain some area
        floor = float(scores.min())
        log_gain = log_expected_hypervolume_improvement(mean, deviation, costs[m:], measured, floor, reference)
    least = float(log_gain.max()) - EQUAL
    return min((p for p, value in zip(proposals, log_gain, strict=True) if value >= least), key=lambda p: p.hash)
