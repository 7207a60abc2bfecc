"""Which gradients reach each layer: after how many layers (timestamps), from where (sources), in which combinations.

The definitions count what the gradient-path paper describes in words (arXiv:2211.04800, sections 2.2, 3.1 and 3.2).

*Path length*: layers that a gradient passes from the loss to a layer, that layer included; a prediction layer has length 1.
*Timestamps* T(l): the set of path lengths of layer l, kept as a bit set: bit t is set when a path of length t exists.
*Source*: (consumer layer, input channel offset). Layers that are added share a source; concatenated ones do not.
*Channel group*: a span of a layer's output channels with the same consumers at consistent offsets.
*Combinations* of a channel group: its pairs (source, timestamp). *Distinct combinations* of a network are the different
triples (consumer, offset, timestamp) over all layers; *all combinations* count a triple once for each group that receives it,
and the *duplicated share* is 1 - distinct / all: the paper's duplicated gradient information, made countable.

The pass goes backwards over all operations. What arrives at a tensor is a list of *segments* of its channels, each with the
gradients that arrive there: a *flow*. A layer that reads a tensor sends a flow of its own; what is added hands its flow on as
it is; concatenating and slicing cut; two flows that meet become one that holds both. As a flow keeps counts and refers to its
parts, what residual networks share is kept once, and the time grows with the number of operations.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpnas.graph.graph import POOLINGS, WEIGHTED, Branch, Graph, Op

POOLING_DISCOUNT = 0.8
"""What a gradient is worth after a pooling, which spreads it over pixels. Chosen on NAS-Bench-201 (docs/nasbench201.md)."""

MOST_PATHS = 1e300
"""Path counts, which only weigh means, stop here."""


Flow = tuple[int, int, int, float, float, float, int, bool, Any]
"""The gradients that arrive at a channel: a plain tuple, as a search makes millions of them. Counts are over its different
(consumer, offset) pairs.

