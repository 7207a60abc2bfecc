"""The table of YOLOBench (arXiv:2307.13901): AP on Pascal VOC after 100 epochs from scratch, and latency on six devices.

    detectors = read_yolobench(Path("yolobench"))               # a folder with the two files
    detectors[0].structure, detectors[0].imgsz, detectors[0].ap, detectors[0].latencies["nano_gpu"]

The files are those of https://github.com/Deeplite/deeplite-torch-zoo/tree/develop/results/yolobench.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gpnas.errors import InputError

ACCURACIES, LATENCIES = "VOC_scratch_100epochs.csv", "YOLO_latency.csv"

NAME, AP = "model_name", "mAP_0.5:0.95"

DEVICES = {
    "nano_gpu": "Jetson Nano, GPU",
    "openvino": "Intel CPU, OpenVINO",
    "vim3": "Khadas VIM3, NPU",
    "raspi4_tflite": "Raspberry Pi 4, TFLite",
    "orange_pi": "Orange Pi",
    "a40_trt": "A40, TensorRT",
}
"""The devices by the name of their column without `_latency`."""


class TrainedDetector(NamedTuple):
    """structure, imgsz: the two parts of the published name; imgsz in pixels. ap: IoU 0.50 to 0.95, in [0, 1]. latencies: of
    one image, in seconds, by DEVICES."""

    structure: str
    imgsz: int
    ap: float
    latencies: Mapping[str, float]


def is_yolobench(folder: Path) -> bool:
    """Whether a folder is meant to be the table: it has one of the two files."""
    return any((folder / name).exists() for name in (ACCURACIES, LATENCIES))


def read_yolobench(folder: Path) -> list[TrainedDetector]:
    """The detectors in the order of the table. Raises InputError that names file, line and column."""
    aps = _read(folder / ACCURACIES, [AP])
    columns = [f"{device}_latency" for device in DEVICES]
    latencies = _read(folder / LATENCIES, columns)
    unmatched = sorted(aps.keys() ^ latencies.keys())
    if unmatched:
        raise InputError(f"--table {folder}: {unmatched[0]} is in one of {ACCURACIES} and {LATENCIES} alone; give whole files")
    return [
        TrainedDetector(*_parts(name, folder / ACCURACIES), ap, dict(zip(DEVICES, latencies[name], strict=True)))
        for name, (ap,) in aps.items()
    ]


def _read(path: Path, columns: Sequence[str]) -> dict[str, list[float]]:
    """The numbers in these columns, by the name of the detector."""
    try:
        reader = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--table {path}: cannot be read ({error}); it takes {ACCURACIES} and {LATENCIES}") from None
    missing = [column for column in (NAME, *columns) if column not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"--table {path}: has no column {missing[0]}; give the file as YOLOBench publishes it")
    rows: dict[str, list[float]] = {}
    for row in reader:
        name = row[NAME]
        if name in rows:
            raise InputError(f"--table {path}: line {reader.line_num}: {name} is there twice; remove one line")
        rows[name] = [_number(row[column], f"--table {path}: line {reader.line_num}: {column}") for column in columns]
    if not rows:
        raise InputError(f"--table {path}: has no line below its header; give the file as YOLOBench publishes it")
    return rows


def _number(text: str | None, where: str) -> float:
    """A positive number: an AP of 0 or a latency of 0 is a measurement that failed."""
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{where} must be a number above 0, got {text!r}; correct or remove the line")
    return value


def _parts(name: str, path: Path) -> tuple[str, int]:
    structure, _, imgsz = name.rpartition("_")
    if not structure or not imgsz.isdecimal() or int(imgsz) % 32 or int(imgsz) < 32:
        raise InputError(f"--table {path}: {name!r} is no structure_pixels such as yolo3n_320, with pixels a multiple of 32")
    return structure, int(imgsz)
