"""Everything that needs a GPU, in one run: training speed, several proxies at the same time, repeatability, little memory.

    python benchmarks/gpu.py [--peak 989] [--images 1024]

It trains on digit scenes and prints:

1. for yolov9-t and yolov9-s at 256 and 640 pixels: images a second in bf16 and fp32, peak memory, TFLOP/s (6 x MACs for each
   image: three passes of 2 FLOPs a MAC), their share of --peak (dense bf16 TFLOP/s of the card; 989 for an H200), and the
   images a second of Ultralytics with the same images and architecture, if it is installed;
2. seconds for four proxies one after another and at the same time;
3. the largest relative difference of a weight between two trainings with the same seed;
4. what training does when it may use 2 % of the memory.
"""

import argparse
import math
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml

from evaluators.data.bank import load_bank
from evaluators.data.digits import digit_scenes
from evaluators.data.open import DataSource
from evaluators.data.records import DetectionData
from evaluators.proxy import ProxyEvaluator
from evaluators.training.loop import fit, new_network
from evaluators.training.recipe import Recipe
from gpnas.errors import OutOfMemory
from gpnas.graph.cost import cost
from gpnas.graph.graph import Graph
from gpnas.run.workers import Job, LocalWorkers
from gpnas.search.trial import Fidelity
from search_spaces.architecture import build, with_classes
from search_spaces.blueprint import open_catalogue
from search_spaces.gradient_path import GradientPathSpace

NAMES, SIZES, BATCH = ("yolov9-t", "yolov9-s"), (256, 640), 64


def graph_of(name: str) -> Graph:
    return build(with_classes(open_catalogue(name), 10))


def ours(graph: Graph, data: DetectionData, size: int, images: int, precision: str) -> tuple[float, float]:
    """Images a second in the third epoch (the first two warm up), and the peak of memory in GiB."""
    records = (data.splits["train"] * math.ceil(images / len(data.splits["train"])))[:images]
    bank = load_bank(records, size, "cuda")
    recipe = Recipe(3, size, BATCH, eval_every=0, plain_epochs=0, device="cuda", precision=precision)
    stamps = [0.0]
    torch.cuda.reset_peak_memory_stats()

    def stamp(_: object) -> None:
        torch.cuda.synchronize()
        stamps.append(time.perf_counter())

    fit(new_network(graph, 10, size, 0), bank, None, data.names, recipe, report=stamp)
    return images / (stamps[3] - stamps[2]), torch.cuda.max_memory_allocated() / 2**30


def ultralytics(name: str, data: DetectionData, size: int, images: int) -> float | None:
    """Images a second in the third epoch of Ultralytics' trainer; None if it is not installed."""
    try:
        from ultralytics import YOLO
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for part in ("images", "labels"):
            (root / part).mkdir()
        for k in range(images):
            record = data.splits["train"][k % len(data.splits["train"])]
            assert record.pixels is not None
            cv2.imwrite(str(root / "images" / f"{k}.jpg"), record.pixels[..., ::-1])
            x1, y1, x2, y2 = record.boxes.T
            rows = np.column_stack(
                [
                    record.classes,
                    (x1 + x2) / 2 / record.width,
                    (y1 + y2) / 2 / record.height,
                    (x2 - x1) / record.width,
                    (y2 - y1) / record.height,
                ]
            )
            (root / "labels" / f"{k}.txt").write_text("\n".join(" ".join(f"{v:.6g}" for v in row) for row in rows))
        names = dict(enumerate(data.names))
        (root / "data.yaml").write_text(yaml.safe_dump({"path": folder, "train": "images", "val": "images", "names": names}))
        stamps: list[float] = []
        model = YOLO(f"{name.replace('-', '')}.yaml")
        model.add_callback("on_train_epoch_start", lambda trainer: stamps.append(time.perf_counter()))
        model.train(
            data=str(root / "data.yaml"), imgsz=size, epochs=4, batch=BATCH, val=False, plots=False, cache="ram", project=folder
        )
    return images / (stamps[3] - stamps[2])


