"""Tensors that travel in one buffer arrive as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from evaluators.data.parcel import packed, unpacked

CPU = torch.device("cpu")


def test_tensors_of_all_types_and_shapes_arrive_unchanged_from_one_buffer() -> None:
    sent: list[Tensor] = [
        torch.arange(12, dtype=torch.int64).view(3, 4),
        torch.tensor([[True, False, True]]),
        torch.linspace(-1, 1, 10).view(5, 2).t(),  # not contiguous
        torch.zeros(0, 4),
        torch.tensor(7.5),
    ]
    parcel = packed(sent, pin=False)
    received = unpacked(parcel, CPU)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(sent, received, strict=True))
    assert {tensor.untyped_storage().data_ptr() for tensor in received} == {parcel.buffer.untyped_storage().data_ptr()}
    assert [start % 64 for start in parcel.starts] == [0] * 5 and len(parcel.buffer) == 128 + 64 + 64 + 0 + 64


def test_it_is_sent_from_pinned_memory_by_one_copy_that_nobody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    empty, pinned = torch.empty, list[bool]()

    def recorded(*shape: int, pin_memory: bool, **options: Any) -> Tensor:  # without a GPU nothing can be pinned
        pinned.append(pin_memory)
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", recorded)
    parcel = packed([torch.zeros(3), torch.ones(2, 2)], pin=True)
    assert pinned == [True]
    copies: list[dict[str, bool]] = []

    class Watched(Tensor):
        def to(self, *args: object, **options: bool) -> Tensor:  # type: ignore[override]
            copies.append(options)
            return torch.zeros(len(self), dtype=torch.uint8, device="meta")

    received = unpacked(parcel._replace(buffer=parcel.buffer.as_subclass(Watched)), torch.device("meta"))
    assert copies == [{"non_blocking": True}]
    assert [(t.shape, t.device.type) for t in received] == [(torch.Size([3]), "meta"), (torch.Size([2, 2]), "meta")]
