"""The one training loop, for proxies of a few epochs and for full training, and what surrounds it.

    train, val = load_bank(records, 320, device), load_split(val_records, 320, device)
    result = fit(network, train, val, names, Recipe(epochs=8, imgsz=320), report=print)
    result.metrics["ap"]                                     # of the averaged weights, in the fused form
    train_detector(graph, genotype, data, Recipe(300, 640), Path("runs/full"), resume=False, report=print)

Everything random comes from `Recipe.seed`: on the CPU the same recipe gives the same weights, and a training that was stopped
after an epoch and resumed gives those of one that was not.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import gc
import io
import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluators.ap import Judgement, coco_judgement
from evaluators.augment import ALONE, Augmentation, Batch, ahead, plain_batches, train_batches
from evaluators.data import DetectionData, ImageBank, Record, load_bank
from evaluators.distributed import Group, joined, without_averaging
from evaluators.head import check_head, decode, detections, initialise_head
from evaluators.loss import network_loss
from gpnas.errors import GpnasError, InputError
from gpnas.graph import Branch, Graph, Output
from gpnas.network import NORM_MOMENTUM, Network

FORMAT = 1
"""Version of the checkpoints' contents."""

_STATE = ("model", "ema", "updates", "vectors", "generator", "epoch", "best", "best_epoch", "metrics", "history")
CPU_BATCH, MOST_BATCH = 16, 128
"""Images a step that `automatic_batch` chooses on a CPU, and at most: larger ones learn less in an epoch."""

_MOST_LOSS = 1e5  # per object; an untrained network has about 10 to 1000
_MOST_NORM = 10.0  # of all gradients together: longer ones are shortened to it
_EVALUATION_BATCH = 32
_ALIGNED = 16  # parameters begin at multiples of so many values, of 4 bytes each, in the vector that holds them
_NORM_SPANS, _MOST_NORM_MOMENTUM = 30.0, 0.3


class TrainingDiverged(GpnasError):
    """A loss or gradient that is not finite, or absurd."""


