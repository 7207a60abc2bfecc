"""Epochs of batches: every image once, the same for the same seed, laid out as a network and a loss read them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluators.data import batches, gather
from evaluators.data.augment import Augmentation
from evaluators.data.bank import load_bank
from evaluators.data.batches import (
    WHOLE_BATCH,
    Batch,
    BatchShare,
    draw_plan,
    made,
    packed_plan,
    prefetched,
    train_batches,
)
from evaluators.data.layout import Layout
from evaluators.data.records import Record
from tests.evaluators.data.painted import GEOMETRY, NONE, SIZE, painted_bank, seeded


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    bank = painted_bank()
    generator = seeded(0)
    epochs = [
        [label // 2 for batch in train_batches(bank, 2, NONE, generator) for label in batch.classes[:, 0].tolist()]
        for _ in range(4)
    ]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.usefixtures("both_ways")
def test_a_seed_repeats_an_epoch_exactly_and_another_does_not() -> None:
    bank = painted_bank()
    first, again, other = (list(train_batches(bank, 4, Augmentation(), seeded(seed))) for seed in (5, 5, 6))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.classes, b.classes)
    assert not torch.equal(first[0].images, other[0].images)


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 7), (2, [2, 2, 2]), (3, [3, 3]), (5, [5, 2]), (9, [7])])
def test_a_last_batch_of_one_image_is_left_out(batch_size: int, sizes: list[int]) -> None:
    bank = painted_bank(7)
    assert [len(batch.images) for batch in train_batches(bank, batch_size, NONE, seeded(0))] == sizes


def test_the_only_image_is_kept() -> None:
    assert [len(batch.images) for batch in train_batches(painted_bank(1), 8, Augmentation(), seeded(0))] == [1]


@pytest.mark.usefixtures("both_ways")
def test_a_batch_is_laid_out_as_a_network_and_a_loss_read_it() -> None:
    batch = next(train_batches(painted_bank(), 6, Augmentation(), seeded(2)))
    assert batch.images.shape == (6, 3, SIZE, SIZE)
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    padding = batch.classes < 0
    assert (batch.boxes[padding] == 0).all()
    assert (padding.int().diff(dim=1) >= 0).all()  # to the right of the boxes
    assert not padding.all(dim=0).any()  # and no wider than needed
    assert (batch.boxes >= 0).all()
    assert (batch.boxes <= SIZE).all()


def test_images_without_boxes_make_a_batch_of_padding() -> None:
    pixels = np.full((SIZE, SIZE, 3), 7, dtype=np.uint8)
    empty = Record(1, SIZE, SIZE, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), pixels=pixels)
    batch = next(train_batches(load_bank([empty] * 2, SIZE), 2, Augmentation(), seeded(0)))
    assert batch.classes.tolist() == [[-1], [-1]]
    assert batch.boxes.tolist() == [[[0, 0, 0, 0]]] * 2


@pytest.mark.parametrize(
    ("size", "images", "parts"),
    [(1, 5, [(0, 5)]), (2, 5, [(0, 2), (2, 5)]), (3, 8, [(0, 2), (2, 5), (5, 8)]), (2, 1, [(0, 0), (0, 1)])],
)
def test_shares_divide_a_batch_evenly(size: int, images: int, parts: list[tuple[int, int]]) -> None:
    assert [BatchShare(rank, size).of(images) for rank in range(size)] == [slice(*part) for part in parts]
    assert WHOLE_BATCH.of(images) == slice(0, images)


@pytest.mark.usefixtures("both_ways")
def test_the_shares_of_all_processes_are_the_batch() -> None:
    """7 images in batches of 5: the last two are too few for three processes."""
    bank = painted_bank(7)
    [whole, last] = train_batches(bank, 5, Augmentation(), seeded(3))
    assert (whole.full_size, last.full_size) == (5, 2)
    shares = [list(train_batches(bank, 5, Augmentation(), seeded(3), BatchShare(rank, 3))) for rank in range(3)]
    assert [[len(batch.images) for batch in batches] for batches in shares] == [[1], [2], [2]]
    assert [batch.full_size for [batch] in shares] == [5, 5, 5]
    assert torch.equal(torch.cat([batch.images for [batch] in shares]), whole.images)
    labels = [row[row >= 0].tolist() for [batch] in shares for row in batch.classes]
    assert labels == [row[row >= 0].tolist() for row in whole.classes]


def test_a_blended_output_shows_two_mosaics_and_has_the_boxes_of_both() -> None:
    bank, blended = painted_bank(), 0
    for seed in range(6):
        plan = draw_plan(bank, torch.arange(6), Augmentation(mixup=0.5, **GEOMETRY), seeded(seed))
        [served] = bank.served([plan.layout.tiles])
        batch = made(bank, packed_plan(bank, plan), served)
        apart = replace(plan, blended=plan.blended[:0], weights=plan.weights[:0])
        parts = made(bank, packed_plan(bank, apart), served)
        assert len(parts.images) == 6 + len(plan.blended) and len(batch.images) == 6
        for i in range(6):
            second = (plan.blended == i).nonzero().flatten().tolist()
            labels = parts.classes[i][parts.classes[i] >= 0].tolist()
            expected, boxes = parts.images[i], parts.boxes[i][: len(labels)]
            if second:
                weight, k = float(plan.weights[second[0]]), 6 + second[0]
                expected = weight * parts.images[i] + (1 - weight) * parts.images[k]
                more = parts.classes[k][parts.classes[k] >= 0].tolist()
                labels, boxes = labels + more, torch.cat([boxes, parts.boxes[k][: len(more)]])
                blended += 1
            torch.testing.assert_close(batch.images[i], expected)
            assert batch.classes[i][batch.classes[i] >= 0].tolist() == labels
            assert torch.equal(batch.boxes[i][: len(labels)], boxes)
    assert 9 <= blended <= 27  # of 36, at even odds


def test_the_weights_of_blends_are_distributed_as_beta_32_32() -> None:
    bank = painted_bank()
    plan = draw_plan(bank, torch.zeros(4000, dtype=torch.int64), Augmentation(mixup=1.0), seeded(0))
    assert len(plan.blended) == 4000
    deviation = (32 * 32 / (64**2 * 65)) ** 0.5  # of Beta(32, 32), 0.062
    assert float(plan.weights.mean()) == pytest.approx(0.5, abs=4 * deviation / 4000**0.5)
    assert float(plan.weights.std()) == pytest.approx(deviation, rel=0.05)


def test_only_mosaics_are_blended_and_without_mixup_nothing_more_is_drawn() -> None:
    bank, chosen = painted_bank(), torch.zeros(200, dtype=torch.int64)
    plan = draw_plan(bank, chosen, Augmentation(mosaic=0.5, mixup=1.0), seeded(0))
    assert torch.equal(plan.blended, (plan.layout.sizes[:200, 0, 0] > 0).nonzero().flatten()) and 50 < len(plan.blended) < 150
    without, generator = seeded(3), seeded(3)
    draw_plan(bank, chosen, Augmentation(mosaic=0.0, mixup=1.0), without)
    draw_plan(bank, chosen, Augmentation(mosaic=0.0), generator)
    assert torch.equal(without.get_state(), generator.get_state())


def test_a_batch_size_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        next(train_batches(painted_bank(), 0, NONE, seeded(0)))


def test_batches_made_ahead_are_the_same_in_the_same_order() -> None:
    bank = painted_bank()
    plain = list(train_batches(bank, 2, Augmentation(), seeded(3)))
    ahead = list(train_batches(bank, 2, Augmentation(), seeded(3), ahead=True))
    assert len(plain) == len(ahead) > 1
    assert all(torch.equal(a.images, b.images) and torch.equal(a.boxes, b.boxes) for a, b in zip(plain, ahead, strict=True))


def test_what_making_a_batch_raises_is_raised_where_it_is_used() -> None:
    def broken() -> Iterator[Batch]:
        yield from train_batches(painted_bank(), 2, Augmentation(), torch.Generator())
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        list(prefetched(broken()))


def test_a_consumer_that_stops_early_ends_the_thread() -> None:
    made = train_batches(painted_bank(), 1, Augmentation(), torch.Generator(), ahead=True)
    next(made)
    assert any(thread.name == "augmentation" for thread in threading.enumerate())
    made.close()
    assert not any(thread.name == "augmentation" for thread in threading.enumerate())


def test_images_that_do_not_fit_into_memory_together_are_made_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: at most MOST_PIXELS at once, and half as many after memory ran out."""
    bank, pieces = painted_bank(), list[int]()
    whole = next(train_batches(bank, 6, Augmentation(), seeded(2)))
    sampled = gather._sampled

    def short_of_memory(pixels: Tensor, layout: Layout) -> Tensor:
        pieces.append(len(layout.tiles))
        if len(layout.tiles) > 2:
            raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")
        return sampled(pixels, layout)

    monkeypatch.setattr(batches, "renderer_for", lambda device: gather.gathered_images)
    expected = next(train_batches(bank, 6, Augmentation(), seeded(2)))
    monkeypatch.setattr(gather, "MOST_PIXELS", 5 * SIZE**2)
    monkeypatch.setattr(gather, "_sampled", short_of_memory)
    made = next(train_batches(bank, 6, Augmentation(), seeded(2)))
    assert pieces == [5, 2, 2, 2]
    assert torch.equal(made.images, expected.images) and torch.equal(made.boxes, whole.boxes)
    assert made.images.is_contiguous(memory_format=torch.channels_last)
