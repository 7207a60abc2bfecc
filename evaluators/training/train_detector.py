"""A full training of a detector: the loop, and the files around it.

    train_detector(graph, genotype, data, Recipe(300, 640), Path("runs/full"), resume=False, report=print)

The folder then holds results.csv (a row an epoch), last.pt (to resume from) and best.pt (the best averaged weights).
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluators.data.bank import load_bank
from evaluators.data.records import DetectionData
from evaluators.detector.ap import CocoEvaluation, Detections
from evaluators.device import pick_device
from evaluators.judge import check_network, judge, load_split
from evaluators.training.checkpoint import (
    load_detector,
    load_matching_from,
    load_resumable,
    load_weights,
    save_checkpoint,
)
from evaluators.training.distributed import process_group
from evaluators.training.history import write_history
from evaluators.training.loop import fit, new_network
from evaluators.training.recipe import Recipe, for_data
from evaluators.training.state import TrainingState
from gpnas.errors import InputError
from gpnas.graph.graph import Graph
from gpnas.search.trial import Report


@dataclass(frozen=True)
class TrainedDetector:
    """The result of a full training.

    epochs: trained in all. best_epoch: the epoch with the best AP on val, counted from 1; its weights are in best.pt.
    seconds: wall clock of this call. split: on which the best weights were judged: test, or val where there is no test.
    evaluation, detections: of the best weights on that split. history: a row an epoch, as in results.csv.
    loaded: a line that says how many of its first weights came from another checkpoint, or "".
    """

    epochs: int
    best_epoch: int
    seconds: float
    split: str
    evaluation: CocoEvaluation
    detections: list[Detections]
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
) -> TrainedDetector | None:
    """Train the detector of `graph`, alone or in the group of processes that torchrun started.

    After each epoch it writes the files in `out` and calls `report`. genotype: the text that rebuilds the graph, kept in the
    checkpoints. weights: a checkpoint, perhaps of another architecture, from which weights of the same name and shape are
    loaded first. In a group, all processes but the first return None. Raises InputError when `out` holds another training,
    when there is nothing to resume, or when the network does not fit the data.
    """
    began = time.perf_counter()
    check_network(graph, len(data.names), recipe.imgsz)
    recipe = for_data(recipe, data)
    last, best = out / "last.pt", out / "best.pt"
    resumed = load_resumable(last, genotype, data.names, recipe) if resume else None
    if not resume and last.exists():
        raise InputError(f"{out} holds a training already; resume it, or name another folder with --out")
    about = {"genotype": genotype, "names": list(data.names), "recipe": asdict(recipe)}
    history: list[dict[str, Any]] = list(resumed["history"]) if resumed else []

    def save(state: TrainingState) -> None:
        content = state.state_dict()
        if state.best_epoch == state.epoch:
            save_checkpoint(best, about | {key: content[key] for key in ("ema", "epoch", "metrics")})
        save_checkpoint(last, about | content)
        history[:] = state.history
        write_history(out / "results.csv", history)

    with process_group(pick_device(recipe.device)) as (group, device):
        out.mkdir(parents=True, exist_ok=True)
        network = new_network(graph, len(data.names), recipe.imgsz, recipe.seed)
        loaded = load_matching_from(weights, network) if weights is not None and resumed is None else ""
        if resumed is not None:
            load_weights(network, resumed["model"], last)
        train = load_bank(data.splits["train"], recipe.imgsz, device)
        val = load_split(data.splits["val"], recipe.imgsz, device)
        result = fit(network, train, val, data.names, recipe, report=report, save=save, resume_from=resumed, group=group)
        if not group.is_leader:
            return None
    load_weights(result.averaged, load_detector(best).weights, best)
    split = "test" if "test" in data.splits else "val"
    judged = val if split == "val" else load_split(data.splits[split], recipe.imgsz, device)
    evaluation, detections = judge(result.averaged, judged, data.names, precision=recipe.precision)
    seconds = time.perf_counter() - began
    return TrainedDetector(result.epochs, result.best_epoch, seconds, split, evaluation, detections, history, loaded)
