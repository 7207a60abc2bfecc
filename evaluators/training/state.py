"""Everything that a training needs to continue after an epoch, and its form in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from evaluators.training.average import WeightAverage
from evaluators.training.optimizer import load_optimizer
from gpnas.graph.network import Network

STATE_KEYS = ("model", "ema", "updates", "vectors", "generator", "epoch", "best", "best_epoch", "metrics", "history")
"""The keys of `TrainingState.state_dict`, and so of last.pt."""


@dataclass
class TrainingState:
    """A training after `epoch` epochs. It changes as the training goes on.

    generator: draws batches and augmentations. best: the best AP on val so far, -1 before the first evaluation. best_epoch:
    its epoch, counted from 1; 0 before the first. metrics: COCO's, of the last evaluation. history: a row an epoch.
    """

    network: Network
    optimizer: torch.optim.Optimizer
    average: WeightAverage
    generator: torch.Generator
    epoch: int = 0
    best: float = -1.0
    best_epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds. Tensors are not copied."""
        return {
            "model": self.network.state_dict(),
            "ema": self.average.network.state_dict(),
            "updates": self.average.updates,
            "vectors": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "epoch": self.epoch,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "metrics": self.metrics,
            "history": self.history,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` ends. Raises InputError for an optimizer's state of another layout."""
        self.network.load_state_dict(state["model"])
        self.average.load(state["ema"], state["updates"])
        load_optimizer(self.optimizer, state["vectors"])
        self.generator.set_state(state["generator"])
        self.epoch, self.best, self.best_epoch = state["epoch"], state["best"], state["best_epoch"]
        self.metrics, self.history = dict(state["metrics"]), list(state["history"])
