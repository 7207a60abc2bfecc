"""The training loop, for proxies of a few epochs and for full trainings.

    train, val = open_bank(records, 320, device), load_split(val_records, 320, device)
    network = new_network(graph, classes=len(names), imgsz=320, seed=0)
    result = fit(network, train, val, names, Recipe(epochs=8, imgsz=320), report=print)
    result.metrics["ap"]                                     # of the averaged weights

All randomness comes from `Recipe.seed`: on a CPU the same recipe gives the same weights to the last bit, also when the training
was interrupted and resumed.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluators.data.bank import Bank
from evaluators.data.batches import Batch, train_batches
from evaluators.detector.head import check_head, initialise_head
from evaluators.detector.loss import LossSettings
from evaluators.judge import Split, judge
from evaluators.training.average import WeightAverage
from evaluators.training.distributed import ALONE, Group
from evaluators.training.optimizer import check_views, new_optimizer, parameter_vectors
from evaluators.training.recipe import Recipe
from evaluators.training.state import TrainingState
from evaluators.training.step import GradientAccumulator, Losses
from evaluators.training.sync_norm import synchronise_norms
from gpnas.errors import OutOfMemory, TrainingDiverged, first_line, is_out_of_memory
from gpnas.graph.graph import Graph, Output
from gpnas.graph.network import NORM_MOMENTUM, Network
from gpnas.search.trial import Report

MAX_LOSS = 1e5
"""A training with a larger loss has diverged; an untrained network has a loss of about 10 to 1000."""

MAX_GRADIENT_NORM = 10.0
"""Euclidean norm of all gradients together, to which longer gradients are scaled down."""

_NORM_STEPS, _MAX_NORM_MOMENTUM = 30.0, 0.3


@dataclass(frozen=True)
class FitResult:
    """What `fit` returns.

    metrics: COCO's, of the last evaluation; empty without val. epochs: trained in all, those before a resumption included.
    best_epoch: the epoch with the best AP on val, counted from 1; 0 without val. seconds: wall clock of this call.
    averaged: the network with averaged weights, which is what was evaluated.
    """

    metrics: dict[str, float]
    epochs: int
    best_epoch: int
    seconds: float
    averaged: Network


def new_network(graph: Graph, classes: int, imgsz: int, seed: int) -> Network:
    """An untrained detector. Raises ValueError when its head does not fit `classes` and `imgsz` (pixels)."""
    check_head(graph, classes, imgsz)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(graph)
    initialise_head(network, classes, imgsz)
    return network


def fit(
    network: Network,
    train: Bank,
    val: Split | None,
    names: Sequence[str],
    recipe: Recipe,
    *,
    report: Report,
    save: Callable[[TrainingState], None] | None = None,
    resume_from: Mapping[str, Any] | None = None,
    group: Group = ALONE,
    fast_ap: bool = False,
) -> FitResult:
    """Train `network` in place on `train`, on the device where `train` lies; evaluate its averaged weights on `val`.

    names: of the classes. After each epoch `report` gets the row of that epoch, and `save` gets the state. resume_from: a
    `TrainingState.state_dict` to continue from. In a `group` every process calls this with the same arguments and the network
    on its own device. fast_ap: see `evaluators.detector.ap.coco_evaluation`. Raises ValueError for a head that does not fit the
    data, TrainingDiverged, OutOfMemory.
    """
    began = time.perf_counter()
    check_head(network.graph, len(names), recipe.imgsz)
    network.to(train.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    set_norm_momentum(network, recipe.epochs * math.ceil(len(train) / recipe.batch_size))
    state = _new_state(network, recipe)
    if resume_from is not None:
        state.load_state_dict(resume_from)
    if recipe.synchronises(group.size):
        synchronise_norms(network)
    gradients = GradientAccumulator(
        group.wrap(network),
        state.optimizer,
        len(names),
        recipe.precision,
        group,
        settings=LossSettings(recipe.class_gain, recipe.alignment == "ciou"),
        summed=recipe.summed_loss,
    )
    with _told_in_one_line(recipe.imgsz):
        while state.epoch < recipe.epochs and not _stops_early(state, recipe.patience):
            row: dict[str, Any] = _train_epoch(state, gradients, train, recipe)
            state.epoch += 1
            if val is not None and recipe.evaluates_after(state.epoch):
                _evaluate(state, val, names, recipe.precision, group, fast_ap)
                row |= state.metrics
            row["seconds"] = time.perf_counter() - began
            state.history.append({"epoch": state.epoch, **row})
            if group.is_leader:
                if save is not None:
                    save(state)
                report({"epoch": state.epoch, "epochs": recipe.epochs, **row})
    return FitResult(state.metrics, state.epoch, state.best_epoch, time.perf_counter() - began, state.average.network)


@contextlib.contextmanager
def _told_in_one_line(imgsz: int) -> Iterator[None]:
    """What libraries raise where memory runs out and no smaller pieces help, as OutOfMemory."""
    try:
        yield
    except (RuntimeError, MemoryError, cv2.error) as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(error)
        raise OutOfMemory(f"a training at {imgsz} pixels ran out of memory ({reason}); use a smaller batch") from error


def _new_state(network: Network, recipe: Recipe) -> TrainingState:
    optimizer = new_optimizer(
        network, recipe.optimizer, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.scaled_weight_decay
    )
    # The average comes after the optimizer, which gives the network's parameters new memory.
    average = WeightAverage(network, recipe.ema_decay)
    return TrainingState(network, optimizer, average, torch.Generator().manual_seed(recipe.seed))


def set_norm_momentum(network: nn.Module, steps: int) -> None:
    """Let the running statistics of normalisation span a small part of a training of `steps` steps.

    With the usual NORM_MOMENTUM they span 33 steps. A network that trains for 100 steps would be evaluated with statistics of
    weights that it no longer has.
    """
    momentum = min(max(_NORM_STEPS / steps, NORM_MOMENTUM), _MAX_NORM_MOMENTUM)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum


def _stops_early(state: TrainingState, patience: int) -> bool:
    return bool(patience and state.best_epoch and state.epoch - state.best_epoch >= patience)


def _train_epoch(state: TrainingState, gradients: GradientAccumulator, train: Bank, recipe: Recipe) -> dict[str, float]:
    """One pass over the images: mean losses, the last learning rate, and the share of time that steps waited for images."""
    readings, steps, images = Readings(), 0, 0
    began, lr = time.perf_counter(), 0.0
    with contextlib.closing(_batches(state, train, recipe, gradients.group)) as made:
        batches = _TimedBatches(made)
        for batch in batches:
            epochs = state.epoch + images / len(train)  # trained so far
            lr = recipe.lr_at(epochs)
            _set_lr(state.optimizer, lr)
            values = training_step(state, gradients, batch, recipe.outputs_at(epochs, state.network.graph.outputs))
            if not steps:
                check_views(state.network, state.optimizer)
            steps += 1
            images += batch.full_size
            readings.add(values, f"epoch {state.epoch + 1}, step {steps}", lr)
    means = dict(zip(Losses._fields, (readings.sums() / steps).tolist(), strict=True))
    return {**means, "lr": lr, "waiting": batches.waited / (time.perf_counter() - began)}


def training_step(state: TrainingState, gradients: GradientAccumulator, batch: Batch, outputs: Sequence[Output]) -> Tensor:
    """One step: gradients, clipping, the optimizer, the average. outputs: of the graph, with the weights of their losses.

    Returns the `Losses` and the norm of the gradients before clipping, float32 (5,), on the device. Nothing here waits for the
    device: a test traces it without values, and `benchmarks/gpu.py` looks for waits on a GPU.
    """
    losses = gradients.backward(batch, outputs)
    vectors = parameter_vectors(state.optimizer)
    norm = nn.utils.get_total_norm([vector.grad for vector in vectors if vector.grad is not None])
    nn.utils.clip_grads_with_norm_(vectors, MAX_GRADIENT_NORM, norm)  # multiplies by 1 where the norm is less
    state.optimizer.step()
    state.average.update()
    return torch.cat([losses, norm[None]])


class Readings:
    """The numbers of an epoch's steps, each read from the device while the next step is queued, so that the device never waits
    for the reader."""

    def __init__(self) -> None:
        self._sums = np.zeros(len(Losses._fields))
        self._waiting: tuple[Tensor, torch.cuda.Event | None, str, float] | None = None

    def add(self, values: Tensor, step: str, lr: float) -> None:
        """values: of `training_step`. step, lr: its name and learning rate. Raises TrainingDiverged for the step before it."""
        before, event = self._waiting, None
        copy = values.to("cpu", non_blocking=True)
        if values.device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(values.device))  # type: ignore[no-untyped-call]
        self._waiting = copy, event, step, lr
        self._read(before)

    def sums(self) -> NDArray[np.float64]:
        """The sums of the losses over all steps. Raises TrainingDiverged for the last step."""
        self._read(self._waiting)
        self._waiting = None
        return self._sums

    def _read(self, waiting: tuple[Tensor, torch.cuda.Event | None, str, float] | None) -> None:
        if waiting is None:
            return
        values, event, step, lr = waiting
        if event is not None:
            event.synchronize()  # type: ignore[no-untyped-call]
        *losses, norm = values.tolist()
        if not math.isfinite(losses[0]) or losses[0] > MAX_LOSS or not math.isfinite(norm):
            raise TrainingDiverged(f"{step}: loss {losses[0]:g}, gradient norm {norm:g} at learning rate {lr:g}")
        self._sums += losses


def _batches(state: TrainingState, train: Bank, recipe: Recipe, group: Group) -> Generator[Batch, None, None]:
    augmentation = recipe.augmentation_at(state.epoch)
    return train_batches(train, recipe.batch_size, augmentation, state.generator, group.share, ahead=True)


class _TimedBatches:
    """Iterates over batches; waited: seconds that the iterations took to get them."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self.waited = 0.0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            asked = time.perf_counter()
            batch = next(self._batches, None)
            self.waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch


def _set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _evaluate(state: TrainingState, val: Split, names: Sequence[str], precision: str, group: Group, fast: bool) -> None:
    """Judge the averaged weights on `val`, in the leader, and tell the others."""
    if group.is_leader:
        state.metrics = judge(state.average.network, val, names, precision=precision, fast=fast)[0].metrics
    state.metrics = group.broadcast(state.metrics)
    if state.metrics["ap"] > state.best:
        state.best, state.best_epoch = state.metrics["ap"], state.epoch
