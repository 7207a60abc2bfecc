"""Random writes in place into a tensor and its views: the graph has the gradients of autograd."""

from __future__ import annotations

import random
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gpnas.graph.cost import cost
from gpnas.graph.trace import trace
from tests.graph.traced_models import assert_gradients_of_autograd, conv


class Scribbled(nn.Module):
    """Random writes into a tensor and its views. `tanh` of whole layers only, so that no gradient is zero by chance."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.stem = conv(3, 6)
        self.layers = nn.ModuleList(conv(6, 6) for _ in range(4))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        rng = random.Random(self.seed)
        first = torch.tanh(self.stem(x))
        y = rng.choice((first.clone(), torch.zeros_like(first)))
        kept: list[Tensor] = []
        for layer in self.layers:
            new = torch.tanh(layer(y.clone() + first))
            for _ in range(rng.randint(1, 3)):
                y = self.write(rng, y, new, first)
                if rng.random() < 0.3:
                    kept.append(self.view(rng, y))
        return (y[:, : rng.randint(1, 6)], new[:, :1], *(view * 1 for view in kept[:2]))

    def view(self, rng: random.Random, y: Tensor) -> Tensor:
        start = rng.randint(0, 4)
        part = y[:, start : rng.randint(start + 1, 6)]
        return rng.choice((part, part.permute(0, 2, 3, 1), part[:, :, None], y.flatten(2)))

    def write(self, rng: random.Random, y: Tensor, new: Tensor, first: Tensor) -> Tensor:
        width = rng.randint(1, 6)
        at, source = rng.randint(0, 6 - width), rng.randint(0, 6 - width)
        values = rng.choice((new, new, first, y.clone(), new.detach()))[:, source : source + width]
        kind = rng.choice(("set", "add", "copy", "permuted", "chained", "scatter", "zero", "scaled", "halves"))
        if kind == "set":
            y[:, at : at + width] = values
        elif kind == "add":
            y[:, at : at + width] += values
        elif kind == "copy":
            y.narrow(1, at, width).copy_(values)
        elif kind == "permuted":
            y.permute(0, 3, 1, 2)[:, :, at : at + width].copy_(values.permute(0, 3, 1, 2))
        elif kind == "chained":
            y[:, at:][:, :width].add_(values)
        elif kind == "scatter":
            y = torch.slice_scatter(y, values, 1, at, at + width)
        elif kind == "zero":
            y[:, at : at + width] = 0
        elif kind == "scaled":
            y[:, at : at + width].mul_(0.5)
        else:
            y.view(2, 2, 3, *y.shape[2:])[:, 1] = new[:, :3]
        return y


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_random_writes_have_the_gradients_of_autograd(seed: int) -> None:
    torch.manual_seed(seed)
    model: Any = Scribbled(seed).double()
    image = torch.randn(2, 3, 2, 5, dtype=torch.float64)
    graph = trace(model, (image,))
    assert_gradients_of_autograd(model, graph, image)
    assert cost(graph, 2, 5).params == sum(p.numel() for p in model.parameters())
