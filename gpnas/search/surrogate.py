"""The surrogate: it predicts accuracy, with uncertainty, from features known before training. It learns from few trials.

    features = ranks(columns)                              # all candidates, trained and not
    model = fit(features[trained], prior[trained], normal_scores(accuracy))
    mean, deviation = model.predict(features, prior)        # acquisition.py chooses by them

Each feature is replaced by its rank among the candidates, since only the order of gradient-path features matters. Accuracies
are replaced by normal scores, so that outliers do not stretch the scale. A Gaussian process with a linear kernel plus a
Matern 5/2 kernel, which has one length scale for all features, learns the normal scores (gaussian_process.py). A prior, such as
the score among cells, is scaled to the measurements; the process then learns the residuals.

The mean of two seeds counts as half as noisy as one training. Noise is the same at every level of accuracy, although AP itself
varies more between seeds where it is high: between normal scores that difference is gone (`benchmarks/gp_bench.py show`).
docs/surrogate.md compares other features and kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from gpnas.search.gaussian_process import Bounds, Kernel, Process, condition, most_likely
from gpnas.search.gaussian_process import Floats as Floats

PRIOR_STRENGTH = 20.0
"""The prior's slope is fitted as if this many trials, besides the real ones, had shown a slope of PRIOR_SLOPE."""

PRIOR_SLOPE = 0.9
"""Slope of normal scores over the prior that is assumed before there are trials."""

FEW = 5.0
"""A process whose kernel was fitted to n trials is overconfident; its deviations are widened by the factor 1 + FEW / n."""

BOUNDS: Bounds = ((0.01, 10), (0.5, 100), (1e-4, 10), (1e-3, 1))
"""Of the kernel's parameters: Matern variance, length, linear variance, noise. Scores have a variance near 1."""


def start_kernel(width: int) -> Kernel:
    """Where the search for the likeliest kernel of `width` features begins."""
    return Kernel(matern=0.3, length=math.sqrt(width), linear=0.1 / width, noise=0.1)


def ranks(columns: Floats) -> Floats:
    """(candidates, features): the rank of each value in its column, scaled so that a column of distinct values has mean 0 and
    a variance near 1. Equal values share their mean rank. Minus infinity is a valid value, the lowest."""
    ranked: Floats = rankdata(columns, axis=0)
    scaled: Floats = (ranked / (len(columns) + 1) - 0.5) * np.sqrt(12)
    return scaled


def normal_scores(values: Floats) -> Floats:
    """(n,): the standard normal quantile at rank / (n + 1) of each value. Equal values share their mean rank."""
    return np.asarray(ndtri(rankdata(values) / (len(values) + 1)), dtype=np.float64)


@dataclass(frozen=True)
class Surrogate:
    """slope: normal scores of accuracy for each unit of the prior. best: the largest normal score among the trained candidates.
    trained: how many those are."""

    process: Process
    slope: float
    best: float
    trained: int

    def predict(
        self,
        features: Floats,  # (n, features)
        prior: Floats,  # (n,)
    ) -> tuple[Floats, Floats]:
        """(n,) and (n,): mean and standard deviation, in normal scores of the trained candidates' accuracies."""
        mean, deviation = self.process.predict(features)
        return self.slope * prior + mean, deviation * (1 + FEW / self.trained)

    def believing(
        self,
        features: Floats,  # (n, features), of candidates that are being trained
    ) -> Surrogate:
        """The same surrogate after it has learnt its own means at `features` as if they were measured, with the same kernel
        (the "Kriging believer" of Ginsbourger et al. 2010). Choices then avoid twins of what is being trained."""
        known = self.process
        values = np.concatenate([known.values, known.mean(features)])
        noise = np.concatenate([known.relative_noise, np.ones(len(features))])
        process = condition(known.kernel, np.vstack([known.features, features]), values, noise)
        return replace(self, process=process)


def fit(
    features: Floats,  # (n, features), from `ranks`
    prior: Floats,  # (n,), from `ranks`; zeros for no prior
    scores: Floats,  # (n,), `normal_scores` of the accuracies
    relative_noise: Floats | None = None,  # (n,), noise variance of each score, up to a factor that is learnt; None: equal
) -> Surrogate:
    """Learn from trained candidates."""
    slope = float((prior @ scores + PRIOR_STRENGTH * PRIOR_SLOPE) / (prior @ prior + PRIOR_STRENGTH))
    residuals = scores - slope * prior
    kernel = most_likely(features, residuals, start_kernel(features.shape[1]), BOUNDS, relative_noise)
    process = condition(kernel, features, residuals, relative_noise)
    return Surrogate(process, slope, float(scores.max()), len(scores))


def head_start(
    features: Floats,  # (n, features)
    warm: NDArray[np.bool_],  # (n,): started from weights of another trial; at least one is True
    scores: Floats,  # (n,), normal scores of accuracy
) -> float:
    """How much higher the scores of warm candidates are because they did not start from scratch, in normal scores.

    A surrogate learns with `warm` as a further feature. The head start is the difference between its predictions for the warm
    candidates with and without that feature, as a mean: for a single candidate, the process cannot separate the two causes.
    """
    zeros = np.zeros(len(scores))
    as_trained, from_scratch = (np.column_stack([features, column * np.sqrt(12)]) for column in (warm, zeros))
    model = fit(as_trained, zeros, scores)
    difference = model.predict(as_trained, zeros)[0] - model.predict(from_scratch, zeros)[0]
    return float(difference[warm].mean())
