"""An OpenVINO model, x.xml with its weights in x.bin, made from the ONNX model of a detector."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpnas.export.metadata import Metadata
from gpnas.export.onnx_file import needed

if TYPE_CHECKING:
    from onnx import ModelProto

SECTION = "gpnas"
"""Of the model's runtime information (rt_info), where the metadata stand."""


def write_openvino(model: ModelProto, about: Metadata, path: Path) -> list[Path]:
    """Write `path`, an .xml file, and the .bin file beside it. Weights stay float32. Returns both paths.

    Raises InputError where openvino is not installed.
    """
    openvino = needed("openvino")
    # The reader of ONNX files, not convert_model: that one loads every other framework first.
    converted = openvino.Core().read_model(model.SerializeToString())
    for key, value in about.strings().items():
        converted.set_rt_info(value, [SECTION, key])
    openvino.save_model(converted, path, compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]
