"""Devices and precisions by name."""

from __future__ import annotations

import pytest
import torch

from evaluators.device import autocast, pick_device, pick_dtype

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
