"""A benchmark with one accuracy for each candidate: its columns, and the CSV file that it is read from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpnas.bench.accuracy_benchmark import SURROGATE_FEATURES, accuracy_benchmark, one_hot, read_accuracies
from gpnas.errors import InputError
from gpnas.paths.features import FEATURES


def test_one_hot_encoding_by_hand() -> None:
    # Position 0 has the values a, b; position 1 has x, y, z.
    encoding = one_hot([("b", "x"), ("a", "z"), ("a", "y"), ("b", "x")])
    assert encoding.tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1], [1, 0, 0, 1, 0], [0, 1, 1, 0, 0]]


def test_features_become_ranks_and_four_of_them_are_left_out() -> None:
    left_out = {"flops", "duplicated_share", "auxiliary_only", "detector_score"}
    assert set(SURROGATE_FEATURES) == set(FEATURES) - left_out and len(SURROGATE_FEATURES) == len(FEATURES) - 4
    features = [{name: k * value for k, name in enumerate(FEATURES, start=1)} for value in (5.0, -1.0, 2.0)]
    benchmark = accuracy_benchmark([("a",), ("b",), ("c",)], features, np.array([7.0, 8.0, 9.0]))
    # Ranks 3, 1, 2 of three candidates are 3/4, 1/4, 2/4, minus the mean 1/2, times sqrt(12).
    column = np.sqrt(12) * np.array([0.25, -0.25, 0.0])
    assert benchmark.features == pytest.approx(np.column_stack([column] * len(SURROGATE_FEATURES)))
    assert benchmark.score == pytest.approx(column)
    assert benchmark.encoding.tolist() == np.eye(3).tolist() and benchmark.accuracy.tolist() == [7, 8, 9]


def test_the_score_is_the_column_of_that_name() -> None:
    features = [dict.fromkeys(FEATURES, 0.0) | {"score": score} for score in (1.0, -np.inf, 3.0, 2.0)]
    benchmark = accuracy_benchmark([("a",)] * 4, features, np.zeros(4))
    assert benchmark.score.argsort().tolist() == [1, 0, 3, 2]


def test_accuracies_are_read_by_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('cell,c10,"c100, val"\n111111,90.5,70\n"a,b",-1,2e1\n')
    candidates, columns = read_accuracies(tmp_path / "t.csv")
    assert candidates == ["111111", "a,b"]
    assert {name: column.tolist() for name, column in columns.items()} == {"c10": [90.5, -1.0], "c100, val": [70.0, 20.0]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cell,acc\n111111,x\n111112,2\n", "line 2: could not convert"),
        ("cell,acc\n111111,nan\n111112,2\n", r"line 2: expected 1 finite numbers, got \['nan'\]"),
        ("cell,acc,b\n111111,1,2\n111112,2,inf\n", r"line 3: expected 2 finite numbers, got \['2', 'inf'\]"),
        ("cell,acc\n111111,1\n111112,2,3\n", r"line 3: expected 1 finite numbers, got \['2', '3'\]"),
        ("cell,acc,b\n111111,1\n111112,2\n", r"line 2: expected 2 finite numbers, got \['1'\]"),
        ("cell,acc\n111111,1\n", "needs a header"),
        ("cell\n111111\n111112\n", "needs a header"),
    ],
)
def test_a_file_that_cannot_be_read_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_accuracies(tmp_path / "t.csv")


def test_an_absent_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.csv: cannot be read"):
        read_accuracies(tmp_path / "absent.csv")
