"""`gpnas export`: YAML, graphs and files that other programs run."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gpnas.cli.loading import open_checkpoint
from gpnas.export.decoding import DecodedNetwork
from gpnas.export.graph_file import read_graph
from gpnas.export.runtimes import open_exported
from gpnas.graph.cost import deployed_cost
from search_spaces.architecture import build, classes_of, read_architecture
from search_spaces.blueprint import open_catalogue
from tests.cli.checkpoints import write_checkpoint
from tests.cli.conftest import Gpnas, Refused
from tests.export.detectors import random_images
from tests.export.test_onnx_file import WHY


def test_export_narrows_a_published_architecture_to_a_limit(gpnas: Gpnas, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    code, out, err = gpnas("export", "gelan-t", "--max-flops", "300M", "--imgsz", "320", "--classes", "3", "--out", file)
    small = read_architecture(file.read_text())
    flops = deployed_cost(build(small), 320).flops
    assert (code, out) == (0, "") and "; narrowed to 0.3" in err and classes_of(small) == 3
    assert 0.98 * 300e6 <= flops <= 300e6


def test_an_export_goes_to_standard_output_alone(gpnas: Gpnas) -> None:
    code, out, err = gpnas("export", "gelan-t", "--classes", "3")
    assert code == 0 and classes_of(read_architecture(out)) == 3
    assert err == "the architecture has a head for 80 classes; it gets one for the 3 classes of the data\n"


def test_export_writes_yaml_that_rebuilds_the_same_network(gpnas: Gpnas, architecture: Path, tmp_path: Path) -> None:
    assert gpnas("export", architecture, "--out", tmp_path / "copy.yaml") == (0, "", "")
    assert read_architecture((tmp_path / "copy.yaml").read_text()).hash == read_architecture(architecture.read_text()).hash
    assert gpnas("export", "yolov9-t", "--out", tmp_path / "copy.yaml")[0] == 0
    assert read_architecture((tmp_path / "copy.yaml").read_text()).hash == open_catalogue("yolov9-t").hash
    assert {path.name for path in tmp_path.glob("copy*")} == {"copy.yaml"}


def test_export_of_a_run_is_its_best_a_trial_or_its_best_yaml_fitted_to_other_classes(
    gpnas: Gpnas, run: Path, genotype: str
) -> None:
    best, other = (read_architecture(gpnas("export", run, *options)[1]).found for options in ((), ("--trial", "0")))
    assert best is not None and best["trial"] == 1
    assert other is not None and other["trial"] == 0
    (run / "best.yaml").write_text(genotype)
    assert classes_of(read_architecture(gpnas("export", run, "--classes", "5")[1])) == 5
    assert gpnas("export", run, "--max-params", "1")[0] == 2  # best.yaml is no blueprint, which could be narrowed


def test_an_architecture_that_was_changed_does_not_keep_what_was_measured_of_another(gpnas: Gpnas, run: Path) -> None:
    kept = read_architecture(gpnas("export", run, "--trial", "1")[1]).found
    assert kept is not None and kept["measured"]["ap"] == 0.5 and kept["names"]
    changed = read_architecture(gpnas("export", run, "--trial", "1", "--classes", "5")[1])
    cost = deployed_cost(build(changed), 96)
    assert changed.found == {
        "changed_from": {"trial": 1, "hash": "hash1"},
        "cost": {"flops": cost.flops, "params": cost.params, "imgsz": 96},  # so that `gpnas train` uses the size of the search
    }
    same = gpnas("export", run, "--trial", "1", "--classes", str(classes_of(changed) - 3))[1]
    assert read_architecture(same).found == kept


def test_a_graph_is_written_that_is_the_architectures(gpnas: Gpnas, tmp_path: Path) -> None:
    graph = build(open_catalogue("prn"))
    assert read_graph(gpnas("export", "prn", "--format", "graph")[1], "stdout") == graph
    assert gpnas("export", "prn", "--out", tmp_path / "prn.json") == (0, "", "")
    assert read_graph((tmp_path / "prn.json").read_text(), "prn.json") == graph


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "tflite"], "--format tflite: must be one of yaml, graph, ultralytics, onnx, openvino, torchscript, pt2"),
        (
            ["--out", "x.pt"],
            "--out x.pt: no format of export ends so; give a name that ends in .yaml, .json, .onnx, .xml, .torc",
        ),
        (["--out", "net"], "--out net: no format of export ends so"),
        (["--format", "yaml", "--out", "x.onnx"], "--out x.onnx: --format yaml writes .yaml; give a name that ends so"),
        (["--format", "openvino", "--out", "x.onnx"], "--out x.onnx: --format openvino writes .xml; give a name that ends so"),
        (["--layout", "triton", "--out", "x.onnx"], "--out x.onnx: --layout triton writes a folder; give a name without .onnx"),
        (["--layout", "tensorrt", "--out", "x.onnx"], "--layout tensorrt: must be one of plain, deepstream, triton"),
        (["--nms", "--layout", "deepstream", "--out", "x.onnx"], "--nms: DeepStream suppresses by itself"),
        (["--nms"], "--nms: is for onnx, openvino; --format yaml has no such choice, leave it out"),
        (["--dynamic", "--out", "x.ts"], "--dynamic: is for onnx, openvino, pt2; --format torchscript has no such choice"),
        (["--batch", "2", "--out", "x.json"], "--batch: is for onnx, openvino, torchscript, pt2; --format graph has no"),
        (["--layout", "triton", "--format", "pt2"], "--layout: is for onnx; --format pt2 has no such choice"),
        (["--batch", "0", "--out", "x.onnx"], "--batch 0: must be at least 1; for any number of images give --dynamic"),
        (["--classes", "0"], "--classes 0: must be at least 1"),
        (["--imgsz", "100", "--out", "x.onnx"], "--imgsz 100: must be a positive multiple of 32; try 96"),
    ],
)
def test_choices_that_do_not_fit_are_named_and_nothing_is_written(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused("export", "gelan-t", *options)
    assert list(tmp_path.iterdir()) == []


def test_a_classifier_is_no_detector(refused: Refused, tmp_path: Path) -> None:
    assert "a classifier cannot be trained as a detector" in refused("export", "plain", "--out", tmp_path / "x.onnx")


def test_a_missing_extra_is_named(
    refused: Refused, architecture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    told = refused("export", architecture, "--imgsz", "64", "--out", tmp_path / "x.onnx")
    assert told == "gpnas: this needs onnx, which is not installed; run `pip install 'gpnas[export]'`\n"
    assert list(tmp_path.glob("x.*")) == []


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_checkpoint_becomes_torchscript_with_its_weights_names_and_size(gpnas: Gpnas, genotype: str, tmp_path: Path) -> None:
    best = write_checkpoint(tmp_path / "best.pt", genotype)
    code, out, err = gpnas("export", best, "--format", "torchscript")
    file = tmp_path / "best.torchscript"
    assert (code, err) == (0, "") and f"wrote {file}" in out and "weights: best.pt, epoch 7, AP 0.250 on val" in out
    extra, images = {"config.txt": ""}, random_images(1)
    loaded = torch.jit.load(file, _extra_files=extra)
    about = json.loads(extra["config.txt"])
    assert ast.literal_eval(about["names"]) == {0: "cell0", 1: "cell1"} and about["imgsz"] == "[64, 64]"
    assert about["description"] == f"gpnas detector of {best}, trained"
    with torch.no_grad():
        expected = DecodedNetwork(open_checkpoint(best)[0].fused(), 2, 64)(images)
        torch.testing.assert_close(loaded(images), expected, rtol=1e-5, atol=1e-4)
    code, _, err = gpnas("export", best, "--out", tmp_path / "best.yaml")
    assert code == 0 and read_architecture((tmp_path / "best.yaml").read_text()).to_json() == genotype, err


def test_a_checkpoint_keeps_its_classes_and_widths(refused: Refused, genotype: str, tmp_path: Path) -> None:
    best = write_checkpoint(tmp_path / "full" / "best.pt", genotype)
    told = refused("export", best, "--format", "onnx", "--classes", "9")
    assert f"--classes 9: {best} was trained for 2; give an architecture YAML" in told
    told = refused("export", best.parent, "--format", "onnx", "--max-flops", "1M")
    assert f"--max-flops, --max-params: the weights of {best.parent} fit its own widths only" in told


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_an_architecture_has_no_weights_and_its_files_say_so(gpnas: Gpnas, architecture: Path, tmp_path: Path) -> None:
    file = tmp_path / "small.ts"
    code, out, err = gpnas("export", architecture, "--imgsz", "64", "--out", file)
    assert code == 0 and "weights: random (seed 0)" in out
    assert err == (
        f"{architecture} has no weights: those of the file are random, as its metadata say; train it first with `gpnas train`\n"
    )
    extra = {"config.txt": ""}
    torch.jit.load(file, _extra_files=extra)
    about = json.loads(extra["config.txt"])
    assert about["weights"] == "random (seed 0)" and about["description"].endswith("not trained: its weights are random")
    assert ast.literal_eval(about["names"]) == {0: "class0", 1: "class1"}


def test_a_run_is_its_full_training_where_it_has_one_else_its_best_architecture(
    gpnas: Gpnas, run: Path, genotype: str, tmp_path: Path
) -> None:
    options = ("--format", "torchscript", "--out", tmp_path / "x.ts")
    assert "weights: random" in gpnas("export", run, *options)[1]
    write_checkpoint(run / "train" / "best.pt", genotype)
    assert "weights: best.pt, epoch 7" in gpnas("export", run, *options)[1]
    code, out, _ = gpnas("export", run, "--trial", "0", *options)  # a trial was not trained in full
    assert code == 0 and "weights: random" in out and "at 96 px" in out


def test_a_checkpoint_becomes_onnx_and_openvino_that_compute_the_same(gpnas: Gpnas, genotype: str, tmp_path: Path) -> None:
    for module in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(module, reason=WHY)
    best = write_checkpoint(tmp_path / "best.pt", genotype)
    assert gpnas("export", best, "--format", "onnx")[0] == 0
    code, out, err = gpnas("export", best, "--format", "openvino", "--dynamic")
    assert code == 0 and f"wrote {tmp_path}/best.xml" in out and f"wrote {tmp_path}/best.bin" in out, err
    images = random_images(1)
    with torch.no_grad():
        expected = DecodedNetwork(open_checkpoint(best)[0].fused(), 2, 64)(images).numpy()
    for name in ("best.onnx", "best.xml"):
        file = open_exported(tmp_path / name)
        assert file.facts.names == ("cell0", "cell1") and file.facts.weights == "best.pt, epoch 7, AP 0.250 on val"
        np.testing.assert_allclose(file.run(images.numpy()), expected, rtol=1e-4, atol=1e-4)
