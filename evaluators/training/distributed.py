"""Training on several devices: one process for each device, started by torchrun.

    torchrun --nproc-per-node 4 -m gpnas train best.yaml --data my_coco --out runs/full

Every process draws the same batches and augmentations from the same seed, and computes its share of each batch. torch's
DistributedDataParallel averages the gradients. The result is that of one process that cuts its batches into as many
pieces. Only the first process, the leader, evaluates, writes and reports.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from evaluators.data.batches import BatchShare


class Group(NamedTuple):
    """The processes that train together. rank: the number of this process, from 0. size: how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def is_leader(self) -> bool:
        return self.rank == 0

    @property
    def share(self) -> BatchShare:
        """This process's part of every batch."""
        return BatchShare(self.rank, self.size)

    def wrap(self, network: nn.Module) -> nn.Module:
        """`network` with a backward pass that averages gradients over the group; `network` itself when it trains alone."""
        if self.size == 1:
            return network
        device = next(network.parameters()).device
        device_ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=device_ids, broadcast_buffers=False)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of all processes' `values`, in every process (and in place)."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def broadcast(self, value: Any) -> Any:
        """The leader's `value`, in every process."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]


ALONE = Group()
"""Training in one process."""


def without_averaging(network: nn.Module) -> contextlib.AbstractContextManager[None]:
    """While this is entered, a backward pass adds to this process's gradients and does not average them over the group.

    For all pieces of a batch but the last.
    """
    if isinstance(network, nn.parallel.DistributedDataParallel):
        return network.no_sync()
    return contextlib.nullcontext()


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[tuple[Group, torch.device]]:
    """Join the group that torchrun started this process in (ALONE without torchrun): the group, and this process's device."""
    if not distributed.is_torchelastic_launched():
        yield ALONE, device
        return
    rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if device.type == "cuda":
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(rank, size), device
        distributed.barrier()  # nobody leaves while another process still sends
    finally:
        gc.collect()  # cycles of DistributedDataParallel hold threads of the group, which must end before the interpreter does
        distributed.destroy_process_group()
