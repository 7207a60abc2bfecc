"""The files that two servers need beside an ONNX model: a model repository for Triton, and a configuration for DeepStream.

Sources: Triton's model configuration (https://docs.nvidia.com/deeplearning/triton-inference-server, "Model Configuration"),
whose parameter `metadata` Ultralytics reads; and the keys of gst-nvinfer's configuration file, with DeepStream-Yolo's parser.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from gpnas.export.metadata import Metadata
from gpnas.export.onnx_file import OVERLAP
from gpnas.files import replacing, write_text

if TYPE_CHECKING:
    from onnx import ModelProto

_SCORE = 0.25  # the least score of a detection that DeepStream shows


def write_onnx(model: ModelProto, path: Path) -> list[Path]:
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return [path]


def write_triton(model: ModelProto, about: Metadata, folder: Path) -> list[Path]:
    """Write `folder`, a model of a Triton repository: config.pbtxt, and the model as version 1. Its name is that of the
    folder."""
    version = folder / "1"
    version.mkdir(parents=True, exist_ok=True)
    config = folder / "config.pbtxt"
    write_text(config, triton_config(model, about, folder.name))
    return [config, *write_onnx(model, version / "model.onnx")]


def triton_config(model: ModelProto, about: Metadata, name: str) -> str:
    """The text of config.pbtxt. Shapes include the batch (max_batch_size 0), which is -1 where it is dynamic."""
    tensors = []
    for kind, value in (("input", model.graph.input[0]), ("output", model.graph.output[0])):
        dims = ", ".join(str(size.dim_value or -1) for size in value.type.tensor_type.shape.dim)
        tensors.append(f'{kind} [ {{ name: "{value.name}" data_type: TYPE_FP32 dims: [ {dims} ] }} ]\n')
    metadata = json.dumps(str(about.strings()), ensure_ascii=False)  # a string of the text format is quoted as one of JSON
    return (
        f'name: {json.dumps(name)}\nbackend: "onnxruntime"\nmax_batch_size: 0\n'
        + "".join(tensors)
        + f'parameters [ {{ key: "metadata" value: {{ string_value: {metadata} }} }} ]\n'
    )


def write_deepstream(model: ModelProto, about: Metadata, path: Path) -> list[Path]:
    """Write the model, and beside it labels.txt and the configuration of DeepStream's primary detector."""
    labels, config = path.with_name("labels.txt"), path.with_name(f"config_infer_primary_{path.stem}.txt")
    write_onnx(model, path)
    write_text(labels, "".join(f"{' '.join(name.split())}\n" for name in about.names))
    write_text(config, deepstream_config(about, path.name, labels.name))
    return [path, config, labels]


def deepstream_config(about: Metadata, model: str, labels: str) -> str:
    """The text of the configuration. Pixels are scaled by 1/255; images keep their aspect and are padded on both sides, in
    RGB."""
    return f"""[property]
gpu-id=0
onnx-file={model}
model-engine-file={model}_b{about.batch}_gpu0_fp32.engine
labelfile-path={labels}
num-detected-classes={len(about.names)}
batch-size={about.batch}
infer-dims=3;{about.imgsz};{about.imgsz}
# 0: RGB
model-color-format=0
net-scale-factor={1 / 255}
maintain-aspect-ratio=1
symmetric-padding=1
# 0: FP32, 2: FP16
network-mode=0
network-type=0
process-mode=1
gie-unique-id=1
interval=0
# 2: non-maximum suppression
cluster-mode=2
parse-bbox-func-name=NvDsInferParseYolo
custom-lib-path=nvdsinfer_custom_impl_Yolo/libnvdsinfer_custom_impl_Yolo.so

[class-attrs-all]
pre-cluster-threshold={_SCORE}
nms-iou-threshold={OVERLAP}
topk=300
"""
