"""Which gradients reach each layer: after how many layers (timestamps), from where (sources), in which combinations.

The definitions count what the gradient-path paper describes in words (arXiv:2211.04800, sections 2.2, 3.1 and 3.2).

*Path length*: layers that a gradient passes from the loss to a layer, that layer included; a prediction layer has length 1.
*Timestamps* T(l): the set of path lengths of layer l, kept as a bit set: bit t is set when a path of length t exists.
*Source*: (consumer layer, input channel offset). Layers that are added share a source; concatenated ones do not.
*Channel group*: a span of a layer's output channels with the same consumers at consistent offsets.
*Combinations* of a channel group: its pairs (source, timestamp). *Distinct combinations* of a network are the different
triples (consumer, offset, timestamp) over all layers; *all combinations* count a triple once for each group that receives it,
and the *duplicated share* is 1 - distinct / all: the paper's duplicated gradient information, made countable.

The forward pass follows *channel runs*: spans of channels with the (layer, channel offset) pairs that wrote them.
Concatenation joins lists of runs, slicing cuts them, addition unites their writers. Poolings keep runs but are counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from gpnas.graph import POOLINGS, Branch, Graph, Op, parameters

Writer = tuple[int, int, int]
"""(layer, channel offset in the layer's output, poolings passed since)."""

Run = tuple[int, tuple[Writer, ...]]
"""(number of channels, their writers)."""


class Link(NamedTuple):
    """Channels [start, stop) of a layer are read by `consumer` from its input channel `offset` on, after `poolings`.

    A consumer is an operation's index, or len(graph.ops) + k for the loss of graph.outputs[k].
    """

    start: int
    stop: int
    consumer: int
    offset: int
    poolings: int


class Source(NamedTuple):
    """Where a channel group's gradient comes from, and when: bit t of `timestamps` stands for path length t."""

    consumer: int
    offset: int
    timestamps: int


class ChannelGroup(NamedTuple):
    """Output channels [start, stop) of a layer, which all receive the same combination of gradients."""

    start: int
    stop: int
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class LayerPaths:
    """The gradients of one layer. `timestamps` is the union over its channel groups."""

    op: int
    timestamps: int
    groups: tuple[ChannelGroup, ...]
    parameters: int
    aggregated_features: int
    """Number of layers whose outputs this layer reads."""
    poolings_per_path: float

    @property
    def shortest(self) -> int:
        return (self.timestamps & -self.timestamps).bit_length() - 1

    @property
    def longest(self) -> int:
        return self.timestamps.bit_length() - 1

    @property
    def combinations(self) -> int:
        return sum(source.timestamps.bit_count() for group in self.groups for source in group.sources)


@dataclass(frozen=True)
class GradientPaths:
    """Every live layer of a network, in order of the graph's operations: it reaches a loss, and as all operations start from
    the image, it sees the image."""

    layers: tuple[LayerPaths, ...]
    auxiliary_only: int = 0
    """Distinct combinations that exist only because of auxiliary losses (PGI, arXiv:2402.13616, section 3)."""

    def figures(self) -> dict[str, float]:
        """Whole-network figures by name; means are over live layers, `per_param` over their parameters."""
        layers = self.layers
        if not layers:
            return dict.fromkeys(FIGURES, 0.0)
        n = len(layers)
        counts = [layer.timestamps.bit_count() for layer in layers]
        live_params = sum(layer.parameters for layer in layers)
        everything = sum(layer.combinations for layer in layers)
        distinct = distinct_combinations(layers)
        return {
            "live_layers": n,
            "live_params": live_params,
            "longest": max(layer.longest for layer in layers),
            "longest_shortest": max(layer.shortest for layer in layers),
            "shortest_mean": sum(layer.shortest for layer in layers) / n,
            "timestamps_mean": sum(counts) / n,
            "timestamps_per_param": sum(c * layer.parameters for c, layer in zip(counts, layers, strict=True))
            / max(live_params, 1),
            "sources_mean": sum(len({s[:2] for g in layer.groups for s in g.sources}) for layer in layers) / n,
            "combinations": everything,
            "distinct_combinations": distinct,
            "duplicated_share": 1 - distinct / everything,
            "poolings_per_path": sum(layer.poolings_per_path for layer in layers) / n,
            "aggregated_features_mean": sum(layer.aggregated_features for layer in layers) / n,
            "auxiliary_only": self.auxiliary_only,
        }


FIGURES = (
    "live_layers",
    "live_params",
    "longest",
    "longest_shortest",
    "shortest_mean",
    "timestamps_mean",
    "timestamps_per_param",
    "sources_mean",
    "combinations",
    "distinct_combinations",
    "duplicated_share",
    "poolings_per_path",
    "aggregated_features_mean",
    "auxiliary_only",
)


def gradient_paths(graph: Graph, branch: Branch | None = None) -> GradientPaths:
    """Follow the gradients of the losses of `branch` (of all losses when None) through `graph`."""
    links, aggregated = _links(graph)
    layers = _arrivals(graph, links, aggregated, branch)
    auxiliary_only = 0
    if branch is None and any(out.branch == Branch.AUXILIARY for out in graph.outputs):
        main = _arrivals(graph, links, aggregated, Branch.MAIN)
        auxiliary_only = distinct_combinations(layers) - distinct_combinations(main)
    return GradientPaths(layers, auxiliary_only)


def distinct_combinations(layers: Iterable[LayerPaths]) -> int:
    """Number of different (consumer, offset, timestamp) triples that the layers receive."""
    seen: dict[tuple[int, int], int] = {}
    for layer in layers:
        for group in layer.groups:
            for consumer, offset, timestamps in group.sources:
                seen[consumer, offset] = seen.get((consumer, offset), 0) | timestamps
    return sum(timestamps.bit_count() for timestamps in seen.values())


def _links(graph: Graph) -> tuple[list[list[Link]], list[int]]:
    """Forward pass: for each operation, who reads what it writes, and how many layers it reads."""
    links: list[list[Link]] = [[] for _ in graph.ops]
    aggregated = [0] * len(graph.ops)
    runs: list[list[Run]] = []
    for i, op in enumerate(graph.ops):
        if op.weighted:
            aggregated[i] = _read(runs[op.inputs[0]], i, links)
            runs.append([(op.channels, ((i, 0, 0),))])
        else:
            runs.append(_moved(op, [runs[j] for j in op.inputs]))
    for k, out in enumerate(graph.outputs):
        _read(runs[out.op], len(graph.ops) + k, links)
    return links, aggregated


def _read(runs: list[Run], consumer: int, links: list[list[Link]]) -> int:
    """Record that `consumer` reads `runs`; returns the number of different layers among their writers."""
    offset = 0
    layers = set()
    for length, writers in runs:
        for layer, start, poolings in writers:
            links[layer].append(Link(start, start + length, consumer, offset, poolings))
            layers.add(layer)
        offset += length
    return len(layers)


def _moved(op: Op, inputs: list[list[Run]]) -> list[Run]:
    """The runs that an operation without weights makes of those of its inputs."""
    if op.kind == "image":
        return [(op.channels, ())]
    if op.kind == "concat":
        return [run for runs in inputs for run in runs]
    if op.kind == "slice":
        return _cut(inputs[0], op.start, op.start + op.channels)
    if op.kind == "add":
        return _united(inputs[0], inputs[1])
    if op.kind == "masked_add":
        block, identity = inputs
        return [
            *_united(_cut(block, 0, op.kept), _cut(identity, 0, op.kept)),
            *_cut(block, op.kept, op.channels),
        ]
    if op.kind == "stop_gradient":
        return [(op.channels, ())]
    if op.kind in POOLINGS:
        return [(n, tuple((layer, start, p + 1) for layer, start, p in writers)) for n, writers in inputs[0]]
    return inputs[0]  # an activation or a resampling keeps its runs


def _cut(runs: list[Run], start: int, stop: int) -> list[Run]:
    """Channels [start, stop) of `runs`."""
    result: list[Run] = []
    at = 0
    for length, writers in runs:
        low, high = max(start, at), min(stop, at + length)
        if low < high:
            shift = low - at
            kept = tuple((layer, off + shift, p) for layer, off, p in writers) if shift else writers
            result.append((high - low, kept))
        at += length
    return result


def _united(a: list[Run], b: list[Run]) -> list[Run]:
    """The runs of a sum: both are cut at each other's borders, and the writers of aligned channels are united."""
    if len(a) == 1 and len(b) == 1:
        return [(a[0][0], _union(a[0][1], b[0][1]))]
    borders = sorted(_borders(a) | _borders(b))
    result: list[Run] = []
    for low, high in itertools.pairwise(borders):
        result.append((high - low, _union(_cut(a, low, high)[0][1], _cut(b, low, high)[0][1])))
    return result


def _union(a: tuple[Writer, ...], b: tuple[Writer, ...]) -> tuple[Writer, ...]:
    return a + tuple(writer for writer in b if writer not in a)


def _borders(runs: list[Run]) -> set[int]:
    borders = {0}
    at = 0
    for length, _ in runs:
        at += length
        borders.add(at)
    return borders


def _arrivals(graph: Graph, links: list[list[Link]], aggregated: list[int], branch: Branch | None) -> tuple[LayerPaths, ...]:
    """Backward pass, last layer first: T(l) = OR over consumers c of T(c) << 1; a loss has path length 0."""
    n = len(graph.ops)
    arrived: dict[int, LayerPaths] = {}
    paths = {n + k: 1 for k, out in enumerate(graph.outputs) if branch is None or out.branch == branch}
    poolings = dict.fromkeys(paths, 0)
    for i in range(n - 1, 0, -1):
        op = graph.ops[i]
        if not op.weighted:
            continue
        live = [link for link in links[i] if link.consumer in paths]
        if not live:
            continue
        groups = _channel_groups(graph, live, arrived)
        if not groups:
            continue
        timestamps = 0
        for group in groups:
            for source in group.sources:
                timestamps |= source.timestamps
        paths[i] = sum(paths[link.consumer] for link in live)
        poolings[i] = sum(poolings[link.consumer] + link.poolings * paths[link.consumer] for link in live)
        arrived[i] = LayerPaths(
            i,
            timestamps,
            groups,
            parameters(op, graph.ops[op.inputs[0]].channels),
            aggregated[i],
            poolings[i] / paths[i],
        )
    return tuple(arrived[i] for i in sorted(arrived))


def _channel_groups(graph: Graph, links: list[Link], arrived: dict[int, LayerPaths]) -> tuple[ChannelGroup, ...]:
    """Cut a layer's output where its consumers, their offsets or the arriving timestamps change."""
    spans: set[tuple[int, int, int, int, int]] = set()  # (start, stop, consumer, offset - start, timestamps)
    for link in links:
        spans.update(_spans(graph, link, arrived))
    if len({span[:2] for span in spans}) == 1:
        start, stop = next(iter(spans))[:2]
        return (ChannelGroup(start, stop, tuple(sorted(Source(c, start + d, t) for _, _, c, d, t in spans))),)
    borders = sorted({border for span in spans for border in span[:2]})
    pieces: list[tuple[int, int, set[tuple[int, int, int]]]] = []
    for low, high in itertools.pairwise(borders):
        readers = {span[2:] for span in spans if span[0] <= low and high <= span[1]}
        if pieces and pieces[-1][1] == low and pieces[-1][2] == readers:
            pieces[-1] = (pieces[-1][0], high, readers)
        elif readers:
            pieces.append((low, high, readers))
    return tuple(
        ChannelGroup(low, high, tuple(sorted(Source(c, low + d, t) for c, d, t in readers))) for low, high, readers in pieces
    )


def _spans(graph: Graph, link: Link, arrived: dict[int, LayerPaths]) -> list[tuple[int, int, int, int, int]]:
    """A link with the timestamps that come through it; a grouped consumer may pass different ones to different channels."""
    start, stop, consumer, offset, _ = link
    shift = offset - start
    if consumer >= len(graph.ops):
        return [(start, stop, consumer, shift, 1 << 1)]
    op = graph.ops[consumer]
    paths = arrived[consumer]
    if op.groups == 1:
        return [(start, stop, consumer, shift, paths.timestamps << 1)]
    wide_in = graph.ops[op.inputs[0]].channels // op.groups
    wide_out = op.channels // op.groups
    result: list[tuple[int, int, int, int, int]] = []
    for group in range(offset // wide_in, (offset + stop - start - 1) // wide_in + 1):
        timestamps = _timestamps_of(paths.groups, group * wide_out, (group + 1) * wide_out) << 1
        low = max(start, group * wide_in - shift)
        high = min(stop, (group + 1) * wide_in - shift)
        if result and result[-1][1] == low and result[-1][4] == timestamps:
            result[-1] = (result[-1][0], high, consumer, shift, timestamps)
        elif timestamps:
            result.append((low, high, consumer, shift, timestamps))
    return result


def _timestamps_of(groups: tuple[ChannelGroup, ...], start: int, stop: int) -> int:
    """Union of the timestamps that reach output channels [start, stop)."""
    timestamps = 0
    for group in groups:
        if group.start < stop and start < group.stop:
            for source in group.sources:
                timestamps |= source.timestamps
    return timestamps
