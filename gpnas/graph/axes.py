"""Where the channels of an operation lie in a traced tensor: along one axis, over several (heads), or beside pixels in one.

Every axis of a tensor is a row of *parts*, the outer ones first, as an axis of 3 x 64 elements that is a view of (3, 64). A
part either counts channels or it does not: then it counts pixels, windows of pixels or images. A view, a permutation and an
index only move parts, so after any number of them it is known which elements belong to which channel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Part(NamedTuple):
    """A factor of an axis. step: how many channels lie between neighbours; 0 for pixels and images."""

    size: int
    step: int = 0


Axis = tuple[Part, ...]
Axes = tuple[Axis, ...]
"""The axes of a tensor. An axis of one element has no parts."""


def channels_along(shape: Sequence[int], axis: int) -> Axes:
    """The axes of a tensor of `shape` whose channels, all in order, lie along `axis`."""
    return tuple(_part(size, int(i == axis)) for i, size in enumerate(shape))


def pixels(size: int) -> Axis:
    """An axis without channels."""
    return _part(size, 0)


def _part(size: int, step: int) -> Axis:
    return (Part(size, step),) if size != 1 else ()


def holds(axes: Axes, axis: int) -> bool:
    """Whether the channels, all in order, lie along `axis`, and nothing else does."""
    along = axes[axis]
    return (not along or (len(along) == 1 and along[0].step == 1)) and all(
        part.step == 0 for i, parts in enumerate(axes) if i != axis for part in parts
    )


def channel_axis(axes: Axes) -> int | None:
    """The one axis that holds the channels. A single channel is said to lie along axis 1, or the first axis that has room."""
    order = [1, *range(2, len(axes)), 0] if len(axes) > 1 else [0]
    return next((axis for axis in order if holds(axes, axis)), None)


def channel_parts(parts: Iterable[Part]) -> list[Part]:
    return [part for part in parts if part.step]


def flattened(axes: Axes) -> list[Part]:
    """All parts of a tensor in order; neighbours that one part can stand for are one."""
    merged: list[Part] = []
    for part in itertools.chain.from_iterable(axes):
        last = merged[-1] if merged else None
        if last and last.step == part.size * part.step:
            merged[-1] = Part(last.size * part.size, part.step)
        else:
            merged.append(part)
    return merged


def reshaped(axes: Axes, shape: Sequence[int]) -> Axes | None:
    """The axes of a view as `shape`; None when an axis would begin or end inside of a part that does not divide so."""
    waiting = flattened(axes)[::-1]
    result = []
    for size in shape:
        axis: list[Part] = []
        while size > 1:
            if not waiting:
                return None
            part = waiting.pop()
            if part.size > size:
                inner, remainder = divmod(part.size, size)
                if remainder:
                    return None
                waiting.append(Part(inner, part.step))
                part = Part(size, part.step * inner)
            if size % part.size:
                return None
            size //= part.size
            axis.append(part)
        result.append(tuple(axis))
    return tuple(result) if not waiting else None


def in_order(parts: Sequence[Part]) -> list[Part]:
    """Parts of these sizes, with the steps of channels that are counted in this order, the last one fastest."""
    steps = [math.prod(part.size for part in parts[i + 1 :]) for i in range(len(parts))]
    return [Part(part.size, step) for part, step in zip(parts, steps, strict=True)]
