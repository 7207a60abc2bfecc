"""TODO."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from evaluators.data.augment import Batch
from evaluators.detector.loss import network_loss
from evaluators.device import autocast
from evaluators.training.distributed import Group, without_averaging
from gpnas.errors import GpnasError
from gpnas.graph.graph import Output


class OutOfMemory(GpnasError):
    """Not even two images at a time fit into memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python could not allocate: on the CPU torch says so in a plain RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("not enough memory", "defaultcpuallocator", "out of memory")
    )


class _Step(NamedTuple):
    """What the passes before a step of the optimiser need. losses: the network's outputs, with the weights of their losses."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    losses: Sequence[Output]
    batch: Batch
    classes: int
    precision: str
    group: Group


def _gradients(step: _Step, pieces: int) -> tuple[list[float], int]:
    """Accumulate the gradients of a batch's mean loss; the loss (total, box, classes, distribution), and the pieces.

    When memory does not suffice the batch is done again in twice as many pieces, down to two images each (not in a group, whose
    other processes would wait for ever).
    """
    images, alone = step.batch.images, step.group.size == 1
    while True:
        try:
            return _accumulated(step, pieces), pieces
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            most = max(1, len(images) // 2) if alone else 1
            if pieces >= most:
                few = min(2, len(images)) if alone else len(images)
                raise OutOfMemory(f"{few} images of {images.shape[-1]} pixels do not fit into memory") from error
            pieces = min(2 * pieces, most)
        # Outside of the handler the failed pass is no longer referred to, and its tensors are free.
        if images.device.type == "cuda":
            torch.cuda.empty_cache()


def _accumulated(step: _Step, pieces: int) -> list[float]:
    network, batch = step.network, step.batch
    step.optimizer.zero_grad(set_to_none=False)  # the parameters' gradients are views of its own
    total = torch.zeros(4, device=batch.images.device)
    split = (tensor.tensor_split(pieces) for tensor in (batch.images, batch.boxes, batch.classes))
    for i, (images, boxes, labels) in enumerate(zip(*split, strict=True)):
        share = len(images) / batch.whole
        with without_averaging(network) if i + 1 < pieces else contextlib.nullcontext():
            with autocast(images.device, step.precision):
                outputs = network(images)
            parts = network_loss(outputs, step.losses, boxes, labels, step.classes)
            torch.autograd.backward(parts.total * (share * step.group.size))  # the group averages
        total += share * torch.stack([parts.total, *parts]).detach()
    return [float(x) for x in step.group.summed(total).cpu()]
