"""Average precision (AP) as COCO defines it, computed by pycocotools (cocodataset.org, "Detection evaluation").

    coco_evaluation(data.splits["val"], data.names, detections).metrics["ap"]     # the mean over IoU 0.50 : 0.05 : 0.95

`detections[i]` holds the detections in the image of `records[i]`. Between the epochs of a training hotcoco may compute it
instead (github.com/derekallman/hotcoco, the extra `fast-eval`): many times as fast, and the same numbers (a test). Every number
that is reported is computed by pycocotools.
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
"""(n, 6): x1, y1, x2, y2 in pixels of the original image, score, index of the class."""

_METRICS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")  # the first six of COCOeval.stats
_ANY_AREA, _MOST_DETECTIONS = 0, -1  # indices into COCOeval's areas, and into its limits of detections (1, 10, 100)


class ClassAp(NamedTuple):
    """AP, the mean over IoU 0.50 : 0.05 : 0.95, and AP at IoU 0.5, of one class."""

    ap: float
    ap50: float


class CocoEvaluation(NamedTuple):
    """How well detections match the boxes of a split. All values lie in [0, 1].

    metrics: ap, ap50, ap75, ap_small, ap_medium, ap_large; a size that no object has is absent.
    per_class: the AP of each class that has objects, by name.
    precision_curves: the precision of each such class at IoU 0.5 and the 101 recalls 0, 0.01, ... 1.
    """

    metrics: dict[str, float]
    per_class: dict[str, ClassAp]
    precision_curves: dict[str, list[float]]


def coco_evaluation(
    records: Sequence[Record], names: Sequence[str], detections: Sequence[Detections], *, fast: bool = False
) -> CocoEvaluation:
    """Compare `detections` with the boxes of `records`; `names` are the names of the classes.

    fast: by hotcoco where it is installed, for numbers that are not reported; else by pycocotools.

    Raises DataError if the records hold no boxes at all (crowds do not count): AP is then not defined. Raises ValueError
    for detections of a wrong shape, with a number that is not finite, or of an unknown class.
    """
    coco_eval = _accumulated(records, names, detections, _fast_tools() if fast else _tools())
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval.summarize()
    # pycocotools writes -1 for a metric that is not defined.
    stats = zip(_METRICS, coco_eval.stats[: len(_METRICS)], strict=True)
    metrics = {name: float(value) for name, value in stats if value >= 0}
    # (10 IoU thresholds, 101 recalls, classes); -1 for a class without objects.
    precision = np.asarray(coco_eval.eval["precision"])[:, :, :, _ANY_AREA, _MOST_DETECTIONS]
    present = {name: precision[:, :, i] for i, name in enumerate(names) if (precision[:, :, i] >= 0).all()}
    per_class = {name: ClassAp(float(curves.mean()), float(curves[0].mean())) for name, curves in present.items()}
    return CocoEvaluation(metrics, per_class, {name: curves[0].tolist() for name, curves in present.items()})


def coco_results(
    records: Sequence[Record], category_ids: Sequence[int], detections: Sequence[Detections]
) -> list[dict[str, Any]]:
    """The entries of a COCO results file: image_id, category_id, bbox as x, y, width, height, and score.

    category_ids: the COCO id of each class. Raises ValueError for the detections that `coco_evaluation` refuses.
    """
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


class _Tools(NamedTuple):
    """The two classes of pycocotools, or those of a library with the same interface."""

    coco: Any
    coco_eval: Any


def _tools() -> _Tools:
    from pycocotools.coco import COCO  # late: only an evaluation needs it
    from pycocotools.cocoeval import COCOeval

    return _Tools(COCO, COCOeval)


def _fast_tools() -> _Tools:
    try:
        from hotcoco import COCO, COCOeval
    except ImportError:
        return _tools()
    return _Tools(COCO, COCOeval)


def _accumulated(records: Sequence[Record], names: Sequence[str], detections: Sequence[Detections], tools: _Tools) -> Any:
    """A COCOeval after its evaluate() and accumulate(). Its image ids are positions in `records`, whose own may repeat."""
    if all(record.crowd.all() for record in records):
        raise DataError("the records hold no boxes to judge detections by; give a split with labels")
    truth = [
        _annotation(i, box, int(label), float(area), iscrowd=int(crowd))
        for i, record in enumerate(records)
        for box, label, area, crowd in zip(record.boxes.tolist(), record.classes, record.areas, record.crowd, strict=True)
    ]
    detected = [
        _annotation(i, row[:4], int(row[5]), (row[2] - row[0]) * (row[3] - row[1]), score=row[4])
        for i, rows in enumerate(_checked(records, len(names), detections))
        for row in rows.tolist()
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        both = (_indexed(tools.coco(), records, names, rows) for rows in (truth, detected))
        coco_eval = tools.coco_eval(*both, "bbox")
        coco_eval.evaluate()
        coco_eval.accumulate()
    return coco_eval


def _checked(records: Sequence[Record], classes: int, detections: Sequence[Detections]) -> list[Detections]:
    """The detections as float64 (n, 6); ValueError for a wrong shape, number or class."""
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


def _indexed(coco: Any, records: Sequence[Record], names: Sequence[str], annotations: list[dict[str, Any]]) -> Any:
    coco.dataset = {
        "images": [{"id": i, "width": record.width, "height": record.height} for i, record in enumerate(records)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
        # Ids start at 1: pycocotools takes a match with annotation 0 for no match.
        "annotations": [annotation | {"id": i} for i, annotation in enumerate(annotations, 1)],
    }
    coco.createIndex()
    return coco
