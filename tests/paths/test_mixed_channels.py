"""Gradient paths through a `mix`, as of attention: all channels of a group have the same sources, wherever they lie."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpnas.graph.graph import Branch, GraphBuilder
from gpnas.paths.analysis import lengths
from gpnas.paths.flows import offset_at, sources_of
from gpnas.paths.gradient_paths import distinct_combinations, gradient_paths
from tests.brute_force import brute_force, layers_read
from tests.random_graphs import MIXING_MOVES, OTHER_MOVES, random_graph

searching = settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)


@searching
@given(st.integers(0, 2**32 - 1), st.sampled_from((None, Branch.MAIN)))
def test_channels_that_are_mixed_have_the_sources_of_every_path_walked(seed: int, branch: Branch | None) -> None:
    graph = random_graph(seed, [*OTHER_MOVES, "gate", "shuffle", *3 * list(MIXING_MOVES)])
    paths, truth = gradient_paths(graph, branch), brute_force(graph, branch)
    assert [layer.op for layer in paths.layers] == truth.live
    for layer in paths.layers:
        assert set(lengths(layer.timestamps)) == truth.timestamps(layer.op)
        assert layer.aggregated_features == len(layers_read(graph, layer.op))
        arrived: list[set[tuple[int, int, int]]] = [set() for _ in truth.arrivals[layer.op]]
        for start, stop, shift, flow in layer.segments:
            for channel in range(start, stop):
                for source, timestamps in sources_of(flow, shift).items():
                    arrived[channel] |= {(*offset_at(source, channel), t) for t in lengths(timestamps)}
        assert arrived == truth.arrivals[layer.op]
        # Each group counts the gradients of its first channel, each once.
        assert layer.combinations == sum(len(arrived[group.start]) for group in layer.groups)
    assert distinct_combinations(paths.layers) == len(
        {arrival for layer in paths.layers for group in layer.groups for arrival in truth.arrivals[layer.op][group.start]}
    )


def test_channels_behind_a_mix_are_one_group() -> None:
    """Two heads of 3 channels: each channel has the 3 offsets of its head as sources."""
    b = GraphBuilder(3, act="")
    mixed = b._append("mix", (b.conv(b.image, 6),), 2, "mix", groups=2)
    b.output(b.conv(b._append("mix", (mixed,), 6, "copies", groups=2), 2), "p", stride=1)
    paths = gradient_paths(b.build())
    layer = paths.layers[0]
    offsets = [(group.start, group.stop, [source.offset for source in group.sources]) for group in layer.groups]
    assert offsets == [(0, 3, [0, 1, 2]), (3, 6, [3, 4, 5])]
    figures = paths.figures()
    assert (figures["combinations"], figures["distinct_combinations"]) == (2 * 3 + 1, 6 + 1)
