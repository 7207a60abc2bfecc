"""ONNX files: the numbers of torch in onnxruntime and OpenCV, shapes, names, metadata, suppression, and the missing extra."""

from __future__ import annotations

import ast
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evaluators.detector.head import decode, non_max_suppression
from gpnas.errors import InputError
from gpnas.export.decoding import DecodedNetwork
from gpnas.export.metadata import Layout, Metadata
from gpnas.export.onnx_file import needed, onnx_model
from gpnas.graph.graph import Graph, GraphBuilder
from tests.export.detectors import ABOUT, IMGSZ, live_network, random_images
from tests.small_detector import small_graph

WHY = "needs the extra export: pip install 'gpnas[export]'"


def session(about: Metadata, graph: Graph | None = None) -> Any:
    pytest.importorskip("onnx", reason=WHY)
    runtime = pytest.importorskip("onnxruntime", reason=WHY)
    return runtime.InferenceSession(onnx_model(live_network(graph).fused(), about).SerializeToString())


def test_a_missing_runtime_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match=r"^this needs no_such_runtime, which is not installed; run `pip install 'gpnas\[export\]'`$"
    ):
        needed("no_such_runtime")


def test_onnxruntime_computes_what_torch_computes() -> None:
    images = random_images(3)
    opened = session(replace(ABOUT, batch=3))
    (entry,), (result,) = opened.get_inputs(), opened.get_outputs()
    assert (entry.name, entry.shape, result.name, result.shape) == ("images", [3, 3, 64, 64], "output0", [3, 7, 80])
    with torch.no_grad():
        expected = DecodedNetwork(live_network().fused(), 3, IMGSZ)(images).numpy()
    np.testing.assert_allclose(opened.run(None, {"images": images.numpy()})[0], expected, rtol=1e-4, atol=1e-4)


def test_a_transposed_convolution_computes_what_torch_computes() -> None:
    b = GraphBuilder()
    fine = b.conv(b.conv(b.conv(b.image, 8, 3, 2), 12, 3, 2), 16, 3, 2)
    coarse = b.conv(fine, 20, 3, 2)
    for feature, stride in ((b.concat([b.conv_transpose(coarse, 10), fine]), 8), (coarse, 16)):
        b.output(b.conv(feature, 4 * 8 + 3, act="", norm=False, bias=True), "output", stride=stride)
    graph, images = b.build(), random_images(2)
    with torch.no_grad():
        expected = DecodedNetwork(live_network(graph).fused(), 3, IMGSZ)(images).numpy()
    result = session(replace(ABOUT, batch=2), graph).run(None, {"images": images.numpy()})[0]
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_a_dynamic_file_takes_any_number_of_images() -> None:
    opened, images = session(replace(ABOUT, dynamic=True)), random_images(5).numpy()
    assert opened.get_inputs()[0].shape[0] == "batch"
    whole = opened.run(None, {"images": images})[0]
    each = np.concatenate([opened.run(None, {"images": images[i : i + 1]})[0] for i in range(5)])
    np.testing.assert_allclose(whole, each, rtol=1e-4, atol=1e-4)
    assert whole.shape == (5, 7, 80)


def test_opencv_reads_the_file() -> None:
    pytest.importorskip("onnx", reason=WHY)
    content = onnx_model(live_network().fused(), ABOUT).SerializeToString()
    images = random_images(1)
    network = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))
    network.setInput(images.numpy())
    with torch.no_grad():
        expected = DecodedNetwork(live_network().fused(), 3, IMGSZ)(images).numpy()
    np.testing.assert_allclose(network.forward(), expected, rtol=1e-4, atol=1e-4)


def test_metadata_and_names_of_operations_are_in_the_file() -> None:
    pytest.importorskip("onnx", reason=WHY)
    network = live_network().fused()
    model = onnx_model(network, ABOUT)
    assert {entry.key: entry.value for entry in model.metadata_props} == ABOUT.strings()
    made = {name for node in model.graph.node for name in node.output}
    silu = {op.name for op in network.graph.ops if op.act == "silu"}
    assert silu and silu <= made
    # Fused and without the auxiliary branch: one weight and one bias for each layer that infers.
    assert sum(node.op_type == "Conv" for node in model.graph.node) == len(network.graph.layers)
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)


def test_a_network_in_train_form_is_refused() -> None:
    pytest.importorskip("onnx", reason=WHY)
    with pytest.raises(ValueError, match=r"export network\.fused\(\)"):
        onnx_model(live_network(small_graph()), ABOUT)


def every_kind() -> Graph:
    """Every operation that a network of a search space has, with widths and windows that differ."""
    b = GraphBuilder(act="leaky_relu")
    x = b.conv(b.image, 12, 3, 2)
    y = b.conv(x, 20, 3, groups=4, rep=True, act="relu")
    y = b.masked_add(y, x, 8)  # of 20 and 12 channels
    y = b.masked_add(y, b.conv(x, 8, 1), 8)
    z = b.masked_add(b.conv(x, 8, 1), y, 8)  # asymmetric: all of the first, a part of the second
    first, second = b.split(y, 5)
    y = b.concat([b.act(b.norm(first), "silu"), b.stop_gradient(second), b.zero(z)])
    y = b.add(y, b.conv(b.avg_pool(b.max_pool(y, 5), 3, 1, 1), 28, 1, act=""))
    down = b.conv(b.max_pool(b.avg_pool(y, 2, 1), 3, 2), 16, 3)
    b.output(b.concat([b.upsample(b.conv(down, 6, 3), 2), b.slice(y, 3, 9)]), "fine", stride=2)
    b.output(b.linear(b.global_avg_pool(down), 7, act="relu"), "label", stride=1)
    return b.build()


