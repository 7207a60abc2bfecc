"""Products of two tensors of the image: `q @ k`, `torch.einsum`, `scaled_dot_product_attention`, gates over heads or tokens.

A product is no layer: it has no weights. Each of its channels depends on the channels of both factors that are multiplied into
it. An axis of channels that is summed, as those of query and key in attention, mixes them. So every channel of a query and of
a key gets a gradient from every channel of its head, and a channel of a value gets that of its own channel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import fx

from gpnas.graph.axes import Axis, Part, flattened, in_order
from gpnas.graph.moved_channels import rebuilt
from gpnas.graph.traced_values import Features, TracedOps, Value, name_in_module, operation_name, shape_of


class Factor(NamedTuple):
    x: Features
    letters: str
    """One for each axis, as in an einsum."""


class _Slot(NamedTuple):
    """A part of the channels of the result: the `place`-th part of the axis `letter`."""

    letter: str
    place: int
    size: int


def product(ops: TracedOps, node: fx.Node, a: Factor, b: Factor, result: str, *, sums: bool = True) -> Features | None:
    """Both factors multiplied, and summed over letters that `result` lacks. sums: whether these products have MACs.

    None when an axis is divided into parts in ways that do not fit, or stands twice in a factor.
    """
    if any(len(set(some)) < len(some) for some in (a.letters, b.letters, result)):
        return None
    of = [{letter: parts for letter, parts in zip(f.letters, f.x.axes, strict=True) if parts} for f in (a, b)]
    for letter in of[0].keys() & of[1].keys():
        divided = _divided(of[0][letter], of[1][letter])
        if divided is None:
            return None
        of[0][letter], of[1][letter] = divided
    target: dict[str, Axis] = {}
    for letter in result:
        first, second = (axes.get(letter, ()) for axes in of)
        both = tuple(p if p.step else q for p, q in zip(first, second, strict=True)) if first and second else ()
        target[letter] = both or first or second
    slots = [_Slot(letter, i, part.size) for letter in result for i, part in enumerate(target[letter]) if part.step]
    steps = dict(zip(slots, in_order([Part(slot.size) for slot in slots]), strict=True))
    inputs = tuple(
        rebuilt(
            ops, node, Features(f.x.op, tuple(axes.get(letter, ()) for letter in f.letters)), [_own(axes, s) for s in slots]
        )
        for f, axes in zip((a, b), of, strict=True)
    )
    placed = (
        tuple(steps[_Slot(letter, i, part.size)] if part.step else part for i, part in enumerate(target[letter]))
        for letter in result
    )
    axes = tuple(tuple(flattened((axis,))) for axis in placed)  # as few parts as in a tensor that was never divided
    made = Features(0, axes)
    channels_made = math.prod(slot.size for slot in slots)
    name = name_in_module(node, operation_name(node))
    if not sums:
        return Features(ops.append("broadcast", inputs, channels_made, name), axes)
    sizes = {letter: math.prod(part.size for part in parts) for some in of for letter, parts in some.items()}
    terms = math.prod(size for letter, size in sizes.items() if letter not in result)
    return Features(ops.append("product", inputs, channels_made, name, kernel=terms, size=ops.rows(made)), axes)


def _divided(a: Axis, b: Axis) -> tuple[Axis, Axis] | None:
    """Both axes in parts of the same sizes; None when one would begin inside of another that does not divide so."""
    waiting = [list(a[::-1]), list(b[::-1])]
    made: tuple[list[Part], list[Part]] = ([], [])
    while waiting[0] and waiting[1]:
        tops = [some.pop() for some in waiting]
        size = min(part.size for part in tops)
        for part, rest, done in zip(tops, waiting, made, strict=True):
            inner, remainder = divmod(part.size, size)
            if remainder:
                return None
            if inner > 1:
                rest.append(Part(inner, part.step))
            done.append(Part(size, part.step * inner))
    return None if waiting[0] or waiting[1] else (tuple(made[0]), tuple(made[1]))


def _own(axes: dict[str, Axis], slot: _Slot) -> Part:
    """The factor's channels at `slot`, or new ones of that size."""
    part = axes.get(slot.letter, ())[slot.place : slot.place + 1]
    return part[0] if part and part[0].step else Part(slot.size)


def elementwise(ops: TracedOps, node: fx.Node, x: Features, y: Features) -> Features | None:
    """Two tensors, one of which may repeat the other along an axis."""
    letters = _LETTERS[: max(len(x.axes), len(y.axes))]
    of_x, of_y = (letters[len(letters) - len(some.axes) :] for some in (x, y))
    return product(ops, node, Factor(x, of_x), Factor(y, of_y), letters, sums=False)


def matmul(ops: TracedOps, node: fx.Node, x: Features, y: Features) -> Features | None:
    """(..., rows, inner) @ (..., inner, columns)"""
    if min(len(x.axes), len(y.axes)) < 2:
        return None
    rank = max(len(x.axes), len(y.axes))
    before = _LETTERS[: rank - 2]
    of_x, of_y = (before[rank - len(some.axes) :] for some in (x, y))
    return product(ops, node, Factor(x, of_x + "ri"), Factor(y, of_y + "ic"), before + "rc")


def einsum(ops: TracedOps, node: fx.Node, equation: str, factors: Sequence[Features]) -> Features | None:
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    letters = inputs.split(",")
    if not arrow or len(letters) != 2 or "." in equation:
        return None
    a, b = (Factor(x, some) for x, some in zip(factors, letters, strict=True))
    return product(ops, node, a, b, result)


def attention(
    ops: TracedOps, node: fx.Node, query: Value, key: Value, value: Value, mask: Value = None, *_: Any, **__: Any
) -> Features | None:
    """(..., pixels, channels) of query, key and value. The softmax between the products is over pixels. A mask that is
    learned adds parameters."""
    if not all(isinstance(x, Features) for x in (query, key, value)) or isinstance(mask, Features):
        return None
    before = _LETTERS[: len(shape_of(node)) - 2]
    if any(len(x.axes) != len(before) + 2 for x in (query, key, value)):
        return None
    scores = product(ops, node, Factor(query, before + "ri"), Factor(key, before + "ci"), before + "rc")
    if scores is None or any(part.step for part in scores.axes[-1]):
        return None
    learned = ops.count(mask)
    weights = ops.unary(node, "gain", scores, learned=learned) if learned else scores
    return product(ops, node, Factor(weights, before + "rc"), Factor(value, before + "cv"), before + "rv")


_LETTERS = "ABCDEFGHKLMNOPQSTUVWXYZ"
"""Of axes that both factors have, none of which is one that `matmul` names."""
