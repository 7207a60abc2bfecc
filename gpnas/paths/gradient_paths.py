"""Which gradients reach each layer: after how many layers (timestamps), from where (sources), in which combinations.

The definitions count what the gradient-path paper describes in words (arXiv:2211.04800, sections 2.2, 3.1 and 3.2).

*Path length*: the number of layers that a gradient passes from the loss to a layer, that layer included. A prediction layer has
length 1.
*Timestamps* of a layer: the set of its path lengths, stored as a bit set: bit t is set when a path of length t exists.
*Source*: (consumer layer, input channel offset). Layers that are added share a source; layers that are concatenated do not.
*Channel group*: a span of a layer's output channels with the same consumers at consistent offsets.
*Combinations* of a channel group: its pairs (source, timestamp). *Distinct combinations* of a network: the different triples
(consumer, offset, timestamp) over all layers. *All combinations* count a triple once for each channel group that receives it.
The *duplicated share* is 1 - distinct / all: the paper's duplicated gradient information as a number.

A forward pass finds what each layer reads. A backward pass, last operation first, finds the flows that arrive at each tensor
(`flows.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from gpnas.graph.graph import POOLINGS, WEIGHTED, Branch, Graph, Op
from gpnas.paths.flows import (
    PARTS,
    TIMESTAMPS,
    Flow,
    FlowTuple,
    Segment,
    add_sources,
    cut,
    gathered,
    joined,
    offset_at,
    pooled,
    sent_by,
    sources_of,
    united,
    unmixed,
    unshuffled,
)


class Source(NamedTuple):
    """Where a channel group's gradient comes from, and when: bit t of `timestamps` stands for path length t.

    consumer: an operation's index, or len(graph.ops) + k for the loss of graph.outputs[k].
    """

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
    parameters: int
    aggregated_features: int
    """Number of layers whose outputs this layer reads."""
    combinations: int
    """Number of pairs (source, timestamp), over all channel groups."""
    sources: int
    """Number of different (consumer, offset) pairs."""
    poolings_per_path: float
    """Mean number of poolings on a path, first over the paths of a channel, then over channels."""
    sharpness: float
    """Mean of POOLING_DISCOUNT ** poolings of a path: 1 when no gradient came through a pooling."""
    segments: tuple[Segment, ...]

    @property
    def shortest(self) -> int:
        return (self.timestamps & -self.timestamps).bit_length() - 1

    @property
    def longest(self) -> int:
        return self.timestamps.bit_length() - 1

    @property
    def groups(self) -> tuple[ChannelGroup, ...]:
        return tuple(
            ChannelGroup(
                start,
                stop,
                tuple(sorted(Source(*offset_at(source, start), t) for source, t in sources_of(flow, shift).items())),
            )
            for start, stop, shift, flow in self.segments
        )

    @property
    def gradients(self) -> tuple[tuple[int, int, int, int], ...]:
        """Equal for two layers of one analysis that receive the very same gradients, as two layers that are added do."""
        return tuple((start, stop, shift, id(flow)) for start, stop, shift, flow in self.segments)


@dataclass(frozen=True)
class GradientPaths:
    """The live layers of a network, in order of the graph's operations. A live layer sees the image and reaches a loss."""

    layers: tuple[LayerPaths, ...]
    auxiliary_only: int = 0
    """Distinct combinations that exist only because of auxiliary losses (PGI, arXiv:2402.13616, section 3)."""

    def figures(self) -> dict[str, float]:
        """Whole-network figures by name. Means are over live layers, `per_param` figures over their parameters."""
        layers = self.layers
        if not layers:
            return dict.fromkeys(FIGURES, 0.0)
        n = len(layers)
        live_params = shortest = all_lengths = longest_shortest = timestamps = weighted = 0
        sources = combinations = aggregated = 0
        poolings = 0.0
        for _, lengths, params, layers_read, layer_combinations, layer_sources, layer_poolings, _, _ in layers:
            count = lengths.bit_count()
            first = (lengths & -lengths).bit_length() - 1
            live_params += params
            shortest += first
            if first > longest_shortest:
                longest_shortest = first
            all_lengths |= lengths
            timestamps += count
            weighted += count * params
            sources += layer_sources
            combinations += layer_combinations
            aggregated += layers_read
            poolings += layer_poolings
        distinct = distinct_combinations(layers)
        return {
            "live_layers": n,
            "live_params": live_params,
            "longest": all_lengths.bit_length() - 1,
            "longest_shortest": longest_shortest,
            "shortest_mean": shortest / n,
            "timestamps_mean": timestamps / n,
            "timestamps_per_param": weighted / max(live_params, 1),
            "sources_mean": sources / n,
            "combinations": combinations,
            "distinct_combinations": distinct,
            "duplicated_share": 1 - distinct / combinations,
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
    """The gradients of the losses of `branch` (of all losses when None) at each layer of `graph`."""
    aggregated = _aggregated_features(graph)
    layers = _backward(graph, aggregated, branch)
    auxiliary_only = 0
    if branch is None and any(out.branch == Branch.AUXILIARY for out in graph.outputs):
        main = _backward(graph, aggregated, Branch.MAIN)
        auxiliary_only = distinct_combinations(layers) - distinct_combinations(main)
    return GradientPaths(layers, auxiliary_only)


def distinct_combinations(layers: Iterable[LayerPaths]) -> int:
    """Number of different (consumer, offset, timestamp) triples that the layers receive."""
    sources: dict[tuple[int, int], int] = {}
    visited: set[tuple[int, int]] = set()
    get = sources.get
    for layer in layers:
        for start, _, shift, flow in layer.segments:
            parts = flow[PARTS]
            if parts.__class__ is int:  # one consumer, as at most layers: `add_sources`, without a call
                source = (parts, start + shift)
                sources[source] = get(source, 0) | flow[TIMESTAMPS]
            else:
                add_sources(flow, start + shift, sources, visited)
    return sum([timestamps.bit_count() for timestamps in sources.values()])


Runs = list[tuple[int, int]]
"""Which layers wrote the channels of a tensor, by runs of channels: (number of channels, bit set of layers)."""


def _aggregated_features(graph: Graph) -> list[int]:
    """Forward pass: for each layer, how many layers it reads; -1 for operations that do not see the image."""
    ops = graph.ops
    count = [0] * len(ops)
    runs: list[Runs] = []
    blind: set[int] = set()
    for i, op in enumerate(ops):
        kind, inputs, channels = op[:3]
        if kind == "zero" or (blind and i and blind.issuperset(inputs)):
            blind.add(i)
            count[i] = -1
            runs.append([(channels, 0)])
        elif kind in WEIGHTED:
            writers = 0
            for _, layers in runs[inputs[0]]:
                writers |= layers
            count[i] = writers.bit_count()
            runs.append([(channels, 1 << i)])
        elif kind == "concat":
            concatenated: Runs = []
            for j in inputs:
                concatenated += runs[j]
            runs.append(concatenated if len(concatenated) < MANY_RUNS else _joined_runs(concatenated))
        elif kind in _KEEPING:
            runs.append(runs[inputs[0]])
        elif kind == "slice":
            runs.append(_cut_runs(runs[inputs[0]], op.start, op.start + channels))
        else:
            runs.append(_runs_of(op, [runs[j] for j in op.inputs]))
    return count


_PASSING = frozenset({"act", "upsample", "norm", "gain", "fit"})
"""Kinds of one input that neither write channels nor change gradients."""

_KEEPING = _PASSING | POOLINGS


def _runs_of(op: Op, inputs: list[Runs]) -> Runs:
    if op.kind in ("image", "stop_gradient"):
        return [(op.channels, 0)]
    if op.kind == "masked_add":
        block, identity = inputs
        kept = _united_runs(_cut_runs(block, 0, op.kept), _cut_runs(identity, 0, op.kept))
        return [*kept, *_cut_runs(block, op.kept, op.channels)]
    if op.kind == "mix":
        read_runs = _joined_runs(inputs[0])
        if len(read_runs) == 1:
            return [(op.channels, read_runs[0][1])]
        width_in, width_out = sum(length for length, _ in read_runs) // op.groups, op.channels // op.groups
        result = []
        for group in range(op.groups):
            writers = 0
            for _, layers in _cut_runs(read_runs, group * width_in, (group + 1) * width_in):
                writers |= layers
            result.append((width_out, writers))
        return _joined_runs(result)
    if op.kind == "shuffle":
        whole = _joined_runs(inputs[0])
        if len(whole) == 1:
            return whole
        width = op.channels // op.groups
        read = [group * width + position for position in range(width) for group in range(op.groups)]
        return [_cut_runs(inputs[0], channel, channel + 1)[0] for channel in read]
    result = inputs[0]
    for other in inputs[1:]:
        result = _united_runs(_repeated(result, op.channels), _repeated(other, op.channels))
    return result


MANY_RUNS = 32
"""From so many runs on, it pays to look for neighbours with the same writers."""


def _joined_runs(runs: Runs) -> Runs:
    """Neighbouring runs with the same writers become one."""
    return [(sum(n for n, _ in same), writers) for writers, same in itertools.groupby(runs, key=lambda run: run[1])]


def _repeated(runs: Runs, channels: int) -> Runs:
    """One channel that is repeated over `channels`, as a gate over pixels, writes each of them."""
    return [(channels, runs[0][1])] if len(runs) == 1 and runs[0][0] == 1 else runs


def _cut_runs(runs: Runs, start: int, stop: int) -> Runs:
    result = []
    low = 0
    for length, writers in runs:
        high = low + length
        first, last = low if low > start else start, high if high < stop else stop
        if first < last:
            result.append((last - first, writers))
        low = high
    return result


def _united_runs(a: Runs, b: Runs) -> Runs:
    if len(a) == 1 and len(b) == 1:
        return [(a[0][0], a[0][1] | b[0][1])]
    ends = sorted({*itertools.accumulate(n for n, _ in a), *itertools.accumulate(n for n, _ in b)})
    spans = itertools.pairwise([0, *ends])
    return [(high - low, _cut_runs(a, low, high)[0][1] | _cut_runs(b, low, high)[0][1]) for low, high in spans]


def _backward(graph: Graph, aggregated: list[int], branch: Branch | None) -> tuple[LayerPaths, ...]:
    """Backward pass: the timestamps of a layer are those of its consumers, each plus 1; those of a loss are {0}."""
    ops, weights = graph.ops, graph.parameters
    arriving: list[list[Segment] | None] = [None] * len(ops)
    layers: list[LayerPaths] = []
    for k, out in enumerate(graph.outputs):
        if branch is None or out.branch == branch:
            loss = sent_by(len(ops) + k, 1 << 1, 1.0, 0.0, 1.0)
            _arrive(arriving, out.op, [(0, ops[out.op].channels, 0, loss)])
    for i in range(len(ops) - 1, 0, -1):
        segments = arriving[i]
        if segments is None or aggregated[i] < 0:
            continue
        arriving[i] = None
        op = ops[i]
        inputs = op.inputs
        kind = op.kind
        if kind in WEIGHTED:
            j = inputs[0]
            start, stop, _, flow = segments[0]
            if len(segments) == 1 and (op.groups == 1 or (start == 0 and stop == op.channels)):  # most layers
                timestamps, combinations, sources, paths, poolings, sharpness, _, _, _ = flow
                values = (i, timestamps, weights[i], aggregated[i], combinations, sources, poolings, sharpness, (segments[0],))
                layers.append(_new(LayerPaths, values))
                later = timestamps << 1
                flow = (later, later.bit_count(), 1, paths, poolings, sharpness, 1 << i, True, i)  # `sent_by`, without a call
                sent = [(0, ops[j].channels, 0, flow)]
            else:
                layer = _layer_of_groups(i, joined(segments), weights[i], aggregated[i])
                layers.append(layer)
                sent = _sent(op, layer, ops[j].channels)
            before = arriving[j]
            arriving[j] = sent if before is None else united(before, sent)
        elif kind == "concat":
            start = 0
            for j in inputs:
                stop = start + ops[j].channels
                low, high, shift, flow = segments[0]
                inside = low <= start and stop <= high
                part = [(0, stop - start, shift + start, flow)] if inside else cut(segments, start, stop)
                if part:
                    before = arriving[j]
                    arriving[j] = part if before is None else united(before, part)
                start = stop
        elif kind in _PASSING or kind == "add":
            for j in inputs:
                before = arriving[j]
                arriving[j] = segments if before is None else united(before, segments)
        else:
            for j, part in zip(inputs, _passed_back(op, ops, segments), strict=False):
                _arrive(arriving, j, part)
    layers.reverse()
    return tuple(layers)


def _arrive(arriving: list[list[Segment] | None], j: int, segments: list[Segment]) -> None:
    """Let `segments` arrive at tensor `j`, where others may have arrived before."""
    if segments:
        before = arriving[j]
        arriving[j] = segments if before is None else united(before, segments)


_new = tuple.__new__  # builds a NamedTuple in half the time that its class takes; a search builds millions


def _layer_of_groups(i: int, segments: list[Segment], weights: int, aggregated: int) -> LayerPaths:
    """A layer whose channel groups are `segments`. Means are over the channels that receive gradients."""
    timestamps = combinations = sources = width = 0
    poolings = sharpness = 0.0
    shifts = set()
    all_aligned = True
    for start, stop, shift, flow_tuple in segments:
        flow = Flow._make(flow_tuple)
        timestamps |= flow.timestamps
        combinations += flow.combinations
        sources += flow.sources
        width += stop - start
        poolings += (stop - start) * flow.poolings
        sharpness += (stop - start) * flow.sharpness
        shifts.add(shift)
        all_aligned = all_aligned and flow.aligned
    if len(segments) > 1 and not (all_aligned and len(shifts) == 1):
        # Two groups may have a source in common.
        sources = len({offset_at(source, start) for start, _, shift, flow in segments for source in sources_of(flow, shift)})
    values = (i, timestamps, weights, aggregated, combinations, sources, poolings / width, sharpness / width, tuple(segments))
    return _new(LayerPaths, values)


def _sent(op: Op, layer: LayerPaths, in_channels: int) -> list[Segment]:
    """A grouped layer sends to each group of its input what arrives at that group of its output."""
    segments = layer.segments
    width = sum([stop - start for start, stop, _, _ in segments])
    paths = sum([(stop - start) * Flow._make(flow).paths for start, stop, _, flow in segments]) / width
    width_in, width_out = in_channels // op.groups, op.channels // op.groups
    flows: dict[int, FlowTuple] = {}
    sent: list[Segment] = []
    for group in range(op.groups):
        timestamps = 0
        for start, stop, _, flow in segments:
            if start < (group + 1) * width_out and group * width_out < stop:
                timestamps |= flow[TIMESTAMPS]
        if timestamps:
            if timestamps not in flows:
                flows[timestamps] = sent_by(layer.op, timestamps << 1, paths, layer.poolings_per_path, layer.sharpness)
            sent.append((group * width_in, (group + 1) * width_in, 0, flows[timestamps]))
    return joined(sent)


def _passed_back(op: Op, ops: tuple[Op, ...], segments: list[Segment]) -> list[list[Segment]]:
    """What an operation without weights passes to each of its inputs."""
    if op.kind in ("stop_gradient", "zero"):
        return []
    if op.kind in POOLINGS:
        return [[(start, stop, 0, pooled(flow, shift)) for start, stop, shift, flow in segments]]
    if op.kind == "slice":
        return [[(start + op.start, stop + op.start, shift - op.start, flow) for start, stop, shift, flow in segments]]
    if op.kind == "masked_add":
        return [segments, cut(segments, 0, op.kept)]
    if op.kind == "shuffle":
        return [unshuffled(segments, op.channels, op.groups)]
    if op.kind == "mix":
        return [unmixed(segments, ops[op.inputs[0]].channels // op.groups, op.channels // op.groups, op.groups)]
    return [gathered(segments) if ops[j].channels == 1 < op.channels else segments for j in op.inputs]
