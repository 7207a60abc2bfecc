"""Random graphs for the oracles of gradient paths: moves that append an operation, and graphs that are made of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from gpnas.graph.graph import Branch, Graph, GraphBuilder

Move = Callable[[GraphBuilder, int, list[int], random.Random], int]
"""Appends an operation that reads a given tensor, and may read others of a list, to a graph."""

MOST_CHANNELS = 6
MOST_LAYERS = 5


def random_graph(seed: int, moves: Sequence[str]) -> Graph:
    """A graph of about 9 operations, of which at most 5 are layers, with one resolution and one or two losses.

    No activation has a zero derivative, so a gradient that can pass does pass.
    """
    rng = random.Random(seed)
    b = GraphBuilder(channels=rng.randint(1, 4), act=rng.choice(("", "silu")))
    tensors = [b.image, b.conv(b.image, rng.randint(1, MOST_CHANNELS), norm=False)]
    layers = 1
    for _ in range(rng.randint(1, 9)):
        kind = rng.choice([*LAYER_MOVES, *moves] if layers < MOST_LAYERS else moves)
        layers += kind in LAYER_MOVES
        recent = tensors[-rng.choice((1, 1, 1, 2, 3, 4)) :][0]
        tensors.append((MOVES | TRACED_MOVES | MIXING_MOVES)[kind](b, recent, tensors, rng))
    b.output(tensors[-1], "main", stride=1)
    if rng.random() < 0.6:
        b.output(rng.choice(tensors[1:]), "other", stride=1, branch=rng.choice(list(Branch)))
    return b.build()


def _conv(b: GraphBuilder, x: int, tensors: list[int], rng: random.Random) -> int:
    return b.conv(x, rng.randint(1, 4), rng.choice((1, 3)), norm=False)


def _grouped(b: GraphBuilder, x: int, tensors: list[int], rng: random.Random) -> int:
    have = b.channels(x)
    groups = rng.choice([g for g in range(1, have + 1) if have % g == 0])
    return b.conv(x, groups * rng.randint(1, MOST_CHANNELS // groups), groups=groups, norm=False)


def _depthwise(b: GraphBuilder, x: int, tensors: list[int], rng: random.Random) -> int:
    return b.conv(x, b.channels(x), 3, groups=b.channels(x), norm=False)


def _concat(b: GraphBuilder, x: int, tensors: list[int], rng: random.Random) -> int:
    parts = [x]
    for y in rng.choices(tensors, k=2):
        if sum(b.channels(part) for part in parts) + b.channels(y) <= MOST_CHANNELS:
            parts.append(y)
    rng.shuffle(parts)
    return b.concat(parts)


def _slice(b: GraphBuilder, x: int, tensors: list[int], rng: random.Random) -> int:
    start = rng.randrange(b.channels(x))
    return b.slice(x, start, rng.randint(start + 1, b.channels(x)))


def _gather(b: GraphBuilder, x: int, tensors: list[int], rng: random.Random) -> int:
    """Some of the channels, in any order."""
    chosen = rng.sample(range(b.channels(x)), rng.randint(1, b.channels(x)))
    return b.concat([b.slice(x, channel, channel + 1) for channel in chosen])


def _part_through_a_layer(b: GraphBuilder, x: int, tensors: list[int], rng: random.Random) -> int:
    """Some channels pass one more layer than the others, so they have other timestamps."""
    if b.channels(x) < 2:
        return x
    first, second = b.split(x, rng.randint(1, b.channels(x) - 1))
    return b.concat([b.conv(first, b.channels(first), norm=False), second])


def _add(b: GraphBuilder, x: int, tensors: list[int], rng: random.Random) -> int:
    return b.add(x, rng.choice([y for y in tensors if b.channels(y) == b.channels(x)]))


def _masked_add(b: GraphBuilder, x: int, tensors: list[int], rng: random.Random) -> int:
    y = rng.choice(tensors)
    return b.masked_add(x, y, rng.randint(0, min(b.channels(x), b.channels(y))))


def _pool(b: GraphBuilder, x: int, tensors: list[int], rng: random.Random) -> int:
    kernel = rng.choice((1, 3))
    return b.max_pool(x, kernel) if rng.random() < 0.5 else b.avg_pool(x, kernel, padding=kernel // 2)


def _shuffle(b: GraphBuilder, x: int, tensors: list[int], rng: random.Random) -> int:
    channels = b.channels(x)
    groups = rng.choice([g for g in range(1, channels + 1) if channels % g == 0])
    return b._append("shuffle", (x,), channels, "shuffle", groups=groups)


def _gate(b: GraphBuilder, x: int, tensors: list[int], rng: random.Random) -> int:
    """A product with a tensor of one channel, which is repeated."""
    y = rng.choice(tensors)
    gate = b.slice(y, channel := rng.randrange(b.channels(y)), channel + 1)
    inputs = (x, gate) if rng.random() < 0.5 else (gate, x)
    return b._append(rng.choice(("join", "broadcast")), inputs, b.channels(x), "gate")


def _stack(b: GraphBuilder, x: int, tensors: list[int], rng: random.Random) -> int:
    return b._append("stack", (x, rng.choice([y for y in tensors if b.channels(y) == b.channels(x)])), b.channels(x), "stack")


def _mix(b: GraphBuilder, x: int, tensors: list[int], rng: random.Random) -> int:
    """Channels that all depend on all channels of their group."""
    have = b.channels(x)
    groups = rng.choice([g for g in range(1, have + 1) if have % g == 0])
    return b._append("mix", (x,), groups * rng.randint(1, MOST_CHANNELS // groups), "mix", groups=groups)


def _product(b: GraphBuilder, x: int, tensors: list[int], rng: random.Random) -> int:
    y = rng.choice([y for y in tensors if b.channels(y) == b.channels(x)])
    return b._append("product", (x, y), b.channels(x), "product")


def _plain(kind: str) -> Move:
    return lambda b, x, tensors, rng: b._append(kind, (x,), b.channels(x), kind)


MOVES: dict[str, Move] = {
    "conv": _conv,
    "grouped": _grouped,
    "depthwise": _depthwise,
    "part_through_a_layer": _part_through_a_layer,
    "concat": _concat,
    "slice": _slice,
    "gather": _gather,
    "add": _add,
    "masked_add": _masked_add,
    "pool": _pool,
    "act": lambda b, x, tensors, rng: b.act(x, "silu"),
    "upsample": lambda b, x, tensors, rng: b.upsample(x, 1),
    "stop_gradient": lambda b, x, tensors, rng: b.stop_gradient(x),
}


TRACED_MOVES: dict[str, Move] = {
    "shuffle": _shuffle,
    "gate": _gate,
    "stack": _stack,
    "zero": lambda b, x, tensors, rng: b.zero(x),
    **{kind: _plain(kind) for kind in ("norm", "gain", "fit")},
}
"""Kinds that only `trace` makes, or that torch cannot check: their gradients depend on statistics, or are zero."""

MIXING_MOVES: dict[str, Move] = {"mix": _mix, "product": _product}
"""Kinds of attention, behind which channels have fixed sources."""

LAYER_MOVES = ("conv", "grouped", "depthwise", "part_through_a_layer")
OTHER_MOVES = [name for name in MOVES if name not in LAYER_MOVES]
