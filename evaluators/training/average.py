"""TODO."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from gpnas.graph.network import Network


class _Average:
    """Exponential moving average of a network's weights and normalisation statistics.

    The decay ramps up as (1 + n) / (10 + n) after n updates, so that the average spans about the last tenth of a training
    of any length, and never contains the untrained weights.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        # State dictionaries share memory with their networks, and training changes tensors in place.
        self._own, self._source = (
            [tensor for tensor in of.state_dict().values() if tensor.is_floating_point()] for of in (self.network, network)
        )

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._own, self._source, 1 - decay)

    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        self.network.load_state_dict(state)
        self.updates = updates
