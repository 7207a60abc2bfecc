"""The torch module of a graph: its fused form against its train form, its auxiliary branch, and operations by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn

from gpnas.errors import GraphError
from gpnas.graph.cost import cost
from gpnas.graph.graph import Branch, Graph, GraphBuilder, Output
from gpnas.graph.network import Network
from gpnas.search.trial import Candidate
from tests.genotypes import CLASSES, genotypes

REG_MAX = 16

sampling = settings(
    max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)


def network_of(graph: Graph, seed: int = 0) -> Network:
    """A network whose normalisations have values as after training; those of a fresh network hide mistakes in folding."""
    torch.manual_seed(seed)
    network = Network(graph)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.4, 1.6)
                module.weight.uniform_(0.6, 1.4)
                module.bias.uniform_(-0.3, 0.3)
    return network


def images(size: int = 64, batch: int = 2) -> Tensor:
    """Shape (batch, 3, size, size), in [0, 1]."""
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def expected_shapes(outputs: list[Output], size: int, batch: int) -> list[tuple[int, ...]]:
    return [(batch, 4 * REG_MAX + CLASSES, size // out.stride, size // out.stride) for out in outputs]


def assert_equal_to_1e_4(ours: list[Tensor], theirs: list[Tensor]) -> None:
    """Within 1e-4 of the largest value of each output."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * max(1.0, b.abs().max().item()))


@sampling
@given(genotypes())
def test_fused_network_computes_what_the_trained_one_does(candidate: Candidate) -> None:
    network = network_of(candidate.graph).eval()
    fused = network.fused()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert not fused.training
    with torch.no_grad():
        outputs = network(images())
        assert all(out.std() > 1e-3 for out in outputs)  # an output without contrast would agree with any other
        assert_equal_to_1e_4(fused(images()), outputs)


@settings(sampling, max_examples=1)
@given(genotypes(small=False))
def test_fused_network_of_any_width_computes_what_the_trained_one_does(candidate: Candidate) -> None:
    network = network_of(candidate.graph).eval()
    with torch.no_grad():
        assert_equal_to_1e_4(network.fused()(images(batch=1)), network(images(batch=1)))


@sampling
@given(genotypes())
def test_train_mode_returns_all_outputs_and_evaluation_mode_the_main_ones(candidate: Candidate) -> None:
    network, graph = Network(candidate.graph), candidate.graph
    main = [out for out in graph.outputs if out.branch is Branch.MAIN]
    assert [out.stride for out in main] == [8, 16, 32]
    with torch.no_grad():
        assert [tuple(out.shape) for out in network.train()(images())] == expected_shapes(list(graph.outputs), 64, 2)
        assert [tuple(out.shape) for out in network.eval()(images())] == expected_shapes(main, 64, 2)


@sampling
@given(genotypes().filter(lambda candidate: len(candidate.graph.outputs) > 3))
def test_main_outputs_do_not_depend_on_the_auxiliary_branch(candidate: Candidate) -> None:
    graph, without = candidate.graph, candidate.graph.inference()
    assert not any(op.name.startswith("pgi.") for op in without.ops)
    assert cost(without, 64, 64).params < cost(graph, 64, 64).params
    assert cost(without, 64, 64).macs < cost(graph, 64, 64).macs
    network, lean = network_of(graph), Network(without)
    unused = lean.load_state_dict(network.state_dict(), strict=False)
    assert unused.missing_keys == []
    # The deepest stages of a composite's first backbone feed the auxiliary head only.
    assert all(key.startswith(("layers.pgi/", "layers.first/stage")) for key in unused.unexpected_keys)
    assert not any(key.startswith("layers.pgi/") for key in network.fused().state_dict())
    is_main = [out.branch is Branch.MAIN for out in graph.outputs]
    with torch.no_grad():
        for mode in (False, True):
            outputs = network.train(mode)(images())
            kept = [out for out, keep in zip(outputs, is_main, strict=True) if keep] if mode else outputs
            assert all(torch.equal(a, b) for a, b in zip(kept, lean.train(mode)(images()), strict=True))


