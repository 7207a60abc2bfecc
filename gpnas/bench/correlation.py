"""How well figures that need no training rank trained candidates: rank correlation, at equal size too, and regret.

Spearman and Kendall (tau-b) of every gradient-path figure, of the score, and of the controls (parameters, FLOPs, layers)
with each accuracy column of a table.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gpnas.errors import InputError
from gpnas.paths.features import FEATURES

Floats = NDArray[np.float64]

SMALLEST_GROUP = 30
"""Members that a group of equal parameters needs to count."""

POOL, DRAWS = 1000, 200


@dataclass(frozen=True)
class Correlation:
    """Of one predictor with one accuracy column; NaN where either is constant.

    equal: mean Spearman over the groups of equal parameters with at least SMALLEST_GROUP members in which the predictor
    varies, weighted by their sizes. regret: best accuracy among POOL drawn candidates, minus that of the candidate among
    them with the highest predictor; mean over DRAWS draws, in the units of the column.
    """

    spearman: float
    kendall: float
    equal: float
    regret: float


def correlate(values: Floats, accuracy: Floats, parameters: Floats, seed: int = 0) -> Correlation:
    """values, accuracy, parameters: of shape (candidates,)."""
    if np.ptp(values) == 0 or np.ptp(accuracy) == 0 or not np.isfinite(values).any():
        return Correlation(np.nan, np.nan, np.nan, np.nan)
    ranks = stats.rankdata(values)  # minus infinity, of a network without a live layer, is a rank like any other
    spearman = float(stats.spearmanr(ranks, accuracy).statistic)
    kendall = float(stats.kendalltau(ranks, accuracy).statistic)
    return Correlation(spearman, kendall, at_equal_size(ranks, accuracy, parameters), regret(ranks, accuracy, seed))


def at_equal_size(values: Floats, accuracy: Floats, parameters: Floats) -> float:
    total = members = 0.0
    for size in np.unique(parameters):
        group = parameters == size
        count = int(group.sum())
        if count >= SMALLEST_GROUP and np.ptp(values[group]) > 0 and np.ptp(accuracy[group]) > 0:
            total += count * float(stats.spearmanr(values[group], accuracy[group]).statistic)
            members += count
    return total / members if members else float("nan")


def regret(values: Floats, accuracy: Floats, seed: int) -> float:
    rng = np.random.default_rng(seed)
    size = min(POOL, len(values))
    lost = []
    for _ in range(DRAWS):
        drawn = rng.choice(len(values), size, replace=False)
        top = drawn[values[drawn] == values[drawn].max()]  # ties: what a draw among them gives on average
        lost.append(accuracy[drawn].max() - accuracy[top].mean())
    return float(np.mean(lost))


def read_table(path: Path) -> tuple[list[str], dict[str, Floats]]:
    """The candidates of a CSV (first column) and its accuracy columns. Raises InputError that names the line."""
    try:
        rows = list(csv.reader(path.read_text().splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--table {path}: cannot be read ({error})") from None
    if len(rows) < 3 or len(rows[0]) < 2:
        raise InputError(f"--table {path}: needs a header, a column of candidates, one of accuracy, and two rows at least")
    names, columns = [], []
    for number, row in enumerate(rows[1:], start=2):
        try:
            values = [float(cell) for cell in row[1:]]
        except ValueError as error:
            raise InputError(f"--table {path}: line {number}: {error}") from None
        if len(row) != len(rows[0]) or not np.isfinite(values).all():
            raise InputError(f"--table {path}: line {number}: expected {len(rows[0]) - 1} finite numbers, got {row[1:]}")
        names.append(row[0])
        columns.append(values)
    table = np.array(columns)
    return names, {name: table[:, k] for k, name in enumerate(rows[0][1:])}


def correlations(
    rows: Sequence[Mapping[str, float]], accuracies: Mapping[str, Floats], predictors: Iterable[str] = FEATURES
) -> dict[str, dict[str, Correlation]]:
    """{predictor: {column: Correlation}} of candidates' features with their accuracies."""
    parameters = np.array([row["parameters"] for row in rows])
    return {
        name: {column: correlate(np.array([row[name] for row in rows]), y, parameters) for column, y in accuracies.items()}
        for name in predictors
    }
