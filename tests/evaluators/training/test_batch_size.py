import pytest
import torch

from evaluators.training.batch_size import (
    CPU_BATCH,
    MAX_BATCH,
    automatic_batch,
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="measures a GPU's memory")
def test_a_gpu_holds_the_largest_batch_of_a_small_network() -> None:
    assert automatic_batch(small_graph(8), 3, 64, torch.device("cuda")) == MAX_BATCH
