"""Small tensors that go to a device in one copy.

    parcel = packed([boxes, classes], pin=True)          # on the CPU, in a thread perhaps
    boxes, classes = unpacked(parcel, device)            # one copy, which nobody waits for; the tensors are views of it

From pinned memory a GPU fetches by itself: the copy is queued, and the CPU goes on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_ALIGNMENT = 64  # bytes: every tensor begins at a multiple, as tensors of their own do


class Parcel(NamedTuple):
    """Tensors in one buffer. types, shapes: of the tensors. starts: the first byte of each."""

    buffer: Tensor  # uint8 (bytes,), on the CPU
    types: tuple[torch.dtype, ...]
    shapes: tuple[torch.Size, ...]
    starts: tuple[int, ...]


def packed(tensors: Sequence[Tensor], *, pin: bool) -> Parcel:
    """Copy tensors of the CPU into one buffer. pin: in memory from which a GPU can copy while the CPU does something else."""
    lengths = [tensor.numel() * tensor.element_size() for tensor in tensors]
    *starts, total = itertools.accumulate((-(-length // _ALIGNMENT) * _ALIGNMENT for length in lengths), initial=0)
    buffer = torch.empty(total, dtype=torch.uint8, pin_memory=pin)
    parcel = Parcel(buffer, tuple(t.dtype for t in tensors), tuple(t.shape for t in tensors), tuple(starts))
    for view, tensor in zip(_views(parcel, buffer), tensors, strict=True):
        view.copy_(tensor)
    return parcel


def unpacked(parcel: Parcel, device: torch.device) -> list[Tensor]:
    """The tensors on `device`; on the CPU they are views of the parcel's buffer."""
    return _views(parcel, parcel.buffer.to(device, non_blocking=True))


def _views(parcel: Parcel, buffer: Tensor) -> list[Tensor]:
    return [
        buffer[start : start + shape.numel() * dtype.itemsize].view(dtype).view(shape)
        for dtype, shape, start in zip(parcel.types, parcel.shapes, parcel.starts, strict=True)
    ]
