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

from gpnas.graph import POOLINGS, WEIGHTED, Branch, Graph, Op

POOLING_DISCOUNT = 0.8
"""What a gradient is worth after a pooling, which spreads it over pixels. Chosen on NAS-Bench-201 (docs/nasbench201.md)."""

Writer = tuple[int, int, int]
"""(layer, channel offset in the layer's output, poolings passed since)."""

Run = tuple[int, tuple[Writer, ...]]
"""(number of channels, their writers)."""


Link = tuple[int, int, int, int, int]
"""(start, stop, consumer, offset, poolings): channels [start, stop) of a layer are read by `consumer` from its input channel
`offset` on, after `poolings`. A consumer is an operation's index, or len(graph.ops) + k for the loss of graph.outputs[k]."""


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


class LayerPaths(NamedTuple):
    """The gradients of one layer. `timestamps` is the union over its channel groups."""

    op: int
    timestamps: int
    groups: tuple[ChannelGroup, ...]
    parameters: int
    aggregated_features: int
    """Number of layers whose outputs this layer reads."""
    poolings_per_path: float
    sharpness: float
    """Mean over its paths of POOLING_DISCOUNT ** poolings on the path: 1 where no gradient came through a pooling."""

    @property
    def shortest(self) -> int:
        return (self.timestamps & -self.timestamps).bit_length() - 1

    @property
    def longest(self) -> int:
        return self.timestamps.bit_length() - 1

    @property
    def combinations(self) -> int:
        return sum(source.timestamps.bit_count() for group in self.groups for source in group.sources)

    @property
    def sources(self) -> int:
        """Number of different (consumer, offset) pairs over the channel groups."""
        return len({source[:2] for group in self.groups for source in group.sources})


