"""Run the files that gpnas exports, by the runtime of their format: .onnx by onnxruntime, .xml by OpenVINO. On the CPU.

file = open_exported(Path("best.onnx"))
file.run(images)                         # float32 (batch, 3, imgsz, imgsz), RGB in [0, 1]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpnas.errors import InputError, first_line
from gpnas.export.metadata import RUNNABLE, FileFacts, read_facts
from gpnas.export.onnx_file import needed
from gpnas.export.openvino_file import SECTION

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class ExportedDetector:
    """An exported file, ready to run. batch: images that it takes at once; None for any number. The output of `run` is one of
    `onnx_file`: (batch, 4 + classes, anchors), or (batch, n, 6) where `facts.nms`."""

    facts: FileFacts
    batch: int | None
    run: Run


def open_exported(path: Path) -> ExportedDetector:
    """Raises InputError for a file that is missing or of another kind, and where the runtime is not installed."""
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        raise InputError(f"{path}: gpnas runs {' and '.join(_OPENERS)} files; give one of these, or a checkpoint")
    if not path.is_file():
        raise InputError(f"{path}: no such file; `gpnas export --format onnx` or `--format openvino` writes one")
    return opener(path)


def _open_onnx(path: Path) -> ExportedDetector:
    runtime = needed("onnxruntime")
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise InputError(f"{path}: onnxruntime cannot read it ({first_line(error)}); export it again") from None
    facts = read_facts(session.get_modelmeta().custom_metadata_map, str(path))
    entry = session.get_inputs()[0]
    _check_output(list(session.get_outputs()[0].shape), facts, path)

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = session.run(None, {entry.name: images})[0]
        return output

    return ExportedDetector(facts, entry.shape[0] if isinstance(entry.shape[0], int) else None, run)


def _open_openvino(path: Path) -> ExportedDetector:
    openvino = needed("openvino")
    try:
        core = openvino.Core()
        model = core.read_model(path)
        # Some CPUs would compute in bfloat16 by default, which is not what was exported.
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise InputError(f"{path}: OpenVINO cannot read it ({first_line(error)}); export it again") from None
    facts = read_facts(_runtime_information(model), str(path))
    batch = model.input(0).partial_shape[0]
    _check_output([dim.get_length() if dim.is_static else None for dim in model.output(0).partial_shape], facts, path)

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.array(compiled(images)[0], dtype=np.float32)

    return ExportedDetector(facts, batch.get_length() if batch.is_static else None, run)


def _runtime_information(model: Any) -> dict[str, str]:
    if not model.has_rt_info([SECTION]):
        return {}
    return {key: str(value) for key, value in model.get_rt_info([SECTION]).value.items()}


def _check_output(shape: list[Any], facts: FileFacts, path: Path) -> None:
    """Raises InputError for another output than those that `ExportedDetector.run` may have."""
    wanted = [6, 2] if facts.nms else [4 + len(facts.names), 1]
    if len(shape) != 3 or shape[wanted[1]] != wanted[0]:
        shown = " x ".join("batch" if size is None else str(size) for size in shape)
        raise InputError(f"{path}: its output is {shown}, not batch x (4 + classes) x anchors; export it with --layout plain")


_OPENERS = dict(zip(RUNNABLE, (_open_onnx, _open_openvino), strict=True))
