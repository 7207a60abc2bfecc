"""The surrogate: it predicts accuracy, with uncertainty, from features known before training. It learns from few trials.

    features = ranks(columns)                              # all candidates, trained and not
    model = fit(features[trained], prior[trained], normal_scores(accuracy))
    mean, deviation = model.predict(features, prior)        # acquisition.py chooses by them

Each feature is replaced by its rank among the candidates, since only the order of gradient-path features matters. Accuracies
are replaced by normal scores, so that outliers do not stretch the scale. A Gaussian process with a linear kernel plus a
Matern 5/2 kernel, which has one length scale for all features, learns the normal scores (Rasmussen and Williams 2006, section
4.2). A prior, such as the score among cells, is scaled to the measurements; the process then learns the residuals.
docs/surrogate.md compares other features and kernels.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor


Floats = NDArray[np.float64]

PRIOR_STRENGTH = 20.0
"""The prior's slope is fitted as if this many trials, besides the real ones, had shown a slope of PRIOR_SLOPE."""

PRIOR_SLOPE = 0.9
"""Slope of normal scores over the prior that is assumed before there are trials."""

FEW = 5.0
"""A process whose kernel was fitted to n trials is overconfident; its deviations are widened by the factor 1 + FEW / n."""


def ranks(columns: Floats) -> Floats:
    """(candidates, features): the rank of each value in its column, scaled so that a column of distinct values has mean 0 and
    a variance near 1. Equal values share their mean rank. Minus infinity is a valid value, the lowest."""
    ranked: Floats = np.apply_along_axis(rankdata, 0, columns)
    scaled: Floats = (ranked / (len(columns) + 1) - 0.5) * np.sqrt(12)
    return scaled


def normal_scores(values: Floats) -> Floats:
    """(n,): the standard normal quantile at rank / (n + 1) of each value. Equal values share their mean rank."""
    return np.asarray(norm.ppf(rankdata(values) / (len(values) + 1)), dtype=np.float64)


@dataclass(frozen=True)
class Surrogate:
    """slope: normal scores of accuracy for each unit of the prior. best: the largest normal score among the trained candidates.
    trained: how many those are."""

    process: GaussianProcessRegressor
    slope: float
    best: float
    trained: int

    def predict(
        self,
        features: Floats,  # (n, features)
        prior: Floats,  # (n,)
    ) -> tuple[Floats, Floats]:
        """(n,) and (n,): mean and standard deviation, in normal scores of the trained candidates' accuracies."""
        mean, deviation = self.process.predict(features, return_std=True)
        return self.slope * prior + mean, deviation * (1 + FEW / self.trained)

    def believing(
        self,
        features: Floats,  # (n, features), of candidates that are being trained
    ) -> Surrogate:
        """The same surrogate after it has learnt its own means at `features` as if they were measured, with the same kernel
        (the "Kriging believer" of Ginsbourger et al. 2010). Choices then avoid twins of what is being trained."""
        from sklearn.gaussian_process import GaussianProcessRegressor

        process = GaussianProcessRegressor(self.process.kernel_, optimizer=None)
        known, values = self.process.X_train_, self.process.y_train_
        process.fit(np.vstack([known, features]), np.concatenate([values, self.process.predict(features)]))
        return replace(self, process=process)


def fit(
    features: Floats,  # (n, features), from `ranks`
    prior: Floats,  # (n,), from `ranks`; zeros for no prior
    scores: Floats,  # (n,), `normal_scores` of the accuracies
) -> Surrogate:
    """Learn from trained candidates."""
    from sklearn.exceptions import ConvergenceWarning  # late: a second to import
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

    slope = float((prior @ scores + PRIOR_STRENGTH * PRIOR_SLOPE) / (prior @ prior + PRIOR_STRENGTH))
    width = features.shape[1]
    matern = ConstantKernel(0.3, (0.01, 10)) * Matern(float(np.sqrt(width)), (0.5, 100), nu=2.5)
    linear = ConstantKernel(0.1 / width, (1e-4, 10)) * DotProduct(0, "fixed")
    kernel = matern + linear + WhiteKernel(0.1, (1e-3, 1))
    process = GaussianProcessRegressor(kernel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the optimum may lie on a bound of the kernel's parameters
        process.fit(features, scores - slope * prior)
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
