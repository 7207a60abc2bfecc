from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import evaluators.training.batch_size
from evaluators.training.batch_size import (
    CPU_BATCH,
    MAX_BATCH,
    automatic_batch,
    batch_of_group,
    largest_batch,
    new_accumulator,
    noise_batch,
)
from evaluators.training.optimizer import check_views
from tests.small_detector import small_graph


@pytest.mark.parametrize(
    ("memory", "batch"),
    [
        (100, 2),  # not even two images fit: nothing smaller is chosen
        (1099, 2),
        (1100, 4),  # 1000 bytes for 2 images, 50 for each further one
        (1700 - 1 - 400, 4),
        (1300, 8),
        (1699, 8),
        (1700, 16),
        (10**9, 128),
    ],
)
def test_the_largest_power_of_two_that_fits(memory: int, batch: int) -> None:
    assert largest_batch(lambda images: 1000 + 50 * (images - 2), memory) == batch


def test_only_two_and_eight_images_are_measured() -> None:
    measured: list[int] = []

    def peak(images: int) -> int:
        measured.append(images)
        return 1000

    assert largest_batch(peak, 1000 + MAX_BATCH - 2) == MAX_BATCH  # equal peaks count as one byte for each image
    assert largest_batch(peak, 1000 + MAX_BATCH - 3) == MAX_BATCH // 2
    assert measured == [2, 8, 2, 8]


def test_a_cpu_has_a_fixed_batch() -> None:
    assert automatic_batch(small_graph(8), 3, 64, torch.device("cpu")) == CPU_BATCH == 16


def test_the_measured_batch_is_noise_with_eight_boxes_in_each_image() -> None:
    batch = noise_batch(3, 64, torch.device("cpu"))
    assert batch.images.shape == (3, 3, 64, 64) and batch.images.is_contiguous(memory_format=torch.channels_last)
    assert 0 <= batch.images.min() < 0.01 and 0.99 < batch.images.max() <= 1 and batch.full_size == 3
    assert batch.boxes.tolist() == [[[16.0, 16.0, 32.0, 32.0]] * 8] * 3
    assert batch.classes.tolist() == [[0] * 8] * 3


def test_the_measured_step_is_that_of_a_training() -> None:
    graph = small_graph(8, classes=2, auxiliary=0.5)
    gradients = new_accumulator(graph, 2, 64, torch.device("cpu"), "bf16")
    losses = gradients.backward_in(1, noise_batch(2, 64, torch.device("cpu")), graph.outputs)
    assert losses.isfinite().all() and losses[0] > 1
    assert gradients.network.training and gradients.precision == "bf16" and gradients.classes == 2
    [kernel, *_] = gradients.network.parameters()
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    check_views(gradients.network, gradients.optimizer)  # the optimizer's vectors take memory too


@pytest.mark.parametrize(
    ("share", "processes", "batch"),
    [(32, 1, 32), (16, 3, 48), (128, 1, 128), (128, 4, 128), (64, 4, 128), (2, 90, 180), (2, 1, 2)],
)
def test_a_group_has_the_shares_of_all_together_but_no_more_than_the_largest_batch(
    share: int, processes: int, batch: int
) -> None:
    assert batch_of_group(share, processes) == batch


class Told:
    """A process of a group of three, whose leader says 8. said: what this one would say."""

    size = 3

    def __init__(self, rank: int) -> None:
        self.is_leader = rank == 0
        self.said: list[int] = []

    def broadcast(self, value: int) -> int:
        self.said.append(value)
        return 8


@pytest.mark.parametrize(("rank", "measured"), [(0, 16), (2, 0)])
def test_the_first_process_measures_its_gpu_beside_the_images_and_the_others_hear(
    monkeypatch: pytest.MonkeyPatch, rank: int, measured: int
) -> None:
    """With the memory of a GPU played: 500 bytes of images, and a training of 1000 bytes and 100 for each further image."""
    device, now = torch.device("cuda", 1), 0
    looked: list[Any] = []

    def backward(pieces: int, batch: Any, outputs: Any) -> None:
        nonlocal now
        now = 500 + 1000 + 100 * (batch - 2)

    def look(name: str, value: Callable[[], Any]) -> None:
        def call(*of: Any) -> Any:
            looked.append(of)
            return value()

        monkeypatch.setattr(torch.cuda, name, call)

    accumulators = SimpleNamespace(backward_in=backward)
    look("memory_allocated", lambda: 500)
    look("max_memory_allocated", lambda: now)
    look("mem_get_info", lambda: (3001, 9000))  # 80 % are 2400 bytes, which 16 images take
    look("reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(evaluators.training.batch_size, "new_accumulator", lambda *rest: accumulators)
    monkeypatch.setattr(evaluators.training.batch_size, "noise_batch", lambda images, imgsz, device: images)
    process: Any = Told(rank)
    assert automatic_batch(small_graph(8), 3, 64, device, group=process) == 24  # three times what the leader says
    assert process.said == [measured]
    assert set(looked) == ({(device,)} if rank == 0 else set())


def test_a_measurement_that_runs_out_of_memory_leaves_the_smallest_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*rest: Any) -> Any:
        raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")

    for name, value in (("memory_allocated", 0), ("mem_get_info", (10**9, 10**9)), ("reset_peak_memory_stats", None)):
        monkeypatch.setattr(torch.cuda, name, lambda *of, value=value: value)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(evaluators.training.batch_size, "new_accumulator", fails)
    assert automatic_batch(small_graph(8), 3, 64, torch.device("cuda")) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="measures a GPU's memory")
def test_a_gpu_holds_the_largest_batch_of_a_small_network() -> None:
    assert automatic_batch(small_graph(8), 3, 64, torch.device("cuda")) == MAX_BATCH
