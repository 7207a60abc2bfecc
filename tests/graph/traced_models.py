"""Small torch modules to trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Joined(nn.Module):
    """Named layers, and a forward function that is called with the module and the image."""

    def __init__(self, forward: Callable[[Any, Tensor], object], **layers: nn.Module | Tensor) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            if isinstance(layer, Tensor) and not isinstance(layer, nn.Parameter):
                self.register_buffer(name, layer)
            else:
                setattr(self, name, layer)

    def forward(self, x: Tensor) -> object:
        return self.run(self, x)


def conv(a: int, b: int, kernel: int = 1) -> nn.Conv2d:
    return nn.Conv2d(a, b, kernel, padding=kernel // 2)


def small() -> Tensor:
    """(2, 3, 6, 10)"""
    return torch.zeros(2, 3, 6, 10)
