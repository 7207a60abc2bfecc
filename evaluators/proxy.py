"""The evaluator of a search: trains the candidate for a few epochs, on a share of the data and on small images.

A higher fidelity continues from the weights that a lower one left in the trial's folder, with a learning rate schedule of its
own. So a promotion costs only the additional epochs.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch

from evaluators.data.augment import Augmentation
from evaluators.data.bank import Bank
from evaluators.data.open import DataSource, open_data
from evaluators.data.problems import Problem
from evaluators.data.records import DetectionData, Record, at_most, subset
from evaluators.data.streamed import open_bank
from evaluators.device import forget_peak, free_cache, peak_bytes, pick_device
from evaluators.judge import Split, load_split
from evaluators.training.checkpoint import load_matching, read_checkpoint, save_checkpoint
from evaluators.training.history import write_history
from evaluators.training.loop import FitResult, fit, new_network
from evaluators.training.recipe import Recipe, for_data
from gpnas.errors import InputError, TrainingDiverged, first_line, is_out_of_memory
from gpnas.graph.network import Network
from gpnas.search.trial import (
    CHECKPOINTS,
    LENDER,
    MEMORY_BYTES,
    Candidate,
    Cause,
    Evaluation,
    Fidelity,
    Report,
    TrialState,
    checkpoint_epochs,
    checkpoint_name,
    failure,
)

PROXY_AUGMENTATION = Augmentation(mosaic=0.5)
"""Half of the images without mosaic: in few epochs networks learn faster from objects that are whole."""

MOST_VAL_IMAGES = 1000
"""Images of the val split on which a proxy is evaluated, once, after its training: the same ones for all."""

_LOG = "log.csv"


@dataclass(frozen=True)
class ProxyEvaluator:
    """Trains candidates on `data`.

    threads: of torch and of OpenCV, in the process that evaluates. batch_size: small, because a few epochs of a few hundred
    images are few steps. precision: see `evaluators.device.pick_dtype`. sharers: processes that evaluate at the same time on
    this machine, which share its memory.
    """

    data: DataSource
    device: str = "auto"
    threads: int = 1
    seed: int = 0
    batch_size: int = 8
    precision: str = "auto"
    sharers: int = 1

    def evaluate(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> Evaluation:
        """Train `candidate` up to `fidelity`; its AP is that of the averaged weights on MOST_VAL_IMAGES of the val split.

        Leaves a checkpoint and log.csv in `trial_dir`. Raises ValueError when the network's head does not fit the data.
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
            metrics, message = self._train(candidate, fidelity, trial_dir, count)
        except TrainingDiverged as error:
            return failure(Cause.NAN, str(error), time.perf_counter() - began, epochs)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return failure(Cause.OOM, first_line(error), time.perf_counter() - began, epochs)
        finally:
            free_cache(pick_device(self.device))  # for the other processes on that GPU
        return Evaluation(TrialState.COMPLETE, metrics, time.perf_counter() - began, epochs, message=message)

    def _train(self, candidate: Candidate, fidelity: Fidelity, trial_dir: Path, report: Report) -> tuple[dict[str, float], str]:
        """The metrics, and a message for the user."""
        data, device = _data(self.data), pick_device(self.device)
        seed = _seed(self.seed, candidate.hash, fidelity)
        network = new_network(candidate.graph, len(data.names), fidelity.imgsz, seed)
        start = _load_start(network, trial_dir, candidate, fidelity)
        recipe = Recipe(
            epochs=fidelity.epochs - start.epochs,
            imgsz=fidelity.imgsz,
            batch_size=self.batch_size,
            augmentation=PROXY_AUGMENTATION,
            eval_every=0,
            seed=seed,
            device=self.device,
            precision=self.precision,
        )
        train = _train_bank(self.data, fidelity.imgsz, fidelity.data_share, self.seed, str(device), self.sharers)
        val = _val_split(self.data, fidelity.imgsz, str(device), self.sharers)
        log = _logger(trial_dir / _LOG, start, fidelity, report)
        forget_peak(device)
        result = fit(network, train, val, data.names, for_data(recipe, data), report=log)
        metrics = dict(result.metrics)
        if (peak := peak_bytes(device)) is not None:
            metrics[MEMORY_BYTES] = float(peak)
        content = _checkpoint(candidate, fidelity, network, result, metrics, start.history)
        save_checkpoint(trial_dir / checkpoint_name(fidelity.epochs), content)
        return metrics, start.message


