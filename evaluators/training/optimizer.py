"""TODO."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from evaluators.training.recipe import Recipe
from gpnas.errors import InputError

_ALIGNED = 16  # parameters begin at multiples of so many values, of 4 bytes each, in the vector that holds them


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Of two vectors that hold all parameters: kernels, which decay, and biases and normalisation, which do not."""
    kernels = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    decays = ((kernels, recipe.weight_decay), (others, 0.0))
    groups = [{"params": [_side_by_side(members)], "weight_decay": decay} for members, decay in decays if members]
    return _OPTIMIZERS[recipe.optimizer](groups, recipe)


def _side_by_side(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """A vector, with a gradient, of which the parameters and their gradients are views from now on.

    One call then steps, measures or clears them all: with one for each of a few hundred small layers, that took a tenth of a
    proxy's time. The gradients must be cleared by zeros, never by None.
    """
    starts = list(itertools.accumulate((-(-p.numel() // _ALIGNED) * _ALIGNED for p in parameters), initial=0))
    vector = nn.Parameter(parameters[0].new_zeros(starts.pop()))
    vector.grad = torch.zeros_like(vector)
    for parameter, start in zip(parameters, starts, strict=True):
        mine, gradient = (of.as_strided(parameter.shape, parameter.stride(), start) for of in (vector.data, vector.grad))
        parameter.data, parameter.grad = mine.copy_(parameter.data), gradient
    return vector


def _load_vectors(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    optimizer.load_state_dict(state)
    for vector, moments in optimizer.state.items():
        if any(moment.ndim and moment.shape != vector.shape for moment in moments.values()):
            raise InputError("the optimiser's state was laid out by another version of gpnas; train again in another folder")


def _adamw(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=True)


def _sgd(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=True, fused=True)


_OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], Recipe], torch.optim.Optimizer]] = {"adamw": _adamw, "sgd": _sgd}
