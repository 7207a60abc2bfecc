"""Acquisition functions: how much the training of a candidate is expected to gain, as logarithms.

The gain is the growth of the best accuracy, or of the area that measured points dominate between accuracy and log MACs. The
cost of a candidate is known before training, so that only its accuracy is a random variable. Then the expected hypervolume
improvement (Emmerich et al. 2006) is a sum: over each span of costs in which the best measured accuracy is constant, the width
of the span times the expected improvement over that accuracy.

Far below the best, expected improvement underflows to 0, and all such candidates would be equal. Its logarithm does not
underflow (LogEI, Ament et al. 2023, arXiv:2310.20708, section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import erfcx, ndtr

from gpnas.search.surrogate import Floats

ASYMPTOTIC = -100.0
"""Below this z, `log_h` is computed by its asymptotic series; three terms of it reach double precision there."""


def log_expected_improvement(
    mean: Floats,  # (n,)
    deviation: Floats,  # (n,), positive
    best: float | Floats,  # (...)
) -> Floats:
    """(..., n): log of the mean gain over `best` of normal variables; losses count as 0 (Jones et al. 1998, equation 15)."""
    return log_h((mean - best) / deviation) + np.log(deviation)


def log_h(z: Floats) -> Floats:
    """Of the shape of z: log(phi(z) + z Phi(z)), with the standard normal density phi and distribution Phi.

    Equation 9 of arXiv:2310.20708, with the scaled complementary error function for z <= -1. Where its two terms cancel, the
    asymptotic series of Mills' ratio takes its place.
    """
    result = np.empty_like(z)
    near, far = z > -1, z < ASYMPTOTIC
    tail = ~near & ~far
    result[near] = np.log(np.exp(-(z[near] ** 2) / 2) / math.sqrt(2 * math.pi) + z[near] * ndtr(z[near]))
    x = -z[tail]
    result[tail] = _log_density(x) + np.log1p(-math.sqrt(math.pi / 2) * x * erfcx(x / math.sqrt(2)))
    x = -z[far]
    result[far] = _log_density(x) - 2 * np.log(x) + np.log1p(-3 / x**2 + 15 / x**4 - 105 / x**6)
    return result


def _log_density(x: Floats) -> Floats:
    return -(x**2) / 2 - math.log(2 * math.pi) / 2


def log_expected_hypervolume_improvement(
    mean: Floats,  # (n,), of each candidate's accuracy
    deviation: Floats,  # (n,), positive
    costs: Floats,  # (n,)
    measured: Sequence[tuple[float, float]],  # (accuracy, cost) of points; some may dominate others
    floor: float,
    reference: float,
) -> Floats:
    """(n,): log of the mean growth of the area that measured points dominate above accuracy `floor` and below cost `reference`.
    It is minus infinity for a candidate whose cost is at or above `reference`."""
    begin, end, best = np.array(_stairs(measured, floor, reference)).T[:, :, None]  # each (spans, 1)
    widths = np.maximum(end - np.maximum(begin, costs), 0.0)  # (spans, n)
    with np.errstate(divide="ignore"):  # the logarithm of a width of 0 is minus infinity
        gains = log_expected_improvement(mean, deviation, best) + np.log(widths)  # (spans, n)
    return np.asarray(np.logaddexp.reduce(gains, axis=0), dtype=np.float64)


def dominated_area(measured: Sequence[tuple[float, float]], floor: float, reference: float) -> float:
    """Area that (accuracy, cost) points dominate above accuracy `floor` and below cost `reference`."""
    import moocore  # late: it loads a compiled library

    points = [[-accuracy, cost] for accuracy, cost in measured]
    return float(moocore.hypervolume(points, ref=[-floor, reference])) if points else 0.0


def _stairs(measured: Sequence[tuple[float, float]], floor: float, reference: float) -> list[tuple[float, float, float]]:
    """(from, to, accuracy): spans of cost with the best accuracy that was measured at most at that cost. The first span begins
    at minus infinity with `floor`, the last one ends at `reference`."""
    stairs: list[tuple[float, float, float]] = []
    begin, best = -np.inf, floor
    for accuracy, cost in sorted(measured, key=lambda point: (point[1], -point[0])):
        if accuracy > best and cost < reference:
            stairs.append((begin, cost, best))
            begin, best = cost, accuracy
    return [*stairs, (begin, reference, best)]
