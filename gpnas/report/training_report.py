"""A full training as one HTML file: curves, precision over recall, AP of each class, and detections on images of the split.

write_training_report(folder, history, judged)              # FOLDER/report.html
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from gpnas.files import write_text
from gpnas.report.drawing import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, axis, drawing, empty, frame, line, page, table
from gpnas.units import clock

LOSSES = ("loss", "box", "classes", "distribution")
SHOWN_CLASSES = 7
"""Precision over recall is drawn for the mean and for so many classes with the most AP; the table has them all."""


@dataclass(frozen=True)
class Judged:
    """metrics: COCO's on `split`. classes: (AP, AP50) by name. precision: at IoU 0.5, at recalls 0 to 1, by name. pictures:
    names and JPEG bytes of images with their detections."""

    split: str
    metrics: Mapping[str, float]
    classes: Mapping[str, tuple[float, float]]
    precision: Mapping[str, Sequence[float]]
    pictures: Sequence[tuple[str, bytes]]


def write_training_report(folder: Path, title: str, history: Sequence[Mapping[str, Any]], judged: Judged) -> Path:
    """history: a row an epoch, with the columns of results.csv."""
    path = folder / "report.html"
    write_text(path, page(f"gpnas: {folder.name}", _sections(title, history, judged)))
    return path


def _sections(title: str, history: Sequence[Mapping[str, Any]], judged: Judged) -> list[str]:
    metrics = [(name.replace("ap", "AP").replace("_", " "), f"{value:.3f}") for name, value in judged.metrics.items()]
    classes = [(f"{ap:.3f}", f"{ap50:.3f}", name) for name, (ap, ap50) in judged.classes.items()]
    seconds = float(history[-1]["seconds"]) if history else 0.0
    waiting = [float(row["waiting"]) for row in history if "waiting" in row]
    told = f"{len(history)} epochs, the last session of them in {clock(seconds)}"
    if waiting:
        told += f"; steps waited for images {100 * sum(waiting) / len(waiting):.1f} % of the time"
    return [
        f"<h1>{escape(title)}</h1><p>{escape(told)}</p>",
        f"<h2>On {escape(judged.split)}</h2>",
        table([name for name, _ in metrics], [[value for _, value in metrics]], text_from=len(metrics)),
        "<h2>Classes</h2>",
        table(("AP", "AP50", "class"), classes, text_from=2),
        _precision(judged),
        "<h2>Training</h2>",
        _curves("AP on val", history, ("ap", "ap50"), "AP"),
        _curves("Losses", history, LOSSES, "loss of a step, mean"),
        _curves("Learning rate", history, ("lr",), "learning rate"),
        f"<h2>Detections on {escape(judged.split)}</h2>",
        *(_picture(name, content) for name, content in judged.pictures),
    ]


def _picture(name: str, content: bytes) -> str:
    data = base64.b64encode(content).decode()
    name = escape(name)
    return f'<figure><img alt="{name}" src="data:image/jpeg;base64,{data}"><figcaption>{name}</figcaption></figure>'


def _curves(title: str, history: Sequence[Mapping[str, Any]], columns: Sequence[str], label: str) -> str:
    """The columns over epochs; rows without one (no evaluation after that epoch) are left out of its line."""
    lines = {name: [(float(row["epoch"]), float(row[name])) for row in history if name in row] for name in columns}
    lines = {name: points for name, points in lines.items() if points}
    return _lines(title, lines, "epoch", label)


def _precision(judged: Judged) -> str:
    best = sorted(judged.precision, key=lambda name: -judged.classes[name][1])[:SHOWN_CLASSES]
    steps = range(101)
    if not best:
        return empty("Precision over recall", "no class has objects")
    mean = [sum(values[k] for values in judged.precision.values()) / len(judged.precision) for k in steps]
    lines = {"mean": list(zip((k / 100 for k in steps), mean, strict=True))}
    lines |= {name: [(k / 100, judged.precision[name][k]) for k in steps] for name in best}
    return _lines("Precision over recall at IoU 0.5", lines, "recall", "precision")


def _lines(title: str, lines: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str) -> str:
    points = [point for of in lines.values() for point in of]
    if not points:
        return empty(title, "nothing was measured")
    x = axis([p for p, _ in points], LEFT, WIDTH - RIGHT, across)
    y = axis([q for _, q in points], HEIGHT - BOTTOM, TOP, up, floor=0.0)
    parts = [frame(x, y)]
    for k, (name, of) in enumerate(lines.items()):
        parts.append(line([(x(p), y(q)) for p, q in of], f"line{k % 8}", name))
    legend = [(f"line line{k % 8}", name) for k, name in enumerate(lines)]
    return drawing(title, f"{', '.join(lines)} over {across}", parts, legend)
