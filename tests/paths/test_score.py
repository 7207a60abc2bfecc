"""The score by hand."""

from __future__ import annotations

import math

import pytest

from gpnas.graph.graph import Graph, GraphBuilder
from gpnas.paths.flows import POOLING_DISCOUNT
from gpnas.paths.gradient_paths import gradient_paths
from gpnas.paths.score import COMBINATIONS_WEIGHT, capacity, detector_score, score_of


def twins(pool: bool = False, joined: str = "add", act: bool = False) -> Graph:
    """Stem of 12 parameters, two layers of 16 and 144 that read it, a prediction layer of 8 (16 when they are concatenated)."""
    b = GraphBuilder(3, act="")
    stem = b.conv(b.image, 4, norm=False)
    small = b.conv(stem, 4, norm=False)
    large = b.conv(b.act(stem, "relu") if act else stem, 4, 3, norm=False)
    both = b.add(small, large) if joined == "add" else b.concat([small, large])
    b.output(b.conv(b.max_pool(both, 3) if pool else both, 2, norm=False), "p", stride=1)
    return b.build()


def capacity_of(graph: Graph) -> float:
    return capacity(graph, gradient_paths(graph).layers)


@pytest.mark.parametrize("act", [False, True])
def test_layers_that_are_added_count_as_the_largest_of_them(act: bool) -> None:
    assert capacity_of(twins(act=act)) == pytest.approx(math.sqrt(12) + math.sqrt(144) + math.sqrt(8))


def test_layers_with_gradients_of_their_own_count_each() -> None:
    assert capacity_of(twins(joined="concat")) == pytest.approx(math.sqrt(12) + math.sqrt(16) + math.sqrt(144) + math.sqrt(16))


def test_layers_before_a_pooling_count_less() -> None:
    expected = POOLING_DISCOUNT * (math.sqrt(12) + math.sqrt(144)) + math.sqrt(8)
    assert capacity_of(twins(pool=True)) == pytest.approx(expected)


def test_the_score_adds_a_little_for_distinct_combinations() -> None:
    graph = twins()
    # The loss at the prediction, the prediction at both twins (one source), each twin at the stem.
    expected = math.log(capacity_of(graph)) + COMBINATIONS_WEIGHT * math.log(4)
    assert score_of(graph, gradient_paths(graph).layers) == pytest.approx(expected)
    assert COMBINATIONS_WEIGHT == 0.02


def test_the_score_takes_an_iterator_of_layers() -> None:
    graph = twins()
    layers = gradient_paths(graph).layers
    assert score_of(graph, iter(layers)) == score_of(graph, layers)


def test_a_network_without_live_layers_has_the_lowest_score() -> None:
    assert score_of(twins(), []) == -math.inf


def test_the_detector_score_by_hand() -> None:
    assert detector_score(math.e**20, 8) == pytest.approx(20 - 6 * math.log(2))
    # Four times the FLOPs make up for a path that is twice as long.
    assert detector_score(4e7, 14) == pytest.approx(detector_score(1e7, 7))


@pytest.mark.parametrize(("flops", "longest_shortest"), [(1e6, 0), (0, 3)])
def test_a_network_without_live_layers_has_the_lowest_detector_score(flops: float, longest_shortest: float) -> None:
    assert detector_score(flops, longest_shortest) == -math.inf
