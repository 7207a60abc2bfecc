"""Searches and trainings by the `gpnas` command, for benchmarks that ask what its users get. A killed benchmark goes on."""

import csv
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resumable import finished, held

from gpnas.files import append_line
from search_spaces.architecture import candidate, read_architecture

FRESH_SEED = 100
"""The first of the seeds that no search, no choice and no table of GP-Bench uses."""

DIVERGED = "gradient norm"
"""In the message about a training that diverged, and in no other."""


def gpnas(*arguments: object, threads: int | None = None) -> str:
    """The standard output of the command line, run in a process of its own."""
    command = [sys.executable, "-c", "from gpnas.cli.app import main; main()", *map(str, arguments)]
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise subprocess.SubprocessError(f"gpnas {' '.join(map(str, arguments))}\n{done.stderr}")
    return done.stdout


def searched(run: Path, *options: object, threads: int | None = None) -> str:
    """What a search into `run` prints. A search that was stopped goes on; one that is done prints nothing."""
    if not (run / "journal.sqlite").exists():
        return gpnas("search", *options, "--out", run, "--wandb", "off", threads=threads)
    if json.loads(gpnas("show", run, "--json"))["state"] != "done":
        return gpnas("resume", run, threads=threads)
    return ""


@dataclass(frozen=True)
class Recipe:
    """The options of `gpnas train` that all trainings of a comparison share. imgsz: pixels. The others are its defaults."""

    data: str
    imgsz: int
    epochs: int
    batch: int


def hash_of(file: Path) -> str:
    """The hash of the architecture in a YAML file."""
    return candidate(read_architecture(file.read_text(), str(file))).hash


def train_all(out: Path, tasks: Sequence[tuple[Path, int]], recipe: Recipe, jobs: int) -> list[dict[str, Any]]:
    """Train the architecture in each YAML file with each seed, `jobs` at the same time with a thread each.

    The rows, in the order of the tasks, have ap and ap50 on the test split of the weights that were best on val (to three
    decimals), val_ap of these weights, and seconds, the wall clock of the command. A training that diverged has NaN for all
    but seconds. They are kept in OUT/trainings.jsonl. A training that was killed starts anew.
    """
    path = out / "trainings.jsonl"
    hashes = {file: hash_of(file) for file, _ in tasks}
    done = _by_architecture(path, recipe)
    wanted = {(hashes[file], seed): file for file, seed in tasks}  # two files may hold one architecture
    left = [(file, *key, recipe, out) for key, file in wanted.items() if key not in done]
    with ThreadPoolExecutor(jobs) as pool:
        for progress, row in finished(pool, _train, left):
            append_line(path, row)
            reached = f"test AP {row['ap']:.3f}" if "ap" in row else row["cause"]
            print(f"{progress} {row['file']} seed {row['seed']}: {reached} in {row['seconds']:.0f} s", flush=True)
    done = _by_architecture(path, recipe)
    nothing = dict.fromkeys(("ap", "ap50", "val_ap"), math.nan)
    return [nothing | done[hashes[file], seed] for file, seed in tasks]


def _by_architecture(path: Path, recipe: Recipe) -> dict[tuple[str, int], dict[str, Any]]:
    """The rows of a file that were trained by `recipe`, by hash and seed."""
    keys = ("hash", "seed", "seconds", *asdict(recipe))
    return {(row["hash"], row["seed"]): row for row in held(path, keys) if asdict(recipe).items() <= row.items()}


def _train(file: Path, name: str, seed: int, recipe: Recipe, out: Path) -> dict[str, Any]:
    """One row of trainings.jsonl. name: the hash of the architecture in `file`."""
    options = [text for option, value in asdict(recipe).items() for text in (f"--{option}", value)]
    row: dict[str, Any] = {"file": os.path.relpath(file, out), "hash": name, "seed": seed, **asdict(recipe)}
    began = time.monotonic()
    # A folder of its own, because the process of a benchmark that was killed may still be writing.
    with tempfile.TemporaryDirectory(prefix="training-", dir=out) as folder:
        try:
            printed = gpnas("train", file, *options, "--seed", seed, "--out", folder, threads=1)
        except subprocess.SubprocessError as error:
            if DIVERGED not in str(error):
                raise
            return row | {"cause": "diverged", "seconds": round(time.monotonic() - began, 1)}
        with (Path(folder) / "results.csv").open() as lines:
            val_ap = max(float(line["ap"]) for line in csv.DictReader(lines) if line["ap"])
    metrics = dict(re.findall(r"(AP\d*) (\d\.\d+)", printed.split("test:")[1]))
    measured = {"ap": float(metrics["AP"]), "ap50": float(metrics["AP50"]), "val_ap": val_ap}
    return row | measured | {"seconds": round(time.monotonic() - began, 1)}