def _checkpoint(
    candidate: Candidate,
    fidelity: Fidelity,
    network: Network,
    result: FitResult,
    metrics: dict[str, float],
    history: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "hash": candidate.hash,
        "genotype": candidate.genotype,
        "epochs": fidelity.epochs,
        "imgsz": fidelity.imgsz,
        "model": network.state_dict(),
        "ema": result.averaged.state_dict(),
        "metrics": metrics,
        "history": history,
    }


def _logger(path: Path, start: _Start, fidelity: Fidelity, report: Report) -> Report:
    """Adds each epoch to the history, writes the log, and reports. Epochs are counted over all fidelities of the candidate."""

    def log(row: dict[str, Any]) -> None:
        row = {**row, "epoch": start.epochs + row["epoch"], "epochs": fidelity.epochs}
        start.history.append({key: value for key, value in row.items() if key != "epochs"} | {"imgsz": fidelity.imgsz})
        write_history(path, start.history)
        report(row)

    return log


class _Start(NamedTuple):
    """How a training starts. epochs, history: of the lower fidelities that it continues. message: for the user, or ""."""

    epochs: int
    history: list[dict[str, Any]]
    message: str


def _load_start(network: Network, trial_dir: Path, candidate: Candidate, fidelity: Fidelity) -> _Start:
    """Load the weights of the next lower fidelity; else those of the lender, another trial; else keep the new ones."""
    lower, message = _lower_checkpoint(trial_dir, candidate, fidelity)
    if lower is not None:
        network.load_state_dict(lower["model"])
        return _Start(lower["epochs"], list(lower["history"]), "")
    if (trial_dir / LENDER).is_symlink():
        # Not the averaged weights: a higher fidelity continues from the raw ones too.
        weights = read_checkpoint(trial_dir / LENDER / checkpoint_name(fidelity.epochs))["model"]
        count, total = load_matching(network, weights)
        message = f"started with {count / total:.0%} of its weights from another trial"
    return _Start(0, [], message)


def _lower_checkpoint(trial_dir: Path, candidate: Candidate, fidelity: Fidelity) -> tuple[dict[str, Any] | None, str]:
    """The checkpoint of the next lower fidelity; or None, and why there is none although something was trained before.

    Every fidelity has a checkpoint of its own. So an evaluation that is killed before the journal holds its result starts
    again from the same weights.
    """
    checkpoints = [checkpoint_epochs(path.name) for path in trial_dir.glob(CHECKPOINTS)]
    lower = max((epochs for epochs in checkpoints if epochs is not None and epochs < fidelity.epochs), default=None)
    if lower is None:
        before = (trial_dir / _LOG).exists()
        return None, "trained from scratch: an earlier training left no weights" if before else ""
    path = trial_dir / checkpoint_name(lower)
    try:
        content = read_checkpoint(path)
    except InputError as error:
        return None, f"trained from scratch: {error}"
    if content.get("hash") != candidate.hash:
        return None, f"trained from scratch: {path} is of candidate {content.get('hash')}, not {candidate.hash}"
    return content, ""


def _seed(seed: int, candidate_hash: str, fidelity: Fidelity) -> int:
    """A seed of its own for each candidate and fidelity, the same in every process."""
    text = json.dumps([seed, candidate_hash, fidelity.epochs, fidelity.imgsz, fidelity.data_share, fidelity.seed])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])


def load_images(data: DetectionData, fidelity: Fidelity, seed: int) -> tuple[Problem, ...]:
    """Decode the images of a fidelity into the cache (cache.py), so that workers with the same seed need not; what is wrong
    with them. Raises DataError when too many are damaged."""
    splits = subset(data.splits["train"], fidelity.data_share, seed), judged_images(data)
    return tuple(problem for records in splits for problem in open_bank(records, fidelity.imgsz).problems)


def judged_images(data: DetectionData) -> tuple[Record, ...]:
    """The images of the val split on which proxies are evaluated."""
    return at_most(data.splits["val"], MOST_VAL_IMAGES)


# A worker evaluates many candidates on the same images. Each process reads them once; nothing changes them.


@functools.lru_cache(maxsize=2)
def _data(source: DataSource) -> DetectionData:
    return open_data(source)


@functools.lru_cache(maxsize=3)
def _train_bank(source: DataSource, imgsz: int, share: float, seed: int, device: str, sharers: int) -> Bank:
    return open_bank(subset(_data(source).splits["train"], share, seed), imgsz, device, sharers=sharers)


@functools.lru_cache(maxsize=3)
def _val_split(source: DataSource, imgsz: int, device: str, sharers: int) -> Split:
    return load_split(judged_images(_data(source)), imgsz, device, sharers=sharers)
