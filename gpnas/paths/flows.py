"""Flows: the gradients that arrive at channels of a tensor. How they are sent, cut, pooled, and united where they meet.

A tensor's channels are divided into *segments*; all channels of a segment receive the same *flow*. A layer sends a flow of its
own to the tensor that it reads. Concatenating and slicing cut segments. Where two flows meet, one flow holds both. A flow keeps
counts and refers to its parts instead of copying them, so what the blocks of a residual network share is stored once, and the
time of the analysis grows with the number of operations.
"""

from __future__ import annotations

import itertools
from typing import Any, Final, NamedTuple

POOLING_DISCOUNT = 0.8
"""What a gradient is worth after a pooling, which spreads it over pixels. Chosen on NAS-Bench-201 (docs/nasbench201.md)."""

MAX_PATHS = 1e300
"""Larger path counts are cut to this; they only weigh means."""


class Flow(NamedTuple):
    """The gradients that arrive at a channel. Counts are over its different (consumer, offset) pairs."""

    timestamps: int
    """Bit set: bit t stands for path length t."""
    combinations: int
    """Number of pairs (source, timestamp)."""
    sources: int
    paths: float
    """Number of ways, through operations, back to a loss."""
    poolings: float
    """Mean number of poolings on a path."""
    sharpness: float
    """Mean of POOLING_DISCOUNT ** poolings of a path."""
    consumers: int
    """Bit set of the consumers."""
    aligned: bool
    """Every part reads a channel at the channel's own position, so different channels have different sources."""
    parts: Any
    """An int: the one consumer, which reads a channel at its own position. A tuple: (flow, shift) for each flow that meets
    here, where `shift` is added to a channel's position. A dictionary, for flows with common consumers and for those that
    come through a `mix`: what `sources_of` returns."""


FlowTuple = tuple[int, int, int, float, float, float, int, bool, Any]
"""The fields of a `Flow`. The passes over a graph build millions of plain tuples, each in a third of the time of a NamedTuple.
Where speed does not matter, they are read as `Flow._make(flow)`."""

TIMESTAMPS: Final = 0
PARTS: Final = 8
"""Positions of two fields, for loops that read a flow without unpacking it."""

Segment = tuple[int, int, int, FlowTuple]
"""(start, stop, shift, flow): channels [start, stop) receive `flow`, which reads a channel at its position + shift."""


def sent_by(consumer: int, timestamps: int, paths: float, poolings: float, sharpness: float) -> FlowTuple:
    """The flow that a layer, or a loss, sends to all channels that it reads."""
    return timestamps, timestamps.bit_count(), 1, paths, poolings, sharpness, 1 << consumer, True, consumer


def sources_of(flow: FlowTuple, shift: int) -> dict[tuple[int, int], int]:
    """{(consumer, what to add to a channel's position to get the offset): timestamps} of all parts of a flow.

    Behind a `mix` each channel has the same sources, wherever it lies: (~consumer, offset) stands for such a fixed source."""
    sources: dict[tuple[int, int], int] = {}
    waiting = [(flow, shift)]
    while waiting:
        flow, shift = waiting.pop()
        parts = flow[PARTS]
        if parts.__class__ is int:
            sources[parts, shift] = sources.get((parts, shift), 0) | flow[TIMESTAMPS]
        elif parts.__class__ is dict:
            for (consumer, more), timestamps in parts.items():
                source = (consumer, shift + more if consumer >= 0 else more)
                sources[source] = sources.get(source, 0) | timestamps
        else:
            waiting += [(part, shift + more) for part, more in parts]
    return sources


def offset_at(source: tuple[int, int], position: int) -> tuple[int, int]:
    """(consumer, offset) of a key of `sources_of` for the channel at `position`."""
    consumer, more = source
    return (consumer, position + more) if consumer >= 0 else (~consumer, more)


def add_sources(flow: FlowTuple, position: int, sources: dict[tuple[int, int], int], visited: set[tuple[int, int]]) -> None:
    """Add the sources of `flow` for the channel at `position` to `sources`: {(consumer, offset): timestamps}.

    visited: (id of a flow, position) of all flows that were added before; they are not walked again.
    """
    get = sources.get
    waiting = [(flow, position)]
    while waiting:
        flow, position = waiting.pop()
        parts = flow[PARTS]
        if parts.__class__ is int:
            source = (parts, position)
            sources[source] = get(source, 0) | flow[TIMESTAMPS]
            continue
        visit = (id(flow), position)
        if visit in visited:
            continue
        visited.add(visit)
        if parts.__class__ is dict:
            for key, timestamps in parts.items():
                source = offset_at(key, position)
                sources[source] = sources.get(source, 0) | timestamps
        else:
            for part, shift in parts:
                waiting.append((part, position + shift))