def test_every_kind_of_operation_computes_what_torch_computes() -> None:
    onnx = pytest.importorskip("onnx", reason=WHY)
    runtime = pytest.importorskip("onnxruntime", reason=WHY)
    from gpnas.export.onnx_graph import IR_VERSION, OPSET, OnnxNodes, write_network

    graph = every_kind()
    fused, images, nodes = live_network(graph).fused(), random_images(2), OnnxNodes()
    results = write_network(nodes, fused, "images")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info(name, floats, None) for name in results]
    images_info = helper.make_tensor_value_info("images", floats, [2, 3, IMGSZ, IMGSZ])
    proto = helper.make_graph(nodes.nodes, "kinds", [images_info], outputs, nodes.constants)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    answers = runtime.InferenceSession(model.SerializeToString()).run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = fused(images)
    assert [answer.shape for answer in answers] == [(2, 12, 32, 32), (2, 7, 1, 1)]
    for answer, tensor in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer, tensor.numpy(), rtol=1e-4, atol=1e-4)
    kinds = {op.kind for op in graph.ops}
    assert kinds >= {"masked_add", "zero", "norm", "stop_gradient", "avg_pool", "linear", "act", "slice", "upsample"}


def overlaps(rows: NDArray[np.float64]) -> list[float]:
    """IoU of each pair of boxes of one class."""
    found = []
    for a, b in itertools.combinations(rows, 2):
        if a[5] == b[5]:
            width, height = (min(a[2 + i], b[2 + i]) - max(a[i], b[i]) for i in (0, 1))
            inner = max(width, 0) * max(height, 0)
            areas = [(r[2] - r[0]) * (r[3] - r[1]) for r in (a, b)]
            found.append(inner / (sum(areas) - inner))
    return found


def test_suppression_in_the_file_keeps_what_ours_keeps() -> None:
    opened, images = session(replace(ABOUT, nms=True, dynamic=True)), random_images(2)
    rows = opened.run(None, {"images": images.numpy()})[0].astype(np.float64)
    assert rows.shape == (2, 300, 6)
    fused = live_network().fused()
    with torch.no_grad():
        boxes, scores = decode(fused(images), [8, 16], 3)
    big = [(10**6, 10**6)] * 2  # ours clips boxes to the image, the file does not
    boxes = boxes + 1000
    ours = non_max_suppression(boxes, scores, big, candidates=10**6)
    for image, expected in zip(rows, ours, strict=True):
        kept = image[image[:, 4] > 0]
        assert len(kept) == len(expected) > 10 and (np.diff(kept[:, 4]) <= 0).all()
        expected[:, :4] -= 1000
        np.testing.assert_allclose(kept, expected, rtol=1e-3, atol=1e-3)
        assert max(overlaps(kept)) <= 0.7 + 1e-5
        assert (image[len(kept) :] == 0).all()


def test_deepstream_gets_the_best_class_of_each_anchor() -> None:
    opened, images = session(replace(ABOUT, layout=Layout.DEEPSTREAM)), random_images(1)
    (entry,), (result,) = opened.get_inputs(), opened.get_outputs()
    assert (entry.name, result.name, result.shape) == ("input", "output", [1, 80, 6])
    rows = opened.run(None, {"input": images.numpy()})[0]
    fused = live_network().fused()
    with torch.no_grad():
        boxes, scores = decode(fused(images), [8, 16], 3)
    best = scores.max(dim=-1)
    expected = torch.cat([boxes, best.values[..., None], best.indices[..., None]], dim=-1).numpy()
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4)
    assert set(rows[0, :, 5].tolist()) == {0.0, 1.0, 2.0}


def test_the_files_of_the_servers(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason=WHY)
    from gpnas.export.servers import write_deepstream, write_triton

    fused = live_network().fused()
    triton = replace(ABOUT, names=('a "b"', "é", "c"), layout=Layout.TRITON, dynamic=True)
    files = write_triton(onnx_model(fused, triton), triton, tmp_path / "cells")
    assert files == [tmp_path / "cells/config.pbtxt", tmp_path / "cells/1/model.onnx"]
    text = files[0].read_text(encoding="utf-8")
    assert text.startswith('name: "cells"\nbackend: "onnxruntime"\nmax_batch_size: 0\n')
    assert 'input [ { name: "images" data_type: TYPE_FP32 dims: [ -1, 3, 64, 64 ] } ]\n' in text
    assert 'output [ { name: "output0" data_type: TYPE_FP32 dims: [ -1, 7, 80 ] } ]\n' in text
    quoted = text[text.index("string_value: ") + len("string_value: ") : text.rindex(" } } ]")]
    assert ast.literal_eval(json.loads(quoted)) == triton.strings()
    stream = replace(ABOUT, layout=Layout.DEEPSTREAM, batch=2)
    model, config, labels = write_deepstream(onnx_model(fused, stream), stream, tmp_path / "net.onnx")
    assert labels.read_text() == "red\ngreen\nblue\n"
    lines = config.read_text().splitlines()
    assert {"onnx-file=net.onnx", "labelfile-path=labels.txt", "num-detected-classes=3", "batch-size=2"} <= set(lines)
    assert {"symmetric-padding=1", "maintain-aspect-ratio=1", "parse-bbox-func-name=NvDsInferParseYolo"} <= set(lines)
    assert float(next(line for line in lines if line.startswith("net-scale-factor=")).partition("=")[2]) == 1 / 255
    assert onnx.load(str(model)).graph.output[0].name == "output"
