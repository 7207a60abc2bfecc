"""A regression from what is known before training to what training gives, with uncertainty, learnt from few trials.

    features = ranks(columns)                              # all candidates, trained and not
    model = fit(features[trained], prior[trained], normal_scores(accuracy))
    mean, deviation = model.predict(features, prior)        # which to train next: acquisition.py

Gradient-path features decide by their order, so each becomes its rank among the candidates at hand. A Gaussian process, with a
linear kernel plus a Matern 5/2 of one length for all features (Rasmussen and Williams 2006, section 4.2), learns normal
scores of the accuracies, which no outlier stretches. Where a prior is believed in, as the score is among cells, it is the
mean, scaled to what was measured, and the process learns what it leaves. How form and features
were chosen, and what else was tried: docs/surrogate.md.
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
"""Trials' worth of belief that the score explains PRIOR_SLOPE of a standard deviation for each of its own."""

PRIOR_SLOPE = 0.9

FEW = 5.0
"""Lengths and noise that are fitted to n trials are too sure by about FEW / n (chosen by the 80 % interval on one table)."""


def ranks(columns: Floats) -> Floats:
    """(candidates, features) as ranks in each column: mean 0, variance 1 where all differ; minus infinity is the lowest."""
    ranks: Floats = np.apply_along_axis(rankdata, 0, columns)
    scaled: Floats = (ranks / (len(columns) + 1) - 0.5) * np.sqrt(12)
    return scaled


def normal_scores(values: Floats) -> Floats:
    """Values by the quantiles of a normal distribution at their ranks; equal ones stay equal."""
    return np.asarray(norm.ppf(rankdata(values) / (len(values) + 1)), dtype=np.float64)


@dataclass(frozen=True)
class Surrogate:
    """slope: normal scores of accuracy for each unit of the prior. best: the largest normal score that was measured. trained:
    candidates that it learnt from."""

    process: GaussianProcessRegressor
    slope: float
    best: float
    trained: int

    def predict(self, features: Floats, prior: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation, in normal scores of the measured accuracies: features (n, features), prior (n,)."""
        mean, deviation = self.process.predict(features, return_std=True)
        return self.slope * prior + mean, deviation * (1 + FEW / self.trained)

    def believing(self, features: Floats) -> Surrogate:
        """The same surrogate sure of its own means at `features` (n, features), which are being trained: it expects nothing new
        there (the "Kriging believer" of Ginsbourger et al. 2010)."""
        from sklearn.gaussian_process import GaussianProcessRegressor

        process = GaussianProcessRegressor(self.process.kernel_, optimizer=None)
        seen, values = self.process.X_train_, self.process.y_train_
        process.fit(np.vstack([seen, features]), np.concatenate([values, self.process.predict(features)]))
        return replace(self, process=process)


def fit(features: Floats, prior: Floats, scores: Floats) -> Surrogate:
    """Learn from trained candidates: features (n, features) and prior (n,), both by `ranks`, and `normal_scores` (n,) of what
    they reached.

    A prior of zeros is none.
    """
    from sklearn.exceptions import ConvergenceWarning  # late: a second to import
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

    slope = float((prior @ scores + PRIOR_STRENGTH * PRIOR_SLOPE) / (prior @ prior + PRIOR_STRENGTH))
    width = features.shape[1]
    bent = ConstantKernel(0.3, (0.01, 10)) * Matern(float(np.sqrt(width)), (0.5, 100), nu=2.5)
    straight = ConstantKernel(0.1 / width, (1e-4, 10)) * DotProduct(0, "fixed")
    kernel = bent + straight + WhiteKernel(0.1, (1e-3, 1))
    process = GaussianProcessRegressor(kernel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a bound that is reached is a choice like another
        process.fit(features, scores - slope * prior)
    return Surrogate(process, slope, float(scores.max()), len(scores))


def head_start(features: Floats, warm: NDArray[np.bool_], scores: Floats) -> float:
    """By how much those that did not start from scratch (`warm`, one of them at least) are ahead for that, in normal scores.

    It is what a further column of `features` (n, features), which says so, explains of their `scores` (n,): in the mean, since
    for a single one the process cannot tell it from what that one is worth.
    """
    none = np.zeros(len(scores))
    started, from_scratch = (np.column_stack([features, column * np.sqrt(12)]) for column in (warm, none))
    model = fit(started, none, scores)
    ahead = model.predict(started, none)[0] - model.predict(from_scratch, none)[0]
    return float(ahead[warm].mean())
