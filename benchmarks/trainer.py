"""The speed of proxy training beside a plain PyTorch loop with the same network, loss and kinds of augmentation; memory.

    python benchmarks/trainer.py [DATA] [IMGSZ]          # digits 128

The plain loop is what a person writes: a Dataset that reads a file, scales it, makes a mosaic, warps, flips and jitters
colours with OpenCV; a DataLoader with worker processes; AdamW; an average of the weights, tensor by tensor. It prints:

1. images a second of ours and of the plain loop with 1 and 2 workers. Both train by turns in several rounds; a first round
   warms up and does not count. A speed is the median over rounds, and a ratio is the median of the rounds' ratios;
2. the same while one training runs on each core with one thread, as in a search, summed over the cores;
3. milliseconds for an augmented image on one core, by OpenCV's warp (as on CPUs) and by a gather (as on GPUs). For this the
   script replaces `evaluators.data.batches.renderer_for`, which chooses between them by the device;
4. the resident memory of one process after each of 20 proxies.
"""

import copy
import itertools
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from evaluators.data import batches as data_batches
from evaluators.data.bank import load_bank
from evaluators.data.gather import gathered_images
from evaluators.data.images import image_of
from evaluators.data.open import DataSource, open_data
from evaluators.data.records import DetectionData
from evaluators.data.warp import warped_images
from evaluators.detector.loss import network_loss
from evaluators.proxy import PROXY_AUGMENTATION, ProxyEvaluator
from evaluators.training.loop import fit, new_network
from evaluators.training.recipe import Recipe, for_data
from gpnas.graph.cost import deployed_cost
from gpnas.graph.graph import Graph
from gpnas.search.trial import Fidelity
from search_spaces.gradient_path import GradientPathSpace

ROUNDS, BATCH, PROXIES = 5, 8, 20
RENDERED_AT = (128, 320, 640)
NETWORKS = (60e6, 150e6)
"""FLOPs of the networks, at 192 pixels: the first sampled one within 20 % of each."""


