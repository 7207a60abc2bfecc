"""Do exported detectors compute the same in other programs?

    python benchmarks/exports.py networks [GENOTYPES] [IMGSZ]         # default: 100 64
    python benchmarks/exports.py data CHECKPOINT DATA                  # DATA as for gpnas val

`networks`: random genotypes and every detector of the catalogue, with random weights. Each becomes an ONNX file, which
onnx.checker reads with its types and shapes. The table has the largest differences from torch of onnxruntime, of OpenVINO and,
for the catalogue and the first ten genotypes, of OpenCV: of scores, and of boxes in pixels. A network passes where all differ
by at most 1e-4 + 1e-4 times the value.

`data`: the AP of a trained detector by torch, by onnxruntime, by the same with suppression in the file, and by OpenVINO, on
images that are padded on both sides; and by torch on images in the top left corner, as training and `gpnas val CHECKPOINT`
place them.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from evaluators.data.open import open_data
from evaluators.judge import judge_split
from evaluators.predict import Detector, judge_records
from gpnas.cli.loading import open_detector, open_network, torch_detector
from gpnas.errors import GenotypeError
from gpnas.export.decoding import Detector as Decoding
from gpnas.export.metadata import Metadata
from gpnas.export.onnx_file import onnx_model
from gpnas.export.openvino_file import write_openvino
from gpnas.export.servers import write_onnx
from gpnas.graph.graph import Branch, Graph
from gpnas.graph.network import Network
from search_spaces.architecture import build, with_classes
from search_spaces.blueprint import catalogue, open_catalogue
from search_spaces.gradient_path import open_space

CLASSES, TOLERANCE, IN_OPENCV = 3, 1e-4, 10


def live_network(graph: Graph, seed: int) -> Network:
    """A fused network whose activations neither vanish nor amplify the rounding of float32 from layer to layer.

    Normalisations that saw random images would make each layer amplify it, up to visible pixels in a network of 50 layers.
    """
    torch.manual_seed(seed)
    network = Network(graph)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.75, 2.25)
            torch.nn.init.normal_(module.bias, std=0.5)
    return network.eval().fused()


def about(graph: Graph, imgsz: int, name: str) -> Metadata:
    stride = max(out.stride for out in graph.outputs if out.branch is Branch.MAIN)
    names = tuple("abc")
    return Metadata(names, imgsz, stride, name, "random", is_trained=False, version="0")


def by_onnxruntime(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    return open_detector(path).run


def by_opencv(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    network = cv2.dnn.readNetFromONNX(str(path))

    def run(images: np.ndarray) -> np.ndarray:
        network.setInput(images)
        return network.forward()

    return run


def differences(graph: Graph, name: str, imgsz: int, seed: int, with_opencv: bool) -> dict[str, tuple[float, float, bool]]:
    """For each program: the largest difference from torch of a score, of a box side in pixels, and whether all are small."""
    network = live_network(graph, seed)
    meta = about(graph, imgsz, name)
    images = torch.rand(1, 3, imgsz, imgsz)
    with torch.no_grad():
        expected = Decoding(network, CLASSES, imgsz)(images).numpy()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        onnx, xml = Path(folder) / "x.onnx", Path(folder) / "x.xml"
        model = onnx_model(network, meta)  # runs onnx.checker
        write_onnx(model, onnx)
        write_openvino(model, meta, xml)
        programs = {"onnxruntime": lambda: by_onnxruntime(onnx), "openvino": lambda: open_detector(xml).run}
        if with_opencv:
            programs["opencv"] = lambda: by_opencv(onnx)
        for program, opened in programs.items():
            output = opened()(images.numpy())
            gap = np.abs(output - expected)
            close = bool((gap <= TOLERANCE + TOLERANCE * np.abs(expected)).all())
            rows[program] = (float(gap[:, 4:].max()), float(gap[:, :4].max()), close)
    return rows


def networks(genotypes: int, imgsz: int) -> None:
    space, rng = open_space("gradient-path", CLASSES), random.Random(0)
    graphs = [(f"genotype {i}", space.propose([], rng).graph) for i in range(genotypes)]
    published: list[tuple[str, Graph]] = []
    for name in catalogue():
        try:
            published.append((name, build(with_classes(open_catalogue(name), CLASSES))))
        except GenotypeError:  # a classifier
            continue
    graphs += sorted(published, key=lambda pair: sum(pair[1].parameters))
    passed: dict[str, list[bool]] = {}
    worst: dict[str, tuple[float, float]] = {}
    for i, (name, graph) in enumerate(graphs):
        began = time.perf_counter()
        rows = differences(graph, name, imgsz, i, with_opencv=i < IN_OPENCV or i >= genotypes)
        parts = []
        for program, (scores, boxes, close) in rows.items():
            passed.setdefault(program, []).append(close)
            old = worst.get(program, (0.0, 0.0))
            worst[program] = (max(old[0], scores), max(old[1], boxes))
            parts.append(f"{program} {scores:.1e} {boxes:.1e} {'' if close else 'DIFFERS'}")
        print(f"{name:32} {'  '.join(parts)} ({time.perf_counter() - began:.0f} s)", flush=True)
    print(f"{genotypes} genotypes and {len(published)} detectors of the catalogue at {imgsz} px, all read by onnx.checker")
    for program, results in passed.items():
        scores, boxes = worst[program]
        print(
            f"{program:12} {sum(results)} of {len(results)} equal; largest differences: score {scores:.1e}, box {boxes:.1e} px"
        )


def data(checkpoint: str, source: str) -> None:
    loaded, images = open_network(checkpoint), open_data(source)
    records = images.splits["test" if "test" in images.splits else "val"]
    split = next(name for name, own in images.splits.items() if own is records)
    meta = replace(about(loaded.network.graph, loaded.imgsz, checkpoint), names=loaded.names, weights=loaded.weights)
    fused = loaded.network.fused()
    with tempfile.TemporaryDirectory() as folder:
        onnx, nms, xml = (Path(folder) / name for name in ("x.onnx", "nms.onnx", "x.xml"))
        write_onnx(onnx_model(fused, meta), onnx)
        write_onnx(onnx_model(fused, replace(meta, nms=True)), nms)
        write_openvino(onnx_model(fused, replace(meta, dynamic=True)), meta, xml)
        detectors: dict[str, Detector] = {
            "torch": torch_detector(loaded, loaded.imgsz, "cpu"),
            "onnxruntime": open_detector(onnx),
            "onnxruntime, --nms": open_detector(nms),
            "OpenVINO": open_detector(xml),
        }
        print(f"{checkpoint} on {len(records)} images ({split}) at {loaded.imgsz} px")
        for name, detector in detectors.items():
            metrics = judge_records(detector, records)[0].metrics
            print(f"{name:24} AP {metrics['ap']:.4f}  AP50 {metrics['ap50']:.4f}", flush=True)
        for name in images.splits:
            centred = judge_records(detectors["torch"], images.splits[name])[0].metrics["ap"]
            corner = judge_split(loaded.network, images, name, loaded.imgsz, device="cpu")[0].metrics["ap"]
            print(f"torch, {name:5}: top left corner AP {corner:.4f}, centred {centred:.4f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["data"]:
        data(*sys.argv[2:4])
    else:
        counts = [int(text) for text in sys.argv[2:4]]
        networks(*counts, *(100, 64)[len(counts) :])