def cut(segments: list[Segment], start: int, stop: int) -> list[Segment]:
    """Channels [start, stop) as a tensor of their own."""
    result = []
    for low, high, shift, flow in segments:
        first = low if low > start else start
        last = high if high < stop else stop
        if first < last:
            result.append((first - start, last - start, shift + start, flow))
    return result


def pooled(flow: FlowTuple, shift: int) -> FlowTuple:
    """A flow that goes back through one more pooling."""
    timestamps, combinations, sources, paths, poolings, sharpness, consumers, aligned, _ = flow
    sharpness *= POOLING_DISCOUNT
    part = ((flow, shift),)
    return timestamps, combinations, sources, paths, poolings + 1, sharpness, consumers, aligned and not shift, part


def unshuffled(segments: list[Segment], channels: int, groups: int) -> list[Segment]:
    """What arrives at the input of a channel shuffle, which interleaves the channels of `groups` groups."""
    group_width = channels // groups
    result: list[Segment] = []
    for start, stop, shift, flow in segments:
        for channel in range(start, stop):
            position, group = divmod(channel, groups)
            read = group * group_width + position
            result.append((read, read + 1, shift + channel - read, flow))
    return sorted(result, key=lambda segment: segment[0])


def gathered(segments: list[Segment]) -> list[Segment]:
    """What arrives at a tensor of one channel that is repeated over all channels of `segments`."""
    result: list[Segment] = []
    for start, stop, shift, flow in segments:
        for channel in range(start, stop):
            one: list[Segment] = [(0, 1, shift + channel, flow)]
            result = united(result, one) if result else one
    return result


def unmixed(segments: list[Segment], width_in: int, width_out: int, groups: int) -> list[Segment]:
    """What arrives at the input of a `mix`: to each channel of a group, all that arrives at the outputs of that group."""
    result: list[Segment] = []
    waiting = iter(segments)
    segment = next(waiting, None)
    for group in range(groups):
        first, last = group * width_out, (group + 1) * width_out
        here = []
        while segment is not None and segment[0] < last:
            start, stop, shift, flow = segment
            here.append((max(start, first), min(stop, last), shift, flow))
            if stop > last:
                break
            segment = next(waiting, None)
        if here:
            result.append((group * width_in, (group + 1) * width_in, 0, _mixed(here)))
    return joined(result)


def _mixed(segments: list[Segment]) -> FlowTuple:
    """One flow with all sources of all channels of `segments`. Its means are weighted by the numbers of paths."""
    parts: dict[tuple[int, int], int] = {}
    timestamps = consumers = 0
    paths = poolings = sharpness = 0.0
    for start, stop, shift, flow in segments:
        width = stop - start
        for (consumer, more), arriving in sources_of(flow, shift).items():
            fixed = [(consumer, more)] if consumer < 0 else [(~consumer, more + channel) for channel in range(start, stop)]
            for source in fixed:
                parts[source] = parts.get(source, 0) | arriving
        values = Flow._make(flow)
        timestamps |= values.timestamps
        consumers |= values.consumers
        here = min(width * values.paths, MAX_PATHS)
        paths += here
        poolings += (values.poolings - poolings) * here / paths
        sharpness += (values.sharpness - sharpness) * here / paths
        paths = min(paths, MAX_PATHS)
    combinations = sum(arriving.bit_count() for arriving in parts.values())
    return timestamps, combinations, len(parts), paths, poolings, sharpness, consumers, False, parts


def _is_fixed(flow: FlowTuple) -> bool:
    """Whether every channel has the same sources, wherever it lies."""
    parts = flow[PARTS]
    return parts.__class__ is dict and all(consumer < 0 for consumer, _ in parts)


def _without_covered(parts: dict[tuple[int, int], int], start: int, stop: int) -> dict[tuple[int, int], int]:
    """`parts` of the channels [start, stop), without what a channel's own offset adds to fixed sources that hold it too."""
    fixed = {source: arriving for source, arriving in parts.items() if source[0] < 0}
    if not fixed or len(fixed) == len(parts):
        return parts
    kept = {}
    for (consumer, more), arriving in parts.items():
        if consumer >= 0:
            covered = arriving
            for position in range(start, stop):
                covered &= fixed.get((~consumer, position + more), 0)
            arriving &= ~covered
        if arriving:
            kept[consumer, more] = arriving
    return kept


