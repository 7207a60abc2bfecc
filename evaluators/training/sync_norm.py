"""Batch normalisation over the batch of all processes that train together, in place of each process's share of it.

torch.nn.SyncBatchNorm does the same on GPUs only; this one also runs on CPUs, where a test compares it with one process.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from gpnas.graph.network import BatchNorm


class SyncedBatchNorm2d(BatchNorm):
    """As BatchNorm, with the mean and variance of the inputs of all processes while it trains.

    Their shares may differ in size. It has running statistics, weights and biases.
    """

    def forward(self, x: Tensor) -> Tensor:  # (share, channels, height, width)
        if not self.training:
            return super().forward(x)
        wide = x.float()
        count = wide.new_full((1,), wide.numel() / wide.shape[1])
        joined = _summed(torch.cat([wide.sum((0, 2, 3)), count]))
        mean, total = joined[:-1] / joined[-1], joined[-1]
        centred = wide - mean[:, None, None]
        variance = _summed(centred.square().sum((0, 2, 3))) / total
        with torch.no_grad():
            unbiased = variance * (total / (total - 1).clamp(min=1))
            for running, now in ((self.running_mean, mean), (self.running_var, unbiased)):
                assert running is not None and self.momentum is not None
                running.lerp_(now, self.momentum)
        factor: Tensor = self.weight * (variance + self.eps).rsqrt()
        return (centred * factor[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def _summed(values: Tensor) -> Tensor:
    """The sum of all processes' `values`; gradients flow back to all of them."""
    total: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
    return total


def synchronise_norms(network: nn.Module) -> None:
    """Let every batch normalisation of `network` use the statistics of all processes. Names and parameters stay the same."""
    for module in network.modules():
        if type(module) is BatchNorm:
            module.__class__ = SyncedBatchNorm2d
