"""TODO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from evaluators.data.augment import Augmentation
from evaluators.data.records import DetectionData
from gpnas.graph.graph import Branch, Output

OPTIMIZERS = ("adamw", "sgd")


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
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
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
