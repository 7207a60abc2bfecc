"""Average precision as COCO defines it, judged by pycocotools (cocodataset.org, "Detection evaluation").

    coco_metrics(data.splits["val"], data.names, detections)["ap"]     # the mean over IoU 0.50 : 0.05 : 0.95

`detections[i]` belongs to `records[i]`: float (n, 6), x1, y1, x2, y2 in pixels of the original image, score, class index.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluators.data.records import Record
from gpnas.errors import DataError

Detections = NDArray[Any]

_METRICS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")  # the first six of COCOeval.stats


class Judgement(NamedTuple):
    """What COCOeval finds of detections on a split.

    metrics: ap, ap50, ap75, ap_small, ap_medium, ap_large in [0, 1]; a size of which there are no objects is absent.
    classes: AP and AP50 of each class that has objects, by name. precision: at IoU 0.5, of each such class, at the 101 recalls
    0, 0.01, ... 1.
    """

    metrics: dict[str, float]
    classes: dict[str, tuple[float, float]]
    precision: dict[str, list[float]]


def coco_judgement(records: Sequence[Record], names: Sequence[str], detections: Sequence[Detections]) -> Judgement:
    """Raises DataError if the records hold no boxes at all (crowds do not count): AP is then not defined."""
    judge = _judged(records, names, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        judge.summarize()
    # pycocotools marks what it could not judge by -1.
    metrics = {name: float(v) for name, v in zip(_METRICS, judge.stats[: len(_METRICS)], strict=True) if v >= 0}
    # (IoU thresholds, recalls, classes) at all areas and 100 detections an image; -1 for a class without objects.
    precision = judge.eval["precision"][:, :, :, 0, -1]
    known = [(i, name) for i, name in enumerate(names) if (precision[:, :, i] >= 0).all()]
    classes = {name: (float(precision[:, :, i].mean()), float(precision[0, :, i].mean())) for i, name in known}
    return Judgement(metrics, classes, {name: precision[0, :, i].tolist() for i, name in known})


def coco_metrics(records: Sequence[Record], names: Sequence[str], detections: Sequence[Detections]) -> dict[str, float]:
    """The metrics of `coco_judgement`."""
    return coco_judgement(records, names, detections).metrics


def coco_results(
    records: Sequence[Record], category_ids: Sequence[int], detections: Sequence[Detections]
) -> list[dict[str, Any]]:
    """The entries of a COCO results file: image_id, category_id, bbox as x, y, width, height, and score."""
    return [
        {
            "image_id": record.image_id,
            "category_id": category_ids[int(label)],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        for record, rows in zip(records, _checked(records, len(category_ids), detections), strict=True)
        for x1, y1, x2, y2, score, label in rows.tolist()
    ]


def _judged(records: Sequence[Record], names: Sequence[str], detections: Sequence[Detections]) -> Any:
    """A COCOeval that has matched and accumulated. Images are known by their place: image ids need not be unique."""
    from pycocotools.coco import COCO  # late: only judging needs it
    from pycocotools.cocoeval import COCOeval

    if all(record.crowd.all() for record in records):
        raise DataError("the records hold no boxes to judge detections by; give a split with labels")
    truth = [
        _annotation(i, box, int(label), float(area), iscrowd=int(crowd))
        for i, record in enumerate(records)
        for box, label, area, crowd in zip(record.boxes.tolist(), record.classes, record.areas, record.crowd, strict=True)
    ]
    found = [
        _annotation(i, row[:4], int(row[5]), (row[2] - row[0]) * (row[3] - row[1]), score=row[4])
        for i, rows in enumerate(_checked(records, len(names), detections))
        for row in rows.tolist()
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells its progress by print
        judge = COCOeval(*(_indexed(COCO(), len(records), names, rows) for rows in (truth, found)), "bbox")
        judge.evaluate()
        judge.accumulate()
    return judge


def _checked(records: Sequence[Record], classes: int, detections: Sequence[Detections]) -> list[Detections]:
    """The detections as float64 (n, 6); ValueError for a shape, a number or a class that cannot be."""
    if len(detections) != len(records):
        raise ValueError(f"{len(records)} records need as many arrays of detections, got {len(detections)}")
    checked = []
    for i, array in enumerate(detections):
        rows = np.asarray(array, dtype=np.float64)
        if rows.shape != (len(rows), 6):
            raise ValueError(f"detections of record {i} have the shape {rows.shape}, not (n, 6)")
        if not np.isfinite(rows).all():
            raise ValueError(f"detections of record {i} are not finite: {rows[~np.isfinite(rows).all(axis=1)][0]}")
        labels = rows[:, 5]
        if not np.isin(labels, np.arange(classes)).all():
            raise ValueError(f"detections of record {i} have classes {np.unique(labels)}, not all in 0..{classes - 1}")
        checked.append(rows)
    return checked


def _annotation(image: int, box: Sequence[float], label: int, area: float, **more: float) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    entry = {"image_id": image, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": area, "iscrowd": 0}
    return entry | more


def _indexed(coco: Any, images: int, names: Sequence[str], annotations: list[dict[str, Any]]) -> Any:
    coco.dataset = {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
        # From 1: pycocotools takes a match with annotation 0 for no match.
        "annotations": [annotation | {"id": i} for i, annotation in enumerate(annotations, 1)],
    }
    coco.createIndex()
    return coco
