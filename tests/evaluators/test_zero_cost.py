"""The scores of the literature on networks small enough to work them out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from evaluators.data.batches import Batch
from evaluators.training.loop import new_network
from evaluators.zero_cost import COMPARATORS, comparators, gradient_norm, loss_gradients, naswot, synflow, zico
from gpnas.graph.graph import Graph, GraphBuilder
from gpnas.graph.network import Network
from tests.small_detector import small_graph


def chain() -> Graph:
    """Two layers of one weight each, without normalisation, bias or activation."""
    b = GraphBuilder()
    x = b.conv(b.image, 1, 1, act="", norm=False)
    b.output(b.conv(x, 1, 1, act="", norm=False), "output", stride=1)
    return b.build()


def with_weights(first: list[float], second: float) -> Network:
    network = Network(chain())
    kernels = [p for p in network.parameters() if p.ndim == 4]
    with torch.no_grad():
        kernels[0].copy_(torch.tensor(first).view(1, 3, 1, 1))
        kernels[1].fill_(second)
    return network


def test_synflow_of_two_layers_by_hand() -> None:
    # Every output pixel is |b| (|a1| + |a2| + |a3|); weight x gradient sums to that for each layer: 2 * 4 * 0.5 * 6.
    network = with_weights([1.0, -2.0, 3.0], -0.5)
    assert synflow(network, torch.zeros(1, 3, 2, 2)) == pytest.approx(math.log(2 * 4 * 0.5 * 6))
    kernels = [p for p in network.parameters() if p.ndim == 4]
    assert kernels[1].item() == -0.5  # a copy was changed


def test_naswot_counts_equal_signs_of_pairs_of_images() -> None:
    # One pixel each. Layer outputs have the sign of the red channel, then its opposite: images 0 and 1 agree in no layer.
    network = with_weights([1.0, 0.0, 0.0], -1.0)
    images = torch.zeros(2, 3, 1, 1)
    images[0, 0], images[1, 0] = 1.0, -1.0
    assert naswot(network, images) == pytest.approx(math.log(2 * 2 - 0 * 0))
    images = torch.zeros(3, 3, 1, 1)
    images[0, 0], images[1, 0], images[2, 0] = 1.0, -1.0, 2.0
    assert naswot(network, images) == -math.inf  # two images that no activation tells apart


def test_gradient_norm_and_zico_by_hand() -> None:
    first = [torch.tensor([3.0, -4.0]), torch.tensor([[1.0]])]
    second = [torch.tensor([-1.0, 4.0]), torch.tensor([[3.0]])]
    assert gradient_norm(first) == pytest.approx(5 + 1)
    # Magnitudes 3, 1: mean 2, deviation 1. Magnitudes 4, 4 do not move and are left out. Magnitudes 1, 3: 2 / 1.
    assert zico([first, second]) == pytest.approx(math.log(2) + math.log(2))
    with pytest.raises(ValueError, match="at least two batches, got 1"):
        zico([first])


def a_batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.tensor([[[8.0, 8.0, 40.0, 40.0]]]).expand(4, 1, 4)
    return Batch(torch.rand(4, 3, 64, 64, generator=generator), boxes, torch.zeros(4, 1, dtype=torch.int64), 4)


def test_all_of_them_on_a_detector_leave_its_state_as_it_was() -> None:
    graph = small_graph(classes=2)
    network = new_network(graph, 2, 64, 0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = comparators(network, [a_batch(0), a_batch(1)], classes=2)
    assert tuple(found) == COMPARATORS and all(math.isfinite(value) for value in found.values())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert found == comparators(network, [a_batch(0), a_batch(1)], classes=2)


def test_gradients_are_those_of_backward() -> None:
    network = new_network(small_graph(classes=2), 2, 64, 0)
    found = loss_gradients(network, a_batch(0), 2)
    kernels: list[Tensor] = [p for p in network.parameters() if p.ndim > 1]
    assert [of.shape for of in found] == [p.shape for p in kernels]
    assert gradient_norm(found) > 0
