"""TODO."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from evaluators.data.augment import ahead, train_batches
from evaluators.data.bank import ImageBank
from evaluators.detector.head import check_head, initialise_head
from evaluators.judge import Split, evaluate
from evaluators.training.average import _Average
from evaluators.training.distributed import ALONE, Group
from evaluators.training.optimizer import _load_vectors, _optimizer
from evaluators.training.recipe import Recipe
from evaluators.training.step import _gradients, _Step
from gpnas.errors import GpnasError
from gpnas.graph.graph import Graph
from gpnas.graph.network import NORM_MOMENTUM, Network

_MOST_LOSS = 1e5  # per object; an untrained network has about 10 to 1000
_MOST_NORM = 10.0  # of all gradients together: longer ones are shortened to it
_NORM_SPANS, _MOST_NORM_MOMENTUM = 30.0, 0.3


class TrainingDiverged(GpnasError):
    """A loss or gradient that is not finite, or absurd."""


@dataclass(frozen=True)
class FitResult:
    """metrics: COCO's, of the last evaluation (of the best weights from `train_detector`); empty when there was none.
    epochs: trained in all, before a resumption too. best_epoch: the one with the best AP on val, counted from 1; 0 without
    evaluation. seconds: wall clock of this call. averaged: the network that was evaluated, with averaged weights."""

    metrics: dict[str, float]
    epochs: int
    best_epoch: int
    seconds: float
    averaged: Network


Report = Callable[[dict[str, Any]], None]


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
    train: ImageBank,
    val: Split | None,
    names: Sequence[str],
    recipe: Recipe,
    *,
    report: Report,
    save: Callable[[dict[str, Any]], None] | None = None,
    start: Mapping[str, Any] | None = None,
    group: Group = ALONE,
) -> FitResult:
    """Train `network` in place on `train`, which must lie on the recipe's device.

    After each epoch `report` gets the epoch's figures and `save` the whole state, tensors not copied; a training that gets
    such a state as `start` goes on after its epoch. `val` is evaluated by the averaged weights. In a `group` each process calls
    this with the same arguments and the network on its device; the first evaluates, reports and saves. Raises ValueError for a
    head that does not fit, TrainingDiverged, OutOfMemory.
    """
    began = time.perf_counter()
    device = train.pixels.device
    check_head(network.graph, len(names), recipe.imgsz)
    network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    _set_norm_momentum(network, recipe.epochs * math.ceil(len(train.pixels) / recipe.batch_size))
    optimizer = _optimizer(network, recipe)
    averaged = _Average(network, recipe.ema_decay)  # of the tensors that the optimizer has laid out
    generator = torch.Generator().manual_seed(recipe.seed)
    done, best, best_epoch, metrics, history = 0, -1.0, 0, {}, []
    if start is not None:
        network.load_state_dict(start["model"])
        averaged.load(start["ema"], start["updates"])
        _load_vectors(optimizer, start["vectors"])
        generator.set_state(start["generator"])
        done, best, best_epoch = start["epoch"], start["best"], start["best_epoch"]
        metrics, history = dict(start["metrics"]), list(start["history"])

    wrapped = group.wrapped(network)
    pieces = 1  # of a batch, one at a time in memory
    while done < recipe.epochs and not (recipe.patience and best_epoch and done - best_epoch >= recipe.patience):
        row, pieces = _epoch(network, wrapped, averaged, optimizer, train, recipe, done, generator, len(names), pieces, group)
        done += 1
        if val is not None and (done == recipe.epochs or (recipe.eval_every and done % recipe.eval_every == 0)):
            if group.leads:
                metrics, _ = evaluate(averaged.network, val, names, precision=recipe.precision)
            metrics = group.from_leader(metrics)
            row.update(metrics)
            if metrics["ap"] > best:
                best, best_epoch = metrics["ap"], done
        row["seconds"] = time.perf_counter() - began
        history.append({"epoch": done, **row})
        if save is not None and group.leads:
            save(
                {
                    "model": network.state_dict(),
                    "ema": averaged.network.state_dict(),
                    "updates": averaged.updates,
                    "vectors": optimizer.state_dict(),
                    "generator": generator.get_state(),
                    "epoch": done,
                    "best": best,
                    "best_epoch": best_epoch,
                    "metrics": metrics,
                    "history": history,
                }
            )
        if group.leads:
            report({"epoch": done, "epochs": recipe.epochs, **row})
    return FitResult(metrics, done, best_epoch, time.perf_counter() - began, averaged.network)


def _set_norm_momentum(network: nn.Module, steps: int) -> None:
    """Let normalisation statistics span a small part of a training of `steps` steps, however short.

    At the usual momentum of NORM_MOMENTUM they span 33 steps, and a network that trains for 100 is evaluated with statistics
    of weights that it no longer has.
    """
    momentum = min(max(_NORM_SPANS / steps, NORM_MOMENTUM), _MOST_NORM_MOMENTUM)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum


def _epoch(
    network: Network,
    wrapped: nn.Module,
    averaged: _Average,
    optimizer: torch.optim.Optimizer,
    train: ImageBank,
    recipe: Recipe,
    epoch: int,
    generator: torch.Generator,
    classes: int,
    pieces: int,
    group: Group,
) -> tuple[dict[str, float], int]:
    """One pass over the images: mean losses, the share of time that steps waited for images, and into how many pieces batches
    had to be cut in the end."""
    vectors = [vector for of_optimizer in optimizer.param_groups for vector in of_optimizer["params"]]
    sums = np.zeros(4)
    steps, images = 0, 0
    began, waited = time.perf_counter(), 0.0
    batches = train_batches(train, recipe.batch_size, recipe.augmentation_at(epoch), generator, group.share)
    # On a GPU the batches are only queued, and a thread would but take the lock from the training's own.
    with contextlib.closing(ahead(batches) if train.pixels.device.type == "cpu" else batches) as made:
        while True:
            asked = time.perf_counter()
            batch = next(made, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            at = epoch + images / len(train.pixels)
            for of_optimizer in optimizer.param_groups:
                of_optimizer["lr"] = recipe.lr_at(at)
            outputs = recipe.outputs_at(at, network.graph.outputs)
            step = _Step(wrapped, optimizer, outputs, batch, classes, recipe.precision, group)
            losses, pieces = _gradients(step, pieces)
            norm = nn.utils.get_total_norm([vector.grad for vector in vectors])
            length = float(norm)
            if not math.isfinite(losses[0]) or losses[0] > _MOST_LOSS or not math.isfinite(length):
                raise TrainingDiverged(
                    f"epoch {epoch + 1}, step {steps + 1}: loss {losses[0]:g}, gradient norm {length:g} at learning rate "
                    f"{optimizer.param_groups[0]['lr']:g}"
                )
            if length > _MOST_NORM:
                nn.utils.clip_grads_with_norm_(vectors, _MOST_NORM, norm)
            optimizer.step()
            averaged.update()
            sums += losses
            steps += 1
            images += batch.whole
    means = dict(zip(("loss", "box", "classes", "distribution"), (sums / steps).tolist(), strict=True))
    waiting = waited / (time.perf_counter() - began)
    return {**means, "lr": optimizer.param_groups[0]["lr"], "waiting": waiting}, pieces
