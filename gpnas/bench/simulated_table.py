"""A table of trainings from as many seeds as wanted, simulated from a table with one or two seeds for each row.

    noise = measured_noise(benchmark.curves)
    belief = believe(benchmark.curves, known, noise)
    truth = belief.draw(rng)                                  # (rows, epochs), the mean AP over all seeds, as it may be
    curves = noise.trainings(truth, seeds=4, rng=rng)         # (seeds, rows, epochs), as `DetectorBenchmark.curves`

The mean of two seeds still holds noise, so the means of all rows are spread wider than the truth. They are shrunk towards a
regression on what is known before training (empirical Bayes; Efron and Morris 1973, with the noise of each row as measured).
The shrunk means alone are spread too narrowly. A draw therefore adds what remains unknown of each row; then its spread is that
of the truth. The noise of a training is a whole curve that was measured on a row of similar AP. Noise that grows with AP, and
is correlated from epoch to epoch, stays so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpnas.search.surrogate import Floats

NEAR = 15
"""Measured pairs of trainings, those of the nearest AP, from which the noise of a row comes."""


@dataclass(frozen=True)
class Noise:
    """What another seed changes, by pairs of trainings of one row."""

    levels: Floats  # (pairs,), AP after full training, the mean of the two
    residuals: Floats  # (pairs, epochs), half of their difference times sqrt(2): as varied as one training

    def variance(
        self,
        levels: Floats,  # (rows,), AP after full training
    ) -> Floats:
        """(rows, epochs): variance of AP over seeds."""
        return np.asarray(np.mean(self.residuals[self._nearest(levels)] ** 2, axis=1), dtype=np.float64)

    def draw(
        self,
        levels: Floats,  # (rows,), AP after full training
        rng: np.random.Generator,
    ) -> Floats:
        """(rows, epochs): for each row the residuals of one of the NEAR nearest pairs, with either sign."""
        chosen = rng.integers(min(NEAR, len(self.levels)), size=len(levels))
        signs = rng.choice((-1.0, 1.0), size=(len(levels), 1))
        return np.asarray(signs * self.residuals[self._nearest(levels)[np.arange(len(levels)), chosen]], dtype=np.float64)

    def trainings(
        self,
        truth: Floats,  # (rows, epochs), mean AP over all seeds
        seeds: int,
        rng: np.random.Generator,
    ) -> Floats:
        """(seeds, rows, epochs): AP of so many trainings of each row, at least 0."""
        return np.array([np.maximum(truth + self.draw(truth[:, -1], rng), 0.0) for _ in range(seeds)])

    def _nearest(self, levels: Floats) -> NDArray[np.intp]:
        """(rows, NEAR): indices of the pairs of nearest AP."""
        return np.argsort(np.abs(self.levels - levels[:, None]), axis=1, kind="stable")[:, :NEAR]


def measured_noise(
    curves: Floats,  # (seeds, rows, epochs), AP after each epoch; NaN where a row was not trained with a seed
) -> Noise:
    """The noise of the rows that were trained with the seeds 0 and 1."""
    first, second = curves[:2, ~np.isnan(curves[1, :, -1])]
    return Noise((first[:, -1] + second[:, -1]) / 2, (first - second) / np.sqrt(2))


@dataclass(frozen=True)
class Belief:
    """What is known of the mean AP of each row over all seeds."""

    expected: Floats  # (rows, epochs)
    doubt: Floats  # (rows, epochs), deviation of the truth from what is expected, in deviations between seeds
    levels: Floats  # (rows,), AP after full training, for `noise`
    noise: Noise

    def draw(self, rng: np.random.Generator) -> Floats:
        """(rows, epochs): a truth that agrees with what was measured; AP is at least 0."""
        return np.maximum(self.expected + self.doubt * self.noise.draw(self.levels, rng), 0.0)


def believe(
    curves: Floats,  # (seeds, rows, epochs), AP after each epoch; NaN where a row was not trained with a seed
    known: Floats,  # (rows, columns), figures from before training, on which AP is regressed
    noise: Noise,
) -> Belief:
    """Shrink the mean AP of each row and epoch towards a linear regression on `known`.

    Of a row with n seeds whose AP varies by v between seeds, the share s = t / (t + v / n) of the residual is kept. t is the
    variance of the truth around the regression: that of the residuals less the noise in them. The truth then has a variance of
    s v / n around its expectation.
    """
    seeds = np.sum(~np.isnan(curves[:, :, -1]), axis=0)[:, None]  # (rows, 1)
    means = np.nanmean(curves, axis=0)  # (rows, epochs)
    levels = means[:, -1]
    columns = np.column_stack([np.ones(len(known)), known])
    fitted = columns @ np.linalg.lstsq(columns, means, rcond=None)[0]  # (rows, epochs)
    residuals = means - fitted
    variance = noise.variance(levels) / seeds
    degrees = len(known) - columns.shape[1]
    around = np.maximum(np.sum(residuals**2, axis=0) / degrees - variance.mean(axis=0), 0.0)  # (epochs,)
    total = around + variance
    share = np.divide(around, total, out=np.ones_like(total), where=total > 0)
    return Belief(fitted + share * residuals, np.sqrt(share / seeds), levels, noise)