@sampling
@given(genotypes())
def test_every_main_parameter_gets_a_gradient_from_the_main_losses(candidate: Candidate) -> None:
    network = network_of(candidate.graph.inference()).train()
    torch.stack([out.square().mean() for out in network(images(batch=4))]).sum().backward()  # type: ignore[no-untyped-call]
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@sampling
@given(genotypes())
def test_a_network_has_the_parameters_that_its_cost_counts(candidate: Candidate) -> None:
    network = Network(candidate.graph)
    assert sum(p.numel() for p in network.parameters()) == cost(candidate.graph, 64, 64, fused=False).params
    fused = network.fused()
    assert sum(p.numel() for p in fused.parameters()) == cost(candidate.graph.inference(), 64, 64).params


@pytest.mark.parametrize("names", [("conv1", "conv", "conv"), ("stage.conv", "stage_conv")])
def test_every_layer_has_weights_of_its_own(names: tuple[str, ...]) -> None:
    b = GraphBuilder(4)
    x = b.image
    for name in names:
        x = b.conv(x, 4, name=name)
    b.output(x, "p", stride=1)
    graph = b.build()
    assert sum(p.numel() for p in Network(graph).parameters()) == cost(graph, 8, 8, fused=False).params


@pytest.mark.parametrize("options", [{}, {"bias": True}, {"rep": True}, {"groups": 2}, {"rep": True, "groups": 2}])
@pytest.mark.parametrize("stride", [1, 2])
def test_fusing_one_layer_keeps_its_function(options: dict[str, Any], stride: int) -> None:
    b = GraphBuilder(4)
    b.output(b.conv(b.image, 6, 3, stride, **options), "p", stride=stride)
    network = network_of(b.build()).double().eval()
    x = torch.randn(2, 4, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(network.fused().double()(x)[0], network(x)[0], rtol=1e-5, atol=1e-5)


def test_a_fused_network_can_be_fused_again() -> None:
    b = GraphBuilder(3)
    b.output(b.conv(b.image, 4, 3), "p", stride=1)
    fused = network_of(b.build()).fused()
    with torch.no_grad():
        assert torch.equal(fused.fused()(images())[0], fused(images())[0])


def test_fusing_leaves_the_trained_network_as_it_was() -> None:
    b = GraphBuilder(3)
    b.output(b.conv(b.image, 4, 3, rep=True), "p", stride=1)
    network = network_of(b.build()).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        for p in network.fused().parameters():
            p.add_(1)
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


IMAGE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def run(b: GraphBuilder, x: int, channels: Tensor) -> Tensor:
    """What the network that ends in `x` makes of one image of shape (channels, height, width)."""
    b.output(x, "p", stride=1)
    result: Tensor = Network(b.build()).eval()(channels[None])[0][0]
    return result


def test_masked_add_touches_the_kept_channels_only() -> None:
    b = GraphBuilder(5)
    block, identity = b.split(b.image, 3)  # three channels, and two that are added to the first of them
    value = run(b, b.masked_add(block, identity, 1), torch.arange(1.0, 6.0).reshape(5, 1, 1))
    assert value.flatten().tolist() == [1 + 4, 2, 3]


def test_masked_add_of_a_wider_identity_leaves_its_last_channels() -> None:
    b = GraphBuilder(5)
    block, identity = b.split(b.image, 2)
    value = run(b, b.masked_add(block, identity, 2), torch.arange(1.0, 6.0).reshape(5, 1, 1))
    assert value.flatten().tolist() == [1 + 3, 2 + 4]


def test_concat_slice_and_add_by_hand() -> None:
    b = GraphBuilder(3)
    value = run(b, b.concat([b.slice(b.image, 1, 3), b.add(b.image, b.image)]), torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1))
    assert value.flatten().tolist() == [2, 3, 2, 4, 6]


