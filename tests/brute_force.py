"""An oracle for gradient paths: it takes a graph apart into single channels and walks every path from a layer to a loss.

It shares no code and no idea with gpnas/paths: it has no segments, no bit sets and no dynamic programming. A node is
(operation, channel). An edge is one way for a gradient to travel, by the definition of the operation (design.md, section 3).
The paths are those of `networkx.all_simple_paths`, so graphs must be tiny.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import networkx as nx

from gpnas.graph.graph import Branch, Graph, Op

Arrival = tuple[int, int, int]
"""(consumer, input channel of the consumer, path length): one gradient that reaches one output channel of a layer."""

Signature = frozenset[tuple[int, int, int]]
"""Arrivals whose input channel is relative to the output channel. All channels of a channel group have the same."""

Source = tuple[int, int, frozenset[int]]
"""(consumer, its input channel that reads the group's first channel, path lengths)."""


@dataclass(frozen=True)
class Paths:
    """Every gradient of every layer that any gradient reaches: {layer: arrivals of each of its output channels}."""

    arrivals: dict[int, list[set[Arrival]]]

    @property
    def live(self) -> list[int]:
        return sorted(self.arrivals)

    def timestamps(self, layer: int) -> set[int]:
        return {length for channel in self.arrivals[layer] for _, _, length in channel}

    @cached_property
    def groups(self) -> dict[int, list[tuple[int, int, set[Source]]]]:
        """For each layer its channel groups [start, stop) with their sources, in order."""
        return {layer: list(_groups(channels)) for layer, channels in self.arrivals.items()}

    @property
    def combinations(self) -> list[Arrival]:
        """(consumer, offset, timestamp), once for each channel group of each layer that receives it."""
        return [
            (consumer, offset, length)
            for groups in self.groups.values()
            for _, _, sources in groups
            for consumer, offset, lengths in sources
            for length in lengths
        ]


def brute_force(graph: Graph, branch: Branch | None = None) -> Paths:
    """The gradients of the losses of `branch` (of all losses when None); consumer len(ops) + k is the loss of outputs[k]."""
    network = exploded(graph)
    losses = {
        (len(graph.ops) + k, channel)
        for k, out in enumerate(graph.outputs)
        if branch is None or out.branch == branch
        for channel in range(graph.ops[out.op].channels)
    }
    arrivals = {}
    for layer in (i for i, op in enumerate(graph.ops) if op.kind in ("conv", "linear")):
        channels: list[set[Arrival]] = [set() for _ in range(graph.ops[layer].channels)]
        if not _sees_image(graph, layer):
            continue
        for channel, arrived in enumerate(channels):
            arrived.update(_arrival(graph, path) for path in nx.all_simple_paths(network, (layer, channel), losses))
        if any(channels):
            arrivals[layer] = channels
    return Paths(arrivals)


def exploded(graph: Graph) -> nx.DiGraph:
    """A graph of single channels, with a forward edge wherever a gradient can travel backwards."""
    network = nx.DiGraph()
    for i, op in enumerate(graph.ops):
        for channel in range(op.channels):
            network.add_node((i, channel))
            network.add_edges_from((read, (i, channel)) for read in _read_by(graph, op, channel))
    for k, out in enumerate(graph.outputs):
        for channel in range(graph.ops[out.op].channels):
            network.add_edge((out.op, channel), (len(graph.ops) + k, channel))
    return network


def _read_by(graph: Graph, op: Op, channel: int) -> list[tuple[int, int]]:
    """The (operation, channel) pairs that output channel `channel` of `op` is differentiable in."""
    if op.kind in ("image", "stop_gradient", "zero"):
        return []
    first = op.inputs[0]
    if op.kind == "linear":
        return [(first, c) for c in range(graph.ops[first].channels)]
    if op.kind == "conv":
        group = [c * op.groups // graph.ops[first].channels for c in range(graph.ops[first].channels)]
        return [(first, c) for c, number in enumerate(group) if number == channel * op.groups // op.channels]
    if op.kind == "concat":
        return [[(j, c) for j in op.inputs for c in range(graph.ops[j].channels)][channel]]
    if op.kind == "slice":
        return [(first, op.start + channel)]
    if op.kind == "mix":
        width, made = graph.ops[first].channels // op.groups, op.channels // op.groups
        return [(first, c) for c in range(channel // made * width, (channel // made + 1) * width)]
    if op.kind in ("add", "stack", "product"):
        return [(j, channel) for j in op.inputs]
    if op.kind in ("join", "broadcast"):  # an input of one channel is repeated
        return [(j, channel if graph.ops[j].channels > 1 else 0) for j in op.inputs]
    if op.kind == "shuffle":
        order = [
            c for position in range(op.channels // op.groups) for c in range(position, op.channels, op.channels // op.groups)
        ]
        return [(first, order[channel])]
    if op.kind == "masked_add":
        return [(j, channel) for j in (op.inputs if channel < op.kept else op.inputs[:1])]
    return [(first, channel)]  # activation, pooling, upsampling: channel by channel


def _sees_image(graph: Graph, op: int) -> bool:
    """Follows operations, not edges, because the output of a stopped gradient still depends on the image."""
    return op == 0 or (graph.ops[op].kind != "zero" and any(_sees_image(graph, j) for j in graph.ops[op].inputs))


def layers_read(graph: Graph, layer: int) -> set[int]:
    """The layers whose outputs a layer reads, through operations that are not layers."""
    network = exploded(graph)
    (source,) = graph.ops[layer].inputs
    waiting = [(source, channel) for channel in range(graph.ops[source].channels)]
    layers, visited = set(), set(waiting)
    while waiting:
        op, channel = waiting.pop()
        if graph.ops[op].kind in ("conv", "linear"):
            layers.add(op)
            continue
        more = set(network.predecessors((op, channel))) - visited
        visited |= more
        waiting += more
    return layers


def _arrival(graph: Graph, path: list[tuple[int, int]]) -> Arrival:
    """The first consumer on a path from a layer to a loss, its input channel, and the number of layers on the path."""
    ops = [op for op, _ in path]
    reads = [op >= len(graph.ops) or graph.ops[op].kind in ("conv", "linear") for op in ops]
    consumer = reads.index(True, 1)
    # A consumer has one input, so its input channel is the channel of the node before it.
    return ops[consumer], path[consumer - 1][1], sum(reads) - 1  # the loss is no layer


def _groups(channels: list[set[Arrival]]) -> Iterator[tuple[int, int, set[Source]]]:
    signatures: list[Signature] = [
        frozenset((consumer, offset - channel, length) for consumer, offset, length in arrivals)
        for channel, arrivals in enumerate(channels)
    ]
    start = 0
    for stop in range(1, len(channels) + 1):
        if stop == len(channels) or signatures[stop] != signatures[start]:
            if channels[start]:
                lands = {(consumer, offset) for consumer, offset, _ in channels[start]}
                yield (
                    start,
                    stop,
                    {(c, o, frozenset(t for c2, o2, t in channels[start] if (c2, o2) == (c, o))) for c, o in lands},
                )
            start = stop
