"""The gradients of one step: a forward and a backward pass over a batch, in pieces where memory is short.

A piece counts by its share of the batch's images (gradient accumulation), so a step in pieces differs from one step over the
whole batch only where the loss and the normalisation look at several images together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evaluators.data.batches import Batch
from evaluators.detector.loss import PLAIN_LOSS, LossSettings, network_loss
from evaluators.device import autocast, free_cache
from evaluators.training.distributed import ALONE, Group, without_averaging
from gpnas.errors import OutOfMemory, is_out_of_memory
from gpnas.graph.graph import Output


class Losses(NamedTuple):
    """The loss of a batch and its three parts, each multiplied by its gain: loss = box + classes + distribution. The steps keep
    them as a tensor on the device, in this order, because to read them is to wait for the device."""

    loss: float
    box: float
    classes: float
    distribution: float


@dataclass
class GradientAccumulator:
    """Computes gradients of batches. network: as `Group.wrap` returns it. pieces: how many pieces a batch is cut into.
    settings: of the loss. summed: see `Recipe`.

    Where memory runs out `pieces` grows, and stays so for the batches that follow.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    classes: int
    precision: str
    group: Group = ALONE
    pieces: int = 1
    settings: LossSettings = PLAIN_LOSS
    summed: bool = False

    def backward(self, batch: Batch, outputs: Sequence[Output]) -> Tensor:
        """Set the parameters' gradients to those of the loss of `batch`. outputs: with the weights of their losses. Returns the
        `Losses`, float32 (4,), on the batch's device.

        When memory runs out the batch is done again in twice as many pieces, down to two images a piece. A group of several
        processes does not try again, because the other processes would wait for ever. Raises OutOfMemory.
        """
        images, alone = batch.images, self.group.size == 1
        most = max(1, len(images) // 2) if alone else 1
        while True:
            pieces = min(self.pieces, most)  # the last batch of an epoch may be small
            try:
                return self.backward_in(pieces, batch, outputs)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if pieces == most:
                    fewest = min(2, len(images)) if alone else len(images)
                    raise OutOfMemory(f"{fewest} images of {images.shape[-1]} pixels do not fit into memory") from error
                self.pieces = min(2 * pieces, most)
            # Outside of the handler nothing refers to the failed pass any more, and its tensors are free.
            free_cache(images.device)

    def backward_in(self, pieces: int, batch: Batch, outputs: Sequence[Output]) -> Tensor:
        """As `backward`, in exactly so many pieces; raises what torch raises when memory runs out."""
        self.optimizer.zero_grad(set_to_none=False)  # the parameters' gradients are views of the optimizer's
        total = torch.zeros(4, device=batch.images.device)
        cut = (tensor.tensor_split(pieces) for tensor in (batch.images, batch.boxes, batch.classes))
        for i, (images, boxes, labels) in enumerate(zip(*cut, strict=True)):
            share = len(images) / batch.full_size
            with without_averaging(self.network) if i + 1 < pieces else contextlib.nullcontext():
                with autocast(images.device, self.precision):
                    predictions = self.network(images)
                parts = network_loss(predictions, outputs, boxes, labels, self.classes, self.settings)
                factor = batch.full_size if self.summed else 1
                # The group averages over its processes.
                torch.autograd.backward(parts.total * (factor * share * self.group.size))
            total += share * torch.stack([parts.total, *parts]).detach()
        return self.group.sum(total)