def test_poolings_and_resampling_by_hand() -> None:
    b = GraphBuilder(1)
    assert run(b, b.max_pool(b.image, 3), IMAGE[None]).tolist() == [[[4, 4], [4, 4]]]
    b = GraphBuilder(1)
    assert run(b, b.avg_pool(b.image, 3, padding=1), IMAGE[None]).tolist() == [
        [[2.5, 2.5], [2.5, 2.5]]
    ]  # no zeros of the border
    b = GraphBuilder(1)
    assert run(b, b.global_avg_pool(b.image), IMAGE[None]).tolist() == [[[2.5]]]
    b = GraphBuilder(1)
    assert run(b, b.upsample(b.image), IMAGE[None])[0, 0].tolist() == [1, 1, 2, 2]


def test_activations_by_hand() -> None:
    for act, value in (("relu", 0.0), ("leaky_relu", -0.1), ("silu", -0.2689414)):  # silu(-1) = -1 / (1 + e)
        b = GraphBuilder(1)
        assert run(b, b.act(b.image, act), torch.full((1, 1, 1), -1.0)).item() == pytest.approx(value)


def test_an_activation_does_not_overwrite_what_others_read() -> None:
    b = GraphBuilder(1)
    x = b.upsample(b.image, 1)
    assert run(b, b.concat([b.act(x, "relu"), x]), torch.full((1, 1, 1), -1.0)).flatten().tolist() == [0, -1]


def test_stop_gradient_keeps_the_value_and_drops_the_gradient() -> None:
    b = GraphBuilder(1)
    b.output(b.add(b.image, b.stop_gradient(b.image)), "p", stride=1)
    x = torch.full((1, 1, 1, 1), 3.0, requires_grad=True)
    (out,) = Network(b.build())(x)
    out.sum().backward()
    assert x.grad is not None
    assert (out.item(), x.grad.item()) == (6, 1)


def test_an_output_that_others_read_is_kept_until_the_end() -> None:
    b = GraphBuilder(1)
    x = b.upsample(b.image, 2)
    b.output(x, "early", stride=1)
    b.output(b.max_pool(x, 2, 2, padding=0), "late", stride=1)
    early, late = Network(b.build()).eval()(torch.ones(1, 1, 2, 2))
    assert (early.shape, late.shape) == ((1, 1, 4, 4), (1, 1, 2, 2))


def test_one_operation_may_carry_two_outputs() -> None:
    b = GraphBuilder(1)
    x = b.upsample(b.image, 1)
    b.output(x, "main", stride=1)
    b.output(x, "early", stride=1, branch=Branch.AUXILIARY)
    network = Network(b.build())
    assert len(network.train()(torch.ones(1, 1, 2, 2))) == 2
    assert len(network.eval()(torch.ones(1, 1, 2, 2))) == 1


def test_a_transposed_convolution_by_hand() -> None:
    """Two channels of 1 x 2 pixels with the values 1, 2 and 10, 20 become one channel of 2 x 4 pixels. Every pixel is its own
    channel's value times the kernel's value at its place, plus that of the other channel, plus the bias."""
    b = GraphBuilder(2)
    b.output(b.conv_transpose(b.image, 1), "p", stride=1)
    network = Network(b.build())
    (layer,) = (module for module in network.modules() if isinstance(module, nn.ConvTranspose2d))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]], [[[0.0, 1.0], [0.0, 0.0]]]]))
        layer.bias.fill_(0.5)  # type: ignore[union-attr]
    x = torch.tensor([[[[1.0, 2.0]], [[10.0, 20.0]]]])
    expected = [[1.5, 12.5, 2.5, 24.5], [3.5, 4.5, 6.5, 8.5]]
    assert network.eval()(x)[0][0, 0].tolist() == expected
    assert network.fused()(x)[0][0, 0].tolist() == expected
    found = cost(network.graph, 1, 2)
    assert (found.params, found.macs) == (2 * 4 + 1, 2 * 4 * 2)


def test_a_normalised_transposed_convolution_of_a_trace_is_refused() -> None:
    b = GraphBuilder(2)
    b.output(b.conv_transpose(b.image, 1), "p", stride=1)
    graph = b.build()
    normalised = Graph((graph.ops[0], graph.ops[1]._replace(norm=True)), graph.outputs)
    with pytest.raises(GraphError, match="this conv_transpose comes from a traced network"):
        Network(normalised)