(timestamps: bit t stands for path length t; combinations; sources; paths: of operations, back to a loss; poolings: the mean
number on them; sharpness: the mean of POOLING_DISCOUNT ** poolings; consumers: the bit set of those it comes from; aligned:
every part reads the channel at its own position, so that different channels have different offsets; parts: a consumer, or the
flows that meet, each with what to add to a channel's position to get the offset, or, where these overlap, {(consumer, what to
add): timestamps})."""

Segment = tuple[int, int, int, Flow]
"""(start, stop, shift, flow): channels [start, stop) receive `flow`; a source's offset is position + shift + its part's."""


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
    """Pairs (source, timestamp), over all channel groups."""
    sources: int
    """Different (consumer, offset) pairs."""
    poolings_per_path: float
    """Mean over channels, of the mean over the paths of each."""
    sharpness: float
    """Mean of POOLING_DISCOUNT ** poolings: 1 where no gradient came through a pooling."""
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
            ChannelGroup(start, stop, tuple(sorted(Source(c, start + d, t) for (c, d), t in _listed(flow, shift).items())))
            for start, stop, shift, flow in self.segments
        )

    @property
    def gradients(self) -> tuple[tuple[int, int, int, int], ...]:
        """Equal for two layers of one analysis that are handed the very same gradients, as two that are added."""
        return tuple((start, stop, shift, id(flow)) for start, stop, shift, flow in self.segments)


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
        live_params = shortest = longest = longest_shortest = timestamps = weighted = sources = everything = aggregated = 0
        poolings = 0.0
        for _, bits, weights, features, combinations, origins, passed, _, _ in layers:
            count = bits.bit_count()
            first = (bits & -bits).bit_length() - 1
            live_params += weights
            shortest += first
            if first > longest_shortest:
                longest_shortest = first
            longest |= bits
            timestamps += count
            weighted += count * weights
            sources += origins
            everything += combinations
            aggregated += features
            poolings += passed
        distinct = distinct_combinations(layers)
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
    aggregated = _aggregated_features(graph)
    layers = _arrivals(graph, aggregated, branch)
    auxiliary_only = 0
    if branch is None and any(out.branch == Branch.AUXILIARY for out in graph.outputs):
        main = _arrivals(graph, aggregated, Branch.MAIN)
        auxiliary_only = distinct_combinations(layers) - distinct_combinations(main)
    return GradientPaths(layers, auxiliary_only)


def distinct_combinations(layers: Iterable[LayerPaths]) -> int:
    """Number of different (consumer, offset, timestamp) triples that the layers receive."""
    seen: dict[tuple[int, int], int] = {}
    visited: set[tuple[int, int]] = set()
    get = seen.get
    for layer in layers:
        for start, _, shift, flow in layer[8]:
            parts = flow[8]
            if parts.__class__ is int:
                key = (parts, start + shift)
                seen[key] = get(key, 0) | flow[0]
            else:
                _visit(flow, start + shift, seen, visited)
    return sum([timestamps.bit_count() for timestamps in seen.values()])


def _visit(flow: Flow, at: int, seen: dict[tuple[int, int], int], visited: set[tuple[int, int]]) -> None:
    """Add the sources of a flow at position `at`; what a flow shares with one visited before is not walked again."""
    waiting = [(flow, at)]
    while waiting:
        flow, at = waiting.pop()
        parts = flow[8]
        if parts.__class__ is int:
            key = (parts, at)
            seen[key] = seen.get(key, 0) | flow[0]
            continue
        key = (id(flow), at)
        if key in visited:
            continue
        visited.add(key)
        if parts.__class__ is dict:
            for (consumer, shift), timestamps in parts.items():
                key = (consumer, at + shift)
                seen[key] = seen.get(key, 0) | timestamps
        else:
            for part, shift in parts:
                waiting.append((part, at + shift))


def _listed(flow: Flow, shift: int) -> dict[tuple[int, int], int]:
    """{(consumer, what to add to a channel's position): timestamps} of every part of a flow."""
    found: dict[tuple[int, int], int] = {}
    waiting = [(flow, shift)]
    while waiting:
        flow, shift = waiting.pop()
        parts = flow[8]
        if parts.__class__ is int:
            found[parts, shift] = found.get((parts, shift), 0) | flow[0]
        elif parts.__class__ is dict:
            for (consumer, more), timestamps in parts.items():
                found[consumer, shift + more] = found.get((consumer, shift + more), 0) | timestamps
        else:
            waiting += [(part, shift + more) for part, more in parts]
    return found


def _aggregated_features(graph: Graph) -> list[int]:
    """Forward pass: for each layer, how many layers it reads; -1 for operations that do not see the image.

    What wrote a tensor is kept by runs of its channels: (length, bit set of layers).
    """
    ops = graph.ops
    count = [0] * len(ops)
    runs: list[list[tuple[int, int]]] = []
    blind: set[int] = set()
    for i, op in enumerate(ops):
        kind, inputs, channels = op[:3]
        if kind == "zero" or (blind and i and blind.issuperset(inputs)):
            blind.add(i)
            count[i] = -1
            runs.append([(channels, 0)])
        elif kind in WEIGHTED:
            writers = 0
            for _, more in runs[inputs[0]]:
                writers |= more
            count[i] = writers.bit_count()
            runs.append([(channels, 1 << i)])
        elif kind == "concat":
            joined: list[tuple[int, int]] = []
            for j in inputs:
                joined += runs[j]
            runs.append(joined)
        elif kind in _KEEPING:
            runs.append(runs[inputs[0]])
        elif kind == "slice":
            runs.append(_cut_runs(runs[inputs[0]], op.start, op.start + channels))
        else:
            runs.append(_written(op, [runs[j] for j in op.inputs]))
    return count


_PASSING = frozenset({"act", "upsample", "norm", "gain", "fit"})
"""Kinds of one input that hand gradients on as they are."""

_KEEPING = _PASSING | POOLINGS


def _written(op: Op, inputs: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    if op.kind in ("image", "stop_gradient"):
        return [(op.channels, 0)]
    if op.kind == "masked_add":
        block, identity = inputs
        kept = _united_runs(_cut_runs(block, 0, op.kept), _cut_runs(identity, 0, op.kept))
        return [*kept, *_cut_runs(block, op.kept, op.channels)]
    if op.kind == "shuffle":
        each = op.channels // op.scale
        return [_cut_runs(inputs[0], k * each + i, k * each + i + 1)[0] for i in range(each) for k in range(op.scale)]
    united = inputs[0]
    for other in inputs[1:]:
        united = _united_runs(_repeated(united, op.channels), _repeated(other, op.channels))
    return united


def _repeated(runs: list[tuple[int, int]], channels: int) -> list[tuple[int, int]]:
    """One channel that is repeated over `channels` (a spatial gate) writes each of them."""
    return [(channels, runs[0][1])] if len(runs) == 1 and runs[0][0] == 1 else runs


def _cut_runs(runs: list[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    result = []
    at = 0
    for length, writers in runs:
        end = at + length
        low, high = at if at > start else start, end if end < stop else stop
        if low < high:
            result.append((high - low, writers))
        at = end
    return result


def _united_runs(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> list[tuple[int, int]]:
    if len(a) == 1 and len(b) == 1:
        return [(a[0][0], a[0][1] | b[0][1])]
    ends = sorted({*itertools.accumulate(n for n, _ in a), *itertools.accumulate(n for n, _ in b)})
    spans = itertools.pairwise([0, *ends])
    return [(high - low, _cut_runs(a, low, high)[0][1] | _cut_runs(b, low, high)[0][1]) for low, high in spans]


def _arrivals(graph: Graph, aggregated: list[int], branch: Branch | None) -> tuple[LayerPaths, ...]:
    """Backward pass, last operation first: T(l) = OR over consumers c of T(c) << 1; a loss has path length 0."""
    ops, weights = graph.ops, graph.parameters
    arriving: list[list[Segment] | None] = [None] * len(ops)
    layers: list[LayerPaths] = []
    for k, out in enumerate(graph.outputs):
        if branch is None or out.branch == branch:
            flow = (1 << 1, 1, 1, 1.0, 0.0, 1.0, 1 << (len(ops) + k), True, len(ops) + k)
            _meet(arriving, out.op, [(0, ops[out.op].channels, 0, flow)])
    for i in range(len(ops) - 1, 0, -1):
        segments = arriving[i]
        if segments is None or aggregated[i] < 0:
            continue
        arriving[i] = None
        op = ops[i]
        inputs = op.inputs
        kind = op.kind
        if kind in WEIGHTED:
            if len(segments) == 1 and (op.groups == 1 or _whole(segments[0], op.channels)):  # most layers of most networks
                bits, combinations, sources, paths, poolings, sharpness, _, _, _ = segments[0][3]
                values = (i, bits, weights[i], aggregated[i], combinations, sources, poolings, sharpness, (segments[0],))
                layers.append(_new(LayerPaths, values))
                later = bits << 1
                flow = (later, later.bit_count(), 1, paths, poolings, sharpness, 1 << i, True, i)
                sent = [(0, ops[inputs[0]].channels, 0, flow)]
            else:
                layer = _layer(i, segments, weights[i], aggregated[i])
                layers.append(layer)
                sent = _sent(op, i, ops[inputs[0]].channels, layer)
            j = inputs[0]
            arriving[j] = sent if arriving[j] is None else _united(arriving[j], sent)  # type: ignore[arg-type]
        elif kind == "concat":
            at = 0
            for j in inputs:
                width = ops[j].channels
                start, stop, shift, flow = segments[0]
                inside = start <= at and at + width <= stop
                part = [(0, width, shift + at, flow)] if inside else _cut(segments, at, at + width)
                if part:
                    here = arriving[j]
                    arriving[j] = part if here is None else _united(here, part)
                at += width
        elif kind in _PASSING or (kind == "add" and ops[inputs[0]].channels == ops[inputs[1]].channels):
            for j in inputs:
                here = arriving[j]
                arriving[j] = segments if here is None else _united(here, segments)
        else:
            for j, part in zip(inputs, _moved_back(op, ops, segments), strict=False):
                _meet(arriving, j, part)
    layers.reverse()
    return tuple(layers)


_new = tuple.__new__  # of a NamedTuple: half the time of calling its class, for what a search makes a million times


def _whole(segment: Segment, channels: int) -> bool:
    return segment[0] == 0 and segment[1] == channels


def _paths(segments: tuple[Segment, ...]) -> float:
    """Paths of a channel, in the mean over those that receive gradients."""
    return sum((stop - start) * flow[3] for start, stop, _, flow in segments) / sum(s[1] - s[0] for s in segments)


def _layer(i: int, segments: list[Segment], weights: int, aggregated: int) -> LayerPaths:
    """What a layer receives, over its channel groups: neighbouring segments with equal gradients are one."""
    segments = _joined(segments)
    bits = combinations = sources = width = 0
    poolings = sharpness = 0.0
    for start, stop, _, flow in segments:
        bits |= flow[0]
        combinations += flow[1]
        sources += flow[2]
        width += stop - start
        poolings += (stop - start) * flow[4]
        sharpness += (stop - start) * flow[5]
    if len(segments) > 1 and not all(s[3][7] and s[2] == segments[0][2] for s in segments):
        read: set[tuple[int, int]] = set()
        for start, _, shift, flow in segments:
            read.update([(c, start + d) for c, d in _listed(flow, shift)])
        sources = len(read)
    return _new(
        LayerPaths,
        (i, bits, weights, aggregated, combinations, sources, poolings / width, sharpness / width, tuple(segments)),
    )


def _joined(segments: list[Segment]) -> list[Segment]:
    result = segments[:1]
    for segment in segments[1:]:
        start, stop, shift, flow = result[-1]
        if stop == segment[0] and _equal(flow, shift, segment[3], segment[2]):
            result[-1] = (start, segment[1], shift, _mean(flow, segment[3], (segment[1] - stop) / (segment[1] - start)))
        else:
            result.append(segment)
    return result


def _mean(a: Flow, b: Flow, share: float) -> Flow:
    """Equal gradients that came through different poolings, `b` to `share` of the channels."""
    if a is b:
        return a
    paths, poolings, sharpness = (x + (y - x) * share for x, y in zip(a[3:6], b[3:6], strict=True))
    return (*a[:3], paths, poolings, sharpness, *a[6:])


def _equal(a: Flow, a_shift: int, b: Flow, b_shift: int) -> bool:
    if a is b:
        return a_shift == b_shift
    if a[:3] != b[:3] or a[6] != b[6]:
        return False
    return _listed(a, a_shift) == _listed(b, b_shift)


def _sent(op: Op, i: int, read: int, layer: LayerPaths) -> list[Segment]:
    """A grouped layer passes to each group of its input what arrives at that group of its output."""
    if op.groups == 1:
        later, paths = layer.timestamps << 1, _paths(layer.segments)
        values = (later, later.bit_count(), 1, paths, layer.poolings_per_path, layer.sharpness, 1 << i, True, i)
        return [(0, read, 0, values)]
    wide_in, wide_out = read // op.groups, op.channels // op.groups
    paths, passed, sharp = _paths(layer.segments), layer.poolings_per_path, layer.sharpness
    flows: dict[int, Flow] = {}
    sent: list[Segment] = []
    for group in range(op.groups):
        timestamps = 0
        for start, stop, _, flow in layer.segments:
            if start < (group + 1) * wide_out and group * wide_out < stop:
                timestamps |= flow[0]
        if timestamps:
            later = timestamps << 1
            if later not in flows:
                flows[later] = (later, later.bit_count(), 1, paths, passed, sharp, 1 << i, True, i)
            sent.append((group * wide_in, (group + 1) * wide_in, 0, flows[later]))
    return _joined(sent)


def _moved_back(op: Op, ops: tuple[Op, ...], segments: list[Segment]) -> list[list[Segment]]:
    """What an operation without weights hands to each of its inputs."""
    if op.kind in ("stop_gradient", "zero"):
        return []
    if op.kind in POOLINGS:
        return [[(start, stop, 0, _pooled(flow, shift)) for start, stop, shift, flow in segments]]
    if op.kind == "slice":
        return [[(start + op.start, stop + op.start, shift - op.start, flow) for start, stop, shift, flow in segments]]
    if op.kind == "masked_add":
        return [segments, _cut(segments, 0, op.kept)]
    if op.kind == "shuffle":
        return [_unshuffled(op, segments)]
    return [_gathered(segments) if ops[j].channels == 1 < op.channels else segments for j in op.inputs]


def _pooled(flow: Flow, shift: int) -> Flow:
    timestamps, combinations, sources, paths, poolings, sharpness, consumers, aligned, _ = flow
    sharp = sharpness * POOLING_DISCOUNT
    return timestamps, combinations, sources, paths, poolings + 1, sharp, consumers, aligned and not shift, ((flow, shift),)


def _unshuffled(op: Op, segments: list[Segment]) -> list[Segment]:
    each = op.channels // op.scale
    found: list[Segment] = []
    for start, stop, shift, flow in segments:
        for j in range(start, stop):
            i, k = divmod(j, op.scale)
            at = k * each + i
            found.append((at, at + 1, shift + j - at, flow))
    return sorted(found, key=lambda segment: segment[0])


def _gathered(segments: list[Segment]) -> list[Segment]:
    """One channel that is repeated over many receives what arrives at each of them."""
    gathered: list[Segment] | None = None
    for start, stop, shift, flow in segments:
        for j in range(start, stop):
            one = [(0, 1, shift + j, flow)]
            gathered = one if gathered is None else _united(gathered, one)
    return gathered or []


def _cut(segments: list[Segment], start: int, stop: int) -> list[Segment]:
    """Channels [start, stop) as a tensor of their own."""
    result = []
    for low, high, shift, flow in segments:
        first = low if low > start else start
        last = high if high < stop else stop
        if first < last:
            result.append((first - start, last - start, shift + start, flow))
    return result


def _meet(arriving: list[list[Segment] | None], j: int, segments: list[Segment]) -> None:
    """Let `segments` arrive at tensor `j`, where others may have arrived before."""
    if segments:
        here = arriving[j]
        arriving[j] = segments if here is None else _united(here, segments)


def _united(a: list[Segment], b: list[Segment]) -> list[Segment]:
    """What two readers of a tensor send it, together."""
    if len(a) == 1 and len(b) == 1:
        start, stop, shift, flow = a[0]
        low, high, other_shift, other = b[0]
        if start == low and stop == high:
            return [(start, stop, shift, _union(flow, other, other_shift - shift))]
    if b[-1][1] <= a[0][0]:
        a, b = b, a
    if a[-1][1] <= b[0][0]:  # side by side, as the parts of a split
        last, first = a[-1], b[0]
        if last[1] == first[0] and last[3] is first[3] and last[2] == first[2]:
            return [*a[:-1], (last[0], first[1], last[2], last[3]), *b[1:]]
        return a + b
    return _overlaid(a, b)


def _overlaid(a: list[Segment], b: list[Segment]) -> list[Segment]:
    """Both lists cut at each other's borders."""
    made: dict[tuple[int, int, int], Flow] = {}  # equal unions are one flow, so that their segments can be joined again
    borders = sorted({border for segment in (*a, *b) for border in segment[:2]})
    result: list[Segment] = []
    for low, high in itertools.pairwise(borders):
        here = [segment[2:] for segment in (*a, *b) if segment[0] <= low and high <= segment[1]]
        if not here:
            continue
        shift, flow = here[0]
        if len(here) == 2:
            more, other = here[1]
            key = (id(flow), id(other), more - shift)
            if key not in made:
                made[key] = _union(flow, other, more - shift)
            flow = made[key]
        if result and result[-1][1] == low and result[-1][2] == shift and result[-1][3] is flow:
            result[-1] = (result[-1][0], high, shift, flow)
        else:
            result.append((low, high, shift, flow))
    return result


def _union(a: Flow, b: Flow, shift: int) -> Flow:
    """Both flows, the second read `shift` channels further on than the first."""
    paths = a[3] + b[3]
    share = b[3] / paths
    if paths > MOST_PATHS:
        paths = MOST_PATHS
    poolings = a[4] + (b[4] - a[4]) * share
    sharpness = a[5] + (b[5] - a[5]) * share
    timestamps, consumers = a[0] | b[0], a[6] | b[6]
    aligned = a[7] and b[7] and not shift
    if not a[6] & b[6]:
        return timestamps, a[1] + b[1], a[2] + b[2], paths, poolings, sharpness, consumers, aligned, ((a, 0), (b, shift))
    # What they share counts once.
    found = _listed(a, 0)
    for key, more in _listed(b, shift).items():
        found[key] = found.get(key, 0) | more
    combinations = sum(bits.bit_count() for bits in found.values())
    return timestamps, combinations, len(found), paths, poolings, sharpness, consumers, aligned, found
