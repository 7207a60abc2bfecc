"""The drawn error tree is the tree of classes; which errors mean that memory ran out."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

import cv2
import pytest
import torch

import evaluators
import gpnas
import search_spaces
from gpnas import errors
from gpnas.errors import EXIT_BAD_INPUT, EXIT_FAILED, GpnasError, OutOfMemory, TrainingDiverged, is_out_of_memory


def drawn() -> list[tuple[str, int, str, int | None]]:
    """(name, depth, description, exit code) of each class in the drawing, from top to bottom."""
    lines = re.findall(r"^    ( *)(\w+) {2,}(.*?)(?: +-> exit code (\d))?$", errors.__doc__ or "", re.MULTILINE)
    return [(name, len(indent) // 2, text, int(code) if code else None) for indent, name, text, code in lines]


def defined(error: type[GpnasError] = GpnasError, depth: int = 0) -> Iterator[tuple[type[GpnasError], int]]:
    """Each class of the tree with its depth, parents first."""
    yield error, depth
    for child in error.__subclasses__():
        yield from defined(child, depth + 1)


def test_the_drawing_shows_every_error_class_in_its_place() -> None:
    for package in (gpnas, evaluators, search_spaces):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    assert [(name, depth) for name, depth, _, _ in drawn()] == [(error.__name__, depth) for error, depth in defined()]


def test_the_drawing_says_what_each_class_is() -> None:
    for name, _, text, _ in drawn():
        if name not in ("GpnasError", "InputError"):
            assert (getattr(errors, name).__doc__ or "").lower().startswith(text.lower())


def test_the_drawing_shows_where_the_exit_code_changes() -> None:
    codes = {error.__name__: error.exit_code for error, _ in defined()}
    assert {name: code for name, _, _, code in drawn() if code is not None} == {"GpnasError": 1, "InputError": 2}
    assert codes == {
        **dict.fromkeys(("GpnasError", "GraphError", "JournalError", "TrainingDiverged", "OutOfMemory"), EXIT_FAILED),
        **dict.fromkeys(("InputError", "GenotypeError", "DataError", "LimitError", "TraceError"), EXIT_BAD_INPUT),
    }
    assert (errors.EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT) == (0, 1, 2)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemory("2 images of 64 pixels do not fit into memory"),
        torch.OutOfMemoryError("Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("not enough memory: you tried to allocate 1 bytes"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        cv2.error("OpenCV(4.13.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 1 bytes"),
    ],
)
def test_errors_that_mean_memory_ran_out(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("size mismatch"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
        ValueError("out of memory"),
        cv2.error("(-215:Assertion failed) !empty()"),
        TrainingDiverged("loss nan"),
        KeyboardInterrupt(),
    ],
)
def test_errors_that_do_not(error: BaseException) -> None:
    assert not is_out_of_memory(error)
