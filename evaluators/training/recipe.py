"""How a network is trained: `Recipe`, and what it says about each point of the training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from evaluators.data.augment import Augmentation
from evaluators.data.records import DetectionData
from gpnas.graph.graph import Branch, Output

OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("auto", "bf16", "fp32")

_WARMUP_START = 0.05  # of `lr`


@dataclass(frozen=True)
class Recipe:
    """All settings of a training. The defaults suit short trainings from scratch.

    epochs: passes over the images. imgsz: pixels. batch_size: images in a step of the optimizer.
    optimizer: one of OPTIMIZERS. momentum: of SGD, or the first beta of AdamW. weight_decay: of kernels.
    lr: the highest learning rate, reached after `warmup_epochs` (at most a tenth of the epochs). From there it falls along a
    cosine (arXiv:1608.03983, equation 5) to `final_lr` times `lr`. ema_decay: the largest decay of the averaged weights.
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
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")

    def lr_at(self, epochs: float) -> float:
        """The learning rate after `epochs` epochs, from 0 to `Recipe.epochs`."""
        warmup = min(self.warmup_epochs, self.epochs / 10)
        if epochs < warmup:
            return self.lr * (_WARMUP_START + (1 - _WARMUP_START) * epochs / warmup)
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