def speeds(data: DetectionData, images: int, peak: float) -> None:
    print(f"{'':18}{'bf16/s':>9}{'fp32/s':>9}{'GiB':>7}{'TFLOP/s':>9}{'of peak':>9}{'Ultralytics/s':>15}{'ratio':>7}")
    for name in NAMES:
        graph = graph_of(name)
        for size in SIZES:
            (fast, memory), (slow, _) = (ours(graph, data, size, images, precision) for precision in ("bf16", "fp32"))
            teraflops = 6 * cost(graph, size, size, fused=False).macs * fast / 1e12
            theirs = ultralytics(name, data, size, images)
            compared = f"{theirs:13.0f}/s{fast / theirs:7.2f}" if theirs else f"{'not installed':>15}"
            share = f"{teraflops:9.1f}{teraflops / peak:8.1%}"
            print(f"{name + f' {size} px':18}{fast:7.0f}/s{slow:7.0f}/s{memory:7.1f}{share} {compared}")


def proxies(at_once: int, count: int = 4) -> float:
    """Seconds for `count` proxies in `at_once` processes on one GPU, without the start of the processes."""
    space, rng = GradientPathSpace(10, {"pgi.kind": ("none",)}), random.Random(0)
    candidates = [space.propose([], rng) for _ in range(count + at_once)]
    evaluator = ProxyEvaluator(DataSource("digits"), device="cuda")
    with tempfile.TemporaryDirectory() as folder, LocalWorkers(evaluator, at_once) as workers:
        for part in (candidates[count:], candidates[:count]):  # the first ones start the processes
            began, waiting, running = time.perf_counter(), list(part), 0
            while waiting or running:
                while waiting and workers.free:
                    place = Path(folder) / f"{len(waiting)}-{len(part)}"
                    place.mkdir()
                    workers.submit(Job((len(waiting), len(part)), waiting.pop(), Fidelity(8, 256), place, None))
                    running += 1
                for message in workers.poll(0.2):
                    if hasattr(message, "evaluation"):
                        running -= 1
                        print(f"  {message.evaluation.state}: AP {message.evaluation.metrics.get('ap', math.nan):.3f}")
            seconds = time.perf_counter() - began
    return seconds


def difference_of_weights(data: DetectionData) -> float:
    """The largest relative difference of a weight between two trainings with the same seed."""
    weights = []
    for _ in range(2):
        network = new_network(graph_of("yolov9-t"), 10, 256, 0)
        bank = load_bank(data.splits["train"], 256, "cuda")
        fit(network, bank, None, data.names, Recipe(2, 256, 16, eval_every=0, device="cuda"), report=lambda row: None)
        weights.append(torch.cat([p.detach().flatten().cpu() for p in network.parameters()]))
    return float((weights[0] - weights[1]).abs().max() / weights[0].abs().max())


def with_little_memory(data: DetectionData) -> str:
    """What training does with 2 % of the memory: it trains fewer images at a time, or its error says so."""
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        bank = load_bank(data.splits["train"][:128], 640, "cuda")
        recipe = replace(Recipe(1, 640, 64, eval_every=0, device="cuda"), plain_epochs=0)
        result = fit(new_network(graph_of("yolov9-t"), 10, 640, 0), bank, None, data.names, recipe, report=lambda row: None)
        return f"trained in smaller pieces, {result.seconds:.0f} s"
    except OutOfMemory as error:
        return str(error)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak", type=float, default=989.0)
    parser.add_argument("--images", type=int, default=1024)
    arguments = parser.parse_args()
    data = digit_scenes()
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    speeds(data, arguments.images, arguments.peak)
    one, four = proxies(1), proxies(4)
    print(f"four proxies: one after another {one:.1f} s, at once {four:.1f} s, ratio {one / four:.2f}")
    print(f"two trainings with one seed: weights differ by at most {difference_of_weights(data):.2g} of the largest")
    print(f"with 2 % of the memory: {with_little_memory(data)}")


if __name__ == "__main__":
    main()
