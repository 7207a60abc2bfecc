"""`gpnas.load`, and `val` and `predict` of exported files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpnas as package
from gpnas.cli.loading import open_detector
from gpnas.errors import InputError
from search_spaces.gradient_path import open_space
from tests.cli.checkpoints import write_checkpoint
from tests.cli.conftest import Gpnas, Refused
from tests.cli.pictures import write_coco
from tests.export.test_onnx_file import WHY

IMAGE = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)


@pytest.fixture
def best(tmp_path: Path, genotype: str) -> Path:
    return write_checkpoint(tmp_path / "full" / "best.pt", genotype)


def test_a_checkpoint_or_the_folder_of_its_training_finds_objects(best: Path) -> None:
    found = [package.load(source)(IMAGE, score=0.0, most=5) for source in (best, str(best), best.parent)]
    for each in found:
        assert not isinstance(each, list) and len(each) == 5 and each.names == ("cell0", "cell1")
        assert (np.diff(each.scores) <= 0).all() and each.scores[0] > 0
        assert np.array_equal(each.boxes, found[0].boxes)
        assert (each.boxes >= 0).all() and (each.boxes <= [80, 48, 80, 48]).all()


def test_an_architecture_and_a_catalogue_name_are_loaded_with_a_warning(architecture: Path) -> None:
    with pytest.warns(UserWarning, match="small.yaml has no weights: they are random, and so is what it finds"):
        detector = package.load(architecture, imgsz=64)
    assert detector.imgsz == 64 and detector.names == ("class0", "class1")
    with pytest.warns(UserWarning, match="gelan-t has no weights"):
        assert len(package.load("gelan-t", imgsz=64, device="cpu").names) == 80


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("absent.pt", {}, r"cannot read absent\.pt: No such file or directory; give a checkpoint of gpnas train"),
        ("absent.onnx", {}, r"absent\.onnx: no such file; `gpnas export --format onnx`"),
        ("absent.onnx", {"device": "cuda"}, r"--device cuda: absent\.onnx runs on the CPU; leave out --device"),
        ("absent", {}, r"absent: no such file, run or architecture; the catalogue has"),
        ("gelan-t", {"imgsz": 100}, r"--imgsz 100: must be a positive multiple of 32; try 96"),
    ],
)
def test_what_cannot_be_loaded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        package.load(source, **options)


def exported(gpnas: Gpnas, best: Path, *options: object) -> Path:
    for module in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(module, reason=WHY)
    code, _, err = gpnas("export", best, *options)
    assert code == 0, err
    return best


@pytest.mark.parametrize("options", [(), ("--nms",), ("--batch", "3"), ("--dynamic",)])
@pytest.mark.parametrize(("format_", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_an_exported_file_finds_what_its_checkpoint_finds(
    gpnas: Gpnas, best: Path, format_: str, suffix: str, options: tuple[str, ...]
) -> None:
    exported(gpnas, best, "--format", format_, *options)
    ours, theirs = (open_detector(path)(IMAGE, score=0.0, most=20) for path in (best, best.with_suffix(suffix)))
    assert not isinstance(ours, list) and not isinstance(theirs, list)
    # A file with suppression compares boxes before they are clipped to the image, so it keeps others after the best one.
    count = 1 if "--nms" in options else 20
    assert len(ours) == 20 and len(theirs) >= count
    np.testing.assert_allclose(theirs.scores[:count], ours.scores[:count], rtol=1e-3)
    np.testing.assert_allclose(theirs.boxes[:count], ours.boxes[:count], atol=0.01)


def test_an_exported_file_is_measured_and_predicts(gpnas: Gpnas, refused: Refused, tmp_path: Path) -> None:
    data, file = write_coco(tmp_path / "data"), tmp_path / "results.json"
    best = write_checkpoint(tmp_path / "full" / "best.pt", open_space("gradient-path", classes=1).smallest().genotype)
    exported(gpnas, best, "--format", "onnx", "--dynamic")
    onnx = best.with_suffix(".onnx")
    told = refused("val", onnx, "--data", data)
    assert told == f"gpnas: {onnx} detects cell0; {data} has bar\n"
    for document in (data / "annotations").iterdir():
        document.write_text(document.read_text().replace('"bar"', '"cell0"'))
    code, out, err = gpnas("val", onnx, "--data", data, "--save", file)
    assert code == 0 and re.search(r"^val: AP 0\.\d{3}  AP50 0\.\d{3}", out, re.MULTILINE), err
    # The images are square, so a checkpoint is judged on the same pixels.
    by_torch = gpnas("val", best, "--data", data, "--device", "cpu")[1]
    assert [line for line in out.splitlines() if line.startswith("val:")] == by_torch.splitlines()[-1:]
    assert {row["image_id"] for row in json.loads(file.read_text())} == {4, 5, 6, 7}
    assert f"--imgsz 96: {onnx} has 64 pixels; leave out --imgsz" in refused("val", onnx, "--data", data, "--imgsz", "96")
    assert f"--split test: {data} has train, val" in refused("val", onnx, "--data", data, "--split", "test")
    code, out, err = gpnas(
        "predict", onnx, data / "images", "--score", "0", "--max-detections", "3", "--out", tmp_path / "seen"
    )
    rows = json.loads((tmp_path / "seen" / "predictions.json").read_text())
    assert code == 0 and len(rows) == 8 and all(len(row["boxes"]) == 3 for row in rows), err
    assert out.splitlines()[0] == "0.png: 3 objects (the most that --max-detections allows)"
