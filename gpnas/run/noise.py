"""How far chance moves mean APs: the standard deviation between seeds, pooled over trials, and what it says of a difference.

    noise = pooled([[0.40, 0.42], [0.31, 0.30, 0.32]])    # APs of two trials, one for each seed
    noise.error(2, 3)                                     # standard error of the difference of their means
    noise.is_tie(0.1, 2, 3), noise.interval(0.1, 2, 3)

A trial has two or three seeds, too few to estimate its own deviation. All confirmed trials of a search train alike, so one
deviation is estimated from all of them: the root of the mean of their variances, weighted by degrees of freedom.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LEVEL = 0.9
"""Confidence of the intervals."""


@dataclass(frozen=True)
class Noise:
    """deviation: the standard deviation between seeds, of AP in [0, 1]. freedom: degrees of freedom of its estimate."""

    deviation: float
    freedom: int

    def __post_init__(self) -> None:
        if self.freedom < 1 or not (math.isfinite(self.deviation) and self.deviation >= 0):
            raise ValueError(
                f"noise has a finite deviation and at least one degree of freedom, got {self.deviation} and {self.freedom}"
            )

    def error(self, seeds: int, other_seeds: int) -> float:
        """The standard error of the difference of two means over so many seeds."""
        return self.deviation * math.sqrt(1 / seeds + 1 / other_seeds)

    def is_tie(self, difference: float, seeds: int, other_seeds: int) -> bool:
        """Whether two means differ by less than the standard error of the difference: the one-standard-error rule (Breiman,
        Friedman, Olshen, Stone, Classification and Regression Trees, 1984, section 3.4.3)."""
        return abs(difference) < self.error(seeds, other_seeds)

    def interval(self, difference: float, seeds: int, other_seeds: int) -> tuple[float, float]:
        """The interval of a difference of means at LEVEL, by Student's t with the pooled degrees of freedom."""
        from scipy.special import stdtrit  # late: only the results of a confirmed search need it

        half = float(stdtrit(self.freedom, (1 + LEVEL) / 2)) * self.error(seeds, other_seeds)
        return difference - half, difference + half


def pooled(samples: Iterable[Sequence[float]]) -> Noise | None:
    """The noise of samples, one for each trial with an AP for each seed; None when no sample has two."""
    several = [sample for sample in samples if len(sample) > 1]
    freedom = sum(len(sample) - 1 for sample in several)
    if not freedom:
        return None
    return Noise(math.sqrt(sum((len(sample) - 1) * statistics.variance(sample) for sample in several) / freedom), freedom)
