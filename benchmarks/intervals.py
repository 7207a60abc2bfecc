"""What a few trainings tell of a mean, as 95 % intervals: Student's t for one mean, Welch's t for the difference of two.

A training that diverged counts as NaN, and makes its mean and every difference from it NaN.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """An estimate between the bounds of its interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.3f} to {self.high:.3f}"


def mean_of(values: Sequence[float]) -> Interval:
    """The mean of at least two values."""
    mean = statistics.mean(values)
    deviation = float(np.std(values, ddof=1))  # statistics.stdev raises an error for NaN
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def difference(values: Sequence[float], others: Sequence[float]) -> Interval:
    """The mean of `values` less that of `others`, which were drawn independently."""
    low, high = stats.ttest_ind(values, others, equal_var=False).confidence_interval(CONFIDENCE)
    return Interval(statistics.mean(values) - statistics.mean(others), float(low), float(high))


def mean_text(values: Sequence[float]) -> str:
    """The mean, half of its interval, the least value and the greatest: "0.218 +- 0.051  0.172 to 0.260"."""
    interval = mean_of(values)
    return f"{interval.mean:.3f} +- {interval.high - interval.mean:.3f}  {min(values):.3f} to {max(values):.3f}"
