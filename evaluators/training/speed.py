"""How fast this machine trains: seconds for one FLOP of training, measured on a few steps of a real training.

seconds_per_flop(graph, data, imgsz=160, batch_size=8, threads=1, device="cpu")
"""

from __future__ import annotations

import itertools
import statistics
from typing import Any

import cv2
import torch

from evaluators.data.bank import load_bank
from evaluators.data.records import DetectionData
from evaluators.device import pick_device
from evaluators.training.loop import fit, new_network
from evaluators.training.recipe import Recipe, for_data
from gpnas.graph.cost import cost
from gpnas.graph.graph import Graph

STEPS = 3
"""Steps that are timed, after one that warms up."""


def seconds_per_flop(
    graph: Graph,  # of a detector for the classes of `data`
    data: DetectionData,
    imgsz: int,  # pixels
    *,
    batch_size: int,
    threads: int,  # of torch and of OpenCV
    device: str,  # as `evaluators.device.pick_device` takes it
) -> float:
    """Median seconds of a training step for each of its FLOPs: three passes of the train form over the images, 2 FLOPs a MAC.

    The time to make a batch is part of it. Raises ValueError when the head does not fit the data, OutOfMemory and
    TrainingDiverged as a training does.
    """
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    try:
        return _seconds_per_flop(graph, data, imgsz, batch_size, device)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def _seconds_per_flop(graph: Graph, data: DetectionData, imgsz: int, batch_size: int, device: str) -> float:
    place = pick_device(device)
    bank = load_bank(data.splits["train"][:batch_size], imgsz, place, accept_broken=True)
    recipe = Recipe(epochs=1 + STEPS, imgsz=imgsz, batch_size=batch_size, eval_every=0, device=str(place))
    rows: list[dict[str, Any]] = []
    network = new_network(graph, len(data.names), imgsz, seed=0)
    fit(network, bank, None, data.names, for_data(recipe, data), report=rows.append)
    ended = [row["seconds"] for row in rows]  # since the start, after each epoch of one step
    step = statistics.median(after - before for before, after in itertools.pairwise(ended))
    return float(step) / (6.0 * cost(graph, imgsz, imgsz, fused=False).macs * len(bank.pixels))
