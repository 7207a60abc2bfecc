"""A tabular benchmark with one objective: what is known of each candidate before training, and its accuracy after it.

cells, accuracies = read_accuracies(Path("nb201.csv"))
benchmark = accuracy_benchmark(choices, features, accuracies["c100_val"])
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpnas.errors import InputError
from gpnas.paths.features import FEATURES
from gpnas.search.surrogate import Floats, ranks

SURROGATE_FEATURES = tuple(
    name for name in FEATURES if name not in ("flops", "duplicated_share", "auxiliary_only", "detector_score")
)
"""The features that the surrogate reads. Three of those that are left out follow from the others on every benchmark so far. The
detector score is none of a cell."""


@dataclass(frozen=True)
class AccuracyBenchmark:
    """One row for each candidate.

    choices: what the candidate is made of, one value for each position, such as the operation on each edge of a cell.
    """

    choices: Sequence[tuple[str, ...]]
    features: Floats  # (candidates, features), SURROGATE_FEATURES as ranks
    encoding: Floats  # (candidates, positions x values), one-hot encoding of the choices
    score: Floats  # (candidates,), the score as ranks
    accuracy: Floats  # (candidates,), after full training


def accuracy_benchmark(
    choices: Sequence[tuple[str, ...]], features: Sequence[Mapping[str, float]], accuracy: Floats
) -> AccuracyBenchmark:
    """features: the output of `gpnas.paths.features.features` for each candidate. accuracy: of shape (candidates,)."""
    columns = ranks(np.array([[row[name] for name in SURROGATE_FEATURES] for row in features]))
    return AccuracyBenchmark(choices, columns, one_hot(choices), columns[:, SURROGATE_FEATURES.index("score")], accuracy)


def one_hot(choices: Sequence[tuple[str, ...]]) -> Floats:
    """(candidates, positions x values): for each position one column for each of its values, in sorted order."""
    positions = list(zip(*choices, strict=True))
    columns = [[float(own == value) for own in position] for position in positions for value in sorted(set(position))]
    return np.column_stack(columns)


def read_accuracies(path: Path) -> tuple[list[str], dict[str, Floats]]:
    """The candidates of a CSV file (its first column) and its accuracy columns by name. Raises InputError with the line."""
    try:
        rows = list(csv.reader(path.read_text().splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--table {path}: cannot be read ({error})") from None
    if len(rows) < 3 or len(rows[0]) < 2:
        raise InputError(
            f"--table {path}: needs a header, a column of candidates, at least one column of accuracies, and at least two rows"
        )
    candidates, accuracies = [], []
    for number, row in enumerate(rows[1:], start=2):
        try:
            values = [float(cell) for cell in row[1:]]
        except ValueError as error:
            raise InputError(f"--table {path}: line {number}: {error}") from None
        if len(row) != len(rows[0]) or not np.isfinite(values).all():
            raise InputError(f"--table {path}: line {number}: expected {len(rows[0]) - 1} finite numbers, got {row[1:]}")
        candidates.append(row[0])
        accuracies.append(values)
    columns = np.array(accuracies)
    return candidates, {name: columns[:, k] for k, name in enumerate(rows[0][1:])}