def joined(segments: list[Segment]) -> list[Segment]:
    """Neighbouring segments with equal gradients become one."""
    result = segments[:1]
    for low, high, next_shift, next_flow in segments[1:]:
        start, stop, shift, flow = result[-1]
        if stop == low and _equal(flow, shift, next_flow, next_shift):
            result[-1] = (start, high, shift, _mean(flow, next_flow, (high - low) / (high - start)))
        else:
            result.append((low, high, next_shift, next_flow))
    return result


def _equal(a: FlowTuple, a_shift: int, b: FlowTuple, b_shift: int) -> bool:
    """Whether both have the same sources and timestamps."""
    if a is b:
        return a_shift == b_shift or _is_fixed(a)
    x, y = Flow._make(a), Flow._make(b)
    if (x.timestamps, x.combinations, x.sources, x.consumers) != (y.timestamps, y.combinations, y.sources, y.consumers):
        return False
    return sources_of(a, a_shift) == sources_of(b, b_shift)


def _mean(a: FlowTuple, b: FlowTuple, share: float) -> FlowTuple:
    """Equal gradients that came through different poolings; `b` arrives at `share` of the channels."""
    if a is b:
        return a
    x, y = Flow._make(a), Flow._make(b)
    return x._replace(
        paths=x.paths + (y.paths - x.paths) * share,
        poolings=x.poolings + (y.poolings - x.poolings) * share,
        sharpness=x.sharpness + (y.sharpness - x.sharpness) * share,
    )


def united(a: list[Segment], b: list[Segment]) -> list[Segment]:
    """What arrives at a tensor from two readers, `a` from one and `b` from the other."""
    if len(a) == 1 and len(b) == 1:
        start, stop, shift, flow = a[0]
        low, high, other_shift, other = b[0]
        if start == low and stop == high:
            return [(start, stop, shift, _union(flow, other, other_shift - shift, (start + shift, stop + shift)))]
    if b[-1][1] <= a[0][0]:
        a, b = b, a
    if a[-1][1] <= b[0][0]:  # they read different channels, as the readers of the two parts of a split do
        start, stop, shift, flow = a[-1]
        low, high, other_shift, other = b[0]
        if stop == low and flow is other and shift == other_shift:
            return [*a[:-1], (start, high, shift, flow), *b[1:]]
        return a + b
    return _overlaid(a, b)


def _overlaid(a: list[Segment], b: list[Segment]) -> list[Segment]:
    """Both lists cut at each other's borders."""
    unions: dict[tuple[int, int, int], FlowTuple] = {}  # equal unions are one flow, so that their segments can be joined again
    borders = sorted({border for segment in (*a, *b) for border in segment[:2]})
    result: list[Segment] = []
    for low, high in itertools.pairwise(borders):
        here = [(shift, flow) for start, stop, shift, flow in (*a, *b) if start <= low and high <= stop]
        if not here:
            continue
        shift, flow = here[0]
        if len(here) == 2:
            other_shift, other = here[1]
            key = (id(flow), id(other), other_shift - shift)
            if _is_fixed(flow) or _is_fixed(other):  # what they share depends on the position
                unions.pop(key, None)
            if key not in unions:
                unions[key] = _union(flow, other, other_shift - shift, (low + shift, high + shift))
            flow = unions[key]
        if result and result[-1][1:3] == (low, shift) and result[-1][3] is flow:
            result[-1] = (result[-1][0], high, shift, flow)
        else:
            result.append((low, high, shift, flow))
    return result


def _union(a: FlowTuple, b: FlowTuple, shift: int, span: tuple[int, int]) -> FlowTuple:
    """Both flows; `b` reads a channel `shift` channels further on than `a`. span: the channels, as positions that `a` reads.
    Means are weighted by the numbers of paths."""
    timestamps, combinations, sources, paths, poolings, sharpness, consumers, aligned, _ = a
    more_timestamps, more_combinations, more_sources, more_paths, more_poolings, more_sharpness, others, also_aligned, _ = b
    parts: Any = ((a, 0), (b, shift))
    if not consumers & others:
        combinations += more_combinations
        sources += more_sources
    else:  # sources that both have count once
        parts = sources_of(a, 0)
        for source, arriving in sources_of(b, shift).items():
            parts[source] = parts.get(source, 0) | arriving
        parts = _without_covered(parts, *span)
        combinations = sum(arriving.bit_count() for arriving in parts.values())
        sources = len(parts)
    all_paths = paths + more_paths
    share = more_paths / all_paths
    if all_paths > MAX_PATHS:
        all_paths = MAX_PATHS
    poolings += (more_poolings - poolings) * share
    sharpness += (more_sharpness - sharpness) * share
    timestamps |= more_timestamps
    aligned = aligned and also_aligned and not shift
    return timestamps, combinations, sources, all_paths, poolings, sharpness, consumers | others, aligned, parts
