"""`gpnas train`, `val` and `predict`: a detector in full."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpnas.cli.options import Data, Device, Out, check_imgsz, new_run_folder, resolved_device
from gpnas.cli.sources import for_classes, read_source, searched_imgsz
from gpnas.errors import InputError

if TYPE_CHECKING:
    from evaluators.data.records import DetectionData
    from evaluators.training.train_detector import Trained
    from gpnas.graph.network import Network

SAMPLES, SURE = 12, 0.25
"""Images that a training's report shows, and the least score of a detection on them."""


def train(
    source: Annotated[str, typer.Argument(help="a catalogue name, an architecture YAML, or a run (its best)")],
    data: Data = "digits",
    epochs: int = 300,
    imgsz: Annotated[int | None, typer.Option(help="pixels (default: the size that the search was for)")] = None,
    batch: Annotated[str, typer.Option(help="images a step, over all processes, or auto: by the GPU's memory")] = "16",
    out: Out = None,
    seed: int = 0,
    device: Device = "auto",
    patience: Annotated[int, typer.Option(help="stop after so many epochs without a better AP; 0 never does")] = 0,
    weights: Annotated[Path | None, typer.Option(help="checkpoint to start from, where names and shapes match")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from OUT/last.pt")] = False,
) -> None:
    """Train an architecture in full; under torchrun on several devices."""
    from evaluators.data.open import open_data
    from evaluators.device import pick_device
    from evaluators.training.batch_size import automatic_batch
    from evaluators.training.recipe import Recipe
    from evaluators.training.train_detector import train_detector
    from gpnas.units import clock
    from search_spaces.architecture import candidate

    architecture = read_source(source)
    images = open_data(data)
    size = imgsz or searched_imgsz(architecture)
    trained = candidate(for_classes(architecture, len(images.names)))
    check_imgsz(size)
    if epochs < 1 or patience < 0:
        raise InputError(f"--epochs {epochs} --patience {patience}: must be at least 1 and 0")
    if batch != "auto" and (not batch.isdecimal() or int(batch) < 1):
        raise InputError(f"--batch {batch}: must be auto or a number of at least 1")
    place = resolved_device(device)
    images_a_step = (
        int(batch) if batch != "auto" else automatic_batch(trained.graph, len(images.names), size, pick_device(place))
    )
    if resume and out is None:
        raise InputError("--resume: name the folder to go on in with --out")
    if out is None and "LOCAL_RANK" in os.environ:
        raise InputError("--out is needed under torchrun: all processes must write into one folder")
    folder = out or new_run_folder("train")
    recipe = Recipe(
        epochs=epochs,
        imgsz=size,
        batch_size=images_a_step,
        eval_every=max(1, epochs // 40),
        patience=patience,
        seed=seed,
        device=place,
    )
    typer.echo(f"training {source} on {data} for {epochs} epochs at {size} px into {folder}")
    done = train_detector(
        trained.graph, trained.genotype, images, recipe, folder, resume=resume, report=_epoch_line(), weights=weights
    )
    if done is None:  # a process of a group that is not its first
        return
    if done.loaded:
        typer.echo(done.loaded)
    _write_training_report(folder, source, images, done)
    typer.echo(f"best epoch {done.result.best_epoch} of {done.result.epochs}, after {clock(done.result.seconds)}")
    typer.echo(f"{done.split}: {_metrics_text(done.result.metrics)}")
    typer.echo(f"results: {folder}/best.pt, {folder}/results.csv, {folder}/report.html")


def _write_training_report(folder: Path, source: str, images: DetectionData, done: Trained) -> None:
    from evaluators.data.images import image_of
    from evaluators.predict import drawn, jpeg
    from gpnas.report.training_report import Judged, write_training_report

    records, found = images.splits[done.split], done.found
    step = max(1, len(records) // SAMPLES)
    pictures = [
        (record.path.name if record.path else str(record.image_id), jpeg(drawn(image_of(record), sure, images.names)))
        for record, rows in list(zip(records, found, strict=True))[::step][:SAMPLES]
        for sure in [rows[rows[:, 4] >= SURE]]
    ]
    judged = Judged(done.split, done.judgement.metrics, done.judgement.per_class, done.judgement.precision_curves, pictures)
    write_training_report(folder, f"{source} on {Path(images.source).name}", done.history, judged)


def val(
    checkpoint: Annotated[Path, typer.Argument(help="best.pt or last.pt of gpnas train")],
    data: Data = "digits",
    split: str = "val",
    imgsz: Annotated[int | None, typer.Option(help="pixels (default: the size that it was trained at)")] = None,
    device: Device = "auto",
    save: Annotated[Path | None, typer.Option(help="file for the detections, in COCO's results format")] = None,
) -> None:
    """Measure a trained detector: COCO metrics by pycocotools, over all and by class."""
    from evaluators.data.open import open_data
    from evaluators.detector.ap import coco_results
    from evaluators.judge import validate

    network, detector = _detector(checkpoint)
    images = open_data(data)
    if split not in images.splits:
        raise InputError(f"--split {split}: {data} has {', '.join(images.splits)}")
    if tuple(detector["names"]) != images.names:
        raise InputError(f"{checkpoint} detects {', '.join(detector['names'])}; {data} has {', '.join(images.names)}")
    size = imgsz or detector["imgsz"]
    check_imgsz(size)
    judgement, found = validate(network, images, split, size, device=resolved_device(device))
    for name, (ap, ap50) in judgement.per_class.items():
        typer.echo(f"  {name:20} AP {ap:.3f}  AP50 {ap50:.3f}")
    typer.echo(f"{split}: {_metrics_text(judgement.metrics)}")
    if save is not None:
        save.write_text(json.dumps(coco_results(images.splits[split], images.category_ids, found)))
        typer.echo(f"detections: {save}")


def predict(
    checkpoint: Annotated[Path, typer.Argument(help="best.pt or last.pt of gpnas train")],
    source: Annotated[Path, typer.Argument(help="an image, or a folder of images")],
    out: Annotated[Path | None, typer.Option(help="folder for the drawn images and predictions.json")] = None,
    score: Annotated[float, typer.Option(help="least score of a detection")] = 0.25,
    imgsz: Annotated[int | None, typer.Option(help="pixels (default: the size that it was trained at)")] = None,
    device: Device = "auto",
) -> None:
    """Detect objects in images: boxes drawn, and as JSON."""
    from evaluators.data.images import image_of
    from evaluators.predict import as_json, drawn, image_records, jpeg
    from evaluators.predict import predict as run_predict

    if not 0 <= score <= 1:
        raise InputError(f"--score {score}: must lie in [0, 1]")
    network, detector = _detector(checkpoint)
    size = imgsz or detector["imgsz"]
    check_imgsz(size)
    names, records = detector["names"], image_records(source)
    folder = out or new_run_folder("predict")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for record, found in run_predict(
        network, records, imgsz=size, names=names, least_score=score, device=resolved_device(device)
    ):
        path = record.path or source
        below = path.relative_to(source) if source.is_dir() else Path(path.name)
        to = folder / below.with_name(f"{below.name}.jpg")  # two files of one stem stay two
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(jpeg(drawn(image_of(record), found, names)))
        rows.append(as_json(record, found, names))
        typer.echo(f"{below}: {len(found)} objects")
    (folder / "predictions.json").write_text(json.dumps(rows, indent=1))
    typer.echo(f"{len(rows)} images, {sum(len(row['boxes']) for row in rows)} objects: {folder}, {folder}/predictions.json")


def _detector(checkpoint: Path) -> tuple[Network, dict[str, Any]]:
    """The network of a checkpoint with its weights, and the rest of what the checkpoint holds."""
    from evaluators.training.checkpoint import load_detector, load_weights
    from gpnas.graph.network import Network
    from search_spaces.architecture import candidate, read_architecture

    detector = load_detector(checkpoint)
    network = Network(candidate(read_architecture(detector["genotype"], str(checkpoint))).graph)
    load_weights(network, detector, checkpoint)
    return network, detector


def _epoch_line() -> Callable[[dict[str, Any]], None]:
    began = time.monotonic()

    def line(data: dict[str, Any]) -> None:
        from gpnas.units import clock

        parts = [f"[{clock(time.monotonic() - began)}] epoch {data['epoch']}/{data['epochs']}"]
        if "loss" in data:
            parts.append(f"loss {data['loss']:.3f}")
        parts += [f"{name.upper()} {data[name]:.3f}" for name in ("ap", "ap50") if name in data]
        typer.echo("  ".join(parts))

    return line


def _metrics_text(metrics: Any) -> str:
    return "  ".join(f"{name.replace('_', ' ').replace('ap', 'AP')} {value:.3f}" for name, value in metrics.items())
