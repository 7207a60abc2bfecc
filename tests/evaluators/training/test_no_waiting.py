"""A step has no value of the device that Python reads, and no shape that depends on one: it traces without values.

Nothing in a step asks which device it runs on, so this is checked on a CPU. benchmarks/gpu.py looks for waits on a real GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

import evaluators.training.average
from evaluators.data import batches
from evaluators.data.augment import Augmentation
from evaluators.data.batches import Batch, draw_plan, made, packed_plan
from evaluators.data.gather import gathered_images
from evaluators.detector.loss import LossSettings
from evaluators.training.average import WeightAverage
from evaluators.training.loop import training_step
from evaluators.training.optimizer import new_optimizer
from evaluators.training.state import TrainingState
from evaluators.training.step import GradientAccumulator
from gpnas.graph.network import Network
from search_spaces.architecture import build, with_classes
from search_spaces.blueprint import open_catalogue
from tests.evaluators.data.painted import painted_bank
from tests.small_detector import small_graph

SIZE, IMAGES, BOXES, CLASSES = 64, 4, 5, 3

WAITS = ("nonzero", "_local_scalar_dense", "is_nonzero", "masked_select", "_unique", "equal", "index_put")
"""Operators that read a value of the device. index_put: with a mask it asks for the number of its members."""


def operators(function: Callable[[], Any]) -> list[str]:
    """The operators that run in a call, those of backward passes and those inside of others too. What a CPU's optimizer reads
    from its own counter of steps is left out."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        function()
    events = [event for event in profile.events() if event.name.startswith("aten::") and not _in_optimizer(event)]
    return [event.name.removeprefix("aten::") for event in events]


def _in_optimizer(event: Any) -> bool:
    parent = event.cpu_parent
    return parent is not None and (parent.name.startswith("aten::_fused_") or _in_optimizer(parent))


def waits(ran: list[str]) -> list[str]:
    return [name for name in ran if name.startswith(WAITS)]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """In this mode tensors have no values. Python cannot copy them, so the average of the weights gets a network of its own."""
    copied = SimpleNamespace(deepcopy=lambda network: Network(network.graph))
    monkeypatch.setattr(evaluators.training.average, "copy", copied)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        yield mode


def a_step(graph: Any, optimizer_name: str, precision: str, **options: Any) -> tuple[Any, ...]:
    """The arguments of a training step with a new network. options: of the GradientAccumulator."""
    network = Network(graph).train()
    optimizer = new_optimizer(network, optimizer_name, lr=1e-3, momentum=0.9, weight_decay=0.01)
    state = TrainingState(network, optimizer, WeightAverage(network, 0.99), torch.Generator())
    images = torch.rand(IMAGES, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    boxes = torch.tensor([8.0, 8.0, 40.0, 30.0]).repeat(IMAGES, BOXES, 1)
    boxes[:, 3:] = 0
    labels = torch.tensor([0, 2, 1, -1, -1]).repeat(IMAGES, 1)
    batch = Batch(images, boxes, labels, IMAGES)
    return state, GradientAccumulator(network, optimizer, CLASSES, precision, **options), batch, graph.outputs


FULL = {"settings": LossSettings(0.5, complete=True), "summed": True}
"""What the recipe `full` asks of a step."""


@pytest.mark.parametrize(("optimizer", "options"), [("adamw", {}), ("sgd", {"pieces": 2}), ("sgd", FULL)])
def test_a_step_traces_without_values(fake: FakeTensorMode, optimizer: str, options: dict[str, Any]) -> None:
    step = a_step(small_graph(8, auxiliary=0.25), optimizer, "bf16", **options)
    values = training_step(*step)  # raises DataDependentOutputException or DynamicOutputShapeException where it would wait
    assert (values.shape, values.dtype) == ((5,), torch.float32)


def test_what_would_wait_does_not_trace(fake: FakeTensorMode) -> None:
    for wait in (lambda x: x[x > 0], lambda x: float(x.sum()), lambda x: x.nonzero()):
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
            wait(torch.rand(3, 2))


@pytest.mark.parametrize("options", [{}, FULL], ids=["short", "full"])
def test_no_operator_of_a_step_waits_inside_of_another_one_either(options: dict[str, Any]) -> None:
    """With real tensors: torch's own gradient of a product, say, reads a value, but not where tensors are fake."""
    step = a_step(build(with_classes(open_catalogue("yolov9-t"), CLASSES)), "adamw", "fp32", **options)
    ran = operators(lambda: training_step(*step))
    assert {"convolution_backward", "_fused_adamw_", "_foreach_lerp_", "topk"} <= set(ran)
    assert waits(ran) == []


@pytest.mark.parametrize("wait", [lambda x: x[x > 0], lambda x: float(x.detach().sum()), lambda x: x.prod(1).sum().backward()])
def test_what_waits_is_seen(wait: Any) -> None:
    assert waits(operators(lambda: wait(torch.rand(3, 2, requires_grad=True))))


def test_a_batch_normalisation_counts_nothing() -> None:
    network = Network(small_graph(8)).train()
    network(torch.rand(2, 3, SIZE, SIZE))
    counts = [m.num_batches_tracked for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(counts) > 5 and all(isinstance(count, Tensor) and count == 0 for count in counts)


@pytest.mark.parametrize("colours", [Augmentation(mixup=1.0), Augmentation(mixup=1.0, hue=0, saturation=0, value=0)])
def test_images_are_made_without_waiting(colours: Augmentation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "renderer_for", lambda device: gathered_images)
    bank = painted_bank()
    plan = packed_plan(bank, draw_plan(bank, torch.arange(6), colours, torch.Generator().manual_seed(0)))
    [served] = bank.served([plan.tiles])
    ran = operators(lambda: made(bank, plan, served))
    assert {"index_select", "index_copy_"} <= set(ran) and waits(ran) == []
