"""Training on several devices: one process for each, started by torchrun.

    torchrun --nproc-per-node 4 -m gpnas train best.yaml --data my_coco

Every process draws the same batches and augmentations from the same seed and computes its share of each batch; the shares'
gradients are averaged by their numbers of images (torch's DistributedDataParallel). A step is then that of one process that
does its batch in as many pieces. The first process alone evaluates, writes and reports.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from evaluators.data.augment import Share


class Group(NamedTuple):
    """The processes that train together, and which of them this is."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def share(self) -> Share:
        """This process's part of every batch."""
        return Share(self.rank, self.size)

    def wrapped(self, network: nn.Module) -> nn.Module:
        """`network` so that its backward pass averages gradients over the group; as it is when it trains alone."""
        if self.size == 1:
            return network
        device = next(network.parameters()).device
        places = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=places, broadcast_buffers=False)

    def summed(self, values: Tensor) -> Tensor:
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def from_leader(self, value: Any) -> Any:
        """What the first process has, in all of them."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]


ALONE = Group()


def without_averaging(network: nn.Module) -> contextlib.AbstractContextManager[None]:
    """While a batch is done in pieces, all but the last only add up their gradients."""
    if isinstance(network, nn.parallel.DistributedDataParallel):
        return network.no_sync()
    return contextlib.nullcontext()


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[tuple[Group, torch.device]]:
    """The group that torchrun started this process in (alone without torchrun), and this process's device."""
    if not distributed.is_torchelastic_launched():
        yield Group(), device
        return
    rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if device.type == "cuda":
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(rank, size), device
        distributed.barrier()  # nobody takes the group down while another still speaks
    finally:
        distributed.destroy_process_group()
