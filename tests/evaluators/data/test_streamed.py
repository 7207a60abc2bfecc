"""A split that does not fit into memory: the batches of one that does, each image decoded once an epoch."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evaluators.data import batches, memory, streamed
from evaluators.data.augment import Augmentation
from evaluators.data.bank import Bank, ImageBank, load_bank
from evaluators.data.batches import WHOLE_BATCH, Batch, BatchShare, prefetched, train_batches
from evaluators.data.gather import gathered_images
from evaluators.data.images import image_of
from evaluators.data.memory import bytes_of, fits, streaming_note
from evaluators.data.records import Record
from evaluators.data.streamed import StreamedBank, open_bank
from gpnas.errors import DataError
from tests.evaluators.data.painted import NONE, seeded
from tests.evaluators.data.small_data import write_picture

SIZE = 48


def files(folder: Path, count: int) -> list[Record]:
    """Pictures of noise with up to three boxes, wide and high in turn."""
    rng, records = np.random.default_rng(0), []
    for i in range(count):
        height, width = [(40, 60), (64, 24), (48, 48)][i % 3]
        path = write_picture(folder / f"{i}.png", rng.integers(0, 256, (height, width, 3)).astype(np.uint8))
        corners = rng.uniform(0, [width / 2, height / 2], (i % 4, 2))
        boxes = np.hstack([corners, corners + np.array([width / 3, height / 4])]).astype(np.float32)
        records.append(Record(i, width, height, boxes, rng.integers(0, 5, i % 4), path=path))
    return records


def both(records: list[Record], monkeypatch: pytest.MonkeyPatch, free: int | None = None) -> tuple[ImageBank, StreamedBank]:
    held = load_bank(records, SIZE)
    for module in (memory, streamed):
        monkeypatch.setattr(module, "free_bytes", lambda device: free or 2 * bytes_of(len(records), SIZE) - 1)
    bank = open_bank(records, SIZE)
    assert isinstance(bank, StreamedBank)
    return held, bank


def decodings(monkeypatch: pytest.MonkeyPatch) -> Counter[int | str]:
    """How often each image is decoded from now on, by its id."""
    counts: Counter[int | str] = Counter()

    def watched(record: Record) -> NDArray[np.uint8]:
        counts[record.image_id] += 1
        return image_of(record)

    monkeypatch.setattr(streamed, "image_of", watched)
    return counts


def assert_equal(ours: list[Batch], theirs: list[Batch]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.boxes, b.boxes) and torch.equal(a.classes, b.classes)
        assert a.full_size == b.full_size and a.images.is_contiguous(memory_format=torch.channels_last)


VARIED = Augmentation(mosaic=0.7, mixup=0.5)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("window", [6, 2048])
@pytest.mark.parametrize("augmentation", [VARIED, Augmentation(mosaic=0.0), NONE], ids=["varied", "no mosaic", "plain"])
def test_both_banks_make_the_same_batches_to_the_last_bit(
    augmentation: Augmentation, window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs of 23 images, more than the window in one case and fewer in the other."""
    monkeypatch.setattr(batches, "MOSAIC_WINDOW", window)
    banks: tuple[Bank, Bank] = both(files(tmp_path, 23), monkeypatch)
    generators = [seeded(4) for _ in banks]
    for _ in range(2):
        held, ours = (list(train_batches(b, 4, augmentation, g)) for b, g in zip(banks, generators, strict=True))
        assert len(held) == 6
        assert_equal(ours, held)


def test_a_ring_with_room_for_a_batch_alone_makes_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, bank = both(files(tmp_path, 40), monkeypatch, free=1000)
    assert_equal(list(prefetched(train_batches(bank, 2, VARIED, seeded(1)))), list(train_batches(held, 2, VARIED, seeded(1))))
    assert len(bank._ring) == 16  # 4 tiles of 2 outputs, and of 2 that they are blended with


