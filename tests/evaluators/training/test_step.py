from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from evaluators.data.bank import load_bank
from evaluators.data.batches import Batch, train_batches
from evaluators.detector.loss import network_loss
from evaluators.training.distributed import ALONE, Group
from evaluators.training.loop import new_network
from evaluators.training.optimizer import new_optimizer
from evaluators.training.step import GradientAccumulator, Losses
from gpnas.errors import OutOfMemory
from gpnas.graph.network import Network
from tests.evaluators.training.short_training import PLAIN
from tests.small_detector import rectangles, small_graph


def a_batch(images: int) -> Batch:
    bank = load_bank(rectangles(images), 64)
    return next(train_batches(bank, images, PLAIN, torch.Generator().manual_seed(0)))


def accumulator(network: Network, group: Group = ALONE, pieces: int = 1) -> GradientAccumulator:
    optimizer = new_optimizer(network, "sgd", lr=0.1, momentum=0.9, weight_decay=0.0)
    return GradientAccumulator(network.train(), optimizer, 3, "fp32", group, pieces)


def plain_gradients(batch: Batch) -> tuple[list[float], list[Tensor]]:
    """The losses and gradients of a new network, computed at once by torch.autograd.grad."""
    network = new_network(small_graph(8, auxiliary=0.25), 3, 64, 0).train()
    parts = network_loss(network(batch.images), network.graph.outputs, batch.boxes, batch.classes, 3)
    gradients = torch.autograd.grad(parts.total, list(network.parameters()))
    return [float(part.detach()) for part in (parts.total, *parts)], list(gradients)


def gradients_of(network: Network) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


def part_of(batch: Batch, images: slice) -> Batch:
    return replace(batch, images=batch.images[images], boxes=batch.boxes[images], classes=batch.classes[images])


def assert_close(ours: Any, expected: Any) -> None:
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_the_gradients_of_a_batch_are_those_of_its_loss() -> None:
    batch, network = a_batch(3), new_network(small_graph(8, auxiliary=0.25), 3, 64, 0)
    ours = accumulator(network)
    for _ in range(2):  # the second time they replace those of the first
        losses = ours.backward(batch, network.graph.outputs)
        expected_losses, expected = plain_gradients(batch)
        assert losses.tolist() == pytest.approx(expected_losses)
        assert_close(gradients_of(network), expected)
    named = Losses(*losses.tolist())
    assert named.loss == pytest.approx(named.box + named.classes + named.distribution)


def test_pieces_count_by_their_share_of_the_images() -> None:
    batch, network = a_batch(5), new_network(small_graph(8, auxiliary=0.25), 3, 64, 0)
    losses = accumulator(network, pieces=2).backward(batch, network.graph.outputs)
    three, two = (plain_gradients(part_of(batch, piece)) for piece in (slice(0, 3), slice(3, 5)))
    assert losses.tolist() == pytest.approx([0.6 * a + 0.4 * b for a, b in zip(three[0], two[0], strict=True)])
    assert_close(gradients_of(network), [0.6 * a + 0.4 * b for a, b in zip(three[1], two[1], strict=True)])


class SilentGroup(Group):
    """Two processes of which the other one does nothing: the sum over both is this one's part."""

    def sum(self, values: Tensor) -> Tensor:
        return values


def test_a_process_of_a_group_scales_its_share_so_that_the_groups_average_is_the_batchs_mean() -> None:
    batch = replace(a_batch(2), full_size=5)  # the other process has the other three images
    network = new_network(small_graph(8, auxiliary=0.25), 3, 64, 0)
    losses = accumulator(network, SilentGroup(0, 2)).backward(batch, network.graph.outputs)
    expected_losses, expected = plain_gradients(batch)
    assert losses.tolist() == pytest.approx([2 / 5 * loss for loss in expected_losses])
    assert_close(gradients_of(network), [2 * 2 / 5 * gradient for gradient in expected])


class ShortOfMemory(Network):
    """Takes at most `most` images at a time; `tried` holds the numbers of images that it was given."""

    most = 2
    error = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    def __init__(self) -> None:
        super().__init__(small_graph(8))
        self.tried: list[int] = []

    def forward(self, images: Tensor) -> Any:
        self.tried.append(len(images))
        if len(images) > self.most:
            raise self.error
        return super().forward(images)


def test_a_batch_that_does_not_fit_is_done_in_twice_as_many_pieces_and_so_are_the_next_ones() -> None:
    network = ShortOfMemory()
    ours = accumulator(network)
    ours.backward(a_batch(8), network.graph.outputs)
    assert network.tried == [8, 4, 2, 2, 2, 2] and ours.pieces == 4
    ours.backward(a_batch(8), network.graph.outputs)
    assert network.tried[6:] == [2, 2, 2, 2]


def test_a_small_last_batch_is_cut_into_no_more_pieces_than_it_has_pairs() -> None:
    network = ShortOfMemory()
    network.most = 3
    ours = accumulator(network, pieces=8)
    ours.backward(a_batch(5), network.graph.outputs)
    assert network.tried == [3, 2] and ours.pieces == 8


def test_a_piece_has_at_least_two_images() -> None:
    network = ShortOfMemory()
    with pytest.raises(OutOfMemory, match=r"2 images of 64 pixels do not fit into memory"):
        accumulator(network).backward(a_batch(5), network.graph.outputs)
    assert network.tried == [5, 3]  # in two pieces; three would have a piece of one image


@pytest.mark.parametrize("images", [1, 2])
def test_images_that_do_not_fit_even_alone_are_out_of_memory(images: int) -> None:
    network = ShortOfMemory()
    network.most = 0
    with pytest.raises(OutOfMemory, match=f"{images} images of 64 pixels do not fit into memory"):
        accumulator(network).backward(a_batch(images), network.graph.outputs)


def test_a_process_of_a_group_does_not_try_again() -> None:
    network = ShortOfMemory()
    with pytest.raises(OutOfMemory, match="4 images of 64 pixels do not fit into memory"):
        accumulator(network, SilentGroup(0, 2)).backward(a_batch(4), network.graph.outputs)
    assert network.tried == [4]


def test_another_error_is_raised_as_it_is() -> None:
    network = ShortOfMemory()
    network.error = RuntimeError("size mismatch")
    with pytest.raises(RuntimeError, match="size mismatch"):
        accumulator(network).backward(a_batch(4), network.graph.outputs)
    assert network.tried == [4]


def test_exactly_so_many_pieces_where_it_is_asked() -> None:
    network = ShortOfMemory()
    network.most = 4
    accumulator(network).backward_in(3, a_batch(4), network.graph.outputs)
    assert network.tried == [2, 1, 1]
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        accumulator(network).backward_in(1, a_batch(5), network.graph.outputs)


@pytest.mark.parametrize("pieces", [1, 2])
def test_the_gradients_of_a_summed_loss_are_those_of_the_loss_times_the_images(pieces: int) -> None:
    batch = a_batch(5)
    networks = [new_network(small_graph(8, auxiliary=0.25), 3, 64, 0) for _ in range(2)]
    plain, summed = (accumulator(network, pieces=pieces) for network in networks)
    summed.summed = True
    ours, theirs = (g.backward(batch, n.graph.outputs) for g, n in zip((plain, summed), networks, strict=True))
    assert torch.equal(ours, theirs)
    assert_close(gradients_of(networks[1]), [5 * gradient for gradient in gradients_of(networks[0])])
