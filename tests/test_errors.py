"""Which errors mean that memory ran out; the exit codes of the command line."""

from __future__ import annotations

import pytest
import torch

from gpnas.errors import GpnasError, InputError, OutOfMemory, TrainingDiverged, is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemory("2 images of 64 pixels do not fit into memory"),
        torch.OutOfMemoryError("Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("not enough memory: you tried to allocate 1 bytes"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_errors_that_mean_memory_ran_out(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("size mismatch"), ValueError("out of memory"), TrainingDiverged("loss nan"), KeyboardInterrupt()]
)
def test_errors_that_do_not(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_only_the_users_errors_exit_with_2() -> None:
    assert (InputError.exit_code, GpnasError.exit_code, OutOfMemory.exit_code, TrainingDiverged.exit_code) == (2, 1, 1, 1)
