"""The laws of growth: those of the gradient-path paper's Table 1, and of values whose law is known."""

from __future__ import annotations

from functools import partial

import pytest

from gpnas.bench.growth import DEPTHS, LAWS, figures, growth_lines, law, laws
from search_spaces.growth import TABLE_1, network

PAPER = {
    "plain": ("N", "N", "1"),
    "resnet": ("N", "1", "N"),
    "densenet": ("N^2", "1", "N"),
    "sparse-resnet": ("N", "log N", "log N"),
    "sparse-densenet": ("N log N", "log N", "log N"),
}
"""Table 1: growth of parameters, shortest gradient path, and (of the last layer) aggregated features."""


@pytest.mark.parametrize("name", TABLE_1)
def test_growth_is_that_of_the_paper_s_table_1(name: str) -> None:
    assert tuple(laws(partial(network, name)).values()) == PAPER[name]


@pytest.mark.parametrize("name", LAWS)
def test_a_law_is_recognised_in_its_own_values(name: str) -> None:
    assert law([3 + 7 * LAWS[name](n) for n in DEPTHS]) == name


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 1, 1, 2, 2, 2], "1"),  # a difference of 1 is no growth
        ([2, 2, 3, 3, 4, 4], "log N"),
        ([1, 1, 1, 1, 1, 3], "N^2"),  # the last depth is far from the others; the steepest law is nearest
        ([-5, -6, -7, -8, -9, -10], "log N"),
    ],
)
def test_the_law_of_values_that_follow_none_exactly(values: list[float], expected: str) -> None:
    assert law(values) == expected


def test_figures_counted_by_hand() -> None:
    """Three units of 8 channels behind a stem. A 3x3 layer from 8 to 8 channels has 9 * 64 weights and 8 biases."""
    assert figures(network("resnet", 3)) == {"parameters": 3 * 584, "shortest_path": 2, "aggregated_features": 3}
    assert figures(network("plain", 3)) == {"parameters": 3 * 584, "shortest_path": 4, "aggregated_features": 1}
    dense = 9 * 8 * (8 + 16 + 24) + 3 * 8
    assert figures(network("densenet", 3)) == {"parameters": dense, "shortest_path": 2, "aggregated_features": 3}


def test_the_table_has_a_line_for_each_network_and_figure() -> None:
    lines = list(growth_lines({"resnet": partial(network, "resnet")}))
    assert lines[0] == "network         figure                        8       16       32       64      128      256   law"
    assert lines[1] == "resnet          parameters                 4672     9344    18688    37376    74752   149504   N"
    assert lines[2] == "resnet          shortest_path                 2        2        2        2        2        2   1"
    assert len(lines) == 4