def test_plans_that_a_thread_lays_out_give_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: the thread lays out plans, and the pixels are gathered where the batches are used."""
    monkeypatch.setattr(batches, "renderer_for", lambda device: gathered_images)
    held, bank = both(files(tmp_path, 40), monkeypatch, free=1000)

    def made(bank: Bank) -> list[Batch]:
        plans = batches._plans(bank, 3, VARIED, seeded(1), WHOLE_BATCH)
        return list(batches._made(bank, prefetched(batches.packed_plan(bank, plan) for plan in plans)))

    assert_equal(made(bank), made(held))
    assert_equal(made(held), list(train_batches(held, 3, VARIED, seeded(1))))


def test_each_process_makes_its_share_of_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, bank = both(files(tmp_path, 23), monkeypatch)
    for rank in range(3):
        ours, theirs = (list(train_batches(b, 7, VARIED, seeded(2), BatchShare(rank, 3))) for b in (bank, held))
        assert_equal(ours, theirs)


def test_images_are_evaluated_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, bank = both(files(tmp_path, 23), monkeypatch)
    parts = torch.arange(23).split(5)
    for ours, theirs in zip(bank.served(parts), held.served(parts), strict=True):
        assert torch.equal(ours.pixels[ours.places], theirs.pixels[theirs.places])
    labels = ("sizes", "boxes", "classes", "scales")
    assert all(torch.equal(getattr(bank, name), getattr(held, name)) for name in labels) and bank.records == held.records


def test_each_image_is_decoded_once_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """60 images, of which a ring for 8 + 16 holds fewer than half."""
    monkeypatch.setattr(batches, "MOSAIC_WINDOW", 8)
    _, bank = both(files(tmp_path, 60), monkeypatch, free=20 * bytes_of(60, SIZE) // 11)  # room for 27 in a quarter of it
    counts, mosaics = decodings(monkeypatch), Augmentation(mosaic=1.0)
    list(train_batches(bank, 4, mosaics, seeded(0)))
    assert len(bank._ring) == 24
    assert sorted(counts) == list(range(60)) and set(counts.values()) == {1}
    list(train_batches(bank, 4, Augmentation(mosaic=0.0), seeded(1)))
    assert max(counts.values()) == 2  # not the three others of a mosaic that is not shown


def test_a_mosaic_of_many_images_takes_the_others_from_the_last_of_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MOSAIC_WINDOW", 9)
    bank: Bank = load_bank(files(tmp_path, 40), SIZE)
    seen: list[int] = []
    for plan in batches._plans(bank, 4, Augmentation(mosaic=1.0), seeded(0), WHOLE_BATCH):
        seen += plan.layout.tiles[:, 3].tolist()
        others = set(plan.layout.tiles[:, :3].flatten().tolist())
        assert others <= set(seen[-9:]) and len(others) > 1
    assert sorted(seen) == list(range(40))


def test_a_small_set_stays_in_the_ring_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, bank = both(files(tmp_path, 12), monkeypatch, free=23 * bytes_of(12, SIZE) // 12)
    monkeypatch.setattr(streamed, "_RING_SHARE", 1.0)
    counts = decodings(monkeypatch)
    for seed in range(3):
        list(train_batches(bank, 4, VARIED, seeded(seed)))
    assert counts == dict.fromkeys(range(12), 1)


def test_a_consumer_that_stops_early_ends_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, bank = both(files(tmp_path, 23), monkeypatch)
    made = prefetched(train_batches(bank, 4, VARIED, seeded(0)))
    next(made)
    assert any(thread.name.startswith("decoding") for thread in threading.enumerate())
    made.close()
    del made
    assert not any(thread.name.startswith("decoding") for thread in threading.enumerate())


def test_a_damaged_image_is_found_when_the_bank_is_opened_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = files(tmp_path, 30)
    damaged = records[7].path
    assert damaged is not None
    damaged.write_bytes(damaged.read_bytes()[:50])
    held, bank = both(records, monkeypatch)
    assert len(bank) == len(held) == 29 and bank.problems == held.problems and bank.records == held.records
    monkeypatch.setattr(streamed, "readable_image", None)  # nothing is decoded again
    assert open_bank(records, SIZE).problems == held.problems


def test_an_image_that_is_damaged_later_ends_the_epoch_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = files(tmp_path, 12)
    _, bank = both(records, monkeypatch)
    damaged = records[5].path
    assert damaged is not None
    damaged.write_bytes(b"")
    with pytest.raises(DataError, match=r"5\.png is not a readable image"):
        list(prefetched(train_batches(bank, 4, VARIED, seeded(0))))


def test_a_split_that_fits_is_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = files(tmp_path, 3)
    needed = 3 * SIZE * SIZE * 3
    for free, sharers, expected in (
        (2 * needed, 1, True),
        (2 * needed - 1, 1, False),
        (4 * needed, 2, True),
        (4 * needed, 3, False),
    ):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        assert fits(3, SIZE, "cpu", sharers) is expected
        assert isinstance(open_bank(records, SIZE, sharers=sharers), ImageBank) is expected
        assert (streaming_note(3, SIZE, "cpu", sharers) == "") is expected
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)  # a system that does not tell
    assert isinstance(open_bank(records, SIZE), ImageBank)


def test_a_large_split_is_not_hashed_for_a_cache_that_would_not_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = files(tmp_path, 3)
    monkeypatch.setattr("evaluators.data.cache.MOST_BYTES", 2 * bytes_of(3, SIZE) - 1)
    monkeypatch.setattr("evaluators.data.bank.cached", None)
    assert len(load_bank(records, SIZE)) == 3
