"""The scores of the literature on networks small enough to work them out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from evaluators.data.batches import Batch
from evaluators.detector.loss import network_loss
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


def test_synflow_uses_the_statistics_of_normalisation_not_those_of_its_image() -> None:
    b = GraphBuilder()
    x = b.conv(b.image, 1, 1, act="")
    b.output(b.conv(x, 1, 1, act="", norm=False), "output", stride=1)
    network = Network(b.build())
    kernels = [p for p in network.parameters() if p.ndim == 4]
    [norm] = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norm.running_var is not None
    norm.running_var.fill_(9 - norm.eps)  # a deviation of 3
    with torch.no_grad():
        kernels[0].copy_(torch.tensor([1.0, -2.0, 3.0]).view(1, 3, 1, 1))
        kernels[1].fill_(-0.5)
    # Each of 6 pixels is 0.5 * 6 / 3. The two kernels and the scale of the normalisation count; its shift is 0.
    assert synflow(network, torch.zeros(1, 3, 2, 3)) == pytest.approx(math.log(3 * 6 * 0.5 * 6 / 3))


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


def test_zico_of_layers_of_several_weights_and_batches() -> None:
    # Weights 0 and 1: magnitudes (1, 2, 3) and (6, 6, 9), so means 2 and 7, deviations sqrt(2/3) and sqrt(2). Layer 2: equal.
    batches = [
        [torch.tensor([1.0, -6.0]), torch.tensor([5.0])],
        [torch.tensor([-2.0, 6.0]), torch.tensor([-5.0])],
        [torch.tensor([3.0, 9.0]), torch.tensor([5.0])],
    ]
    assert zico(batches) == pytest.approx(math.log(2 / math.sqrt(2 / 3) + 7 / math.sqrt(2)))


def a_batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.tensor([[[8.0, 12.0, 48.0, 36.0]]]).expand(4, 1, 4)
    return Batch(torch.rand(4, 3, 64, 64, generator=generator), boxes, torch.ones(4, 1, dtype=torch.int64), 4)


def detector(auxiliary: float = 0.0) -> Network:
    return new_network(small_graph(8, classes=2, auxiliary=auxiliary), 2, 64, 0)


def test_the_gradients_are_those_of_a_backward_pass_and_the_network_is_left_as_it_was() -> None:
    network, batch = detector(auxiliary=0.5), a_batch(0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    gradients = loss_gradients(network, batch, 2)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    network.train()
    network_loss(network(batch.images), network.graph.outputs, batch.boxes, batch.classes, 2).total.backward()
    kernels = [p for p in network.parameters() if p.ndim > 1]
    assert len(gradients) == len(kernels)
    for ours, kernel in zip(gradients, kernels, strict=True):
        assert kernel.grad is not None
        torch.testing.assert_close(ours, kernel.grad)


def test_a_kernel_that_no_output_needs_has_a_gradient_of_zeros() -> None:
    b = GraphBuilder()
    x = b.conv(b.image, 4, 3, 8)
    b.conv(x, 6, 3)
    box, kinds = (b.conv(x, channels, act="", norm=False, bias=True) for channels in (4 * 8, 2))
    b.output(b.concat([box, kinds]), "output", stride=8)
    gradients = loss_gradients(new_network(b.build(), 2, 64, 0), a_batch(0), 2)
    assert [bool(gradient.any()) for gradient in gradients] == [True, False, True, True]
    assert gradients[1].shape == (6, 4, 3, 3)


def test_all_scores_are_those_of_their_batches_and_of_the_main_branch() -> None:
    network, batches = detector(auxiliary=0.5), [a_batch(0), a_batch(1)]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    scores = comparators(network, batches, classes=2)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    gradients = [loss_gradients(network, batch, 2) for batch in batches]
    assert tuple(scores) == COMPARATORS
    assert scores == {
        "naswot": naswot(network, batches[0].images),
        "synflow": synflow(network, batches[1].images[:1]),
        "gradient_norm": gradient_norm(gradients[0]),
        "zico": zico(gradients),
    }
    plain = Network(network.graph.inference())
    plain.load_state_dict(network.state_dict(), strict=False)
    assert scores["synflow"] == synflow(plain, batches[0].images[:1])
    assert scores["naswot"] == naswot(plain, batches[0].images)
