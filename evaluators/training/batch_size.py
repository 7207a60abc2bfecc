"""TODO."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from evaluators.data.augment import Batch
from evaluators.training.distributed import ALONE
from evaluators.training.loop import new_network
from evaluators.training.optimizer import _optimizer
from evaluators.training.recipe import Recipe
from evaluators.training.step import _accumulated, _Step
from gpnas.graph.graph import Graph

CPU_BATCH, MOST_BATCH = 16, 128
"""Images a step that `automatic_batch` chooses on a CPU, and at most: larger ones learn less in an epoch."""


def automatic_batch(graph: Graph, classes: int, imgsz: int, device: torch.device, precision: str = "auto") -> int:
    """Images a step that use a GPU's free memory well, measured with two steps of a few images; CPU_BATCH on a CPU."""
    if device.type != "cuda":
        return CPU_BATCH

    def peak(images: int) -> int:
        gc.collect()  # the optimiser of a call before may stand in a cycle
        network = new_network(graph, classes, imgsz, 0).train()
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = _optimizer(network, Recipe(1, imgsz))
        torch.cuda.reset_peak_memory_stats(device)
        pixels = torch.rand(images, 3, imgsz, imgsz, device=device).contiguous(memory_format=torch.channels_last)
        box = torch.tensor([imgsz / 4, imgsz / 4, imgsz / 2, imgsz / 2], device=device).expand(images, 8, 4)
        labels = torch.zeros(images, 8, dtype=torch.int64, device=device)
        batch = Batch(pixels, box, labels, images)
        _accumulated(_Step(network, optimizer, graph.outputs, batch, classes, precision, ALONE), 1)
        return torch.cuda.max_memory_allocated(device)

    found = fitting_batch(peak, int(0.8 * torch.cuda.mem_get_info(device)[0]))
    torch.cuda.empty_cache()
    return found


def fitting_batch(peak: Callable[[int], int], room: int) -> int:
    """The largest power of two, from 2 to MOST_BATCH, whose peak memory fits into `room` (bytes), by the straight line through
    the peaks of 2 and 8 images."""
    few, more = peak(2), peak(8)
    each = max((more - few) / 6, 1.0)
    batch = 2
    while 2 * batch <= MOST_BATCH and few + (2 * batch - 2) * each <= room:
        batch *= 2
    return batch
