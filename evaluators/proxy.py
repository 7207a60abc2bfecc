"""The evaluator of a search: a short training of the candidate, on a share of the data and at a fidelity's image size.

A higher fidelity goes on from the weights that a lower one left in the trial's folder, on a learning rate schedule of its own,
so that a promotion costs only the epochs that are new.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch

from evaluators.data.augment import Augmentation
from evaluators.data.bank import ImageBank, load_bank
from evaluators.data.open import open_data
from evaluators.data.records import DetectionData, subset
from evaluators.detector.head import check_head
from evaluators.device import pick_device
from evaluators.judge import Split, load_split
from evaluators.training.checkpoint import FORMAT, read_checkpoint, save_checkpoint, take_over
from evaluators.training.loop import FitResult, TrainingDiverged, fit, new_network
from evaluators.training.recipe import Recipe, for_data
from evaluators.training.step import OutOfMemory, is_out_of_memory
from evaluators.training.train_detector import write_table
from gpnas.errors import InputError
from gpnas.graph.network import Network
from gpnas.search.trial import LENDER, MEMORY_BYTES, Candidate, Cause, Evaluation, Fidelity, Report, TrialState, failure

PROXY_AUGMENTATION = Augmentation(mosaic=0.5)
"""In few epochs half of the images are better seen as they are."""


@dataclass(frozen=True)
class ProxyEvaluator:
    """Trains candidates on `data`, a spec of `open_data`. threads: of torch and of OpenCV, in the process that
    evaluates.

    A few epochs of a few hundred images are few steps: batches of 8 reach a higher AP in them than batches of 16.
    """

    data: str
    device: str = "auto"
    threads: int = 1
    seed: int = 0
    batch_size: int = 8
    precision: str = "auto"

    def evaluate(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation:
        """Train `candidate` up to `fidelity`; AP is that of the averaged weights on the val split.

        Leaves checkpoint-EPOCHS.pt and log.csv in `trial_dir`. Raises ValueError when the network's head does not fit the data.
        """
        began = time.perf_counter()
        torch.set_num_threads(self.threads)
        cv2.setNumThreads(self.threads)
        epochs = 0

        def count(row: dict[str, Any]) -> None:
            nonlocal epochs
            epochs += 1
            report(row)

        try:
            metrics, message = self._trained(candidate, fidelity, trial_dir, count)
        except TrainingDiverged as error:
            return failure(Cause.NAN, str(error), time.perf_counter() - began, epochs)
        except (OutOfMemory, RuntimeError, MemoryError) as error:
            if not isinstance(error, OutOfMemory) and not is_out_of_memory(error):
                raise
            return failure(Cause.OOM, _first_line(error), time.perf_counter() - began, epochs)
        seconds = time.perf_counter() - began
        return Evaluation(TrialState.COMPLETE, metrics, seconds, epochs, message=message)

    def _trained(
        self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report
    ) -> tuple[dict[str, float], str]:
        data = _data(self.data)
        check_head(candidate.graph, len(data.names), fidelity.imgsz)
        left, message = _left_by_lower_fidelity(trial_dir, candidate, fidelity)
        done = left["epochs"] if left else 0
        recipe = Recipe(
            epochs=fidelity.epochs - done,
            imgsz=fidelity.imgsz,
            batch_size=self.batch_size,
            augmentation=PROXY_AUGMENTATION,
            eval_every=0,
            seed=_seed(self.seed, candidate.hash, fidelity),
            device=self.device,
            precision=self.precision,
        )
        recipe = for_data(recipe, data)
        network = new_network(candidate.graph, len(data.names), fidelity.imgsz, recipe.seed)
        history: list[dict[str, Any]] = []
        if left:
            network.load_state_dict(left["model"])
            history = list(left["history"])
        elif (trial_dir / LENDER).is_symlink():
            message = _taken_from_lender(network, _checkpoint_path(trial_dir / LENDER, fidelity.epochs))

        def shown(row: dict[str, Any]) -> None:
            row = {**row, "epoch": done + row["epoch"], "epochs": fidelity.epochs}
            history.append({key: value for key, value in row.items() if key != "epochs"} | {"imgsz": fidelity.imgsz})
            write_table(trial_dir / "log.csv", history)
            report(row)

        device = str(pick_device(self.device))
        train = _train_bank(self.data, fidelity.imgsz, fidelity.data_share, self.seed, device)
        val = _val_split(self.data, fidelity.imgsz, device)
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        result = fit(network, train, val, data.names, recipe, report=shown)
        if device != "cpu":
            result.metrics[MEMORY_BYTES] = float(torch.cuda.max_memory_allocated())
        path = _checkpoint_path(trial_dir, fidelity.epochs)
        save_checkpoint(path, _checkpoint(candidate, fidelity, network.state_dict(), result, history))
        return result.metrics, message


def _checkpoint(
    candidate: Candidate, fidelity: Fidelity, model: dict[str, Any], result: FitResult, history: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "hash": candidate.hash,
        "genotype": candidate.genotype,
        "epochs": fidelity.epochs,
        "imgsz": fidelity.imgsz,
        "model": model,
        "ema": result.averaged.state_dict(),
        "metrics": result.metrics,
        "history": history,
    }


def _checkpoint_path(trial_dir: Path, epochs: int) -> Path:
    """Every fidelity keeps its own file: an evaluation that was killed before the journal knew of it starts again from the
    same weights as before."""
    return trial_dir / f"checkpoint-{epochs}.pt"


def _left_by_lower_fidelity(trial_dir: Path, candidate: Candidate, fidelity: Fidelity) -> tuple[dict[str, Any] | None, str]:
    """The checkpoint of the highest lower fidelity, or None, and what a person should know about it."""
    trained = [int(path.stem.rpartition("-")[2]) for path in trial_dir.glob("checkpoint-*.pt")]
    below = max((epochs for epochs in trained if epochs < fidelity.epochs), default=None)
    if below is None:
        before = (trial_dir / "log.csv").exists()
        return None, "trained from scratch: what was trained before left no weights" if before else ""
    path = _checkpoint_path(trial_dir, below)
    try:
        left = read_checkpoint(path)
    except InputError as error:
        return None, f"trained from scratch: {error}"
    if left.get("hash") != candidate.hash:
        return None, f"trained from scratch: {path} is of candidate {left.get('hash')}, not {candidate.hash}"
    return left, ""


def _taken_from_lender(network: Network, checkpoint: Path) -> str:
    """Start from another trial's weights (not their average, as a higher rung goes on from a lower one), where names and shapes
    match; says how many match."""
    taken, whole = take_over(network, read_checkpoint(checkpoint)["model"])
    return f"started with {taken / whole:.0%} of its weights from another trial"


def _seed(seed: int, name: str, fidelity: Fidelity) -> int:
    """A seed of its own for each candidate and fidelity, the same in every process."""
    text = json.dumps([seed, name, fidelity.epochs, fidelity.imgsz, fidelity.data_share])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


# A worker evaluates many candidates on the same images: what follows is read once in each process and shared, never changed.


@functools.lru_cache(maxsize=2)
def _data(spec: str) -> DetectionData:
    return open_data(spec)


@functools.lru_cache(maxsize=3)
def _train_bank(spec: str, imgsz: int, share: float, seed: int, device: str) -> ImageBank:
    return load_bank(subset(_data(spec).splits["train"], share, seed), imgsz, device)


@functools.lru_cache(maxsize=3)
def _val_split(spec: str, imgsz: int, device: str) -> Split:
    return load_split(_data(spec).splits["val"], imgsz, device)
