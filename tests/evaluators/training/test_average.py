from typing import Any

import pytest
import torch
from torch import nn

from evaluators.training.average import WeightAverage


def tiny() -> Any:
    """One weight and one normalisation statistic, both 0, and a counter, which is no floating-point number."""
    network: Any = nn.Module()
    network.weight = nn.Parameter(torch.zeros(1))
    network.register_buffer("statistic", torch.zeros(1))
    network.register_buffer("counter", torch.zeros(1, dtype=torch.int64))
    return network


def test_the_decay_grows_up_to_its_limit() -> None:
    network = tiny()
    average: Any = WeightAverage(network, decay=0.25)
    network.weight.data.fill_(1.0)
    network.statistic.fill_(-2.0)
    network.counter += 1
    expected = 0.0
    for decay in (2 / 11, 3 / 12, 0.25, 0.25):  # (1 + n) / (10 + n) is more than 0.25 from n = 3
        average.update()
        expected = decay * expected + (1 - decay) * 1.0
        assert average.network.weight.item() == pytest.approx(expected)
        assert average.network.statistic.item() == pytest.approx(-2 * expected)
    assert average.updates == 4 and average.network.counter.item() == 0


def test_the_averaged_network_evaluates_and_needs_no_gradients() -> None:
    network = tiny().train()
    average: Any = WeightAverage(network, decay=0.5)
    assert not average.network.training and not average.network.weight.requires_grad
    assert network.training and network.weight.requires_grad


def test_a_loaded_average_continues_with_the_same_decay() -> None:
    network = tiny()
    whole: Any = WeightAverage(network, decay=0.999)
    parts: Any = WeightAverage(network, decay=0.999)
    for value in (1.0, 3.0):
        network.weight.data.fill_(value)
        whole.update()
    parts.load(whole.network.state_dict(), whole.updates)
    network.weight.data.fill_(7.0)
    whole.update()
    parts.update()
    assert (
        parts.network.weight.item()
        == whole.network.weight.item()
        == pytest.approx(4 / 13 * (3 / 12 * 9 / 11 + 9 / 12 * 3) + 9 / 13 * 7)
    )
