"""The trainings and zero-cost scores of GP-Bench: one row of a JSON-lines file for each, made in worker processes."""

import functools
import itertools
import json
import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gp_bench_detectors import IMGSZ
from resumable import finished, held

from evaluators.data.bank import load_bank
from evaluators.data.batches import train_batches
from evaluators.data.open import open_data
from evaluators.device import pick_device
from evaluators.judge import load_split
from evaluators.proxy import PROXY_AUGMENTATION
from evaluators.training.loop import fit, new_network
from evaluators.training.recipe import Recipe, for_data
from evaluators.zero_cost import comparators
from gpnas.errors import TrainingDiverged
from gpnas.files import append_line
from search_spaces.architecture import candidate, read_architecture, with_classes

BATCH = 8

SCORED_BATCH, SCORED_BATCHES = 16, 2
"""Images in a batch, and batches, that the zero-cost scores read: about as many as their authors use."""


class Training(NamedTuple):
    """hash, genotype: of the detector. data: digits or bccd."""

    hash: str
    genotype: str
    data: str
    seed: int
    epochs: int


def training(detector: dict[str, Any], data: str, seed: int, epochs: int) -> Training:
    """detector: a row of detectors.jsonl."""
    return Training(detector["hash"], json.dumps(detector["genotype"]), data, seed, epochs)


@functools.cache
def loaded(spec: str, device: torch.device, split: str, imgsz: int = IMGSZ) -> tuple[Any, Any, Any]:
    """The data, the bank of train images and the split to validate on; loaded once in each process."""
    data = open_data(spec)
    return data, load_bank(data.splits["train"], imgsz, device), load_split(data.splits[split], imgsz, device)


def train_for_test(task: Training, spec: str, device: str) -> dict[str, Any]:
    """As `train`, with AP on the test split."""
    return train(task, spec, device, "test")


def train(task: Training, spec: str, device: str, split: str = "val") -> dict[str, Any]:
    """One row of trainings.jsonl."""
    torch.set_num_threads(1)
    place = pick_device(device)
    data, bank, judged = loaded(spec, place, split)
    graph = candidate(with_classes(read_architecture(task.genotype), len(data.names))).graph
    recipe = Recipe(task.epochs, IMGSZ, BATCH, augmentation=PROXY_AUGMENTATION, seed=task.seed, device=str(place), eval_every=1)
    network = new_network(graph, len(data.names), IMGSZ, task.seed)
    epochs: list[dict[str, Any]] = []
    began, worked = time.perf_counter(), time.process_time()
    row: dict[str, Any] = {"hash": task.hash, "data": task.data, "seed": task.seed}
    try:
        fit(network, bank, judged, data.names, for_data(recipe, data), report=epochs.append)
    except TrainingDiverged as error:
        row["cause"] = str(error)
    row["ap"] = [round(epoch["ap"], 5) for epoch in epochs]
    row["ap50"] = [round(epoch["ap50"], 5) for epoch in epochs]
    row["seconds"] = round(time.perf_counter() - began, 2)
    row["cpu_seconds"] = round(time.process_time() - worked, 2)
    return row


def score(task: Training, spec: str, device: str) -> dict[str, Any]:
    """One row of zero_cost.jsonl."""
    torch.set_num_threads(1)
    place = pick_device(device)
    data, bank, _ = loaded(spec, place, "val")
    network = new_network(candidate(read_architecture(task.genotype)).graph, len(data.names), IMGSZ, task.seed).to(place)
    generator = torch.Generator().manual_seed(task.seed)
    batches = train_batches(bank, SCORED_BATCH, PROXY_AUGMENTATION, generator)
    began = time.process_time()
    scores = comparators(network, list(itertools.islice(batches, SCORED_BATCHES)), len(data.names))
    rounded = {name: float(f"{value:.7g}") for name, value in scores.items()}
    return {"hash": task.hash, **rounded, "cpu_seconds": round(time.process_time() - began, 2)}


def final_ap(row: dict[str, Any]) -> float:
    """AP after the last epoch; NaN for a training that diverged."""
    return math.nan if "cause" in row else float(row["ap"][-1])


def train_on_digits(
    path: Path, work: Callable[..., Any], tasks: Sequence[Training], workers: int, device: str, measured: str = "ap"
) -> None:
    """Append to `path` the rows of those tasks that it does not hold yet. measured: a key that all its rows have."""
    done = {(row["hash"], row["seed"]) for row in held(path, ("hash", "seed", measured))}
    left = [(task, "digits", device) for task in tasks if (task.hash, task.seed) not in done]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for progress, row in finished(pool, work, left):
            append_line(path, row)
            reached = f": AP {final_ap(row):.3f} in {row['seconds']:.0f} s" if "ap" in row else ""
            print(f"{progress} {row['hash']} seed {row['seed']}{reached}", flush=True)
