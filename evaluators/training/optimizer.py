"""AdamW or SGD on two long vectors, of which all parameters and their gradients are views.

One call then updates, measures or clears all parameters. With one call for each parameter of a few hundred small layers,
the calls themselves take a noticeable part of a step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gpnas.errors import InputError

_ALIGNMENT = 16  # values of 4 bytes: each parameter begins at a multiple of 64 bytes in its vector


def new_optimizer(network: nn.Module, name: str, *, lr: float, momentum: float, weight_decay: float) -> torch.optim.Optimizer:
    """An optimizer of all parameters of `network`, by its name in FACTORIES. Makes the parameters views of its vectors.

    Weight decay applies to kernels (parameters of more than one dimension), not to biases and normalisation. momentum: SGD's,
    or the first beta of AdamW. Gradients must be cleared by `zero_grad(set_to_none=False)`: see `check_views`.
    """
    kernels = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    decays = ((kernels, weight_decay), (others, 0.0))
    groups = [{"params": [_joined(members)], "weight_decay": decay} for members, decay in decays if members]
    return FACTORIES[name](groups, lr, momentum)


def _joined(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """One vector, with a gradient. From now on the parameters and their gradients are views of the two."""
    starts = list(itertools.accumulate((-(-p.numel() // _ALIGNMENT) * _ALIGNMENT for p in parameters), initial=0))
    vector = nn.Parameter(parameters[0].new_zeros(starts.pop()))
    vector.grad = torch.zeros_like(vector)
    for parameter, start in zip(parameters, starts, strict=True):
        shape, stride = parameter.shape, parameter.stride()
        parameter.data = vector.data.as_strided(shape, stride, start).copy_(parameter.data)
        parameter.grad = vector.grad.as_strided(shape, stride, start)
    return vector


def parameter_vectors(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The vectors that hold all parameters of the network."""
    return [vector for group in optimizer.param_groups for vector in group["params"]]


def check_views(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raises RuntimeError when a parameter or its gradient is no view of the optimizer's vectors any more.

    The optimizer would silently stop training that parameter. It happens when somebody sets gradients to None, as
    `network.zero_grad()` does, or gives parameters new data.
    """
    vectors = parameter_vectors(optimizer)
    memory = {tensor.untyped_storage().data_ptr() for v in vectors for tensor in (v, v.grad) if tensor is not None}
    for name, parameter in network.named_parameters():
        tensors = (parameter, parameter.grad)
        if not all(tensor is not None and tensor.untyped_storage().data_ptr() in memory for tensor in tensors):
            raise RuntimeError(
                f"{name} or its gradient is no view of the optimizer's vectors any more; "
                "clear gradients by zero_grad(set_to_none=False) of the optimizer"
            )


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load a saved `state_dict`. Raises InputError when its vectors have other lengths."""
    optimizer.load_state_dict(dict(state))
    for vector, moments in optimizer.state.items():
        if any(moment.ndim and moment.shape != vector.shape for moment in moments.values()):
            raise InputError("the optimizer's state was laid out by another version of gpnas; train again in another folder")


def _adamw(groups: list[dict[str, Any]], lr: float, momentum: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=True)


def _sgd(groups: list[dict[str, Any]], lr: float, momentum: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=True, fused=True)


FACTORIES: dict[str, Callable[[list[dict[str, Any]], float, float], torch.optim.Optimizer]] = {"adamw": _adamw, "sgd": _sgd}
"""By name: a function of parameter groups, learning rate and momentum."""
