"""How a network is trained: `Recipe`, what it says about each point of the training, and two presets.

recipe_file.py reads recipes of the user.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evaluators.data.augment import Augmentation
from evaluators.data.records import DetectionData
from gpnas.graph.graph import Branch, Output

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "linear")
ALIGNMENTS = ("iou", "ciou")
PRECISIONS = ("auto", "bf16", "fp32")

_WARMUP_START = 0.05  # of `lr`
_CHOICES = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "alignment": ALIGNMENTS, "precision": PRECISIONS}


@dataclass(frozen=True)
class Recipe:
    """All settings of a training. The defaults suit short trainings from scratch.

    epochs: passes over the images. imgsz: pixels. batch_size: images in a step of the optimizer.
    optimizer: one of OPTIMIZERS. momentum: of SGD, or the first beta of AdamW.
    weight_decay: of kernels. nominal_batch: `weight_decay` is meant for a batch of this size, and is multiplied by
    batch_size / nominal_batch; 0 leaves it as it is.
    lr: the highest learning rate, reached after `warmup_epochs` (at most a tenth of the epochs). From there it falls to
    `final_lr` times `lr`. schedule: one of SCHEDULES: along a cosine (arXiv:1608.03983, equation 5), or in proportion to the
    epochs since the start. summed_loss: gradients are those of the loss times the images of a batch, not of the loss. With SGD
    a step then grows with the batch, and `lr` holds for any batch.
    ema_decay: the largest decay of the averaged weights.
    class_gain: by which the loss of class scores is multiplied. alignment: one of ALIGNMENTS: the overlap by which anchors are
    assigned to boxes, IoU or complete IoU (detector/assign.py).
    sync_norm_below: with fewer images than this on each of several devices, normalisation uses the statistics of all; 0: never.
    augmentation: of training images. plain_epochs: the last epochs are without mosaic, this many or a quarter of all epochs,
    whichever is fewer.
    auxiliary_end: the weights of auxiliary losses fall linearly, from what the architecture says at the start to this factor
    times that at the end; 1 keeps them.
    eval_every: epochs between two evaluations; 0 evaluates only after the last epoch. patience: stop after so many epochs
    without a better AP; 0 never stops early.
    seed: of weights, batches and augmentation. device: auto, cpu, cuda or cuda:N. precision: one of PRECISIONS; what auto
    means is in `evaluators.device.pick_dtype`.
    Raises ValueError for values that make no sense.
    """

    epochs: int
    imgsz: int
    batch_size: int = 16
    optimizer: str = "adamw"
    lr: float = 4e-3
    final_lr: float = 0.02
    schedule: str = "cosine"
    summed_loss: bool = False
    momentum: float = 0.9
    weight_decay: float = 0.05
    nominal_batch: int = 0
    warmup_epochs: float = 3.0
    ema_decay: float = 0.9998
    class_gain: float = 1.0
    alignment: str = "iou"
    sync_norm_below: int = 0
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
        for name in ("lr", "class_gain"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("auxiliary_end", "final_lr", "ema_decay", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("weight_decay", "warmup_epochs", "nominal_batch", "sync_norm_below", "plain_epochs"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")

    @property
    def scaled_weight_decay(self) -> float:
        """The weight decay for batches of `batch_size`."""
        return self.weight_decay * (self.batch_size / self.nominal_batch if self.nominal_batch else 1)

    def synchronises(self, devices: int) -> bool:
        """Whether the normalisation of so many devices uses the statistics of all."""
        return devices > 1 and self.batch_size < self.sync_norm_below * devices

    def lr_at(self, epochs: float) -> float:
        """The learning rate after `epochs` epochs, from 0 to `Recipe.epochs`."""
        warmup = min(self.warmup_epochs, self.epochs / 10)
        risen = _WARMUP_START + (1 - _WARMUP_START) * epochs / warmup if epochs < warmup else 1.0
        if self.schedule == "linear":
            return self.lr * risen * (1 - (1 - self.final_lr) * epochs / self.epochs)
        if epochs < warmup:
            return self.lr * risen
        progress = (epochs - warmup) / (self.epochs - warmup)
        return self.lr * (self.final_lr + (1 - self.final_lr) * (1 + math.cos(math.pi * progress)) / 2)

    def outputs_at(self, epochs: float, outputs: Sequence[Output]) -> list[Output]:
        """The network's outputs with the weights of their losses after `epochs` epochs."""
        factor = 1 + (self.auxiliary_end - 1) * epochs / self.epochs
        return [out._replace(weight=out.weight * factor) if out.branch == Branch.AUXILIARY else out for out in outputs]

    def augmentation_at(self, epoch: int) -> Augmentation:
        """The augmentation in epoch `epoch`, counted from 0."""
        plain = min(self.plain_epochs, self.epochs // 4)
        return self.augmentation if epoch < self.epochs - plain else replace(self.augmentation, mosaic=0.0)

    def evaluates_after(self, epoch: int) -> bool:
        """Whether the network is evaluated after epoch `epoch`, counted from 1."""
        return epoch == self.epochs or bool(self.eval_every and epoch % self.eval_every == 0)


def for_data(recipe: Recipe, data: DetectionData) -> Recipe:
    """The recipe, without mirroring where a mirrored object is another object (digits, for example)."""
    return recipe if data.may_flip else replace(recipe, augmentation=replace(recipe.augmentation, flip=0.0))


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "short": {},
    "full": {
        "optimizer": "sgd",
        "lr": 0.01,
        "final_lr": 0.01,
        "schedule": "linear",
        "summed_loss": True,
        "momentum": 0.937,
        "weight_decay": 5e-4,
        "nominal_batch": 64,
        "ema_decay": 0.9999,
        "class_gain": 0.5,
        "alignment": "ciou",
        "sync_norm_below": 16,
        "plain_epochs": 15,
        "augmentation": Augmentation(scale=0.9, mixup=0.15),
    },
}
"""By name, the fields that differ from the defaults. `short` suits trainings of a few dozen epochs. `full` has the values that
YOLOv9 trains COCO with for 500 epochs (github.com/WongKinYiu/yolov9, hyp.scratch-high.yaml and train_dual.py), but for
copy-paste, which needs masks, and the warm-up of biases and of the momentum."""