class OutOfMemory(GpnasError):
    """Not even two images at a time fit into memory."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. The defaults are those of short trainings from scratch, chosen by AP after 8 epochs of 480
    digit scenes at 128 pixels with a network of 0.3 M parameters.

    imgsz: pixels. batch_size: images an optimiser step sees (in pieces, where memory is short). lr: the highest learning
    rate, reached after `warmup_epochs` (at most a tenth of the epochs) and then brought down to `final_lr` times itself by a
    cosine. momentum: SGD's, or AdamW's first beta. ema_decay: what the averaging of the weights ramps up to.
    plain_epochs: the last ones, without mosaic (at most a quarter of the epochs). auxiliary_end: the auxiliary losses' weights
    fall in a line, from what the architecture says to so many times that at the end; 1 keeps them, as YOLOv9 does.
    eval_every: epochs between evaluations; 0 evaluates after the last epoch only. patience: stop after so many epochs without
    a better AP; 0 never does.
    device: auto, cpu, cuda or cuda:N. precision: fp32, bf16, or auto (see `pick_dtype`).
    """

    epochs: int
    imgsz: int
    batch_size: int = 16
    optimizer: str = "adamw"
    lr: float = 4e-3
    final_lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 0.05
    warmup_epochs: float = 3.0
    ema_decay: float = 0.9998
    augmentation: Augmentation = field(default_factory=Augmentation)
    plain_epochs: int = 10
    auxiliary_end: float = 1.0
    eval_every: int = 1
    patience: int = 0
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "imgsz", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
        if not 0 <= self.auxiliary_end <= 1:
            raise ValueError(f"auxiliary_end must lie in [0, 1], got {self.auxiliary_end}")
        if self.optimizer not in _OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(_OPTIMIZERS)}, got {self.optimizer!r}")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"precision must be auto, bf16 or fp32, got {self.precision!r}")

    def lr_at(self, epoch: float) -> float:
        """The learning rate at a point of the training, in epochs from 0 to `epochs`."""
        warmup = min(self.warmup_epochs, self.epochs / 10)
        if epoch < warmup:
            return self.lr * (0.05 + 0.95 * epoch / warmup)
        done = (epoch - warmup) / (self.epochs - warmup)
        return self.lr * (self.final_lr + (1 - self.final_lr) * (1 + math.cos(math.pi * done)) / 2)

    def outputs_at(self, epoch: float, outputs: Sequence[Output]) -> list[Output]:
        """The outputs with the weights that their losses have at a point of the training."""
        factor = 1 + (self.auxiliary_end - 1) * epoch / self.epochs
        return [out._replace(weight=out.weight * factor) if out.branch == Branch.AUXILIARY else out for out in outputs]

    def augmentation_at(self, epoch: int) -> Augmentation:
        """What epoch `epoch`, counted from 0, does to its images."""
        plain = min(self.plain_epochs, self.epochs // 4)
        return self.augmentation if epoch < self.epochs - plain else replace(self.augmentation, mosaic=0.0)


def for_data(recipe: Recipe, data: DetectionData) -> Recipe:
    """The recipe without mirroring where a mirrored object is another one."""
    return recipe if data.may_flip else replace(recipe, augmentation=replace(recipe.augmentation, flip=0.0))


class Split(NamedTuple):
    """Records, by which detections are judged, and their images."""

    records: Sequence[Record]
    bank: ImageBank


def load_split(records: Sequence[Record], imgsz: int, device: str | torch.device = "cpu") -> Split:
    return Split(records, load_bank(records, imgsz, device))


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


def pick_device(device: str) -> torch.device:
    """`auto` is CUDA where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else torch.device(device)


def pick_dtype(device: torch.device, precision: str) -> torch.dtype:
    """What convolutions compute in; auto is bf16 on CUDA, fp32 on a CPU.

    bf16 on a CPU with AMX was measured and left (torch 2.13, two cores): blood-cell networks of 70 to 124 layers train 1.1 to
    1.3 times as fast, one of 253 narrow layers on digit scenes 0.9 times, with AP .046 instead of .053; and on feature maps of
    one pixel its weight gradients differ from run to run and can be infinite.
    """
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    dtype = pick_dtype(device, precision)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python could not allocate: on the CPU torch says so in a plain RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("not enough memory", "defaultcpuallocator", "out of memory")
    )


def automatic_batch(graph: Graph, classes: int, imgsz: int, device: torch.device, precision: str = "auto") -> int:
    """Images a step that use a GPU's free memory well, measured with two steps of a few images; CPU_BATCH on a CPU."""
    if device.type != "cuda":
        return CPU_BATCH

    def peak(images: int) -> int:
        gc.collect()  # the optimiser of a call before may stand in a cycle
        network = new_network(graph, classes, imgsz, 0).train()
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = _optimizer(network, Recipe(1, imgsz))
        torch.cuda.reset_peak_memory_stats(device)
        pixels = torch.rand(images, 3, imgsz, imgsz, device=device).contiguous(memory_format=torch.channels_last)
        box = torch.tensor([imgsz / 4, imgsz / 4, imgsz / 2, imgsz / 2], device=device).expand(images, 8, 4)
        labels = torch.zeros(images, 8, dtype=torch.int64, device=device)
        batch = Batch(pixels, box, labels, images)
        _accumulated(_Step(network, optimizer, graph.outputs, batch, classes, precision, ALONE), 1)
        return torch.cuda.max_memory_allocated(device)

    found = fitting_batch(peak, int(0.8 * torch.cuda.mem_get_info(device)[0]))
    torch.cuda.empty_cache()
    return found


def fitting_batch(peak: Callable[[int], int], room: int) -> int:
    """The largest power of two, from 2 to MOST_BATCH, whose peak memory fits into `room` (bytes), by the straight line through
    the peaks of 2 and 8 images."""
    few, more = peak(2), peak(8)
    each = max((more - few) / 6, 1.0)
    batch = 2
    while 2 * batch <= MOST_BATCH and few + (2 * batch - 2) * each <= room:
        batch *= 2
    return batch


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
    batches = train_batches(train, recipe.batch_size, recipe.augmentation_at(epoch), generator, group)
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


class _Step(NamedTuple):
    """What the passes before a step of the optimiser need. losses: the network's outputs, with the weights of their losses."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    losses: Sequence[Output]
    batch: Batch
    classes: int
    precision: str
    group: Group


def _gradients(step: _Step, pieces: int) -> tuple[list[float], int]:
    """Accumulate the gradients of a batch's mean loss; the loss (total, box, classes, distribution), and the pieces.

    When memory does not suffice the batch is done again in twice as many pieces, down to two images each (not in a group, whose
    other processes would wait for ever).
    """
    images, alone = step.batch.images, step.group.size == 1
    while True:
        try:
            return _accumulated(step, pieces), pieces
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            most = max(1, len(images) // 2) if alone else 1
            if pieces >= most:
                few = min(2, len(images)) if alone else len(images)
                raise OutOfMemory(f"{few} images of {images.shape[-1]} pixels do not fit into memory") from error
            pieces = min(2 * pieces, most)
        # Outside of the handler the failed pass is no longer referred to, and its tensors are free.
        if images.device.type == "cuda":
            torch.cuda.empty_cache()


def _accumulated(step: _Step, pieces: int) -> list[float]:
    network, batch = step.network, step.batch
    step.optimizer.zero_grad(set_to_none=False)  # the parameters' gradients are views of its own
    total = torch.zeros(4, device=batch.images.device)
    split = (tensor.tensor_split(pieces) for tensor in (batch.images, batch.boxes, batch.classes))
    for i, (images, boxes, labels) in enumerate(zip(*split, strict=True)):
        share = len(images) / batch.whole
        with without_averaging(network) if i + 1 < pieces else contextlib.nullcontext():
            with _autocast(images.device, step.precision):
                outputs = network(images)
            parts = network_loss(outputs, step.losses, boxes, labels, step.classes)
            torch.autograd.backward(parts.total * (share * step.group.size))  # the group averages
        total += share * torch.stack([parts.total, *parts]).detach()
    return [float(x) for x in step.group.summed(total).cpu()]


class _Average:
    """Exponential moving average of a network's weights and normalisation statistics.

    The decay ramps up as (1 + n) / (10 + n) after n updates, so that the average spans about the last tenth of a training
    of any length, and never contains the untrained weights.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        # State dictionaries share memory with their networks, and training changes tensors in place.
        self._own, self._source = (
            [tensor for tensor in of.state_dict().values() if tensor.is_floating_point()] for of in (self.network, network)
        )

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._own, self._source, 1 - decay)

    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        self.network.load_state_dict(state)
        self.updates = updates


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Of two vectors that hold all parameters: kernels, which decay, and biases and normalisation, which do not."""
    kernels = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    decays = ((kernels, recipe.weight_decay), (others, 0.0))
    groups = [{"params": [_side_by_side(members)], "weight_decay": decay} for members, decay in decays if members]
    return _OPTIMIZERS[recipe.optimizer](groups, recipe)


def _side_by_side(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """A vector, with a gradient, of which the parameters and their gradients are views from now on.

    One call then steps, measures or clears them all: with one for each of a few hundred small layers, that took a tenth of a
    proxy's time. The gradients must be cleared by zeros, never by None.
    """
    starts = list(itertools.accumulate((-(-p.numel() // _ALIGNED) * _ALIGNED for p in parameters), initial=0))
    vector = nn.Parameter(parameters[0].new_zeros(starts.pop()))
    vector.grad = torch.zeros_like(vector)
    for parameter, start in zip(parameters, starts, strict=True):
        mine, gradient = (of.as_strided(parameter.shape, parameter.stride(), start) for of in (vector.data, vector.grad))
        parameter.data, parameter.grad = mine.copy_(parameter.data), gradient
    return vector


def _load_vectors(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    optimizer.load_state_dict(state)
    for vector, moments in optimizer.state.items():
        if any(moment.ndim and moment.shape != vector.shape for moment in moments.values()):
            raise InputError("the optimiser's state was laid out by another version of gpnas; train again in another folder")


def _adamw(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=True)


def _sgd(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=True, fused=True)


_OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], Recipe], torch.optim.Optimizer]] = {"adamw": _adamw, "sgd": _sgd}


@torch.no_grad()
def detect(network: Network, split: Split, classes: int, *, precision: str = "auto") -> list[NDArray[np.float64]]:
    """What a network, in its fused form, finds in a split that lies on its device: one (n, 6) array for each image: x1, y1, x2,
    y2 in original pixels, score, class; the best first, at most 100, as COCO looks at no more."""
    fused = network if network.is_fused else network.fused()
    fused.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    bank, device = split.bank, split.bank.pixels.device
    strides = [out.stride for out in fused.graph.outputs if out.branch == Branch.MAIN]
    sizes, scales = bank.sizes.tolist(), bank.scales.double().tolist()
    found: list[NDArray[np.float64]] = []
    for images, part in plain_batches(bank, _EVALUATION_BATCH):
        with _autocast(device, precision):
            outputs = fused(images)
        boxes, scores = decode(outputs, strides, classes)
        found += detections(boxes, scores, sizes[part], most=100)
    for rows, scale, record in zip(found, scales, split.records, strict=True):
        rows[:, :4] = np.clip(rows[:, :4] / scale, 0, [record.width, record.height] * 2)
    return found


def judge(
    network: Network, split: Split, names: Sequence[str], *, precision: str = "auto"
) -> tuple[Judgement, list[NDArray[np.float64]]]:
    """What COCOeval says of the detections of `network` on `split`, and the detections."""
    found = detect(network, split, len(names), precision=precision)
    return coco_judgement(split.records, names, found), found


def evaluate(
    network: Network, split: Split, names: Sequence[str], *, precision: str = "auto"
) -> tuple[dict[str, float], list[NDArray[np.float64]]]:
    """The metrics of `judge`, and the detections."""
    judgement, found = judge(network, split, names, precision=precision)
    return judgement.metrics, found


def validate(
    network: Network, data: DetectionData, split: str, imgsz: int, *, device: str = "auto", precision: str = "auto"
) -> tuple[Judgement, list[NDArray[np.float64]]]:
    """`judge` of `network` on a split of `data`, at `imgsz` pixels."""
    place = pick_device(device)
    _check_input(network.graph, len(data.names), imgsz)
    loaded = load_split(data.splits[split], imgsz, place)
    return judge(network.to(place), loaded, data.names, precision=precision)


@dataclass(frozen=True)
class Trained:
    """A full training's end. result: its metrics are those of the best epoch's weights on `split`, which is test, or val where
    there is no test. judgement, found: of these weights there. loaded: how much of other weights it started from, or ""."""

    result: FitResult
    split: str
    judgement: Judgement
    found: list[NDArray[np.float64]]
    history: list[dict[str, Any]]
    loaded: str


def train_detector(
    graph: Graph,
    genotype: str,
    data: DetectionData,
    recipe: Recipe,
    out: Path,
    *,
    resume: bool,
    report: Report,
    weights: Path | None = None,
) -> Trained | None:
    """Train the detector of `graph` in full, alone or in the group that torchrun started.

    Writes into `out` after each epoch: results.csv, last.pt (to resume from) and best.pt (the averaged weights with the best
    AP on val). Checkpoints carry `genotype`, the text that rebuilds the graph. weights: a checkpoint, perhaps of another
    architecture, whose weights are taken over where names and shapes are the same. None in all processes of a group but the
    first. Raises InputError when `out` holds another training, or when there is nothing to resume.
    """
    began = time.perf_counter()
    _check_input(graph, len(data.names), recipe.imgsz)
    recipe = for_data(recipe, data)
    last, best = out / "last.pt", out / "best.pt"
    start = _start(last, genotype, data.names, recipe) if resume else None
    if not resume and last.exists():
        raise InputError(f"{out} holds a training already; resume it, or name another folder with --out")
    about = {"format": FORMAT, "genotype": genotype, "names": list(data.names), "recipe": asdict(recipe)}
    history: list[dict[str, Any]] = []

    def save(state: dict[str, Any]) -> None:
        if state["best_epoch"] == state["epoch"]:
            kept = {key: state[key] for key in ("ema", "epoch", "metrics")}
            save_checkpoint(best, {**about, **kept})
        save_checkpoint(last, {**about, **state})
        history[:] = state["history"]
        write_table(out / "results.csv", history)

    with joined(pick_device(recipe.device)) as (group, device):
        out.mkdir(parents=True, exist_ok=True)
        network = new_network(graph, len(data.names), recipe.imgsz, recipe.seed)
        loaded = _taken_from(network, weights) if weights is not None and start is None else ""
        if start is not None:
            load_weights(network, start, last)
            history[:] = start["history"]
        train = load_bank(data.splits["train"], recipe.imgsz, device)
        val = load_split(data.splits["val"], recipe.imgsz, device)
        result = fit(network, train, val, data.names, recipe, report=report, save=save, start=start, group=group)
        if not group.leads:
            return None
    load_weights(result.averaged, load_detector(best), best)
    split = "test" if "test" in data.splits else "val"
    judged = val if split == "val" else load_split(data.splits[split], recipe.imgsz, device)
    judgement, found = judge(result.averaged, judged, data.names, precision=recipe.precision)
    result = replace(result, metrics=judgement.metrics, seconds=time.perf_counter() - began)
    return Trained(result, split, judgement, found, history, loaded)


def _taken_from(network: Network, checkpoint: Path) -> str:
    """`take_over` the weights of `checkpoint`; says how many. Raises InputError when there are none."""
    count, whole = take_over(network, load_detector(checkpoint)["model"])
    if not count:
        raise InputError(f"--weights {checkpoint}: none of its weights has a name and shape of this network; leave it out")
    return f"{count} of {whole} values ({count / whole:.0%}) are taken from {checkpoint}"


def take_over(network: Network, theirs: Mapping[str, Tensor]) -> tuple[int, int]:
    """Copy the values that the network has under the same name and shape; how many they are, and how many it has in all."""
    ours = network.state_dict()
    same = {key: value for key, value in theirs.items() if key in ours and ours[key].shape == value.shape}
    network.load_state_dict(same, strict=False)
    return sum(value.numel() for value in same.values()), sum(value.numel() for value in ours.values())


def _check_input(graph: Graph, classes: int, imgsz: int) -> None:
    try:
        check_head(graph, classes, imgsz)
    except ValueError as error:
        raise InputError(f"this network cannot be used here: {error}") from error


def _start(last: Path, genotype: str, names: Sequence[str], recipe: Recipe) -> dict[str, Any]:
    """The state to resume from, checked to be that of the same training."""
    if not last.exists():
        raise InputError(f"{last} does not exist: nothing to resume; train without --resume")
    state = read_checkpoint(last)
    if missing := {"genotype", "names", "recipe", *_STATE} - state.keys():
        raise InputError(f"{last} lacks {', '.join(sorted(missing))}; resume from the last.pt of this version's gpnas train")
    if state["genotype"] != genotype:
        raise InputError(f"{last} is the training of another architecture; resume with its own, or train in another folder")
    if tuple(state["names"]) != tuple(names):
        raise InputError(f"{last} detects {', '.join(state['names'])}, the data have {', '.join(names)}; give its own data")
    now = asdict(recipe)
    for key in now.keys() - {"device", "precision"}:
        if state["recipe"].get(key) != now[key]:
            raise InputError(f"{last} was trained with {key} {state['recipe'].get(key)}, not {now[key]}; resume with the same")
    return state


def load_detector(checkpoint: Path) -> dict[str, Any]:
    """A trained detector: `model` (averaged weights), `genotype` (text), `names`, `imgsz` (pixels), `epoch`, `metrics`.

    Raises InputError for a file that is no checkpoint of gpnas train.
    """
    content = read_checkpoint(checkpoint)
    try:
        return {
            "model": content["ema"],
            "genotype": content["genotype"],
            "names": content["names"],
            "imgsz": content["recipe"]["imgsz"],
            "epoch": content["epoch"],
            "metrics": content["metrics"],
        }
    except KeyError as error:
        raise InputError(f"{checkpoint} lacks {error}; give the best.pt or last.pt of gpnas train") from error


def load_weights(network: Network, detector: Mapping[str, Any], checkpoint: Path) -> None:
    """Load the weights of `detector`, which was read from `checkpoint`; InputError when they are of another network."""
    try:
        network.load_state_dict(detector["model"])
    except RuntimeError as error:
        have = sum(p.numel() for p in network.parameters())
        theirs = sum(t.numel() for k, t in detector["model"].items() if not k.endswith(("running_mean", "running_var")))
        raise InputError(
            f"the weights of {checkpoint} ({theirs} parameters) do not fit this network ({have} parameters); "
            "rebuild it from the checkpoint's own genotype"
        ) from error


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write all of it or nothing: a crash leaves what was there."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(dict(content), temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a file by `save_checkpoint`, on the CPU. It is data only: nothing in it is executed."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; give a checkpoint of gpnas train") from error
    except Exception as error:  # whatever bytes make of an unpickler: IndexError, KeyError, UnpicklingError ...
        raise InputError(f"{path} is broken or no checkpoint; give the best.pt or last.pt of gpnas train") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise InputError(f"{path} has checkpoint format {found}, not {FORMAT}; it was written by another program or version")
    return content


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as CSV, with a column for every key; replaced whole, so that a resumed training repeats no row."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with contextlib.closing(text):
        temporary.write_text(text.getvalue())
    os.replace(temporary, path)
