"""`--then-train` of `gpnas search`: when the search is done, its best architecture is trained in full into RUN/train.

The settings of the run keep the number of epochs, so `gpnas resume` does what is left: of the search, then of the training.

Imports of heavy libraries stand inside functions; app.py says why.
"""

from __future__ import annotations

import csv
import itertools
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpnas.cli.sources import candidate_of, render_yaml
from gpnas.cli.train import metrics_text, train_in_full
from gpnas.errors import InputError

if TYPE_CHECKING:
    from evaluators.data.open import DataSource
    from gpnas.run.journal import Journal
    from gpnas.run.settings import RunSettings
    from gpnas.run.trained import TrainingResult

TRAIN = "train"
"""The folder of the training, in the folder of the run."""


def parse_then_train(text: str | int) -> int:
    """The parser of `--then-train`. Raises InputError."""
    if not str(text).isdecimal() or int(text) < 1:
        raise InputError(f"--then-train {text}: must be a number of epochs, at least 1; leave it out to train nothing")
    return int(text)


ThenTrain = Annotated[
    int | None,
    typer.Option(
        help="then train the best in full for this many epochs, into RUN/train; the time for it is not part of --budget",
        parser=parse_then_train,
        metavar="EPOCHS",
    ),
]


def only_training_is_left(journal: Journal, settings: RunSettings) -> bool:
    """Whether a run was asked for a full training, and its search is done and found a best architecture.

    Such a search does not go on, though its budget may have seconds left: they could lead to another best architecture.
    """
    return settings.then_train is not None and journal.state == "done" and (journal.run / "best.yaml").exists()


def train_best(run: Path, journal: Journal, settings: RunSettings, data: DataSource) -> None:
    """Train the best architecture of a search that is done, as far as earlier sessions did not. `journal` is open for writing,
    which keeps other processes from the training too."""
    from gpnas.run.results import write_results

    if settings.then_train is None:
        return
    write_results(run, journal, render_yaml)  # a kill after the last evaluation may have left an older best.yaml
    source, folder = run / "best.yaml", run / TRAIN
    best = candidate_of(str(source))
    result = _result(folder)
    if result is not None and (result.hash, result.epochs) == (best.hash, settings.then_train):
        typer.echo(f"{_result_text(result, folder)}; nothing is left to do")
        return
    _put_aside_another(folder, best.genotype)
    again = (folder / "last.pt").exists()
    typer.echo(f"--then-train {settings.then_train}: {'going on with' if again else 'beginning'} the training of the best")
    try:
        train_in_full(
            str(source),
            data,
            folder,
            epochs=settings.then_train,
            imgsz=settings.imgsz,
            seed=settings.seed,
            device=settings.device,
            resume=again,
        )
    except KeyboardInterrupt:
        typer.echo(f"interrupted; go on with: gpnas resume {shlex.quote(str(run))}", err=True)
        raise


def _put_aside_another(folder: Path, genotype: str) -> None:
    """Rename the training of another architecture, which was the best before the search got a larger budget."""
    from evaluators.training.checkpoint import load_detector

    last = folder / "last.pt"
    if not last.exists() or load_detector(last).genotype == genotype:
        return
    names = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(1))
    other = next(name for name in names if not name.exists())
    folder.rename(other)
    typer.echo(f"{folder} was the training of an architecture that is the best no longer; it is now {other}")


def trained_lines(run: Path, journal: Journal, settings: RunSettings) -> list[str]:
    """What `gpnas show` says of the full training: its result, how far it is, or nothing."""
    folder = run / TRAIN
    result = _result(folder)
    if result is not None:
        return [_result_text(result, folder)]
    if settings.then_train is None or journal.state != "done":
        return []
    return [f"trained in full: {_epochs_so_far(folder)} of {settings.then_train} epochs so far, in {folder}"]


def trained_summary(run: Path) -> dict[str, Any] | None:
    """The result of the full training as `gpnas show --json` has it; None before it is complete."""
    result = _result(run / TRAIN)
    return None if result is None else {"folder": str(run / TRAIN), **asdict(result)}


def _result(folder: Path) -> TrainingResult | None:
    from gpnas.run.trained import read_result

    return read_result(folder)


def _result_text(result: TrainingResult, folder: Path) -> str:
    what = "" if result.trial is None else f"trial {result.trial}, "
    return (
        f"trained in full: {what}{result.epochs} epochs at {result.imgsz} px, {result.split}: "
        f"{metrics_text(result.metrics)} (epoch {result.best_epoch}), in {folder}"
    )


def _epochs_so_far(folder: Path) -> int:
    try:
        with (folder / "results.csv").open(newline="") as file:
            return sum(1 for _ in csv.DictReader(file))
    except FileNotFoundError:
        return 0
