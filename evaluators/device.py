"""Where a network computes, and in which precision."""

from __future__ import annotations

import torch


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
