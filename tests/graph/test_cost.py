"""Parameters and MACs, against what thop counts on the torch module and against numbers worked out by hand."""

from __future__ import annotations

import random

import pytest
import thop
import torch
from hypothesis import HealthCheck, given, settings
from thop.vision.basic_hooks import zero_ops
from torch import nn

from gpnas.errors import GraphError
from gpnas.graph.cost import Cost, cost
from gpnas.graph.graph import Branch, Graph, GraphBuilder
from gpnas.graph.network import BatchNorm, Network
from gpnas.search.trial import Candidate
from search_spaces.gradient_path import GradientPathSpace
from tests.genotypes import SMALL, genotypes

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

sampling = settings(
    max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)

UNCOUNTED = (BatchNorm, nn.SiLU, nn.ReLU, nn.LeakyReLU)
"""thop counts operations of these, the papers do not."""


def counted_by_thop(network: Network, height: int, width: int) -> tuple[int, int]:
    """(parameters, MACs) of convolutions and linear layers; thop runs the network in evaluation mode."""
    images = torch.zeros(1, network.graph.ops[0].channels, height, width)
    macs, params = thop.profile(network, (images,), custom_ops=dict.fromkeys(UNCOUNTED, zero_ops), verbose=False)
    return int(params), int(macs)


def all_main(graph: Graph) -> Graph:
    """The same operations with every output a main one, so that evaluation mode runs them all."""
    outputs = tuple(out._replace(branch=Branch.MAIN) for out in graph.outputs)
    return Graph(graph.ops, outputs).inference()


@sampling
@given(genotypes())
def test_inference_form_costs_what_thop_counts(candidate: Candidate) -> None:
    graph = candidate.graph.inference()
    ours = cost(graph, 64, 96)
    assert (ours.params, ours.macs) == counted_by_thop(Network(graph).fused(), 64, 96)


@sampling
@given(genotypes())
def test_train_form_costs_what_thop_counts(candidate: Candidate) -> None:
    graph = all_main(candidate.graph)
    ours = cost(graph, 64, 64, fused=False)
    assert (ours.params, ours.macs) == counted_by_thop(Network(graph), 64, 64)


@settings(sampling, max_examples=1)
@given(genotypes(small=False))
def test_candidates_of_any_width_cost_what_thop_counts(candidate: Candidate) -> None:
    graph = candidate.graph.inference()
    ours = cost(graph, 64, 64)
    assert (ours.params, ours.macs) == counted_by_thop(Network(graph, is_fused=True), 64, 64)


@settings(sampling, max_examples=60)
@given(genotypes(small=False))
def test_macs_grow_with_the_number_of_pixels_and_parameters_do_not(candidate: Candidate) -> None:
    small, large = cost(candidate.graph, 64, 64), cost(candidate.graph, 128, 192)
    assert large.macs == 6 * small.macs
    assert large.params == small.params


@pytest.mark.parametrize("kind", ["reversible", "composite"])
@pytest.mark.parametrize("levels", [(8, 16), (16, 32), (32,)])
def test_a_training_graph_holds_no_layer_that_no_loss_needs(kind: str, levels: tuple[int, ...]) -> None:
    pgi = {"pgi.kind": (kind,), "pgi.levels": (levels,)}
    graph = GradientPathSpace(3, {**SMALL, **pgi}).propose([], random.Random(0)).graph
    assert [op.name for op, needed in zip(graph.ops, graph.reaching(), strict=True) if not needed] == []


def every_kind() -> Graph:
    """Each kind of operation once or twice; its cost on 8x8 is worked out beside each line."""
    b = GraphBuilder(3)
    x = b.conv(b.image, 8, 3, 2, rep=True)  # 4x4: 216 weights, with the 1x1 branch 240
    y = b.conv(x, 8, 3, groups=4, norm=False)  # 4x4: 9 * 2 * 8 = 144 weights
    z = b.masked_add(y, x, 4)
    z = b.concat([b.slice(z, 0, 2), b.max_pool(z, 3)])  # 10 channels
    z = b.upsample(b.avg_pool(b.act(z, "relu"), 2, 2))
    z = b.add(z, b.conv(z, 10, bias=True, norm=False))  # 4x4: 100 weights, 10 biases
    b.output(b.linear(b.global_avg_pool(z), 5), "classes", stride=8)  # 50 weights, 5 biases
    return b.build()


def test_every_kind_of_operation_agrees_with_thop_and_with_a_count_by_hand() -> None:
    graph = every_kind()
    fused, trained = cost(graph, 8, 8), cost(graph, 8, 8, fused=False)
    assert (fused.params, fused.macs) == (216 + 8 + 144 + 110 + 55, 16 * (216 + 144 + 100) + 50)
    assert (trained.params, trained.macs) == (240 + 32 + 144 + 110 + 55, 16 * (240 + 144 + 100) + 50)
    assert (fused.params, fused.macs) == counted_by_thop(Network(graph).fused(), 8, 8)
    assert (trained.params, trained.macs) == counted_by_thop(Network(graph), 8, 8)


def test_flops_are_twice_the_macs() -> None:
    assert Cost(params=1, macs=21, activation_bytes=0).flops == 42


def test_activations_are_four_bytes_for_each_element_that_is_made() -> None:
    b = GraphBuilder(3)
    x = b.conv(b.image, 8, 3, 2)  # 8 x 4x4
    first, second = b.split(x, 4)  # views
    b.output(b.concat([b.conv(first, 2), second]), "p", stride=2)  # 2 x 4x4, then 6 x 4x4
    assert cost(b.build(), 8, 8).activation_bytes == 4 * 16 * (8 + 2 + 6)


def test_an_image_too_small_for_a_pooling_is_an_error() -> None:
    b = GraphBuilder(3)
    b.output(b.max_pool(b.conv(b.image, 4, 3, 2), 2, 2, padding=0, name="halve"), "p", stride=4)
    graph = b.build()
    assert cost(graph, 4, 4).macs == 4 * 9 * 3 * 4
    with pytest.raises(GraphError, match=r"^halve: nothing is left of an image of 2x8$"):
        cost(graph, 2, 8)


def test_an_image_whose_levels_have_sizes_that_cannot_be_joined_is_an_error() -> None:
    b = GraphBuilder(3)
    x = b.conv(b.image, 4, 3, 2)
    b.output(b.concat([x, b.upsample(b.conv(x, 4, 3, 2))], name="join"), "p", stride=2)
    graph = b.build()
    assert cost(graph, 8, 8).macs > 0
    with pytest.raises(GraphError, match=r"^join: cannot join 3x4 and 4x4 on an image of 6x8$"):
        cost(graph, 6, 8)


@settings(sampling, max_examples=10)
@given(genotypes())
def test_a_detector_refuses_an_image_that_is_no_multiple_of_32(candidate: Candidate) -> None:
    with pytest.raises(GraphError, match=r"cannot join .* on an image of 48x48"):
        cost(candidate.graph, 48, 48)
