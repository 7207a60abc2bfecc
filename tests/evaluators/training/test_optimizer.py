import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evaluators.training.loop import new_network
from evaluators.training.optimizer import check_views, load_optimizer, new_optimizer, parameter_vectors
from gpnas.errors import InputError
from gpnas.graph.network import Network
from tests.small_detector import small_graph

SETTINGS = {"lr": 0.01, "momentum": 0.8, "weight_decay": 0.1}
PLAIN: dict[str, Any] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.999)),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.8, nesterov=True),
}


def channels_last() -> Network:
    network: Network = new_network(small_graph(8), 3, 64, 0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def backward(network: Network, seed: int) -> None:
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    torch.autograd.backward([out.square().sum() for out in network.train()(pixels)])


def contains(vector: Tensor, part: Tensor) -> bool:
    return vector.data_ptr() <= part.data_ptr() and part.data_ptr() + part.nbytes <= vector.data_ptr() + vector.nbytes


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_vectors_step_as_their_parameters_would_and_only_kernels_decay(name: str) -> None:
    ours, theirs = channels_last(), channels_last()
    optimizer = new_optimizer(ours, name, **SETTINGS)
    kernels, others = ([p for p in theirs.parameters() if (p.ndim > 1) is is_kernel] for is_kernel in (True, False))
    plain = PLAIN[name]([{"params": kernels, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}])
    for seed in range(3):
        for network, steps in ((ours, optimizer), (theirs, plain)):
            steps.zero_grad(set_to_none=steps is plain)
            backward(network, seed)
            steps.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_parameters_and_gradients_are_aligned_views_of_two_vectors() -> None:
    network, before = channels_last(), channels_last()
    kernels, others = parameter_vectors(new_optimizer(network, "adamw", **SETTINGS))
    ends = {id(kernels): kernels.data_ptr(), id(others): others.data_ptr()}
    for parameter, old in zip(network.parameters(), before.parameters(), strict=True):
        vector = kernels if parameter.ndim > 1 else others
        assert vector.grad is not None and parameter.grad is not None
        assert torch.equal(parameter, old) and parameter.stride() == old.stride() == parameter.grad.stride()
        assert contains(vector, parameter) and contains(vector.grad, parameter.grad)
        assert parameter.data_ptr() - vector.data_ptr() == parameter.grad.data_ptr() - vector.grad.data_ptr()
        assert 0 <= parameter.data_ptr() - ends[id(vector)] < 64 and (parameter.data_ptr() - vector.data_ptr()) % 64 == 0
        ends[id(vector)] = parameter.data_ptr() + parameter.nbytes
    for vector in (kernels, others):
        assert 0 <= vector.data_ptr() + vector.nbytes - ends[id(vector)] < 64
        assert vector.grad is not None and not vector.grad.any()


def test_a_network_without_biases_needs_one_vector() -> None:
    linear: Any = nn.Linear(3, 2, bias=False)
    [vector] = parameter_vectors(new_optimizer(linear, "sgd", **SETTINGS))
    assert vector.shape == (16,)  # 6 values, and padding


def clear_to_none(network: Network) -> None:
    network.zero_grad()


def replace_gradient(network: Network) -> None:
    parameter = next(network.parameters())
    parameter.grad = torch.zeros_like(parameter)


def replace_data(network: Network) -> None:
    parameter = next(network.parameters())
    parameter.data = parameter.data.clone()


@pytest.mark.parametrize("spoil", [clear_to_none, replace_gradient, replace_data])
def test_parameters_that_left_the_vectors_are_noticed(spoil: Any) -> None:
    network = channels_last()
    optimizer = new_optimizer(network, "sgd", **SETTINGS)
    optimizer.zero_grad(set_to_none=False)
    backward(network, 0)
    optimizer.step()
    check_views(network, optimizer)
    spoil(network)
    first = next(name for name, _ in network.named_parameters())
    with pytest.raises(RuntimeError, match=f"{first} or its gradient is no view .* zero_grad\\(set_to_none=False\\)"):
        check_views(network, optimizer)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_loaded_optimizer_continues_with_the_same_steps(name: str) -> None:
    whole, parts = channels_last(), channels_last()
    first, second = new_optimizer(whole, name, **SETTINGS), new_optimizer(parts, name, **SETTINGS)
    backward(whole, 0)
    first.step()
    parts.load_state_dict(whole.state_dict())
    load_optimizer(second, copy.deepcopy(first.state_dict()))
    for network, optimizer in ((whole, first), (parts, second)):
        optimizer.zero_grad(set_to_none=False)
        backward(network, 1)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_state_with_shorter_vectors_is_refused(name: str) -> None:
    network = channels_last()
    optimizer = new_optimizer(network, name, **SETTINGS)
    backward(network, 0)
    optimizer.step()
    state = optimizer.state_dict()
    state["state"][1] = {key: value[:-1] if value.ndim else value for key, value in state["state"][1].items()}
    with pytest.raises(InputError, match="laid out by another version of gpnas; train again"):
        load_optimizer(new_optimizer(channels_last(), name, **SETTINGS), state)
