"""The batch size that uses a GPU's memory well, measured with two batches of a few images (`gpnas train --batch auto`)."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from evaluators.data.batches import Batch
from evaluators.device import free_cache
from evaluators.training.distributed import ALONE, Group
from evaluators.training.loop import new_network
from evaluators.training.optimizer import new_optimizer
from evaluators.training.step import GradientAccumulator
from gpnas.errors import is_out_of_memory
from gpnas.graph.graph import Graph

CPU_BATCH = 16
"""Images in a batch on a CPU."""

MAX_BATCH = 128
"""The largest batch that is chosen, over all processes: larger ones learn less in an epoch."""

_MEMORY_SHARE = 0.8  # of the free memory


def automatic_batch(
    graph: Graph, classes: int, imgsz: int, device: torch.device, precision: str = "auto", group: Group = ALONE
) -> int:
    """Images in a batch, over all processes of the group: each process's share fits into 80 % of the free memory of its GPU;
    CPU_BATCH on a CPU. imgsz: pixels.

    The first process measures, and all take what it says: call it in all of them, when their images have been loaded.
    """
    if device.type != "cuda":
        return CPU_BATCH

    def peak(images: int) -> int:
        free_cache(device)
        before = torch.cuda.memory_allocated(device)  # the images of the data
        torch.cuda.reset_peak_memory_stats(device)
        try:
            gradients = new_accumulator(graph, classes, imgsz, device, precision)
            gradients.backward_in(1, noise_batch(images, imgsz, device), graph.outputs)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return sys.maxsize
        return torch.cuda.max_memory_allocated(device) - before

    share = 0
    if group.is_leader:
        free_cache(device)
        share = largest_batch(peak, int(_MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]))
        free_cache(device)
    return batch_of_group(group.broadcast(share), group.size)


def batch_of_group(share: int, processes: int) -> int:
    """Images in a batch of so many processes, each of which has memory for `share`: MAX_BATCH at most, but two for each."""
    return max(2 * processes, min(share * processes, MAX_BATCH))


def new_accumulator(graph: Graph, classes: int, imgsz: int, device: torch.device, precision: str) -> GradientAccumulator:
    """An untrained network on `device`, ready for a backward pass as in a training."""
    network = new_network(graph, classes, imgsz, 0).train()
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = new_optimizer(network, "adamw", lr=1e-3, momentum=0.9, weight_decay=0.0)
    return GradientAccumulator(network, optimizer, classes, precision)


def noise_batch(images: int, imgsz: int, device: torch.device) -> Batch:
    """Noise of `imgsz` x `imgsz` pixels, with eight boxes of class 0 in each image."""
    pixels = torch.rand(images, 3, imgsz, imgsz, device=device).contiguous(memory_format=torch.channels_last)
    box = torch.tensor([imgsz / 4, imgsz / 4, imgsz / 2, imgsz / 2], device=device)
    return Batch(pixels, box.expand(images, 8, 4), torch.zeros(images, 8, dtype=torch.int64, device=device), images)


def largest_batch(peak: Callable[[int], int], memory: int) -> int:
    """The largest power of two, from 2 to MAX_BATCH, whose peak of memory is at most `memory` bytes.

    peak: bytes that a batch of so many images takes. It is called for 2 and for 8 images; the straight line through the two
    tells the rest.
    """
    peak_of_2, peak_of_8 = peak(2), peak(8)
    per_image = max((peak_of_8 - peak_of_2) / 6, 1.0)
    batch = 2
    while 2 * batch <= MAX_BATCH and peak_of_2 + (2 * batch - 2) * per_image <= memory:
        batch *= 2
    return batch
