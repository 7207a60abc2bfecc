"""A full training of a detector: the loop, and the files around it.

    train_detector(graph, genotype, data, Recipe(300, 640), Path("runs/full"), resume=False, report=print)

The folder then holds splits.csv (the split of each image), recipe.yaml (the settings, to be used again), results.csv (a row an
epoch), last.pt (to resume from) and best.pt (the best averaged weights).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from evaluators.data.bank import Bank
from evaluators.data.problems import Problem
from evaluators.data.records import DetectionData, Record, digest, splits_table
from evaluators.data.streamed import open_bank
from evaluators.detector.ap import CocoEvaluation, Detections
from evaluators.device import pick_device
from evaluators.judge import Split, check_network, judge, load_split
from evaluators.training.batch_size import automatic_batch
from evaluators.training.checkpoint import (
    load_detector,
    load_matching_from,
    load_resumable,
    load_weights,
    save_checkpoint,
)
from evaluators.training.distributed import Group, process_group
from evaluators.training.history import write_history
from evaluators.training.loop import fit, new_network
from evaluators.training.recipe import Recipe, for_data
from evaluators.training.recipe_file import recipe_text
from evaluators.training.state import TrainingState
from gpnas.errors import DataError, InputError
from gpnas.files import write_text
from gpnas.graph.graph import Graph
from gpnas.search.trial import Report


@dataclass(frozen=True)
class TrainedDetector:
    """The result of a full training.

    epochs: trained in all. best_epoch: the epoch with the best AP on val, counted from 1; its weights are in best.pt.
    seconds: wall clock of this call. split: on which the best weights were judged: test, or val where there is no test.
    records: of that split, without images that cannot be read. evaluation, detections: of the best weights on them.
    history: a row an epoch, as in results.csv. loaded: a line that says how many of its first weights came from another
    checkpoint, or "".
    """

    epochs: int
    best_epoch: int
    seconds: float
    split: str
    records: Sequence[Record]
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
    measure_batch: bool = False,
    tell: Callable[[Problem], None] = lambda problem: None,
) -> TrainedDetector | None:
    """Train the detector of `graph`, alone or in the group of processes that torchrun started.

    The images of all splits are decoded first, the test split's too, so that a damaged one is found before any training; `tell`
    gets what is wrong with them. After each epoch it writes the files in `out` and calls `report`. genotype: the text that
    rebuilds the graph, kept in the checkpoints. weights: a checkpoint, perhaps of another architecture, from which weights of
    the same name and shape are loaded first. measure_batch: the batch size is what the GPU's memory allows when the images have
    been loaded (`automatic_batch`), not the recipe's; a resumed training keeps its own. In a group, all processes but the first
    return None. Raises InputError when `out` holds another training, when there is nothing to resume, or when the network does
    not fit the data.
    """
    began = time.perf_counter()
    check_network(graph, len(data.names), recipe.imgsz)
    recipe = for_data(recipe, data)
    last, best = out / "last.pt", out / "best.pt"
    content_of_data = digest(data)
    resumed = None
    if resume:
        resumed = load_resumable(last, genotype, data.names, recipe, content_of_data, any_batch=measure_batch)
        recipe = replace(recipe, batch_size=resumed["recipe"]["batch_size"])
    if not resume and last.exists():
        raise InputError(f"{out} holds a training already; resume it, or name another folder with --out")
    about = {
        "genotype": genotype,
        "names": list(data.names),
        "recipe": asdict(recipe),
        "data_digest": content_of_data,
        "split": data.split,
        "val": data.val,
    }
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
        if group.is_leader and resumed is None:
            write_text(out / "splits.csv", splits_table(data))
            write_text(out / "recipe.yaml", recipe_text(recipe))
        elif group.is_leader:  # a kill after last.pt was written may have left results.csv an epoch behind
            write_history(out / "results.csv", history)
        train, val = _load_images(data, recipe.imgsz, device, group, tell)
        if measure_batch and resumed is None:
            images = automatic_batch(graph, len(data.names), recipe.imgsz, device, recipe.precision, group)
            recipe = replace(recipe, batch_size=images)
            about["recipe"] = asdict(recipe)
        result = fit(
            network,
            train,
            val,
            data.names,
            recipe,
            report=report,
            save=save,
            resume_from=resumed,
            group=group,
            fast_ap=True,  # the best weights are judged by pycocotools below
        )
        if not group.is_leader:
            return None
    load_weights(result.averaged, load_detector(best).weights, best)
    judged = val
    if "test" in data.splits:
        del train, val, judged  # their memory is free for the test split
        judged = load_split(data.splits["test"], recipe.imgsz, device)
    evaluation, detections = judge(result.averaged, judged, data.names, precision=recipe.precision)
    seconds = time.perf_counter() - began
    return TrainedDetector(
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        seconds=seconds,
        split="test" if "test" in data.splits else "val",
        records=judged.records,
        evaluation=evaluation,
        detections=detections,
        history=history,
        loaded=loaded,
    )


def _load_images(
    data: DetectionData, imgsz: int, device: torch.device, group: Group, tell: Callable[[Problem], None]
) -> tuple[Bank, Split]:
    """The train and the val split for `device`.

    The leader of a group loads first, so that the others find what it leaves in the cache. It also decodes the test split, and
    calls `tell`. Raises DataError for splits that cannot be used.
    """
    if not group.is_leader:
        group.broadcast(None)
    train = open_bank(data.splits["train"], imgsz, device, sharers=group.size)
    loaded = {"train": Split(train.records, train), "val": load_split(data.splits["val"], imgsz, device, sharers=group.size)}
    for name, split in loaded.items():
        _check_split(data, name, split, tell if group.is_leader else _tell_nobody)
    if group.is_leader:
        if "test" in data.splits:
            _check_split(data, "test", load_split(data.splits["test"], imgsz), tell)
        group.broadcast(None)
    return train, loaded["val"]


def _check_split(data: DetectionData, name: str, split: Split, tell: Callable[[Problem], None]) -> None:
    if all(record.crowd.all() for record in split.records):
        raise DataError(f"{data.source}: no image of the split '{name}' that can be read has a box; restore its images")
    for problem in split.bank.problems:
        tell(problem)


def _tell_nobody(problem: Problem) -> None:
    """The other processes of a group find the same problems as the leader."""
