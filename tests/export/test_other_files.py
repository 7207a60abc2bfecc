"""OpenVINO, TorchScript and the exported program compute what torch computes; runtimes refuse what they cannot run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gpnas.errors import InputError
from gpnas.export.decoding import DecodedNetwork
from gpnas.export.metadata import Layout, Metadata
from gpnas.export.onnx_file import onnx_model
from gpnas.export.openvino_file import write_openvino
from gpnas.export.runtimes import open_exported
from gpnas.export.servers import write_onnx
from gpnas.export.torch_files import METADATA, write_exported_program, write_torchscript
from tests.export.detectors import ABOUT, IMGSZ, live_network, random_images
from tests.export.test_onnx_file import WHY


def expected(images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return DecodedNetwork(live_network().fused(), 3, IMGSZ)(images).numpy()


def write(tmp_path: Path, suffix: str, about: Metadata) -> Path:
    pytest.importorskip("onnx", reason=WHY)
    pytest.importorskip("openvino" if suffix == ".xml" else "onnxruntime", reason=WHY)
    model, path = onnx_model(live_network().fused(), about), tmp_path / f"net{suffix}"
    if suffix == ".xml":
        write_openvino(model, about, path)
    else:
        write_onnx(model, path)
    return path


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_runtime_computes_what_torch_computes(tmp_path: Path, suffix: str, dynamic: bool) -> None:
    file = open_exported(write(tmp_path, suffix, replace(ABOUT, batch=2, dynamic=dynamic)))
    assert (file.facts.names, file.facts.imgsz, file.facts.nms) == (ABOUT.names, IMGSZ, False)
    assert file.facts.weights == ABOUT.weights and file.batch == (None if dynamic else 2)
    images = random_images(2)
    np.testing.assert_allclose(file.run(images.numpy()), expected(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_suppression_runs_in_both_runtimes(tmp_path: Path, suffix: str) -> None:
    file = open_exported(write(tmp_path, suffix, replace(ABOUT, nms=True)))
    rows = file.run(random_images(1).numpy())
    assert file.facts.nms and rows.shape == (1, 300, 6) and rows[0, 0, 4] > 0.1


def test_files_that_cannot_be_run_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"net\.tflite: gpnas runs \.onnx and \.xml files; give one of these, or a checkpoint$"
    ):
        open_exported(tmp_path / "net.tflite")
    with pytest.raises(InputError, match=r"net\.onnx: no such file; `gpnas export --format onnx` or"):
        open_exported(tmp_path / "net.onnx")


@pytest.mark.parametrize(("suffix", "program"), [(".onnx", "onnxruntime"), (".xml", "OpenVINO")])
def test_a_broken_file_is_named(tmp_path: Path, suffix: str, program: str) -> None:
    pytest.importorskip("openvino" if suffix == ".xml" else "onnxruntime", reason=WHY)
    path = tmp_path / f"net{suffix}"
    path.write_bytes(b"no model")
    with pytest.raises(InputError, match=rf"net{suffix}: {program} cannot read it \(.+\); export it again$"):
        open_exported(path)


def test_a_file_for_deepstream_is_not_run(tmp_path: Path) -> None:
    path = write(tmp_path, ".onnx", replace(ABOUT, layout=Layout.DEEPSTREAM))
    with pytest.raises(InputError, match=r"its output is 1 x 80 x 6, not .* anchors; export it with --layout plain$"):
        open_exported(path)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_torchscript_takes_any_batch_and_keeps_the_metadata(tmp_path: Path) -> None:
    [path] = write_torchscript(live_network().fused(), ABOUT, tmp_path / "net.torchscript")
    extra = {METADATA: ""}
    loaded, images = torch.jit.load(path, _extra_files=extra), random_images(3)
    assert json.loads(extra[METADATA]) == ABOUT.strings()
    with torch.no_grad():
        np.testing.assert_allclose(loaded(images).numpy(), expected(images), rtol=1e-5, atol=1e-4)


@pytest.mark.slow  # torch.export takes seconds to load
def test_an_exported_program_takes_the_batch_that_was_asked_for(tmp_path: Path) -> None:
    [path] = write_exported_program(live_network().fused(), replace(ABOUT, dynamic=True), tmp_path / "net.pt2")
    extra = {METADATA: ""}
    program, images = torch.export.load(path, extra_files=extra), random_images(3)
    assert json.loads(extra[METADATA])["imgsz"] == "[64, 64]"
    with torch.no_grad():
        np.testing.assert_allclose(program.module()(images).numpy(), expected(images), rtol=1e-5, atol=1e-4)
