"""Small torch modules to trace, and what a test reads from their graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gpnas.graph.graph import Graph, Op
from gpnas.graph.trace import trace
from gpnas.paths.gradient_paths import gradient_paths


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


Row = tuple[str, tuple[int, ...], int, dict[str, Any]]
"""Kind, inputs, channels, and the other fields that are not at their default."""


def rows(graph: Graph) -> list[Row]:
    """All operations after the image."""
    return [
        (op.kind, op.inputs, op.channels, {name: getattr(op, name) for name, default in Op._field_defaults.items()
         if getattr(op, name) != default})
        for op in graph.ops[1:]
    ]  # fmt: skip


def traced(forward: Callable[[Any, Tensor], object], image: Tensor | None = None, **layers: Any) -> Graph:
    return trace(Joined(forward, **layers), (small() if image is None else image,))


def read(*tensors: Callable[[Any, Tensor], Tensor], image: Tensor | None = None, **layers: Any) -> list[Row]:
    """The operations of a network that returns each of `tensors`, computed from the image."""
    return rows(traced(lambda m, x: tuple(tensor(m, x) for tensor in tensors), image, **layers))


def assert_gradients_of_autograd(model: Joined, graph: Graph, image: Tensor) -> None:
    """Each output channel of each layer of `model` gets a gradient in torch exactly when it gets one in the graph."""
    groups = {graph.ops[layer.op].name: layer.groups for layer in gradient_paths(graph).layers}
    model.zero_grad()
    out: Any = model(image)
    tensors = [out] if isinstance(out, Tensor) else [tensor for tensor in out if tensor.requires_grad]
    torch.stack([tensor.square().sum() for tensor in tensors]).sum().backward()
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        gradient = module.weight.grad
        width = module.weight.shape[0]
        in_torch = [False] * width if gradient is None else (gradient.abs().flatten(1).sum(1) != 0).tolist()
        in_graph = [any(group.start <= channel < group.stop for group in groups.get(name, ())) for channel in range(width)]
        assert in_graph == in_torch, name