@dataclass(frozen=True)
class GradientPaths:
    """Every live layer of a network, in order of the graph's operations: it sees the image and reaches a loss."""

    layers: tuple[LayerPaths, ...]
    auxiliary_only: int = 0
    """Distinct combinations that exist only because of auxiliary losses (PGI, arXiv:2402.13616, section 3)."""

    def figures(self) -> dict[str, float]:
        """Whole-network figures by name; means are over live layers, `per_param` over their parameters."""
        layers = self.layers
        if not layers:
            return dict.fromkeys(FIGURES, 0.0)
        n = len(layers)
        live_params = shortest = longest = longest_shortest = timestamps = weighted = sources = aggregated = 0
        poolings = 0.0
        for _, bits, groups, weights, features, passed, _ in layers:
            count = bits.bit_count()
            first = (bits & -bits).bit_length() - 1
            live_params += weights
            shortest += first
            if first > longest_shortest:
                longest_shortest = first
            longest |= bits
            timestamps += count
            weighted += count * weights
            sources += len(groups[0][2]) if len(groups) == 1 else len({source[:2] for group in groups for source in group[2]})
            aggregated += features
            poolings += passed
        distinct, everything = _combinations(layers)
        return {
            "live_layers": n,
            "live_params": live_params,
            "longest": longest.bit_length() - 1,
            "longest_shortest": longest_shortest,
            "shortest_mean": shortest / n,
            "timestamps_mean": timestamps / n,
            "timestamps_per_param": weighted / max(live_params, 1),
            "sources_mean": sources / n,
            "combinations": everything,
            "distinct_combinations": distinct,
            "duplicated_share": 1 - distinct / everything,
            "poolings_per_path": poolings / n,
            "aggregated_features_mean": aggregated / n,
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
    return _combinations(layers)[0]


def _combinations(layers: Iterable[LayerPaths]) -> tuple[int, int]:
    """Distinct and all combinations."""
    seen: dict[tuple[int, int], int] = {}
    everything = 0
    for layer in layers:
        for _, _, sources in layer[2]:
            for consumer, offset, timestamps in sources:
                everything += timestamps.bit_count()
                key = (consumer, offset)
                seen[key] = seen.get(key, 0) | timestamps
    distinct = 0
    for timestamps in seen.values():
        distinct += timestamps.bit_count()
    return distinct, everything


def _links(graph: Graph) -> tuple[list[list[Link]], list[int]]:
    """Forward pass: for each operation, who reads what it writes, and how many layers it reads.

    A layer that does not see the image, only zeros, reads nothing and writes nothing.
    """
    links: list[list[Link]] = [[] for _ in graph.ops]
    aggregated = [0] * len(graph.ops)
    runs: list[list[Run]] = []
    blind: set[int] = set()
    for i, op in enumerate(graph.ops):
        kind = op.kind
        if kind == "zero" or (blind and i and blind.issuperset(op.inputs)):
            blind.add(i)
            runs.append([(op.channels, ())])
        elif kind in WEIGHTED:
            aggregated[i] = _read(runs[op.inputs[0]], i, links)
            runs.append([(op.channels, ((i, 0, 0),))])
        elif kind == "concat":
            runs.append([run for j in op.inputs for run in runs[j]])
        else:
            runs.append(_moved(op, [runs[j] for j in op.inputs]))
    for k, out in enumerate(graph.outputs):
        _read(runs[out.op], len(graph.ops) + k, links)
    return links, aggregated


def _read(runs: list[Run], consumer: int, links: list[list[Link]]) -> int:
    """Record that `consumer` reads `runs`; returns the number of different layers among their writers."""
    if len(runs) == 1 and len(runs[0][1]) == 1:  # a chain: most reads of most networks
        ((length, ((layer, start, poolings),)),) = runs
        links[layer].append((start, start + length, consumer, 0, poolings))
        return 1
    offset = 0
    layers = set()
    for length, writers in runs:
        for layer, start, poolings in writers:
            links[layer].append((start, start + length, consumer, offset, poolings))
            layers.add(layer)
        offset += length
    return len(layers)


def _moved(op: Op, inputs: list[list[Run]]) -> list[Run]:
    """The runs that an operation without weights makes of those of its inputs."""
    if op.kind == "slice":
        return _cut(inputs[0], op.start, op.start + op.channels)
    if op.kind in ("add", "join", "stack", "broadcast"):
        united = inputs[0]
        for other in inputs[1:]:
            united = _united(_spread(united, op.channels), _spread(other, op.channels))
        return united
    if op.kind == "masked_add":
        block, identity = inputs
        return [
            *_united(_cut(block, 0, op.kept), _cut(identity, 0, op.kept)),
            *_cut(block, op.kept, op.channels),
        ]
    if op.kind in ("image", "stop_gradient", "zero"):
        return [(op.channels, ())]
    if op.kind in POOLINGS:
        return [(n, tuple((layer, start, p + 1) for layer, start, p in writers)) for n, writers in inputs[0]]
    if op.kind == "shuffle":
        each = op.channels // op.scale
        return [_cut(inputs[0], k * each + i, k * each + i + 1)[0] for i in range(each) for k in range(op.scale)]
    return inputs[0]  # an activation, a normalisation or a resampling keeps its runs


def _spread(runs: list[Run], channels: int) -> list[Run]:
    """One channel that is repeated over `channels` (a spatial gate) writes each of them."""
    return runs * channels if len(runs) == 1 and runs[0][0] == 1 else runs


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
    ops, n, weights = graph.ops, len(graph.ops), graph.parameters
    arrived: list[LayerPaths | None] = [None] * n
    later = [0] * (n + len(graph.outputs))  # T(c) << 1: what a consumer passes on
    paths = [0] * len(later)  # paths from a loss to a consumer
    poolings = [0] * len(later)  # poolings on all of them together
    sharpness = [1.0] * len(later)
    alike = [True] * len(later)  # whether a consumer passes the same timestamps to each of its input channels
    for k, out in enumerate(graph.outputs):
        if branch is None or out.branch == branch:
            later[n + k], paths[n + k] = 1 << 1, 1
    for i in range(n - 1, 0, -1):
        live = links[i]
        if len(live) != 1:
            live = [link for link in live if later[link[2]]]
            if not live:
                continue
        start, stop, consumer, offset, passed = live[0]
        op = ops[i]
        timestamps, count = later[consumer], paths[consumer]
        if not timestamps:
            continue
        pooled = poolings[consumer] + passed * count
        sharp = sharpness[consumer] * POOLING_DISCOUNT**passed if passed else sharpness[consumer]
        groups: tuple[ChannelGroup, ...]
        if len(live) == 1 and alike[consumer]:  # a chain: most layers of most networks
            groups = (_new(ChannelGroup, (start, stop, (_new(Source, (consumer, offset, timestamps)),))),)
        else:
            groups = _channel_groups(ops, live, later, alike, arrived)
            timestamps = 0
            for _, _, sources in groups:
                for source in sources:
                    timestamps |= source[2]
            if not timestamps:
                continue
            for _, _, consumer, _, passed in live[1:]:
                more = paths[consumer]
                count += more
                pooled += poolings[consumer] + passed * more
                sharp += (sharpness[consumer] * POOLING_DISCOUNT**passed - sharp) * (more / count)  # a running mean
        later[i], paths[i], poolings[i], sharpness[i] = timestamps << 1, count, pooled, sharp
        if op.groups != 1:
            alike[i] = len(groups) == 1 and groups[0][1] - groups[0][0] == op.channels
        arrived[i] = _new(
            LayerPaths, (i, timestamps, groups, weights[i], aggregated[i], pooled / count if pooled else 0.0, sharp)
        )
    return tuple([layer for layer in arrived if layer])


_new = tuple.__new__  # of a NamedTuple: half the time of calling its class, for what is made a million times


def _channel_groups(
    ops: tuple[Op, ...], links: list[Link], later: list[int], alike: list[bool], arrived: list[LayerPaths | None]
) -> tuple[ChannelGroup, ...]:
    """Cut a layer's output where its consumers, their offsets or the arriving timestamps change."""
    start, stop = links[0][:2]
    for link in links:
        if link[0] != start or link[1] != stop or not alike[link[2]]:
            return _cut_groups(ops, links, later, alike, arrived)
    # All read the same channels. A set, as a layer may be read twice the same, by way of different poolings.
    readers = sorted({(consumer, offset, later[consumer]) for _, _, consumer, offset, _ in links})
    return (_new(ChannelGroup, (start, stop, tuple([_new(Source, reader) for reader in readers]))),)


def _cut_groups(
    ops: tuple[Op, ...], links: list[Link], later: list[int], alike: list[bool], arrived: list[LayerPaths | None]
) -> tuple[ChannelGroup, ...]:
    spans: set[tuple[int, int, int, int, int]] = set()  # (start, stop, consumer, offset - start, timestamps)
    for link in links:
        start, stop, consumer, offset, _ = link
        if alike[consumer]:
            spans.add((start, stop, consumer, offset - start, later[consumer]))
        else:
            spans.update(_grouped_spans(ops, link, arrived))
    borders = sorted({span[0] for span in spans} | {span[1] for span in spans})
    pieces: list[tuple[int, int, set[tuple[int, int, int]]]] = []
    for low, high in itertools.pairwise(borders):
        readers = {span[2:] for span in spans if span[0] <= low and high <= span[1]}
        if pieces and pieces[-1][1] == low and pieces[-1][2] == readers:
            pieces[-1] = (pieces[-1][0], high, readers)
        elif readers:
            pieces.append((low, high, readers))
    return tuple(
        [
            _new(ChannelGroup, (low, high, tuple(sorted([_new(Source, (c, low + d, t)) for c, d, t in readers]))))
            for low, high, readers in pieces
        ]
    )


def _grouped_spans(ops: tuple[Op, ...], link: Link, arrived: list[LayerPaths | None]) -> list[tuple[int, int, int, int, int]]:
    """A link with the timestamps that come through it: a grouped consumer may pass different ones to different channels."""
    start, stop, consumer, offset, _ = link
    shift = offset - start
    op = ops[consumer]
    paths = arrived[consumer]
    wide_in = ops[op.inputs[0]].channels // op.groups
    wide_out = op.channels // op.groups
    result: list[tuple[int, int, int, int, int]] = []
    for group in range(offset // wide_in, (offset + stop - start - 1) // wide_in + 1):
        timestamps = _timestamps_of(paths.groups if paths else (), group * wide_out, (group + 1) * wide_out) << 1
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