class Files(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Reads files and augments them, image by image."""

    def __init__(self, files: list[Path], boxes: list[np.ndarray], classes: list[np.ndarray], size: int, flip: bool) -> None:
        self.files, self.boxes, self.classes, self.size, self.flip = files, boxes, classes, size, flip

    def __len__(self) -> int:
        return len(self.files)

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        image = cv2.imread(str(self.files[i]))
        scale = self.size / max(image.shape[:2])
        if scale != 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return image, self.boxes[i] * scale

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        size, kinds = self.size, PROXY_AUGMENTATION
        if random.random() < kinds.mosaic:
            canvas, boxes, labels = np.full((2 * size, 2 * size, 3), 114, np.uint8), [], []
            cx, cy = (random.randint(size // 2, 3 * size // 2) for _ in range(2))
            for k, j in enumerate([i, *random.choices(range(len(self)), k=3)]):
                image, own = self.read(j)
                h, w = image.shape[:2]
                x, y = (cx - w if k % 2 == 0 else cx), (cy - h if k < 2 else cy)
                x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, 2 * size), min(y + h, 2 * size)
                canvas[y1:y2, x1:x2] = image[y1 - y : y2 - y, x1 - x : x2 - x]
                boxes.append(own + np.array([x, y, x, y]))
                labels.append(self.classes[j])
            image, boxes, labels = canvas, np.concatenate(boxes), np.concatenate(labels)
            shift = size / 2 - size
        else:
            image, boxes = self.read(i)
            labels, shift = self.classes[i], 0.0
        scale = random.uniform(1 - kinds.scale, 1 + kinds.scale)
        dx, dy = (shift + random.uniform(-kinds.translate, kinds.translate) * size for _ in range(2))
        image = cv2.warpAffine(image, np.float32([[scale, 0, dx], [0, scale, dy]]), (size, size), borderValue=(114,) * 3)
        boxes = np.clip(boxes * scale + [dx, dy, dx, dy], 0, size)
        if self.flip and random.random() < kinds.flip:
            image, boxes = image[:, ::-1], np.column_stack([size - boxes[:, 2], boxes[:, 1], size - boxes[:, 0], boxes[:, 3]])
        h, s, v = cv2.split(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2HSV))
        gains = 1 + np.array([random.uniform(-1, 1) for _ in range(3)]) * [kinds.hue, kinds.saturation, kinds.value]
        table = np.arange(256)
        h = cv2.LUT(h, ((table * gains[0]) % 180).astype(np.uint8))
        s, v = (cv2.LUT(c, np.clip(table * g, 0, 255).astype(np.uint8)) for c, g in ((s, gains[1]), (v, gains[2])))
        image = cv2.cvtColor(cv2.merge([h, s, v]), cv2.COLOR_HSV2RGB)
        kept = ((boxes[:, 2:] - boxes[:, :2]) >= 2).all(1)
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
        return pixels, torch.from_numpy(boxes[kept]).float(), torch.from_numpy(np.asarray(labels)[kept])


def collate(items: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    most = max(1, max(len(boxes) for _, boxes, _ in items))
    boxes, classes = torch.zeros(len(items), most, 4), torch.full((len(items), most), -1)
    for k, (_, own, labels) in enumerate(items):
        boxes[k, : len(own)], classes[k, : len(own)] = own, labels
    return torch.stack([pixels for pixels, _, _ in items]), boxes, classes


def plain_loop(graph: Graph, data: DetectionData, folder: Path, size: int, workers: int) -> Callable[[], float]:
    """One epoch of the plain loop, when called: images a second."""
    records = data.splits["train"]
    files = []
    for k, record in enumerate(records):
        files.append(record.path or folder / f"{k}.jpg")
        if record.path is None and not files[-1].exists():
            cv2.imwrite(str(files[-1]), image_of(record)[..., ::-1])
    dataset = Files(files, [r.boxes for r in records], [r.classes for r in records], size, data.may_flip)
    loader = DataLoader(
        dataset, BATCH, shuffle=True, num_workers=workers, collate_fn=collate, drop_last=True, persistent_workers=True
    )
    network = new_network(graph, len(data.names), size, 0)
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def epoch() -> float:
        began, images = time.perf_counter(), 0
        for pixels, boxes, classes in loader:
            optimizer.zero_grad()
            parts = network_loss(network.train()(pixels), graph.outputs, boxes, classes, len(data.names))
            parts.total.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            optimizer.step()
            with torch.no_grad():
                for mine, theirs in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                    if mine.is_floating_point():
                        mine.mul_(0.999).add_(theirs, alpha=0.001)
            images += len(pixels)
        return images / (time.perf_counter() - began)

    return epoch


def ours(graph: Graph, data: DetectionData, size: int, waiting: list[float]) -> Callable[[], float]:
    """One epoch of `fit`, when called: images a second."""
    bank = load_bank(data.splits["train"], size)
    recipe = for_data(Recipe(1, size, BATCH, augmentation=PROXY_AUGMENTATION, eval_every=0, device="cpu"), data)
    recipe = replace(recipe, plain_epochs=0, lr=1e-3)  # one epoch, with mosaic
    network = new_network(graph, len(data.names), size, 0)

    def epoch() -> float:
        result = fit(network, bank, None, data.names, recipe, report=lambda row: waiting.append(row["waiting"]))
        return len(bank.pixels) / result.seconds

    return epoch


def at_once(spec: str, size: int, flops: float) -> np.ndarray:
    """(rounds, 2): images a second of ours and of the plain loop with one worker, summed over the cores.

    One process runs on each core with one thread. In a round all processes train ours, then all train the plain loop.
    """
    context, count = multiprocessing.get_context("spawn"), os.cpu_count() or 1
    barrier, rates = context.Barrier(count), context.Queue()
    processes = [context.Process(target=_train_on_a_core, args=(spec, size, flops, barrier, rates)) for _ in range(count)]
    summed = np.zeros((ROUNDS, 2))
    try:
        for process in processes:
            process.start()
        for _ in range(count * summed.size):
            turn, kind, rate = rates.get(timeout=900)
            summed[turn, kind] += rate
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
    return summed


def _train_on_a_core(spec: str, size: int, flops: float, barrier: Any, rates: Any) -> None:
    torch.set_num_threads(1)
    data = open_data(spec)
    graph = sampled(len(data.names), flops)
    with tempfile.TemporaryDirectory() as folder:
        rivals = [ours(graph, data, size, []), plain_loop(graph, data, Path(folder), size, 1)]
        for turn in range(-1, ROUNDS):  # the first warms up
            for kind, epoch in enumerate(rivals):
                barrier.wait(600)  # all cores begin the same epoch together
                rate = epoch()
                if turn >= 0:
                    rates.put((turn, kind, rate))


def sampled(classes: int, flops: float) -> Graph:
    """The first sampled network within 20 % of `flops` at 192 pixels."""
    space, rng = GradientPathSpace(classes, {"pgi.kind": ("none",)}), random.Random(0)
    while True:
        candidate = space.propose([], rng)
        if abs(deployed_cost(candidate.graph, 192).flops / flops - 1) < 0.2:
            return candidate.graph


def milliseconds_by_renderer(data: DetectionData, size: int) -> dict[str, float]:
    """Milliseconds for an augmented image on one core, by name of the renderer."""
    bank, milliseconds = load_bank(data.splits["train"], size), {}
    threads, cv_threads, original = torch.get_num_threads(), cv2.getNumThreads(), data_batches.renderer_for
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        for way, render in (("warped", warped_images), ("gathered", gathered_images)):
            data_batches.renderer_for = lambda device, render=render: render
            took = []
            for _ in range(ROUNDS):
                batches = data_batches.train_batches(bank, BATCH, PROXY_AUGMENTATION, torch.Generator().manual_seed(0))
                began = time.perf_counter()
                images = sum(len(batch.images) for batch in itertools.islice(batches, 20))
                took.append(1000 * (time.perf_counter() - began) / images)
            milliseconds[way] = statistics.median(took)
    finally:
        data_batches.renderer_for = original
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv_threads)
    return milliseconds


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def proxies(spec: str, classes: int, size: int) -> list[float]:
    """Resident MiB of this process after each of PROXIES proxies."""
    space, rng = GradientPathSpace(classes, {"width": (16, 24, 32), "stem.width": (8, 16)}), random.Random(1)
    evaluator = ProxyEvaluator(DataSource(spec), device="cpu", threads=torch.get_num_threads())
    memory = []
    for _ in range(PROXIES):
        with tempfile.TemporaryDirectory() as folder:
            evaluator.evaluate(space.propose([], rng), Fidelity(1, size), Path(folder), lambda row: None)
        memory.append(resident_mib())
    return memory


def main() -> None:
    spec, size = (sys.argv[1] if len(sys.argv) > 1 else "digits"), int(sys.argv[2] if len(sys.argv) > 2 else 128)
    data = open_data(spec)
    print(f"{spec} at {size} px, {len(data.splits['train'])} images, batches of {BATCH}, {torch.get_num_threads()} threads")
    print(
        f"{'FLOPs at 192 px, layers':26}{'ours':>10}{'plain, 1 worker':>18}{'plain, 2 workers':>18}{'ratio':>8}{'waiting':>10}"
    )
    for flops in NETWORKS:
        graph, waiting = sampled(len(data.names), flops), []
        with tempfile.TemporaryDirectory() as folder:
            rivals = [
                ours(graph, data, size, waiting),
                *(plain_loop(graph, data, Path(folder), size, workers) for workers in (1, 2)),
            ]
            speeds = [[epoch() for epoch in rivals] for _ in range(ROUNDS + 1)][1:]
        mine, one, two = np.median(speeds, axis=0).tolist()
        ratio, waited = statistics.median(own / max(plain) for own, *plain in speeds), statistics.median(waiting)
        name = f"{flops / 1e6:.0f}M, {len(graph.layers)} layers"
        print(f"{name:26}{mine:8.1f}/s{one:16.1f}/s{two:16.1f}/s{ratio:8.2f}{100 * waited:8.1f} %")
    count = os.cpu_count()
    print(f"\n{f'{count} at once, a thread each':26}{'ours':>10}{'plain':>18}{'ratio':>8}")
    for flops in NETWORKS:
        rates = at_once(spec, size, flops)
        mine, plain = np.median(rates, axis=0).tolist()
        print(f"{f'{flops / 1e6:.0f}M':26}{mine:8.1f}/s{plain:16.1f}/s{np.median(rates[:, 0] / rates[:, 1]):8.2f}")
    print(f"\n{'milliseconds an image':26}{'warped':>10}{'gathered':>10}{'ratio':>8}")
    for pixels in RENDERED_AT:
        ways = milliseconds_by_renderer(data, pixels)
        print(f"{f'at {pixels} px':26}{ways['warped']:10.2f}{ways['gathered']:10.2f}{ways['gathered'] / ways['warped']:8.1f}")
    memory = proxies(spec, len(data.names), size)
    shown = ", ".join(f"{memory[k]:.0f}" for k in (0, 4, 9, 14, 19))
    print(f"resident memory after proxies 1, 5, 10, 15, 20 in one process: {shown} MiB")


if __name__ == "__main__":
    main()
