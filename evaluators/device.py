"""Where a network computes, in which precision, and in how small pieces where memory is short."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import cv2
import torch

from gpnas.errors import OutOfMemory, is_out_of_memory

Result = TypeVar("Result")


def pick_device(device: str) -> torch.device:
    """The torch device of that name; "auto" is CUDA where there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else torch.device(device)


def pick_dtype(device: torch.device, precision: str) -> torch.dtype:
    """The type in which convolutions compute. precision: bf16, fp32, or auto, which is bf16 on CUDA and fp32 on a CPU.

    On a CPU with AMX instructions bf16 gains little time (`benchmarks/precision.py`), narrow networks lose time and accuracy,
    and weight gradients from feature maps of one pixel differ from run to run and can be infinite (torch 2.13).
    """
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context in which convolutions compute in the type of `pick_dtype`."""
    dtype = pick_dtype(device, precision)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16)


def in_pieces(
    count: int, most: int, work: Callable[[slice], Result], device: torch.device, what: str
) -> Iterator[tuple[Result, slice]]:
    """`work` for slices of range(count), in order: each result with its slice.

    A slice has at most `most` members. Where memory runs out it is cut in half, and so are all that follow. what: plural, for
    the message of OutOfMemory, which is raised when not even one member fits; other errors are raised as they are.
    """
    start = 0
    while start < count:
        part = slice(start, min(start + most, count))
        result = _attempt(work, part, what)
        if result is None:
            most = (part.stop - part.start) // 2
            free_cache(device)
            continue
        yield result[0], part
        start = part.stop


def _attempt(work: Callable[[slice], Result], part: slice, what: str) -> tuple[Result] | None:
    """The result of `work`; None where memory ran out and less can be tried. Nothing of a failed try stays alive."""
    try:
        return (work(part),)
    except (RuntimeError, MemoryError, cv2.error) as error:
        if not is_out_of_memory(error):
            raise
        if part.stop - part.start == 1:
            raise OutOfMemory(f"{what} do not fit into memory, not even one at a time") from error
        return None


def free_cache(device: torch.device) -> None:
    """Give memory that no tensor uses any more back to the GPU, for other processes and for tensors of other sizes."""
    if device.type == "cuda":
        gc.collect()  # what belongs to reference cycles
        torch.cuda.empty_cache()


def forget_peak(device: torch.device) -> None:
    """Measure the peak of a GPU's memory from here on, without what is only kept for later."""
    if device.type == "cuda":
        free_cache(device)
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """The most bytes of a GPU that this process has reserved since `forget_peak`; None on a CPU. Reserved, not allocated: what
    torch keeps for later is not there for other processes."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
