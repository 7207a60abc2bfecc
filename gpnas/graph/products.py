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

from gpnas.graph.axes import Axis, Part, in_order
from gpnas.graph.moved_channels import rebuilt
from gpnas.graph.traced_values import Features, TracedOps, Value, name_in_module, operation_name, shape_of


class Factor(NamedTuple):
    x: Features
    letters: str
    """One for each axis, as in an einsum."""


class _Slot(NamedTuple):
    """A part of the channels of the result: the `index`-th part of the axis `letter`."""

    letter: str
    index: int
    size: int


def product(
    ops: TracedOps, node: fx.Node, a: Factor, b: Factor, result: str, *, sums: bool = True
) -> Features | None:
    """Both factors multiplied, and summed over letters that `result` lacks. sums: whether these products have MACs.

    None when both factors have channels along one axis, divided in different ways, or an axis stands twice in a factor.
    """
    of = [{letter: parts for letter, parts in zip(f.letters, f.x.axes, strict=True) if parts} for f in (a, b)]
    if any(len(set(some)) < len(some) for some in (a.letters, b.letters, result)):
        return None
    target: dict[str, Axis] = {}
    for letter in result:
        options = [axes[letter] for axes in of if letter in axes]
        channels = [parts for parts in options if any(part.step for part in parts)]
        if len(channels) == 2 and _pattern(channels[0]) != _pattern(channels[1]):
            return None
        target[letter] = (channels or options or [()])[0]
    slots = [
        _Slot(letter, i, part.size) for letter in result for i, part in enumerate(target[letter]) if part.step
    ]
    steps = dict(zip(slots, in_order([Part(slot.size) for slot in slots]), strict=True))
    inputs = tuple(
        rebuilt(ops, node, factor.x, [_own(axes, slot) for slot in slots]) for factor, axes in zip((a, b), of, strict=True)
    )
    axes = tuple(
        tuple(steps[_Slot(letter, i, part.size)] if part.step else part for i, part in enumerate(target[letter]))
        for letter in result
    )
    made = Features(0, axes)
    channels_made = math.prod(slot.size for slot in slots)
    name = name_in_module(node, operation_name(node))
    if not sums:
        return Features(ops.append("broadcast", inputs, channels_made, name), axes)
    sizes = {letter: math.prod(part.size for part in parts) for some in of for letter, parts in some.items()}
    terms = math.prod(size for letter, size in sizes.items() if letter not in result)
    return Features(ops.append("product", inputs, channels_made, name, kernel=terms, size=ops.rows(made)), axes)


def _pattern(parts: Axis) -> list[tuple[int, bool]]:
    return [(part.size, part.step > 0) for part in parts]


def _own(axes: dict[str, Axis], slot: _Slot) -> Part:
    """The factor's channels at `slot`, or new ones of that size."""
    parts = axes.get(slot.letter, ())
    has_channels = any(part.step for part in parts)
    return parts[slot.index] if has_channels else Part(slot.size)


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

