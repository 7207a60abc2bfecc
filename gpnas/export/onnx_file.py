"""An ONNX file of a detector that onnxruntime, OpenCV, OpenVINO, Triton, TensorRT and Ultralytics read.

    model = onnx_model(network.fused(), about)          # about: Metadata
    path.write_bytes(model.SerializeToString())

Input `images`: float32 (batch, 3, imgsz, imgsz), RGB in [0, 1]. The output depends on the layout:

    plain        output0: (batch, 4 + classes, anchors), xywh in input pixels, then scores in [0, 1]
    nms          output0: (batch, 300, 6), x1, y1, x2, y2 in input pixels, score, class; the best first, zeros after the last
    deepstream   input `input`, output `output`: (batch, anchors, 6), x1, y1, x2, y2, score, class
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpnas.errors import InputError
from gpnas.export.decoding import Cells, Decoded, cells_of, write_centres, write_corners, write_decoding
from gpnas.export.metadata import Layout, Metadata
from gpnas.export.onnx_graph import IR_VERSION, OPSET, OnnxNodes, write_network
from gpnas.graph.network import Network

if TYPE_CHECKING:
    from onnx import ModelProto

MOST = 300
"""Detections of an image in a file with non-maximum suppression."""

OVERLAP = 0.7
"""The IoU above which a detection is suppressed by a better one of its class."""

LEAST_SCORE = 0.001
"""Of a detection, so that AP can be measured; a program that shows detections takes those above a score of its own."""


def onnx_model(network: Network, about: Metadata) -> ModelProto:
    """The ONNX model of a fused detector. Raises InputError where onnx is not installed, and ValueError as `cells_of` does."""
    onnx = needed("onnx")
    cells = cells_of(network.graph, len(about.names), about.imgsz)
    batch: int | str = "batch" if about.dynamic else about.batch
    entry = "input" if about.layout is Layout.DEEPSTREAM else "images"
    nodes = OnnxNodes()
    decoded = write_decoding(nodes, write_network(nodes, network, entry), cells)
    shape: list[int | str]
    if about.layout is Layout.DEEPSTREAM:
        result, shape = _deepstream(nodes, decoded), [batch, len(cells.strides), 6]
    elif about.nms:
        result, shape = _suppressed(nodes, decoded, cells), [batch, MOST, 6]
    else:
        result = nodes.node("Concat", [write_centres(nodes, decoded), decoded.scores], "boxes.output", axis=1)
        shape = [batch, 4 + cells.classes, len(cells.strides)]
    exit_ = "output" if about.layout is Layout.DEEPSTREAM else "output0"
    nodes.nodes[-1].output[0] = exit_  # every layout ends with the node that makes the result
    assert result == nodes.nodes[-1].name
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes.nodes,
        "detector",
        [helper.make_tensor_value_info(entry, floats, [batch, 3, about.imgsz, about.imgsz])],
        [helper.make_tensor_value_info(exit_, floats, shape)],
        nodes.constants,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="gpnas"
    )
    helper.set_model_props(model, about.strings())
    onnx.checker.check_model(model, full_check=True)
    result_model: ModelProto = model
    return result_model


def needed(module: str) -> Any:
    """The module of the extra `export`. Raises InputError, which names the extra, where it is not installed."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"this needs {module}, which is not installed; run `pip install 'gpnas[export]'`") from error


def _best_class(nodes: OnnxNodes, scores: str) -> tuple[str, str]:
    """The highest score of each anchor and its class as a number: (batch, anchors, 1) each."""
    across = nodes.node("Transpose", [scores], "best.scores", perm=[0, 2, 1])
    highest = nodes.node("ReduceMax", [across], "best.score", axes=[2], keepdims=1)
    label = nodes.node("ArgMax", [across], "best.class", axis=2, keepdims=1)
    return highest, nodes.node("Cast", [label], "best.label", to=1)


def _deepstream(nodes: OnnxNodes, decoded: Decoded) -> str:
    """(batch, anchors, 6): DeepStream-Yolo's parser keeps the best class of each anchor and suppresses by itself."""
    return nodes.node("Concat", [write_corners(nodes, decoded), *_best_class(nodes, decoded.scores)], "rows", axis=2)


def _suppressed(nodes: OnnxNodes, decoded: Decoded, cells: Cells) -> str:
    """(batch, MOST, 6) after non-maximum suppression within each class.

    The operator of ONNX lists what it keeps over all images. To get the same number of rows for every image, the scores that
    are kept are put back into (batch, classes * anchors), where all others are 0, and the MOST best are taken of each image.
    """
    anchors = len(cells.strides)
    boxes = write_corners(nodes, decoded)
    limits = [
        nodes.integers([MOST], "nms.most"),
        nodes.constant(np.array([OVERLAP], dtype=np.float32), "nms.overlap"),
        nodes.constant(np.array([LEAST_SCORE], dtype=np.float32), "nms.least"),
    ]
    kept = nodes.node("NonMaxSuppression", [boxes, decoded.scores, *limits], "nms.kept")  # (kept, 3): image, class, anchor
    zero = nodes.constant(np.zeros((1, 1, 1), dtype=np.float32), "nms.zero")
    empty = nodes.node("Mul", [decoded.scores, zero], "nms.empty")
    values = nodes.node("GatherND", [decoded.scores, kept], "nms.values")
    scores = nodes.node("ScatterND", [empty, kept, values], "nms.scores")
    flat = nodes.reshape(scores, [0, cells.classes * anchors], "nms.flat")
    pads = nodes.integers([0, 0, 0, MOST], "nms.pads")  # a small image has fewer anchors than MOST
    padded = nodes.node("Pad", [flat, pads], "nms.padded", mode="constant")
    best, places = "nms.best", "nms.places"
    top = nodes.node("TopK", [padded, nodes.integers([MOST], "nms.count")], best, axis=1, largest=1, sorted=1)
    nodes.nodes[-1].output.append(places)
    column = nodes.integers([2], "nms.column")
    count = nodes.constant(np.array(anchors, dtype=np.int64), "nms.anchors")
    anchor = nodes.node("Unsqueeze", [nodes.node("Mod", [places, count], "nms.anchor"), column], "nms.anchor_column")
    four = nodes.node("Concat", [anchor] * 4, "nms.four", axis=2)  # (batch, MOST, 4)
    corners = nodes.node("GatherElements", [boxes, four], "nms.corners", axis=1)
    label = nodes.node("Cast", [nodes.node("Div", [places, count], "nms.class")], "nms.label", to=1)
    columns = [nodes.node("Unsqueeze", [x, column], f"{x}_column") for x in (top, label)]
    rows = nodes.node("Concat", [corners, *columns], "nms.rows", axis=2)
    is_real = nodes.node("Greater", [columns[0], zero], "nms.is_real")
    return nodes.node("Mul", [rows, nodes.node("Cast", [is_real], "nms.mask", to=1)], "rows")
