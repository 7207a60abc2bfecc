"""Devices and precisions by name; work in pieces where memory is short."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from evaluators.device import autocast, forget_peak, free_cache, in_pieces, peak_bytes, pick_device, pick_dtype
from gpnas.errors import OutOfMemory

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "precision", "dtype"),
    [
        (CPU, "auto", torch.float32),
        (CUDA, "auto", torch.bfloat16),
        (CPU, "bf16", torch.bfloat16),
        (CUDA, "fp32", torch.float32),
    ],
)
def test_auto_is_bf16_on_cuda_only(device: torch.device, precision: str, dtype: torch.dtype) -> None:
    assert pick_dtype(device, precision) == dtype


@pytest.mark.parametrize(("precision", "dtype"), [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_convolutions_compute_in_the_picked_type(precision: str, dtype: torch.dtype) -> None:
    with autocast(CPU, precision):
        output = torch.nn.Conv2d(3, 2, 1)(torch.ones(1, 3, 4, 5))
    assert output.dtype == dtype


@pytest.mark.parametrize(("available", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch, available: bool, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert pick_device("auto") == torch.device(device)
    assert pick_device("cpu") == CPU
    assert pick_device("cuda:1") == torch.device("cuda", 1)


class ShortOfMemory:
    """Work that fits up to `most` members at a time; `tried` holds the slices that it was given."""

    def __init__(self, most: int, error: BaseException) -> None:
        self.most, self.error = most, error
        self.tried: list[tuple[int, int]] = []

    def __call__(self, part: slice) -> list[int]:
        self.tried.append((part.start, part.stop))
        if part.stop - part.start > self.most:
            raise self.error
        return list(range(part.start, part.stop))


TOO_MUCH = torch.OutOfMemoryError("Tried to allocate 2.00 GiB")


@pytest.mark.parametrize(
    ("count", "most", "fits", "tried"),
    [
        (5, 9, 9, [(0, 5)]),
        (7, 3, 9, [(0, 3), (3, 6), (6, 7)]),
        (11, 8, 3, [(0, 8), (0, 4), (0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 11)]),
        (5, 5, 1, [(0, 5), (0, 2), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]),
        (0, 4, 4, []),
    ],
)
def test_pieces_are_halved_where_memory_runs_out_and_stay_so(
    count: int, most: int, fits: int, tried: list[tuple[int, int]]
) -> None:
    work = ShortOfMemory(fits, TOO_MUCH)
    made = list(in_pieces(count, most, work, CPU, "images"))
    assert work.tried == tried
    assert [i for result, _ in made for i in result] == list(range(count))
    assert [i for _, part in made for i in range(part.start, part.stop)] == list(range(count))


def test_one_member_that_does_not_fit_is_out_of_memory_and_other_errors_are_raised_as_they_are() -> None:
    work = ShortOfMemory(0, MemoryError())
    with pytest.raises(OutOfMemory, match="images of 64 pixels do not fit into memory, not even one at a time"):
        list(in_pieces(4, 2, work, CPU, "images of 64 pixels"))
    assert work.tried == [(0, 2), (0, 1)]
    work = ShortOfMemory(2, RuntimeError("size mismatch"))
    with pytest.raises(RuntimeError, match="size mismatch"):
        list(in_pieces(4, 4, work, CPU, "images"))
    assert work.tried == [(0, 4)]


def test_memory_is_that_of_the_device_that_is_used_and_counts_what_is_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def record(name: str) -> Callable[..., int]:
        def call(*args: object) -> int:
            calls.append(f"{name} {args}")
            return 77

        return call

    for name in ("empty_cache", "reset_peak_memory_stats", "max_memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, record(name))
    second = torch.device("cuda", 1)
    forget_peak(second)
    assert peak_bytes(second) == 77
    assert calls == ["empty_cache ()", f"reset_peak_memory_stats {(second,)}", f"max_memory_reserved {(second,)}"]
    calls.clear()
    forget_peak(CPU)
    free_cache(CPU)
    assert peak_bytes(CPU) is None and not calls
