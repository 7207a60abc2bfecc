"""Gradient paths against an oracle that walks every path, against cases worked out by hand, and against torch.autograd."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpnas.graph.graph import Branch, Graph, GraphBuilder
from gpnas.graph.network import Network
from gpnas.paths.flows import POOLING_DISCOUNT
from gpnas.paths.gradient_paths import (
    FIGURES,
    GradientPaths,
    LayerPaths,
    distinct_combinations,
    gradient_paths,
)
from tests.brute_force import brute_force, layers_read
from tests.random_graphs import OTHER_MOVES, TRACED_MOVES, random_graph

searching = settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)


def graphs(moves: Sequence[str] = OTHER_MOVES) -> st.SearchStrategy[Graph]:
    return st.integers(0, 2**32 - 1).map(lambda seed: random_graph(seed, moves))


def bits(timestamps: int) -> frozenset[int]:
    return frozenset(t for t in range(timestamps.bit_length()) if timestamps >> t & 1)


def by_op(paths: GradientPaths) -> dict[int, LayerPaths]:
    return {layer.op: layer for layer in paths.layers}


@searching
@given(graphs() | graphs([*OTHER_MOVES, *TRACED_MOVES]), st.sampled_from((None, Branch.MAIN)))
def test_agrees_with_every_path_walked_one_by_one(graph: Graph, branch: Branch | None) -> None:
    paths, truth = gradient_paths(graph, branch), brute_force(graph, branch)
    assert [layer.op for layer in paths.layers] == truth.live
    for layer in paths.layers:
        assert bits(layer.timestamps) == truth.timestamps(layer.op)
        groups = [(g.start, g.stop, {(s.consumer, s.offset, bits(s.timestamps)) for s in g.sources}) for g in layer.groups]
        assert groups == truth.groups[layer.op]
        assert layer.aggregated_features == len(layers_read(graph, layer.op))
        assert layer.combinations == sum(len(lengths) for _, _, sources in truth.groups[layer.op] for _, _, lengths in sources)
        assert layer.sources == len({source[:2] for _, _, sources in truth.groups[layer.op] for source in sources})
    assert sum(layer.combinations for layer in paths.layers) == len(truth.combinations)
    assert distinct_combinations(paths.layers) == len(set(truth.combinations))


@settings(searching, max_examples=100)
@given(graphs())
def test_autograd_has_a_zero_gradient_exactly_where_none_arrives(graph: Graph) -> None:
    torch.manual_seed(0)
    network = Network(graph).double()
    values: dict[int, torch.Tensor] = {}
    for op in graph.layers:
        network.layer(op).register_forward_hook(lambda module, args, value, op=op: values.update({op: value}))
    outputs = network(torch.randn(1, graph.ops[0].channels, 4, 4, dtype=torch.float64, requires_grad=True))
    for value in values.values():
        value.retain_grad()
    loss = torch.stack([(out * torch.randn_like(out)).sum() for out in outputs]).sum()
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    arrived = by_op(gradient_paths(graph))
    for op in graph.layers:
        expected = [False] * graph.ops[op].channels
        for group in arrived[op].groups if op in arrived else ():
            expected[group.start : group.stop] = [True] * (group.stop - group.start)
        gradient = values[op].grad if op in values else None
        seen = [False] * len(expected) if gradient is None else (gradient != 0).any(dim=(0, 2, 3)).tolist()
        assert seen == expected


@settings(searching, max_examples=100)
@given(graphs())
def test_main_losses_alone_give_the_figures_of_the_inference_graph(graph: Graph) -> None:
    assert gradient_paths(graph, Branch.MAIN).figures() == gradient_paths(graph.inference()).figures()


def test_a_grouped_layer_that_passes_nothing_to_a_middle_channel_leaves_a_gap() -> None:
    b = GraphBuilder(3)
    x = b.conv(b.image, 3)
    d = b.conv(x, 3, groups=3)
    b.output(b.concat([b.slice(d, 0, 1), b.slice(d, 2, 3)]), "p", stride=1)
    layer = by_op(gradient_paths(b.build()))[x]
    assert [(group.start, group.stop) for group in layer.groups] == [(0, 1), (2, 3)]


def bare() -> GraphBuilder:
    """1x1 layers without normalisation: their parameters are easy to count by hand."""
    return GraphBuilder(3, act="")


def conv(b: GraphBuilder, x: int, channels: int) -> int:
    return b.conv(x, channels, norm=False)


def finished(b: GraphBuilder, x: int) -> Graph:
    """With a prediction layer of 2 channels and one loss."""
    b.output(conv(b, x, 2), "p", stride=1)
    return b.build()


def timestamps(graph: Graph) -> list[set[int]]:
    """Path lengths of each live layer, first layer first."""
    return [set(bits(layer.timestamps)) for layer in gradient_paths(graph).layers]


def totals(graph: Graph) -> tuple[int, int]:
    """All and distinct combinations."""
    figures = gradient_paths(graph).figures()
    return int(figures["combinations"]), int(figures["distinct_combinations"])


def residual_chain(kept: int, blocks: int = 2) -> Graph:
    """Stem of 8 channels, blocks of two layers whose identity is kept on `kept` channels, a prediction layer."""
    b = bare()
    x = conv(b, b.image, 8)
    for _ in range(blocks):
        x = b.masked_add(conv(b, conv(b, x, 8), 8), x, kept)
    return finished(b, x)


def test_plain_chain_has_one_timestamp_a_layer_and_no_duplicate() -> None:
    graph = residual_chain(kept=0)
    assert timestamps(graph) == [{6}, {5}, {4}, {3}, {2}, {1}]
    assert totals(graph) == (6, 6)


def test_residual_chain_repeats_the_sources_of_layers_that_are_added() -> None:
    graph = residual_chain(kept=8)
    # Each later block is passed (2 layers) or skipped (0 layers).
    assert timestamps(graph) == [{2, 4, 6}, {3, 5}, {2, 4}, {3}, {2}, {1}]
    # The prediction's gradient of length 2 arrives at the stem, at block 1 and at block 2; block 2's at the stem and block 1.
    assert totals(graph) == (11, 8)
    assert gradient_paths(graph).figures()["duplicated_share"] == pytest.approx(3 / 11)


def test_masked_residual_chain_has_more_distinct_combinations_at_the_same_timestamps() -> None:
    graph = residual_chain(kept=4)
    assert timestamps(graph) == timestamps(residual_chain(kept=8))
    stem, first, second, third, fourth, prediction = gradient_paths(graph).layers
    kept, masked = stem.groups
    assert (kept.start, kept.stop, masked.start, masked.stop) == (0, 4, 4, 8)
    assert [(s.consumer, s.offset, set(bits(s.timestamps))) for s in kept.sources] == [
        (first.op, 0, {4, 6}),
        (third.op, 0, {4}),
        (prediction.op, 0, {2}),
    ]
    assert [(s.consumer, s.offset, set(bits(s.timestamps))) for s in masked.sources] == [(first.op, 4, {4, 6})]
    assert [layer.combinations for layer in (stem, first, second, third, fourth, prediction)] == [6, 2, 3, 1, 1, 1]
    assert totals(graph) == (14, 11)


def test_figures_of_a_masked_residual_chain_worked_out_by_hand() -> None:
    figures = gradient_paths(residual_chain(kept=4)).figures()
    assert tuple(figures) == FIGURES
    # Layers: stem 3 -> 8, four of 8 -> 8, prediction 8 -> 2: 24 + 4 * 64 + 16 = 296 parameters.
    assert figures == pytest.approx(
        {
            "live_layers": 6,
            "live_params": 296,
            "longest": 6,
            "longest_shortest": 3,
            "shortest_mean": (2 + 3 + 2 + 3 + 2 + 1) / 6,
            "timestamps_mean": (3 + 2 + 2 + 1 + 1 + 1) / 6,
            "timestamps_per_param": (3 * 24 + 2 * 64 + 2 * 64 + 64 + 64 + 16) / 296,
            "sources_mean": (4 + 1 + 3 + 1 + 1 + 1) / 6,
            "combinations": 14,
            "distinct_combinations": 11,
            "duplicated_share": 3 / 14,
            "poolings_per_path": 0,
            "aggregated_features_mean": (0 + 1 + 1 + 2 + 1 + 3) / 6,
            "auxiliary_only": 0,
        }
    )


def test_dense_connections_give_every_concatenated_layer_its_own_source() -> None:
    b = bare()
    stem = conv(b, b.image, 4)
    first = conv(b, stem, 2)
    second = conv(b, b.concat([stem, first]), 2)
    graph = finished(b, b.concat([stem, first, second]))
    assert timestamps(graph) == [{2, 3, 4}, {2, 3}, {2}, {1}]
    layers = by_op(gradient_paths(graph))
    prediction = graph.outputs[0].op
    assert [(s.consumer, s.offset) for s in layers[first].groups[0].sources] == [(second, 4), (prediction, 4)]
    assert [(s.consumer, s.offset) for s in layers[second].groups[0].sources] == [(prediction, 6)]
    assert [layer.aggregated_features for layer in gradient_paths(graph).layers] == [0, 1, 2, 3]
    assert totals(graph) == (8, 8)


def test_deep_supervision_adds_exactly_its_prediction_and_the_way_to_the_stem() -> None:
    b = bare()
    stem = conv(b, b.image, 4)
    b.output(conv(b, conv(b, stem, 4), 2), "main", stride=1)
    b.output(conv(b, stem, 2), "early", stride=1, branch=Branch.AUXILIARY)
    graph = b.build()
    assert timestamps(graph) == [{2, 3}, {2}, {1}, {1}]
    assert gradient_paths(graph).figures()["auxiliary_only"] == 2  # (its loss, length 1) and (its prediction, length 2)
    main = gradient_paths(graph, Branch.MAIN)
    assert [bits(layer.timestamps) for layer in main.layers] == [{3}, {2}, {1}]
    assert main.figures()["auxiliary_only"] == 0


def stopped_chain(stop_block: bool, blocks: int = 3) -> Graph:
    """Figure 9 of the gradient-path paper: residual blocks of two layers; the loss stands on the last sum."""
    b = bare()
    x = conv(b, b.image, 4)
    for _ in range(blocks):
        block, identity = (b.stop_gradient(x), x) if stop_block else (x, b.stop_gradient(x))
        x = b.add(conv(b, conv(b, block, 4), 4), identity)
    b.output(x, "p", stride=1)
    return b.build()


def test_figure_9a_with_blocks_stopped_no_path_is_longer_than_a_block() -> None:
    # Section 3.3: the shortest path reaches the starting layer through all identities with length 1; the longest is 2.
    assert timestamps(stopped_chain(stop_block=True)) == [{1}, {2}, {1}, {2}, {1}, {2}, {1}]


def test_figure_9b_with_identities_stopped_the_paths_are_those_of_a_plain_chain() -> None:
    # Section 3.3: as long as PlainNet's, the longest path of each layer equal to its shortest.
    assert timestamps(stopped_chain(stop_block=False)) == [{7}, {6}, {5}, {4}, {3}, {2}, {1}]


def test_poolings_are_counted_per_path() -> None:
    b = bare()
    stem = conv(b, b.image, 4)
    paths = gradient_paths(finished(b, b.add(stem, b.avg_pool(b.max_pool(stem, 3), 1))))
    assert [layer.poolings_per_path for layer in paths.layers] == [1.0, 0.0]  # of two paths one passes two poolings
    assert paths.figures()["poolings_per_path"] == 0.5


def test_poolings_are_averaged_over_paths_not_over_readers() -> None:
    b = bare()
    stem = conv(b, b.image, 4)
    pool = b.max_pool(stem, 3)
    first = gradient_paths(finished(b, b.add(stem, b.add(pool, pool)))).layers[0]
    assert first.poolings_per_path == pytest.approx(2 / 3)  # of three paths two pass a pooling
    assert first.sharpness == pytest.approx(1 / 3 + 2 / 3 * POOLING_DISCOUNT)


def test_a_grouped_layer_weighs_the_paths_of_its_channels_by_their_number() -> None:
    b = bare()
    stem = conv(b, b.image, 4)
    grouped = b.conv(stem, 4, groups=2, norm=False)
    # Three paths from one channel of `grouped`, one from the other three: 1.5 on average, through no pooling.
    # One path from the stem that passes a pooling: 1 / (1 + 1.5) of all.
    one = b.slice(grouped, 0, 1)
    graph = finished(b, b.concat([b.slice(grouped, 1, 4), b.add(one, b.add(one, one)), b.max_pool(stem, 3)]))
    assert gradient_paths(graph).layers[0].poolings_per_path == pytest.approx(1 / 2.5)


def test_channels_that_share_a_source_count_it_once_for_the_layer() -> None:
    b = bare()
    stem = conv(b, b.image, 2)
    first, second = b.split(stem, 1)
    reader = b.add(first, second)  # both channels of the stem land on its only channel
    graph = finished(b, b.concat([reader, second]))
    layer = gradient_paths(graph).layers[0]
    assert [[s.offset for s in group.sources] for group in layer.groups] == [[0], [0, 1]]
    assert (layer.combinations, layer.sources) == (3, 2)


def test_poolings_of_channels_that_part_count_by_their_width() -> None:
    b = bare()
    stem = conv(b, b.image, 4)
    graph = finished(b, b.concat([b.slice(stem, 0, 1), b.max_pool(b.slice(stem, 1, 4), 3)]))
    first = gradient_paths(graph).layers[0]
    assert first.poolings_per_path == 0.75  # one channel of four without, three with one pooling
    assert first.sharpness == pytest.approx(0.25 + 0.75 * POOLING_DISCOUNT)


def test_layers_that_are_added_receive_the_same_gradients() -> None:
    b = bare()
    stem = conv(b, b.image, 4)
    twins = [conv(b, stem, 4), conv(b, stem, 4), b.max_pool(conv(b, stem, 4), 3)]
    graph = finished(b, b.add(b.add(twins[0], twins[1]), twins[2]))
    _, a, c, pooled, _ = gradient_paths(graph).layers
    assert a.gradients == c.gradients != pooled.gradients


def test_a_residual_chain_of_1000_blocks_of_two_layers() -> None:
    paths = gradient_paths(residual_chain(kept=8, blocks=1000))
    # Gradients reach the stem after 2, 4, ... 2002 layers, from the prediction and from every block.
    first = paths.layers[0]
    assert (first.shortest, first.longest, first.timestamps.bit_count()) == (2, 2002, 1001)
    assert paths.layers[0].sources == 1001
    assert sum(len(group.sources) for group in first.groups) == 1001


def test_a_layer_that_reaches_no_loss_is_not_live() -> None:
    b = bare()
    stem = conv(b, b.image, 4)
    conv(b, stem, 4)
    stopped = conv(b, stem, 4)
    graph = finished(b, b.concat([stem, b.stop_gradient(stopped)]))
    assert [layer.op for layer in gradient_paths(graph).layers] == [stem, graph.outputs[0].op]


def test_a_network_without_layers_has_figures_of_zero() -> None:
    b = bare()
    b.output(b.image, "p", stride=1)
    assert gradient_paths(b.build()).figures() == dict.fromkeys(FIGURES, 0.0)
