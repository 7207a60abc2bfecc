"""The two formats that torch itself writes: TorchScript, which libtorch loads, and the exported program of torch.export (.pt2).

Both take float32 (batch, 3, imgsz, imgsz), RGB in [0, 1], and return (batch, 4 + classes, anchors), as the plain ONNX file
does. The metadata are a JSON object in an extra file of the archive, METADATA.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch

from gpnas.export.decoding import DecodedNetwork
from gpnas.export.metadata import Metadata
from gpnas.graph.network import Network

METADATA = "config.txt"
"""The name that Ultralytics gives to this file in its TorchScript archives."""


def write_torchscript(network: Network, about: Metadata, path: Path) -> list[Path]:
    """Write the trace of a fused detector. It takes any batch. Raises ValueError as `cells_of` does."""
    detector = DecodedNetwork(network, len(about.names), about.imgsz)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch calls its TorchScript deprecated; libtorch still loads nothing else
        traced = torch.jit.trace(detector, _example(about))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(path), _extra_files={METADATA: json.dumps(about.strings())})
    return [path]


def write_exported_program(network: Network, about: Metadata, path: Path) -> list[Path]:
    """Write the exported program of a fused detector. Raises ValueError as `cells_of` does."""
    detector = DecodedNetwork(network, len(about.names), about.imgsz)
    sizes = {"images": {0: torch.export.Dim("batch", min=1)}} if about.dynamic else None
    # An example of one image would fix a dynamic batch at 1.
    example = _example(about).expand(2, -1, -1, -1) if about.dynamic else _example(about)
    with torch.no_grad():
        program = torch.export.export(detector, (example,), dynamic_shapes=sizes)
        torch.export.save(program, path, extra_files={METADATA: json.dumps(about.strings())})
    return [path]


def _example(about: Metadata) -> torch.Tensor:
    return torch.zeros(about.batch, 3, about.imgsz, about.imgsz)
