"""Which candidate to train next: the one whose training is expected to enlarge the dominated area, or the best accuracy, most.

The area lies between accuracy and the logarithm of MACs. A candidate's cost is known before training, so only its accuracy is a
random variable, and the expected hypervolume improvement (Emmerich et al. 2006) is a sum with a closed form: over each span of
costs on which the best measured accuracy is constant, the span's width times the expected improvement over that accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from gpnas.search.surrogate import Floats


def expected_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """Mean gain over `best` of a normal variable, counting losses as 0 (Jones et al. 1998, equation 15)."""
    z = (mean - best) / deviation
    return np.asarray((mean - best) * norm.cdf(z) + deviation * norm.pdf(z), dtype=np.float64)


def expected_hypervolume_improvement(
    mean: Floats, deviation: Floats, costs: Floats, measured: Sequence[tuple[float, float]], floor: float, reference: float
) -> Floats:
    """(n,): mean growth of the area that measured points dominate, above accuracy `floor` and below cost `reference`.

    mean, deviation: of each candidate's accuracy. costs: of each candidate; one at or beyond `reference` gains nothing.
    measured: (accuracy, cost) of points, dominated ones too.
    """
    gain = np.zeros(len(mean))
    for begin, end, best in _stairs(measured, floor, reference):
        width = np.clip(end - np.maximum(begin, costs), 0.0, None)
        gain += width * expected_improvement(mean, deviation, best)
    return gain


def dominated_area(measured: Sequence[tuple[float, float]], floor: float, reference: float) -> float:
    """Area between accuracy and cost that (accuracy, cost) points dominate, above `floor` and below `reference`."""
    import moocore  # late: it loads a compiled library

    inside = [[-accuracy, cost] for accuracy, cost in measured if accuracy > floor and cost < reference]
    return float(moocore.hypervolume(inside, ref=[-floor, reference])) if inside else 0.0


def _stairs(measured: Sequence[tuple[float, float]], floor: float, reference: float) -> list[tuple[float, float, float]]:
    """(from, to, accuracy): spans of cost with the best accuracy to be had there; the first begins at minus infinity with
    `floor`, the last ends at `reference`."""
    stairs: list[tuple[float, float, float]] = []
    begin, best = -np.inf, floor
    for accuracy, cost in sorted(measured, key=lambda point: (point[1], -point[0])):
        if accuracy > best and cost < reference:
            stairs.append((begin, cost, best))
            begin, best = cost, accuracy
    return [*stairs, (begin, reference, best)]
