"""The report of a full training as one HTML page: curves, precision over recall, AP by class, detections on sample images.

write_training_report(folder, title, history, evaluation)              # FOLDER/report.html
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from gpnas.files import write_text
from gpnas.report.drawing import (
    BOTTOM,
    HEIGHT,
    LEFT,
    LINE_STYLES,
    RIGHT,
    TOP,
    WIDTH,
    axis,
    drawing,
    empty,
    frame,
    line,
    page,
    table,
)
from gpnas.units import clock

LOSSES = ("loss", "box", "classes", "distribution")
SHOWN_CLASSES = 7
"""Precision over recall is drawn for the mean and for this many classes, those with the highest AP50."""


@dataclass(frozen=True)
class DetectorReport:
    """The measured quality of a trained detector on one split.

    metrics: COCO's, by name. per_class: (AP, AP50) by class name. precision_curves: by class name, precision at IoU 0.5 at the
    recalls 0, 0.01 ... 1. pictures: names and JPEG bytes of images with their detections.
    """

    split: str
    metrics: Mapping[str, float]
    per_class: Mapping[str, tuple[float, float]]
    precision_curves: Mapping[str, Sequence[float]]
    pictures: Sequence[tuple[str, bytes]]


def write_training_report(folder: Path, title: str, history: Sequence[Mapping[str, Any]], detector: DetectorReport) -> Path:
    """Write FOLDER/report.html and return its path. history: a row for each epoch, with the columns of results.csv."""
    path = folder / "report.html"
    write_text(path, page(f"gpnas: {folder.name}", _sections(title, history, detector)))
    return path


def _sections(title: str, history: Sequence[Mapping[str, Any]], detector: DetectorReport) -> list[str]:
    metrics = [(name.replace("ap", "AP").replace("_", " "), f"{value:.3f}") for name, value in detector.metrics.items()]
    classes = [(f"{ap:.3f}", f"{ap50:.3f}", name) for name, (ap, ap50) in detector.per_class.items()]
    seconds = float(history[-1]["seconds"]) if history else 0.0
    waiting = [float(row["waiting"]) for row in history if "waiting" in row]
    duration = f"{len(history)} epochs; the last session took {clock(seconds)}"
    if waiting:
        duration += f"; training steps waited for images {100 * sum(waiting) / len(waiting):.1f} % of the time"
    return [
        f"<h1>{escape(title)}</h1><p>{escape(duration)}</p>",
        f"<h2>On {escape(detector.split)}</h2>",
        table([name for name, _ in metrics], [[value for _, value in metrics]], text_from=len(metrics)),
        "<h2>Classes</h2>",
        table(("AP", "AP50", "class"), classes, text_from=2),
        _precision(detector),
        "<h2>Training</h2>",
        _curves("AP on val", history, ("ap", "ap50"), "AP"),
        _curves("Losses", history, LOSSES, "mean loss of a step"),
        _curves("Learning rate", history, ("lr",), "learning rate"),
        f"<h2>Detections on {escape(detector.split)}</h2>",
        *(_picture(name, content) for name, content in detector.pictures),
    ]


def _picture(name: str, content: bytes) -> str:
    data = base64.b64encode(content).decode()
    name = escape(name)
    return f'<figure><img alt="{name}" src="data:image/jpeg;base64,{data}"><figcaption>{name}</figcaption></figure>'


def _curves(title: str, history: Sequence[Mapping[str, Any]], columns: Sequence[str], label: str) -> str:
    """The columns over epochs. A line leaves out the epochs whose row lacks its column, such as AP without an evaluation."""
    lines = {name: [(float(row["epoch"]), float(row[name])) for row in history if name in row] for name in columns}
    lines = {name: points for name, points in lines.items() if points}
    return _lines(title, lines, "epoch", label)


def _precision(detector: DetectorReport) -> str:
    best = sorted(detector.precision_curves, key=lambda name: -detector.per_class[name][1])[:SHOWN_CLASSES]
    if not best:
        return empty("Precision over recall", "no class has objects")
    recalls = [k / 100 for k in range(101)]
    mean = [sum(values) / len(values) for values in zip(*detector.precision_curves.values(), strict=True)]
    lines = {name: list(zip(recalls, detector.precision_curves[name], strict=True)) for name in best}
    lines = {"mean": list(zip(recalls, mean, strict=True)), **lines}
    return _lines("Precision over recall at IoU 0.5", lines, "recall", "precision")


def _lines(title: str, lines: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str) -> str:
    points = [point for line_points in lines.values() for point in line_points]
    if not points:
        return empty(title, "nothing was measured")
    x = axis([value for value, _ in points], LEFT, WIDTH - RIGHT, x_label)
    y = axis([value for _, value in points], HEIGHT - BOTTOM, TOP, y_label, floor=0.0)
    parts = [frame(x, y)]
    for k, (name, line_points) in enumerate(lines.items()):
        parts.append(line([(x(p), y(q)) for p, q in line_points], f"line{k % LINE_STYLES}", name))
    legend = [(f"line line{k % LINE_STYLES}", name) for k, name in enumerate(lines)]
    return drawing(title, f"{', '.join(lines)} over {x_label}", parts, legend)
