"""The one training loop, for proxies of a few epochs and for full training, and what surrounds it.

    train, val = load_bank(records, 320, device), load_split(val_records, 320, device)
    result = fit(network, train, val, names, Recipe(epochs=8, imgsz=320), report=print)
    result.metrics["ap"]                                     # of the averaged weights, in the fused form
    train_detector(graph, genotype, data, Recipe(300, 640), Path("runs/full"), resume=False, report=print)

Everything random comes from `Recipe.seed`: on the CPU the same recipe gives the same weights, and a training that was stopped
after an epoch and resumed gives those of one that was not.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.data.bank import load_bank
from evaluators.data.records import DetectionData
from evaluators.detector.ap import CocoEvaluation
from evaluators.device import pick_device
from evaluators.judge import _check_input, judge, load_split
from evaluators.training.checkpoint import FORMAT, _start, _taken_from, load_detector, load_weights, save_checkpoint
from evaluators.training.distributed import joined
from evaluators.training.loop import FitResult, Report, fit, new_network
from evaluators.training.recipe import Recipe, for_data
from gpnas.errors import InputError
from gpnas.files import write_text
from gpnas.graph.graph import Graph


@dataclass(frozen=True)
class Trained:
    """A full training's end. result: its metrics are those of the best epoch's weights on `split`, which is test, or val where
    there is no test. judgement, found: of these weights there. loaded: how much of other weights it started from, or ""."""

    result: FitResult
    split: str
    judgement: CocoEvaluation
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


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as CSV, with a column for every key; replaced whole, so that a resumed training repeats no row."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    write_text(path, text.getvalue())
