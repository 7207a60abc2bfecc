"""Exponential moving average (EMA) of a network's weights, which is what gets evaluated and kept.

average = <decay> * average + (1 - <decay>) * weights        after each step of the optimizer
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gpnas.graph.network import Network


class WeightAverage:
    """The EMA of all floating-point tensors of a network: weights, biases and normalisation statistics.

    After n updates the decay is (1 + n) / (10 + n), at most `decay`. So the average spans about the last tenth of a training
    of any length, and the untrained weights soon vanish from it.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        # The tensors of a state dictionary share memory with the network, and training changes them in place.
        self._averages, self._weights = _floating_point(self.network), _floating_point(network)

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)

    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Continue from a saved average: the `state_dict` of its network and its number of updates."""
        self.network.load_state_dict(state)
        self.updates = updates


def _floating_point(network: nn.Module) -> list[Tensor]:
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
