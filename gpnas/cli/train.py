"""`gpnas train`, `val` and `predict`: train a detector in full, measure it, use it.

Imports of heavy libraries stand inside functions; app.py says why.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpnas.cli.loading import RANDOM, exported_detector, open_checkpoint, open_detector
from gpnas.cli.options import (
    Data,
    Device,
    ImageSize,
    Out,
    Shares,
    Strict,
    Trial,
    Val,
    absolute,
    check_imgsz,
    new_run_folder,
    prepare_file,
    prepare_folder,
    resolved_device,
    tell_problems,
)
from gpnas.cli.sources import for_classes, read_source, searched_imgsz, with_trial
from gpnas.errors import EXIT_FAILED, InputError
from gpnas.export.metadata import RUNNABLE

if TYPE_CHECKING:
    from evaluators.data.open import DataSource
    from evaluators.data.problems import Problem
    from evaluators.data.records import DetectionData, Record
    from evaluators.detector.ap import CocoEvaluation, Detections
    from evaluators.training.recipe import Recipe
    from evaluators.training.train_detector import TrainedDetector

BATCH = "16"
"""Images a step, where `--batch` does not say otherwise."""

RECIPE = "short"
"""The recipe, where `--recipe` does not say otherwise."""

SAMPLES = 12
"""Images that the report of a training shows."""

SAMPLE_SCORE = 0.25
"""Least score of a detection that is drawn on them."""


def train(
    source: Annotated[str, typer.Argument(help="a catalogue name, an architecture YAML, or a run (its best, or --trial)")],
    trial: Trial = None,
    data: Data = "digits",
    epochs: int = 300,
    imgsz: ImageSize = None,
    batch: Annotated[str, typer.Option(help="images a step over all processes, or auto: as the GPU's memory allows")] = BATCH,
    recipe: Annotated[str, typer.Option(help="short, full (YOLOv9's), or a YAML file with settings of the training")] = RECIPE,
    lr: Annotated[float | None, typer.Option(help="the highest learning rate (default: that of --recipe)")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw or sgd (default: that of --recipe)")] = None,
    out: Out = None,
    seed: int = 0,
    device: Device = "auto",
    patience: Annotated[int, typer.Option(help="stop after this many epochs without a better AP; 0: never")] = 0,
    weights: Annotated[Path | None, typer.Option(help="checkpoint to take weights from, where names and shapes match")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from OUT/last.pt")] = False,
    split: Shares = "",
    val: Val = "",
    strict: Strict = False,
) -> None:
    """Train an architecture in full, under torchrun on several devices."""
    from evaluators.data.open import DataSource

    if resume and out is None:
        raise InputError("--resume: name the folder of the training with --out")
    if out is None and "LOCAL_RANK" in os.environ:
        raise InputError("--out is needed under torchrun: all processes must write into one folder")
    if epochs < 1 or patience < 0:
        raise InputError(f"--epochs {epochs} --patience {patience}: must be at least 1 and 0")
    train_in_full(
        with_trial(source, trial),
        DataSource(data, split, absolute(val), strict),
        out or new_run_folder("train"),
        epochs=epochs,
        imgsz=imgsz,
        batch=batch,
        recipe=recipe,
        lr=lr,
        optimizer=optimizer,
        seed=seed,
        device=device,
        patience=patience,
        weights=weights,
        resume=resume,
    )


def train_in_full(
    source: str,
    data: DataSource,
    folder: Path,
    *,
    epochs: int,
    imgsz: int | None = None,
    batch: str = BATCH,
    recipe: str = RECIPE,
    lr: float | None = None,
    optimizer: str | None = None,
    seed: int = 0,
    device: str = "auto",
    patience: int = 0,
    weights: Path | None = None,
    resume: bool = False,
) -> None:
    """Train the architecture that `source` names into `folder`, and print how it goes; the arguments are options of `train`.

    result.json is written last: a folder that has it holds a complete training. Raises InputError.
    """
    from evaluators.data.memory import streaming_note
    from evaluators.data.open import open_data
    from evaluators.data.problems import check_problems
    from evaluators.training.train_detector import train_detector
    from gpnas.run.trained import TrainingResult, write_result
    from gpnas.units import clock
    from search_spaces.architecture import candidate

    architecture = read_source(source)
    images = open_data(data)
    size = searched_imgsz(architecture) if imgsz is None else imgsz
    network = candidate(for_classes(architecture, len(images.names)))
    check_imgsz(size)
    place = resolved_device(device)
    settings = _recipe(
        recipe,
        lr,
        optimizer,
        epochs=epochs,
        imgsz=size,
        batch_size=_batch_size(batch),
        eval_every=max(1, epochs // 40),
        patience=patience,
        seed=seed,
        device=place,
    )
    is_leader = os.environ.get("RANK", "0") == "0"
    if is_leader:
        typer.echo(f"training {source} on {data.path} for {epochs} epochs at {size} px into {folder}")
        tell_problems(images)
        if note := streaming_note(len(images.splits["train"]), size, place, int(os.environ.get("WORLD_SIZE", "1"))):
            typer.echo(f"data: {note}")

    def tell(problem: Problem) -> None:
        check_problems(data.path, [problem], data.strict)
        typer.echo(f"data: {problem}")

    done = train_detector(
        network.graph,
        network.genotype,
        images,
        settings,
        folder,
        resume=resume,
        report=_epoch_line(),
        weights=weights,
        measure_batch=batch == "auto",
        tell=tell,
    )
    if done is None:  # this is not the first process of its group
        return
    if done.loaded:
        typer.echo(done.loaded)
    _write_training_report(folder, source, images, done)
    result = TrainingResult(
        source=source,
        hash=network.hash,
        trial=(architecture.found or {}).get("trial"),
        data=absolute(data.path),
        epochs=done.epochs,
        best_epoch=done.best_epoch,
        imgsz=size,
        split=done.split,
        metrics=done.evaluation.metrics,
    )
    write_result(folder, result)
    typer.echo(f"best epoch {done.best_epoch} of {done.epochs}, after {clock(done.seconds)}")
    typer.echo(f"{done.split}: {metrics_text(done.evaluation.metrics)}")
    typer.echo(f"results: {folder}/best.pt, {folder}/results.csv, {folder}/report.html")


def _recipe(spec: str, lr: float | None, optimizer: str | None, **of_this_training: Any) -> Recipe:
    """The recipe that `--recipe`, `--lr` and `--optimizer` mean. Raises InputError."""
    from evaluators.training.recipe import Recipe
    from evaluators.training.recipe_file import read_recipe

    values = {**read_recipe(spec), **of_this_training}
    for option, value in (("lr", lr), ("optimizer", optimizer)):
        if value is not None:
            values[option] = value
            try:
                Recipe(**values)
            except ValueError as error:
                raise InputError(f"--{option} {value}: {error}") from None
    return Recipe(**values)


def _batch_size(batch: str) -> int:
    """The images a step that `--batch` means; those of a CPU for auto, which is measured later. Raises InputError."""
    from evaluators.training.batch_size import CPU_BATCH

    if batch == "auto":
        return CPU_BATCH
    if not batch.isdecimal() or int(batch) < 1:
        raise InputError(f"--batch {batch}: must be auto or a number of at least 1")
    return int(batch)


def _write_training_report(folder: Path, source: str, images: DetectionData, done: TrainedDetector) -> None:
    from evaluators.data.images import image_of
    from evaluators.predict import drawn, jpeg
    from gpnas.report.training_report import DetectorReport, write_training_report

    records, evaluation = done.records, done.evaluation
    step = max(1, len(records) // SAMPLES)
    pictures = []
    for record, boxes in list(zip(records, done.detections, strict=True))[::step][:SAMPLES]:
        picture = drawn(image_of(record), boxes[boxes[:, 4] >= SAMPLE_SCORE], images.names)
        pictures.append((record.path.name if record.path else str(record.image_id), jpeg(picture)))
    detector = DetectorReport(done.split, evaluation.metrics, evaluation.per_class, evaluation.precision_curves, pictures)
    write_training_report(folder, f"{source} on {Path(images.source).name}", done.history, detector)


def val(
    checkpoint: Annotated[Path, typer.Argument(help="best.pt or last.pt of gpnas train, or an exported .onnx or .xml file")],
    data: Data = "digits",
    split: Annotated[str, typer.Option(help="train, val, test, or all of them")] = "val",
    imgsz: ImageSize = None,
    device: Device = "auto",
    save: Annotated[Path | None, typer.Option(help="file for the detections, in COCO's results format")] = None,
) -> None:
    """Measure a trained detector, or an exported file through its runtime, with pycocotools: COCO metrics over all classes and
    for each."""
    from evaluators.detector.ap import coco_results
    from gpnas.files import write_text

    prepare_file(save, "--save")
    judge = _judge_exported if checkpoint.suffix.lower() in RUNNABLE else _judge_checkpoint
    evaluation, detections, records, images = judge(checkpoint, data, split, imgsz, device)
    for name, (ap, ap50) in evaluation.per_class.items():
        typer.echo(f"  {name:20} AP {ap:.3f}  AP50 {ap50:.3f}")
    typer.echo(f"{split}: {metrics_text(evaluation.metrics)}")
    if save is not None:
        write_text(save, json.dumps(coco_results(records, images.category_ids, detections)))
        typer.echo(f"detections: {save}")


Judged = tuple["CocoEvaluation", list["Detections"], "Sequence[Record]", "DetectionData"]
"""The metrics, the detections of each image, the records of the images, and the data."""


def _judge_checkpoint(checkpoint: Path, data: str, split: str, imgsz: int | None, device: str) -> Judged:
    from evaluators.judge import judge_split

    network, detector, _ = open_checkpoint(checkpoint)
    images = _as_in_training(data, detector.data_digest, detector.split, detector.val)
    images = _with_split(images, data, split, checkpoint, detector.names)
    size = detector.imgsz if imgsz is None else imgsz
    check_imgsz(size)
    tell_problems(images)
    evaluation, detections, judged = judge_split(network, images, split, size, device=resolved_device(device))
    for problem in judged.bank.problems:
        typer.echo(f"data: {problem}")
    return evaluation, detections, judged.records, images


def _judge_exported(file: Path, data: str, split: str, imgsz: int | None, device: str) -> Judged:
    from evaluators.predict import judge_records

    detector, facts = exported_detector(file, imgsz, device)
    images = _with_split(_as_in_training(data, facts.data_digest, facts.split), data, split, file, detector.names)
    tell_problems(images)
    evaluation, detections, records, broken = judge_records(detector, images.splits[split])
    for what in broken:
        typer.echo(f"data: {what}")
    return evaluation, detections, records, images


def _with_split(images: DetectionData, data: str, split: str, file: Path, names: Sequence[str]) -> DetectionData:
    """`images` with the split of that name, which may be "all". Raises InputError for a split that is not there, and for data
    with other classes than those that `file` detects."""
    if split == "all":
        images = replace(images, splits={"all": tuple(record for records in images.splits.values() for record in records)})
    if split not in images.splits:
        raise InputError(f"--split {split}: {data} has {', '.join(images.splits)}")
    if tuple(names) != tuple(images.names):
        raise InputError(f"{file} detects {', '.join(names)}; {data} has {', '.join(images.names)}")
    return images


def _as_in_training(data: str, trained_on: str, split: str, val: str = "") -> DetectionData:
    """The data, divided as for a training if the detector was trained on them, so that no image of its training is taken for
    validation. trained_on: the digest of its data. split, val: the options by which they were divided."""
    from evaluators.data.open import DataSource, open_data
    from evaluators.data.records import digest

    images = open_data(data)
    if not (split or val) or digest(images) == trained_on:
        return images
    try:
        divided = open_data(DataSource(data, split, val))
    except InputError:  # other data than those of the training, or the other data set of --val is gone
        return images
    return divided if digest(divided) == trained_on else images


def predict(
    detector: Annotated[str, typer.Argument(help="a checkpoint, a run, or an exported .onnx or .xml file")],
    source: Annotated[Path, typer.Argument(help="an image, or a folder of images")],
    out: Annotated[Path | None, typer.Option(help="folder for the drawn images and predictions.json")] = None,
    score: Annotated[float, typer.Option(help="least score of a detection")] = 0.25,
    max_detections: Annotated[int, typer.Option(help="the most detections in an image")] = 1000,
    imgsz: ImageSize = None,
    device: Device = "auto",
) -> None:
    """Detect objects in images; write the images with boxes drawn, and the boxes as JSON.

    Exit code 1 when an image cannot be read; the others are predicted."""
    from evaluators.data.images import image_of
    from evaluators.predict import PREDICTIONS, as_json, drawing_name, drawn, encoded, image_records
    from evaluators.predict import predict as run_predict
    from gpnas.files import replacing, write_text

    if not 0 <= score <= 1:
        raise InputError(f"--score {score}: must lie in [0, 1]")
    if max_detections < 1:
        raise InputError(f"--max-detections {max_detections}: must be at least 1")
    opened = open_detector(detector, imgsz, device)
    if opened.weights == RANDOM:
        raise InputError(f"{detector} has no weights, so it finds nothing; give a checkpoint of `gpnas train`")
    records, broken = image_records(source)
    folder = out or new_run_folder("predict")
    top = source if source.is_dir() else source.parent
    drawings = {record.image_id: folder / drawing_name((record.path or source).relative_to(top)) for record in records}
    _check_drawings(folder, drawings.values())
    prepare_folder(folder, f"--out {folder}")
    write_text(folder / PREDICTIONS, "[]")  # marks the folder, so that even after a kill no later call predicts on its drawings
    rows = []
    for record, boxes in run_predict(opened, records, least_score=score, most=max_detections, tell=broken.append):
        picture = drawings[record.image_id]
        picture.parent.mkdir(parents=True, exist_ok=True)
        with replacing(picture) as temporary:
            temporary.write_bytes(encoded(drawn(image_of(record), boxes, opened.names), picture.suffix))
        rows.append(as_json(record, boxes, opened.names))
        more = " (the most that --max-detections allows)" if len(boxes) == max_detections else ""
        typer.echo(f"{(record.path or source).relative_to(top)}: {len(boxes)} objects{more}")
    write_text(folder / PREDICTIONS, json.dumps(rows, indent=1))
    typer.echo(f"{len(rows)} images, {sum(len(row['boxes']) for row in rows)} objects: {folder}, {folder}/{PREDICTIONS}")
    for what in broken:
        typer.echo(f"gpnas: {what}", err=True)
    if broken:
        raise typer.Exit(EXIT_FAILED)


def _check_drawings(folder: Path, drawings: Iterable[Path]) -> None:
    """Raises InputError when a drawing would replace a file that `gpnas predict` did not write."""
    from evaluators.predict import PREDICTIONS, is_predictions

    if is_predictions(folder / PREDICTIONS):
        return
    taken = next((path for path in (*drawings, folder / PREDICTIONS) if path.exists()), None)
    if taken is not None:
        raise InputError(f"--out {folder}: {taken} is there already and would be replaced; give another folder")


def _epoch_line() -> Callable[[dict[str, Any]], None]:
    """A report function for a training, which prints a line for each epoch."""
    began = time.monotonic()

    def line(data: dict[str, Any]) -> None:
        from gpnas.units import clock

        parts = [f"[{clock(time.monotonic() - began)}] epoch {data['epoch']}/{data['epochs']}"]
        if "loss" in data:
            parts.append(f"loss {data['loss']:.3f}")
        parts += [f"{name.upper()} {data[name]:.3f}" for name in ("ap", "ap50") if name in data]
        typer.echo("  ".join(parts))

    return line


def metrics_text(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name.replace('_', ' ').replace('ap', 'AP')} {value:.3f}" for name, value in metrics.items())
